//! Users who are held over a planned restart of their home.
//!
//! A goodbye may ask for it. The users who are shown then stay, as they are, until the home's next epoch speaks of them or the
//! time is over, so that nobody sees a restart. One who comes online again is updated, one who leaves is removed.

use alloc::{collections::BTreeMap, sync::Arc, vec::Vec};

use super::{Node, Timer, directory::Known, history::Cause};
use crate::{
    batch::Epoch,
    directory::Entry,
    id::ServerId,
    mutation::{Mutation, is_on},
    name::UserName,
};

/// The users of one origin who are held.
#[derive(Debug, Default)]
pub(super) struct Held {
    until_ms: u64,
    entries: BTreeMap<UserName, Arc<Entry>>,
}

impl Held {
    /// Until when this user is held.
    pub(super) fn until_ms(&self, user: &UserName) -> Option<u64> {
        self.entries.contains_key(user).then_some(self.until_ms)
    }

    /// The entry of a user who is held.
    pub(super) fn entry(&self, user: &UserName) -> Option<&Entry> {
        self.entries.get(user).map(Arc::as_ref)
    }
}

impl Known {
    /// The next epoch is shown: those of whom it speaks are held no longer.
    pub(super) fn release_shown(&mut self) {
        let origin = &self.origin;
        self.held.entries.retain(|user, _| origin.view(user).is_none());
    }
}

impl Node {
    /// Holds the users of an origin who are shown in the epoch that ends, and nobody longer than that.
    pub(super) fn hold(&mut self, origin: ServerId, epoch: Epoch, hold_ms: u64) {
        self.hold_no_more(origin);
        if hold_ms == 0 || is_on(Mutation::HoldIgnored) {
            return;
        }
        let shown = self.directory.hold(origin, epoch.number).into_iter();
        let entries = shown.map(|entry| (entry.address.user.clone(), entry)).collect();
        let until_ms = self.now.monotonic_ms + hold_ms;
        if let Some(known) = self.origins.get_mut(&origin) {
            known.held = Held { until_ms, entries };
            self.timers.insert((until_ms, Timer::Hold(origin)));
        }
    }

    /// Forgets who is held, whose entries go with the next refresh.
    pub(super) fn hold_no_more(&mut self, origin: ServerId) {
        self.directory.release(origin);
        if let Some(known) = self.origins.get_mut(&origin) {
            known.held = Held::default();
        }
    }

    /// The home is heard in an epoch, below which users of a later one do not go on.
    pub(super) fn hold_none_of_later(&mut self, origin: ServerId, epoch: Epoch) {
        let Some(known) = self.origins.get(&origin) else { return };
        if known.held.entries.values().any(|entry| entry.epoch > epoch.number) {
            self.hold_no_more(origin);
            self.refresh_all(origin, Cause::NewEpoch);
        }
    }

    /// The home has spoken of these users.
    pub(super) fn release(&mut self, origin: ServerId, users: &[UserName]) {
        if let Some(known) = self.origins.get_mut(&origin).filter(|known| known.is_shown()) {
            users.iter().for_each(|user| drop(known.held.entries.remove(user)));
        }
    }

    pub(super) fn hold_over(&mut self, origin: ServerId) {
        let now_ms = self.now.monotonic_ms;
        let Some(known) = self.origins.get_mut(&origin).filter(|known| known.held.until_ms <= now_ms) else { return };
        let cause = if known.is_shown() { Cause::NotBack } else { Cause::Goodbye { from: None } };
        let users: Vec<UserName> = known.held.entries.keys().cloned().collect();
        self.hold_no_more(origin);
        self.refresh(origin, users, cause);
    }
}
