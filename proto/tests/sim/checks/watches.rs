//! Watches: revisions rise without gap, and each delta says what truly changes.

use std::{collections::BTreeMap, collections::BTreeSet, sync::Arc};

use socp::{
    directory::{Change, Delta, Entry},
    message::Address,
};

use crate::tally::{Kind, Tally};

/// What a watcher has who was there from the start.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    entries: BTreeMap<Address, Arc<Entry>>,
    /// Everybody who was ever removed.
    gone: BTreeSet<Address>,
    revision: u64,
    /// Every change in order, for tests that tell a story.
    pub changes: Vec<Change>,
}

impl Watch {
    pub fn apply(&mut self, delta: &Delta, tally: &mut Tally) {
        assert_eq!(delta.revision, self.revision + 1, "revisions are consecutive");
        assert!(!delta.changes.is_empty(), "a revision changes something");
        self.revision = delta.revision;
        for change in &delta.changes {
            self.changes.push(change.clone());
            match change {
                Change::Added(entry) => {
                    let before = self.entries.insert(entry.address.clone(), Arc::clone(entry));
                    assert!(before.is_none(), "{:?} was added twice", entry.address);
                    let again = self.gone.contains(&entry.address);
                    tally.count(if again { Kind::ReAdded } else { Kind::Added });
                }
                Change::Updated(entry) => {
                    let before = self.entries.insert(entry.address.clone(), Arc::clone(entry));
                    let before = before.expect("only who is shown is updated");
                    assert_ne!(before, *entry, "an update changes something");
                    // A user who was held over a restart goes on in the home's next epoch.
                    let is_held = before.epoch < entry.epoch;
                    assert!(is_held || before.online_since == entry.online_since, "an update is of one time online");
                    tally.count(Kind::Updated);
                }
                Change::Removed(entry, _) | Change::Moved(entry, _) => {
                    if matches!(change, Change::Moved(..)) {
                        tally.count(Kind::MoveShown);
                    }
                    let before = self.entries.remove(&entry.address);
                    assert_eq!(before.as_ref(), Some(entry), "what is removed is what was shown");
                    self.gone.insert(entry.address.clone());
                    tally.count(Kind::Removed);
                }
            }
        }
    }

    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values()
    }

    pub fn addresses(&self) -> impl Iterator<Item = Address> {
        self.entries.keys().cloned()
    }

    /// The names shown, as `name@server-name`.
    pub fn labels(&self) -> Vec<String> {
        self.entries.values().map(|entry| entry.label()).collect()
    }
}
