//! Reach: whether an origin's users are shown.
//!
//! They are while there is a way to it, and for a grace after; then they leave in one revision, are kept aside, and return in
//! one revision once the own position has reached one that the origin named after the break.

use super::{Node, Timer, history::Cause};
use crate::{
    id::ServerId,
    mutation::{Mutation, is_on},
};

/// Whether an origin's users are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// They are.
    Shown,
    /// They are, until then: there is no way to it.
    Grace { until_ms: u64 },
    /// They are not, until the position has reached `need`; `None` while it is not known to be back. A position counts
    /// that stands in a list of neighbours later than `after`, the last one before the break.
    Away { need: Option<u64>, after: u64 },
}

/// How an origin was found to be reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// There is a way to it.
    ByPath,
    /// It introduced itself on a link of its own, and is at this number.
    ByHello { number: u64 },
}

impl Node {
    /// There is a way to an origin, or news of how far it is.
    pub(super) fn origin_reached(&mut self, id: ServerId, how: Reached) {
        let Some(known) = self.origins.get_mut(&id) else { return };
        if known.has_ended() {
            return;
        }
        match known.reach {
            Reach::Shown | Reach::Grace { .. } => known.reach = Reach::Shown,
            Reach::Away { need, after } => {
                let told = self.neighbours.told(&id, known.origin.epoch());
                let signed = told.filter(|(number, _)| *number > after).map(|(_, position)| position);
                let named = match how {
                    Reached::ByPath => signed,
                    Reached::ByHello { number } => Some(number),
                };
                known.reach = Reach::Away { need: need.max(named), after };
                if is_on(Mutation::ReturnShownIncomplete) {
                    known.reach = Reach::Away { need: Some(0), after };
                } else if is_on(Mutation::ReturnNotShown) && after > 0 {
                    known.reach = Reach::Away { need: None, after };
                }
                self.show_if_complete(id);
                self.catch_up(id);
            }
        }
    }

    pub(super) fn show_if_complete(&mut self, id: ServerId) {
        let Some(known) = self.origins.get_mut(&id) else { return };
        if matches!(known.reach, Reach::Away { need: Some(need), .. } if known.origin.position() >= need) {
            known.reach = Reach::Shown;
            known.release_shown();
            self.refresh_all(id, Cause::Reached);
        }
    }

    /// There is no way to an origin any more.
    pub(super) fn origin_lost(&mut self, id: ServerId) {
        let grace_ms = if is_on(Mutation::GraceNotGiven) { 0 } else { self.settings.link_grace_ms };
        let until_ms = self.now.monotonic_ms + grace_ms;
        let Some(known) = self.origins.get_mut(&id) else { return };
        let after = self.neighbours.told(&id, known.origin.epoch()).map_or(0, |(number, _)| number);
        known.reach = match known.reach {
            Reach::Shown => Reach::Grace { until_ms },
            Reach::Grace { until_ms } => Reach::Grace { until_ms },
            Reach::Away { .. } => Reach::Away { need: None, after },
        };
        self.timers.insert((until_ms, Timer::LinkGrace(id)));
    }

    pub(super) fn link_grace_over(&mut self, id: ServerId) {
        let now_ms = self.now.monotonic_ms;
        let Some(known) = self.origins.get_mut(&id) else { return };
        if is_on(Mutation::UnreachableStayShown) {
            return;
        }
        if matches!(known.reach, Reach::Grace { until_ms } if until_ms <= now_ms) {
            let after = self.neighbours.told(&id, known.origin.epoch()).map_or(0, |(number, _)| number);
            known.reach = Reach::Away { need: None, after };
            self.refresh_all(id, Cause::Unreachable);
        }
    }
}
