//! Lets events happen, at a rate or all at once, and waits until every watcher was told.

use std::{ops::Range, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};

use super::{actors::Actors, cli::Watch, progress::Teller, report::grouped, tally::Schedule, watchers::Watchers};
use crate::failure::Failure;

/// What comes is looked at so often while it is waited for.
const LOOKED: Duration = Duration::from_millis(5);

/// When nothing came for so long, nothing more will.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// How long watchers may take to have the present state.
const SYNC_TIME_MAX: Duration = Duration::from_secs(120);

/// Those who act, and those who are told.
pub(super) struct Pace<'a> {
    pub(super) name: &'a str,
    pub(super) options: &'a Watch,
    pub(super) watchers: &'a Watchers,
    pub(super) actors: &'a Actors,
    pub(super) schedule: &'a Schedule,
    pub(super) teller: &'a Teller,
}

impl Pace<'_> {
    /// All at once.
    pub(super) async fn burst(&self, events: Range<usize>) -> Result<(), Failure> {
        let end = events.end;
        events.for_each(|event| self.actors.act(self.schedule, event));
        self.wait_for(end).await
    }

    /// At the rate that was asked for.
    pub(super) async fn steady(&self, events: Range<usize>) -> Result<(), Failure> {
        let began = Instant::now();
        for (number, event) in events.enumerate() {
            sleep_until(began + Duration::from_secs_f64(number as f64 / self.options.rate)).await;
            self.broken()?;
            self.actors.act(self.schedule, event);
            let all = self.schedule.events();
            self.teller.tell(|| format!("{}: {event} of {all} changes, {} told", self.name, grouped(self.told())));
        }
        Ok(())
    }

    /// Until every watcher was told the events before this one, or nothing comes any more.
    pub(super) async fn wait_for(&self, events: usize) -> Result<(), Failure> {
        let (mut last, mut since) = (self.told(), Instant::now());
        while self.told() < (events * self.options.watchers) as u64 || self.actors.done() < events {
            self.broken()?;
            if self.told() != last {
                (last, since) = (self.told(), Instant::now());
            }
            if since.elapsed() >= SILENCE_MAX {
                break;
            }
            self.teller.tell(|| format!("{}: {} changes told", self.name, grouped(self.told())));
            sleep(LOOKED).await;
        }
        Ok(())
    }

    /// Until all watchers have the present state.
    pub(super) async fn wait_synced(&self) -> Result<(), Failure> {
        wait_synced(self.name, self.options.watchers, self.watchers, self.teller).await
    }

    fn told(&self) -> u64 {
        self.watchers.told()
    }

    fn broken(&self) -> Result<(), Failure> {
        self.watchers.failure().or_else(|| self.actors.failure()).map_or(Ok(()), Err)
    }
}

/// Waits until so many watchers have the present state.
pub(super) async fn wait_synced(name: &str, all: usize, watchers: &Watchers, teller: &Teller) -> Result<(), Failure> {
    let synced = || watchers.synced();
    let deadline = Instant::now() + SYNC_TIME_MAX;
    while synced() < all {
        watchers.failure().map_or(Ok(()), Err)?;
        if Instant::now() >= deadline {
            return Err(Failure::failed(format!("only {} of {all} watchers have the present state", synced())));
        }
        teller.tell(|| format!("{name}: {} of {all} watchers have the present state", synced()));
        sleep(LOOKED).await;
    }
    Ok(())
}
