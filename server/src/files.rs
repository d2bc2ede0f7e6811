//! Files on disk: one for each, encrypted by its sender, in a folder of the data folder.
//!
//! A file is `ID.part` until all of it is there and on disk; then it is renamed to `ID`. Both begin with a line of JSON that says
//! what the node must know of it, so that a start finds everything out by looking. Bytes pass through in parts and are never
//! held as a whole. What may be kept and who may have it is the node's to say.

mod header;

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File as Disk, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use socp::{
    file::{File, Kept},
    id::FileId,
    name::UserName,
    rejection::Rejection,
    statement,
    v1::Reason,
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::spawn_blocking,
};

pub use self::header::whole;
use self::header::{HEADER_BYTES, header, read, stored};
use crate::{
    data_folder::sync_name,
    limits::{FILE_PART_BYTES, FILE_SYNC_BYTES, TRANSFERS_MAX, TRANSFERS_PER_USER_MAX},
    status,
};

/// The folder, or a file in it, cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot use `{}`, of the files that users send: {source}", .path.display())]
pub struct FilesError {
    /// The folder or file.
    path: PathBuf,
    /// What the system said, or what is wrong with the file.
    source: io::Error,
}

impl FilesError {
    /// What the operator can do about it.
    pub fn hint(&self) -> String {
        match self.source.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                "move it away; whoever sent it can send it again".into()
            }
            _ => "give the folder to the user that runs socp-server (`chown -R`, mode 700)".into(),
        }
    }
}

struct Shared {
    folder: PathBuf,
    runtime: Handle,
    /// Uploads under way: how to tell one that a later one takes its place.
    uploads: Mutex<BTreeMap<FileId, watch::Sender<u64>>>,
    transfers: Arc<Semaphore>,
    users: Mutex<BTreeMap<UserName, usize>>,
}

/// The folder of files. Cheap to clone.
#[derive(Clone)]
pub struct Files(Arc<Shared>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Files {
    /// Opens a folder, made if need be, and tells what is in it. What was begun and cannot be read is removed; anything else
    /// that does not belong there is left alone, and logged. To be called in the tokio runtime.
    pub fn open(folder: &Path) -> Result<(Self, Vec<Kept>), FilesError> {
        let at = |source| FilesError { path: folder.to_owned(), source };
        prepare(folder)?;
        let mut kept = Vec::new();
        for entry in fs::read_dir(folder).map_err(at)? {
            let path = entry.map_err(at)?.path();
            match read(&path) {
                Ok(Some(file)) => kept.push(file),
                Ok(None) => tracing::warn!(path = %path.display(), "this is no file that was kept; it is left alone"),
                Err(error) if path.extension().is_some() => {
                    tracing::info!(path = %path.display(), %error, "removing a file that was hardly begun");
                    fs::remove_file(&path).map_err(at)?;
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "this file cannot be read; it is left alone")
                }
            }
        }
        let shared = Shared {
            folder: folder.to_owned(),
            runtime: Handle::current(),
            uploads: Mutex::default(),
            transfers: Arc::new(Semaphore::new(TRANSFERS_MAX)),
            users: Mutex::default(),
        };
        Ok((Self(Arc::new(shared)), kept))
    }

    fn whole(&self, id: FileId) -> PathBuf {
        self.0.folder.join(id.to_string())
    }

    fn part(&self, id: FileId) -> PathBuf {
        self.0.folder.join(format!("{id}.part"))
    }

    /// Makes a file for which there is room, if it is not there, and tells how much of it is. Rejects: SERVER_FAILED.
    pub async fn create(&self, file: File, created_unix_ms: u64) -> Result<u64, Rejection> {
        let (whole, part) = (self.whole(file.id), self.part(file.id));
        let id = file.id;
        let made = move || {
            if fs::exists(&whole)? {
                return Ok(file.bytes);
            }
            let mut options = OpenOptions::new();
            match options.write(true).create_new(true).mode(0o600).open(&part) {
                Ok(disk) => disk.write_all_at(&header(&file, created_unix_ms), 0).map(|()| 0),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => stored(&part),
                Err(error) => Err(error),
            }
        };
        in_thread(made).await.map_err(|error| failed(id, &error))
    }

    /// Begins to bring a file's bytes from an offset on, which is where those on disk end. An upload of it that is under way ends.
    /// Rejects: STATEMENT_INVALID (`offset`), SERVER_FAILED.
    pub async fn upload(&self, file: &File, offset: u64) -> Result<Upload, Rejection> {
        let (turn, turns) = {
            let mut uploads = lock(&self.0.uploads);
            let sender = uploads.entry(file.id).or_insert_with(|| watch::Sender::new(0));
            sender.send_modify(|turn| *turn += 1);
            (*sender.borrow(), sender.subscribe())
        };
        let part = self.part(file.id);
        let id = file.id;
        // Anything that the earlier one still writes is of the same bytes at the same place, or before this one's look at the end.
        let opened = in_thread(move || {
            let disk = OpenOptions::new().write(true).open(&part)?;
            let end = disk.metadata()?.len().saturating_sub(HEADER_BYTES);
            Ok((disk, end))
        });
        let (disk, end) = match opened.await {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(statement::invalid("offset")),
            Err(error) => return Err(failed(id, &error)),
        };
        if offset != end {
            return Err(statement::invalid("offset"));
        }
        Ok(Upload {
            files: self.clone(),
            file: file.clone(),
            disk: Arc::new(disk),
            at: offset,
            synced: offset,
            turn,
            turns,
        })
    }

    /// Opens a whole file to be read. Rejects: FILE_NOT_FOUND, SERVER_FAILED.
    pub async fn read(&self, file: &File, offset: u64) -> Result<Reading, Rejection> {
        if offset > file.bytes {
            return Err(statement::invalid("offset"));
        }
        let (path, id) = (self.whole(file.id), file.id);
        let disk = in_thread(move || Disk::open(path)).await.map_err(|error| failed(id, &error))?;
        Ok(Reading { id, disk: Arc::new(disk), at: offset, end: file.bytes })
    }

    /// Removes what is there of a file, without waiting for it: a large one takes a while.
    pub fn remove(&self, id: FileId) {
        let files = self.clone();
        self.0.runtime.spawn_blocking(move || files.remove_now(id));
    }

    fn remove_now(&self, id: FileId) {
        lock(&self.0.uploads).remove(&id);
        for path in [self.whole(id), self.part(id)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "cannot remove a file that has expired");
                }
                _ => {}
            }
        }
    }

    /// A place for a transfer, of a user of this server if one is named. Rejects: TOO_MANY.
    pub fn place(&self, user: Option<&UserName>) -> Result<Place, Rejection> {
        let too_many = |limit: usize| {
            Rejection::new(Reason::TooMany, "too many files are under way").with("limit", limit.to_string())
        };
        let permit = Arc::clone(&self.0.transfers).try_acquire_owned().map_err(|_| too_many(TRANSFERS_MAX))?;
        let mut place = Place { files: self.clone(), user: None, _permit: permit };
        if let Some(user) = user {
            let mut users = lock(&self.0.users);
            let count = users.entry(user.clone()).or_default();
            if *count >= TRANSFERS_PER_USER_MAX {
                return Err(too_many(TRANSFERS_PER_USER_MAX));
            }
            *count += 1;
            place.user = Some(user.clone());
        }
        Ok(place)
    }
}

/// Makes the folder of files where there is none; its name is on the disk on return.
pub fn prepare(folder: &Path) -> Result<(), FilesError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder).and_then(|()| sync_name(folder));
    made.map_err(|source| FilesError { path: folder.to_owned(), source })
}

/// A place among the transfers that are under way, until it is dropped.
pub struct Place {
    files: Files,
    user: Option<UserName>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(user) = self.user.take() else { return };
        let mut users = lock(&self.files.0.users);
        if let Some(count) = users.get_mut(&user) {
            *count -= 1;
            if *count == 0 {
                users.remove(&user);
            }
        }
    }
}

/// A file that is being brought.
pub struct Upload {
    files: Files,
    file: File,
    disk: Arc<Disk>,
    at: u64,
    synced: u64,
    turn: u64,
    turns: watch::Receiver<u64>,
}

impl Upload {
    /// Bytes that are there.
    pub fn stored(&self) -> u64 {
        self.at
    }

    /// Comes when a later upload takes the place of this one.
    pub async fn replaced(&mut self) -> Rejection {
        let turn = self.turn;
        // An error says that the file has gone.
        let _ = self.turns.wait_for(|latest| *latest != turn).await;
        Rejection::new(Reason::Replaced, "a later upload of the same file goes on")
    }

    /// Writes the next bytes. Rejects: TOO_LARGE, SERVER_FAILED.
    pub async fn write(&mut self, part: Bytes) -> Result<(), Rejection> {
        let end = self.at + part.len() as u64;
        if end > self.file.bytes {
            let rejection = Rejection::new(Reason::TooLarge, "more bytes than the file was to have");
            return Err(rejection.with("limit_bytes", self.file.bytes.to_string()));
        }
        let (disk, at) = (Arc::clone(&self.disk), self.at);
        // Now and then, so that the last one has little left to do, and memory is not filled with what is to be written.
        let syncs = end - self.synced >= FILE_SYNC_BYTES;
        let written = in_thread(move || {
            disk.write_all_at(&part, HEADER_BYTES + at)?;
            if syncs { disk.sync_data() } else { Ok(()) }
        });
        written.await.map_err(|error| failed(self.file.id, &error))?;
        self.at = end;
        self.synced = if syncs { end } else { self.synced };
        Ok(())
    }

    /// Ends the upload; tells whether all of the file is there and on disk. Rejects: SERVER_FAILED.
    pub async fn finish(self) -> Result<bool, Rejection> {
        if self.at < self.file.bytes {
            return Ok(false);
        }
        let id = self.file.id;
        let (disk, part, whole) = (Arc::clone(&self.disk), self.files.part(id), self.files.whole(id));
        let done = in_thread(move || {
            disk.sync_all()?;
            fs::rename(&part, &whole)?;
            sync_name(&whole)
        });
        done.await.map_err(|error| failed(id, &error))?;
        lock(&self.files.0.uploads).remove(&id);
        Ok(true)
    }
}

/// A file that is being read.
pub struct Reading {
    id: FileId,
    disk: Arc<Disk>,
    at: u64,
    end: u64,
}

impl Reading {
    /// The next bytes; `None` at the end. Rejects: SERVER_FAILED.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Rejection> {
        let length = (self.end - self.at).min(FILE_PART_BYTES as u64);
        if length == 0 {
            return Ok(None);
        }
        let (disk, at) = (Arc::clone(&self.disk), self.at);
        let read = in_thread(move || {
            let mut part = vec![0; usize::try_from(length).expect("a part fits")];
            disk.read_exact_at(&mut part, HEADER_BYTES + at).map(|()| Bytes::from(part))
        });
        let part = read.await.map_err(|error| failed(self.id, &error))?;
        self.at += length;
        Ok(Some(part))
    }
}

/// The disk is waited for away from the runtime's threads.
async fn in_thread<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|_| Err(io::Error::other("the work was interrupted")))
}

/// A full disk, or a broken one, is told to the user without its cause, and to the operator with it.
fn failed(id: FileId, error: &io::Error) -> Rejection {
    tracing::error!(file = %id, %error, "the disk failed for a file");
    status::server_failed()
}

#[cfg(test)]
mod tests;
