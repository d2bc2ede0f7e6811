//! Receiving a file: fetched through the own home, opened chunk by chunk into a temporary file, which gets its name once all of it
//! is there, checked and on disk.
//!
//! After a link broke it goes on with the chunk that was not opened yet; what was opened is on disk and hashed already.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::digest::{Context, SHA256};
use prost::bytes::Bytes;
use socp::{file::TAG_BYTES, v1::DownloadFileRequest};
use tokio::sync::mpsc;

use crate::{
    chunk::{Cipher, SEALED_CHUNK_BYTES},
    failure::Failure,
    file::{self, Manifest},
    file_name, private_file, render,
    session::{Account, Session},
    transfer::{Patience, Progress},
};

/// Bytes of a file that is received unless the user says otherwise: what a home takes unless its operator does.
pub const FILE_BYTES_MAX: u64 = 2 << 30;

/// Parts that were received and are not opened yet.
const PARTS_AHEAD: usize = 4;

/// The reason given when what came is not the file that its sender sent.
pub const FILE_DAMAGED: &str = "FILE_DAMAGED";

/// The temporary file, removed when dropped.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A file that is being received: opened as it comes.
pub struct Sink {
    disk: File,
    cipher: Cipher,
    /// The chunk that is next.
    index: u64,
    /// Bytes of it that are here.
    chunk: Vec<u8>,
    hash: Context,
}

fn damaged(what: &str) -> Failure {
    Failure::refused(FILE_DAMAGED, format!("what came is not the file that was sent: {what}"))
        .hint("a server on the way is at fault; nothing was saved")
}

impl Sink {
    /// Writes to `disk`, from its beginning; `None` if there are more chunks than can be counted.
    pub fn new(disk: File, manifest: &Manifest) -> Option<Self> {
        let cipher = Cipher::new(&manifest.key, manifest.bytes)?;
        Some(Self { disk, cipher, index: 0, chunk: Vec::new(), hash: Context::new(&SHA256) })
    }

    /// Where to go on in what servers keep.
    fn offset(&self) -> u64 {
        (self.index * SEALED_CHUNK_BYTES).min(self.cipher.sealed_bytes())
    }

    fn is_whole(&self) -> bool {
        self.index == self.cipher.chunks()
    }

    /// Takes the next bytes; opens and writes what chunks they complete.
    pub fn take(&mut self, mut part: &[u8]) -> Result<(), Failure> {
        while !part.is_empty() {
            if self.is_whole() {
                return Err(damaged("it is longer"));
            }
            let length = self.cipher.chunk_bytes(self.index) + TAG_BYTES as usize;
            let (now, rest) = part.split_at(part.len().min(length - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            part = rest;
            if self.chunk.len() == length {
                self.hash.update(&self.chunk);
                let plain = self.cipher.open(self.index, &mut self.chunk);
                let plain = plain.ok_or_else(|| damaged("a part of it does not open"))?;
                self.disk
                    .write_all(plain)
                    .map_err(|error| Failure::failed(format!("cannot write the file: {error}")))?;
                self.chunk.clear();
                self.index += 1;
            }
        }
        Ok(())
    }

    /// Takes what comes until it ends; gives itself back.
    fn consume(mut self, parts: &mut mpsc::Receiver<Bytes>, progress: &Progress) -> (Self, Result<(), Failure>) {
        self.chunk.clear();
        while let Some(part) = parts.blocking_recv() {
            if let Err(failure) = self.take(&part) {
                return (self, Err(failure));
            }
            progress.set(self.offset());
        }
        (self, Ok(()))
    }

    /// Checks the whole against what the sender signed, and sees to it that it is on disk.
    pub fn finish(self, manifest: &Manifest) -> Result<(), Failure> {
        if !self.is_whole() {
            return Err(damaged("it is shorter"));
        }
        if self.hash.finish().as_ref() != manifest.ciphertext_sha256 {
            return Err(damaged("it has another hash"));
        }
        self.disk.sync_all().map_err(|error| Failure::failed(format!("cannot write the file: {error}")))
    }
}

/// Receives a file into a folder, as often as links break. Gives the path under which it was saved.
pub async fn receive(
    account: Arc<Account>,
    manifest: Manifest,
    folder: PathBuf,
    bytes_max: u64,
    progress: Progress,
) -> Result<PathBuf, Failure> {
    if manifest.bytes > bytes_max {
        let (bytes, limit) = (file::size(manifest.bytes), file::size(bytes_max));
        let message = format!("`{}` has {bytes}, more than {limit}", render::clean(&manifest.name));
        return Err(Failure::refused("TOO_LARGE", message).hint("`--max-bytes` takes more"));
    }
    let temporary = Temporary(folder.join(format!(".socp-{}.part", manifest.id)));
    let path = &temporary.0;
    let mut options = private_file::options();
    let disk = options.write(true).create(true).truncate(true).open(path);
    let disk = disk.map_err(|error| Failure::file("write", path, &error))?;
    let mut sink = Sink::new(disk, &manifest).ok_or_else(|| damaged("it is too large"))?;
    let mut patience = Patience::new(progress.clone());
    while !sink.is_whole() {
        let attempted = match account.session().await {
            Ok(session) => {
                let attempted = attempt(&session, &manifest, sink, &progress).await;
                sink = attempted.0;
                session.transport.leave().await;
                attempted.1
            }
            Err(failure) => Err(failure),
        };
        if let Err(failure) = attempted {
            patience.wait(failure).await?;
        }
    }
    save(sink, manifest, temporary, folder).await
}

async fn save(sink: Sink, manifest: Manifest, whole: Temporary, folder: PathBuf) -> Result<PathBuf, Failure> {
    crate::sending::blocking(move || {
        sink.finish(&manifest)?;
        file_name::settle(&whole.0, &folder, &file_name::safe(&manifest.name))
    })
    .await
}

/// One attempt: from the chunk that is next to the end.
pub async fn attempt(
    session: &Session,
    manifest: &Manifest,
    sink: Sink,
    progress: &Progress,
) -> (Sink, Result<(), Failure>) {
    let request = DownloadFileRequest {
        file_id: manifest.id.to_string(),
        home_id: manifest.home.to_string(),
        offset: sink.offset(),
    };
    let mut stream = match session.files().download_file(session.streaming_request(request)).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return (sink, Err(status.into())),
    };
    let (sender, mut parts) = mpsc::channel(PARTS_AHEAD);
    let progress = progress.clone();
    let consuming = tokio::task::spawn_blocking(move || sink.consume(&mut parts, &progress));
    let ended = loop {
        match stream.message().await {
            Ok(Some(part)) => {
                // It said why it takes no more.
                if sender.send(part.part).await.is_err() {
                    break Ok(());
                }
            }
            Ok(None) => break Ok(()),
            Err(status) => break Err(Failure::from(status)),
        }
    };
    drop(sender);
    let (sink, taken) = match consuming.await {
        Ok(consumed) => consumed,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    };
    // A stream that ended well before the file did was cut short by somebody.
    let whole = if sink.is_whole() { Ok(()) } else { Err(damaged("it is shorter")) };
    (sink, taken.and(ended).and(whole))
}

/// Makes sure of a folder that files are to be saved in.
pub fn check_folder(folder: &Path) -> Result<(), Failure> {
    match fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(Failure::failed(format!("`{}` is no folder", folder.display()))),
        Err(error) => Err(Failure::file("use the folder", folder, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: usize = socp::file::CHUNK_BYTES as usize;

    fn sealed(plain: &[u8]) -> (Manifest, Vec<u8>) {
        let mut manifest = file::tests::manifest();
        manifest.bytes = plain.len() as u64;
        let cipher = Cipher::new(&manifest.key, manifest.bytes).unwrap();
        let mut all = Vec::new();
        for index in 0..cipher.chunks() {
            let start = index as usize * CHUNK;
            let mut chunk = plain[start..start + cipher.chunk_bytes(index)].to_vec();
            let tag = cipher.seal(index, &mut chunk);
            all.extend(chunk);
            all.extend(tag);
        }
        manifest.ciphertext_sha256 = socp::id::sha256(&[&all]);
        (manifest, all)
    }

    /// What a sink makes of these bytes, in parts of this size.
    fn taken(manifest: &Manifest, bytes: &[u8], step: usize) -> Result<Vec<u8>, Failure> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part");
        let mut sink = Sink::new(File::create(&path).unwrap(), manifest).unwrap();
        bytes.chunks(step).try_for_each(|part| sink.take(part))?;
        sink.finish(manifest)?;
        Ok(fs::read(path).unwrap())
    }

    #[test]
    fn a_file_of_any_size_in_parts_of_any_size_is_what_was_sent() {
        for bytes in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let plain: Vec<u8> = (0..bytes).map(|place| (place % 251) as u8).collect();
            let (manifest, all) = sealed(&plain);
            for step in [7_919, CHUNK + 16, 1_000_000] {
                assert_eq!(taken(&manifest, &all, step), Ok(plain.clone()), "{bytes} in {step}");
            }
            for (what, wrong) in [
                ("one byte short", all[..all.len() - 1].to_vec()),
                ("one byte more", [&all[..], &[0]].concat()),
                ("nothing", Vec::new()),
            ] {
                assert_eq!(taken(&manifest, &wrong, 7_919).unwrap_err().reason, FILE_DAMAGED, "{bytes}: {what}");
            }
        }
    }

    #[test]
    fn a_file_with_another_hash_than_its_sender_signed_is_refused() {
        let (mut manifest, all) = sealed(&[1; 100]);
        manifest.ciphertext_sha256[0] ^= 1;
        assert_eq!(taken(&manifest, &all, 50).unwrap_err().reason, FILE_DAMAGED);
    }

    #[test]
    fn after_a_break_it_goes_on_with_the_chunk_that_was_not_whole() {
        let plain: Vec<u8> = (0..3 * CHUNK).map(|place| (place % 251) as u8).collect();
        let (manifest, all) = sealed(&plain);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part");
        let mut sink = Sink::new(File::create(&path).unwrap(), &manifest).unwrap();
        for end in [100_000, 150_000, all.len()] {
            let offset = sink.offset() as usize;
            assert!(offset <= end && offset.is_multiple_of(SEALED_CHUNK_BYTES as usize));
            let (sender, mut parts) = mpsc::channel(1);
            sender.try_send(Bytes::copy_from_slice(&all[offset..end])).unwrap();
            drop(sender);
            let (back, result) = sink.consume(&mut parts, &Progress::default());
            (sink, _) = (back, result.unwrap());
        }
        sink.finish(&manifest).unwrap();
        assert_eq!(fs::read(path).unwrap(), plain);
    }
}
