//! What sending and receiving a file have in common: how far it is, and going on after a link broke.

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{event::Event, failure::Failure, file, printer::Printer, render};

/// A transfer that got nowhere for so long is given up: a server that is started anew is back within it, and a person asks again.
const GIVE_UP_AFTER: Duration = Duration::from_secs(120);

/// The first pause after a link broke, doubled up to the last.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How often a progress bar is drawn at most.
const DRAW_EVERY: Duration = Duration::from_millis(200);

/// Columns of the bar.
const BAR: usize = 24;

/// How many bytes were moved so far. Cheap to clone.
#[derive(Clone)]
pub struct Progress(Arc<watch::Sender<u64>>);

impl Default for Progress {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl Progress {
    /// So many bytes of the file are done.
    pub fn set(&self, bytes: u64) {
        self.0.send_replace(bytes);
    }

    /// Bytes of the file that are done.
    pub fn bytes(&self) -> u64 {
        *self.0.borrow()
    }

    /// Tells how far a file is while `work` goes on: by a bar on standard error, if that is a terminal, or with `json` by an event
    /// for each sixteenth.
    pub async fn shown<T>(&self, name: &str, total: u64, json: bool, work: impl Future<Output = T>) -> T {
        let draws = !json && io::stderr().is_terminal();
        let (begun, mut changes, mut work) = (Instant::now(), self.0.subscribe(), std::pin::pin!(work));
        let (mut drawn, mut told) = (begun, 0);
        let mut printer = Printer::new(json);
        loop {
            tokio::select! {
                biased;
                done = &mut work => {
                    if draws {
                        let _ = write!(io::stderr(), "\r\u{1b}[K");
                    }
                    return done;
                }
                Ok(()) = changes.changed() => {
                    let bytes = (*changes.borrow_and_update()).min(total);
                    let sixteenth = (16 * u128::from(bytes)).checked_div(total.into()).unwrap_or(16);
                    if json && sixteenth > told {
                        told = sixteenth;
                        printer.print(&Event::FileProgress { bytes, of: total });
                    }
                    if draws && drawn.elapsed() >= DRAW_EVERY {
                        drawn = Instant::now();
                        let line = bar(name, bytes, total, begun.elapsed());
                        // Whoever closed the terminal wants no bar.
                        let _ = write!(io::stderr(), "\r\u{1b}[K{line}");
                    }
                }
            }
        }
    }
}

/// One line that tells how far a file is.
fn bar(name: &str, done: u64, total: u64, elapsed: Duration) -> String {
    let done = done.min(total);
    let part = if total == 0 { 1.0 } else { done as f64 / total as f64 };
    let filled = (part * BAR as f64) as usize;
    let speed = done as f64 / elapsed.as_secs_f64().max(0.001);
    let name: String = render::clean(name).chars().take(30).collect();
    format!(
        "{name} [{}{}] {:>3.0} % of {}, {}/s",
        "#".repeat(filled),
        "-".repeat(BAR - filled),
        part * 100.0,
        file::size(total),
        file::size(speed as u64)
    )
}

/// When a transfer goes on, and when it is given up.
pub struct Patience {
    progress: Progress,
    /// How far it was, and since when it is no further.
    stuck: (u64, Instant),
    pause: Duration,
}

impl Patience {
    /// Begins now.
    pub fn new(progress: Progress) -> Self {
        Self { stuck: (progress.bytes(), Instant::now()), progress, pause: PAUSE_MIN }
    }

    /// Waits before the next attempt, or gives the failure back if another one makes no sense.
    pub async fn wait(&mut self, failure: Failure) -> Result<(), Failure> {
        if !failure.passing {
            return Err(failure);
        }
        let bytes = self.progress.bytes();
        if bytes > self.stuck.0 {
            self.stuck = (bytes, Instant::now());
            self.pause = PAUSE_MIN;
        } else if self.stuck.1.elapsed() >= GIVE_UP_AFTER {
            return Err(failure);
        }
        tracing::info!(%failure, bytes, "a transfer goes on after a pause");
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_tells_how_far_it_is() {
        let second = Duration::from_secs(1);
        let told = bar("a.txt", 1 << 20, 2 << 20, second);
        assert_eq!(told, "a.txt [############------------]  50 % of 2.0 MiB, 1.0 MiB/s");
        assert!(bar("", 0, 0, second).contains("100 %"));
        assert!(bar("a\u{1b}b", 3, 2, second).starts_with("ab [########################]"));
    }

    #[tokio::test]
    async fn what_does_not_pass_is_not_tried_again() {
        let mut patience = Patience::new(Progress::default());
        patience.wait(Failure::unreachable("gone")).await.unwrap();
        patience.wait(Failure::refused("FILES_FULL", "no room")).await.unwrap_err();
    }
}
