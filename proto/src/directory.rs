//! The merged directory: what this server shows of everybody, as numbered revisions.
//!
//! An [`Entry`] is a user who is online and whose home is reachable. Whatever changes the set of entries does so
//! through [`Directory::replace`], which counts a revision and keeps the digest, so that a watcher who adds up the
//! deltas has the same set and the same digest at every revision.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};

use prost::bytes::Bytes;

use crate::{
    digest::{Digest, DigestEntry, SetHash},
    id::ServerId,
    message::Address,
    moves::Move,
    mutation::{Mutation, is_on},
    name::ServerName,
    statement::KeyStatement,
    v1::{self, KeyDetail, RemovalReason},
};

/// A user who is online, as watchers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Home and bare name.
    pub address: Address,
    /// The home's name here.
    pub server_name: ServerName,
    /// Display name, may be empty.
    pub display_name: Arc<str>,
    /// Status text, may be empty.
    pub status: Arc<str>,
    /// The key statement in force, in memory once.
    pub statement: Arc<KeyStatement>,
    /// The home's epoch.
    pub epoch: u64,
    /// Batch with which this time online began.
    pub online_since: u64,
    /// Attached sessions.
    pub sessions: u32,
}

impl Entry {
    /// `name@server-name`.
    pub fn label(&self) -> String {
        format!("{}@{}", self.address.user, self.server_name)
    }

    /// What a digest covers of this entry.
    pub fn digest_entry(&self) -> DigestEntry<'_> {
        DigestEntry {
            origin: self.address.home,
            epoch: self.epoch,
            user: &self.address.user,
            display_name: &self.display_name,
            status: &self.status,
            key_statement: self.statement.hash(),
            online_since: self.online_since,
            sessions: self.sessions,
        }
    }

    /// The entry in the client contract.
    pub fn to_contract(&self, keys: KeyDetail) -> v1::DirectoryEntry {
        v1::DirectoryEntry {
            user: self.label(),
            name: self.address.user.to_string(),
            server_id: self.address.home.to_string(),
            server_name: self.server_name.to_string(),
            display_name: self.display_name.to_string(),
            status: self.status.to_string(),
            key_fingerprint: self.statement.key.fingerprint().to_string(),
            key_statement_sha256: Bytes::copy_from_slice(self.statement.hash().as_bytes()),
            key_statement: (keys != KeyDetail::Fingerprint).then(|| self.statement.signed.clone()),
            epoch: self.epoch,
            online_since: self.online_since,
            sessions: self.sessions,
        }
    }

    /// The removal of this entry in the client contract.
    pub fn to_removal(&self, reason: RemovalReason) -> v1::RemovedEntry {
        v1::RemovedEntry {
            user: self.label(),
            name: if is_on(Mutation::RemovalNamesAnother) { String::new() } else { self.address.user.to_string() },
            server_id: self.address.home.to_string(),
            reason: reason.into(),
            moved: None,
            moved_to: String::new(),
        }
    }

    /// The same of a user who moved.
    pub fn to_move(&self, destination: &Destination) -> v1::RemovedEntry {
        v1::RemovedEntry {
            moved: Some(destination.moved.signed.clone()),
            moved_to: destination.label.clone(),
            ..self.to_removal(RemovalReason::Moved)
        }
    }

    /// Whether `other` is the same time online of the same user: then a difference is an update, else removed and added.
    fn continues(&self, other: &Self) -> bool {
        (self.epoch, self.online_since) == (other.epoch, other.online_since)
    }
}

/// Where a user moved, as their home says. Whether the user said so is for whoever acts on it to check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The user's word.
    pub moved: Arc<Move>,
    /// The new address as it is labelled here.
    pub label: String,
}

/// One change of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The user came online.
    Added(Arc<Entry>),
    /// The user stays online with another content.
    Updated(Arc<Entry>),
    /// The user is not shown any more; the entry is the last one shown.
    Removed(Arc<Entry>, RemovalReason),
    /// The user moved to another home; the entry is the last one shown.
    Moved(Arc<Entry>, Arc<Destination>),
}

/// All changes of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// The revision that these changes lead to.
    pub revision: u64,
    /// In order; never empty.
    pub changes: Vec<Change>,
    /// Digest of the directory at this revision.
    pub digest: Digest,
    /// The batch that led to it; none where no single batch did. Nothing is decided by it.
    pub made: Option<Made>,
}

/// When an origin made a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// Which origin.
    pub origin: ServerId,
    /// Unix milliseconds by that origin's clock.
    pub unix_ms: u64,
}

/// What this server shows.
#[derive(Debug, Default)]
pub struct Directory {
    entries: BTreeMap<Address, Arc<Entry>>,
    /// Users whose home is starting again: their next entry continues this one.
    held: BTreeSet<Address>,
    revision: u64,
    hash: SetHash,
}

impl Directory {
    /// The entry of a user who is online.
    pub fn entry(&self, address: &Address) -> Option<&Arc<Entry>> {
        self.entries.get(address)
    }

    /// The users of a home's epoch stay for a while though it ended: whoever is shown anew meanwhile was never away.
    pub fn hold(&mut self, home: ServerId, epoch: u64) -> Vec<Arc<Entry>> {
        let is_theirs = |entry: &&Arc<Entry>| entry.address.home == home && entry.epoch == epoch;
        let held: Vec<_> = self.entries.values().filter(is_theirs).map(Arc::clone).collect();
        self.held.extend(held.iter().map(|entry| entry.address.clone()));
        held
    }

    /// The users of a home are held no longer.
    pub fn release(&mut self, home: ServerId) {
        self.held.retain(|address| address.home != home);
    }

    /// All entries by home and name.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values()
    }

    /// The present revision; 0 before the first change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Digest of all entries.
    pub fn digest(&self) -> Digest {
        self.hash.digest()
    }

    /// Shows these users as given, `None` for not at all, in one revision; `None` if that changes nothing.
    pub fn replace(
        &mut self,
        users: impl IntoIterator<Item = (Address, Option<Entry>)>,
        reason: RemovalReason,
    ) -> Option<Arc<Delta>> {
        self.change(users, |old| Change::Removed(old, reason))
    }

    /// Shows a user no longer, who moved; `None` if they were not shown.
    pub fn depart(&mut self, destination: Destination) -> Option<Arc<Delta>> {
        let (address, destination) = (destination.moved.from.clone(), Arc::new(destination));
        self.change([(address, None)], |old| Change::Moved(old, Arc::clone(&destination)))
    }

    fn change(
        &mut self,
        users: impl IntoIterator<Item = (Address, Option<Entry>)>,
        gone: impl Fn(Arc<Entry>) -> Change,
    ) -> Option<Arc<Delta>> {
        let mut changes = Vec::new();
        for (address, new) in users {
            let old = self.entries.get(&address).cloned();
            if old.as_deref() == new.as_ref() {
                continue;
            }
            if let Some(old) = &old {
                if new.is_some() || !is_on(Mutation::DigestKeepsRemoved) {
                    self.hash.remove(&old.digest_entry());
                }
                self.entries.remove(&address);
            }
            let is_held = self.held.remove(&address);
            let continues = matches!((&old, &new), (Some(old), Some(new)) if is_held || new.continues(old));
            if let (Some(old), false) = (old, continues) {
                changes.push(gone(old));
            }
            if let Some(new) = new.map(Arc::new) {
                self.hash.insert(&new.digest_entry());
                self.entries.insert(address, Arc::clone(&new));
                changes.push(if continues { Change::Updated(new) } else { Change::Added(new) });
            }
        }
        if changes.is_empty() {
            return None;
        }
        self.revision += if is_on(Mutation::RevisionSkipped) { 2 } else { 1 };
        Some(Arc::new(Delta { revision: self.revision, changes, digest: self.hash.digest(), made: None }))
    }
}
