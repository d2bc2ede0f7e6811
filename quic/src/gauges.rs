//! What a server is doing right now, as numbers for metrics and for tests that look for leaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts of what a [`Server`](crate::Server) holds at this moment. Cheap to clone; all clones show the same numbers.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    handlers: AtomicUsize,
    connections: AtomicUsize,
    handshakes: AtomicUsize,
}

impl Gauges {
    /// Handlers that have been called and not yet dropped, counting a handler's response stream as part of it.
    ///
    /// Zero when no call is under way; anything else after all clients have left is a leak.
    pub fn live_handlers(&self) -> usize {
        self.counts.handlers.load(Ordering::SeqCst)
    }

    /// Connections whose handshake is done and that have not ended.
    pub fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::SeqCst)
    }

    /// Connection attempts whose handshake is under way.
    pub fn handshakes(&self) -> usize {
        self.counts.handshakes.load(Ordering::SeqCst)
    }

    pub(crate) fn handler(&self) -> Counted {
        Counted::new(self, |counts| &counts.handlers)
    }

    pub(crate) fn connection(&self) -> Counted {
        Counted::new(self, |counts| &counts.connections)
    }

    pub(crate) fn handshake(&self) -> Counted {
        Counted::new(self, |counts| &counts.handshakes)
    }
}

/// One thing counted, until dropped.
pub(crate) struct Counted {
    counts: Arc<Counts>,
    which: fn(&Counts) -> &AtomicUsize,
}

impl Counted {
    fn new(gauges: &Gauges, which: fn(&Counts) -> &AtomicUsize) -> Counted {
        which(&gauges.counts).fetch_add(1, Ordering::SeqCst);
        Counted { counts: gauges.counts.clone(), which }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.which)(&self.counts).fetch_sub(1, Ordering::SeqCst);
    }
}
