//! An origin that tells different servers different things is found out, and nothing of it counts before it starts anew.

use socp::{
    batch::{Batch, Content, Epoch, sign_goodbye},
    digest::SetHash,
    federation::v1::{
        Contradiction, Hello, KeepAlive, Position, RemoveFrame, SignedBatch, SnapshotBegin, SnapshotEnd,
        advertise_frame, remove_frame,
    },
    input::{Frame, Input, LinkId},
    name::UserName,
};

use crate::{
    between::{self, Between, HONEST, LIAR, ORIGIN, ORIGINS, OWN, epoch, position, remove},
    checks,
    faults::Shape,
    keys::SimIdentity,
    world::World,
};

/// What the origin tells others of the batch of this number.
fn other(number: u64) -> SignedBatch {
    let content = Content::Removals(vec![UserName::parse("somebody").unwrap()]);
    let digest = SetHash::default().digest();
    Batch::sign(&SimIdentity::new(ORIGIN), epoch(ORIGIN), number, digest, 0, content).signed
}

fn batch(signed: SignedBatch) -> Frame {
    remove(remove_frame::Kind::Batch(signed))
}

/// The proofs that the node sent over a link.
fn proofs(between: &Between, over: LinkId) -> Vec<Contradiction> {
    let of = |frame: &Frame| match frame {
        Frame::Remove(RemoveFrame { kind: Some(remove_frame::Kind::Contradiction(proof)) }) => Some(proof.clone()),
        _ => None,
    };
    between.sent.iter().filter(|(_, link, _)| *link == over).filter_map(|(_, _, frame)| of(frame)).collect()
}

#[test]
fn two_batches_of_one_number_end_the_epoch_and_the_proof_is_passed_on() {
    let mut between = Between::new();
    let first = between.next_batch();
    between.frame(HONEST, batch(first.signed.clone()));
    between.frame(LIAR, batch(first.signed.clone()));
    assert_eq!(proofs(&between, HONEST), [], "the same batch again proves nothing");
    between.frame(LIAR, batch(other(1)));
    let proof = Contradiction { one: Some(first.signed.clone()), other: Some(other(1)) };
    assert_eq!(proofs(&between, HONEST), [proof]);
    let second = between.next_batch();
    between.frame(HONEST, batch(second.signed.clone()));
    assert_eq!(between.own_position(), 1, "nothing of that epoch counts any more");
    assert_eq!(between.closed, []);
}

#[test]
fn a_neighbour_with_another_digest_is_asked_for_the_batch_behind_it_and_again_after_a_while() {
    let mut between = Between::new();
    let first = between.next_batch();
    between.frame(HONEST, batch(first.signed.clone()));
    let told = Position { digest: vec![7; 32].into(), ..position(ORIGIN, 1) };
    for (after_ms, expected) in [(0, 1), (0, 1), (2_000, 1), (2_000, 1), (999, 1), (1, 2)] {
        between.now_ms += after_ms;
        between.says(HONEST, 1);
        let positions = vec![told.clone()];
        between.frame(LIAR, remove(remove_frame::Kind::KeepAlive(KeepAlive { positions, time_unix_ms: 0 })));
        assert_eq!(between.requests(0), [(0, LIAR), (5_000, LIAR)][..expected]);
    }
    between.frame(LIAR, batch(other(1)));
    assert_eq!(proofs(&between, HONEST).len(), 1);
}

#[test]
fn a_neighbour_with_the_same_digest_is_asked_nothing() {
    let mut between = Between::new();
    let first = between.next_batch();
    between.frame(HONEST, batch(first.signed.clone()));
    let digest = first.digest.as_bytes().to_vec().into();
    let positions = vec![Position { digest, ..position(ORIGIN, 1) }];
    between.frame(LIAR, remove(remove_frame::Kind::KeepAlive(KeepAlive { positions, time_unix_ms: 0 })));
    assert_eq!(between.requests(0), []);
}

#[test]
fn a_batch_that_does_not_fit_what_is_here_makes_the_node_ask_what_its_sender_has() {
    let mut between = Between::new();
    between.frame(HONEST, batch(other(1)));
    let content = Content::Removals(vec![UserName::parse("bob").unwrap()]);
    let unfitting = Batch::sign(&SimIdentity::new(ORIGIN), epoch(ORIGIN), 2, between::wrong_digest(), 0, content);
    between.frame(LIAR, batch(unfitting.signed));
    assert_eq!(between.requests(0), [(0, LIAR)]);
}

#[test]
fn who_has_not_the_batch_that_differs_any_more_is_believed_by_a_snapshot() {
    let mut between = Between::new();
    // The origin told this node alone something else.
    between.frame(LIAR, batch(other(1)));
    let content = Content::Removals(vec![UserName::parse("bob").unwrap()]);
    let unfitting = Batch::sign(&SimIdentity::new(ORIGIN), epoch(ORIGIN), 2, between::wrong_digest(), 0, content);
    between.says(HONEST, 3);
    between.pass(300, 0, 3, |_| {});
    assert_eq!(between.asked_from(), Some(1));
    between.frame(HONEST, batch(unfitting.signed));
    between.end(HONEST, 0);
    between.pass(1_000, 0, 3, |_| {});
    assert_eq!(between.asked_from(), Some(0), "the batch that is here would differ there");
    // It began with a snapshot, so it has that one no more.
    let last = Batch::sign(
        &SimIdentity::new(ORIGIN),
        epoch(ORIGIN),
        3,
        SetHash::default().digest(),
        0,
        Content::Removals(vec![UserName::parse("bob").unwrap()]),
    );
    let begin = SnapshotBegin { position: Some(position(ORIGIN, 3)) };
    between.frame(HONEST, between::advertise(advertise_frame::Kind::SnapshotBegin(begin)));
    let end = SnapshotEnd { last: Some(last.signed) };
    between.frame(HONEST, between::advertise(advertise_frame::Kind::SnapshotEnd(end)));
    between.end(HONEST, 0);
    assert_eq!(between.own_position(), 3);
    assert_eq!(proofs(&between, LIAR), []);
}

#[test]
fn what_proves_nothing_is_refused_and_changes_nothing() {
    let mut between = Between::new();
    let (first, second) = (between.next_batch(), between.next_batch());
    between.frame(HONEST, batch(first.signed.clone()));
    let mut forged = other(1);
    forged.signature = vec![0; 64].into();
    let own = Batch::sign(
        &SimIdentity::new(OWN),
        epoch(ORIGIN),
        1,
        SetHash::default().digest(),
        0,
        Content::Removals(vec![UserName::parse("bob").unwrap()]),
    );
    let one = || Some(first.signed.clone());
    let proofs_of_nothing = [
        (one(), one()),
        (one(), Some(second.signed.clone())),
        (one(), Some(own.signed)),
        (one(), None),
        (one(), Some(forged)),
    ];
    for (one, other) in proofs_of_nothing {
        between.frame(LIAR, remove(remove_frame::Kind::Contradiction(Contradiction { one, other })));
    }
    assert_eq!(proofs(&between, HONEST), []);
    between.frame(HONEST, batch(second.signed.clone()));
    assert_eq!(between.own_position(), 2);
}

#[test]
fn who_still_believes_an_origin_is_shown_the_proof_and_again_after_a_while() {
    let mut between = Between::new();
    let first = between.next_batch();
    between.frame(HONEST, batch(first.signed.clone()));
    between.frame(HONEST, batch(other(1)));
    assert_eq!(proofs(&between, LIAR).len(), 1);
    let believes = |digest: Vec<u8>| {
        let positions = vec![Position { digest: digest.into(), ..position(ORIGIN, 1) }];
        remove(remove_frame::Kind::KeepAlive(KeepAlive { positions, time_unix_ms: 0 }))
    };
    between.frame(LIAR, believes(Vec::new()));
    assert_eq!(proofs(&between, LIAR).len(), 1, "it knows: it has no digest to tell");
    for (after_ms, expected) in [(0, 2), (9_000, 2), (1_000, 3)] {
        between.now_ms += after_ms;
        between.frame(LIAR, believes(vec![1; 32]));
        assert_eq!(proofs(&between, LIAR).len(), expected);
    }
}

#[test]
fn an_origin_that_does_not_know_what_was_signed_with_its_key_is_shown_it() {
    let mut between = Between::new();
    let first = between.next_batch();
    between.frame(HONEST, batch(first.signed.clone()));
    between.frame(HONEST, batch(other(1)));
    // It was not linked when the proof was told.
    between.input(Input::LinkUp { link: ORIGINS, peer: between::id(ORIGIN), dialled: false });
    let digest = first.digest.as_bytes().to_vec().into();
    let positions = vec![Position { digest, ..position(ORIGIN, 1) }];
    let hello = Hello { positions, ..between::hello("origin", epoch(ORIGIN)) };
    between.frame(ORIGINS, between::advertise(advertise_frame::Kind::Hello(hello)));
    assert_eq!(proofs(&between, ORIGINS).len(), 1);
}

#[test]
fn a_server_from_an_old_disk_that_is_shown_a_proof_about_a_later_start_of_it_goes_on_above_that() {
    let mut between = Between::new();
    let later = Epoch { number: 7, ..epoch(OWN) };
    let says = |user: &str| {
        let content = Content::Removals(vec![UserName::parse(user).unwrap()]);
        Some(Batch::sign(&SimIdentity::new(OWN), later, 1, SetHash::default().digest(), 0, content).signed)
    };
    let proof = Contradiction { one: says("alice"), other: says("bob") };
    between.frame(HONEST, remove(remove_frame::Kind::Contradiction(proof)));
    assert_eq!(between.node.origin(&between::id(OWN)).unwrap().epoch().number, 8);
}

#[test]
fn a_goodbye_or_list_that_somebody_else_signed_for_a_server_does_not_end_it() {
    for is_goodbye in [true, false] {
        let mut world = World::calm_shaped(Shape::Chain, &[0, 1, 2]);
        world.online_user(0, "alice");
        world.run_for(1_000);
        let link = world.link_between(1, 0);
        let (identity, id) = (world.servers[0].identity.clone(), world.servers[0].id);
        // Twice: the second time, soon after, the server has to wait before it goes on.
        for _ in 0..2 {
            let epoch = world.servers[0].node.as_ref().unwrap().origin(&id).unwrap().epoch();
            let frame = if is_goodbye {
                remove(remove_frame::Kind::Goodbye(sign_goodbye(&identity, epoch, 0)))
            } else {
                between::list_of(&identity, epoch, u64::MAX, &[])
            };
            world.forge(1, link, frame.clone());
            // It comes back to the server itself.
            let back = world.link_between(0, 1);
            world.forge(0, back, frame);
            world.run_for(300);
        }
        world.run_for(10_000);
        for server in 0..3 {
            assert_eq!(world.servers[server].watch.labels(), ["alice@server-a"], "goodbye {is_goodbye}, at {server}");
        }
        checks::at_rest(&world);
    }
}

#[test]
fn users_of_an_origin_that_lies_leave_every_watch_and_return_with_its_next_epoch() {
    for shape in [Shape::Full, Shape::Chain, Shape::Star] {
        let mut world = World::calm_shaped(shape, &[0, 1, 2, 3]);
        let alice = world.online_user(0, "alice");
        world.run_for(1_000);
        // Somebody who has the key of server 0 tells a neighbour of it that alice left.
        let link = world.link_between(1, 0);
        let known = world.servers[1].node.as_ref().unwrap().origin(&world.servers[0].id).unwrap();
        let (epoch, number) = (known.epoch(), known.position() + 1);
        let content = Content::Removals(vec![UserName::parse("alice").unwrap()]);
        let digest = SetHash::default().digest();
        let signed = Batch::sign(&world.servers[0].identity.clone(), epoch, number, digest, 0, content).signed;
        world.forge(1, link, batch(signed));
        world.run_for(2_000);
        world.detach(alice, 0);
        world.run_for(100);
        world.attach(alice, 0, "");
        world.run_for(10_000);
        // Its own server saw what was signed in its name, and went on above it.
        for server in 0..4 {
            assert_eq!(world.servers[server].watch.labels(), ["alice@server-a"], "{shape:?} at {server}");
        }
        let went_on = world.servers[0].node.as_ref().unwrap().origin(&world.servers[0].id).unwrap().epoch();
        assert!(went_on > epoch, "{shape:?}");
        checks::at_rest(&world);
    }
}
