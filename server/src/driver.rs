//! The mirror of the core: one owner of the node, one loop, one `match` over what the node wants done, no decision.

use std::sync::Arc;

use socp::{
    input::Request,
    node::Node,
    output::{Answer, Record},
    rejection::Rejection,
};

use crate::{federation::Dialler, hub::Hub};

/// Makes records durable; returns when they are on disk. May block: it runs on the driver's own thread.
pub type Storage = Box<dyn FnMut(&Record) -> Result<(), StorageError> + Send>;

/// What a store failed with, path and cause in its text.
pub type StorageError = Box<dyn std::error::Error + Send + Sync>;

/// All that a driver carries outputs out with.
pub struct Shell {
    /// Where records go.
    pub storage: Storage,
    /// Where published revisions go.
    pub hub: Hub,
    /// Who dials peers.
    pub dialler: Dialler,
}

/// Starts the driver of a node on a thread of its own. To be called in a tokio runtime, which must outlive it.
pub fn start(node: Node, shell: Shell) -> std::io::Result<(Handle, Running)> {
    let _ = (node, shell);
    todo!()
}

/// Asks the node. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    counters: Arc<Counters>,
}

impl Handle {
    /// Asks the node and waits for its answer. A full queue is waited for.
    pub async fn call(&self, request: Request) -> Result<Answer, Rejection> {
        let _ = request;
        todo!()
    }

    /// Says goodbye to peers and clients; returns when all links are closed, or after [`crate::limits::DRAIN_MS_MAX`].
    pub async fn drain(&self) {
        todo!()
    }

    /// Ends the driver; every later call is refused. To be called after [`Handle::drain`].
    pub async fn stop(&self) {
        todo!()
    }

    /// What was counted so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

/// What the driver has counted since its start, for metrics.
#[derive(Debug, Default)]
pub struct Counters {}

/// The running driver.
pub struct Running {}

impl Running {
    /// Waits for the driver's end: `Ok` after [`Handle::stop`].
    pub async fn ended(self) -> Result<(), DriverError> {
        todo!()
    }
}

/// Why a driver ended by itself. The server must stop: what it shows and what is on disk are no longer the same.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// A record could not be made durable. Nothing that depends on it was told to anybody.
    #[error("the store failed, so the server stops rather than promise what is not on disk")]
    Store(#[source] StorageError),
    /// A bug of ours: the driver's thread panicked.
    #[error("the driver's thread panicked; this is a bug")]
    Panicked,
}
