//! Files: who may bring one, how much is kept and for how long, and who may fetch one.
//!
//! A file lies at its sender's home, encrypted, until it is too old. The node knows of each whose it is, for whom, how large, and
//! whether all of it is there; bytes never pass through it.

use alloc::{collections::BTreeMap, string::ToString, vec::Vec};

use prost::{Message as _, bytes::Bytes};

use super::{Node, sizes::Sizes};
use crate::{
    federation::v1::{FileFetch, FileFetchStatement},
    file::{File, Kept, parse_id, sealed_bytes},
    id::{FileId, ServerId, TokenHash},
    identity::{signature, verified_key},
    input::CallId,
    limits::{DAY_MS, FILES_MAX, FILES_PER_USER_MAX, HOPS_MAX},
    message::Address,
    name::UserName,
    output::{Answer, Output},
    rejection::Rejection,
    signed::Label,
    statement::{invalid, too_large},
    v1::{CreateFileRequest, Reason},
};

/// How much a server keeps of files, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRoom {
    /// Bytes of one file before encryption. Default 2 GiB: a long film; more wants something made for it.
    pub file_bytes_max: u64,
    /// Bytes of all files of one user, encrypted. Default 4 GiB: one of the largest, and many others.
    pub user_bytes_max: u64,
    /// Bytes of all files, encrypted. Default 32 GiB: what most disks have to spare; nobody's messages must run out of disk for files.
    pub bytes_max: u64,
    /// After how many days a file goes. Default 7: a recipient who is away for a week.
    pub days: u32,
}

impl Default for FileRoom {
    fn default() -> Self {
        const GIB: u64 = 1 << 30;
        Self { file_bytes_max: 2 * GIB, user_bytes_max: 4 * GIB, bytes_max: 32 * GIB, days: 7 }
    }
}

/// What is known of a file.
#[derive(Debug)]
struct Known {
    file: File,
    /// On the monotonic clock, so that one which jumps drops nothing; Unix milliseconds until the first sweep, if it was loaded.
    created_ms: i64,
    is_whole: bool,
}

/// How much is one user's.
#[derive(Debug, Default)]
struct Share {
    files: usize,
    bytes: u64,
}

/// All files that are kept here.
#[derive(Debug, Default)]
pub(super) struct Files {
    by_id: BTreeMap<FileId, Known>,
    shares: BTreeMap<UserName, Share>,
    bytes: u64,
    /// Whether times are on the monotonic clock.
    has_begun: bool,
}

impl Files {
    pub(super) fn sizes(&self, sizes: &mut Sizes) {
        sizes.note("files", self.by_id.len());
        self.shares.values().for_each(|share| sizes.note("files of a user", share.files));
    }

    fn insert(&mut self, file: File, created_ms: i64, is_whole: bool) {
        let share = self.shares.entry(file.owner.clone()).or_default();
        share.files += 1;
        share.bytes = share.bytes.saturating_add(file.bytes);
        self.bytes = self.bytes.saturating_add(file.bytes);
        self.by_id.insert(file.id, Known { file, created_ms, is_whole });
    }

    fn remove(&mut self, id: FileId) {
        let Some(Known { file, .. }) = self.by_id.remove(&id) else { return };
        self.bytes = self.bytes.saturating_sub(file.bytes);
        if let Some(share) = self.shares.get_mut(&file.owner) {
            share.files -= 1;
            share.bytes = share.bytes.saturating_sub(file.bytes);
            if share.files == 0 {
                self.shares.remove(&file.owner);
            }
        }
    }

    /// Puts the times of what was loaded on the monotonic clock; nothing is from the future.
    fn begin(&mut self, now_ms: i64, unix_ms: i64) {
        if !core::mem::replace(&mut self.has_begun, true) {
            for known in self.by_id.values_mut() {
                known.created_ms = now_ms.saturating_sub(unix_ms.saturating_sub(known.created_ms).max(0));
            }
        }
    }

    /// Checks that there is room for a file that is not known. Rejects: TOO_LARGE, FILES_FULL.
    fn check_room(&self, room: &FileRoom, file: &File) -> Result<(), Rejection> {
        let bytes_max = sealed_bytes(room.file_bytes_max).unwrap_or(u64::MAX);
        if file.bytes > bytes_max {
            return Err(too_large(usize::try_from(bytes_max).unwrap_or(usize::MAX)));
        }
        let share = self.shares.get(&file.owner);
        let (files, bytes) = share.map_or((0, 0), |share| (share.files, share.bytes));
        if files >= FILES_PER_USER_MAX {
            return Err(full("too many files of yours are kept", FILES_PER_USER_MAX as u64));
        }
        if bytes.saturating_add(file.bytes) > room.user_bytes_max {
            return Err(full("files of yours take too much room", room.user_bytes_max));
        }
        if self.by_id.len() >= FILES_MAX {
            return Err(full("the server keeps too many files", FILES_MAX as u64));
        }
        if self.bytes.saturating_add(file.bytes) > room.bytes_max {
            return Err(full("the server has no room for more files", room.bytes_max));
        }
        Ok(())
    }
}

fn full(message: &'static str, limit: u64) -> Rejection {
    Rejection::new(Reason::FilesFull, message).with("limit", limit.to_string())
}

fn no_way(home: ServerId) -> Rejection {
    let message = "the home that keeps the file cannot be reached at the moment";
    Rejection::new(Reason::HomeUnreachable, message).with("server_id", home.to_string())
}

fn no_file(id: FileId) -> Rejection {
    let message = "there is no such file for this user: it has expired, is not whole yet, or is for somebody else";
    Rejection::new(Reason::FileNotFound, message).with("file_id", id.to_string())
}

impl Node {
    /// Tells the node what files are on disk, before its first input.
    #[must_use]
    pub fn with_files(mut self, files: Vec<Kept>) -> Self {
        for Kept { file, created_unix_ms, is_whole } in files {
            self.files.insert(file, i64::try_from(created_unix_ms).unwrap_or(i64::MAX), is_whole);
        }
        self
    }

    fn monotonic_ms(&self) -> i64 {
        i64::try_from(self.now.monotonic_ms).unwrap_or(i64::MAX)
    }

    /// Makes room for a file. The answer comes before anything of it is on disk.
    pub(super) fn create_file(&mut self, call: CallId, token: TokenHash, asked: &CreateFileRequest) {
        let result = self.authorize(token).and_then(|owner| {
            let file = File::parse(owner, asked)?;
            let now_ms = self.monotonic_ms();
            self.files.begin(now_ms, self.unix_ms());
            let created_ms = match self.files.by_id.get(&file.id) {
                Some(known) if known.file == file => known.created_ms,
                Some(_) => {
                    let message = "the file id was used before for another file";
                    return Err(Rejection::new(Reason::IdReused, message).with("file_id", file.id.to_string()));
                }
                None => {
                    self.files.check_room(&self.settings.files, &file)?;
                    self.files.insert(file.clone(), now_ms, false);
                    now_ms
                }
            };
            let created_unix_ms = self.unix_ms().saturating_sub(now_ms.saturating_sub(created_ms));
            let expires_unix_ms = created_unix_ms.saturating_add(age_ms(&self.settings.files));
            let created_unix_ms = u64::try_from(created_unix_ms).unwrap_or(0);
            Ok(Answer::FileCreated { file, created_unix_ms, expires_unix_ms })
        });
        self.answer(call, result);
    }

    /// Lets the owner of a file bring its bytes.
    pub(super) fn upload_file(&mut self, call: CallId, token: TokenHash, id: &str) {
        let result = self.authorize(token).and_then(|user| {
            let id = parse_id(id)?;
            let known = self.files.by_id.get(&id).filter(|known| known.file.owner == user);
            known.map(|known| Answer::FileToUpload(known.file.clone())).ok_or_else(|| no_file(id))
        });
        self.answer(call, result);
    }

    /// All of a file is on disk.
    pub(super) fn file_stored(&mut self, id: FileId) {
        if let Some(known) = self.files.by_id.get_mut(&id) {
            known.is_whole = true;
        }
    }

    /// Lets a user have a file, from here or from the home that keeps it.
    pub(super) fn download_file(&mut self, call: CallId, token: TokenHash, id: &str, home_id: &str, offset: u64) {
        let result = self.authorize(token).and_then(|user| {
            let id = parse_id(id)?;
            let home = ServerId::parse(home_id).ok_or_else(|| invalid("home_id"))?;
            if home == self.id {
                let asker = Address { home, user };
                return self.find_file(id, &asker).map(|file| Answer::FileHere { file, user: Some(asker.user) });
            }
            let link = self.way_to(&home).ok_or_else(|| no_way(home))?;
            let statement: Bytes = FileFetchStatement {
                asker_key: Bytes::copy_from_slice(&self.identity.public_key()),
                home_id: Bytes::copy_from_slice(home.as_bytes()),
                file_id: Bytes::copy_from_slice(id.as_bytes()),
                user: user.to_string(),
            }
            .encode_to_vec()
            .into();
            let signature = signature(&*self.identity, Label::FileFetch, &statement);
            let fetch = FileFetch { statement, signature, offset, hops_left: HOPS_MAX };
            Ok(Answer::FileElsewhere { link, fetch, user: Some(user) })
        });
        self.answer(call, result);
    }

    /// Lets a peer have a file for a user of the home that asks, or passes that on towards the file's home.
    pub(super) fn fetch_file(&mut self, call: CallId, peer: ServerId, fetch: FileFetch) {
        let result = self.find_for_peer(peer, fetch);
        self.answer(call, result);
    }

    fn find_for_peer(&self, peer: ServerId, fetch: FileFetch) -> Result<Answer, Rejection> {
        let statement = FileFetchStatement::decode(&fetch.statement[..]).map_err(|_| invalid("statement"))?;
        let home = ServerId::from_bytes(&statement.home_id).ok_or_else(|| invalid("home_id"))?;
        let id = FileId::from_bytes(&statement.file_id).ok_or_else(|| invalid("file_id"))?;
        let user = UserName::parse(&statement.user)?;
        let (asker_key, signature) = (&statement.asker_key, &fetch.signature);
        let key = verified_key(&*self.identity, Label::FileFetch, asker_key, &fetch.statement, signature)
            .map_err(|_| Rejection::new(Reason::InvalidSig, "the home that asks has not signed it"))?;
        if home != self.id {
            let (link, hops_left) = self.onward(&home, fetch.hops_left).ok_or_else(|| no_way(home))?;
            // Back where it came from is no way.
            if self.links.links.get(&link).is_none_or(|state| state.peer == peer) {
                return Err(no_way(home));
            }
            return Ok(Answer::FileElsewhere { link, fetch: FileFetch { hops_left, ..fetch }, user: None });
        }
        let asker = Address { home: ServerId::of_key(&key), user };
        if asker.home == self.id || self.links.admitted_name(&asker.home).is_none() {
            return Err(no_file(id));
        }
        self.find_file(id, &asker).map(|file| Answer::FileHere { file, user: None })
    }

    /// A whole file that a user may have. Rejects: FILE_NOT_FOUND.
    fn find_file(&self, id: FileId, asker: &Address) -> Result<File, Rejection> {
        let may = |file: &File| file.recipient == *asker || asker.home == self.id && file.owner == asker.user;
        let known = self.files.by_id.get(&id).filter(|known| known.is_whole && may(&known.file));
        known.map(|known| known.file.clone()).ok_or_else(|| no_file(id))
    }

    /// Drops what is too old.
    pub(super) fn sweep_files(&mut self) {
        let now_ms = self.monotonic_ms();
        self.files.begin(now_ms, self.unix_ms());
        let age_ms = age_ms(&self.settings.files);
        let is_old = |known: &Known| now_ms.saturating_sub(known.created_ms) >= age_ms;
        let old: Vec<FileId> = self.files.by_id.iter().filter(|(_, known)| is_old(known)).map(|(id, _)| *id).collect();
        for id in old {
            self.files.remove(id);
            self.output(Output::DropFile(id));
        }
    }
}

fn age_ms(room: &FileRoom) -> i64 {
    i64::from(room.days).saturating_mul(DAY_MS as i64)
}
