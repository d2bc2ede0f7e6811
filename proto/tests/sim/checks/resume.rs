//! Resuming: a watch that breaks and resumes, or starts over where it is told to, shows what one shows that never left.
//!
//! At one server of each run the hub that serves real clients takes what the node publishes. One client reads all the
//! time; another one comes and goes, reads late, and resumes with the token that it got last.

use std::{collections::BTreeMap, time::Duration};

use prost::{Message as _, bytes::Bytes};
use socp::{
    directory::Delta,
    id::StartId,
    rejection::Rejection,
    v1::{
        DirectoryEntry, EndMark, KeyDetail, Reason, WatchDirectoryRequest, WatchDirectoryResponse,
        directory_change::Change,
    },
};
use socp_server::hub::{Hub, HubLimits, Watcher};
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};

use crate::{
    tally::{Kind, Tally},
    world::World,
};

/// So few that who stays away for a while has to start over.
const RING_REVISIONS: usize = 40;

/// A client's watch.
#[derive(Default)]
pub struct Client {
    watcher: Option<Watcher>,
    shown: BTreeMap<(String, String), DirectoryEntry>,
    revision: u64,
    token: String,
    /// Of the present state, once it is complete.
    pub end_mark: Option<EndMark>,
    /// What it was told since it last began: `added`, `updated`, `removed` or `end`, each with a user.
    pub told: Vec<(&'static str, String)>,
}

impl Client {
    fn take(&mut self, frame: &Bytes) {
        // As gRPC has it: not compressed, the length, the message.
        let (head, message) = frame.split_at(5);
        assert_eq!(head, [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes()].concat());
        let message = WatchDirectoryResponse::decode(message).expect("a hub sends what a client can read");
        for change in message.changes {
            let revision = change.revision;
            let last = self.revision;
            if self.end_mark.is_some() {
                assert!(revision == last || revision == last + 1, "revision {revision} follows {last}");
            }
            self.revision = revision;
            self.change(change.change.expect("a change says what it is"));
        }
        if let Some(mark) = message.end_mark {
            assert!(self.end_mark.is_none(), "the present state ends once");
            assert_eq!(mark.entries, self.shown.len() as u64, "the end mark counts what was sent");
            self.revision = mark.revision;
            self.end_mark = Some(mark);
            self.told.push(("end", String::new()));
        }
        if !message.resume_token.is_empty() {
            self.token = message.resume_token;
        }
    }

    fn change(&mut self, change: Change) {
        let key = |name: &str, server: &str| (name.to_owned(), server.to_owned());
        match change {
            Change::Added(entry) => {
                self.told.push(("added", entry.user.clone()));
                let before = self.shown.insert(key(&entry.name, &entry.server_id), entry);
                assert!(before.is_none(), "{before:?} was added twice");
            }
            Change::Updated(entry) => {
                self.told.push(("updated", entry.user.clone()));
                let before = self.shown.insert(key(&entry.name, &entry.server_id), entry);
                assert!(before.is_some(), "only who is shown is updated");
            }
            Change::Removed(entry) => {
                self.told.push(("removed", entry.user));
                let before = self.shown.remove(&key(&entry.name, &entry.server_id));
                assert!(before.is_some(), "only who is shown is removed");
            }
        }
    }
}

/// The hub of one server, and two clients of it.
pub struct Audience {
    runtime: Runtime,
    hub: Option<Hub>,
    pub steady: Client,
    pub restless: Client,
    /// Whether the other one has read all that was published.
    has_read_all: bool,
}

impl Audience {
    pub fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without IO can be made");
        Self { runtime, hub: None, steady: Client::default(), restless: Client::default(), has_read_all: false }
    }

    /// The server starts, and both clients begin anew.
    pub fn begin(&mut self, start: StartId, tally: &mut Tally) {
        let limits = HubLimits { ring_revisions: RING_REVISIONS, ..HubLimits::default() };
        let (steady, restless) = (Client::default(), Client::default());
        self.hub = Some(self.runtime.block_on(async { Hub::with_limits(start, limits) }));
        (self.steady, self.restless) = (steady, restless);
        self.read_steadily(tally);
    }

    /// The steady client reads each revision before the next.
    pub fn publish(&mut self, delta: &Delta, tally: &mut Tally) {
        if let Some(hub) = &self.hub {
            hub.publish(delta);
            self.has_read_all = false;
            self.read_steadily(tally);
        }
    }

    fn read_steadily(&mut self, tally: &mut Tally) {
        let Self { runtime, hub: Some(hub), steady, .. } = self else { return };
        assert!(!read(runtime, hub, steady, tally), "who reads all the time is never told to start over");
    }

    /// The other one comes back and reads what it missed.
    pub fn come(&mut self, tally: &mut Tally) {
        let Self { runtime, hub: Some(hub), restless, has_read_all, .. } = self else { return };
        *has_read_all = true;
        if read(runtime, hub, restless, tally) {
            *restless = Client::default();
            assert!(!read(runtime, hub, restless, tally), "who starts over is not told so again");
        }
    }

    /// It goes away, and keeps its token.
    pub fn go(&mut self) {
        self.restless.watcher = None;
    }
}

/// Reads all that there is, resuming where the client was. Tells whether it has to start over.
fn read(runtime: &Runtime, hub: &Hub, client: &mut Client, tally: &mut Tally) -> bool {
    if client.watcher.is_none() {
        let request = WatchDirectoryRequest { resume_token: client.token.clone(), ..Default::default() };
        if !client.token.is_empty() {
            tally.count(Kind::WatchResumed);
        }
        match hub.watch(&request) {
            Ok(watcher) => client.watcher = Some(watcher),
            Err(rejection) => return starts_over(&rejection, tally),
        }
    }
    let mut watcher = client.watcher.take().expect("it was just made");
    loop {
        // The clock of this runtime stands still, but for waits in which nothing comes.
        let next = runtime.block_on(async { timeout(Duration::from_millis(100), watcher.next()).await });
        match next {
            Err(_) => break,
            Ok(Some(Ok(message))) => client.take(&message),
            Ok(Some(Err(rejection))) => return starts_over(&rejection, tally),
            Ok(None) => panic!("a watch ends with a word"),
        }
    }
    client.watcher = Some(watcher);
    false
}

fn starts_over(rejection: &Rejection, tally: &mut Tally) -> bool {
    let expected = [Reason::RevisionCompacted, Reason::WatcherTooSlow];
    assert!(expected.contains(&rejection.reason), "a watch ends only because it was away too long: {rejection}");
    tally.count(Kind::WatchStartedOver);
    true
}

/// Both clients show what the watch of the simulation has.
pub fn at_rest(world: &World) {
    let (audience, server) = (&world.audience, &world.servers[world.audience_at()]);
    let key = |entry: &DirectoryEntry| (entry.name.clone(), entry.server_id.clone());
    let expected = server.watch.entries().map(|entry| entry.to_contract(KeyDetail::Statement));
    let expected: BTreeMap<_, _> = expected.map(|entry| (key(&entry), entry)).collect();
    let restless = audience.has_read_all.then_some(("that came and went", &audience.restless));
    for (name, client) in restless.into_iter().chain([("that never left", &audience.steady)]) {
        assert!(client.end_mark.is_some(), "the watch {name} is complete");
        assert!(client.shown == expected, "the watch {name} shows something else");
    }
}
