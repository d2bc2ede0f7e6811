//! One watcher, whichever connection it sits at: reads its messages, and goes on where it was when it comes back.

use std::fmt;

use super::{
    delta,
    tally::{Cursor, Schedule, Tally},
};

/// A watcher that cannot be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Astray {
    /// A message is not understood.
    Malformed,
    /// Somebody is online who is to come only later.
    OnlineBefore,
}

impl fmt::Display for Astray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "a message of the watch is not understood",
            Self::OnlineBefore => {
                "a user of this run is online before it begins: another run goes on, or has just ended"
            }
        })
    }
}

/// What one watcher knows.
#[derive(Debug, Default)]
pub struct Seat {
    /// Since the first end mark.
    cursor: Option<Cursor>,
    /// Actors in the present state that is being read.
    present: Vec<usize>,
    /// Where to resume; kept only where it is asked for.
    token: Vec<u8>,
    /// Whether it follows by deltas, rather than reads a present state.
    follows: bool,
    synced: bool,
}

impl Seat {
    /// Gets ready to come back: after what it knows, or with a present state. Gives the token to ask with.
    pub fn come_back(&mut self, resume: bool) -> &[u8] {
        self.present.clear();
        self.synced = false;
        self.follows = resume && self.cursor.is_some() && !self.token.is_empty();
        if self.follows { &self.token } else { &[] }
    }

    /// Takes a message; tells whether with it the watcher is in step with the server.
    pub fn take(
        &mut self,
        message: &[u8],
        now_ns: u64,
        schedule: &Schedule,
        tally: &mut Tally,
        keeps_token: bool,
    ) -> Result<bool, Astray> {
        let Self { cursor, present, follows, .. } = self;
        let marks = delta::read(message, &mut |change| match cursor.as_mut().filter(|_| *follows) {
            Some(cursor) => tally.take(cursor, &change, now_ns, schedule),
            None => present.extend(schedule.actor(change.name)),
        });
        let marks = marks.ok_or(Astray::Malformed)?;
        if let (Some(revision), false) = (marks.end, self.follows) {
            let present = std::mem::take(&mut self.present);
            self.cursor = Some(tally.arrive(&present, revision, schedule).ok_or(Astray::OnlineBefore)?);
            self.follows = true;
        }
        if let Some(token) = marks.resume_token.filter(|_| keeps_token) {
            self.token.clear();
            self.token.extend_from_slice(token);
        }
        let is_new = self.follows && !self.synced;
        self.synced |= self.follows;
        Ok(is_new)
    }

    /// Counts what it was not told, once everything has happened.
    pub fn close(&self, schedule: &Schedule, tally: &mut Tally) {
        if let Some(cursor) = &self.cursor {
            tally.close(cursor, schedule);
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use socp::v1::{
        DirectoryChange, DirectoryEntry, EndMark, RemovedEntry, WatchDirectoryResponse, directory_change::Change,
    };

    use super::*;

    fn added(revision: u64, actor: usize) -> DirectoryChange {
        let entry = DirectoryEntry { name: format!("bench-{actor}"), ..DirectoryEntry::default() };
        DirectoryChange { revision, change: Some(Change::Added(entry)) }
    }

    fn removed(revision: u64, actor: usize) -> DirectoryChange {
        let entry = RemovedEntry { name: format!("bench-{actor}"), ..RemovedEntry::default() };
        DirectoryChange { revision, change: Some(Change::Removed(entry)) }
    }

    fn message(changes: Vec<DirectoryChange>, end: Option<u64>, token: &str) -> Vec<u8> {
        let end_mark = end.map(|revision| EndMark { revision, ..EndMark::default() });
        WatchDirectoryResponse { changes, end_mark, resume_token: token.into(), ..Default::default() }.encode_to_vec()
    }

    struct Run {
        schedule: Schedule,
        tally: Tally,
        seat: Seat,
    }

    impl Run {
        /// Two actors, of whom both come and the first goes.
        fn new() -> Self {
            Self { schedule: Schedule::new("bench-", 2, 3), tally: Tally::default(), seat: Seat::default() }
        }

        fn take(&mut self, message: &[u8]) -> Result<bool, Astray> {
            self.seat.take(message, 1, &self.schedule, &mut self.tally, true)
        }

        fn counts(mut self) -> (u64, u64, u64) {
            self.seat.close(&self.schedule, &mut self.tally);
            (self.tally.delivered, self.tally.missed, self.tally.repeated + self.tally.strange)
        }
    }

    #[test]
    fn a_watcher_is_in_step_from_its_end_mark_on_and_resumes_after_its_token() {
        let mut run = Run::new();
        assert_eq!(run.take(&message(vec![], None, "")), Ok(false));
        assert_eq!(run.take(&message(vec![], Some(5), "five")), Ok(true));
        run.schedule.begin(0);
        run.schedule.begin(1);
        assert_eq!(run.take(&message(vec![added(6, 0), added(7, 1)], None, "seven")), Ok(false));
        assert_eq!(run.seat.come_back(true), b"seven");
        run.schedule.begin(2);
        assert_eq!(run.take(&message(vec![removed(8, 0)], None, "eight")), Ok(true), "by its first message");
        assert_eq!(run.counts(), (3, 0, 0));
    }

    #[test]
    fn a_present_state_is_compared_with_what_happened() {
        for (present, missed) in [(vec![added(8, 1)], 0), (vec![], 1), (vec![added(8, 0), added(8, 1)], 1)] {
            let mut run = Run::new();
            run.take(&message(vec![], Some(5), "five")).unwrap();
            (0..3).for_each(|event| run.schedule.begin(event));
            assert_eq!(run.seat.come_back(false), b"");
            assert_eq!(run.take(&message(present, None, "")), Ok(false));
            assert_eq!(run.take(&message(vec![], Some(8), "eight")), Ok(true));
            assert_eq!(run.counts(), (0, missed, 0));
        }
    }

    #[test]
    fn who_is_online_before_the_run_begins_spoils_it() {
        let mut run = Run::new();
        run.take(&message(vec![added(5, 0)], None, "")).unwrap();
        assert_eq!(run.take(&message(vec![], Some(5), "five")), Err(Astray::OnlineBefore));
        assert_eq!(run.take(&[0xff]), Err(Astray::Malformed));
    }
}
