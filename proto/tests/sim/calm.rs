//! Quiet networks, for tests that tell a story.

use crate::{
    faults::{Faults, Shape},
    world::{Event, World},
};

impl World {
    /// A quiet network of this shape, started in the given order.
    pub fn calm_shaped(shape: Shape, order: &[usize]) -> Self {
        let mut world = Self::new(1, Faults { shape, ..Faults::none(order.len()) });
        world.start_in(order, 100);
        world
    }

    /// A quiet network of so many servers, started in the given order, for tests that tell a story.
    pub fn calm(order: &[usize]) -> Self {
        Self::calm_with(1, order, 700)
    }

    /// The same with another seed, and with so long between the starts.
    pub fn calm_with(seed: u64, order: &[usize], apart_ms: u64) -> Self {
        let mut world = Self::new(seed, Faults::none(order.len()));
        world.start_in(order, apart_ms);
        world
    }

    /// A quiet network in which these servers pin those, each of which vouches for whom it pins.
    pub fn calm_pinned(servers: usize, pinned: &[(usize, usize)], prepare: impl FnOnce(&mut Self)) -> Self {
        let mut world = Self::new(1, Faults::none(servers));
        prepare(&mut world);
        world.pinned = Some(pinned.iter().copied().collect());
        world.start_in(&(0..servers).collect::<Vec<_>>(), 100);
        world
    }

    pub fn start_in(&mut self, order: &[usize], apart_ms: u64) {
        self.queue.clear();
        for (place, index) in order.iter().enumerate() {
            self.schedule(place as u64 * apart_ms, Event::Start(*index));
        }
        self.run_for(5_000);
    }
}
