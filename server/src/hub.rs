//! Fan-out of the directory to many watchers, and the list, from what the node publishes.
//!
//! The node publishes a change once. Here is a bounded ring of revisions, a mirror of the present entries, and one shared
//! snapshot; a watcher is a cursor into the ring and a wake-up. Publishing costs the driver the same however many watch:
//! it wakes one task, which wakes the watchers. Watchers read under a lock that is held for microseconds and never
//! across an await. Who may watch is not decided here.

mod bells;
mod cursors;
mod filter;
mod latency;
mod list;
mod resume;
mod ring;
mod snapshot;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod watcher;
mod wire;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, Weak,
    atomic::{AtomicU64, Ordering},
};

use socp::{
    digest::{Digest, SetHash},
    directory::{Change, Delta},
    id::StartId,
    rejection::Rejection,
    v1::{ListUsersRequest, ListUsersResponse, Reason, WatchDirectoryRequest},
};
use socp_quic::PeerInfo;
use tokio::{
    sync::{Notify, Semaphore},
    time::{Duration, Instant, sleep},
};

use self::{
    bells::Bells,
    cursors::{At, Cursors},
    filter::{Detail, Filter},
    list::{Entries, Place},
    resume::Tokens,
    ring::{Item, Ring, Slot},
    snapshot::Shelf,
    watcher::Stage,
    wire::Shown,
};
pub use self::{
    latency::{Age, Home, Latencies},
    watcher::Watcher,
};
use crate::{
    limits::{
        BOOKMARK_MS, RING_BYTES_MAX, RING_REVISIONS_MAX, SNAPSHOT_BYTES_MAX, WATCH_STALLED_MS, WATCHER_LAGGING_MS,
        WATCHERS_MAX,
    },
    status,
};

/// How much a hub keeps. Change what is needed and take the rest from `default()`.
#[derive(Clone, Debug)]
pub struct HubLimits {
    /// Default [`RING_REVISIONS_MAX`]. Fewer: who was away or slow starts over sooner.
    pub ring_revisions: usize,
    /// Default [`RING_BYTES_MAX`].
    pub ring_bytes: usize,
    /// Default [`SNAPSHOT_BYTES_MAX`]. Fewer: who joins over a slow network starts over sooner.
    pub snapshot_bytes: usize,
    /// Default [`WATCHERS_MAX`].
    pub watchers: usize,
    /// Default [`WATCH_STALLED_MS`]. Shorter: who does not read is got rid of sooner, and so is who is cut off for long.
    pub stalled: Duration,
    /// Default [`BOOKMARK_MS`]. Shorter: a client notices sooner that its watch is dead, and each costs more.
    pub bookmark: Duration,
}

impl Default for HubLimits {
    fn default() -> Self {
        Self {
            ring_revisions: RING_REVISIONS_MAX,
            ring_bytes: RING_BYTES_MAX,
            snapshot_bytes: SNAPSHOT_BYTES_MAX,
            watchers: WATCHERS_MAX,
            stalled: Duration::from_millis(WATCH_STALLED_MS),
            bookmark: Duration::from_millis(BOOKMARK_MS),
        }
    }
}

/// What a hub has in hand at one moment, for metrics.
#[derive(Clone, Debug)]
pub struct Gauges {
    /// Users shown.
    pub users: usize,
    /// Watches.
    pub watchers: usize,
    /// Those that have not read the present state yet.
    pub joining: usize,
    /// Those that lack something published more than [`WATCHER_LAGGING_MS`] ago.
    pub lagging: usize,
    /// Revisions that the one furthest behind lacks.
    pub largest_lag: u64,
    /// The present revision.
    pub revision: u64,
    /// Revisions kept.
    pub ring_revisions: usize,
    /// Bytes of them.
    pub ring_bytes: usize,
    /// Bytes of the snapshots that somebody reads.
    pub snapshot_bytes: usize,
}

#[derive(Debug)]
struct State {
    ring: Ring,
    entries: Entries,
    digest: Digest,
    shelf: Shelf,
    cursors: Cursors,
    draining: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    bells: Bells,
    /// Wakes the announcer.
    published: Arc<Notify>,
    places: Arc<Semaphore>,
    start: StartId,
    limits: HubLimits,
    latencies: Latencies,
    began: Instant,
    /// Connections that were closed because a watch on them stalled.
    stalled: AtomicU64,
}

impl Shared {
    /// In which second since the hub began it is.
    fn second(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    /// Closes the connections of watchers whose transport has asked for nothing for too long, although there is something for
    /// them. They cannot be told: they take nothing. So they hold neither a place nor a message.
    fn end_stalled(&self) {
        let limit = self.limits.stalled;
        let (Some(then), Some(before)) = (Instant::now().checked_sub(limit), self.began.elapsed().checked_sub(limit))
        else {
            return;
        };
        let stalled = {
            let mut state = self.state();
            let owed = state.ring.published_before(then);
            state.cursors.stalled(owed, before.as_secs())
        };
        if stalled.is_empty() {
            return;
        }
        let reason = status::closing_text(&watcher::too_slow(None));
        stalled.iter().for_each(|peer| peer.close(&reason));
        self.stalled.fetch_add(stalled.len() as u64, Ordering::Relaxed);
        tracing::info!(watches = stalled.len(), "closed the connections of watches that took nothing for too long");
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.published.notify_one();
    }
}

/// Wakes the watchers whenever something was published, until the hub is gone.
async fn announce(hub: Weak<Shared>, published: Arc<Notify>) {
    loop {
        published.notified().await;
        let Some(hub) = hub.upgrade() else {
            return;
        };
        hub.bells.ring();
    }
}

/// Looks now and then for watchers that stall, until the hub is gone.
async fn look_for_stalled(hub: Weak<Shared>, pause: Duration) {
    while hub.strong_count() > 0 {
        sleep(pause).await;
        if let Some(hub) = hub.upgrade() {
            hub.end_stalled();
        }
    }
}

/// The hub. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hub(Arc<Shared>);

impl Hub {
    /// Makes a hub for one start of the server, whose resume tokens are good for that start. To be called in a tokio
    /// runtime.
    pub fn new(start: StartId) -> Self {
        Self::with_limits(start, HubLimits::default())
    }

    /// Makes a hub that keeps more or less than usual.
    pub fn with_limits(start: StartId, limits: HubLimits) -> Self {
        let published = Arc::new(Notify::new());
        let hub = Arc::new(Shared {
            state: Mutex::new(State {
                ring: Ring::new(limits.ring_revisions, limits.ring_bytes),
                entries: Entries::new(),
                digest: SetHash::default().digest(),
                shelf: Shelf::new(limits.snapshot_bytes),
                cursors: Cursors::default(),
                draining: false,
            }),
            bells: Bells::default(),
            published: Arc::clone(&published),
            places: Arc::new(Semaphore::new(limits.watchers)),
            start,
            limits,
            latencies: Latencies::default(),
            began: Instant::now(),
            stalled: AtomicU64::new(0),
        });
        tokio::spawn(look_for_stalled(Arc::downgrade(&hub), hub.limits.stalled / 4));
        tokio::spawn(announce(Arc::downgrade(&hub), published));
        Self(hub)
    }

    /// Takes the next revision. Waits for nobody.
    pub fn publish(&self, delta: &Delta) {
        self.publish_aged(delta, None);
    }

    /// The same, with how old what it shows is by now; by that it is measured when watchers have it.
    pub fn publish_aged(&self, delta: &Delta, age: Option<Age>) {
        let mut state = self.0.state();
        let state = &mut *state;
        let items = delta.changes.iter().map(|change| apply(&mut state.entries, change)).collect();
        state.ring.push(Slot::new(delta.revision, items).aged(age));
        state.digest = delta.digest;
        state.shelf.outdate();
        self.0.published.notify_one();
    }

    /// Ends all watches with DRAINING, once each has what was published, and refuses new ones.
    pub fn drain(&self) {
        self.0.state().draining = true;
        self.0.published.notify_one();
    }

    /// Begins a watch.
    /// Rejects: DRAINING, TOO_MANY, NAME_INVALID, UNKNOWN_TYPE, RESUME_TOKEN_INVALID, REVISION_COMPACTED.
    pub fn watch(&self, request: &WatchDirectoryRequest) -> Result<Watcher, Rejection> {
        self.watch_for(request, None)
    }

    /// The same for a peer, whose connection is closed if it takes nothing for [`HubLimits::stalled`] although there is
    /// something for it.
    pub fn watch_for(&self, request: &WatchDirectoryRequest, peer: Option<PeerInfo>) -> Result<Watcher, Rejection> {
        let detail = Detail::parse(request.keys)?;
        let filter = Filter::parse(request.filter.as_ref())?.map(Box::new);
        let tokens = Tokens::new(&self.0.start, filter::fingerprint(filter.as_deref(), detail));
        let place = Arc::clone(&self.0.places).try_acquire_owned().map_err(|_| {
            Rejection::new(Reason::TooMany, "too many watch this server")
                .with("limit", self.0.limits.watchers.to_string())
        })?;
        let mut state = self.0.state();
        if state.draining {
            return Err(status::draining());
        }
        let stage = if request.resume_token.is_empty() {
            let State { ring, entries, digest, shelf, .. } = &mut *state;
            let snapshot = shelf.present(ring.latest(), *digest, entries.values().cloned());
            Stage::Joining { snapshot, part: 0, entries: 0 }
        } else {
            let revision = tokens.read(&request.resume_token)?;
            if revision > state.ring.latest() {
                return Err(resume::invalid());
            }
            if state.ring.after(revision, 1).is_none() {
                return Err(resume::compacted());
            }
            Stage::Following { revision, messages: 0 }
        };
        let at = match &stage {
            Stage::Following { revision, .. } => At::Following(*revision),
            Stage::Joining { .. } | Stage::Over => At::Joining(self.0.second()),
        };
        let cursor = state.cursors.enter(at, peer);
        // Others read and publish on, though all bells may just be rung.
        drop(state);
        let bell = self.0.bells.hang(cursor.place());
        Ok(Watcher {
            hub: Arc::clone(&self.0),
            cursor,
            bell,
            detail,
            filter,
            tokens,
            stage,
            last_message: Instant::now(),
            alarm: None,
            warm: false,
            _place: place,
        })
    }

    /// Reads one page of those online. Rejects: STATEMENT_INVALID (page token), TOO_MANY, NAME_INVALID, UNKNOWN_TYPE.
    pub fn list(&self, request: &ListUsersRequest) -> Result<ListUsersResponse, Rejection> {
        let detail = Detail::parse(request.keys)?;
        let filter = Filter::parse(request.filter.as_ref())?;
        let after = Place::parse(&request.page_token)?;
        let size = list::page_size(request.page_size)?;
        let (users, next, revision) = {
            let state = self.0.state();
            let (users, next) = list::page(&state.entries, filter.as_ref(), after.as_ref(), size);
            (users, next, state.ring.latest())
        };
        Ok(ListUsersResponse {
            users: users.iter().map(|shown| shown.entry.to_contract(detail.contract())).collect(),
            next_page_token: next.map_or_else(String::new, |place| place.token()),
            revision,
        })
    }

    /// What there is now.
    pub fn gauges(&self) -> Gauges {
        let watchers = self.watchers();
        let state = self.0.state();
        let due = Instant::now().checked_sub(Duration::from_millis(WATCHER_LAGGING_MS));
        let owed = due.map_or(0, |due| state.ring.published_before(due));
        let (joining, lagging, least) = state.cursors.behind(owed);
        Gauges {
            users: state.entries.len(),
            watchers,
            joining,
            lagging,
            largest_lag: least.map_or(0, |least| state.ring.latest().saturating_sub(least)),
            revision: state.ring.latest(),
            ring_revisions: state.ring.len(),
            ring_bytes: state.ring.bytes(),
            snapshot_bytes: state.shelf.bytes(),
        }
    }

    /// How long it took until watchers had what they were told.
    pub fn latencies(&self) -> &Latencies {
        &self.0.latencies
    }

    /// How many connections were closed because a watch on them stalled.
    pub fn stalled(&self) -> u64 {
        self.0.stalled.load(Ordering::Relaxed)
    }

    /// How many watch now.
    pub fn watchers(&self) -> usize {
        self.0.limits.watchers - self.0.places.available_permits()
    }

    /// The present revision.
    pub fn revision(&self) -> u64 {
        self.0.state().ring.latest()
    }
}

/// Carries a change out on the mirror. The node publishes what fits together; a mirror that it does not fit is a bug.
fn apply(entries: &mut Entries, change: &Change) -> Item {
    let key = |entry: &socp::directory::Entry| (entry.address.user.clone(), entry.address.home);
    match change {
        Change::Added(entry) => {
            let new = Shown::new(Arc::clone(entry));
            let old = entries.insert(key(entry), Arc::clone(&new));
            assert!(old.is_none(), "only a user who is not shown is added");
            Item::Added(new)
        }
        Change::Updated(entry) => {
            let new = Shown::new(Arc::clone(entry));
            let old = entries.insert(key(entry), Arc::clone(&new)).expect("only a user who is shown is updated");
            Item::Updated { old, new }
        }
        Change::Removed(entry, reason) => {
            let old = entries.remove(&key(entry)).expect("only a user who is shown is removed");
            Item::Removed { old, reason: *reason }
        }
        Change::Moved(entry, destination) => {
            let old = entries.remove(&key(entry)).expect("only a user who is shown moves");
            Item::Moved { old, destination: Arc::clone(destination) }
        }
    }
}
