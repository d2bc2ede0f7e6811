//! The processes that share the watchers of a run among them, as seen from the one that started them: see [`worker`](super::worker).

use std::{
    io::{self, BufRead as _, BufReader, Read, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use super::{
    folder::Folder,
    plan::{Aim, Plan},
    tally::{Schedule, Tally},
    worker::{Job, Order, Report},
};
use crate::failure::Failure;

/// How long a process may take to begin.
const BEGIN_TIME_MAX: Duration = Duration::from_secs(20);

/// How long it may take to tell all at its end.
const END_TIME_MAX: Duration = Duration::from_secs(60);

/// Bytes of a report: the longest has some histograms, of at most 30,000 values each.
const REPORT_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// A process. Dropped, it ends.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    input: ChildStdin,
    heard: Arc<Mutex<Heard>>,
    reports: Receiver<Report>,
}

/// What is known of it.
#[derive(Debug, Default)]
struct Heard {
    last: Report,
    /// Orders that it was given.
    orders: u64,
    has_ended: bool,
}

impl Worker {
    /// Starts so many, which share the watchers evenly, and waits until each has begun.
    pub(super) fn start(plan: &Plan, schedule: &Schedule) -> Result<Vec<Self>, Failure> {
        // Gone once all have opened what is in it.
        let folder = Folder::make(None)?;
        let moments = folder.file("begun");
        schedule.share(&moments).map_err(|error| Failure::file("write", &moments, &error))?;
        let mut workers = Vec::new();
        for number in 0..plan.processes {
            let job = Job {
                plan: share(plan, number),
                prefix: schedule.prefix().to_owned(),
                actors: schedule.actors(),
                events: schedule.events(),
                slice: schedule.slice(),
                moments: moments.clone(),
            };
            let begun = Self::spawn().and_then(|mut worker| {
                worker.say(&serde_json::to_string(&job)?)?;
                Ok(worker)
            });
            workers.push(begun.map_err(|error| Failure::failed(format!("a load process does not start: {error}")))?);
        }
        for worker in &workers {
            worker.reports.recv_timeout(BEGIN_TIME_MAX).map_err(|why| worker.silent(why))?;
        }
        Ok(workers)
    }

    fn spawn() -> io::Result<Self> {
        let own = std::env::current_exe()?;
        let mut command = Command::new(own);
        command.args(["bench", "worker"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (input, output) = pipes.ok_or_else(|| io::Error::other("it has no pipes"))?;
        let heard = Arc::new(Mutex::new(Heard::default()));
        let (sender, reports) = channel();
        let listener = Arc::clone(&heard);
        thread::spawn(move || listen(output, &listener, &sender));
        Ok(Self { child, input, heard, reports })
    }

    fn say(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.input, "{line}")
    }

    /// The process's id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells it what to do. One that has ended says so by itself.
    pub(super) fn order(&self, order: Order) {
        if let Ok(line) = serde_json::to_string(&order) {
            let mut heard = lock(&self.heard);
            heard.orders += 1;
            // What it reports from now on is of before, until it has carried the order out.
            heard.last.synced = 0;
            let _ = writeln!(&self.input, "{line}");
        }
    }

    /// How many of its watchers have the present state since the last order.
    pub(super) fn synced(&self) -> usize {
        lock(&self.heard).last.synced
    }

    /// How many changes they were told.
    pub(super) fn told(&self) -> u64 {
        lock(&self.heard).last.told
    }

    /// How many connections they have.
    pub(super) fn open(&self) -> usize {
        lock(&self.heard).last.open
    }

    /// Why it cannot go on, if so.
    pub(super) fn failure(&self) -> Option<Failure> {
        let heard = lock(&self.heard);
        match &heard.last.failure {
            Some((message, hint)) => Some(Failure { hint: hint.clone(), ..Failure::failed(message.clone()) }),
            None => heard.has_ended.then(|| self.died()),
        }
    }

    /// What its watchers were told, once it was told to stop.
    pub(super) fn tally(self) -> Result<Tally, Failure> {
        loop {
            let report = self.reports.recv_timeout(END_TIME_MAX).map_err(|why| self.silent(why))?;
            if let Some(tally) = report.tally() {
                return tally;
            }
        }
    }

    fn silent(&self, why: RecvTimeoutError) -> Failure {
        match why {
            RecvTimeoutError::Timeout => Failure::failed(format!("load process {} says nothing", self.id())),
            RecvTimeoutError::Disconnected => self.died(),
        }
    }

    fn died(&self) -> Failure {
        Failure::failed(format!("load process {} ended before its time", self.id()))
            .hint("if the system ran out of memory, it may have ended it; take fewer watchers")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // One that has ended already is as wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes what a process reports. Only the first report, and those by which something ends, are handed on.
fn listen(output: impl Read, heard: &Mutex<Heard>, reports: &Sender<Report>) {
    let (mut output, mut line, mut is_first) = (BufReader::new(output), Vec::new(), true);
    loop {
        line.clear();
        let read = (&mut output).take(REPORT_BYTES_MAX).read_until(b'\n', &mut line);
        let report = read.ok().and_then(|_| serde_json::from_slice::<Report>(&line).ok());
        let mut heard = lock(heard);
        let Some(report) = report else {
            heard.has_ended = true;
            return;
        };
        let is_present = report.orders >= heard.orders;
        heard.last = Report { counts: None, ..report.clone() };
        if !is_present {
            heard.last.synced = 0;
        }
        drop(heard);
        let is_last = report.counts.is_some() || report.failure.is_some();
        if (is_last || std::mem::take(&mut is_first)) && reports.send(report).is_err() {
            return;
        }
    }
}

/// The part of the watchers that one of the processes has.
fn share(plan: &Plan, number: usize) -> Plan {
    let part = |aim: &Aim| Aim { watchers: (number..aim.watchers).step_by(plan.processes).count(), ..aim.clone() };
    Plan { aims: plan.aims.iter().map(part).collect(), processes: 1, ..plan.clone() }
}
