//! Nobody missing: everybody who is online is shown everywhere.

use crate::world::World;

/// Everybody with an open stream at home is shown by every server.
pub fn at_rest(world: &World) {
    let online = world.online();
    for server in &world.servers {
        let shown: Vec<_> = server.watch.addresses().collect();
        for address in &online {
            assert!(shown.contains(address), "{} does not show {address:?}, who is online", server.name);
        }
    }
}
