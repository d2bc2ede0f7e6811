//! The first line of each file on disk, by which a start, a backup and a check know what is there.

use std::{
    fs::{self, File as Disk},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use socp::{
    file::{File, Kept},
    id::{FileId, ServerId},
    message::Address,
    name::UserName,
};

use super::FilesError;

/// Bytes before those of the file: a line of JSON, filled up with spaces.
pub(super) const HEADER_BYTES: u64 = 512;

/// What stands in that line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    owner: String,
    recipient: String,
    recipient_home_id: String,
    bytes: u64,
    created_unix_ms: u64,
}

/// The first line of a file.
pub(super) fn header(file: &File, created_unix_ms: u64) -> Vec<u8> {
    let header = Header {
        owner: file.owner.to_string(),
        recipient: file.recipient.user.to_string(),
        recipient_home_id: file.recipient.home.to_string(),
        bytes: file.bytes,
        created_unix_ms,
    };
    let mut line = serde_json::to_vec(&header).expect("texts and numbers have a form");
    let length = HEADER_BYTES as usize;
    assert!(line.len() < length, "names and ids are short");
    line.resize(length - 1, b' ');
    line.push(b'\n');
    line
}

/// Bytes of a file that are on disk.
pub(super) fn stored(path: &Path) -> io::Result<u64> {
    Ok(fs::metadata(path)?.len().saturating_sub(HEADER_BYTES))
}

/// What a path holds; `None` if its name is no file's, an error if it is, and the rest cannot be read.
pub(super) fn read(path: &Path) -> io::Result<Option<Kept>> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let (id, is_whole) = name.strip_suffix(".part").map_or((name, true), |id| (id, false));
    let Some(id) = FileId::parse(id) else { return Ok(None) };
    let mut line = [0; HEADER_BYTES as usize];
    Disk::open(path)?.read_exact_at(&mut line, 0)?;
    let header: Header = serde_json::from_slice(&line)?;
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "its first line is not what was written there");
    let file = File {
        id,
        owner: UserName::parse(&header.owner).map_err(|_| odd())?,
        recipient: Address {
            home: ServerId::parse(&header.recipient_home_id).ok_or_else(odd)?,
            user: UserName::parse(&header.recipient).map_err(|_| odd())?,
        },
        bytes: header.bytes,
    };
    let stored = stored(path)?;
    if stored > file.bytes || is_whole && stored != file.bytes {
        let reason = format!("{stored} bytes are there of {}", file.bytes);
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    Ok(Some(Kept { file, created_unix_ms: header.created_unix_ms, is_whole }))
}

/// All files of a folder that are whole, and those that were but cannot be read. There may be no folder.
pub fn whole(folder: &Path) -> Result<Vec<Whole>, FilesError> {
    let at = |source| FilesError { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(at(error)),
    };
    let mut whole = Vec::new();
    for entry in entries {
        let path = entry.map_err(at)?.path();
        match read(&path) {
            Ok(Some(kept)) if kept.is_whole => whole.push(Ok((kept.file.id, path))),
            Err(source) if path.extension().is_none() => whole.push(Err(FilesError { path, source })),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(whole)
}

/// A whole file's id and path, or why it cannot be read.
pub type Whole = Result<(FileId, PathBuf), FilesError>;
