//! What is under way, on standard error: one line that is drawn anew on a terminal, else a line now and then.

use std::{
    io::{IsTerminal as _, Write as _, stderr},
    sync::Mutex,
    time::{Duration, Instant},
};

/// How often the line is drawn anew on a terminal.
const REDRAWN: Duration = Duration::from_millis(200);

/// How often a line is written elsewhere.
const WRITTEN: Duration = Duration::from_secs(5);

/// Tells how far a run is.
#[derive(Debug)]
pub struct Teller {
    terminal: bool,
    told: Mutex<Option<Instant>>,
}

impl Default for Teller {
    fn default() -> Self {
        Self { terminal: stderr().is_terminal(), told: Mutex::default() }
    }
}

impl Teller {
    /// Tells it, unless something was told a moment ago.
    pub fn tell(&self, line: impl FnOnce() -> String) {
        let every = if self.terminal { REDRAWN } else { WRITTEN };
        let Ok(mut told) = self.told.lock() else { return };
        if told.is_some_and(|told| told.elapsed() < every) {
            return;
        }
        *told = Some(Instant::now());
        // Whoever closed standard error wants no more of it.
        let _ = if self.terminal { write!(stderr(), "\r\x1b[K{}", line()) } else { writeln!(stderr(), "{}", line()) };
    }

    /// Tells which processes have the watchers, if others do than this one.
    pub fn tell_processes(&self, processes: &[u32]) {
        if !processes.is_empty() {
            self.done();
            let ids: Vec<_> = processes.iter().map(u32::to_string).collect();
            let _ = writeln!(stderr(), "watching by {} processes: {}", ids.len(), ids.join(" "));
        }
    }

    /// Wipes the line away, before something else is written.
    pub fn done(&self) {
        if self.terminal {
            let _ = write!(stderr(), "\r\x1b[K");
        }
        if let Ok(mut told) = self.told.lock() {
            *told = None;
        }
    }
}
