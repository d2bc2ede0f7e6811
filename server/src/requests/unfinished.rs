//! The account of what unfinished requests hold: by connection, and by age.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Waker,
};

use futures_util::task::AtomicWaker;
use socp::rejection::Rejection;

use super::{Broken, LIMIT_NAMES, Limits};

/// The account. Requests are in it only while they wait for more, or once they are large.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    limits: Limits,
    entries: Mutex<Entries>,
    broken: [AtomicU64; LIMIT_NAMES.len()],
}

#[derive(Debug, Default)]
struct Entries {
    /// Of all.
    bytes: usize,
    /// Of each connection that holds some.
    connections: HashMap<u64, usize>,
    /// By number, which is by age.
    small: BTreeMap<u64, Entry>,
    large: BTreeMap<u64, Entry>,
    last: u64,
}

#[derive(Debug)]
struct Entry {
    connection: u64,
    bytes: usize,
    end: Arc<End>,
}

/// How a request learns that it had to make room.
#[derive(Debug, Default)]
struct End {
    is_over: AtomicBool,
    reader: AtomicWaker,
}

impl Unfinished {
    #[cfg(test)]
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    pub(super) fn broken(&self) -> [u64; LIMIT_NAMES.len()] {
        self.broken.each_ref().map(|broken| broken.load(Ordering::Relaxed))
    }

    /// Counts a request that is broken off; gives what its client is told.
    pub(super) fn breaks(&self, broken: Broken) -> Rejection {
        self.broken[broken as usize].fetch_add(1, Ordering::Relaxed);
        broken.rejection(&self.limits)
    }

    /// Begins to count for a request, which holds nothing yet.
    pub(super) fn hold(this: &Arc<Self>, connection: u64) -> Held {
        let end = Arc::<End>::default();
        let mut entries = this.lock();
        entries.last += 1;
        let number = entries.last;
        entries.small.insert(number, Entry { connection, bytes: 0, end: Arc::clone(&end) });
        drop(entries);
        Held { unfinished: Arc::clone(this), number, end }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.small.remove(&number).or_else(|| self.large.remove(&number))?;
        self.bytes -= entry.bytes;
        if let Some(bytes) = self.connections.get_mut(&entry.connection) {
            *bytes -= entry.bytes;
            if *bytes == 0 {
                self.connections.remove(&entry.connection);
            }
        }
        Some(entry)
    }

    /// Adds to a request that is in one of the two maps.
    fn add(&mut self, number: u64, more: usize, limits: &Limits) -> Result<(), Broken> {
        // One that is in neither had to make room.
        let mut entry = self.remove(number).ok_or(Broken::Server)?;
        let connection = self.connections.get(&entry.connection).copied().unwrap_or_default();
        entry.bytes += more;
        if connection + entry.bytes > limits.connection_bytes {
            return Err(Broken::Connection);
        }
        self.bytes += entry.bytes;
        if entry.bytes > 0 {
            *self.connections.entry(entry.connection).or_default() += entry.bytes;
        }
        let of_its_size = if entry.bytes > limits.small_bytes { &mut self.large } else { &mut self.small };
        of_its_size.insert(number, entry);
        Ok(())
    }

    /// Takes out the oldest of the large ones, or of the small ones, until there is room.
    fn make_room(&mut self, limits: &Limits) -> Vec<Arc<End>> {
        let mut ended = Vec::new();
        while self.bytes > limits.bytes {
            let oldest = self.large.keys().next().or_else(|| self.small.keys().next());
            let oldest = *oldest.expect("somebody holds the bytes");
            ended.extend(self.remove(oldest).map(|entry| entry.end));
        }
        ended
    }
}

/// What one request holds, until dropped.
#[derive(Debug)]
pub(super) struct Held {
    unfinished: Arc<Unfinished>,
    number: u64,
    end: Arc<End>,
}

impl Held {
    /// Counts more bytes. Others may have to make room for them, or this one.
    pub(super) fn add(&self, bytes: usize) -> Result<(), Broken> {
        let mut entries = self.unfinished.lock();
        entries.add(self.number, bytes, &self.unfinished.limits)?;
        let ended = entries.make_room(&self.unfinished.limits);
        drop(entries);
        for end in ended {
            end.is_over.store(true, Ordering::Release);
            end.reader.wake();
        }
        self.over()
    }

    /// Has the reader woken when the request must make room.
    pub(super) fn wake(&self, reader: &Waker) -> Result<(), Broken> {
        self.end.reader.register(reader);
        self.over()
    }

    fn over(&self) -> Result<(), Broken> {
        match self.end.is_over.load(Ordering::Acquire) {
            true => Err(Broken::Server),
            false => Ok(()),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.unfinished.lock().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { time: std::time::Duration::ZERO, connection_bytes: 100, bytes: 250, small_bytes: 10 };

    fn holding(unfinished: &Arc<Unfinished>, connection: u64, bytes: usize) -> Held {
        let held = Unfinished::hold(unfinished, connection);
        held.add(bytes).unwrap();
        held
    }

    #[test]
    fn a_connection_may_hold_so_much_and_not_a_byte_more_and_others_as_much() {
        let unfinished = Arc::new(Unfinished::new(LIMITS));
        let (one, other) = (holding(&unfinished, 1, 60), holding(&unfinished, 1, 40));
        assert_eq!(unfinished.bytes(), 100);
        assert_eq!(other.add(1), Err(Broken::Connection));
        assert_eq!(Unfinished::hold(&unfinished, 1).add(41), Err(Broken::Connection));
        // It is refused as a whole, so what it held is free.
        assert_eq!((unfinished.bytes(), one.add(40)), (60, Ok(())));
        let elsewhere = holding(&unfinished, 2, 100);
        drop((one, other, elsewhere));
        assert_eq!(unfinished.bytes(), 0);
        let entries = unfinished.lock();
        assert!(entries.connections.is_empty() && entries.small.is_empty() && entries.large.is_empty());
    }

    #[test]
    fn when_all_is_spent_the_oldest_large_one_makes_room_and_small_ones_only_after_them() {
        let unfinished = Arc::new(Unfinished::new(LIMITS));
        let small: Vec<Held> = (1..=5).map(|connection| holding(&unfinished, connection, 10)).collect();
        let large: Vec<Held> = (11..=12).map(|connection| holding(&unfinished, connection, 100)).collect();
        assert_eq!(unfinished.bytes(), 250);
        // At the limit nobody has to go; past it by a byte, the oldest large one does, whoever brings the byte.
        let byte = holding(&unfinished, 6, 1);
        assert_eq!((large[0].over(), large[1].over()), (Err(Broken::Server), Ok(())));
        assert_eq!(large[0].add(1), Err(Broken::Server));
        assert_eq!(unfinished.bytes(), 151);
        // The newcomer may be the oldest large one itself.
        let again = holding(&unfinished, 13, 99);
        assert_eq!(unfinished.bytes(), 250);
        let grown = Unfinished::hold(&unfinished, 14);
        assert_eq!((grown.add(10), large[1].over(), again.over()), (Ok(()), Err(Broken::Server), Ok(())));
        // Small ones alone can spend it all: then the oldest of them goes.
        drop((again, grown, byte));
        let more: Vec<Held> = (100..120).map(|connection| holding(&unfinished, connection, 10)).collect();
        assert!(small.iter().chain(&more).all(|held| held.over().is_ok()));
        let one_more = holding(&unfinished, 200, 1);
        assert_eq!((small[0].over(), small[1].over(), one_more.over()), (Err(Broken::Server), Ok(()), Ok(())));
        drop((small, large, more, one_more));
        assert_eq!(unfinished.bytes(), 0);
    }

    #[test]
    fn one_that_is_alone_and_larger_than_all_there_is_makes_room_for_nobody() {
        let limits = Limits { connection_bytes: 1_000, ..LIMITS };
        let unfinished = Arc::new(Unfinished::new(limits));
        let held = holding(&unfinished, 1, 250);
        assert_eq!((held.add(1), unfinished.bytes()), (Err(Broken::Server), 0));
    }
}
