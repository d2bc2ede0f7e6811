//! Checkers, in the words of `proto/tests/sim/checks`: each looks at what clients were told, and none believes a server.

pub mod ghosts;
pub mod missing;
pub mod once;
pub mod views;
pub mod watches;

use crate::world::World;

/// Waits until every view is right, and holds everything that must hold once the network was left alone.
#[track_caller]
pub fn at_rest(world: &mut World) {
    world.until("every view to be whole", World::is_whole);
    ghosts::at_rest(world);
    missing::at_rest(world);
    views::at_rest(world);
}
