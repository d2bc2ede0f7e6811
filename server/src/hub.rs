//! Fan-out of the directory to many watchers.

use socp::id::StartId;

/// The hub. Cheap to clone.
#[derive(Clone)]
pub struct Hub {}

impl Hub {
    /// Makes a hub for one start of the server. To be called in a tokio runtime.
    pub fn new(start: StartId) -> Self {
        let _ = start;
        todo!()
    }
}
