//! The files that users sent, in a backup: in parts, each with its hash. None is held as a whole.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use rusqlite::{Connection, OptionalExtension as _, params};
use socp::id::{FileId, sha256};

use super::{StorageError, failure};
use crate::limits::BACKUP_PART_BYTES;

/// Parts of one file are numbered from 0 on. An empty file of none is not there: each begins with a line of its own.
pub(super) const TABLE: &str = "
    CREATE TABLE backup_part (
        file TEXT NOT NULL,
        number INTEGER NOT NULL,
        sha256 BLOB NOT NULL CHECK (length(sha256) = 32),
        content BLOB NOT NULL,
        PRIMARY KEY (file, number)
    ) STRICT;
";

/// Puts a file into the backup that is being made.
pub(super) fn put(database: &Connection, draft: &Path, id: FileId, path: &Path) -> Result<(), StorageError> {
    let cannot = |source| StorageError::Copy { path: draft.to_owned(), source };
    let mut file = match File::open(path) {
        // It has expired meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file.map_err(cannot)?,
    };
    let mut put = database
        .prepare_cached("INSERT INTO backup_part VALUES (?1, ?2, ?3, ?4)")
        .map_err(|source| failure(draft, source))?;
    for number in 0_u64.. {
        let mut part = Vec::with_capacity(BACKUP_PART_BYTES);
        Read::by_ref(&mut file).take(BACKUP_PART_BYTES as u64).read_to_end(&mut part).map_err(cannot)?;
        if part.is_empty() {
            break;
        }
        put.execute(params![id.to_string(), number, sha256(&[&part]), part])
            .map_err(|source| failure(draft, source))?;
    }
    Ok(())
}

/// Reads all parts there are in a backup; gives the files of which they are.
pub(super) fn check(database: &Connection, path: &Path) -> Result<Vec<FileId>, StorageError> {
    let read = || -> rusqlite::Result<Result<Vec<FileId>, String>> {
        // A backup of an earlier version has no such table.
        let query = "SELECT 1 FROM sqlite_schema WHERE name = 'backup_part'";
        if database.query_row(query, [], |_| Ok(())).optional()?.is_none() {
            return Ok(Ok(Vec::new()));
        }
        let mut query =
            database.prepare("SELECT file, number, sha256, content FROM backup_part ORDER BY file, number")?;
        let mut rows = query.query([])?;
        let (mut files, mut next) = (Vec::new(), 0_u64);
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            let Some(id) = FileId::parse(&name) else { return Ok(Err(format!("`{name}` is no file's id"))) };
            if files.last() != Some(&id) {
                files.push(id);
                next = 0;
            }
            let is_right =
                row.get::<_, u64>(1)? == next && row.get::<_, [u8; 32]>(2)? == sha256(&[row.get_ref(3)?.as_blob()?]);
            if !is_right {
                return Ok(Err(format!("file `{name}` is not what it was")));
            }
            next += 1;
        }
        Ok(Ok(files))
    };
    let read = read().map_err(|source| failure(path, source))?;
    read.map_err(|reason| StorageError::Damaged { path: path.to_owned(), reason })
}

/// Writes a file of a backup to where none is (mode 0600). Its content is on disk on return, its name is not yet.
pub(super) fn restore(database: &Connection, backup: &Path, id: FileId, to: &Path) -> Result<(), StorageError> {
    let cannot = |source| StorageError::Copy { path: to.to_owned(), source };
    let of = |source| failure(backup, source);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(cannot)?;
    let mut query =
        database.prepare_cached("SELECT content FROM backup_part WHERE file = ?1 ORDER BY number").map_err(of)?;
    let mut rows = query.query([id.to_string()]).map_err(of)?;
    while let Some(row) = rows.next().map_err(of)? {
        let part = row.get_ref(0).and_then(|part| Ok(part.as_blob()?)).map_err(of)?;
        file.write_all(part).map_err(cannot)?;
    }
    file.sync_all().map_err(cannot)
}
