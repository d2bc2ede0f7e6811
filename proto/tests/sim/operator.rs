//! What the operator is told: how peers are reached, and why a user is shown or not.

use socp::{
    PROTOCOL_VERSION,
    federation::v1::{AdvertiseFrame, Hello, Position, advertise_frame},
    input::{CallId, Frame, Input, Request},
    node::Node,
    operator::v1::{Dial, Peer, Reach},
    output::{Answer, Output},
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
    let position =
        Position { origin_id: peer().as_bytes().to_vec().into(), epoch: 1, start_id: vec![2; 16].into(), number };
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
