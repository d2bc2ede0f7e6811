//! A neighbour that lies or withholds: what it says of others costs them little, and honest neighbours nothing.

use std::sync::Arc;

use prost::Message as _;
use socp::{
    batch::{Batch, Content, Epoch},
    federation::v1::{
        CatchUpRequest, DeliverFrame, MessageDelivery, NeighboursStatement, OutcomeDelivery, RemoveFrame,
        SignedNeighbours, SnapshotBegin, SnapshotPart, UserReply, advertise_frame, deliver_frame, remove_frame,
    },
    identity::Identity as _,
    input::{Frame, Input},
    limits::REFUSED_FRAMES_MAX,
    name::UserName,
    v1::SignedOutcome,
};

use crate::{
    between::{
        self, Between, HONEST, LIAR, OF_HONEST, OF_LIAR, ORIGIN, ORIGINS, OWN, advertise, epoch, id, list, position,
        remove,
    },
    checks,
    faults::Shape,
    keys::SimIdentity,
    world::World,
};

#[test]
fn a_neighbour_that_always_says_it_is_ahead_and_sends_nothing_does_not_keep_others_from_being_asked() {
    let mut between = Between::new();
    between.pass(60_000, 1_000_000, 0, |_| {});
    // By now the liar is asked but rarely. Somebody else is ahead.
    let mut batches = Vec::new();
    for round in 1..=5 {
        batches.push(between.next_batch());
        let (since_ms, before) = (between.now_ms, batches.clone());
        let mut took_ms = None;
        between.pass(15_000, 1_000_000, round, |between| {
            let asked =
                between.requests(since_ms).iter().any(|(at_ms, link)| *link == HONEST && *at_ms == between.now_ms);
            if asked {
                between.answer(&before);
            }
            if between.own_position() == round {
                took_ms.get_or_insert(between.now_ms - since_ms);
            }
        });
        let took_ms = took_ms.expect("it caught up");
        assert!(took_ms <= 4_000, "round {round}: {took_ms} ms, while the liar may take 3 s at most");
    }
}

#[test]
fn a_neighbour_that_never_ends_a_snapshot_is_given_up_and_another_one_asked() {
    let mut between = Between::new();
    let asked_honest = |between: &Between| between.requests(0).iter().any(|(_, link)| *link == HONEST);
    between.pass(60_000, 90, 90, |between| {
        if between.requests(between.now_ms).iter().any(|(_, link)| *link == LIAR) {
            let begin = SnapshotBegin { position: Some(position(ORIGIN, 90)) };
            between.frame(LIAR, advertise(advertise_frame::Kind::SnapshotBegin(begin)));
        }
        if between.now_ms.is_multiple_of(2_000) {
            between.end(LIAR, 90);
        }
    });
    assert!(asked_honest(&between), "only the liar was asked for a minute: {:?}", between.requests(0));
}

#[test]
fn an_answer_that_comes_too_late_is_not_held_against_the_neighbour_and_one_that_was_not_asked_for_is() {
    let mut between = Between::new();
    let batch = between.next_batch();
    let part = |batch: &Batch| SnapshotPart { batch: Some(batch.signed.clone()), current: Vec::new() };
    let part = advertise(advertise_frame::Kind::SnapshotPart(part(&batch)));
    let flood = |between: &mut Between| (0..=REFUSED_FRAMES_MAX).for_each(|_| between.frame(HONEST, part.clone()));
    // It says that it is ahead, is asked, and answers nothing in time; then the other one is asked.
    between.pass(4_000, 0, 90, |_| {});
    assert_eq!(between.requests(0).first().map(|(_, link)| *link), Some(HONEST));
    between.pass(100, 90, 90, |_| {});
    flood(&mut between);
    assert_eq!(between.closed, []);
    let mut between = Between::new();
    flood(&mut between);
    assert_eq!(between.closed, [HONEST]);
}

#[test]
fn a_neighbour_that_answers_in_drops_is_not_asked_while_another_one_has_all() {
    let mut between = Between::new();
    let batches: Vec<_> = (0..40).map(|_| between.next_batch()).collect();
    let mut drops = batches.iter();
    let mut due_ms = 0;
    between.pass(30_000, 41, 40, |between| {
        let asked = between.requests(between.now_ms);
        if asked.iter().any(|(_, link)| *link == HONEST) {
            between.answer(&batches);
        }
        if asked.iter().any(|(_, link)| *link == LIAR) {
            due_ms = between.now_ms + 2_500;
        }
        if due_ms == between.now_ms
            && let Some(batch) = drops.next()
        {
            between.frame(LIAR, advertise(advertise_frame::Kind::Batch(batch.signed.clone())));
            between.end(LIAR, 0);
        }
    });
    assert_eq!(between.own_position(), 40, "{:?}", between.requests(0));
}

#[test]
fn what_an_origin_contradicts_is_not_counted_against_the_neighbour_that_passed_it_on() {
    let mut between = Between::new();
    let mut batches: Vec<Arc<Batch>> = Vec::new();
    for _ in 0..2 + REFUSED_FRAMES_MAX {
        batches.push(between.next_batch());
    }
    for batch in batches {
        let content = Content::Removals(vec![UserName::parse("nobody").unwrap()]);
        let origin = SimIdentity::new(ORIGIN);
        let next = Batch::sign(&origin, epoch(ORIGIN), batch.number + 1, between::wrong_digest(), 0, content);
        between.frame(HONEST, remove(remove_frame::Kind::Batch(next.signed)));
        between.frame(HONEST, remove(remove_frame::Kind::Batch(batch.signed.clone())));
    }
    assert_eq!(between.closed, []);
}

#[test]
fn what_nobody_signed_is_refused_by_the_first_server_and_closes_no_link_of_others() {
    let mut world = World::calm_shaped(Shape::Chain, &[0, 1, 2]);
    let (alice, carol) = (world.online_user(0, "alice"), world.online_user(2, "carol"));
    world.run_for(1_000);
    let header = world.header(alice, carol);
    let sealed = world.sealed(alice, &header);
    let link = world.link_between(1, 0);
    let to: prost::bytes::Bytes = world.servers[2].id.as_bytes().to_vec().into();
    let key: prost::bytes::Bytes = world.servers[0].identity.public_key().to_vec().into();
    for number in 0..300 {
        let delivery = MessageDelivery { message: Some(sealed.clone()), hops_left: 9, ..Default::default() };
        let outcome = SignedOutcome { home_key: key.clone(), signature: vec![0; 64].into(), ..Default::default() };
        let outcome = OutcomeDelivery { outcome: Some(outcome), home_id: to.clone(), hops_left: 9 };
        let reply = UserReply {
            statement: vec![number as u8; 3].into(),
            signature: vec![0; 64].into(),
            home_key: key.clone(),
            asker_id: to.clone(),
            hops_left: 9,
        };
        let deliver = |kind| Frame::Deliver(DeliverFrame { kind: Some(kind) });
        world.forge(1, link, deliver(deliver_frame::Kind::Message(delivery)));
        world.forge(1, link, deliver(deliver_frame::Kind::Outcome(outcome)));
        world.forge(1, link, advertise(advertise_frame::Kind::UserReply(reply)));
    }
    world.run_for(5_000);
    assert_eq!(world.servers[2].refusals, [], "the server behind is not troubled");
    assert_eq!(world.servers[1].refusals.len(), 900);
    checks::at_rest(&world);
}

#[test]
fn a_server_that_signed_no_batch_or_many_or_said_goodbye_is_still_shown_its_own_word() {
    for (batches, says_goodbye) in [(0, false), (60, false), (1, true)] {
        for shape in [Shape::Full, Shape::Chain] {
            let mut world = World::calm_shaped(shape, &[0, 1, 2]);
            if batches > 0 {
                let bob = world.online_user(0, "bob");
                for _ in 1..batches / 2 {
                    world.detach(bob, 0);
                    world.run_for(100);
                    world.attach(bob, 0, "");
                    world.run_for(100);
                }
                world.run_for(1_000);
            }
            if says_goodbye {
                world.stop(0, u64::MAX / 2);
                world.run_for(1_000);
            }
            world.restart_from_old_copy(0);
            world.run_for(20_000);
            world.online_user(0, "alice");
            world.run_for(10_000);
            for server in 0..3 {
                let shown = world.servers[server].watch.labels();
                assert_eq!(
                    shown,
                    ["alice@server-a"],
                    "{shape:?} at {server}, after {batches} batches, goodbye: {says_goodbye}"
                );
            }
            checks::at_rest(&world);
        }
    }
}

#[test]
fn a_neighbour_that_comes_and_goes_from_its_own_list_does_not_make_all_others_sign_as_often() {
    let mut between = Between::new();
    between.pass(10_000, 0, 0, |_| {});
    let before = between.sent.len();
    let mut number = 1_000_000;
    between.pass(10_000, 0, 0, |between| {
        number += 1;
        let of: &[u64] = if number % 2 == 0 { &[OWN, ORIGIN] } else { &[OWN] };
        between.frame(LIAR, list(ORIGIN, number, if number % 2 == 0 { &[OF_LIAR, OF_HONEST] } else { &[] }));
        between.frame(LIAR, list(OF_LIAR, number, of));
    });
    let own_key = SimIdentity::new(OWN).public_key();
    let own_lists = between.sent[before..].iter().filter(|(_, link, frame)| {
        let Frame::Remove(RemoveFrame { kind: Some(remove_frame::Kind::Neighbours(signed)) }) = frame else {
            return false;
        };
        let statement = NeighboursStatement::decode(&signed.statement[..]).unwrap();
        *link == HONEST && statement.origin_key[..] == own_key
    });
    let own_lists = own_lists.count();
    assert!(own_lists <= 60, "{own_lists} own lists in ten seconds");
}

#[test]
fn an_epoch_known_by_an_introduction_alone_does_not_keep_a_server_from_being_heard_in_a_lower_one() {
    let mut between = Between::new();
    between.input(Input::LinkUp { link: ORIGINS, peer: id(ORIGIN), dialled: false });
    let later = Epoch { number: 9, ..epoch(ORIGIN) };
    between.frame(ORIGINS, advertise(advertise_frame::Kind::Hello(between::hello("origin", later))));
    between.input(Input::LinkDown { link: ORIGINS, cause: String::new() });
    between.input(Input::LinkUp { link: ORIGINS, peer: id(ORIGIN), dialled: false });
    between.frame(ORIGINS, advertise(advertise_frame::Kind::Hello(between::hello("origin", epoch(ORIGIN)))));
    let first = between.next_batch();
    between.frame(ORIGINS, remove(remove_frame::Kind::Batch(first.signed.clone())));
    assert_eq!(between.own_position(), 1);
}

#[test]
fn a_neighbour_that_knows_a_later_epoch_of_an_origin_is_asked_for_what_it_signed_there() {
    // Server 1 lost its memory, and with it the epoch of server 0 that server 2 knows; server 0 starts from an old copy.
    for says_goodbye in [false, true] {
        let mut world = World::calm_shaped(Shape::Chain, &[0, 1, 2]);
        world.online_user(0, "bob");
        world.run_for(1_000);
        if says_goodbye {
            world.stop(0, u64::MAX / 2);
            world.run_for(1_000);
        }
        world.crash(1, 1_000);
        world.restart_from_old_copy(0);
        world.run_for(20_000);
        world.online_user(0, "alice");
        world.run_for(10_000);
        for server in 0..3 {
            let shown = world.servers[server].watch.labels();
            assert_eq!(shown, ["alice@server-a"], "at {server}, goodbye: {says_goodbye}");
        }
        checks::at_rest(&world);
    }
}

/// The origin's list with these neighbours, told at this age.
fn aged(number: u64, age_ms: u32) -> Frame {
    match list(ORIGIN, number, &[OF_LIAR, OF_HONEST]) {
        Frame::Remove(RemoveFrame { kind: Some(remove_frame::Kind::Neighbours(signed)) }) => {
            remove(remove_frame::Kind::Neighbours(SignedNeighbours { age_ms, ..signed }))
        }
        other => panic!("{other:?}"),
    }
}

fn wait(between: &mut Between, ms: u64) {
    (0..ms / 10).for_each(|_| between.pass_without_origin(10, 1_000));
}

#[test]
fn a_list_that_comes_again_by_a_longer_way_counts_no_longer() {
    let mut between = Between::new();
    between.frame(HONEST, aged(2, 0));
    wait(&mut between, 900);
    between.frame(LIAR, aged(2, 0));
    wait(&mut between, 14_000);
    assert!(between.reaches_origin());
    wait(&mut between, 200);
    assert!(!between.reaches_origin(), "each copy would make every server look for paths anew");
}

#[test]
fn a_list_that_is_told_late_counts_no_longer_for_that_and_nobody_can_make_it_older_than_it_is() {
    let mut between = Between::new();
    between.frame(HONEST, aged(2, 14_000));
    wait(&mut between, 500);
    assert!(between.reaches_origin());
    wait(&mut between, 600);
    assert!(!between.reaches_origin(), "it was 14 s old when it came");
    between.frame(LIAR, aged(3, u32::MAX));
    between.frame(HONEST, aged(3, 0));
    wait(&mut between, 10_000);
    assert!(between.reaches_origin());
    // Nor does an older copy take from a younger one.
    between.frame(LIAR, aged(3, u32::MAX));
    wait(&mut between, 1_000);
    assert!(between.reaches_origin());
}

#[test]
fn a_list_that_is_shown_as_proof_of_an_epoch_says_how_old_it_is() {
    let mut between = Between::new();
    between.now_ms = 10_000;
    let request = CatchUpRequest { position: Some(position(ORIGIN, u64::MAX)), ..CatchUpRequest::default() };
    between.frame(HONEST, advertise(advertise_frame::Kind::CatchUpRequest(request)));
    let shown = between.sent.iter().rev().find_map(|(at_ms, link, frame)| match frame {
        Frame::Remove(RemoveFrame { kind: Some(remove_frame::Kind::Neighbours(signed)) })
            if (*at_ms, *link) == (10_000, HONEST) && signed.age_ms > 0 =>
        {
            Some(signed.age_ms)
        }
        _ => None,
    });
    assert_eq!(shown, Some(10_000));
}

#[test]
fn a_server_that_only_its_neighbour_lists_cannot_be_reached() {
    let mut between = Between::new();
    between.pass(100, 0, 0, |_| {});
    assert!(between.reaches_origin());
    // It lists the liar no more, and the honest one lists it no more; the liar goes on to.
    between.frame(HONEST, list(ORIGIN, 2, &[OF_HONEST]));
    between.frame(HONEST, list(OF_HONEST, 2, &[OWN]));
    between.frame(LIAR, list(OF_LIAR, 2, &[OWN, ORIGIN]));
    between.pass(100, 0, 0, |_| {});
    assert!(!between.reaches_origin());
}

#[test]
fn a_server_whose_list_is_15_s_old_cannot_be_reached_though_a_neighbour_still_lists_it() {
    let mut between = Between::new();
    let mut lost_ms = None;
    while lost_ms.is_none() && between.now_ms < 30_000 {
        between.pass_without_origin(100, 5_000);
        if !between.reaches_origin() {
            lost_ms = Some(between.now_ms);
        }
    }
    assert_eq!(lost_ms, Some(15_000));
}
