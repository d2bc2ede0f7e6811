//! The threads that write and read the disk, so that the driver waits for neither.
//!
//! Records are written in the order in which they came, and all that wait are written together: while one commit is on its
//! way to the disk the next one gathers, so many senders share one fsync. The driver is told of the last that is there.
//! Reads have a thread of their own and do not hold writes up.

use std::{
    io,
    sync::{Arc, Weak, atomic::Ordering, mpsc as jobs},
    thread::{self, JoinHandle},
    time::Instant,
};

use socp::{
    channel::KeyName,
    inbox::Stored,
    input::{AttachmentId, Input, WriteId},
    name::UserName,
    output::Record,
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    driver::Counters,
    limits::{COMMIT_RECORDS_MAX, PAGES_MAX, RECORDS_MAX},
    storage::{Pages, Storage, StorageError},
};

/// Something to be written.
struct Job {
    record: Record,
    then: Then,
}

/// Who is told that it is on disk.
enum Then {
    /// The node.
    Written(WriteId),
    /// The driver, which waits.
    Stored(jobs::SyncSender<()>),
}

/// The disk takes nothing more; why is among the [`Reports`].
#[derive(Debug, PartialEq, Eq)]
pub struct Failed;

/// Something to be read.
pub enum Read {
    /// Entries of an inbox, for a stream.
    Entries {
        /// Which.
        attachment: AttachmentId,
        /// Whose inbox.
        user: UserName,
        /// After which position.
        after: u64,
    },
    /// Posts of the channel's log, for a stream.
    Posts {
        /// Which.
        attachment: AttachmentId,
        /// Whose it is.
        user: UserName,
        /// Which posts.
        positions: Vec<u64>,
    },
    /// Entries of an inbox, for a call that waits for them.
    EntriesForCall {
        /// The call.
        call: oneshot::Sender<Vec<Stored>>,
        /// Whose inbox.
        user: UserName,
        /// After which position.
        after: u64,
    },
    /// A channel key, for a call that waits for it.
    ChannelKey {
        /// The call.
        call: oneshot::Sender<Option<Vec<u8>>>,
        /// Whose copy.
        user: UserName,
        /// Which key.
        key: KeyName,
    },
}

/// What the threads have to say.
pub struct Reports {
    /// The last record that is on disk.
    pub written: watch::Receiver<Option<WriteId>>,
    /// What was read for streams.
    pub pages: mpsc::Receiver<Input>,
    /// What made the disk unusable. Nothing is written after it.
    pub failed: mpsc::Receiver<StorageError>,
}

/// The way to both threads. Dropping it writes what is waiting, and returns when that is done.
pub struct Disk {
    /// `None` only while dropping.
    jobs: Option<jobs::SyncSender<Job>>,
    reads: Option<Arc<jobs::Sender<Read>>>,
    threads: Vec<JoinHandle<()>>,
}

/// Starts both threads. Commits are counted and timed.
pub fn start(storage: Box<dyn Storage>, pages: Box<dyn Pages>, counters: Arc<Counters>) -> io::Result<(Disk, Reports)> {
    let (jobs, queue) = jobs::sync_channel(RECORDS_MAX);
    let (reads, wanted) = jobs::channel();
    let (progress, written) = watch::channel(None);
    let (failures, failed) = mpsc::channel(2);
    let (read, taken) = mpsc::channel(PAGES_MAX);
    let failing = failures.clone();
    let writer = thread::Builder::new()
        .name("disk writes".to_owned())
        .spawn(move || write(storage, &queue, &progress, &failing, &counters))?;
    let reader = thread::Builder::new()
        .name("disk reads".to_owned())
        .spawn(move || drop(read_pages(pages, &wanted, &read).map_err(|error| failures.try_send(error))))?;
    let disk = Disk { jobs: Some(jobs), reads: Some(Arc::new(reads)), threads: vec![reader, writer] };
    Ok((disk, Reports { written, pages: taken, failed }))
}

impl Disk {
    /// Has a record written with others. Waits only while more of them wait than the node gives out.
    pub fn write(&self, write: WriteId, record: Record) {
        self.give(Job { record, then: Then::Written(write) });
    }

    /// Has a record written, and waits until it is on disk.
    pub fn store(&self, record: Record) -> Result<(), Failed> {
        let (done, stored) = jobs::sync_channel(1);
        self.give(Job { record, then: Then::Stored(done) });
        stored.recv().map_err(|_| Failed)
    }

    /// Where reads are asked for, as long as the disk is there.
    pub fn reads(&self) -> Weak<jobs::Sender<Read>> {
        self.reads.as_ref().map(Arc::downgrade).expect("it is open until it is dropped")
    }

    fn give(&self, job: Job) {
        // A writer that is gone has reported why.
        let _ = self.jobs.as_ref().expect("it is open until it is dropped").send(job);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.jobs = None;
        self.reads = None;
        for thread in self.threads.drain(..) {
            // It reported a failure; a panic is in the log.
            let _ = thread.join();
        }
    }
}

fn write(
    mut storage: Box<dyn Storage>,
    queue: &jobs::Receiver<Job>,
    progress: &watch::Sender<Option<WriteId>>,
    failures: &mpsc::Sender<StorageError>,
    counters: &Counters,
) {
    while let Ok(first) = queue.recv() {
        let more = queue.try_iter().take(COMMIT_RECORDS_MAX - 1);
        let (records, then): (Vec<Record>, Vec<Then>) =
            std::iter::once(first).chain(more).map(|job| (job.record, job.then)).unzip();
        let begun = Instant::now();
        let stored = storage.commit(&records);
        counters.commits.record(begun.elapsed(), 1);
        counters.records.fetch_add(records.len() as u64, Ordering::Relaxed);
        if let Err(error) = stored {
            // Before who waits learns that it failed.
            let _ = failures.try_send(error);
            return;
        }
        let mut last = None;
        for then in then {
            match then {
                Then::Written(write) => last = last.max(Some(write)),
                // It waits until then.
                Then::Stored(done) => drop(done.send(())),
            }
        }
        if last.is_some() {
            progress.send_replace(last);
        }
        if let Err(error) = storage.settle() {
            let _ = failures.try_send(error);
            return;
        }
    }
}

fn read_pages(
    pages: Box<dyn Pages>,
    wanted: &jobs::Receiver<Read>,
    for_node: &mpsc::Sender<Input>,
) -> Result<(), StorageError> {
    while let Ok(read) = wanted.recv() {
        let input = match read {
            Read::Entries { attachment, user, after } => {
                Input::Replayed { attachment, page: pages.page(&user, after)? }
            }
            Read::Posts { attachment, user, positions } => {
                Input::PostsReplayed { attachment, page: pages.posts(&user, &positions)? }
            }
            // A caller that went away is fine.
            Read::EntriesForCall { call, user, after } => {
                drop(call.send(pages.page(&user, after)?));
                continue;
            }
            Read::ChannelKey { call, user, key } => {
                drop(call.send(pages.channel_key(&user, &key)?));
                continue;
            }
        };
        if for_node.blocking_send(input).is_err() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, sync::Mutex};

    use socp::channel;

    use super::*;
    use crate::storage::Loaded;

    fn record() -> Record {
        Record::IdsForgotten { before_unix_ms: 1 }
    }

    fn full() -> StorageError {
        StorageError::Full { path: PathBuf::from("socp.db") }
    }

    /// Does with the number of records of each commit, and after it, what it was made with; has no inboxes.
    struct Counted<F, G>(F, G);

    impl<F, G> Storage for Counted<F, G>
    where
        F: FnMut(usize) -> Result<(), StorageError> + Send,
        G: FnMut() -> Result<(), StorageError> + Send,
    {
        fn load(&self) -> Result<Loaded, StorageError> {
            Ok(Loaded::default())
        }

        fn commit(&mut self, records: &[Record]) -> Result<(), StorageError> {
            (self.0)(records.len())
        }

        fn settle(&mut self) -> Result<(), StorageError> {
            (self.1)()
        }

        fn pages(&self) -> Result<Box<dyn Pages>, StorageError> {
            Ok(Box::new(Empty))
        }
    }

    struct Empty;

    impl Pages for Empty {
        fn page(&self, _: &UserName, _: u64) -> Result<Vec<Stored>, StorageError> {
            Ok(Vec::new())
        }

        fn posts(&self, _: &UserName, _: &[u64]) -> Result<Vec<channel::Stored>, StorageError> {
            Ok(Vec::new())
        }

        fn channel_key(&self, _: &UserName, _: &KeyName) -> Result<Option<Vec<u8>>, StorageError> {
            Ok(None)
        }
    }

    fn started(commit: impl FnMut(usize) -> Result<(), StorageError> + Send + 'static) -> (Disk, Reports) {
        settling(commit, || Ok(()))
    }

    fn settling(
        commit: impl FnMut(usize) -> Result<(), StorageError> + Send + 'static,
        settle: impl FnMut() -> Result<(), StorageError> + Send + 'static,
    ) -> (Disk, Reports) {
        let storage = Counted(commit, settle);
        let pages = storage.pages().unwrap();
        start(Box::new(storage), pages, Arc::default()).unwrap()
    }

    #[tokio::test]
    async fn what_comes_while_a_commit_is_under_way_shares_the_next_one() {
        let (begun, begins) = jobs::channel();
        let (go_on, may_go_on) = jobs::channel::<()>();
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&sizes);
        let (disk, mut reports) = started(move |records| {
            seen.lock().unwrap().push(records);
            begun.send(()).unwrap();
            may_go_on.recv().unwrap();
            Ok(())
        });
        disk.write(WriteId(1), record());
        begins.recv().unwrap();
        (2..=9).for_each(|number| disk.write(WriteId(number), record()));
        assert_eq!(*reports.written.borrow(), None, "nothing is said before the disk says so");
        go_on.send(()).unwrap();
        begins.recv().unwrap();
        reports.written.changed().await.unwrap();
        assert_eq!(*reports.written.borrow_and_update(), Some(WriteId(1)));
        go_on.send(()).unwrap();
        reports.written.changed().await.unwrap();
        assert_eq!(*reports.written.borrow_and_update(), Some(WriteId(9)));
        assert_eq!(*sizes.lock().unwrap(), [1, 8]);
    }

    #[tokio::test]
    async fn nobody_waits_for_what_is_done_between_commits_and_a_failure_of_it_is_one_of_the_disk() {
        let (go_on, may_go_on) = jobs::channel::<()>();
        let settle = move || {
            may_go_on.recv().unwrap();
            Err(full())
        };
        let (disk, mut reports) = settling(|_| Ok(()), settle);
        disk.write(WriteId(1), record());
        reports.written.changed().await.unwrap();
        assert!(reports.failed.try_recv().is_err());
        go_on.send(()).unwrap();
        assert!(matches!(reports.failed.recv().await, Some(StorageError::Full { .. })));
        assert_eq!(disk.store(record()), Err(Failed));
    }

    #[tokio::test]
    async fn a_disk_that_fails_says_so_and_tells_nobody_that_anything_is_on_it() {
        let (disk, mut reports) = started(|_| Err(full()));
        disk.write(WriteId(1), record());
        assert!(matches!(reports.failed.recv().await, Some(StorageError::Full { .. })));
        assert!(reports.written.changed().await.is_err());
        assert_eq!(disk.store(record()), Err(Failed));
    }

    #[test]
    fn who_waits_for_a_disk_that_fails_finds_the_cause_reported() {
        let (disk, mut reports) = started(|_| Err(full()));
        assert_eq!(disk.store(record()), Err(Failed));
        assert!(matches!(reports.failed.try_recv(), Ok(StorageError::Full { .. })));
    }

    #[test]
    fn what_waits_is_written_before_the_disk_is_gone() {
        let written = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&written);
        let (disk, _reports) = started(move |records| {
            *counted.lock().unwrap() += records;
            Ok(())
        });
        (1..=2_000).for_each(|number| disk.write(WriteId(number), record()));
        drop(disk);
        assert_eq!(*written.lock().unwrap(), 2_000);
    }
}
