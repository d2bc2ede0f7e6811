//! What watchers see, over real directories: each test adds up what a watcher was sent, as a client does.

use std::collections::{BTreeMap, BTreeSet};

use socp::{
    digest::{DigestEntry, SetHash},
    directory::Entry,
    id::{ServerId, StatementHash},
    name::UserName,
    v1::{
        DirectoryEntry, DirectoryFilter, KeyDetail, RemovalReason, WatchDirectoryResponse,
        directory_change::Change as Told,
    },
};

use super::{
    testing::{Published, changes, entry, home},
    *,
};
use crate::limits::{CHANGES_PER_MESSAGE_MAX, WATCH_GROUP_MS, WATCH_MESSAGE_BYTES_MAX};

fn start(number: u8) -> StartId {
    StartId::from_bytes(&[number; 16]).unwrap()
}

fn published() -> Published {
    Published::new(Hub::new(start(1)))
}

fn small(ring_revisions: usize) -> Published {
    Published::new(Hub::with_limits(start(1), HubLimits { ring_revisions, ..HubLimits::default() }))
}

/// A client: what it was told, and what it makes of it.
struct Client {
    watcher: Watcher,
    shown: BTreeMap<(String, String), DirectoryEntry>,
    told: Vec<(u64, &'static str, String)>,
    token: String,
    mark: Option<socp::v1::EndMark>,
    messages: usize,
}

impl Client {
    fn of(watcher: Watcher) -> Self {
        let token = String::new();
        Self { watcher, shown: BTreeMap::new(), told: Vec::new(), token, mark: None, messages: 0 }
    }

    fn join(hub: &Hub) -> Self {
        Self::of(hub.watch(&WatchDirectoryRequest::default()).unwrap())
    }

    fn request(&self) -> WatchDirectoryRequest {
        WatchDirectoryRequest { resume_token: self.token.clone(), ..Default::default() }
    }

    async fn read(&mut self) -> Result<WatchDirectoryResponse, Rejection> {
        let message = self.watcher.next().await.expect("not read past the end")?;
        assert!(message.len() < WATCH_MESSAGE_BYTES_MAX);
        let message = changes(&message);
        self.messages += 1;
        for change in &message.changes {
            self.take(change.revision, change.change.as_ref().unwrap());
        }
        if !message.resume_token.is_empty() {
            self.token.clone_from(&message.resume_token);
        }
        self.mark = message.end_mark.clone().or(self.mark.take());
        Ok(message)
    }

    fn take(&mut self, revision: u64, change: &Told) {
        let (what, name, id) = match change {
            Told::Added(entry) => ("added", &entry.name, &entry.server_id),
            Told::Updated(entry) => ("updated", &entry.name, &entry.server_id),
            Told::Removed(entry) => ("removed", &entry.name, &entry.server_id),
        };
        let key = (name.clone(), id.clone());
        match change {
            Told::Added(entry) => assert!(self.shown.insert(key, entry.clone()).is_none(), "added twice"),
            Told::Updated(entry) => assert!(self.shown.insert(key, entry.clone()).is_some(), "updated before added"),
            Told::Removed(_) => assert!(self.shown.remove(&key).is_some(), "removed twice"),
        }
        self.told.push((revision, what, name.clone()));
    }

    /// Reads until the end mark.
    async fn state(mut self) -> Self {
        while self.mark.is_none() {
            self.read().await.unwrap();
        }
        self
    }

    /// Reads until a revision is complete.
    async fn reach(&mut self, revision: u64) {
        while self.told.last().is_none_or(|(last, _, _)| *last < revision) {
            self.read().await.unwrap();
        }
    }

    /// The digest of what the client shows, kept as a client in any language would.
    fn digest(&self) -> Vec<u8> {
        let mut set = SetHash::default();
        for told in self.shown.values() {
            set.insert(&DigestEntry {
                origin: ServerId::parse(&told.server_id).unwrap(),
                epoch: told.epoch,
                user: &UserName::parse(&told.name).unwrap(),
                display_name: &told.display_name,
                status: &told.status,
                key_statement: StatementHash::from_bytes(&told.key_statement_sha256).unwrap(),
                online_since: told.online_since,
                sessions: told.sessions,
            });
        }
        set.digest().as_bytes().to_vec()
    }

    fn names(&self) -> Vec<&str> {
        self.shown.keys().map(|(name, _)| name.as_str()).collect()
    }
}

fn numbered(number: usize) -> Entry {
    entry(&format!("user-{number:04}"), 1)
}

/// Many changes of all kinds: 5 revisions for each user.
fn storm(published: &mut Published, users: usize) {
    for number in 0..users {
        let user = numbered(number);
        published.show(user.clone());
        published.show(Entry { status: "away".into(), ..user.clone() });
        published.hide(&user);
        published.show(Entry { online_since: 2, ..user.clone() });
        published.show(Entry { online_since: 3, ..user });
    }
}

#[tokio::test(start_paused = true)]
async fn the_present_state_comes_first_and_then_its_end_mark_and_then_changes() {
    let mut published = published();
    (0..250).for_each(|number| published.show(numbered(number)));
    let mut client = Client::join(&published.hub).state().await;
    assert_eq!(client.shown.len(), 250);
    assert_eq!(client.messages, 4, "three of entries and the mark");
    let mark = client.mark.clone().unwrap();
    assert_eq!((mark.revision, mark.entries), (250, 250));
    assert_eq!(mark.digest, client.digest());
    assert_eq!(mark.digest[..], published.directory.digest().as_bytes()[..]);
    published.hide(&numbered(7));
    client.reach(251).await;
    assert_eq!(client.told.last().unwrap(), &(251, "removed", "user-0007".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_watcher_of_nobody_gets_an_end_mark_at_once() {
    let client = Client::join(&published().hub).state().await;
    let mark = client.mark.clone().unwrap();
    assert_eq!((mark.revision, mark.entries, client.messages), (0, 0, 1));
    assert_eq!(mark.digest, client.digest());
}

#[tokio::test(start_paused = true)]
async fn every_watcher_sees_every_change_exactly_once_and_in_order() {
    let mut published = published();
    let mut early = Client::join(&published.hub).state().await;
    let reader = tokio::spawn(async move {
        early.reach(500).await;
        early
    });
    let mut late = None;
    for number in 0..100 {
        let user = numbered(number);
        published.show(user.clone());
        published.show(Entry { status: "away".into(), ..user.clone() });
        published.hide(&user);
        published.show(Entry { online_since: 2, ..user.clone() });
        published.show(Entry { status: "back".into(), online_since: 2, ..user });
        tokio::task::yield_now().await;
        if number == 50 {
            late = Some(Client::join(&published.hub));
        }
    }
    let early = reader.await.unwrap();
    let revisions: Vec<_> = early.told.iter().map(|(revision, _, _)| *revision).collect();
    assert_eq!(revisions, (1..=500).collect::<Vec<_>>());
    let mut late = late.unwrap().state().await;
    late.reach(500).await;
    assert_eq!(late.shown, early.shown);
    assert_eq!(late.digest(), published.directory.digest().as_bytes());
}

#[tokio::test(start_paused = true)]
async fn the_digest_that_was_told_is_that_of_all_changes_added_up() {
    let mut published = published();
    let mut client = Client::join(&published.hub).state().await;
    storm(&mut published, 30);
    client.reach(150).await;
    let bookmark = client.read().await.unwrap().bookmark.expect("nothing else happens");
    assert_eq!(bookmark.revision, 150);
    assert_eq!(bookmark.digest, client.digest());
}

#[tokio::test(start_paused = true)]
async fn changes_that_are_sent_together_are_neither_merged_nor_dropped() {
    let mut published = published();
    let mut client = Client::join(&published.hub).state().await;
    published.show(numbered(0));
    let first = client.read().await.unwrap();
    assert_eq!(first.changes.len(), 1, "the first on an idle stream goes alone and at once");
    let before = Instant::now();
    published.hide(&numbered(0));
    published.show(numbered(0));
    published.hide(&numbered(0));
    let second = client.read().await.unwrap();
    assert_eq!(second.changes.iter().map(|change| change.revision).collect::<Vec<_>>(), [2, 3, 4]);
    let waited = before.elapsed();
    assert!(waited >= Duration::from_millis(WATCH_GROUP_MS) && waited < Duration::from_millis(2 * WATCH_GROUP_MS));
    assert_eq!(client.token, client.watcher.tokens.at(4));
}

#[tokio::test(start_paused = true)]
async fn one_who_left_is_never_in_a_later_snapshot() {
    let mut published = published();
    (0..3).for_each(|number| published.show(numbered(number)));
    let before = Client::join(&published.hub);
    published.hide(&numbered(1));
    let after = Client::join(&published.hub).state().await;
    assert_eq!(after.names(), ["user-0000", "user-0002"]);
    let mut before = before.state().await;
    assert_eq!(before.shown.len(), 3, "it joined while the user was there");
    before.reach(4).await;
    assert_eq!(before.shown, after.shown);
}

#[tokio::test(start_paused = true)]
async fn to_resume_is_as_if_one_had_never_left() {
    let mut published = published();
    (0..10).for_each(|number| published.show(numbered(number)));
    let mut stays = Client::join(&published.hub).state().await;
    let leaves = Client::join(&published.hub).state().await;
    published.hide(&numbered(3));
    let mut returns = Client::of(published.hub.watch(&leaves.request()).unwrap());
    (returns.shown, returns.told) = (leaves.shown, leaves.told);
    (20..90).for_each(|number| published.show(numbered(number)));
    stays.reach(81).await;
    returns.reach(81).await;
    assert_eq!(stays.told, returns.told);
    assert_eq!(stays.shown, returns.shown);
    assert!(returns.mark.is_none(), "no state again");
}

#[tokio::test(start_paused = true)]
async fn a_token_too_old_or_of_another_start_or_watch_is_told_plainly() {
    let mut published = small(4);
    published.show(numbered(0));
    let client = Client::join(&published.hub).state().await;
    let reason =
        |hub: &Hub, request: &WatchDirectoryRequest| hub.watch(request).err().map(|rejection| rejection.reason);
    (1..=4).for_each(|number| published.show(numbered(number)));
    assert_eq!(reason(&published.hub, &client.request()), None, "the oldest that is kept");
    let other = WatchDirectoryRequest { keys: KeyDetail::Fingerprint.into(), ..client.request() };
    assert_eq!(reason(&published.hub, &other), Some(Reason::ResumeTokenInvalid));
    let future = WatchDirectoryRequest { resume_token: client.watcher.tokens.at(6), ..Default::default() };
    assert_eq!(reason(&published.hub, &future), Some(Reason::ResumeTokenInvalid));
    published.show(numbered(5));
    assert_eq!(reason(&published.hub, &client.request()), Some(Reason::RevisionCompacted));
    assert_eq!(reason(&Hub::new(start(2)), &client.request()), Some(Reason::RevisionCompacted));
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_falls_off_the_ring_is_told_and_gets_its_token_and_nobody_else_notices() {
    let mut published = small(4);
    let mut slow = Client::join(&published.hub).state().await;
    let mut quick = Client::join(&published.hub).state().await;
    let token = slow.token.clone();
    for number in 0..5 {
        published.show(numbered(number));
        quick.reach(number as u64 + 1).await;
    }
    let rejection = slow.read().await.unwrap_err();
    assert_eq!(rejection.reason, Reason::WatcherTooSlow);
    assert_eq!(rejection.metadata, [("resume_token", token)]);
    assert!(slow.watcher.next().await.is_none());
    assert_eq!(quick.told.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_watcher_holds_nothing_beyond_its_cursor() {
    let published = small(4);
    let stopped = Client::join(&published.hub).state().await;
    let user = Arc::new(numbered(0));
    let watched = Arc::downgrade(&user);
    published.hub.publish(&Delta {
        revision: 1,
        changes: vec![Change::Added(Arc::clone(&user)), Change::Removed(user, RemovalReason::Left)],
        digest: published.directory.digest(),
        made: None,
    });
    assert!(watched.upgrade().is_some(), "the ring has it");
    for revision in 2..=5 {
        let user = Arc::new(numbered(1));
        let changes = vec![Change::Added(Arc::clone(&user)), Change::Removed(user, RemovalReason::Left)];
        published.hub.publish(&Delta { revision, changes, digest: published.directory.digest(), made: None });
    }
    assert!(watched.upgrade().is_none(), "nobody keeps what left the ring");
    assert!(size_of_val(&stopped.watcher) < 256);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_stops_within_the_state_is_told_to_start_over() {
    let limits = HubLimits { snapshot_bytes: 1, ..HubLimits::default() };
    let mut published = Published::new(Hub::with_limits(start(1), limits));
    (0..=CHANGES_PER_MESSAGE_MAX).for_each(|number| published.show(numbered(number)));
    let mut stopped = Client::join(&published.hub);
    stopped.read().await.unwrap();
    published.hide(&numbered(0));
    let fresh = Client::join(&published.hub).state().await;
    assert_eq!(fresh.shown.len(), CHANGES_PER_MESSAGE_MAX);
    let rejection = stopped.read().await.unwrap_err();
    assert_eq!((rejection.reason, rejection.metadata.len()), (Reason::WatcherTooSlow, 0));
}

#[tokio::test(start_paused = true)]
async fn an_idle_watch_gets_a_bookmark_every_fifteen_seconds() {
    let mut published = published();
    let mut client = Client::join(&published.hub).state().await;
    published.show(numbered(0));
    client.reach(1).await;
    for _ in 0..2 {
        let before = Instant::now();
        let message = client.read().await.unwrap();
        assert!((12_500..=15_000).contains(&before.elapsed().as_millis()), "{:?}", before.elapsed());
        let bookmark = message.bookmark.unwrap();
        assert_eq!((bookmark.revision, bookmark.digest.to_vec()), (1, client.digest()));
        assert_eq!(message.resume_token, client.watcher.tokens.at(1));
    }
}

#[tokio::test(start_paused = true)]
async fn bookmarks_of_many_watches_are_due_in_time_at_several_moments_and_many_at_each() {
    let mut published = published();
    let mut clients = Vec::new();
    for _ in 0..1_024 {
        clients.push(Client::join(&published.hub).state().await);
    }
    published.show(numbered(0));
    let told = Instant::now();
    let mut moments = BTreeSet::new();
    for client in &mut clients {
        client.reach(1).await;
        let due = client.watcher.bookmark_at();
        assert!(due > told + Duration::from_secs(12) && due <= told + Duration::from_secs(15));
        moments.insert(due);
    }
    assert!((8..=16).contains(&moments.len()), "{moments:?}");
}

#[tokio::test(start_paused = true)]
async fn a_filtered_watch_shows_only_what_passes_and_has_no_digest() {
    let mut published = published();
    published.show(entry("alice", 1));
    published.show(entry("bob", 2));
    let filter = DirectoryFilter { servers: vec!["server-1".to_owned()], ..Default::default() };
    let request = WatchDirectoryRequest { filter: Some(filter), ..Default::default() };
    let mut client = Client::of(published.hub.watch(&request).unwrap()).state().await;
    assert_eq!(client.names(), ["alice"]);
    let mark = client.mark.clone().unwrap();
    assert_eq!((mark.entries, mark.digest.len()), (1, 0));
    published.hide(&entry("bob", 2));
    published.show(entry("carol", 1));
    published.show(entry("dave", 2));
    client.reach(4).await;
    assert_eq!(client.told.last().unwrap(), &(4, "added", "carol".to_owned()));
    let message = client.read().await.unwrap();
    let bookmark = message.bookmark.expect("dave is none of its business");
    assert_eq!((bookmark.revision, bookmark.digest.len()), (5, 0));
    let resumed = WatchDirectoryRequest { resume_token: client.token.clone(), ..request };
    assert!(published.hub.watch(&resumed).is_ok());
    assert_eq!(published.hub.watch(&client.request()).unwrap_err().reason, Reason::ResumeTokenInvalid);
}

#[tokio::test(start_paused = true)]
async fn a_user_whose_servers_shown_name_changes_leaves_no_ghost_in_a_filtered_watch() {
    let mut published = published();
    let alice = entry("alice", 1);
    published.show(alice.clone());
    let request = |server: &str| WatchDirectoryRequest {
        filter: Some(DirectoryFilter { servers: vec![server.to_owned()], ..Default::default() }),
        ..Default::default()
    };
    let mut old = Client::of(published.hub.watch(&request("server-1")).unwrap()).state().await;
    let mut new = Client::of(published.hub.watch(&request("server-9")).unwrap()).state().await;
    published.show(Entry { server_name: entry("x", 9).server_name, ..alice });
    old.reach(2).await;
    new.reach(2).await;
    assert!(old.shown.is_empty());
    assert_eq!(new.names(), ["alice"]);
}

#[tokio::test(start_paused = true)]
async fn a_large_revision_comes_in_parts_and_joined_to_others_only_where_it_ends() {
    let mut published = published();
    let mut client = Client::join(&published.hub).state().await;
    published.show(entry("first", 2));
    let many = (0..250).map(|number| (numbered(number).address.clone(), Some(numbered(number))));
    published.replace(many, RemovalReason::Left);
    published.show(entry("last", 2));
    client.reach(3).await;
    assert_eq!(client.shown.len(), 252);
    assert_eq!(client.messages, 1 + 4, "the mark, the first, two parts, and the third part with the last");
    published.hub.drain();
    let rejection = client.read().await.unwrap_err();
    assert_eq!(rejection.metadata, [("resume_token", client.token.clone())]);
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_each_watch_after_what_was_published_and_refuses_new_ones() {
    let mut published = published();
    let mut client = Client::join(&published.hub).state().await;
    let waiting = tokio::spawn(async move {
        let last = client.read().await;
        (last.map(|message| message.changes.len()), client.read().await, client)
    });
    tokio::task::yield_now().await;
    published.show(numbered(0));
    published.hub.drain();
    let (changes, end, client) = waiting.await.unwrap();
    assert_eq!(changes, Ok(1));
    let rejection = end.unwrap_err();
    assert_eq!(rejection.reason, Reason::Draining);
    assert_eq!(rejection.metadata, [("resume_token", client.token.clone())]);
    let refused = published.hub.watch(&WatchDirectoryRequest::default()).unwrap_err();
    assert_eq!(refused.reason, Reason::Draining);
}

#[tokio::test]
async fn one_watcher_more_than_the_limit_is_refused_and_its_place_is_given_back() {
    let hub = Hub::with_limits(start(1), HubLimits { watchers: 1, ..HubLimits::default() });
    let request = WatchDirectoryRequest::default();
    let one = hub.watch(&request).unwrap();
    assert_eq!(hub.watchers(), 1);
    assert_eq!(hub.watch(&request).unwrap_err().reason, Reason::TooMany);
    drop(one);
    assert!(hub.watch(&request).is_ok());
}

#[tokio::test]
async fn the_list_is_a_sorted_view_of_the_same_state() {
    let mut published = published();
    for (name, number) in [("bob", 2), ("alice", 2), ("bob", 1)] {
        published.show(entry(name, number));
    }
    published.hide(&entry("alice", 2));
    let request = ListUsersRequest { keys: KeyDetail::Fingerprint.into(), ..Default::default() };
    let list = published.hub.list(&request).unwrap();
    let labels: Vec<_> = list.users.iter().map(|user| user.user.as_str()).collect();
    assert_eq!(labels, ["bob@server-1", "bob@server-2"]);
    assert_eq!((list.revision, list.next_page_token.as_str()), (4, ""));
    assert!(list.users.iter().all(|user| user.key_statement.is_none()));
    assert_eq!(list.users[0].server_id, home(1).to_string());
}
