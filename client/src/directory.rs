//! The client's live view of the directory: the watch's messages go in, what changed for the user comes out.
//!
//! After every end mark and bookmark the view's own digest is compared with the server's; one that differs means that
//! something was missed, and the watch starts over. A watch that starts over is loaded aside and swapped in when it
//! is complete, so that the user sees real changes only.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use socp::{
    digest::{Digest, DigestEntry, SetHash},
    id::{ServerId, StatementHash},
    message::Address,
    name::UserName,
    rejection,
    v1::{DirectoryEntry, Reason, RemovalReason, SignedMove, WatchDirectoryResponse, directory_change::Change as Wire},
};

use crate::failure::Failure;

/// Entries taken from a server: more than a million users online is not believed.
const ENTRIES_MAX: usize = 1_000_000;

/// Users who left that are remembered by name.
const DEPARTED_MAX: usize = 10_000;

/// A user who is online.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Name and home, which identify the user.
    pub address: Address,
    /// Hash of the key statement in force.
    pub statement: StatementHash,
    /// As received; `user` in it is the label that people read and type.
    pub wire: DirectoryEntry,
}

/// Where a user is said to have moved. Nothing of it is checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Destination {
    /// The user's word, if it is one.
    pub moved: SignedMove,
    /// The new address as the server labels it.
    pub label: String,
}

/// One change, as the user is told of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// A user came online, or is part of the present state.
    Added {
        /// The user.
        entry: Arc<Entry>,
        /// The server's counter.
        revision: u64,
        /// Whether it is part of the present state, rather than news.
        initial: bool,
    },
    /// A user's entry changed.
    Updated {
        /// The entry before.
        before: Arc<Entry>,
        /// The entry now.
        entry: Arc<Entry>,
        /// The server's counter.
        revision: u64,
    },
    /// A user is no longer shown.
    Removed {
        /// The entry as it was.
        entry: Arc<Entry>,
        /// Why.
        reason: RemovalReason,
        /// Where to, if they are said to have moved.
        destination: Option<Destination>,
        /// The server's counter.
        revision: u64,
    },
    /// The present state is complete.
    Synced {
        /// The server's counter.
        revision: u64,
        /// Entries in the view.
        entries: usize,
        /// The server's digest; `None` in a filtered watch.
        digest: Option<Digest>,
        /// Whether the view has the same; `None` in a filtered watch.
        digest_ok: Option<bool>,
    },
    /// Nothing changed for a while.
    Bookmark {
        /// The server's counter.
        revision: u64,
        /// The server's digest; `None` in a filtered watch.
        digest: Option<Digest>,
        /// Whether the view has the same; `None` in a filtered watch.
        digest_ok: Option<bool>,
    },
}

/// Who is online, as far as this client knows.
#[derive(Default)]
pub struct View {
    entries: Entries,
    /// The state that is being loaded to replace `entries`.
    staged: Option<Entries>,
    resume_token: String,
    synced: bool,
    /// Labels of users who left in this run, so that a bare name still means them.
    departed: BTreeSet<String>,
}

#[derive(Default)]
struct Entries {
    by_user: BTreeMap<String, Arc<Entry>>,
    by_address: BTreeMap<Address, Arc<Entry>>,
    hash: SetHash,
}

impl Entry {
    /// Reads an entry; fails if it is malformed, or if its label is not of its name.
    pub fn parse(wire: DirectoryEntry) -> Result<Self, Failure> {
        let malformed =
            || Failure::unreachable(format!("the server sent a malformed entry for `{}`", wire.user.escape_debug()));
        let user = UserName::parse(&wire.name).map_err(|_| malformed())?;
        let labelled = wire.user.strip_prefix(user.as_str()).is_some_and(|rest| rest.starts_with('@'));
        if !labelled || wire.user.chars().any(char::is_control) {
            return Err(malformed());
        }
        Ok(Self {
            address: Address { home: ServerId::parse(&wire.server_id).ok_or_else(malformed)?, user },
            statement: StatementHash::from_bytes(&wire.key_statement_sha256).ok_or_else(malformed)?,
            wire,
        })
    }

    fn digest_entry(&self) -> DigestEntry<'_> {
        DigestEntry {
            origin: self.address.home,
            epoch: self.wire.epoch,
            user: &self.address.user,
            display_name: &self.wire.display_name,
            status: &self.wire.status,
            key_statement: self.statement,
            online_since: self.wire.online_since,
            sessions: self.wire.sessions,
        }
    }

    /// Whether both are of one time online: the user was not away between.
    fn same_time_online(&self, other: &Self) -> bool {
        (self.wire.epoch, self.wire.online_since) == (other.wire.epoch, other.wire.online_since)
    }

    /// Whether a person would see a difference.
    pub fn looks_different(&self, other: &Self) -> bool {
        self.wire.display_name != other.wire.display_name || self.wire.status != other.wire.status
    }
}

impl Entries {
    fn insert(&mut self, entry: Arc<Entry>) -> Option<Arc<Entry>> {
        let before = self.remove(&entry.wire.user);
        self.hash.insert(&entry.digest_entry());
        self.by_address.insert(entry.address.clone(), entry.clone());
        self.by_user.insert(entry.wire.user.clone(), entry);
        before
    }

    fn remove(&mut self, user: &str) -> Option<Arc<Entry>> {
        let entry = self.by_user.remove(user)?;
        self.by_address.remove(&entry.address);
        self.hash.remove(&entry.digest_entry());
        Some(entry)
    }

    /// Compares the digest with the server's; `None` where it sent none.
    fn agrees(&self, digest: &[u8]) -> Option<bool> {
        (!digest.is_empty()).then(|| Digest::from_bytes(digest) == Some(self.hash.digest()))
    }
}

impl View {
    /// Where the watch goes on; empty if it has to start with the present state.
    pub fn resume_token(&self) -> &str {
        &self.resume_token
    }

    /// Gives up the place, because the server cannot continue there or the digests differ.
    pub fn start_over(&mut self) {
        self.resume_token.clear();
    }

    /// Prepares for a new stream that was asked for with [`View::resume_token`].
    pub fn begin(&mut self) {
        let reloads = self.resume_token.is_empty() && (self.synced || !self.entries.by_user.is_empty());
        self.staged = reloads.then(Entries::default);
    }

    /// Whether the present state was complete at least once.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// Whether the present state is still on its way.
    pub fn is_loading(&self) -> bool {
        self.staged.is_some() || !self.synced
    }

    /// Everybody online.
    pub fn users(&self) -> impl Iterator<Item = &Arc<Entry>> + Clone {
        self.entries.by_user.values()
    }

    /// A user by name and home.
    pub fn find(&self, address: &Address) -> Option<&Arc<Entry>> {
        self.entries.by_address.get(address)
    }

    /// The user that a person means: a whole name, `name@server-id`, or a bare name that one server bears.
    /// `None` if nobody of that name is online; fails where several are.
    pub fn resolve(&self, text: &str) -> Result<Option<&Arc<Entry>>, Failure> {
        if let Some(entry) = self.entries.by_user.get(text) {
            return Ok(Some(entry));
        }
        if let Some((name, home)) = text.split_once('@') {
            let address = UserName::parse(name).ok().zip(ServerId::parse(home));
            return Ok(address.and_then(|(user, home)| self.find(&Address { home, user })));
        }
        let from = format!("{text}@");
        let mut candidates = self.entries.by_user.range(from.clone()..).take_while(|(user, _)| user.starts_with(&from));
        match (candidates.next(), candidates.next()) {
            (found, None) => Ok(found.map(|(_, entry)| entry)),
            (_, Some(_)) => {
                let all = self.entries.by_user.range(from.clone()..).take_while(|(user, _)| user.starts_with(&from));
                let all: Vec<_> = all.map(|(user, _)| user.as_str()).collect();
                let reason = rejection::name(Reason::UserAmbiguous);
                Err(Failure::refused(reason, format!("`{text}` is a user of several servers"))
                    .hint(format!("say which one: {}", all.join(", "))))
            }
        }
    }

    /// The whole name of the user that a bare name meant before they left; `None` if there are none or several.
    pub fn resolve_departed(&self, name: &str) -> Option<&str> {
        let from = format!("{name}@");
        let mut candidates = self.departed.range(from.clone()..).take_while(|user| user.starts_with(&from));
        candidates.next().filter(|_| candidates.next().is_none()).map(String::as_str)
    }

    fn note_departures(&mut self, notices: &[Notice]) {
        for notice in notices {
            match notice {
                Notice::Removed { entry, .. } if self.departed.len() < DEPARTED_MAX => {
                    self.departed.insert(entry.wire.user.clone());
                }
                Notice::Added { entry, .. } => drop(self.departed.remove(&entry.wire.user)),
                _ => {}
            }
        }
    }

    /// Takes one message of the watch. On failure the watch has to start over.
    pub fn apply(&mut self, response: WatchDirectoryResponse) -> Result<Vec<Notice>, Failure> {
        let mut notices = Vec::new();
        for change in response.changes {
            let revision = change.revision;
            match change.change {
                Some(Wire::Added(entry) | Wire::Updated(entry)) => {
                    self.put(Entry::parse(entry)?, revision, &mut notices)?
                }
                Some(Wire::Removed(gone)) => {
                    let reason = gone.reason();
                    match &mut self.staged {
                        Some(staged) => drop(staged.remove(&gone.user)),
                        None => {
                            let entry = self.entries.remove(&gone.user);
                            let label = gone.moved_to;
                            let destination = gone.moved.map(|moved| Destination { moved, label });
                            notices.extend(entry.map(|entry| Notice::Removed { entry, reason, destination, revision }));
                        }
                    }
                }
                None => {}
            }
        }
        if let Some(mark) = response.end_mark {
            if let Some(staged) = self.staged.take() {
                self.swap_in(staged, mark.revision, &mut notices);
            }
            self.synced = true;
            let (entries, digest_ok) = (self.entries.by_user.len(), self.entries.agrees(&mark.digest));
            let digest = Digest::from_bytes(&mark.digest);
            notices.push(Notice::Synced { revision: mark.revision, entries, digest, digest_ok });
        }
        if let Some(bookmark) = response.bookmark {
            let (digest, digest_ok) = (Digest::from_bytes(&bookmark.digest), self.entries.agrees(&bookmark.digest));
            notices.push(Notice::Bookmark { revision: bookmark.revision, digest, digest_ok });
        }
        if !response.resume_token.is_empty() {
            self.resume_token = response.resume_token;
        }
        self.note_departures(&notices);
        Ok(notices)
    }

    fn put(&mut self, entry: Entry, revision: u64, notices: &mut Vec<Notice>) -> Result<(), Failure> {
        let entry = Arc::new(entry);
        let entries = self.staged.as_mut().unwrap_or(&mut self.entries);
        if entries.by_user.len() >= ENTRIES_MAX {
            return Err(Failure::failed(format!("the server shows more than {ENTRIES_MAX} users")));
        }
        let before = entries.insert(entry.clone());
        if self.staged.is_none() {
            notices.push(match before {
                Some(before) => Notice::Updated { before, entry, revision },
                None => Notice::Added { entry, revision, initial: !self.synced },
            });
        }
        Ok(())
    }

    /// Replaces the view by a freshly loaded one, and tells the difference.
    fn swap_in(&mut self, fresh: Entries, revision: u64, notices: &mut Vec<Notice>) {
        let old = mem::replace(&mut self.entries, fresh);
        for (user, entry) in &old.by_user {
            let stayed = self.entries.by_user.get(user).is_some_and(|now| now.same_time_online(entry));
            if !stayed {
                let reason = RemovalReason::Left;
                notices.push(Notice::Removed { entry: entry.clone(), reason, destination: None, revision });
            }
        }
        for (user, entry) in &self.entries.by_user {
            let before = old.by_user.get(user).filter(|before| before.same_time_online(entry));
            match before {
                None => notices.push(Notice::Added { entry: entry.clone(), revision, initial: false }),
                Some(before) if before != entry => {
                    notices.push(Notice::Updated { before: before.clone(), entry: entry.clone(), revision });
                }
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
