//! Backups: one file with all that a server is, and the way back from it.
//!
//! The file is a copy of the database, with the private files of the data folder in a table of their own. It is made while
//! the server runs, from one moment of the database, and is read as a restore reads it before it gets its name.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags, params};

use super::{Loaded, MIGRATIONS, Storage as _, StorageError, Store, failure, form};
use crate::data_folder::sync_name;

/// Marks a database as a backup of ours, and as none that a server runs on.
const TABLE: &str = "CREATE TABLE backup_file (name TEXT PRIMARY KEY, content TEXT NOT NULL) STRICT, WITHOUT ROWID;";

/// Text files by their names in the data folder.
pub type TextFiles = BTreeMap<String, String>;

/// Copies a database to a file that is not there yet, as of one moment, whoever else has it open. The copy has mode 0600 and
/// is on disk on return.
pub(super) fn copy(database: &Connection, from: &Path, to: &Path) -> Result<(), StorageError> {
    let failed = |source| StorageError::Copy { path: to.to_owned(), source };
    // SQLite fills an empty file, and takes its mode as it is.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(failed)?;
    let copied = database.execute("VACUUM INTO ?1", [to.to_string_lossy()]);
    copied.map_err(|source| match failure(from, source) {
        StorageError::Full { .. } => StorageError::Full { path: to.to_owned() },
        error => error,
    })?;
    sync(to).map_err(failed)
}

fn sync(file: &Path) -> io::Result<()> {
    File::open(file)?.sync_all()?;
    sync_name(file)
}

/// A file that is being made: gone with this, unless it got its name.
struct Draft {
    draft: PathBuf,
    path: PathBuf,
}

impl Draft {
    fn new(path: &Path) -> Result<Self, StorageError> {
        let mut draft = OsString::from(path);
        draft.push(".new");
        let draft = Self { draft: draft.into(), path: path.to_owned() };
        match fs::remove_file(&draft.draft) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(draft.failed(source)),
            _ => Ok(draft),
        }
    }

    fn finish(self) -> Result<(), StorageError> {
        let finished =
            sync(&self.draft).and_then(|()| fs::rename(&self.draft, &self.path)).and_then(|()| sync_name(&self.path));
        finished.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> StorageError {
        StorageError::Copy { path: self.path.clone(), source }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // It is not there any more, if all went well.
        let _ = fs::remove_file(&self.draft);
    }
}

/// Makes a backup of a database, and of these files, in a file that is not there yet. The server may run meanwhile; it is not
/// held up.
pub fn make(database: &Path, files: &TextFiles, to: &Path) -> Result<Backup, StorageError> {
    if to.exists() {
        return Err(StorageError::Copy { path: to.to_owned(), source: io::ErrorKind::AlreadyExists.into() });
    }
    let draft = Draft::new(to)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let original = Connection::open_with_flags(database, flags).map_err(|source| failure(database, source))?;
    copy(&original, database, &draft.draft)?;
    let added = || -> rusqlite::Result<()> {
        let mut copy = Connection::open(&draft.draft)?;
        let transaction = copy.transaction()?;
        transaction.execute_batch(TABLE)?;
        for (name, content) in files {
            transaction.execute("INSERT INTO backup_file VALUES (?1, ?2)", params![name, content])?;
        }
        transaction.commit()?;
        copy.close().map_err(|(_, error)| error)
    };
    added().map_err(|source| failure(&draft.draft, source))?;
    let backup = Backup::read(&draft.draft)?;
    draft.finish()?;
    Ok(Backup { path: to.to_owned(), ..backup })
}

/// A backup that was read, and can be restored.
#[derive(Debug)]
pub struct Backup {
    path: PathBuf,
    /// The private files of the data folder.
    pub files: TextFiles,
    /// What is in the database, unless it is of an earlier form, which is brought to the present one by the first start.
    pub loaded: Option<Loaded>,
}

impl Backup {
    /// Reads a backup as a whole, and changes nothing.
    pub fn read(path: &Path) -> Result<Self, StorageError> {
        let of = |source| failure(path, source);
        File::open(path).map_err(|source| StorageError::Open { path: path.to_owned(), source })?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Connection::open_with_flags(path, flags).map_err(of)?;
        let is_backup: bool = database
            .query_row("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'backup_file')", [], |row| row.get(0))
            .map_err(of)?;
        if !is_backup {
            return Err(StorageError::NoBackup { path: path.to_owned() });
        }
        let files = || -> rusqlite::Result<TextFiles> {
            let mut query = database.prepare("SELECT name, content FROM backup_file")?;
            query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        let files = files().map_err(of)?;
        let store = Store { path: path.to_owned(), database };
        store.look_all_over()?;
        let loaded = (form(&store)? == MIGRATIONS.len()).then(|| store.load()).transpose()?;
        Ok(Self { path: path.to_owned(), files, loaded })
    }

    /// Writes the database of the backup to where none is. It is on disk on return, and whole or not there.
    pub fn restore_database(&self, to: &Path) -> Result<(), StorageError> {
        let draft = Draft::new(to)?;
        let of = |source| failure(&self.path, source);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Connection::open_with_flags(&self.path, flags).map_err(of)?;
        copy(&database, &self.path, &draft.draft)?;
        let stripped = || -> rusqlite::Result<()> {
            let copy = Connection::open(&draft.draft)?;
            copy.execute_batch("DROP TABLE backup_file; VACUUM;")?;
            copy.close().map_err(|(_, error)| error)
        };
        stripped().map_err(|source| failure(&draft.draft, source))?;
        draft.finish()
    }
}

#[cfg(test)]
mod tests;
