//! The operator's view of peers: how each can be reached, how far this server is with it, and what went wrong last.
//!
//! It is read from what links, neighbours and the directory know anyway; kept for it alone is one [`Past`] a peer. Nothing
//! is decided by it.

use alloc::{
    collections::BTreeMap,
    string::{String, ToString},
    vec::Vec,
};

use super::{
    Node, Timer,
    admission::Way,
    link::{LinkState, Links, Peer},
};
use crate::{
    id::ServerId,
    input::{CallId, LinkId, Now},
    limits::CAUSE_BYTES_MAX,
    operator::v1::{self, Dial, ListPeersResponse, Reach, Standing},
    output::Answer,
};

/// What is remembered of a peer beyond its links.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// When it was heard last on a link that is gone.
    heard_ms: Option<u64>,
    /// Why a link ended or a dial failed last, and when.
    trouble: Option<(u64, String)>,
}

impl Links {
    /// A dial came to nothing, or a peer said why a link ended that is gone. While there is a link it is of no interest.
    pub(super) fn failed(&mut self, id: ServerId, now: Now, cause: &str) {
        if let Some(peer) = self.peers.get_mut(&id)
            && peer.link.is_none()
            && !cause.is_empty()
        {
            peer.past.trouble = Some((now.monotonic_ms, line(cause)));
        }
    }

    /// A link ended: one beside the link in use is of no interest.
    pub(super) fn ended(&mut self, link: LinkId, state: &LinkState, now: Now, cause: &str) {
        let Some(peer) = self.peers.get_mut(&state.peer) else { return };
        if state.epoch.is_some() {
            peer.past.heard_ms = peer.past.heard_ms.max(Some(state.heard_ms));
        }
        if peer.link.is_none_or(|in_use| in_use == link) {
            let cause = if cause.is_empty() { "it ended without a word" } else { cause };
            peer.past.trouble = Some((now.monotonic_ms, line(cause)));
        }
    }

    /// When a sign of life came last on a link of this peer.
    fn heard_ms(&self, id: &ServerId) -> Option<u64> {
        let links = self.links.values().filter(|link| link.peer == *id && link.epoch.is_some());
        links.map(|link| link.heard_ms).chain(self.peers.get(id)?.past.heard_ms).max()
    }
}

impl Node {
    pub(super) fn list_peers(&mut self, call: CallId) {
        let mut shown: BTreeMap<ServerId, u32> = BTreeMap::new();
        self.directory.entries().for_each(|entry| *shown.entry(entry.address.home).or_default() += 1);
        let mut dials: BTreeMap<ServerId, u64> = BTreeMap::new();
        for (due_ms, timer) in &self.timers {
            if let Timer::Dial(peer) = timer {
                dials.entry(*peer).or_insert(*due_ms);
            }
        }
        let peers = self.links.peers.iter();
        let mut peers: Vec<v1::Peer> = peers
            .map(|(id, peer)| {
                let users_shown = shown.get(id).copied().unwrap_or_default();
                self.peer(id, peer, dials.get(id).copied(), users_shown)
            })
            .collect();
        let blocked = self.admissions.blocked.iter().map(|id| v1::Peer {
            name: self.bound_name(id),
            server_id: id.to_string(),
            standing: Standing::Blocked.into(),
            reach: Reach::Unreachable.into(),
            dial: Dial::Idle.into(),
            ..v1::Peer::default()
        });
        peers.extend(blocked);
        peers.sort_by(|one, other| (&one.name, &one.server_id).cmp(&(&other.name, &other.server_id)));
        self.answer(call, Ok(Answer::Peers(ListPeersResponse { peers })));
    }

    fn peer(&self, id: &ServerId, peer: &Peer, dial_due_ms: Option<u64>, users_shown: u32) -> v1::Peer {
        let link = peer.link.and_then(|link| self.links.state(link));
        let (reach, next_hop) = self.reach(id);
        let has_link = self.links.links.values().any(|link| link.peer == *id && !link.is_retired);
        let dial = if link.is_none() && (peer.is_dialling || has_link) {
            Dial::UnderWay
        } else if link.is_none() && peer.is_dialled && dial_due_ms.is_some() {
            Dial::Waiting
        } else {
            Dial::Idle
        };
        let (epoch, position, told_position) = self.progress_of(id);
        let heard_ms = self.links.heard_ms(id).max(self.neighbours.heard_ms(id));
        let trouble = peer.past.trouble.as_ref();
        let (standing, admitted_by, admitted_until) = match self.admissions.admitted.ways.get(id) {
            Some(Way::Admitted { by, until_unix_ms }) => (Standing::Admitted, self.name_of(by), *until_unix_ms),
            Some(Way::Pinned) | None => (Standing::Pinned, String::new(), 0),
        };
        let vouched = self.admissions.said(&self.id, id).map(|kept| &kept.admission);
        let vouched = vouched.filter(|said| said.counts(self.now.unix_ms)).map_or(0, |said| said.until_unix_ms);
        let unix_ms = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        v1::Peer {
            name: peer.name.to_string(),
            server_id: id.to_string(),
            dialled: peer.is_dialled,
            reach: reach.into(),
            next_hop,
            linked_unix_ms: self.unix_at(link.map(|link| link.up_ms)),
            linked_by_own_dial: link.is_some_and(|link| link.is_dialled),
            dial: dial.into(),
            next_dial_unix_ms: self.unix_at(dial_due_ms.filter(|_| dial == Dial::Waiting)),
            last_error: trouble.map_or_else(String::new, |(_, text)| text.clone()),
            last_error_unix_ms: self.unix_at(trouble.map(|(at_ms, _)| *at_ms)),
            heard_unix_ms: self.unix_at(heard_ms),
            epoch,
            position,
            told_position,
            users_shown,
            refused_frames: link.map_or(0, |link| link.refused),
            standing: standing.into(),
            admitted_by,
            admitted_until_unix_ms: unix_ms(admitted_until),
            vouched_until_unix_ms: unix_ms(vouched),
        }
    }

    /// By which way a server can be reached, and the name of the neighbour that is next if it goes through others.
    pub(super) fn reach(&self, id: &ServerId) -> (Reach, String) {
        match self.neighbours.next_hop(id) {
            _ if *id == self.id => (Reach::Self_, String::new()),
            None => (Reach::Unreachable, String::new()),
            Some(next) if next == *id => (Reach::Linked, String::new()),
            Some(next) => (Reach::Through, self.name_of(&next)),
        }
    }

    /// The epoch of an origin that is in force here, the own position in it, and the position that the origin told.
    pub(super) fn progress_of(&self, id: &ServerId) -> (u64, u64, u64) {
        let Some(known) = self.origins.get(id) else { return (0, 0, 0) };
        let (epoch, position) = (known.origin.epoch(), known.origin.position());
        let signed = self.neighbours.told(id, epoch).map(|(_, position)| position);
        let link = self.links.to(id).and_then(|link| self.links.state(link));
        let named = link.and_then(|link| link.progress.told(id, epoch));
        // What was received was told as well.
        (epoch.number, position, position.max(signed.max(named).unwrap_or_default()))
    }

    /// A time of the monotonic clock as Unix time by the present clock; 0 for none.
    pub(super) fn unix_at(&self, at_ms: Option<u64>) -> i64 {
        let unix_ms = at_ms.map(|at_ms| (self.now.unix_ms + at_ms).saturating_sub(self.now.monotonic_ms));
        unix_ms.and_then(|unix_ms| i64::try_from(unix_ms).ok()).unwrap_or_default()
    }
}

/// A text as one printable line within the limit.
fn line(text: &str) -> String {
    let mut line = String::new();
    for letter in text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }) {
        if line.len() + letter.len_utf8() > CAUSE_BYTES_MAX {
            break;
        }
        line.push(letter);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_kept_up_to_its_limit_and_cut_one_past_it() {
        let longest = "x".repeat(CAUSE_BYTES_MAX);
        assert_eq!(line(&longest), longest);
        assert_eq!(line(&(longest.clone() + "x")), longest);
        let across = "x".repeat(CAUSE_BYTES_MAX - 1) + "é";
        assert_eq!(line(&across), across[..CAUSE_BYTES_MAX - 1]);
    }

    #[test]
    fn a_cause_is_one_printable_line() {
        assert_eq!(line("\x1b[2J\none\ttwo"), " [2J one two");
    }
}
