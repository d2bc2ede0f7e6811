//! Outboxes on disk: messages that wait for the recipients' homes, and what became of them in the senders' inboxes.

use rusqlite::{Transaction, params};
use socp::{
    inbox::{Entry, Settled},
    message::Message,
    outbox::Queued,
    v1::SealedMessage,
};

use super::{StorageError, Store};

/// Tables of this file, as of the sixth form of the database. An outcome is the other half of an entry of its sender's inbox, as
/// a message is of one of its recipient's; such an entry has no sender.
pub(super) const TABLES: &str = "
    CREATE TABLE queued (
        number INTEGER PRIMARY KEY,
        received_unix_ms INTEGER NOT NULL,
        statement BLOB NOT NULL,
        signature BLOB NOT NULL,
        wrapped_key BLOB NOT NULL
    ) STRICT;
    CREATE TABLE outcome (
        user TEXT NOT NULL,
        position INTEGER NOT NULL,
        statement BLOB NOT NULL,
        signature BLOB NOT NULL,
        home_key BLOB NOT NULL,
        message_id BLOB NOT NULL CHECK (length(message_id) = 16),
        recipient TEXT NOT NULL,
        recipient_home BLOB NOT NULL CHECK (length(recipient_home) = 32),
        PRIMARY KEY (user, position)
    ) STRICT, WITHOUT ROWID;
";

impl Store {
    /// Reads all messages that are queued.
    pub(super) fn queued(&self) -> Result<Vec<Queued>, StorageError> {
        let query = "SELECT number, received_unix_ms, statement, signature, wrapped_key FROM queued ORDER BY number";
        let rows = self.rows(query, |row| {
            let part = |column| row.get::<_, Vec<u8>>(column).map(Into::into);
            let sealed = SealedMessage { statement: part(2)?, signature: part(3)?, wrapped_key: part(4)? };
            Ok((row.get(0)?, row.get(1)?, sealed))
        })?;
        let queued = rows.into_iter().map(|(number, received_unix_ms, sealed)| {
            let message = Message::parse(&sealed)
                .map_err(|rejection| self.damaged(format!("queued message {number} cannot be read: {rejection}")))?;
            Ok(Queued { number, received_unix_ms, message })
        });
        queued.collect()
    }
}

/// Puts a message into the queue.
pub(super) fn queue(transaction: &Transaction<'_>, queued: &Queued) -> rusqlite::Result<()> {
    let Queued { number, received_unix_ms, message } = queued;
    let sealed = &message.sealed;
    let mut queue = transaction.prepare_cached("INSERT INTO queued VALUES (?1, ?2, ?3, ?4, ?5)")?;
    let parts = (&sealed.statement[..], &sealed.signature[..], &sealed.wrapped_key[..]);
    queue.execute(params![number, received_unix_ms, parts.0, parts.1, parts.2]).map(drop)
}

/// Takes a message out of the queue.
pub(super) fn unqueue(transaction: &Transaction<'_>, number: u64) -> rusqlite::Result<()> {
    super::one(transaction.prepare_cached("DELETE FROM queued WHERE number = ?1")?.execute([number])?)
}

/// Keeps what became of a queued message, which is queued no more.
pub(super) fn settle(transaction: &Transaction<'_>, entry: &Entry, settled: &Settled) -> rusqlite::Result<()> {
    let Settled { number, id, recipient, signed } = settled;
    unqueue(transaction, *number)?;
    let mut keep = transaction.prepare_cached("INSERT INTO outcome VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
    keep.execute(params![
        entry.user.as_str(),
        entry.position,
        &signed.statement[..],
        &signed.signature[..],
        &signed.home_key[..],
        id.as_bytes(),
        recipient.user.as_str(),
        recipient.home.as_bytes(),
    ])
    .map(drop)
}
