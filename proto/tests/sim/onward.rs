//! Onward: networks in which not everybody has a link to everybody.

use std::collections::BTreeSet;

use socp::{
    directory::Change,
    federation::v1::{DeliverFrame, MessageDelivery, Voucher, deliver_frame},
    id::ContentHash,
    identity::Identity as _,
    input::Frame,
    signed::{Label, signing_input},
    v1::RemovalReason,
};

use crate::{
    checks,
    faults::Shape,
    wires::{End, link_id},
    world::World,
};

const SHAPES: [Shape; 5] = [Shape::Full, Shape::Chain, Shape::Ring, Shape::Star, Shape::Random];

/// A quiet network of seven, with one user at each server.
fn seven(shape: Shape) -> (World, Vec<usize>) {
    let mut world = World::calm_shaped(shape, &[0, 1, 2, 3, 4, 5, 6]);
    let users = (0..7).map(|server| world.online_user(server, "alice")).collect();
    world.run_for(1_000);
    (world, users)
}

/// What a watcher at this server saw go from some moment on: whom, and why.
fn gone(world: &World, server: usize, since: usize) -> Vec<(String, RemovalReason)> {
    let changes = world.servers[server].watch.changes[since..].iter();
    let removed = changes.filter_map(|change| match change {
        Change::Removed(entry, reason) => Some((entry.label(), *reason)),
        _ => None,
    });
    removed.collect()
}

#[test]
fn any_connected_topology_works_for_users_messages_and_posts() {
    for shape in SHAPES {
        let (mut world, users) = seven(shape);
        checks::at_rest(&world);
        assert!(world.servers.iter().all(|server| server.watch.addresses().count() == 7), "{shape:?}");
        world.tell(users[0], users[6]);
        world.tell(users[6], users[0]);
        world.tell(users[3], users[5]);
        world.run_for(1_000);
        for user in [0, 5, 6] {
            assert_eq!(
                world.deliveries.of(&world.address(users[user])),
                1,
                "{shape:?}: a message to the user at {user}"
            );
        }
        let had: Vec<usize> = users.iter().map(|user| world.deliveries.of(&world.address(*user))).collect();
        world.post(users[2]);
        world.run_for(1_000);
        for (place, user) in users.iter().enumerate() {
            let got = world.deliveries.of(&world.address(*user)) - had[place];
            assert_eq!(got, usize::from(place != 2), "{shape:?}: a post to the user at {place}");
        }
        world.detach(users[4], 0);
        world.run_for(1_000);
        assert!(world.servers.iter().all(|server| server.watch.addresses().count() == 6), "{shape:?}");
        checks::at_rest(&world);
    }
}

#[test]
fn a_change_reaches_every_server_over_one_link_and_nothing_circulates() {
    for shape in SHAPES {
        let (mut world, _) = seven(shape);
        for server in 0..7 {
            world.batches.clear();
            world.online_user(server, "bob");
            world.run_for(2_000);
            let copies: u64 = world.batches.values().sum();
            assert_eq!(copies, 6, "{shape:?}: each other server is sent the batch once: {:?}", world.batches);
        }
        checks::at_rest(&world);
    }
}

#[test]
fn in_a_full_mesh_of_ten_a_change_is_sent_to_each_other_server_once() {
    let mut world = World::calm_shaped(Shape::Full, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    world.run_for(2_000);
    for server in 0..10 {
        world.batches.clear();
        let user = world.online_user(server, "alice");
        world.run_for(2_000);
        assert_eq!(world.batches.values().sum::<u64>(), 9, "coming: {:?}", world.batches);
        world.batches.clear();
        world.detach(user, 0);
        world.run_for(2_000);
        assert_eq!(world.batches.values().sum::<u64>(), 9, "going: {:?}", world.batches);
    }
    checks::at_rest(&world);
}

#[test]
fn users_of_a_server_that_dies_leave_every_watch_once_within_four_seconds() {
    for shape in SHAPES {
        for victim in [0, 3, 6] {
            let (mut world, _) = seven(shape);
            let seen: Vec<usize> = world.servers.iter().map(|server| server.watch.changes.len()).collect();
            world.crash(victim, 60_000);
            world.run_for(4_000);
            let label = format!("alice@{}", world.servers[victim].name);
            for server in (0..7).filter(|server| *server != victim) {
                let gone = gone(&world, server, seen[server]);
                let theirs = gone.iter().filter(|(user, _)| *user == label).collect::<Vec<_>>();
                assert_eq!(theirs, [&(label.clone(), RemovalReason::Unreachable)], "{shape:?}: {victim} at {server}");
            }
            world.run_until_quiet();
            checks::at_rest(&world);
        }
    }
}

#[test]
fn each_half_of_a_parted_network_leaves_in_one_revision_a_server_and_returns_in_one() {
    let (mut world, _) = seven(Shape::Chain);
    let seen: Vec<usize> = world.servers.iter().map(|server| server.watch.changes.len()).collect();
    world.cut(BTreeSet::from([0, 1, 2]), 8_000);
    world.run_for(7_000);
    for server in 0..7 {
        let is_on_the_same_side = |other: usize| (other < 3) == (server < 3);
        let shown: BTreeSet<_> = world.servers[server].watch.addresses().map(|address| address.home).collect();
        let expected =
            (0..7).filter(|other| is_on_the_same_side(*other)).map(|other| world.servers[other].id).collect();
        assert_eq!(shown, expected, "the watch at {server}");
    }
    // Somebody comes and somebody goes on the other side meanwhile.
    world.online_user(5, "bob");
    world.run_for(6_000);
    for (server, seen) in seen.into_iter().enumerate() {
        let changes = &world.servers[server].watch.changes[seen..];
        let times = |label: &str| {
            let of = |change: &Change| match change {
                Change::Added(entry) | Change::Updated(entry) => entry.label() == label,
                Change::Removed(entry, _) | Change::Moved(entry, _) => entry.label() == label,
            };
            changes.iter().filter(|change| of(change)).count()
        };
        for other in 0..7 {
            let expected = if (other < 3) == (server < 3) { 0 } else { 2 };
            let label = format!("alice@{}", world.servers[other].name);
            assert_eq!(times(&label), expected, "{label} at {server}: gone once and back once");
        }
    }
    checks::at_rest(&world);
}

#[test]
fn a_server_that_comes_late_gets_everybody_over_one_neighbour() {
    for shape in [Shape::Chain, Shape::Star] {
        let mut world = World::calm_shaped(shape, &[0, 1, 2]);
        for name in ["alice", "bob", "carol"] {
            for server in 0..3 {
                world.online_user(server, name);
            }
        }
        world.crash(2, 1_000_000);
        world.run_for(10_000);
        world.restart_with(2, |_| {});
        world.run_for(3_000);
        let shown: BTreeSet<String> = world.servers[2].watch.labels().into_iter().collect();
        let expected =
            ["alice", "bob", "carol"].iter().flat_map(|name| ["a", "b"].map(|at| format!("{name}@server-{at}")));
        assert_eq!(shown, expected.collect(), "{shape:?}");
    }
}

#[test]
fn a_server_that_starts_from_an_old_copy_of_its_disk_is_shown_its_own_word_and_goes_on_above_it() {
    for shape in [Shape::Full, Shape::Chain] {
        let mut world = World::calm_shaped(shape, &[0, 1, 2]);
        let alice = world.online_user(0, "alice");
        world.run_for(1_000);
        let before = world.servers[0].epoch;
        world.restart_from_old_copy(0);
        assert!(world.servers[0].epoch < before);
        world.run_for(3_000);
        world.users.users[alice].is_registered = true;
        let device = world.new_device(alice);
        world.attach(alice, device, "");
        world.run_for(10_000);
        for server in 0..3 {
            assert_eq!(world.servers[server].watch.labels(), ["alice@server-a"], "{shape:?} at {server}");
        }
        checks::at_rest(&world);
    }
}

#[test]
fn a_message_that_passed_too_many_links_is_passed_on_no_further() {
    let mut world = World::calm_shaped(Shape::Chain, &[0, 1, 2]);
    let (alice, carol) = (world.online_user(0, "alice"), world.online_user(2, "carol"));
    world.run_for(1_000);
    let header = world.header(alice, carol);
    let sealed = world.sealed(alice, &header);
    let sent = |world: &World| world.deliveries.of(&world.address(carol));
    let wire = world
        .wires
        .iter()
        .find(|(_, wire)| wire.is_up == [true; 2] && BTreeSet::from(wire.servers) == BTreeSet::from([0, 1]));
    let (id, wire) = wire.expect("they are linked");
    let side = wire.servers.iter().position(|server| *server == 1).expect("server 1 has an end");
    let link = link_id(End { wire: id, side });
    let home = &world.servers[0].identity;
    let hash = ContentHash::of(&sealed.statement);
    let signature = home.sign(&signing_input(Label::Submission, hash.as_bytes())).to_vec().into();
    let voucher = Voucher { home_key: home.public_key().to_vec().into(), signature };
    let deliver = |hops_left| {
        let (message, voucher) = (Some(sealed.clone()), Some(voucher.clone()));
        let delivery = MessageDelivery { message, voucher, hops_left, ..Default::default() };
        Frame::Deliver(DeliverFrame { kind: Some(deliver_frame::Kind::Message(delivery)) })
    };
    world.forge(1, link, deliver(0));
    world.run_for(1_000);
    assert_eq!(sent(&world), 0, "it was not passed on");
    world.forge(1, link, deliver(1));
    world.run_for(1_000);
    assert_eq!(sent(&world), 1, "it was");
}
