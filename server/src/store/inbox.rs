//! Inboxes on disk: the log of each user, the messages and outcomes in it, and the ids that are remembered.
//!
//! What a node needs to decide is apart from the messages themselves, so that a start reads a hundred bytes of each and not
//! the whole. Positions of one inbox have no gap; one that has is damaged.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row, Transaction, params, types::ValueRef};
use socp::{
    id::{ContentHash, DeviceId, MessageId, ServerId, hex},
    inbox::{Content, Cursor, Entry, Inbox, Kept, Mail, Reader, Remembered, Stored},
    limits::{REPLAY_BYTES, REPLAY_ENTRIES_MAX},
    message::{Address, Authorship, Message},
    name::UserName,
    v1::{ReceivedMessage, ReceivedOutcome, SealedMessage, SignedOutcome, attach_response::Event},
};

use super::{StorageError, Store, outbox};

/// Tables of this file, as of the fourth form of the database.
pub(super) const TABLES: &str = "
    CREATE TABLE inbox (
        user TEXT PRIMARY KEY REFERENCES account,
        dropped INTEGER NOT NULL,
        dropped_mark BLOB NOT NULL CHECK (length(dropped_mark) = 8)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE entry (
        user TEXT NOT NULL REFERENCES account,
        position INTEGER NOT NULL,
        hash BLOB NOT NULL CHECK (length(hash) = 32),
        bytes INTEGER NOT NULL,
        sender_home BLOB NOT NULL CHECK (length(sender_home) = 32),
        sender TEXT NOT NULL,
        received_unix_ms INTEGER NOT NULL,
        PRIMARY KEY (user, position)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE message (
        user TEXT NOT NULL,
        position INTEGER NOT NULL,
        statement BLOB NOT NULL,
        signature BLOB NOT NULL,
        wrapped_key BLOB NOT NULL,
        PRIMARY KEY (user, position)
    ) STRICT;
    CREATE TABLE remembered (
        home BLOB NOT NULL CHECK (length(home) = 32),
        sender TEXT NOT NULL,
        id BLOB NOT NULL CHECK (length(id) = 16),
        hash BLOB NOT NULL CHECK (length(hash) = 32),
        until_unix_ms INTEGER NOT NULL,
        PRIMARY KEY (home, sender, id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX remembered_until ON remembered (until_unix_ms);
";

/// Tables as of the fifth form.
pub(super) const READERS: &str = "
    CREATE TABLE reader (
        user TEXT NOT NULL REFERENCES account,
        device BLOB NOT NULL CHECK (length(device) IN (0, 16)),
        read INTEGER NOT NULL,
        seen_unix_ms INTEGER NOT NULL,
        PRIMARY KEY (user, device)
    ) STRICT, WITHOUT ROWID;
";

/// The sender of an outcome.
const NOBODY: &str = "";

impl Store {
    /// Reads all that a node needs of messages.
    pub(super) fn mail(&self) -> Result<Mail, StorageError> {
        let dropped = self.rows("SELECT user, dropped, dropped_mark FROM inbox ORDER BY user", |row| {
            Ok((row.get::<_, String>(0)?, Cursor { position: row.get(1)?, mark: row.get(2)? }))
        })?;
        let inbox = |(user, dropped): (String, Cursor)| Ok((user.clone(), self.inbox(&user, dropped)?));
        let mut inboxes = dropped.into_iter().map(inbox).collect::<Result<BTreeMap<_, _>, StorageError>>()?;
        let query = "SELECT user, position, hash, bytes, sender_home, sender, received_unix_ms FROM entry
                     ORDER BY user, position";
        let entries = self.rows(query, |row| {
            let meta = (row.get::<_, [u8; 32]>(2)?, row.get(3)?, row.get::<_, [u8; 32]>(4)?);
            Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?, meta, row.get::<_, String>(5)?, row.get(6)?))
        })?;
        for (user, position, (hash, bytes, home), sender, received_unix_ms) in entries {
            let inbox = inboxes.get_mut(&user).ok_or_else(|| self.damaged(format!("`{user}` has no inbox")))?;
            if position != inbox.dropped.position + inbox.kept.len() as u64 + 1 {
                return Err(self.damaged(format!("the inbox of `{user}` has a gap before position {position}")));
            }
            let sender = match &*sender {
                NOBODY => None,
                sender => Some(Address { home: self.server(&home)?, user: self.user(sender)? }),
            };
            inbox.kept.push(Kept { hash: self.hash(&hash)?, bytes, sender, received_unix_ms });
        }
        let readers = self
            .rows("SELECT user, device, read, seen_unix_ms FROM reader ORDER BY user, device", |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?, row.get(2)?, row.get(3)?))
            })?;
        for (user, device, read, seen_unix_ms) in readers {
            if !inboxes.contains_key(&user) {
                inboxes.insert(user.clone(), self.inbox(&user, Cursor::default())?);
            }
            let inbox = inboxes.get_mut(&user).expect("it was just put in");
            // None, or 16 bytes.
            inbox.readers.push(Reader { device: DeviceId::from_bytes(&device), read, seen_unix_ms });
        }
        let query = "SELECT home, sender, id, hash, recipients, until_unix_ms FROM remembered ORDER BY until_unix_ms";
        let remembered = self.rows(query, |row| {
            let ids = (row.get::<_, [u8; 32]>(0)?, row.get::<_, [u8; 16]>(2)?, row.get::<_, [u8; 32]>(3)?);
            Ok((row.get::<_, String>(1)?, ids, row.get(4)?, row.get(5)?))
        })?;
        let remembered = remembered.into_iter().map(|(sender, (home, id, hash), recipients, until_unix_ms)| {
            let id = MessageId::from_bytes(&id).ok_or_else(|| self.damaged("a message id is none".into()))?;
            Ok(Remembered {
                home: self.server(&home)?,
                sender: self.user(&sender)?,
                id,
                hash: self.hash(&hash)?,
                recipients,
                until_unix_ms,
            })
        });
        let inboxes = inboxes.into_values().collect();
        let remembered = remembered.collect::<Result<_, _>>()?;
        Ok(Mail { inboxes, remembered, queued: self.queued()?, channel: self.channel()? })
    }

    fn inbox(&self, user: &str, dropped: Cursor) -> Result<Inbox, StorageError> {
        Ok(Inbox { user: self.user(user)?, dropped, kept: Vec::new(), readers: Vec::new() })
    }

    pub(super) fn user(&self, name: &str) -> Result<UserName, StorageError> {
        UserName::parse(name).map_err(|_| self.damaged(format!("`{name}` is no user's name")))
    }

    pub(super) fn server(&self, id: &[u8; 32]) -> Result<ServerId, StorageError> {
        ServerId::from_bytes(id).ok_or_else(|| self.damaged("a server's id is none".into()))
    }

    pub(super) fn hash(&self, hash: &[u8; 32]) -> Result<ContentHash, StorageError> {
        ContentHash::from_bytes(hash).ok_or_else(|| self.damaged("a hash is none".into()))
    }
}

/// Puts an entry at the end of an inbox; remembers the id of a message, and takes one that is settled out of the queue.
pub(super) fn insert(transaction: &Transaction<'_>, entry: &Entry) -> rusqlite::Result<()> {
    let Entry { user, position, received_unix_ms, content } = entry;
    let mut begin = transaction.prepare_cached("INSERT OR IGNORE INTO inbox VALUES (?1, 0, zeroblob(8))")?;
    if *position == 1 {
        begin.execute([user.as_str()])?;
    }
    let (home, sender) = entry.sender().map_or((&[0; 32], NOBODY), |from| (from.home.as_bytes(), from.user.as_str()));
    transaction.prepare_cached("INSERT INTO entry VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute(params![
        user.as_str(),
        position,
        entry.hash().as_bytes(),
        entry.bytes(),
        home,
        sender,
        received_unix_ms,
    ])?;
    match content {
        Content::Message { message, id_until_unix_ms } => {
            keep_message(transaction, user, *position, message, *id_until_unix_ms)
        }
        Content::Outcome(settled) => outbox::settle(transaction, entry, settled),
    }
}

fn keep_message(
    transaction: &Transaction<'_>,
    user: &UserName,
    position: u64,
    message: &Message,
    id_until_unix_ms: u64,
) -> rusqlite::Result<()> {
    let sealed = &message.sealed;
    transaction.prepare_cached("INSERT INTO message VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
        user.as_str(),
        position,
        &sealed.statement[..],
        &sealed.signature[..],
        &sealed.wrapped_key[..],
    ])?;
    remember(transaction, &message.authorship, 1, id_until_unix_ms)
}

/// Remembers the id of a message or post.
pub(super) fn remember(
    transaction: &Transaction<'_>,
    authorship: &Authorship,
    recipients: u32,
    until_unix_ms: u64,
) -> rusqlite::Result<()> {
    let Authorship { sender, id, hash, .. } = authorship;
    // An id that had to be forgotten in memory may come again.
    let mut keep = transaction.prepare_cached("INSERT OR REPLACE INTO remembered VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    let (home, user) = (sender.home.as_bytes(), sender.user.as_str());
    keep.execute(params![home, user, id.as_bytes(), hash.as_bytes(), until_unix_ms, recipients]).map(drop)
}

/// Drops the oldest entries of an inbox.
pub(super) fn drop_up_to(transaction: &Transaction<'_>, user: &UserName, up_to: Cursor) -> rusqlite::Result<()> {
    let of = params![user.as_str(), up_to.position];
    transaction.prepare_cached("DELETE FROM entry WHERE user = ?1 AND position <= ?2")?.execute(of)?;
    transaction.prepare_cached("DELETE FROM message WHERE user = ?1 AND position <= ?2")?.execute(of)?;
    transaction.prepare_cached("DELETE FROM outcome WHERE user = ?1 AND position <= ?2")?.execute(of)?;
    let mut note = transaction.prepare_cached("UPDATE inbox SET dropped = ?2, dropped_mark = ?3 WHERE user = ?1")?;
    super::one(note.execute(params![user.as_str(), up_to.position, up_to.mark])?)
}

/// Puts the devices of a user in place of those that were known.
pub(super) fn keep_readers(transaction: &Transaction<'_>, user: &UserName, readers: &[Reader]) -> rusqlite::Result<()> {
    transaction.prepare_cached("DELETE FROM reader WHERE user = ?1")?.execute([user.as_str()])?;
    let mut keep = transaction.prepare_cached("INSERT INTO reader VALUES (?1, ?2, ?3, ?4)")?;
    readers.iter().try_for_each(|Reader { device, read, seen_unix_ms }| {
        let device = device.as_ref().map_or(&[][..], |device| device.as_bytes());
        keep.execute(params![user.as_str(), device, read, seen_unix_ms]).map(drop)
    })
}

/// Forgets ids whose time is over.
pub(super) fn forget_ids(transaction: &Transaction<'_>, before_unix_ms: u64) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM remembered WHERE until_unix_ms < ?1", [before_unix_ms]).map(drop)
}

/// Reads entries of an inbox after a position, as many as one page holds.
pub(super) fn page(database: &Connection, user: &UserName, after: u64) -> rusqlite::Result<Vec<Stored>> {
    let mut query = database.prepare_cached(
        "SELECT position, received_unix_ms, coalesce(message.statement, outcome.statement),
             coalesce(message.signature, outcome.signature), wrapped_key, home_key, message_id, recipient,
             recipient_home
         FROM entry LEFT JOIN message USING (user, position) LEFT JOIN outcome USING (user, position)
         WHERE user = ?1 AND position > ?2 ORDER BY position LIMIT ?3",
    )?;
    let mut rows = query.query(params![user.as_str(), after, REPLAY_ENTRIES_MAX])?;
    let mut page = Vec::new();
    let mut bytes = 0;
    while bytes < REPLAY_BYTES
        && let Some(row) = rows.next()?
    {
        let event = event(row)?;
        bytes += event.encoded_len();
        page.push(Stored { position: row.get(0)?, event });
    }
    Ok(page)
}

/// An entry as devices are told of it.
fn event(row: &Row<'_>) -> rusqlite::Result<Event> {
    let part = |column| row.get::<_, Vec<u8>>(column).map(Into::into);
    let received_unix_ms = row.get(1)?;
    let (statement, signature) = (part(2)?, part(3)?);
    if row.get_ref(4)? != ValueRef::Null {
        let sealed = SealedMessage { statement, signature, wrapped_key: part(4)? };
        return Ok(Event::Message(ReceivedMessage { message: Some(sealed), received_unix_ms }));
    }
    Ok(Event::Outcome(ReceivedOutcome {
        outcome: Some(SignedOutcome { statement, signature, home_key: part(5)? }),
        message_id: MessageId::from_bytes(&row.get(6)?).map(|id| id.to_string()).unwrap_or_default(),
        recipient: row.get(7)?,
        recipient_home_id: hex(&row.get::<_, [u8; 32]>(8)?),
        received_unix_ms,
    }))
}

#[cfg(test)]
pub(super) mod tests;
