//! How large everything is that a node keeps and that others can make larger: for checkers, which know the limits.

use alloc::{collections::BTreeMap, vec::Vec};

use super::Node;

/// The largest of each kind: what is kept for each session, link, issuer or origin counts once, as the largest of them.
#[derive(Debug, Default)]
pub(super) struct Sizes(BTreeMap<&'static str, usize>);

impl Sizes {
    pub(super) fn note(&mut self, name: &'static str, size: usize) {
        let largest = self.0.entry(name).or_default();
        *largest = size.max(*largest);
    }
}

impl Node {
    /// How large everything is that has a limit, by name, for checkers.
    pub fn sizes(&self) -> Vec<(&'static str, usize)> {
        let mut sizes = Sizes::default();
        sizes.note("origins", self.origins.len());
        for known in self.origins.values() {
            known.origin.sizes().into_iter().for_each(|(name, size)| sizes.note(name, size));
        }
        sizes.note("changes remembered", self.history.len());
        sizes.note("checks under way", self.checks.under_way());
        sizes.note("queries", self.queries.len());
        self.files.sizes(&mut sizes);
        self.inboxes.sizes(&mut sizes);
        self.channel.sizes(&mut sizes);
        self.outcomes.sizes(&mut sizes);
        self.outbox.sizes(&mut sizes);
        self.sessions.sizes(&mut sizes);
        self.repeats.sizes(&mut sizes);
        self.admissions.sizes(&mut sizes);
        self.links.sizes(&mut sizes);
        self.neighbours.sizes(&mut sizes);
        sizes.0.into_iter().collect()
    }
}
