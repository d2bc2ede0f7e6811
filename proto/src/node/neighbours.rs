//! Link state: who has a link to whom, and so who can be reached, and by which way.
//!
//! Every server signs the list of its neighbours; the lists are passed onward unchanged. An edge counts when both ends
//! list it, so that nobody can invent one. From the edges every server computes the same shortest paths ([`super::paths`]):
//! which origins can be reached, over which neighbour a message goes to its home, and to which neighbours a batch is passed
//! on, so that each server is sent it once. A list that was not renewed for long does not count, whoever still lists its server.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use prost::{Message as _, bytes::Bytes};

use super::{Node, Timer, paths::Paths, reach::Reached, sizes::Sizes};
use crate::{
    batch::{Epoch, epoch},
    federation::v1::{NeighboursStatement, SignedNeighbours, remove_frame},
    id::ServerId,
    identity::{signature, verified_key},
    input::LinkId,
    limits::{HOPS_MAX, NEIGHBOURS_MAX, NEIGHBOURS_STALE_MS},
    mutation::{Mutation, is_on},
    output::Refusal,
    signed::Label,
    statement::own,
};

/// How often a server signs its neighbours anew, if nothing changes: three times before the list is stale.
const RENEW_MS: u64 = 5_000;

/// Changes of so long are signed together: a server that starts gets many links at once.
const GATHER_MS: u64 = 10;

/// Paths are found anew so long after others' lists changed: a network that starts or breaks changes many at once.
const PATHS_MS: u64 = 5;

/// They are found no more often than that for others' lists, so that nobody keeps a server busy with them.
const PATHS_APART_MS: u64 = 20;

/// Lists are signed no closer together: one server that comes and goes must not make all others sign as often.
const APART_MS: u64 = 200;

/// A list that comes again counts for longer if it is younger by so much than it was the first time. Less is the time that one
/// copy took longer on its way: in a large network there are many.
const YOUNGER_MS: u64 = 1_000;

/// The last list of one server.
#[derive(Debug)]
struct Word {
    epoch: Epoch,
    number: u64,
    position: u64,
    /// Ascending.
    neighbours: Vec<ServerId>,
    heard_ms: u64,
    /// Until when it counts.
    stale_ms: u64,
    signed: SignedNeighbours,
}

impl Word {
    /// The list with its age, to be passed on.
    fn told_at(&self, now_ms: u64) -> SignedNeighbours {
        let age_ms = (now_ms + NEIGHBOURS_STALE_MS).saturating_sub(self.stale_ms);
        let age_ms = u32::try_from(age_ms).unwrap_or(u32::MAX);
        SignedNeighbours { age_ms, ..self.signed.clone() }
    }

    /// Whether it counts.
    fn is_fresh(&self, now_ms: u64) -> bool {
        self.stale_ms > now_ms || is_on(Mutation::StaleListCounts)
    }
}

/// What is known of everybody's links, and the paths that follow.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    words: BTreeMap<ServerId, Word>,
    /// Number of the own list that was signed last.
    number: u64,
    /// When that was.
    signed_ms: u64,
    /// When the own list is to be signed next.
    due_ms: u64,
    paths: Paths,
    /// When paths were found last.
    found_ms: u64,
    /// Whether paths are to be found anew soon.
    paths_are_due: bool,
}

impl Neighbours {
    pub(super) fn sizes(&self, sizes: &mut Sizes) {
        sizes.note("lists of neighbours", self.words.len());
        self.words.values().for_each(|word| sizes.note("neighbours of a server", word.neighbours.len()));
    }

    /// The neighbour that is next on the way to a server.
    pub(super) fn next_hop(&self, to: &ServerId) -> Option<ServerId> {
        self.paths.next_hop(to)
    }

    /// What an origin last signed of its position: the number of its list, and the position.
    pub(super) fn told(&self, id: &ServerId, epoch: Epoch) -> Option<(u64, u64)> {
        self.words.get(id).filter(|word| word.epoch == epoch).map(|word| (word.number, word.position))
    }

    /// A server's last list and how old it is, if it is of this epoch.
    pub(super) fn signed(&self, id: &ServerId, epoch: Epoch, now_ms: u64) -> Option<SignedNeighbours> {
        self.words.get(id).filter(|word| word.epoch == epoch).map(|word| word.told_at(now_ms))
    }

    /// The same if it counts, of whatever epoch.
    pub(super) fn fresh(&self, id: &ServerId, now_ms: u64) -> Option<SignedNeighbours> {
        self.words.get(id).filter(|word| word.is_fresh(now_ms)).map(|word| word.told_at(now_ms))
    }

    /// Servers whose lists are known.
    pub(super) fn listed(&self) -> impl Iterator<Item = ServerId> {
        self.words.keys().copied()
    }

    /// When a list of this server came last.
    pub(super) fn heard_ms(&self, id: &ServerId) -> Option<u64> {
        self.words.get(id).map(|word| word.heard_ms)
    }

    /// Forgets a server's list: its epoch is over.
    pub(super) fn forget(&mut self, id: &ServerId) {
        self.words.remove(id);
    }
}

impl Node {
    /// A link is in use, or is not any more.
    pub(super) fn links_changed(&mut self) {
        self.sign_neighbours_soon();
        self.paths_changed();
    }

    /// The links to the neighbours to which a batch of this origin is passed on.
    pub(super) fn children(&mut self, origin: ServerId) -> Vec<LinkId> {
        if is_on(Mutation::BatchesFlood) {
            return self.links.all_but(None);
        }
        let children = self.neighbours.paths.children_of(origin);
        children.iter().filter_map(|child| self.links.to(child)).collect()
    }

    /// The link that is next on the way to a server.
    pub(super) fn way_to(&self, id: &ServerId) -> Option<LinkId> {
        self.links.to(&self.neighbours.next_hop(id)?)
    }

    /// The link that is next on the way to a server for something that came from elsewhere, and how many more it may pass.
    pub(super) fn onward(&self, to: &ServerId, hops_left: u32) -> Option<(LinkId, u32)> {
        Some((self.way_to(to)?, fewer_hops(hops_left)?))
    }

    /// Others' lists changed: what comes within a moment is taken into account together.
    fn paths_changed_soon(&mut self) {
        if !core::mem::replace(&mut self.neighbours.paths_are_due, true) {
            let soon_ms = self.now.monotonic_ms + PATHS_MS;
            let due_ms = soon_ms.max(self.neighbours.found_ms + PATHS_APART_MS);
            self.timers.insert((due_ms, Timer::Paths));
        }
    }

    pub(super) fn paths_due(&mut self) {
        if self.neighbours.paths_are_due {
            self.paths_changed();
        }
    }

    /// Finds paths anew, and tells the directory who can be reached.
    fn paths_changed(&mut self) {
        self.neighbours.paths_are_due = false;
        self.neighbours.found_ms = self.now.monotonic_ms;
        let own_links: Vec<ServerId> = self.links.neighbours().collect();
        let now_ms = self.now.monotonic_ms;
        let fresh = self.neighbours.words.iter().filter(|(_, word)| word.is_fresh(now_ms));
        let paths = Paths::find(self.id, &own_links, fresh.map(|(id, word)| (*id, &word.neighbours[..])));
        let (before, after) = (self.neighbours.paths.reachable(), paths.reachable());
        self.neighbours.paths = paths;
        for id in before.iter().filter(|id| after.binary_search(id).is_err()) {
            self.origin_lost(*id);
            self.outcomes_lost(*id);
            self.home_lost(*id);
        }
        if after.iter().any(|id| before.binary_search(id).is_err()) {
            // Who returns waits for a position that was signed after the break.
            self.sign_neighbours_soon();
        }
        for id in after {
            self.origin_reached(id, Reached::ByPath);
            if before.binary_search(&id).is_err() {
                self.home_reached(id);
            }
        }
    }

    /// A new epoch of this server begins, and its lists begin anew.
    pub(super) fn sign_neighbours_anew(&mut self) {
        self.neighbours.number = 0;
        self.sign_neighbours_soon();
    }

    fn sign_neighbours_soon(&mut self) {
        let due_ms = (self.now.monotonic_ms + GATHER_MS).max(self.neighbours.signed_ms + APART_MS);
        if self.neighbours.due_ms > due_ms {
            self.neighbours.due_ms = due_ms;
            self.timers.insert((due_ms, Timer::Neighbours));
        }
    }

    pub(super) fn neighbours_due(&mut self) {
        if self.draining || self.neighbours.due_ms > self.now.monotonic_ms {
            return;
        }
        self.neighbours.signed_ms = self.now.monotonic_ms;
        self.neighbours.due_ms = self.now.monotonic_ms + RENEW_MS;
        self.timers.insert((self.neighbours.due_ms, Timer::Neighbours));
        self.neighbours.number += 1;
        let statement = NeighboursStatement {
            origin_key: Bytes::copy_from_slice(&self.identity.public_key()),
            epoch: self.epoch.number,
            start_id: Bytes::copy_from_slice(self.epoch.start.as_bytes()),
            number: self.neighbours.number,
            position: self.own().origin.position(),
            neighbour_ids: self.links.neighbours().map(|id| Bytes::copy_from_slice(id.as_bytes())).collect(),
        }
        .encode_to_vec();
        let signature = signature(&*self.identity, Label::Neighbours, &statement);
        let signed = SignedNeighbours { statement: statement.into(), signature, age_ms: 0 };
        self.neighbours.words.insert(
            self.id,
            Word {
                epoch: self.epoch,
                number: self.neighbours.number,
                position: self.own().origin.position(),
                // Own edges are those of the own links.
                neighbours: Vec::new(),
                heard_ms: self.now.monotonic_ms,
                stale_ms: self.now.monotonic_ms + NEIGHBOURS_STALE_MS,
                signed: signed.clone(),
            },
        );
        let links = self.links.all_but(None);
        links.into_iter().for_each(|link| self.send_remove(link, remove_frame::Kind::Neighbours(signed.clone())));
    }

    pub(super) fn neighbours(&mut self, link: LinkId, signed: &SignedNeighbours) -> Result<(), Refusal> {
        let malformed = || Refusal::Malformed("neighbours");
        if signed.statement.len() > 40 * NEIGHBOURS_MAX {
            return Err(Refusal::TooMany("neighbours"));
        }
        let statement = NeighboursStatement::decode(&signed.statement[..]).map_err(|_| malformed())?;
        let key: [u8; 32] = statement.origin_key[..].try_into().map_err(|_| malformed())?;
        let id = ServerId::of_key(&key);
        let epoch = epoch(statement.epoch, &statement.start_id)?;
        let is_invented = epoch == self.epoch && statement.number > self.neighbours.number;
        if id == self.id && (epoch > self.epoch || is_invented) {
            verified_key(&*self.identity, Label::Neighbours, &key, &signed.statement, &signed.signature)?;
            if is_invented {
                self.own_word_invented(self.own().origin.position());
            }
            self.own_word_returned(link, epoch);
            return Ok(());
        }
        let stale_ms = self.now.monotonic_ms + NEIGHBOURS_STALE_MS.saturating_sub(signed.age_ms.into());
        if let Some(word) = self.neighbours.words.get_mut(&id)
            && word.signed.statement == signed.statement
            && word.stale_ms + YOUNGER_MS <= stale_ms
        {
            // Whoever brought it first made it older than it is.
            let is_news = !word.is_fresh(self.now.monotonic_ms);
            word.stale_ms = stale_ms;
            self.timers.insert((stale_ms, Timer::Stale(id)));
            if is_news {
                self.paths_changed_soon();
            }
            return Ok(());
        }
        let is_known =
            self.neighbours.words.get(&id).is_some_and(|word| (word.epoch, word.number) >= (epoch, statement.number));
        if is_known || self.links.admitted_name(&id).is_none() {
            return Ok(());
        }
        verified_key(&*self.identity, Label::Neighbours, &key, &signed.statement, &signed.signature)?;
        let ids = statement.neighbour_ids.iter().map(|id| ServerId::from_bytes(id).ok_or_else(malformed));
        let neighbours = ids.collect::<Result<BTreeSet<_>, _>>()?;
        // Who contradicts itself is shown no more, but others may be behind it.
        if self.begin_epoch(id, epoch).is_err() && !self.is_contradicted(&id, epoch) {
            return Ok(());
        }
        let word = Word {
            epoch,
            number: statement.number,
            position: statement.position,
            neighbours: neighbours.into_iter().collect(),
            heard_ms: self.now.monotonic_ms,
            stale_ms,
            signed: SignedNeighbours {
                statement: own(&signed.statement),
                signature: own(&signed.signature),
                age_ms: 0,
            },
        };
        let has_it = |peer: &ServerId| *peer == id || word.neighbours.binary_search(peer).is_ok();
        // Its neighbours have it from itself.
        let others = self.links.in_use().filter(|other| *other != link);
        let others: Vec<LinkId> =
            others.filter(|other| self.links.peer_of(*other).is_some_and(|peer| !has_it(&peer))).collect();
        let now_ms = self.now.monotonic_ms;
        let before = self.neighbours.words.get(&id);
        let is_news = before.is_none_or(|before| !before.is_fresh(now_ms) || before.neighbours != word.neighbours);
        self.neighbours.words.insert(id, word);
        self.timers.insert((stale_ms, Timer::Stale(id)));
        for other in others {
            self.send_remove(other, remove_frame::Kind::Neighbours(signed.clone()));
        }
        if is_news {
            self.paths_changed_soon();
        }
        if self.neighbours.next_hop(&id).is_some() {
            self.origin_reached(id, Reached::ByPath);
        }
        Ok(())
    }

    /// A server's list may be too old to count by now.
    pub(super) fn neighbours_may_be_stale(&mut self, id: ServerId) {
        let now_ms = self.now.monotonic_ms;
        if self.neighbours.words.get(&id).is_some_and(|word| !word.is_fresh(now_ms)) {
            self.paths_changed();
        }
    }
}

/// How many links something may pass after one more; `None` if it may pass none.
pub(super) fn fewer_hops(hops_left: u32) -> Option<u32> {
    let hops_left = if is_on(Mutation::HopsNotCounted) { HOPS_MAX } else { hops_left };
    hops_left.checked_sub(1).map(|left| left.min(HOPS_MAX))
}
