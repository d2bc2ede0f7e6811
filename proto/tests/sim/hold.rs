//! A planned restart: users are held until their home is back, and nobody sees them go.

use socp::{
    batch::{Epoch, Goodbye, open_goodbye, sign_goodbye},
    directory::Change,
    federation::v1::{advertise_frame, remove_frame},
    input::{Input, Request},
    limits::GOODBYE_HOLD_MS_MAX,
    output::Refusal,
    v1::RemovalReason,
};

use crate::{
    between::{self, Between, ORIGIN, ORIGINS, advertise, remove},
    checks,
    faults::Shape,
    keys::SimIdentity,
    world::World,
};

/// A quiet network in which server 0 says goodbye so that its users are held for 5 s.
fn holding(shape: Shape) -> (World, usize) {
    let mut world = World::calm_shaped(shape, &[0, 1, 2, 3]);
    world.crash(0, u64::MAX / 2);
    world.restart_with(0, |settings| settings.goodbye_hold_ms = 5_000);
    world.run_for(20_000);
    let alice = world.online_user(0, "alice");
    world.run_for(1_000);
    (world, alice)
}

fn changes(world: &World, server: usize, since: usize) -> Vec<(String, &'static str)> {
    let changes = world.servers[server].watch.changes[since..].iter();
    let told = changes.filter_map(|change| match change {
        Change::Added(entry) => Some((entry.label(), "added")),
        Change::Updated(entry) => Some((entry.label(), "updated")),
        Change::Removed(entry, RemovalReason::Unreachable) => Some((entry.label(), "unreachable")),
        Change::Removed(entry, RemovalReason::Left) => Some((entry.label(), "left")),
        _ => None,
    });
    told.collect()
}

#[test]
fn a_planned_restart_shows_no_flicker_of_those_who_come_back() {
    for shape in [Shape::Full, Shape::Chain, Shape::Star] {
        let (mut world, alice) = holding(shape);
        let seen: Vec<usize> = world.servers.iter().map(|server| server.watch.changes.len()).collect();
        world.stop(0, u64::MAX / 2);
        world.run_for(1_000);
        world.restart_with(0, |settings| settings.goodbye_hold_ms = 5_000);
        world.run_for(1_500);
        let device = world.new_device(alice);
        world.attach(alice, device, "");
        world.run_for(15_000);
        for (server, seen) in seen.into_iter().enumerate().skip(1) {
            let told: Vec<_> =
                changes(&world, server, seen).into_iter().filter(|(user, _)| user == "alice@server-a").collect();
            assert_eq!(told, [("alice@server-a".into(), "updated")], "{shape:?} at {server}");
        }
        checks::at_rest(&world);
    }
}

#[test]
fn those_who_do_not_come_back_leave_once_when_the_hold_is_over() {
    for comes_back in [false, true] {
        let (mut world, _) = holding(Shape::Star);
        // Of a star the others lose each other too while its middle is away; their own users are not in question here.
        let seen: Vec<usize> = world.servers.iter().map(|server| server.watch.changes.len()).collect();
        world.stop(0, u64::MAX / 2);
        if comes_back {
            world.run_for(500);
            world.restart_with(0, |_| {});
            world.run_for(3_500);
        } else {
            world.run_for(4_000);
        }
        for server in 1..4 {
            assert_eq!(world.servers[server].watch.labels(), ["alice@server-a"], "held, comes back: {comes_back}");
        }
        world.run_for(6_000);
        for (server, seen) in seen.into_iter().enumerate().skip(1) {
            let told = changes(&world, server, seen);
            let reason = if comes_back { "left" } else { "unreachable" };
            assert_eq!(told, [("alice@server-a".into(), reason)], "at {server}, comes back: {comes_back}");
        }
    }
}

#[test]
fn whoever_is_blocked_is_held_no_longer() {
    let (mut world, _) = holding(Shape::Full);
    world.stop(0, u64::MAX / 2);
    world.run_for(1_000);
    assert_eq!(world.servers[1].watch.labels(), ["alice@server-a"]);
    let request = Request::SetBlocked { server: world.servers[0].id.to_string(), is_blocked: true };
    world.ask(1, request);
    assert_eq!(world.servers[1].watch.labels(), Vec::<String>::new());
    world.run_for(10_000);
    assert_eq!(world.servers[1].watch.labels(), Vec::<String>::new());
}

#[test]
fn a_second_stop_within_the_hold_holds_nobody_of_the_first_longer() {
    let (mut world, _) = holding(Shape::Full);
    world.stop(0, u64::MAX / 2);
    world.run_for(1_000);
    world.restart_with(0, |settings| settings.goodbye_hold_ms = 5_000);
    world.run_for(1_000);
    world.stop(0, u64::MAX / 2);
    world.run_for(500);
    assert_eq!(world.servers[1].watch.labels(), Vec::<String>::new());
}

#[test]
fn those_who_are_held_go_on_in_a_later_epoch_only() {
    let epoch = |later: u64| Epoch { number: between::epoch(ORIGIN).number + later, ..between::epoch(ORIGIN) };
    let hello = |between: &mut Between, later: u64| {
        between.input(Input::LinkDown { link: ORIGINS, cause: String::new() });
        between.input(Input::LinkUp { link: ORIGINS, peer: between::id(ORIGIN), dialled: false });
        between.frame(ORIGINS, advertise(advertise_frame::Kind::Hello(between::hello("origin", epoch(later)))));
    };
    // Of the epoch after the goodbye there is no more than a hello, so that a lower one counts after it.
    for (later, is_held) in [(5, true), (3, true), (1, false)] {
        let mut between = Between::new();
        hello(&mut between, 2);
        between.comes_online("eve", epoch(2));
        let goodbye = sign_goodbye(&SimIdentity::new(ORIGIN), epoch(2), 5_000);
        between.frame(ORIGINS, remove(remove_frame::Kind::Goodbye(goodbye)));
        hello(&mut between, 4);
        assert_eq!(between.node.directory().entries().count(), 1, "held over the restart");
        hello(&mut between, later);
        assert_eq!(between.node.directory().entries().count(), usize::from(is_held), "{later} later");
    }
}

#[test]
fn a_goodbye_asks_for_no_longer_than_the_limit() {
    let (identity, epoch) = (SimIdentity::new(1), between::epoch(1));
    let origin = between::id(1);
    for (asked_ms, hold_ms) in [(0, 0), (GOODBYE_HOLD_MS_MAX, GOODBYE_HOLD_MS_MAX), (u64::MAX, GOODBYE_HOLD_MS_MAX)] {
        let signed = sign_goodbye(&identity, epoch, asked_ms);
        assert_eq!(open_goodbye(&identity, &signed), Ok(Goodbye { origin, epoch, hold_ms }));
    }
    let signed = between::goodbye_that_holds_for(1, u32::try_from(GOODBYE_HOLD_MS_MAX).unwrap() + 1);
    assert_eq!(open_goodbye(&identity, &signed), Err(Refusal::TooMany("goodbye.hold_ms")));
}
