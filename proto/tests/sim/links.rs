//! Links: versions, names, two of a pair, and those that fall silent.

use socp::{
    PROTOCOL_VERSION,
    federation::v1::{AdvertiseFrame, Hello, RemoveFrame, advertise_frame},
    id::{ServerId, StartId},
    identity::Identity as _,
    inbox::Mail,
    input::{Frame, Input, LinkId, Now},
    limits::REFUSED_FRAMES_MAX,
    name::ServerName,
    node::{Node, Pin, Settings, Start, Trust},
    output::Output,
    v1::Reason,
};

use crate::{checks, keys::SimIdentity, world::World};

pub const LINK: LinkId = LinkId(7);

pub fn peer() -> ServerId {
    ServerId::of_key(&SimIdentity::new(2).public_key())
}

pub fn now(monotonic_ms: u64) -> Now {
    Now { monotonic_ms, unix_ms: 1_800_000_000_000 }
}

/// A node with one pinned peer, and a link to it.
pub fn linked() -> Node {
    let name = |name| ServerName::parse(name).unwrap();
    let peers = vec![Pin { id: peer(), name: name("server-b"), is_dialled: true }];
    let start = Start {
        identity: Box::new(SimIdentity::new(1)),
        epoch: 1,
        start_id: StartId::from_bytes(&[1; 16]).unwrap(),
        seed: 1,
        accounts: Vec::new(),
        invites: Vec::new(),
        trust: Trust::default(),
        mail: Mail::default(),
    };
    let mut node = Node::new(Settings { peers, ..Settings::new(name("server-a")) }, start);
    node.handle(now(0), Input::LinkUp { link: LINK, peer: peer(), dialled: false });
    node
}

fn hello(version_major: u32, name: &str) -> Frame {
    let hello = Hello {
        version_major,
        version_minor: 9,
        name: name.into(),
        epoch: 1,
        start_id: vec![2; 16].into(),
        positions: Vec::new(),
    };
    Frame::Advertise(AdvertiseFrame { kind: Some(advertise_frame::Kind::Hello(hello)) })
}

fn closings(outputs: &[Output]) -> Vec<Reason> {
    let reason = |output: &Output| match output {
        Output::CloseLink { rejection, .. } => Some(rejection.reason),
        _ => None,
    };
    outputs.iter().filter_map(reason).collect()
}

#[test]
fn a_peer_of_another_major_version_is_refused_with_both_versions() {
    let mut node = linked();
    let frame = hello(PROTOCOL_VERSION.0 + 1, "server-b");
    let outputs = node.handle(now(1), Input::Frame { link: LINK, frame });
    let closing = outputs.iter().find_map(|output| match output {
        Output::CloseLink { rejection, .. } => Some(rejection.clone()),
        _ => None,
    });
    let rejection = closing.expect("the link is closed");
    assert_eq!(rejection.reason, Reason::VersionMismatch);
    assert_eq!(rejection.metadata, [("ours", "1.0".to_string()), ("theirs", "2.9".to_string())]);
}

#[test]
fn a_peer_of_another_minor_version_is_taken() {
    let outputs = linked().handle(now(1), Input::Frame { link: LINK, frame: hello(PROTOCOL_VERSION.0, "server-b") });
    assert_eq!(closings(&outputs), []);
}

#[test]
fn a_peer_that_bears_another_name_than_its_pin_is_refused() {
    let outputs = linked().handle(now(1), Input::Frame { link: LINK, frame: hello(PROTOCOL_VERSION.0, "server-x") });
    assert_eq!(closings(&outputs), [Reason::StatementInvalid]);
}

#[test]
fn a_link_that_falls_silent_is_closed_after_2500_ms() {
    let mut node = linked();
    node.handle(now(100), Input::Frame { link: LINK, frame: hello(PROTOCOL_VERSION.0, "server-b") });
    assert_eq!(closings(&node.handle(now(2_599), Input::Tick)), []);
    assert_eq!(closings(&node.handle(now(2_600), Input::Tick)), [Reason::Timeout]);
}

#[test]
fn a_frame_of_an_unknown_kind_is_ignored_and_a_flood_of_bad_ones_ends_the_link() {
    let mut node = linked();
    node.handle(now(1), Input::Frame { link: LINK, frame: hello(PROTOCOL_VERSION.0, "server-b") });
    let unknown = || Frame::Remove(RemoveFrame { kind: None });
    for _ in 0..2 * REFUSED_FRAMES_MAX {
        assert_eq!(closings(&node.handle(now(1), Input::Frame { link: LINK, frame: unknown() })), []);
    }
    let again = || Input::Frame { link: LINK, frame: hello(PROTOCOL_VERSION.0, "server-b") };
    for _ in 0..REFUSED_FRAMES_MAX {
        assert_eq!(closings(&node.handle(now(1), again())), []);
    }
    assert_eq!(closings(&node.handle(now(1), again())), [Reason::TooMany]);
}

#[test]
fn dials_of_a_peer_that_is_away_go_on_at_most_a_second_apart() {
    let mut node = linked();
    node.handle(now(0), Input::LinkDown { link: LINK, cause: String::new() });
    let mut dials = Vec::new();
    let mut time = 0;
    while time < 60_000 {
        time = node.next_deadline().expect("a node always has something ahead").max(time);
        let outputs = node.handle(now(time), Input::Tick);
        if outputs.iter().any(|output| matches!(output, Output::Dial { .. })) {
            dials.push(time);
            node.handle(now(time), Input::DialFailed { peer: peer(), cause: String::new() });
        }
        time += 1;
    }
    let gaps: Vec<u64> = dials.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap <= 1_001), "{gaps:?}");
    assert!(gaps.iter().collect::<std::collections::BTreeSet<_>>().len() > 10, "the delays are spread: {gaps:?}");
}

#[test]
fn a_peer_of_another_version_is_dialled_ever_more_slowly() {
    let mut node = linked();
    node.handle(now(0), Input::LinkDown { link: LINK, cause: String::new() });
    let (mut dials, mut time) = (Vec::new(), 0);
    while dials.len() < 12 {
        time = node.next_deadline().expect("a node always has something ahead").max(time);
        let outputs = node.handle(now(time), Input::Tick);
        if outputs.iter().any(|output| matches!(output, Output::Dial { .. })) {
            dials.push(time);
            let link = LinkId(100 + dials.len() as u64);
            node.handle(now(time), Input::LinkUp { link, peer: peer(), dialled: true });
            let frame = hello(PROTOCOL_VERSION.0 + 1, "server-b");
            assert_eq!(closings(&node.handle(now(time), Input::Frame { link, frame })), [Reason::VersionMismatch]);
        }
        time += 1;
    }
    let last = dials[dials.len() - 1] - dials[dials.len() - 2];
    assert!(last >= 500, "the delay has grown to its limit: {dials:?}");
}

#[test]
fn two_servers_that_dial_each_other_at_once_end_up_with_one_link_and_dial_no_more() {
    let mut both_dialled = 0;
    for seed in 0..10 {
        let mut world = World::calm_with(seed, &[0, 1], 100);
        world.online_user(0, "alice");
        world.online_user(1, "bob");
        for _ in 0..5 {
            let before = world.wires.iter().count();
            let up = |world: &World| {
                let up = world.wires.iter().filter(|(_, wire)| wire.is_up == [true; 2]);
                up.map(|(id, _)| id).collect::<Vec<u64>>()
            };
            world.break_wire_now(up(&world)[0]);
            world.run_for(5_000);
            let dialled = world.wires.iter().count() - before;
            assert!(dialled <= 2, "seed {seed}: both sides keep the same one of two, after {dialled} dials");
            both_dialled += usize::from(dialled == 2);
            assert_eq!(up(&world).len(), 1, "seed {seed}");
            checks::at_rest(&world);
        }
    }
    assert!(both_dialled > 0, "no two dials ever met, so this proves nothing");
}
