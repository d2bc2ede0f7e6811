//! Reads what a [`Store`](super::Store) wrote, over a connection of its own, while the store writes more: it sees what is on disk.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use socp::{
    channel::{self, KeyName},
    inbox::Stored,
    name::UserName,
};

use super::{StorageError, failure, inbox};
use crate::storage::Pages;

/// The connection.
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    database: Connection,
}

impl Reader {
    /// Opens a database that is there.
    pub(super) fn open(path: &Path) -> Result<Self, StorageError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Connection::open_with_flags(path, flags).map_err(|source| failure(path, source))?;
        Ok(Self { path: path.to_owned(), database })
    }
}

impl Pages for Reader {
    fn page(&self, user: &UserName, after: u64) -> Result<Vec<Stored>, StorageError> {
        inbox::page(&self.database, user, after).map_err(|source| failure(&self.path, source))
    }

    fn posts(&self, user: &UserName, positions: &[u64]) -> Result<Vec<channel::Stored>, StorageError> {
        super::channel::posts(&self.database, user, positions).map_err(|source| failure(&self.path, source))
    }

    fn channel_key(&self, user: &UserName, key: &KeyName) -> Result<Option<Vec<u8>>, StorageError> {
        super::channel::key(&self.database, user, key).map_err(|source| failure(&self.path, source))
    }
}
