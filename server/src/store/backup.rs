//! Backups: one file with all that a server is, and the way back from it.
//!
//! The file is a copy of the database, with the private files of the data folder in a table of their own, and the files that
//! users sent in another. It is made while the server runs, from one moment of the database, and is read as a restore reads it
//! before it gets its name.
//!
//! A message that names a file was sent after that file was whole, and whole files do not change. So whatever the copy of the
//! database names is among the files that are there after it was made, unless its time is over.

mod part;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags, params};
use socp::id::FileId;

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

/// A backup that is being made: the database is copied. Dropping it leaves nothing behind.
pub struct Begun(Draft);

impl Begun {
    /// Copies a database as of one moment. The backup is to be in a file that is not there yet. The server may run meanwhile; it
    /// is not held up.
    pub fn copy(database: &Path, to: &Path) -> Result<Self, StorageError> {
        if to.exists() {
            return Err(StorageError::Copy { path: to.to_owned(), source: io::ErrorKind::AlreadyExists.into() });
        }
        let draft = Draft::new(to)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let original = Connection::open_with_flags(database, flags).map_err(|source| failure(database, source))?;
        copy(&original, database, &draft.draft)?;
        Ok(Self(draft))
    }

    /// Adds text files, and the files that users sent; reads it all as a restore does, and gives it its name. A file that has
    /// gone meanwhile is left out.
    pub fn finish(self, texts: &TextFiles, sent: &[(FileId, PathBuf)]) -> Result<Backup, StorageError> {
        let Self(draft) = self;
        let of = |source| failure(&draft.draft, source);
        let mut copy = Connection::open(&draft.draft).map_err(of)?;
        // It is brought to the disk once it is all there.
        copy.pragma_update(None, "synchronous", "OFF").map_err(of)?;
        let transaction = copy.transaction().map_err(of)?;
        transaction.execute_batch(TABLE).and_then(|()| transaction.execute_batch(part::TABLE)).map_err(of)?;
        for (name, content) in texts {
            transaction.execute("INSERT INTO backup_file VALUES (?1, ?2)", params![name, content]).map_err(of)?;
        }
        for (id, path) in sent {
            part::put(&transaction, &draft.draft, *id, path)?;
        }
        transaction.commit().map_err(of)?;
        copy.close().map_err(|(_, source)| of(source))?;
        let backup = Backup::read(&draft.draft)?;
        let path = draft.path.clone();
        draft.finish()?;
        Ok(Backup { path, ..backup })
    }
}

/// A backup that was read, and can be restored.
#[derive(Debug)]
pub struct Backup {
    path: PathBuf,
    /// The private files of the data folder.
    pub texts: TextFiles,
    /// What is in the database, unless it is of an earlier form, which is brought to the present one by the first start.
    pub loaded: Option<Loaded>,
    /// Files that users sent.
    pub sent: Vec<FileId>,
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
        let texts = || -> rusqlite::Result<TextFiles> {
            let mut query = database.prepare("SELECT name, content FROM backup_file")?;
            query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        let texts = texts().map_err(of)?;
        let store = Store { path: path.to_owned(), database };
        store.look_all_over()?;
        let loaded = (form(&store)? == MIGRATIONS.len()).then(|| store.load()).transpose()?;
        let sent = part::check(&store.database, path)?;
        Ok(Self { path: path.to_owned(), texts, loaded, sent })
    }

    /// Writes the database of the backup to where none is. It is on disk on return, and whole or not there.
    pub fn restore_database(&self, to: &Path) -> Result<(), StorageError> {
        let draft = Draft::new(to)?;
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft.draft);
        drop(made.map_err(|source| draft.failed(source))?);
        self.copy_tables(&draft.draft).map_err(|source| failure(&draft.draft, source))?;
        draft.finish()
    }

    /// Copies all but the tables of a backup into an empty file.
    fn copy_tables(&self, to: &Path) -> rusqlite::Result<()> {
        let mut copy = Connection::open(to)?;
        // A table may be filled before the one that its rows refer to; a backup was checked as a whole.
        copy.pragma_update(None, "foreign_keys", false)?;
        copy.execute("ATTACH ?1 AS backup", [self.path.to_string_lossy()])?;
        let transaction = copy.transaction()?;
        let query = "SELECT name, type, sql FROM backup.sqlite_schema
                     WHERE sql NOT NULL AND tbl_name NOT GLOB 'backup_*' ORDER BY type = 'index'";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let made: Vec<(String, String, String)> =
            transaction.prepare(query)?.query_map([], row)?.collect::<rusqlite::Result<_>>()?;
        for (name, kind, sql) in made {
            transaction.execute_batch(&sql)?;
            if kind == "table" {
                transaction.execute_batch(&format!("INSERT INTO main.{name} SELECT * FROM backup.{name}"))?;
            }
        }
        let form: usize = transaction.query_row("PRAGMA backup.user_version", [], |row| row.get(0))?;
        transaction.pragma_update(None, "user_version", form)?;
        transaction.commit()?;
        copy.close().map_err(|(_, error)| error)
    }

    /// Writes the files that users sent into a folder in which nothing is. They are on disk on return.
    pub fn restore_files(&self, folder: &Path) -> Result<(), StorageError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Connection::open_with_flags(&self.path, flags).map_err(|source| failure(&self.path, source))?;
        for id in &self.sent {
            part::restore(&database, &self.path, *id, &folder.join(id.to_string()))?;
        }
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|source| StorageError::Copy { path: folder.to_owned(), source })
    }
}

#[cfg(test)]
mod tests;
