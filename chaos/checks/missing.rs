//! Nobody missing: everybody who is online is shown everywhere.

use crate::world::World;

/// Everybody with a client that is attached is shown by every server.
pub fn at_rest(world: &World) {
    for watch in &world.watches {
        let shown = watch.shown();
        let missing: Vec<_> = world.online().into_iter().filter(|user| !shown.contains(user)).collect();
        assert!(missing.is_empty(), "server {} does not show {missing:?}, who are online", watch.server);
    }
}
