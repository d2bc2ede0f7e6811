//! Checkers: each looks at what happened with its own eyes, and none believes what a node says of itself.

pub mod byzantine;
pub mod deliveries;
pub mod ghosts;
pub mod liars;
pub mod missing;
pub mod moves;
pub mod once;
pub mod posts;
pub mod queues;
pub mod resume;
pub mod views;
pub mod watches;

use crate::world::World;

/// Everything that must hold once the network was left alone.
pub fn at_rest(world: &World) {
    deliveries::at_rest(world);
    posts::at_rest(world);
    once::at_rest(world);
    queues::at_any_time(world);
    byzantine::at_rest(world);
    liars::at_rest(world);
    ghosts::at_rest(world);
    missing::at_rest(world);
    moves::at_rest(world);
    views::at_rest(world);
    resume::at_rest(world);
}
