//! What the view makes of a watch.

use prost::bytes::Bytes;
use socp::v1::{Bookmark, DirectoryChange, EndMark, RemovedEntry};

use super::*;

fn wire(user: &str, online_since: u64) -> DirectoryEntry {
    let (name, server) = user.split_once('@').unwrap();
    DirectoryEntry {
        user: user.into(),
        name: name.into(),
        server_id: ServerId::of_key(&[server.len() as u8; 32]).to_string(),
        server_name: server.into(),
        key_statement_sha256: Bytes::from_static(&[7; 32]),
        epoch: 1,
        online_since,
        sessions: 1,
        ..Default::default()
    }
}

fn added(entry: DirectoryEntry) -> Wire {
    Wire::Added(entry)
}

fn removed(user: &str, reason: RemovalReason) -> Wire {
    Wire::Removed(RemovedEntry { user: user.into(), reason: reason.into(), ..Default::default() })
}

fn changes(changes: Vec<Wire>) -> WatchDirectoryResponse {
    let change = |change| DirectoryChange { revision: 5, change: Some(change) };
    WatchDirectoryResponse {
        changes: changes.into_iter().map(change).collect(),
        resume_token: "here".into(),
        ..Default::default()
    }
}

fn digest_of(entries: &[DirectoryEntry]) -> Bytes {
    let mut hash = SetHash::default();
    for entry in entries {
        hash.insert(&Entry::parse(entry.clone()).unwrap().digest_entry());
    }
    Bytes::copy_from_slice(hash.digest().as_bytes())
}

fn end_mark(digest: Bytes) -> WatchDirectoryResponse {
    let end_mark = Some(EndMark { revision: 5, entries: 0, digest });
    WatchDirectoryResponse { end_mark, resume_token: "end".into(), ..Default::default() }
}

/// The view of these users, complete.
fn view(entries: &[DirectoryEntry]) -> View {
    let mut view = View::default();
    view.begin();
    view.apply(changes(entries.iter().cloned().map(added).collect())).unwrap();
    view.apply(end_mark(digest_of(entries))).unwrap();
    view
}

fn told(notices: &[Notice]) -> Vec<String> {
    let tell = |notice: &Notice| match notice {
        Notice::Added { entry, initial: true, .. } => format!("= {}", entry.wire.user),
        Notice::Added { entry, .. } => format!("+ {}", entry.wire.user),
        Notice::Updated { entry, .. } => format!("~ {}", entry.wire.user),
        Notice::Removed { entry, reason, .. } => format!("- {} {reason:?}", entry.wire.user),
        Notice::Synced { entries, digest_ok, .. } => format!("synced {entries} {digest_ok:?}"),
        Notice::Bookmark { digest_ok, .. } => format!("bookmark {digest_ok:?}"),
    };
    notices.iter().map(tell).collect()
}

#[test]
fn the_present_state_then_an_end_mark_then_changes() {
    let (alice, bob) = (wire("alice@a", 1), wire("bob@bb", 2));
    let mut view = View::default();
    view.begin();
    let state = view.apply(changes(vec![added(alice.clone()), added(bob.clone())])).unwrap();
    assert_eq!(told(&state), ["= alice@a", "= bob@bb"]);
    assert!(!view.is_synced());
    let end = view.apply(end_mark(digest_of(&[alice.clone(), bob]))).unwrap();
    assert_eq!(told(&end), ["synced 2 Some(true)"]);
    assert_eq!(view.resume_token(), "end");
    let left = view.apply(changes(vec![removed("bob@bb", RemovalReason::Left), added(wire("bob@bb", 3))])).unwrap();
    assert_eq!(told(&left), ["- bob@bb Left", "+ bob@bb"], "log out and in is removed, then added");
    let more = DirectoryEntry { sessions: 2, ..alice };
    assert_eq!(told(&view.apply(changes(vec![Wire::Updated(more)])).unwrap()), ["~ alice@a"]);
}

#[test]
fn a_digest_that_differs_is_noticed_at_the_end_mark_and_at_a_bookmark() {
    let alice = wire("alice@a", 1);
    let mut view = view(std::slice::from_ref(&alice));
    let bookmark =
        |digest| WatchDirectoryResponse { bookmark: Some(Bookmark { revision: 6, digest }), ..Default::default() };
    assert_eq!(told(&view.apply(bookmark(digest_of(&[alice]))).unwrap()), ["bookmark Some(true)"]);
    assert_eq!(told(&view.apply(bookmark(digest_of(&[]))).unwrap()), ["bookmark Some(false)"]);
    assert_eq!(told(&view.apply(bookmark(Bytes::new())).unwrap()), ["bookmark None"], "a filtered watch");
    assert_eq!(told(&view.apply(end_mark(digest_of(&[]))).unwrap()), ["synced 1 Some(false)"]);
}

#[test]
fn a_watch_that_starts_over_tells_real_changes_only() {
    let (alice, bob, carol) = (wire("alice@a", 1), wire("bob@bb", 2), wire("carol@a", 3));
    let mut view = view(&[alice.clone(), bob.clone(), carol]);
    view.start_over();
    view.begin();
    let (bob_again, dave) = (wire("bob@bb", 9), wire("dave@a", 4));
    let fresh = [alice, bob_again, dave];
    let loading = view.apply(changes(fresh.iter().cloned().map(added).collect())).unwrap();
    assert!(loading.is_empty() && view.is_loading(), "nothing is told before the state is complete");
    assert_eq!(view.users().count(), 3, "and the old view is shown until then");
    let end = view.apply(end_mark(digest_of(&fresh))).unwrap();
    assert!(!view.is_loading());
    let expected = ["- bob@bb Left", "- carol@a Left", "+ bob@bb", "+ dave@a", "synced 3 Some(true)"];
    assert_eq!(told(&end), expected);
}

#[test]
fn a_watch_that_resumes_goes_on_where_it_was() {
    let mut view = view(&[wire("alice@a", 1)]);
    assert_eq!(view.resume_token(), "end");
    view.begin();
    let next = view.apply(changes(vec![removed("alice@a", RemovalReason::Unreachable)])).unwrap();
    assert_eq!(told(&next), ["- alice@a Unreachable"]);
    assert_eq!(told(&view.apply(changes(vec![removed("alice@a", RemovalReason::Left)])).unwrap()), [""; 0]);
}

#[test]
fn a_bare_name_is_enough_where_one_server_bears_it() {
    let view = view(&[wire("alice@a", 1), wire("alice@bb", 1), wire("alice2@a", 1), wire("bob@bb", 1)]);
    let user = |text: &str| view.resolve(text).map(|entry| entry.map(|entry| entry.wire.user.clone()));
    assert_eq!(user("bob").unwrap().as_deref(), Some("bob@bb"));
    assert_eq!(user("alice@bb").unwrap().as_deref(), Some("alice@bb"));
    let by_id = format!("bob@{}", ServerId::of_key(&[2; 32]));
    assert_eq!(user(&by_id).unwrap().as_deref(), Some("bob@bb"));
    assert_eq!(user("carol").unwrap(), None);
    assert_eq!(user("bob@a").unwrap(), None);
    let ambiguous = user("alice").unwrap_err();
    assert_eq!(ambiguous.reason, "USER_AMBIGUOUS");
    assert_eq!(ambiguous.hint.as_deref(), Some("say which one: alice@a, alice@bb"));
}

#[test]
fn a_bare_name_still_means_one_who_left() {
    let mut view = view(&[wire("alice@a", 1), wire("alice@bb", 1), wire("bob@bb", 1)]);
    assert_eq!(view.resolve_departed("bob"), None);
    let gone = ["bob@bb", "alice@a", "alice@bb"].map(|user| removed(user, RemovalReason::Left));
    view.apply(changes(gone.to_vec())).unwrap();
    assert_eq!(view.resolve_departed("bob"), Some("bob@bb"));
    assert_eq!(view.resolve_departed("alice"), None, "which one?");
    view.apply(changes(vec![added(wire("bob@bb", 2))])).unwrap();
    assert_eq!(view.resolve_departed("bob"), None);
}

#[test]
fn an_entry_whose_label_is_another_name_or_unprintable_is_refused() {
    for bad in ["mallory@a", "alice", "alice@a\u{1b}[2J"] {
        let entry = DirectoryEntry { user: bad.into(), ..wire("alice@a", 1) };
        assert!(View::default().apply(changes(vec![added(entry)])).is_err(), "{bad}");
    }
}
