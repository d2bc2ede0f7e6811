//! What a server keeps on disk: its epoch, the users with their statements and moves, the hashes of unused invites, whom of
//! the other servers it believes, the users' inboxes and the public channel's log.
//!
//! SQLite with a write-ahead log and `synchronous=FULL`, so what a call reports as done is on disk. Statements are kept as
//! received and read again through the same parser as at registration. No SQL stands outside this file
//! and those under it; the running server knows it as a [`Storage`].

pub mod backup;
mod channel;
mod check;
mod error;
mod inbox;
mod log;
mod outbox;
mod reader;
mod trust;

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior, params};
use socp::{
    account::Account,
    moves::Move,
    name::UserName,
    output::Record,
    statement::KeyStatement,
    v1::{SignedKeyStatement, SignedMove},
};

/// Steps from an empty database to the present form; the database's `user_version` counts those taken.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE server (
        only INTEGER PRIMARY KEY CHECK (only = 0),
        epoch INTEGER NOT NULL
    ) STRICT;
    INSERT INTO server VALUES (0, 0);
    CREATE TABLE account (
        user TEXT PRIMARY KEY,
        display_name TEXT NOT NULL,
        created_unix_ms INTEGER NOT NULL,
        disabled INTEGER NOT NULL CHECK (disabled IN (0, 1))
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE statement (
        user TEXT NOT NULL REFERENCES account,
        number INTEGER NOT NULL,
        statement BLOB NOT NULL,
        signature BLOB NOT NULL,
        previous_signature BLOB NOT NULL,
        PRIMARY KEY (user, number)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE invite (
        hash BLOB PRIMARY KEY CHECK (length(hash) = 32)
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE move (
        user TEXT PRIMARY KEY REFERENCES account,
        statement BLOB NOT NULL,
        signature BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE admission (
        issuer BLOB NOT NULL CHECK (length(issuer) = 32),
        subject BLOB NOT NULL CHECK (length(subject) = 32),
        statement BLOB NOT NULL,
        signature BLOB NOT NULL,
        by_operator INTEGER NOT NULL CHECK (by_operator IN (0, 1)),
        PRIMARY KEY (issuer, subject)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE server_name (
        server BLOB PRIMARY KEY CHECK (length(server) = 32),
        name TEXT NOT NULL UNIQUE
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE blocked (
        server BLOB PRIMARY KEY CHECK (length(server) = 32)
    ) STRICT, WITHOUT ROWID;
",
    inbox::TABLES,
    inbox::READERS,
    outbox::TABLES,
    channel::TABLES,
];

pub use self::check::Checked;
use self::{error::failure, reader::Reader};
use crate::{
    data_folder::sync_name,
    storage::{Loaded, Pages, Storage, StorageError},
};

/// An open database. One process has it; that is the data folder's lock.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    database: Connection,
}

impl Store {
    /// Opens a database, and makes it where there is none. One of an earlier form is brought to the present one, with a copy
    /// left beside it; one that was not closed properly is looked over first.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        let log = path.with_extension("db-wal");
        let unclean = fs::metadata(log).is_ok_and(|log| log.len() > 0);
        // SQLite takes the mode of the database for the files beside it, too.
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .and_then(|_| sync_name(path))
            .map_err(|source| StorageError::Open { path: path.to_owned(), source })?;
        let mut store = Self::open_as_it_is(path)?;
        if unclean {
            store.look_over()?;
        }
        store.migrate()?;
        Ok(store)
    }

    /// Opens a database that is there, in whatever form it is, unless that is a later one.
    pub fn open_as_it_is(path: &Path) -> Result<Self, StorageError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Connection::open_with_flags(path, flags).map_err(|source| failure(path, source))?;
        let store = Self { path: path.to_owned(), database };
        store.prepare().map_err(|error| store.failed(error))?;
        form(&store)?;
        Ok(store)
    }

    fn prepare(&self) -> rusqlite::Result<()> {
        self.database.pragma_update(None, "journal_mode", "WAL")?;
        self.database.pragma_update(None, "synchronous", "FULL")?;
        log::note(&self.database);
        self.database.pragma_update(None, "foreign_keys", true)?;
        self.database.pragma_update(None, "trusted_schema", false)
    }

    fn migrate(&mut self) -> Result<(), StorageError> {
        let found = form(self)?;
        if found > 0 && found < MIGRATIONS.len() {
            self.back_up(found)?;
        }
        for (taken, step) in MIGRATIONS.iter().enumerate().skip(found) {
            self.transact(|transaction| {
                transaction.execute_batch(step)?;
                transaction.pragma_update(None, "user_version", taken + 1)
            })?;
        }
        Ok(())
    }

    /// Copies the database to a file named after its form, which an earlier copy of that form makes way for.
    fn back_up(&self, form: usize) -> Result<(), StorageError> {
        let path = self.path.with_extension(format!("form-{form}.db"));
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StorageError::Copy { path, source }),
            _ => backup::copy(&self.database, &self.path, &path),
        }
    }

    /// Reads a user's chain; each statement must be the user's and follow the one before it.
    fn statements(&self, user: &str) -> Result<Vec<KeyStatement>, StorageError> {
        let query = "SELECT statement, signature, previous_signature FROM statement WHERE user = ?1 ORDER BY number";
        let read = || -> rusqlite::Result<Vec<SignedKeyStatement>> {
            self.database
                .prepare_cached(query)?
                .query_map([user], |row| {
                    let part = |column| row.get::<_, Vec<u8>>(column).map(Into::into);
                    Ok(SignedKeyStatement { statement: part(0)?, signature: part(1)?, previous_signature: part(2)? })
                })?
                .collect()
        };
        let mut chain: Vec<KeyStatement> = Vec::new();
        for signed in read().map_err(|error| self.failed(error))? {
            let statement = KeyStatement::parse(&signed).map_err(|rejection| {
                self.damaged(format!("a key statement of `{user}` cannot be read: {rejection}"))
            })?;
            let in_place = match chain.last() {
                None => statement.number == 1 && statement.user.as_str() == user,
                Some(previous) => statement.follows(previous),
            };
            if !in_place {
                return Err(self.damaged(format!("the key statements of `{user}` are not a chain")));
            }
            chain.push(statement);
        }
        if chain.is_empty() {
            return Err(self.damaged(format!("`{user}` has no key statement")));
        }
        Ok(chain)
    }

    /// Reads a user's move, which must be of the user and the statement in force.
    fn moved(&self, user: &UserName, statements: &[KeyStatement]) -> Result<Option<Arc<Move>>, StorageError> {
        let query = "SELECT statement, signature FROM move WHERE user = ?1";
        let read = || {
            let part = |row: &rusqlite::Row<'_>, column| row.get::<_, Vec<u8>>(column).map(Into::into);
            let signed =
                |row: &rusqlite::Row<'_>| Ok(SignedMove { statement: part(row, 0)?, signature: part(row, 1)? });
            self.database.prepare_cached(query)?.query_row([user.as_str()], signed).optional()
        };
        let Some(signed) = read().map_err(|error| self.failed(error))? else { return Ok(None) };
        let moved = Move::parse(&signed)
            .map_err(|rejection| self.damaged(format!("the move of `{user}` cannot be read: {rejection}")))?;
        if statements.last().is_some_and(|statement| moved.is_of(statement)) {
            Ok(Some(Arc::new(moved)))
        } else {
            Err(self.damaged(format!("the move of `{user}` is not of the key in force")))
        }
    }

    fn epoch(&self) -> rusqlite::Result<u64> {
        self.database.query_row("SELECT epoch FROM server", [], |row| row.get(0))
    }

    fn transact(&mut self, change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>) -> Result<(), StorageError> {
        let changed = || -> rusqlite::Result<()> {
            let transaction = self.database.transaction_with_behavior(TransactionBehavior::Immediate)?;
            change(&transaction)?;
            transaction.commit()
        };
        changed().map_err(|error| self.failed(error))
    }

    fn rows<T>(
        &self,
        query: &str,
        read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StorageError> {
        let rows = || self.database.prepare(query)?.query_map([], read)?.collect::<rusqlite::Result<_>>();
        rows().map_err(|error| self.failed(error))
    }

    fn failed(&self, source: rusqlite::Error) -> StorageError {
        failure(&self.path, source)
    }

    fn damaged(&self, reason: String) -> StorageError {
        StorageError::Damaged { path: self.path.clone(), reason }
    }
}

impl Storage for Store {
    fn load(&self) -> Result<Loaded, StorageError> {
        let mut accounts = Vec::new();
        for row in self
            .rows("SELECT user, display_name, created_unix_ms, disabled FROM account ORDER BY user", |row| {
                Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })?
        {
            let (user, display_name, created_unix_ms, disabled) = row;
            let statements = self.statements(&user)?;
            let user = UserName::parse(&user).map_err(|_| self.damaged(format!("`{user}` is no user's name")))?;
            let moved = self.moved(&user, &statements)?;
            accounts.push(Account { user, statements, display_name, created_unix_ms, disabled, moved });
        }
        let invites = self.rows("SELECT hash FROM invite ORDER BY hash", |row| row.get(0))?;
        let epoch = self.epoch().map_err(|error| self.failed(error))?;
        Ok(Loaded { accounts, invites, epoch, trust: self.trust()?, mail: self.mail()? })
    }

    /// All in one transaction.
    fn commit(&mut self, records: &[Record]) -> Result<(), StorageError> {
        self.transact(|transaction| records.iter().try_for_each(|record| change(transaction, record)))
    }

    /// Shortens the log, if it is long.
    fn settle(&mut self) -> Result<(), StorageError> {
        if log::is_long() { log::shorten(&self.database).map_err(|error| self.failed(error)) } else { Ok(()) }
    }

    /// A connection of its own.
    fn pages(&self) -> Result<Box<dyn Pages>, StorageError> {
        Ok(Box::new(Reader::open(&self.path)?))
    }
}

/// A database's form. Fails if it is a later one than is known here.
fn form(store: &Store) -> Result<usize, StorageError> {
    let query = "SELECT user_version FROM pragma_user_version";
    let found = store.database.query_row(query, [], |row| row.get(0)).map_err(|error| store.failed(error))?;
    if found > MIGRATIONS.len() {
        return Err(StorageError::Newer { path: store.path.clone(), found, known: MIGRATIONS.len() });
    }
    Ok(found)
}

fn change(transaction: &Transaction<'_>, record: &Record) -> rusqlite::Result<()> {
    match record {
        Record::NewAccount { account, invite } => {
            insert(transaction, account)?;
            match invite {
                Some(hash) => one(transaction.execute("DELETE FROM invite WHERE hash = ?1", [hash])?),
                None => Ok(()),
            }
        }
        Record::Epoch(epoch) => transaction.execute("UPDATE server SET epoch = ?1", [epoch]).map(drop),
        Record::NewInvite(hash) => transaction.execute("INSERT INTO invite VALUES (?1)", [hash]).map(drop),
        Record::Moved { account } => {
            let signed = account.moved.as_ref().map(|moved| &moved.signed);
            let signed = signed.ok_or(rusqlite::Error::StatementChangedRows(0))?;
            let row = params![account.user.as_str(), &signed.statement[..], &signed.signature[..]];
            transaction.execute("INSERT INTO move VALUES (?1, ?2, ?3)", row).map(drop)
        }
        Record::KeyRotated { account } => insert_statement(transaction, &account.user, account.statement()),
        Record::Disabled { account } => one(transaction.execute(
            "UPDATE account SET disabled = ?2 WHERE user = ?1",
            params![account.user.as_str(), account.disabled],
        )?),
        Record::Admissions { kept, dropped } => trust::keep(transaction, kept, dropped),
        Record::Names(names) => trust::name(transaction, names),
        Record::Blocked { server, is_blocked } => trust::block(transaction, *server, *is_blocked),
        Record::Entry(entry) => inbox::insert(transaction, entry),
        Record::Post(entry) => channel::insert(transaction, entry),
        Record::PostsDropped { up_to, keys } => channel::drop_up_to(transaction, *up_to, keys),
        Record::Queued(queued) => outbox::queue(transaction, queued),
        Record::Unqueued { number } => outbox::unqueue(transaction, *number),
        Record::Dropped { user, up_to } => inbox::drop_up_to(transaction, user, *up_to),
        Record::Readers { user, readers } => inbox::keep_readers(transaction, user, readers),
        Record::IdsForgotten { before_unix_ms } => inbox::forget_ids(transaction, *before_unix_ms),
    }
}

fn insert(transaction: &Transaction<'_>, account: &Arc<Account>) -> rusqlite::Result<()> {
    let user = account.user.as_str();
    transaction.execute(
        "INSERT INTO account VALUES (?1, ?2, ?3, ?4)",
        params![user, account.display_name, account.created_unix_ms, account.disabled],
    )?;
    account.statements.iter().try_for_each(|statement| insert_statement(transaction, &account.user, statement))
}

fn insert_statement(transaction: &Transaction<'_>, user: &UserName, statement: &KeyStatement) -> rusqlite::Result<()> {
    let signed = &statement.signed;
    let row = params![
        user.as_str(),
        statement.number,
        &signed.statement[..],
        &signed.signature[..],
        &signed.previous_signature[..]
    ];
    transaction.execute("INSERT INTO statement VALUES (?1, ?2, ?3, ?4, ?5)", row).map(drop)
}

/// A change of one row that met another number of them fails, and is rolled back.
fn one(rows: usize) -> rusqlite::Result<()> {
    if rows == 1 { Ok(()) } else { Err(rusqlite::Error::StatementChangedRows(rows)) }
}

// Looks at another process's system calls.
#[cfg(all(test, target_os = "linux", target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod power;
#[cfg(test)]
mod tests;
