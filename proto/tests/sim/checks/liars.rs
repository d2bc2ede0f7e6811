//! Origins that lie: in the end all others show the same of them, whatever each was told.

use std::collections::BTreeSet;

use crate::world::World;

/// Whoever tells two servers different things is believed by both or by neither, and the same; unless the two are linked over
/// the liar alone, which can keep back what each would show the other.
pub fn at_rest(world: &World) {
    for liar in world.liars.all() {
        // A stubborn one shows its own users, whom nobody else believes.
        let is_stubborn = world.liars.is_stubborn(liar);
        let mut left: BTreeSet<usize> =
            (0..world.servers.len()).filter(|index| !is_stubborn || *index != liar).collect();
        while let Some(first) = left.pop_first() {
            let mut linked = vec![first];
            let expected = shown(world, first, liar);
            while let Some(one) = linked.pop() {
                let (found, rest) = left.into_iter().partition(|other| world.joins(one, *other));
                left = rest;
                linked.extend::<BTreeSet<usize>>(found);
                let (name, of) = (&world.servers[first].name, &world.servers[liar].name);
                let other = &world.servers[one].name;
                assert_eq!(expected, shown(world, one, liar), "{name} and {other} believe different things of {of}");
            }
        }
    }
}

/// What a server shows of another one's users.
fn shown(world: &World, server: usize, of: usize) -> Vec<(String, String, u64, u32)> {
    let home = world.servers[of].id;
    let entries = world.servers[server].watch.entries().filter(|entry| entry.address.home == home);
    entries.map(|entry| (entry.label(), entry.status.to_string(), entry.epoch, entry.sessions)).collect()
}
