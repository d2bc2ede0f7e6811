//! Watches, as the hub serves them from what a node publishes.

use crate::world::World;

/// A quiet network of two, with an audience at server 1.
fn heard() -> World {
    let world = World::calm(&[0, 1]);
    assert_eq!(world.audience_at(), 1);
    world
}

#[test]
fn a_watcher_gets_the_present_state_then_an_end_mark_then_deltas() {
    let mut world = heard();
    assert_eq!(world.audience.steady.told, [("end", String::new())], "nobody is online, and that is complete");
    let label = |name: &str| format!("{name}@server-a");
    let alice = world.online_user(0, "alice");
    world.online_user(0, "bob");
    world.audience.come(&mut world.tally);
    let state = [("added", label("alice")), ("added", label("bob")), ("end", String::new())];
    assert_eq!(world.audience.restless.told, state);
    world.attach(alice, 0, "back soon");
    world.run_for(500);
    world.detach(alice, 0);
    world.run_for(500);
    world.audience.come(&mut world.tally);
    let deltas = [("updated", label("alice")), ("removed", label("alice"))];
    assert_eq!(world.audience.restless.told[3..], deltas);
    assert_eq!(world.audience.steady.told.len(), 5, "each change once: {:?}", world.audience.steady.told);
}

#[test]
fn a_watch_that_resumes_shows_what_one_shows_that_never_left_and_one_away_too_long_is_told_so() {
    for changes in [4, 100] {
        let mut world = heard();
        let alice = world.online_user(0, "alice");
        world.audience.come(&mut world.tally);
        world.audience.go();
        for change in 0..changes {
            world.attach(alice, 0, &format!("status {change}"));
            world.run_for(50);
        }
        world.audience.come(&mut world.tally);
        let started_over = world.tally.of(crate::tally::Kind::WatchStartedOver);
        assert_eq!(started_over, u64::from(changes == 100), "after {changes} changes");
        crate::checks::at_rest(&world);
    }
}
