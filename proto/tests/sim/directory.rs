//! The directory's promises, told one at a time over a quiet network of three.

use socp::{
    directory::{Change, Entry},
    v1::RemovalReason,
};

use crate::{checks, world::World};

const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

fn shown(world: &World, server: usize) -> Vec<String> {
    let mut labels = world.servers[server].watch.labels();
    labels.sort();
    labels
}

fn entry(world: &World, server: usize, label: &str) -> Entry {
    let mut entries = world.servers[server].watch.entries();
    let found = entries.find(|entry| entry.label() == label).expect("the user is shown");
    Entry::clone(found)
}

#[test]
fn a_user_who_comes_online_is_shown_to_every_watcher_on_every_server_with_the_key_needed_to_message_at_once() {
    let mut world = World::calm(&[0, 1, 2]);
    let alice = world.online_user(0, "alice");
    for server in 0..3 {
        let entry = entry(&world, server, "alice@server-a");
        assert_eq!(entry.statement.signed, world.key_statement(alice));
        assert_eq!(*entry.statement.key.spki(), world.users.users[alice].spki);
    }
}

#[test]
fn users_of_the_same_server_see_each_other_through_the_same_path_as_remote_ones() {
    let mut world = World::calm(&[0, 1, 2]);
    world.online_user(0, "alice");
    world.online_user(0, "bob");
    let own = world.servers[0].node.as_ref().and_then(|node| node.origin(&world.servers[0].id)).unwrap();
    assert_eq!(own.position(), 2, "own users are in the own origin's batches");
    for server in 0..3 {
        assert_eq!(shown(&world, server), ["alice@server-a", "bob@server-a"]);
    }
    checks::at_rest(&world);
}

#[test]
fn the_result_is_the_same_for_every_order_in_which_servers_start_and_users_come_and_go() {
    for order in ORDERS {
        let mut world = World::calm(&order);
        for server in order {
            world.online_user(server, "alice");
            let bob = world.online_user(server, "bob");
            world.detach(bob, 0);
        }
        world.run_for(1_000);
        for server in 0..3 {
            assert_eq!(shown(&world, server), ["alice@server-a", "alice@server-b", "alice@server-c"], "{order:?}");
        }
        checks::at_rest(&world);
    }
}

#[test]
fn a_server_that_starts_late_or_again_gets_everybody() {
    let mut world = World::calm(&[0, 1, 2]);
    world.online_user(0, "alice");
    world.online_user(1, "bob");
    world.crash(2, 5_000);
    world.online_user(1, "carol");
    world.run_for(8_000);
    assert_eq!(shown(&world, 2), ["alice@server-a", "bob@server-b", "carol@server-b"]);
    checks::at_rest(&world);
}

#[test]
fn a_user_who_left_is_never_in_a_later_snapshot() {
    let mut world = World::calm(&[0, 1, 2]);
    world.online_user(0, "alice");
    let bob = world.online_user(0, "bob");
    world.detach(bob, 0);
    world.run_for(1_000);
    world.crash(2, 100);
    world.run_for(5_000);
    assert_eq!(shown(&world, 2), ["alice@server-a"]);
    let ever_shown = world.servers[2].watch.changes.iter().any(|change| match change {
        Change::Added(entry) | Change::Updated(entry) => entry.label().starts_with("bob"),
        Change::Removed(entry, _) | Change::Moved(entry, _) => entry.label().starts_with("bob"),
    });
    assert!(!ever_shown, "a server that started after bob left never heard of him");
}

#[test]
fn a_user_who_goes_offline_is_removed_everywhere() {
    let mut world = World::calm(&[0, 1, 2]);
    let alice = world.online_user(0, "alice");
    world.detach(alice, 0);
    world.run_for(500);
    for server in 0..3 {
        assert!(shown(&world, server).is_empty());
        let last = world.servers[server].watch.changes.last();
        assert!(matches!(last, Some(Change::Removed(_, RemovalReason::Left))), "{last:?}");
    }
}

#[test]
fn log_out_and_in_within_a_second_is_seen_as_removed_then_added_and_ends_online() {
    // The two go on streams of their own, so in about half of the runs the advert overtakes the removal.
    for seed in 1..=8 {
        let mut world = World::calm_with(seed, &[0, 1, 2], 700);
        let alice = world.online_user(0, "alice");
        let before: Vec<usize> = world.servers.iter().map(|server| server.watch.changes.len()).collect();
        world.detach(alice, 0);
        world.attach(alice, 0, "");
        world.run_for(500);
        for (server, before) in world.servers.iter().zip(before) {
            let changes = &server.watch.changes[before..];
            let is_so = matches!(changes, [Change::Removed(..), Change::Added(_)]);
            assert!(is_so, "seed {seed}, {}: {changes:?}", server.name);
        }
        checks::at_rest(&world);
    }
}

#[test]
fn all_users_of_a_server_that_goes_away_leave_in_one_revision_and_return_in_one() {
    let mut world = World::calm(&[0, 1, 2]);
    world.online_user(0, "alice");
    world.online_user(0, "bob");
    let node = |world: &World| world.servers[1].node.as_ref().unwrap().directory().revision();
    let before = node(&world);
    world.cut([0].into(), 10_000);
    world.run_for(9_000);
    assert!(shown(&world, 1).is_empty());
    assert_eq!(node(&world), before + 1, "both left at once");
    let gone: Vec<_> = world.servers[1].watch.changes.iter().rev().take(2).collect();
    assert!(gone.iter().all(|change| matches!(change, Change::Removed(_, RemovalReason::Unreachable))), "{gone:?}");
    world.run_for(6_000);
    assert_eq!(shown(&world, 1), ["alice@server-a", "bob@server-a"]);
    assert_eq!(node(&world), before + 2, "both returned at once");
    checks::at_rest(&world);
}

#[test]
fn a_goodbye_removes_the_users_of_a_server_at_once() {
    let mut world = World::calm(&[0, 1, 2]);
    world.online_user(0, "alice");
    world.stop(0, 60_000);
    world.run_for(100);
    for server in 1..3 {
        let last = world.servers[server].watch.changes.last();
        assert!(matches!(last, Some(Change::Removed(_, RemovalReason::Unreachable))), "{last:?}");
    }
}

#[test]
fn a_blip_shorter_than_the_grace_leaves_no_trace() {
    let mut world = World::calm(&[0, 1]);
    world.online_user(0, "alice");
    let before = world.servers[1].watch.changes.len();
    let wires: Vec<u64> = world.wires.iter().filter(|(_, wire)| wire.is_up == [true; 2]).map(|(id, _)| id).collect();
    for wire in wires {
        world.break_wire_now(wire);
    }
    world.run_for(5_000);
    assert_eq!(world.servers[1].watch.changes.len(), before);
    checks::at_rest(&world);
}

#[test]
fn a_server_far_behind_is_brought_up_to_date_by_a_snapshot() {
    let mut world = World::calm(&[0, 1]);
    let alice = world.online_user(0, "alice");
    let bob = world.online_user(0, "bob");
    world.cut([1].into(), 10_000);
    for _ in 0..30 {
        world.detach(alice, 0);
        world.attach(alice, 0, "");
    }
    world.detach(bob, 0);
    world.run_for(20_000);
    assert!(world.tally.of(crate::tally::Kind::SnapshotSent) > 0);
    assert_eq!(shown(&world, 1), ["alice@server-a"]);
    checks::at_rest(&world);
}
