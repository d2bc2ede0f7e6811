//! Exactly once: who leaves with a server leaves each other watch once, and returns once; nobody else is touched.

use std::time::Duration;

use super::watches::{Change, Watch, What};
use crate::world::{Mark, World};

/// What a watch told of somebody since then, without changes of content.
fn told<'a>(watch: &'a Watch, mark: &'a Mark, user: &'a str) -> impl Iterator<Item = &'a Change> {
    let since = &watch.changes[mark.of(watch)..];
    since.iter().filter(move |change| change.user == user && change.what != What::Changed)
}

/// Whether all these watches told that everybody of these servers went, or came, at least once since then.
pub fn all(world: &World, mark: &Mark, watches: &[usize], homes: &[usize], what: What) -> bool {
    let users = world.users_of(homes);
    watches.iter().all(|&watch| {
        let watch = &world.watches[watch];
        users.iter().all(|user| told(watch, mark, user).any(|change| change.what == what))
    })
}

/// How long after a time each of these watches told the last of it.
pub fn times(
    world: &World,
    mark: &Mark,
    watches: &[usize],
    homes: &[usize],
    what: What,
    after_ns: u64,
) -> Vec<Duration> {
    let users = world.users_of(homes);
    let last = |watch: &usize| {
        let watch = &world.watches[*watch];
        let firsts = users.iter().map(|user| told(watch, mark, user).find(|change| change.what == what));
        let last = firsts.map(|change| change.expect("it was told").unix_ns).max().expect("every server has users");
        Duration::from_nanos(last.saturating_sub(after_ns))
    };
    watches.iter().map(last).collect()
}

/// On these watches, everybody of these servers went once and came once since then, in this order.
#[track_caller]
pub fn left_and_returned(world: &World, mark: &Mark, watches: &[usize], homes: &[usize]) {
    for watch in watches.iter().map(|&watch| &world.watches[watch]) {
        for user in world.users_of(homes) {
            let whats: Vec<_> = told(watch, mark, user).map(|change| change.what).collect();
            assert_eq!(whats, [What::Went, What::Came], "{user} on the watch of server {}", watch.server);
        }
    }
}

/// How often users of all but these servers went or came on these watches since then.
pub fn flickers(world: &World, mark: &Mark, watches: &[usize], homes: &[usize]) -> u64 {
    let others = world.online().into_iter().filter(|user| !world.users_of(homes).contains(user));
    let others: Vec<&str> = others.collect();
    let of_watch =
        |watch: &usize| others.iter().map(|user| told(&world.watches[*watch], mark, user).count()).sum::<usize>();
    watches.iter().map(of_watch).sum::<usize>() as u64
}

/// How long after a time each watch told that this one went or came, for the first time since the mark.
pub fn of_one(world: &World, mark: &Mark, user: &str, what: What, after_ns: u64) -> Vec<Duration> {
    let first = |watch| told(watch, mark, user).find(|change| change.what == what).expect("it was told").unix_ns;
    world.watches.iter().map(|watch| Duration::from_nanos(first(watch).saturating_sub(after_ns))).collect()
}

/// On every watch this one went once and came once since then, in this order.
#[track_caller]
pub fn left_and_returned_alone(world: &World, mark: &Mark, user: &str) {
    for watch in &world.watches {
        let whats: Vec<_> = told(watch, mark, user).map(|change| change.what).collect();
        assert_eq!(whats, [What::Went, What::Came], "{user} on the watch of server {}", watch.server);
    }
}

/// How often anybody but this one went or came on any watch since then.
pub fn flickers_but(world: &World, mark: &Mark, user: &str) -> u64 {
    let others: Vec<&str> = world.online().into_iter().filter(|&other| other != user).collect();
    let of_watch = |watch| others.iter().map(|other| told(watch, mark, other).count()).sum::<usize>();
    world.watches.iter().map(of_watch).sum::<usize>() as u64
}
