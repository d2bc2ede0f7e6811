//! Keys as they are seen in the directory: verified and pinned in the background, loud only where one contradicts its pin.
//!
//! Seeing early narrows the time in which a first key could be exchanged unnoticed. A sighting that is dropped under
//! load costs nothing but that: every key is judged again when it is used.

use std::{sync::Arc, thread};

use socp::{id::StatementHash, message::Address, v1::SignedKeyStatement};
use tokio::sync::mpsc;

use crate::{directory::Entry, failure::Failure, session::Account};

/// Sightings waiting to be judged.
const WAITING_MAX: usize = 4_096;

/// Contradictions waiting to be told.
const CONTRADICTIONS_MAX: usize = 64;

/// The background thread's two ends.
pub struct Sightings {
    seen: mpsc::Sender<(Address, StatementHash, SignedKeyStatement)>,
    contradictions: mpsc::Receiver<(Address, Failure)>,
}

impl Sightings {
    /// Starts the thread; it ends when this is dropped.
    pub fn start(account: Arc<Account>) -> Result<Self, Failure> {
        let (seen, mut waiting) = mpsc::channel(WAITING_MAX);
        let (tell, contradictions) = mpsc::channel(CONTRADICTIONS_MAX);
        let judge = move || {
            while let Some((user, named, statement)) = waiting.blocking_recv() {
                if let Err(failure) = account.trust.judge(&user, named, &statement) {
                    let _ = tell.try_send((user, failure));
                }
            }
        };
        let started = thread::Builder::new().name("sightings".into()).spawn(judge);
        started.map_err(|error| Failure::failed(format!("cannot start a thread: {error}")))?;
        Ok(Self { seen, contradictions })
    }

    /// Notes the key of an entry.
    pub fn note(&self, entry: &Entry) {
        if let Some(statement) = &entry.wire.key_statement {
            let _ = self.seen.try_send((entry.address.clone(), entry.statement, statement.clone()));
        }
    }

    /// Waits for a key that contradicts its pin, or is not a key; cancelling loses nothing.
    pub async fn next(&mut self) -> Option<(Address, Failure)> {
        self.contradictions.recv().await
    }
}
