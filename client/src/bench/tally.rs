//! What is to happen, and what each watcher was told of it: counted one by one, with the time it took.
//!
//! Users come and go by turns: event `n` is of actor `n % actors`, who comes in even turns and goes in odd ones. So a watcher
//! needs one counter for each actor to know which event a change is, and whether one was missed or told twice.

use std::{io, path::Path};

use hdrhistogram::Histogram;

use super::{
    delta::{Change, Happening},
    moments::Moments,
};

/// Times are counted up to a minute; what takes longer counts as one.
const TIME_NS_MAX: u64 = 60_000_000_000;

/// An empty histogram of nanoseconds, exact to a thousandth.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, TIME_NS_MAX, 3).expect("the bounds are in order")
}

/// All events of a run, with the moment that each began.
#[derive(Debug)]
pub struct Schedule {
    actors: usize,
    prefix: String,
    moments: Moments,
    /// Events of a slice, where every other slice is disturbed; 0 for none.
    slice: usize,
}

impl Schedule {
    /// So many events of so many actors, whose names are a prefix and a number.
    pub fn new(prefix: &str, actors: usize, events: usize) -> Self {
        Self::of_moments(prefix, actors, Moments::new(events))
    }

    /// The same, whose moments are there.
    pub fn of_moments(prefix: &str, actors: usize, moments: Moments) -> Self {
        Self { actors: actors.max(1), prefix: prefix.to_owned(), moments, slice: 0 }
    }

    /// Writes to a new file when events begin, for other processes.
    pub fn share(&self, path: &Path) -> io::Result<()> {
        self.moments.share(path)
    }

    /// What the names of actors begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Events of a slice; 0 for no slices.
    pub fn slice(&self) -> usize {
        self.slice
    }

    /// The same, where of each two slices of so many events the second is disturbed.
    pub fn sliced(self, slice: usize) -> Self {
        Self { slice, ..self }
    }

    /// Whether an event is in a disturbed slice.
    fn is_disturbed(&self, event: usize) -> bool {
        event.checked_div(self.slice).is_some_and(|slice| slice % 2 == 1)
    }

    /// The bare name of an actor.
    pub fn name(&self, actor: usize) -> String {
        format!("{}{actor}", self.prefix)
    }

    /// Whose name it is; `None` for somebody else's.
    pub fn actor(&self, name: &[u8]) -> Option<usize> {
        let digits = name.strip_prefix(self.prefix.as_bytes())?;
        let number = digits.iter().try_fold(0_usize, |number, digit| {
            let digit = char::from(*digit).to_digit(10)?;
            number.checked_mul(10)?.checked_add(digit as usize)
        })?;
        (!digits.is_empty() && number < self.actors).then_some(number)
    }

    /// How many actors.
    pub fn actors(&self) -> usize {
        self.actors
    }

    /// How many events.
    pub fn events(&self) -> usize {
        self.moments.events()
    }

    /// Whose event it is, and whether they come.
    pub fn event(&self, event: usize) -> (usize, bool) {
        (event % self.actors, (event / self.actors).is_multiple_of(2))
    }

    /// How many events an actor has.
    fn events_of(&self, actor: usize) -> usize {
        (self.events() + self.actors - 1 - actor) / self.actors
    }

    /// Notes that an event begins now.
    pub fn begin(&self, event: usize) {
        self.moments.begin(event);
    }

    /// When it began; 0 if it has not.
    fn begun(&self, actor: usize, turn: usize) -> u64 {
        self.moments.begun(turn * self.actors + actor)
    }

    /// How many events of an actor have begun, as of the last look at all of them.
    fn turns(&self, actor: usize) -> u32 {
        let begun = (0..).take_while(|turn| self.moments.known(turn * self.actors + actor) != 0);
        u32::try_from(begun.count()).unwrap_or(u32::MAX)
    }

    /// When the first and the last of some events began.
    pub fn began(&self, events: std::ops::Range<usize>) -> (u64, u64) {
        let began = events.map(|event| self.moments.begun(event)).filter(|begun| *begun != 0);
        began.fold((u64::MAX, 0), |(first, last), begun| (first.min(begun), last.max(begun)))
    }
}

/// What one watcher has been told.
#[derive(Clone, Debug)]
pub struct Cursor {
    revision: u64,
    turns: Box<[u32]>,
}

impl Cursor {
    /// Nothing, as of the revision of the end mark.
    pub fn new(schedule: &Schedule, revision: u64) -> Self {
        Self { revision, turns: vec![0; schedule.actors].into() }
    }
}

/// What some watchers were told, together.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Nanoseconds from the beginning of each event to its being told, once for each watcher.
    pub times: Histogram<u64>,
    /// The same of events in disturbed slices.
    pub disturbed: Histogram<u64>,
    /// Changes told that were due.
    pub delivered: u64,
    /// Changes that were never told, and revisions that were passed over.
    pub missed: u64,
    /// Changes told twice, or out of order.
    pub repeated: u64,
    /// Changes of actors that no event explains.
    pub strange: u64,
    /// When the last came and the last went, by this machine's clock.
    pub last_ns: [u64; 2],
    /// Nanoseconds until each watcher that came back was in step: with a present state, and after a token.
    pub returns: [Histogram<u64>; 2],
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            times: histogram(),
            disturbed: histogram(),
            delivered: 0,
            missed: 0,
            repeated: 0,
            strange: 0,
            last_ns: [0; 2],
            returns: [histogram(), histogram()],
        }
    }
}

impl Tally {
    /// Counts a change that a watcher was told at this time. Changes of users that are no actors count by revision only.
    pub fn take(&mut self, cursor: &mut Cursor, change: &Change<'_>, now_ns: u64, schedule: &Schedule) {
        if change.revision < cursor.revision {
            self.repeated += 1;
            return;
        }
        self.missed += (change.revision - cursor.revision).saturating_sub(1);
        let is_later = change.revision > cursor.revision;
        cursor.revision = change.revision;
        let Some(actor) = schedule.actor(change.name) else { return };
        let turn = &mut cursor.turns[actor];
        let comes = match change.happening {
            Happening::Added => true,
            Happening::Removed => false,
            Happening::Updated => return,
        };
        if turn.is_multiple_of(2) != comes {
            if !is_later {
                self.repeated += 1;
                return;
            }
            self.missed += 1;
            *turn += 1;
        }
        let begun = schedule.begun(actor, *turn as usize);
        let is_disturbed = schedule.is_disturbed(*turn as usize * schedule.actors + actor);
        *turn += 1;
        if begun == 0 {
            self.strange += 1;
            return;
        }
        self.delivered += 1;
        let times = if is_disturbed { &mut self.disturbed } else { &mut self.times };
        times.saturating_record(now_ns.saturating_sub(begun).max(1));
        let last = &mut self.last_ns[usize::from(!comes)];
        *last = now_ns.max(*last);
    }

    /// Compares a whole present state with what has happened so far: who should be in it and is not, or is and should not, is
    /// missed. `None` if somebody is in it of whom nothing has happened yet.
    pub fn arrive(&mut self, present: &[usize], revision: u64, schedule: &Schedule) -> Option<Cursor> {
        schedule.moments.refresh();
        let mut cursor = Cursor::new(schedule, revision);
        let mut is_present = vec![false; schedule.actors];
        present.iter().for_each(|actor| is_present[*actor] = true);
        for (actor, turn) in cursor.turns.iter_mut().enumerate() {
            *turn = schedule.turns(actor);
            if *turn == 0 && is_present[actor] {
                return None;
            }
            self.missed += u64::from(turn.is_multiple_of(2) == is_present[actor]);
        }
        Some(cursor)
    }

    /// Counts what a watcher was not told, once everything has happened.
    pub fn close(&mut self, cursor: &Cursor, schedule: &Schedule) {
        for (actor, turn) in cursor.turns.iter().enumerate() {
            self.missed += (schedule.events_of(actor) as u64).saturating_sub(u64::from(*turn));
        }
    }

    /// Adds what others were told.
    pub fn add(&mut self, other: &Self) {
        for (times, other) in [(&mut self.times, &other.times), (&mut self.disturbed, &other.disturbed)] {
            times.add(other).expect("all histograms have the same bounds");
        }
        for (returns, other) in self.returns.iter_mut().zip(&other.returns) {
            returns.add(other).expect("all histograms have the same bounds");
        }
        self.delivered += other.delivered;
        self.missed += other.missed;
        self.repeated += other.repeated;
        self.strange += other.strange;
        for (last, other) in self.last_ns.iter_mut().zip(other.last_ns) {
            *last = other.max(*last);
        }
    }

    /// Whether each watcher was told each change once.
    pub fn is_whole(&self) -> bool {
        (self.missed, self.repeated, self.strange) == (0, 0, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::clock, *};

    fn change(revision: u64, happening: Happening, name: &'static str) -> Change<'static> {
        Change { revision, happening, name: name.as_bytes() }
    }

    /// Two actors, who come and go once each, and what one watcher is told from revision 10 on.
    fn told(changes: &[Change<'_>]) -> Tally {
        let schedule = Schedule::new("bench-", 2, 4);
        (0..4).for_each(|event| schedule.begin(event));
        let (mut tally, mut cursor) = (Tally::default(), Cursor::new(&schedule, 10));
        changes.iter().for_each(|change| tally.take(&mut cursor, change, clock::now_ns(), &schedule));
        tally.close(&cursor, &schedule);
        tally
    }

    fn counts(changes: &[Change<'_>]) -> (u64, u64, u64) {
        let tally = told(changes);
        assert_eq!(tally.times.len(), tally.delivered);
        assert_eq!(tally.is_whole(), tally.missed == 0 && tally.repeated == 0);
        (tally.delivered, tally.missed, tally.repeated)
    }

    use Happening::{Added, Removed, Updated};

    #[test]
    fn each_change_once_is_whole_also_with_several_in_one_revision_and_strangers_between() {
        let all = [
            change(11, Added, "bench-0"),
            change(11, Added, "bench-1"),
            change(12, Added, "alice"),
            change(13, Updated, "bench-0"),
            change(14, Removed, "bench-0"),
            change(15, Removed, "bench-1"),
        ];
        assert_eq!(counts(&all), (4, 0, 0));
    }

    #[test]
    fn what_is_not_told_is_missed() {
        let gone = [change(11, Added, "bench-0"), change(12, Added, "bench-1"), change(13, Removed, "bench-0")];
        assert_eq!(counts(&gone), (3, 1, 0), "the last one");
        let skipped = [change(11, Added, "bench-0"), change(12, Added, "bench-1"), change(14, Removed, "bench-1")];
        assert_eq!(counts(&skipped), (3, 2, 0), "a revision, and the change in it");
        let within = [change(11, Added, "bench-1"), change(12, Removed, "bench-0"), change(13, Removed, "bench-1")];
        assert_eq!(counts(&within), (3, 1, 0), "one of several in a revision");
        assert_eq!(counts(&[]), (0, 4, 0));
    }

    #[test]
    fn what_is_told_twice_or_late_is_repeated() {
        let all = [
            change(11, Added, "bench-0"),
            change(11, Added, "bench-0"),
            change(12, Added, "bench-1"),
            change(11, Added, "bench-0"),
            change(13, Removed, "bench-0"),
            change(14, Removed, "bench-1"),
            change(14, Removed, "bench-1"),
        ];
        assert_eq!(counts(&all), (4, 0, 3));
    }

    #[test]
    fn a_change_that_no_event_explains_is_told_of() {
        let schedule = Schedule::new("bench-", 2, 2);
        schedule.begin(0);
        let (mut tally, mut cursor) = (Tally::default(), Cursor::new(&schedule, 0));
        tally.take(&mut cursor, &change(1, Added, "bench-0"), clock::now_ns(), &schedule);
        tally.take(&mut cursor, &change(2, Added, "bench-1"), clock::now_ns(), &schedule);
        assert_eq!((tally.delivered, tally.strange, tally.is_whole()), (1, 1, false));
    }

    #[test]
    fn of_each_two_slices_the_second_is_disturbed() {
        let schedule = Schedule::new("bench-", 2, 4).sliced(1);
        (0..4).for_each(|event| schedule.begin(event));
        let (mut tally, mut cursor) = (Tally::default(), Cursor::new(&schedule, 10));
        let all = [change(11, Added, "bench-0"), change(12, Added, "bench-1"), change(13, Removed, "bench-0")];
        all.iter().for_each(|change| tally.take(&mut cursor, change, clock::now_ns(), &schedule));
        assert_eq!((tally.delivered, tally.times.len(), tally.disturbed.len()), (3, 2, 1));
        assert!(!Schedule::new("bench-", 2, 4).is_disturbed(3), "without slices nothing is");
    }

    #[test]
    fn actors_have_turns() {
        let schedule = Schedule::new("bench-", 3, 8);
        assert_eq!((schedule.event(2), schedule.event(3), schedule.event(6)), ((2, true), (0, false), (0, true)));
        assert_eq!((0..3).map(|actor| schedule.events_of(actor)).collect::<Vec<_>>(), [3, 3, 2]);
        let names = ["bench-2", "bench-3", "bench-", "bench-x", "alice", "bench-99999999999999999999999"];
        assert_eq!(names.map(|name| schedule.actor(name.as_bytes())), [Some(2), None, None, None, None, None]);
        assert_eq!(schedule.name(2), "bench-2");
    }

    #[test]
    fn tallies_add_up() {
        let mut one = told(&[change(11, Added, "bench-0")]);
        let other = told(&[change(11, Added, "bench-0"), change(12, Added, "bench-1")]);
        one.add(&other);
        assert_eq!((one.delivered, one.times.len()), (one.times.len(), 3));
        assert_eq!(one.last_ns, [other.last_ns[0], 0]);
    }
}
