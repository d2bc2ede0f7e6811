//! When each event of a run began, for all processes whose watchers are told of it: in memory, and in a file where there are
//! several.
//!
//! The process that lets things happen writes a moment before it sends the call, so whoever is told of the event finds it in the
//! file, without a message that could come too late. All moments are of one clock, see [`clock`].

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use super::clock;
use crate::private_file;

/// Bytes of a moment in the file.
const BYTES: usize = 8;

/// Moments that are read at once.
const READ_AT_ONCE: usize = 1024;

/// The moments of so many events; 0 is none yet.
#[derive(Debug)]
pub struct Moments {
    begun: Box<[AtomicU64]>,
    file: OnceLock<Shared>,
}

#[derive(Debug)]
enum Shared {
    /// Written by this process.
    Written(File),
    /// Written by another.
    Read(File),
}

impl Moments {
    /// Of so many events, none of which has begun.
    pub fn new(events: usize) -> Self {
        Self { begun: (0..events).map(|_| AtomicU64::new(0)).collect(), file: OnceLock::new() }
    }

    /// Those that another process writes.
    pub fn read(path: &Path, events: usize) -> io::Result<Self> {
        let moments = Self::new(events);
        let _ = moments.file.set(Shared::Read(File::open(path)?));
        Ok(moments)
    }

    /// Writes them to a new file from now on, for others to read. No event may have begun.
    pub fn share(&self, path: &Path) -> io::Result<()> {
        let file = private_file::options().write(true).create_new(true).open(path)?;
        file.set_len((self.begun.len() * BYTES) as u64)?;
        self.file.set(Shared::Written(file)).map_err(|_| io::Error::other("the moments are in a file already"))
    }

    /// How many events.
    pub fn events(&self) -> usize {
        self.begun.len()
    }

    /// Notes that an event begins now.
    pub fn begin(&self, event: usize) {
        let now_ns = clock::now_ns();
        self.begun[event].store(now_ns, Ordering::Release);
        if let Some(Shared::Written(file)) = self.file.get() {
            // What is not in the file shows: it is counted as a change that no event explains.
            let _ = file.write_all_at(&now_ns.to_ne_bytes(), (event * BYTES) as u64);
        }
    }

    /// When an event began; 0 if it has not, or if there is no such event.
    pub fn begun(&self, event: usize) -> u64 {
        let Some(begun) = self.begun.get(event) else { return 0 };
        match (begun.load(Ordering::Acquire), self.file.get()) {
            (0, Some(Shared::Read(file))) => {
                let mut bytes = [0; BYTES];
                // What cannot be read has not begun, which shows.
                let _ = file.read_exact_at(&mut bytes, (event * BYTES) as u64);
                let now_ns = u64::from_ne_bytes(bytes);
                begun.store(now_ns, Ordering::Release);
                now_ns
            }
            (begun, _) => begun,
        }
    }

    /// The same as of the last [`Self::refresh`] or later, which costs no look into the file.
    pub fn known(&self, event: usize) -> u64 {
        self.begun.get(event).map_or(0, |begun| begun.load(Ordering::Acquire))
    }

    /// Reads anew which events have begun, up to where none has for long: they begin in order, but for a few.
    pub fn refresh(&self) {
        let Some(Shared::Read(file)) = self.file.get() else { return };
        let mut bytes = [0; READ_AT_ONCE * BYTES];
        for (place, part) in self.begun.chunks(READ_AT_ONCE).enumerate() {
            let bytes = &mut bytes[..part.len() * BYTES];
            if file.read_exact_at(bytes, (place * READ_AT_ONCE * BYTES) as u64).is_err() {
                return;
            }
            let mut any = false;
            for (begun, bytes) in part.iter().zip(bytes.as_chunks().0) {
                let now_ns = u64::from_ne_bytes(*bytes);
                begun.store(now_ns, Ordering::Release);
                any |= now_ns != 0;
            }
            if !any {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_reads_when_events_began() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("begun");
        let own = Moments::new(READ_AT_ONCE + 2);
        own.share(&path).unwrap();
        assert!(own.share(&path).is_err(), "the file is there");
        let others = Moments::read(&path, own.events()).unwrap();
        assert_eq!((others.begun(0), others.begun(READ_AT_ONCE + 1), others.begun(own.events())), (0, 0, 0));
        own.begin(0);
        own.begin(READ_AT_ONCE);
        assert_ne!(own.begun(0), 0);
        assert_eq!(others.known(0), 0, "it was not looked for");
        assert_eq!(others.begun(0), own.begun(0));
        others.refresh();
        assert_eq!(others.known(READ_AT_ONCE), own.begun(READ_AT_ONCE));
        assert_eq!((others.known(1), others.known(READ_AT_ONCE + 1)), (0, 0));
    }

    #[test]
    fn moments_of_one_process_need_no_file() {
        let moments = Moments::new(2);
        moments.begin(1);
        moments.refresh();
        assert_eq!((moments.begun(0), moments.begun(1) != 0, moments.known(1) != 0), (0, true, true));
    }
}
