//! A disk and what a power loss leaves on it.
//!
//! What was synced is there. Of what was not, anything may be there or not: a disk writes when and in what order it likes,
//! by sectors.

use std::{collections::BTreeMap, path::PathBuf};

use fastrand::Rng;

use super::trace::Call;

/// What a disk writes at once or not at all.
const SECTOR: usize = 512;

/// What becomes of that which was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// None of it is there.
    Dropped,
    /// All of it is there, and of each file's last write a part.
    Torn,
    /// Some of the writes are there, and of those some sectors.
    Scattered,
}

/// Files by their names.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

/// All files, as far as they are on the disk and beyond.
#[derive(Default)]
pub struct Disk {
    files: Vec<File>,
    /// Names that are on the disk, with the places of their files.
    names: BTreeMap<PathBuf, usize>,
    /// Changes of names that are not, in order: whose file it is from then on, or none.
    renamed: Vec<(PathBuf, Option<usize>)>,
}

#[derive(Default)]
struct File {
    synced: Vec<u8>,
    /// In order.
    unsynced: Vec<Change>,
}

enum Change {
    Written(usize, Vec<u8>),
    Cut(usize),
}

impl Disk {
    /// Takes a call.
    pub fn take(&mut self, call: &Call) {
        match call {
            Call::Made(name) => {
                self.renamed.push((name.clone(), Some(self.files.len())));
                self.files.push(File::default());
            }
            Call::Removed(name) => self.renamed.push((name.clone(), None)),
            Call::NamesSynced(_) => {
                let renamed = self.renamed.len();
                self.names = self.names_after(renamed);
                self.renamed.clear();
            }
            Call::Written(name, place, bytes) => {
                self.file(name).unsynced.push(Change::Written(usize::try_from(*place).unwrap(), bytes.clone()));
            }
            Call::Cut(name, length) => {
                self.file(name).unsynced.push(Change::Cut(usize::try_from(*length).unwrap()));
            }
            Call::Synced(name) => {
                let File { synced, unsynced } = self.file(name);
                unsynced.drain(..).for_each(|change| change.apply(synced));
            }
            Call::Done(_) => {}
            Call::FolderMade(_) | Call::Renamed(..) => panic!("the store makes no folders and renames nothing"),
        }
    }

    /// Whether anything is not on the disk.
    pub fn is_unsynced(&self) -> bool {
        !self.renamed.is_empty() || self.files.iter().any(|file| !file.unsynced.is_empty())
    }

    /// What is there if the power goes now.
    pub fn after_power_loss(&self, loss: Loss, rng: &mut Rng) -> Files {
        let renamed = if loss == Loss::Dropped { 0 } else { rng.usize(..=self.renamed.len()) };
        let names = self.names_after(renamed);
        names.into_iter().map(|(name, file)| (name, self.files[file].after_power_loss(loss, rng))).collect()
    }

    fn names_after(&self, renamed: usize) -> BTreeMap<PathBuf, usize> {
        let mut names = self.names.clone();
        for (name, file) in &self.renamed[..renamed] {
            match file {
                Some(file) => names.insert(name.clone(), *file),
                None => names.remove(name),
            };
        }
        names
    }

    fn file(&mut self, name: &PathBuf) -> &mut File {
        let latest = self.renamed.iter().rev().find(|(renamed, _)| renamed == name).map(|(_, file)| *file);
        let file = latest.unwrap_or_else(|| self.names.get(name).copied());
        &mut self.files[file.unwrap_or_else(|| panic!("`{}` was not made", name.display()))]
    }
}

impl File {
    fn after_power_loss(&self, loss: Loss, rng: &mut Rng) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        let last = self.unsynced.len().saturating_sub(1);
        for (place, change) in self.unsynced.iter().enumerate() {
            match (loss, change) {
                (Loss::Dropped, _) => {}
                (Loss::Torn, Change::Written(at, written)) if place == last => {
                    write(&mut bytes, *at, &written[..rng.usize(..written.len())]);
                }
                (Loss::Torn, change) => change.apply(&mut bytes),
                (Loss::Scattered, _) if rng.bool() => {}
                (Loss::Scattered, Change::Written(at, written)) => {
                    for (sector, written) in written.chunks(SECTOR).enumerate() {
                        if rng.u8(..4) > 0 {
                            write(&mut bytes, at + sector * SECTOR, written);
                        }
                    }
                }
                (Loss::Scattered, change) => change.apply(&mut bytes),
            }
        }
        bytes
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Written(at, written) => write(bytes, *at, written),
            Self::Cut(length) => bytes.resize(*length, 0),
        }
    }
}

fn write(bytes: &mut Vec<u8>, at: usize, written: &[u8]) {
    let end = at + written.len();
    bytes.resize(bytes.len().max(end), 0);
    bytes[at..end].copy_from_slice(written);
}
