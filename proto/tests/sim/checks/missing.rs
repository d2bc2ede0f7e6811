//! Nobody missing: everybody who is online is shown everywhere.

use crate::world::World;

/// Everybody with an open stream at home is shown by every server, but for users of a server that lied of them.
pub fn at_rest(world: &World) {
    let online = world.online();
    for server in &world.servers {
        let shown: Vec<_> = server.watch.addresses().collect();
        for address in online.iter().filter(|address| !world.is_of_liar(address)) {
            assert!(shown.contains(address), "{} does not show {address:?}, who is online", server.name);
        }
    }
}
