//! Sending a file: encrypted chunk by chunk as it is read, to the own home, and then told to the recipient by a message.
//!
//! A chunk that has to be sent again is encrypted again, from what the file holds then. If that is other than it was, the same
//! nonce would cover two contents; so each chunk's tag is remembered, and a file that changes while it is sent is not sent.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::digest::{Context, SHA256};
use futures_util::stream;
use prost::bytes::Bytes;
use socp::{
    file::CHUNK_BYTES,
    id::{FileId, ServerId},
    message::Address,
    v1::{CreateFileRequest, Reason, UploadBegin, UploadFileRequest, upload_file_request::Kind},
};
use tokio::sync::mpsc;

use crate::{
    chunk::{Cipher, SEALED_CHUNK_BYTES, Tag},
    content,
    event::Sent,
    failure::Failure,
    file::Manifest,
    private_key::SymmetricKey,
    sending::{self, Content, Correspondent},
    session::{Account, Session},
    transfer::{Patience, Progress},
};

/// Chunks in one message of an upload: 256 KiB.
const CHUNKS_PER_PART: u64 = 4;

/// Parts that are read ahead of the network.
const PARTS_AHEAD: usize = 4;

/// The reason given when a file is not what it was when its sending began.
pub const FILE_CHANGED: &str = "FILE_CHANGED";

/// A file to be sent.
pub struct Source {
    path: PathBuf,
    name: String,
    disk: File,
    bytes: u64,
    id: FileId,
    key: SymmetricKey,
    cipher: Cipher,
    /// Of all chunks that were encrypted so far: 16 bytes for each 64 KiB.
    tags: Vec<Tag>,
    /// Of those chunks.
    hash: Context,
}

impl Source {
    /// Opens a file, under a key of its own.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let at = |error: io::Error| Failure::file("send", path, &error);
        let disk = File::open(path).map_err(at)?;
        let metadata = disk.metadata().map_err(at)?;
        if !metadata.is_file() {
            return Err(Failure::failed(format!("`{}` is no plain file", path.display())).hint("pack a folder first"));
        }
        let bytes = metadata.len();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let key = content::random_key()?;
        let cipher = Cipher::new(&key, bytes)
            .ok_or_else(|| Failure::failed(format!("`{}` is too large to be sent", path.display())))?;
        let id = FileId::from_bytes(&content::random::<16>()?).expect("an id has 16 bytes");
        let (path, tags, hash) = (path.to_owned(), Vec::new(), Context::new(&SHA256));
        Ok(Self { path, name, disk, bytes, id, key, cipher, tags, hash })
    }

    /// Bytes of it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn changed(&self) -> Failure {
        let message = format!("`{}` changed while it was being sent", self.path.display());
        Failure::refused(FILE_CHANGED, message).hint("send it again once nobody writes to it any more")
    }

    /// Reads and encrypts a chunk.
    fn seal(&mut self, index: u64, part: &mut Vec<u8>) -> Result<(), Failure> {
        let start = part.len();
        part.resize(start + self.cipher.chunk_bytes(index), 0);
        let chunk = &mut part[start..];
        match self.disk.read_exact_at(chunk, index * CHUNK_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(self.changed()),
            read => read.map_err(|error| Failure::file("read", &self.path, &error))?,
        }
        let tag = self.cipher.seal(index, chunk);
        part.extend(tag);
        match self.tags.get(usize::try_from(index).expect("chunks are counted")) {
            Some(before) if *before != tag => return Err(self.changed()),
            Some(_) => {}
            None => {
                self.hash.update(&part[start..]);
                self.tags.push(tag);
            }
        }
        Ok(())
    }

    /// Encrypts from an offset in what servers keep to the end, and gives it on in parts while somebody takes them.
    fn produce(&mut self, offset: u64, parts: &mpsc::Sender<UploadFileRequest>) -> Result<(), Failure> {
        let mut index = offset / SEALED_CHUNK_BYTES;
        let mut skip = usize::try_from(offset % SEALED_CHUNK_BYTES).expect("a chunk fits");
        if index > self.tags.len() as u64 {
            return Err(Failure::failed("the server says that it has more of the file than was sent"));
        }
        while index < self.cipher.chunks() {
            let mut part = Vec::with_capacity((CHUNKS_PER_PART * SEALED_CHUNK_BYTES) as usize);
            for index in index..self.cipher.chunks().min(index + CHUNKS_PER_PART) {
                self.seal(index, &mut part)?;
            }
            index += CHUNKS_PER_PART;
            let part = Bytes::from(part).slice(std::mem::take(&mut skip)..);
            if parts.blocking_send(UploadFileRequest { kind: Some(Kind::Part(part)) }).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// The manifest of what was sent to this home, once all was.
    pub fn manifest(&self, home: ServerId) -> Manifest {
        assert_eq!(self.tags.len() as u64, self.cipher.chunks(), "all was sent");
        Manifest {
            id: self.id,
            home,
            name: self.name.clone(),
            bytes: self.bytes,
            key: self.key.clone(),
            ciphertext_sha256: self.hash.clone().finish().as_ref().try_into().expect("SHA-256 has 32 bytes"),
        }
    }
}

/// Sends a file to a user: its bytes to the own home, as often as links break, and then the message.
pub async fn send(
    account: Arc<Account>,
    to: Correspondent,
    mut source: Source,
    progress: Progress,
) -> Result<Sent, Failure> {
    account.trust.check_standing(&to.address, &to.key)?;
    let mut patience = Patience::new(progress.clone());
    let session = loop {
        let attempted = match account.session().await {
            Ok(session) => {
                let attempted = attempt(&session, &to.address, source, &progress).await;
                source = attempted.0;
                attempted.1.map(|()| session)
            }
            Err(failure) => Err(failure),
        };
        match attempted {
            Ok(session) => break session,
            Err(failure) => patience.wait(failure).await?,
        }
    };
    let manifest = source.manifest(account.profile.server_id);
    let (label, address, key) = (to.label, to.address, to.key);
    let transport = session.transport.clone();
    let sent = sending::send(session, account, label, address, key, Content::file(manifest)).await;
    transport.leave().await;
    sent
}

/// One attempt: from where the server is to the end.
pub async fn attempt(
    session: &Session,
    to: &Address,
    mut source: Source,
    progress: &Progress,
) -> (Source, Result<(), Failure>) {
    let create = CreateFileRequest {
        file_id: source.id.to_string(),
        recipient: to.user.to_string(),
        recipient_home_id: to.home.to_string(),
        bytes: source.cipher.sealed_bytes(),
    };
    let whole = create.bytes;
    let offset = match session.files().create_file(session.request(create)).await {
        Ok(created) => created.into_inner().stored_bytes,
        Err(status) => return (source, Err(status.into())),
    };
    if offset == whole && source.tags.len() as u64 == source.cipher.chunks() {
        return (source, Ok(()));
    }
    let (sender, mut parts) = mpsc::channel(PARTS_AHEAD);
    let begin = UploadBegin { file_id: source.id.to_string(), offset };
    let begin = UploadFileRequest { kind: Some(Kind::Begin(begin)) };
    sender.try_send(begin).expect("the channel is empty");
    let producing = tokio::task::spawn_blocking(move || {
        let produced = source.produce(offset, &sender);
        (source, produced)
    });
    let (progress, mut at) = (progress.clone(), offset);
    let parts = stream::poll_fn(move |context| {
        let part = parts.poll_recv(context);
        if let std::task::Poll::Ready(Some(UploadFileRequest { kind: Some(Kind::Part(part)) })) = &part {
            at += part.len() as u64;
            progress.set(at);
        }
        part
    });
    let answered = session.files().upload_file(session.streaming_request(parts)).await;
    let (source, produced) = match producing.await {
        Ok(produced) => produced,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    };
    let result = produced.and_then(|()| match answered.map_err(Failure::from) {
        Ok(answer) if answer.get_ref().stored_bytes == whole => Ok(()),
        Ok(_) => Err(Failure::unreachable("the server has not got all of the file")),
        // What it had was ahead of what was known here, or another of our own connections is not known to be gone yet.
        Err(failure) if failure.is(Reason::StatementInvalid) || failure.is(Reason::Replaced) => {
            Err(Failure { passing: true, ..failure })
        }
        Err(failure) => Err(failure),
    });
    (source, result)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn parts(source: &mut Source, offset: u64) -> Result<Vec<u8>, Failure> {
        let (sender, mut parts) = mpsc::channel(1_000);
        source.produce(offset, &sender)?;
        drop(sender);
        let mut all = Vec::new();
        while let Ok(UploadFileRequest { kind: Some(Kind::Part(part)) }) = parts.try_recv() {
            all.extend_from_slice(&part);
        }
        Ok(all)
    }

    #[test]
    fn what_is_sent_again_is_the_same_from_any_byte_on_and_hashed_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        fs::write(&path, vec![3; 700_000]).unwrap();
        let mut source = Source::open(&path).unwrap();
        let all = parts(&mut source, 0).unwrap();
        assert_eq!(all.len() as u64, source.cipher.sealed_bytes());
        let hash = source.hash.clone().finish();
        assert_eq!(hash.as_ref(), socp::id::sha256(&[&all]));
        for offset in [0, 1, 65_551, 65_552, 65_553, 400_000, all.len() as u64 - 1, all.len() as u64] {
            assert_eq!(parts(&mut source, offset).unwrap(), all[offset as usize..], "{offset}");
        }
        assert_eq!(source.hash.clone().finish().as_ref(), hash.as_ref());
    }

    #[test]
    fn a_file_that_changes_while_it_is_sent_is_not_sent_under_the_same_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        fs::write(&path, vec![3; 200_000]).unwrap();
        let mut source = Source::open(&path).unwrap();
        parts(&mut source, 0).unwrap();
        fs::write(&path, [vec![3; 199_999], vec![4]].concat()).unwrap();
        assert_eq!(parts(&mut source, 0).unwrap_err().reason, FILE_CHANGED);
        fs::write(&path, vec![3; 199_999]).unwrap();
        assert_eq!(parts(&mut source, 0).unwrap_err().reason, FILE_CHANGED, "it is shorter");
        assert!(Source::open(folder.path()).is_err(), "a folder");
    }

    #[test]
    fn a_server_that_claims_more_than_was_sent_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        fs::write(&path, vec![3; 200_000]).unwrap();
        parts(&mut Source::open(&path).unwrap(), 65_552).unwrap_err();
    }
}
