//! No ghost: nobody is shown who is not online.

use crate::world::World;

/// After this long without a server nobody may show its users, whatever else goes wrong meanwhile: its list of neighbours
/// stops counting after 15 s, the grace is 0.5 s, and a list is up to 0.2 s on its way over each of six links. Where
/// nothing else goes wrong it is 4 s, which `onward.rs` holds.
const GONE_MS: u64 = 17_000;

/// Everybody shown anywhere has an open stream at home, but for users of a server that lied of them.
pub fn at_rest(world: &World) {
    let online = world.online();
    for server in &world.servers {
        for address in server.watch.addresses().filter(|address| !world.is_of_liar(address)) {
            assert!(online.contains(&address), "{} shows {address:?}, who is not online", server.name);
        }
    }
}

/// Nobody whose home stopped a while ago, and perhaps started anew, is shown by a running server as it was then; nor
/// anybody of a start that this server knows to be over, but for those who are held over a planned restart.
pub fn of_ended_epochs(world: &World) {
    for server in world.servers.iter().filter(|server| !world.is_paused(server)) {
        let Some(node) = &server.node else { continue };
        for entry in server.watch.entries() {
            // What a peer made up leaves like any other, which the end of the run shows.
            let Some(home) = world.find(entry.address.home).map(|home| &world.servers[home]) else { continue };
            let (name, label) = (&server.name, entry.label());
            let gone_ms = home.ended_ms.get(&entry.epoch).map_or(0, |ended_ms| world.now_ms - ended_ms);
            let was_held = home.said_goodbye.contains(&entry.epoch);
            let most_ms = GONE_MS + if was_held { world.faults.goodbye_hold_ms } else { 0 };
            assert!(gone_ms <= most_ms, "{name} still shows {label} of a start that ended {gone_ms} ms ago");
            let known = node.origin(&home.id).map(|origin| origin.epoch().number);
            let may_be_held = world.faults.goodbye_hold_ms > 0 && home.said_goodbye.contains(&entry.epoch);
            let is_known = known == Some(entry.epoch) || may_be_held;
            assert!(is_known, "{name} shows {label} of a start that it knows to be over");
        }
    }
}
