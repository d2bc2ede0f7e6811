//! No ghost: nobody is shown who is not online.

use crate::world::World;

/// After this long without a server nobody may show its users, whatever else goes wrong meanwhile: its list of neighbours
/// stops counting after 15 s, the grace is 0.5 s, and a list is up to 0.2 s on its way over each of six links. Where
/// nothing else goes wrong it is 4 s, which `onward.rs` holds.
const GONE_MS: u64 = 17_000;

/// Everybody shown anywhere has an open stream at home.
pub fn at_rest(world: &World) {
    let online = world.online();
    for server in &world.servers {
        for address in server.watch.addresses() {
            assert!(online.contains(&address), "{} shows {address:?}, who is not online", server.name);
        }
    }
}

/// Nobody of a server that stopped a while ago is shown by a running one.
pub fn of_stopped_servers(world: &World) {
    for server in world.servers.iter().filter(|server| server.node.is_some() && !world.is_paused(server)) {
        for address in server.watch.addresses() {
            let home = &world.servers[world.index_of(address.home)];
            let gone_ms = home.stopped_ms.map_or(0, |stopped_ms| world.now_ms - stopped_ms);
            assert!(gone_ms <= GONE_MS, "{} still shows {address:?} of a server gone for {gone_ms} ms", server.name);
        }
    }
}
