//! What the operator is told: how peers are reached, and why a user is shown or not.

use socp::{
    PROTOCOL_VERSION,
    federation::v1::{AdvertiseFrame, Hello, Position, advertise_frame},
    input::{CallId, Frame, Input, Request},
    limits::{EXPLAINED_CHANGES_MAX, HISTORY_MAX},
    node::Node,
    operator::v1::{ChangeCause, ChangeKind, Dial, ExplainResponse, HomeState, Peer, Presence, Reach},
    output::{Answer, Output},
    rejection::Rejection,
    v1::Reason,
};

use crate::{
    faults::Shape,
    links::{LINK, linked, now, peer},
    world::World,
};

fn chain() -> World {
    World::calm_shaped(Shape::Chain, &[0, 1, 2])
}

/// How a server of the world sees another.
fn seen(world: &mut World, server: usize, other: usize) -> Peer {
    let call = world.ask(server, Request::ListPeers);
    let Ok(Answer::Peers(list)) = world.answer(server, call) else { panic!("peers are listed") };
    let names: Vec<_> = list.peers.iter().map(|peer| &peer.name).collect();
    assert!(names.is_sorted() && names.len() == world.servers.len() - 1, "{names:?}");
    let id = world.servers[other].id.to_string();
    list.peers.into_iter().find(|peer| peer.server_id == id).expect("every pinned server is listed")
}

/// Why a server of the world shows a user, or not.
fn explained(world: &mut World, server: usize, user: &str) -> ExplainResponse {
    refused_or_explained(world, server, user).expect("it is explained")
}

fn refused_or_explained(world: &mut World, server: usize, user: &str) -> Result<ExplainResponse, Rejection> {
    let call = world.ask(server, Request::Explain { user: user.into() });
    match world.answer(server, call)? {
        Answer::Explained(explained) => Ok(*explained),
        other => panic!("{other:?}"),
    }
}

/// The same for a node, at some time.
fn explained_by(node: &mut Node, at_ms: u64, user: &str) -> ExplainResponse {
    let request = Request::Explain { user: user.into() };
    let outputs = node.handle(now(at_ms), Input::Call { call: CallId(at_ms), request });
    let explained = outputs.into_iter().find_map(|output| match output {
        Output::Answer { result: Ok(Answer::Explained(explained)), .. } => Some(*explained),
        _ => None,
    });
    explained.expect("it is explained")
}

fn state(explained: &ExplainResponse) -> (Presence, HomeState, Reach) {
    (explained.presence(), explained.home_state(), explained.reach())
}

/// What removed the user last: why, by which batch, and who brought it.
fn removal(explained: &ExplainResponse) -> (ChangeCause, u64, &str) {
    let removal = explained.last_removal.as_ref().expect("a removal is remembered");
    assert_eq!(removal.kind(), ChangeKind::Removed);
    (removal.cause(), removal.batch, &removal.from)
}

/// The only peer of a node, at some time.
fn only(node: &mut Node, at_ms: u64) -> Peer {
    let outputs = node.handle(now(at_ms), Input::Call { call: CallId(at_ms), request: Request::ListPeers });
    let peers = outputs.into_iter().find_map(|output| match output {
        Output::Answer { result: Ok(Answer::Peers(list)), .. } => Some(list.peers),
        _ => None,
    });
    peers.expect("peers are listed").remove(0)
}

/// A hello in which the peer says that it is at this number.
fn hello_at(number: u64, major: u32) -> Frame {
    let position = Position {
        origin_id: peer().as_bytes().to_vec().into(),
        epoch: 1,
        start_id: vec![2; 16].into(),
        number,
        ..Position::default()
    };
    let hello = Hello {
        version_major: major,
        version_minor: 0,
        name: "server-b".into(),
        epoch: 1,
        start_id: vec![2; 16].into(),
        positions: vec![position],
    };
    Frame::Advertise(AdvertiseFrame { kind: Some(advertise_frame::Kind::Hello(hello)) })
}

#[test]
fn a_neighbour_is_listed_as_linked_and_who_is_behind_it_as_reached_through_it() {
    let mut world = chain();
    world.online_user(1, "bob");
    world.online_user(2, "carol");
    world.online_user(2, "dave");
    let (near, far) = (seen(&mut world, 0, 1), seen(&mut world, 0, 2));
    assert_eq!((near.reach(), near.dial(), near.users_shown), (Reach::Linked, Dial::Idle, 1));
    let now_unix_ms = 1_800_000_000_000 + world.now_ms as i64;
    assert!((1_800_000_000_001..now_unix_ms).contains(&near.linked_unix_ms), "{near:?}");
    assert!((now_unix_ms - 1_000..=now_unix_ms).contains(&near.heard_unix_ms), "{near:?}");
    let other = seen(&mut world, 1, 0);
    assert_ne!(near.linked_by_own_dial, other.linked_by_own_dial, "one of the two dialled");
    assert_eq!((far.reach(), &*far.next_hop, far.users_shown), (Reach::Through, "server-b", 2));
    assert_eq!((far.dialled, far.dial(), far.linked_unix_ms), (false, Dial::Idle, 0));
    assert_eq!((far.epoch, far.position, far.told_position), (world.servers[2].epoch, 2, 2));
    assert!(far.heard_unix_ms > now_unix_ms - 6_000, "by the list that it signs every 5 s: {far:?}");
}

#[test]
fn a_server_that_died_is_listed_as_unreachable_with_what_went_wrong_and_the_next_dial() {
    let mut world = chain();
    world.online_user(2, "carol");
    world.crash(2, 1_000_000);
    world.run_for(10_000);
    let now_unix_ms = 1_800_000_000_000 + world.now_ms as i64;
    let near = seen(&mut world, 1, 2);
    assert_eq!((near.reach(), near.users_shown, &*near.last_error), (Reach::Unreachable, 0, "nobody answers"));
    assert!((now_unix_ms - 2_000..=now_unix_ms).contains(&near.last_error_unix_ms), "{near:?}");
    match near.dial() {
        Dial::Waiting => assert!((now_unix_ms..now_unix_ms + 1_001).contains(&near.next_dial_unix_ms), "{near:?}"),
        dial => assert_eq!((dial, near.next_dial_unix_ms), (Dial::UnderWay, 0)),
    }
    assert!(near.heard_unix_ms > 0 && near.heard_unix_ms < now_unix_ms - 9_000, "{near:?}");
    let far = seen(&mut world, 0, 2);
    assert_eq!((far.reach(), far.dial(), &*far.last_error), (Reach::Unreachable, Dial::Idle, ""));
    assert_eq!((far.position, far.users_shown), (1, 0), "what it said is kept aside");
}

#[test]
fn a_peer_is_dialling_from_the_dial_to_the_hello_and_waiting_until_the_next() {
    let mut node = linked();
    let fresh = only(&mut node, 1);
    assert_eq!((fresh.reach(), fresh.dial(), fresh.heard_unix_ms), (Reach::Unreachable, Dial::UnderWay, 0));
    node.handle(now(2), Input::LinkDown { link: LINK, cause: "reset".into() });
    // It was dialled at the start as well, and that dial is not over.
    node.handle(now(2), Input::DialFailed { peer: peer(), cause: "no answer".into() });
    let waiting = only(&mut node, 3);
    assert_eq!((waiting.dial(), &*waiting.last_error), (Dial::Waiting, "no answer"));
    assert!(waiting.next_dial_unix_ms > 0);
}

#[test]
fn a_peer_that_told_of_batches_that_have_not_come_is_listed_with_the_lag() {
    let mut node = linked();
    node.handle(now(1), Input::Frame { link: LINK, frame: hello_at(5, PROTOCOL_VERSION.0) });
    let behind = only(&mut node, 2);
    assert_eq!((behind.reach(), behind.epoch, behind.position, behind.told_position), (Reach::Linked, 1, 0, 5));
    assert_eq!(behind.refused_frames, 0);
    node.handle(now(3), Input::Frame { link: LINK, frame: hello_at(5, PROTOCOL_VERSION.0) });
    assert_eq!(only(&mut node, 4).refused_frames, 1, "one hello is enough");
}

#[test]
fn why_a_link_ended_is_told_in_the_words_of_whoever_ended_it() {
    let mut node = linked();
    node.handle(now(1), Input::Frame { link: LINK, frame: hello_at(0, PROTOCOL_VERSION.0 + 1) });
    let refused = only(&mut node, 2);
    assert!(refused.last_error.contains("VERSION_MISMATCH"), "{refused:?}");
    // What the transport says of it afterwards says less.
    node.handle(now(3), Input::LinkDown { link: LINK, cause: "closed".into() });
    assert_eq!(only(&mut node, 4).last_error, refused.last_error);

    let mut node = linked();
    node.handle(now(1), Input::Frame { link: LINK, frame: hello_at(0, PROTOCOL_VERSION.0) });
    node.handle(now(2), Input::LinkDown { link: LINK, cause: String::new() });
    let silent = only(&mut node, 3);
    assert_eq!((&*silent.last_error, silent.reach()), ("it ended without a word", Reach::Unreachable));
    node.handle(now(4), Input::Parted { peer: peer(), cause: "DRAINING: it stops".into() });
    assert_eq!(only(&mut node, 5).last_error, "DRAINING: it stops");
}

#[test]
fn a_user_of_this_server_is_explained_by_its_sessions() {
    let mut world = World::calm(&[0]);
    let alice = world.online_user(0, "alice");
    world.new_device(alice);
    let online = explained(&mut world, 0, "alice");
    assert_eq!(state(&online), (Presence::Online, HomeState::Shown, Reach::Self_));
    assert_eq!(online.sessions.iter().filter(|session| session.attached).count(), 1);
    assert_eq!(online.sessions.len(), 2);
    world.break_stream(alice, 0);
    let broken = explained(&mut world, 0, "alice@server-a");
    let until_unix_ms = 1_800_000_000_000 + world.now_ms as i64 + 2_000;
    assert_eq!(broken.presence(), Presence::Online);
    assert!(broken.sessions.iter().any(|session| session.grace_until_unix_ms == until_unix_ms), "{broken:?}");
    world.run_for(2_100);
    let offline = explained(&mut world, 0, "alice");
    assert_eq!(state(&offline), (Presence::Offline, HomeState::Shown, Reach::Self_));
    assert_eq!((removal(&offline), offline.word.as_ref()), ((ChangeCause::Batch, 2, ""), None));
    assert!(offline.sessions.iter().all(|session| !session.attached && session.grace_until_unix_ms == 0));
}

#[test]
fn a_user_behind_a_neighbour_is_explained_by_the_way_and_by_the_batch_that_came_over_it() {
    let mut world = chain();
    let carol = world.online_user(2, "carol");
    let online = explained(&mut world, 0, "carol");
    assert_eq!(online.user, "carol@server-c");
    assert_eq!(state(&online), (Presence::Online, HomeState::Shown, Reach::Through));
    assert_eq!((&*online.next_hop, online.epoch), ("server-b", world.servers[2].epoch));
    let word = online.word.expect("the home has a word");
    assert_eq!((word.online, word.held, word.batch, word.online_since, word.sessions), (true, false, 1, 1, 1));
    let now_unix_ms = 1_800_000_000_000 + world.now_ms as i64;
    assert!((now_unix_ms - 600..now_unix_ms).contains(&word.heard_unix_ms), "{word:?}");
    assert_eq!(word.heard_from, "server-b");
    world.detach(carol, 0);
    world.run_for(500);
    let offline = explained(&mut world, 0, "carol@server-c");
    assert_eq!(state(&offline), (Presence::Offline, HomeState::Shown, Reach::Through));
    assert_eq!((removal(&offline), offline.word.as_ref()), ((ChangeCause::Batch, 2, "server-b"), None));
    let kinds: Vec<_> = offline.changes.iter().map(|change| change.kind()).collect();
    assert_eq!((kinds, offline.forgotten_unix_ms), (vec![ChangeKind::Removed, ChangeKind::Added], 0));
}

#[test]
fn a_user_whose_home_died_is_explained_as_in_grace_then_unreachable_then_of_a_new_epoch() {
    let mut world = chain();
    world.online_user(2, "carol");
    world.crash(2, 20_000);
    let mut seen = Vec::new();
    for _ in 0..600 {
        let explained = explained(&mut world, 0, "carol@server-c");
        if seen.last() != Some(&state(&explained)) {
            seen.push(state(&explained));
        }
        if explained.home_state() == HomeState::Grace {
            assert!(explained.grace_until_unix_ms > 1_800_000_000_000 + world.now_ms as i64);
        }
        world.run_for(10);
    }
    let expected = [
        (Presence::Online, HomeState::Shown, Reach::Through),
        (Presence::Online, HomeState::Grace, Reach::Unreachable),
        (Presence::Unreachable, HomeState::Away, Reach::Unreachable),
    ];
    assert_eq!(seen, expected);
    let away = explained(&mut world, 0, "carol");
    assert_eq!(removal(&away), (ChangeCause::Unreachable, 0, ""));
    assert!(away.word.is_some_and(|word| word.online && word.batch == 1), "the last word is kept aside");
    world.run_for(20_000);
    let anew = explained(&mut world, 0, "carol");
    assert_eq!(state(&anew), (Presence::Offline, HomeState::Shown, Reach::Through));
    assert_eq!((anew.epoch, anew.word.as_ref()), (world.servers[2].epoch, None));
    assert_eq!(removal(&anew), (ChangeCause::Unreachable, 0, ""), "it was gone before");
}

#[test]
fn a_user_whose_home_said_goodbye_is_explained_so() {
    let mut world = chain();
    world.online_user(2, "carol");
    world.stop(2, 1_000_000);
    world.run_for(400);
    let ended = explained(&mut world, 0, "carol");
    assert_eq!((ended.presence(), ended.home_state()), (Presence::Unreachable, HomeState::Ended));
    assert_eq!(removal(&ended), (ChangeCause::Goodbye, 0, "server-b"));
}

#[test]
fn a_user_who_returns_with_its_home_is_explained_as_added_when_the_home_was_reached() {
    let mut world = chain();
    world.online_user(2, "carol");
    world.cut([0].into(), 5_000);
    world.run_for(9_000);
    let back = explained(&mut world, 0, "carol");
    assert_eq!(state(&back), (Presence::Online, HomeState::Shown, Reach::Through));
    let causes: Vec<_> = back.changes.iter().map(|change| change.cause()).collect();
    assert_eq!(causes, [ChangeCause::Reached, ChangeCause::Unreachable, ChangeCause::Batch]);
    assert_eq!(back.word.map(|word| word.heard_from).as_deref(), Some("server-b"), "the batch that came then");
}

#[test]
fn a_word_that_came_before_those_it_follows_is_explained_as_held() {
    let mut world = World::calm(&[0, 1]);
    let (alice, bob) = (world.add_user(0, "alice"), world.add_user(0, "bob"));
    let devices = [alice, bob].map(|user| world.new_device(user));
    world.wires.iter_mut().for_each(|wire| wire.swallows = [true; 2]);
    world.attach(alice, devices[0], "");
    world.wires.iter_mut().for_each(|wire| wire.swallows = [false; 2]);
    world.attach(bob, devices[1], "");
    world.run_for(60);
    let held = explained(&mut world, 1, "bob@server-a");
    assert_eq!((held.presence(), held.position), (Presence::Online, 0));
    let word = held.word.expect("the home has a word");
    assert_eq!((word.held, word.batch), (true, 2));
    world.run_for(3_000);
    let based = explained(&mut world, 1, "bob@server-a");
    assert_eq!((based.position, based.word.map(|word| word.held)), (2, Some(false)));
}

#[test]
fn a_home_that_has_told_more_than_has_come_is_explained_as_returning_and_one_never_heard_as_unheard() {
    let mut node = linked();
    let unheard = explained_by(&mut node, 1, "bob@server-b");
    assert_eq!(state(&unheard), (Presence::Unreachable, HomeState::Unheard, Reach::Unreachable));
    node.handle(now(2), Input::Frame { link: LINK, frame: hello_at(5, PROTOCOL_VERSION.0) });
    let returning = explained_by(&mut node, 3, &format!("bob@{}", peer()));
    assert_eq!(state(&returning), (Presence::Unreachable, HomeState::Returning, Reach::Linked));
    assert_eq!((returning.needed_position, returning.position, &*returning.user), (5, 0, "bob@server-b"));
}

#[test]
fn an_unknown_user_is_not_explained_and_an_ambiguous_one_lists_candidates_shown_or_not() {
    let mut world = chain();
    for server in 1..3 {
        world.online_user(server, "carol");
    }
    world.crash(2, 1_000_000);
    world.run_for(5_000);
    let mut refused = |user: &str| refused_or_explained(&mut world, 0, user).expect_err("it is refused");
    assert_eq!(refused("nobody").reason, Reason::UserNotFound);
    assert_eq!(refused("nobody@server-a").reason, Reason::UserNotFound);
    assert_eq!(refused("carol@nowhere").reason, Reason::UserNotFound);
    assert_eq!(refused("No!").reason, Reason::NameInvalid);
    let ambiguous = refused("carol");
    assert_eq!(ambiguous.reason, Reason::UserAmbiguous);
    let candidates = ambiguous.metadata.iter().find(|(key, _)| *key == "candidates").expect("there are candidates");
    let mut candidates: Vec<_> = candidates.1.split(',').collect();
    candidates.sort_unstable();
    assert_eq!(candidates, ["carol@server-b", "carol@server-c"]);
    // Whether a user is registered elsewhere is not known here.
    assert_eq!(explained(&mut world, 0, "nobody@server-b").presence(), Presence::Offline);
}

#[test]
fn an_explanation_has_the_latest_16_changes_and_says_when_older_ones_are_forgotten() {
    let mut world = World::calm(&[0]);
    let alice = world.online_user(0, "alice");
    let mut change = 1;
    let mut changes = |world: &mut World, until: usize| {
        while change < until {
            change += 1;
            world.attach(alice, 0, &format!("status {change}"));
        }
        explained(world, 0, "alice")
    };
    let at_limit = changes(&mut world, EXPLAINED_CHANGES_MAX);
    assert_eq!(at_limit.changes.len(), EXPLAINED_CHANGES_MAX);
    assert_eq!(at_limit.changes.last().map(|change| change.kind()), Some(ChangeKind::Added));
    let past_it = changes(&mut world, EXPLAINED_CHANGES_MAX + 1);
    assert_eq!(past_it.changes.len(), EXPLAINED_CHANGES_MAX);
    assert!(past_it.changes.iter().all(|change| change.kind() == ChangeKind::Updated));
    assert_eq!(changes(&mut world, HISTORY_MAX).forgotten_unix_ms, 0);
    let added_unix_ms = at_limit.changes[EXPLAINED_CHANGES_MAX - 1].time_unix_ms;
    assert_eq!(changes(&mut world, HISTORY_MAX + 1).forgotten_unix_ms, added_unix_ms);
}
