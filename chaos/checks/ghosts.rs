//! No ghost: nobody is shown who is not online.

use crate::world::World;

/// Everybody shown anywhere has a client that is attached.
pub fn at_rest(world: &World) {
    let online = world.online();
    for watch in &world.watches {
        let ghosts: Vec<_> = watch.shown().into_iter().filter(|user| !online.contains(user)).collect();
        assert!(ghosts.is_empty(), "server {} shows {ghosts:?}, who are not online", watch.server);
    }
}
