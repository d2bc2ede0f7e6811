//! The seam between a server and the engine that keeps its records.
//!
//! All that a running server asks of an engine stands in [`Storage`] and [`Pages`], and what an engine fails with in
//! [`StorageError`]; [`crate::store`] is the one engine there is. Opening it, and the commands that look after its files
//! (backup, restore, check), are its own.

use std::{io, path::PathBuf};

use socp::{
    account::Account,
    channel::{self, KeyName},
    id::ServerId,
    inbox::{Mail, Stored},
    name::UserName,
    node::Trust,
    output::Record,
};

/// An engine that keeps the records of one server. One thread has it.
pub trait Storage: Send {
    /// Reads all that a node needs at its start.
    fn load(&self) -> Result<Loaded, StorageError>;

    /// Makes changes, in order: all of them outlive a loss of power once this returns, or on failure none was made.
    fn commit(&mut self, records: &[Record]) -> Result<(), StorageError>;

    /// Does what is better done between commits than in one. Called after each, once who waits for it has been told.
    fn settle(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    /// A way for another thread to read what was committed, which holds no commit up.
    fn pages(&self) -> Result<Box<dyn Pages>, StorageError>;
}

/// Reads inboxes and the channel's log beside a [`Storage`] that writes them. Another thread has it.
pub trait Pages: Send {
    /// Entries of an inbox after a position, in order: as many as one page holds ([`socp::limits::REPLAY_BYTES`],
    /// [`socp::limits::REPLAY_ENTRIES_MAX`]), and at least one if there is one.
    fn page(&self, user: &UserName, after: u64) -> Result<Vec<Stored>, StorageError>;

    /// Those posts of the channel's log at these positions that are there, in order, with their keys wrapped to a user.
    fn posts(&self, user: &UserName, positions: &[u64]) -> Result<Vec<channel::Stored>, StorageError>;

    /// A channel key as it came for a user last, if it is there.
    fn channel_key(&self, user: &UserName, key: &KeyName) -> Result<Option<Vec<u8>>, StorageError>;
}

/// All that a node needs from disk at its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// All users, sorted by name.
    pub accounts: Vec<Account>,
    /// Hashes of all unused invites.
    pub invites: Vec<[u8; 32]>,
    /// The epoch of the latest start; 0 before the first.
    pub epoch: u64,
    /// Admissions, names and blocks of other servers.
    pub trust: Trust,
    /// All inboxes and the channel's log, without the messages and posts themselves.
    pub mail: Mail,
}

impl Loaded {
    /// A user whose statements name another home than this server, if there is one: the identity key and the database are
    /// then of two servers.
    pub fn foreigner(&self, home: ServerId) -> Option<&Account> {
        self.accounts.iter().find(|account| account.statements.iter().any(|statement| statement.home != home))
    }
}

/// The disk failed, or holds what it should not. What was asked for has not happened; the operator must act.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The file cannot be opened.
    #[error("cannot open the database `{}`: {source}", .path.display())]
    Open {
        /// The database.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The engine could not do it.
    #[error("database `{}`: {source}", .path.display())]
    Engine {
        /// The database.
        path: PathBuf,
        /// What the engine said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no room. All that was reported as done is there.
    #[error("there is no room on the disk for `{}`", .path.display())]
    Full {
        /// The database, or the copy that was to be made.
        path: PathBuf,
    },
    /// The file is damaged.
    #[error("database `{}` is damaged: {reason}", .path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A later version of this program made the file.
    #[error("database `{}` has form {found}, and this version knows forms up to {known}", .path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its form.
        found: usize,
        /// The latest form known here.
        known: usize,
    },
    /// A copy could not be made: a backup, what is restored, or what is left of an earlier form.
    #[error("cannot make `{}`: {source}", .path.display())]
    Copy {
        /// The copy.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is no backup.
    #[error("`{}` is no backup made by `socp-server backup`", .path.display())]
    NoBackup {
        /// The file.
        path: PathBuf,
    },
}

impl StorageError {
    /// What the operator can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Copy { path, source } if source.kind() == io::ErrorKind::AlreadyExists => {
                format!("name another file, or move `{}` away", path.display())
            }
            Self::Open { path, .. } | Self::Engine { path, .. } | Self::Copy { path, .. } => format!(
                "look for a full or read-only disk, and whether `{}` belongs to the user that runs socp-server",
                path.display()
            ),
            Self::Full { .. } => "make room there, and start again; nothing that was accepted is lost".into(),
            Self::Damaged { path, .. } => {
                format!("stop the server, keep `{}`, and restore a backup into a new data folder", path.display())
            }
            Self::Newer { .. } => {
                "run the newer socp-server, or restore the copy made before it changed the form".into()
            }
            Self::NoBackup { .. } => "name the file that was given to `socp-server backup`".into(),
        }
    }
}
