//! A process that runs: the JSON objects that it prints as events, its log, its end.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::{BufRead as _, BufReader, Read, Write as _},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::DEADLINE;

/// A running process. Dropping it kills it.
pub struct Program {
    what: String,
    child: Child,
    input: Option<ChildStdin>,
    events: Receiver<Value>,
    log: Arc<Log>,
    /// Events that were read and not waited for, to be shown when the one waited for does not come.
    passed: Vec<Value>,
    /// Whom a client has shown as online, by all that was read of it.
    online: BTreeSet<String>,
}

/// What a process wrote to standard error.
#[derive(Default)]
struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Default)]
struct LogState {
    lines: Vec<String>,
    ended: bool,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, line: String) {
        self.lock().lines.push(line);
        self.changed.notify_all();
    }

    fn read(&self, from: impl Read) {
        BufReader::new(from).lines().map_while(Result::ok).for_each(|line| self.say(line));
        self.lock().ended = true;
        self.changed.notify_all();
    }
}

/// An object may take several lines, as other people's tools print it.
fn read_events(from: impl Read, log: &Log, events: &Sender<Value>) {
    let mut begun = String::new();
    for line in BufReader::new(from).lines().map_while(Result::ok) {
        begun.push_str(&line);
        match serde_json::from_str(&begun) {
            Ok(event) => {
                begun.clear();
                if events.send(event).is_err() {
                    return;
                }
            }
            Err(error) if error.is_eof() && begun.starts_with('{') => {}
            Err(_) => log.say(format!("on standard output: {}", std::mem::take(&mut begun))),
        }
    }
    if !begun.is_empty() {
        log.say(format!("on standard output: {begun}"));
    }
}

impl Program {
    /// Starts a process; `what` is for people who read a failure.
    pub fn start(what: impl Into<String>, command: &mut Command) -> Self {
        let what = what.into();
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{what} does not start: {error}"));
        let log = Arc::new(Log::default());
        let (sender, events) = channel();
        let (output, errors) = (child.stdout.take().expect("it is piped"), child.stderr.take().expect("it is piped"));
        let input = child.stdin.take();
        thread::spawn({
            let log = Arc::clone(&log);
            move || read_events(output, &log, &sender)
        });
        thread::spawn({
            let log = Arc::clone(&log);
            move || log.read(errors)
        });
        Self { what, child, input, events, log, passed: Vec::new(), online: BTreeSet::new() }
    }

    /// Writes a line to its standard input.
    #[track_caller]
    pub fn say(&mut self, line: &str) {
        let input = self.input.as_mut().expect("its input is open");
        if let Err(error) = writeln!(input, "{line}") {
            panic!("{} takes no line: {error}\n{}", self.what, self.story());
        }
    }

    /// Waits for the event that `is_it` is true for; those before it are passed over.
    #[track_caller]
    pub fn expect(&mut self, what: &str, is_it: impl FnMut(&Value) -> bool) -> Value {
        self.expect_within(DEADLINE, what, is_it)
    }

    /// The same with another deadline, where the deadline is what is promised.
    #[track_caller]
    pub fn expect_within(&mut self, time: Duration, what: &str, mut is_it: impl FnMut(&Value) -> bool) -> Value {
        let deadline = Instant::now() + time;
        loop {
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(event) => {
                    self.note(&event);
                    if is_it(&event) {
                        return event;
                    }
                    self.passed.push(event);
                }
                Err(RecvTimeoutError::Timeout) => panic!("{} did not tell {what}\n{}", self.what, self.story()),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("{} ended before it told {what}\n{}", self.what, self.story())
                }
            }
        }
    }

    /// Takes the next event, if one comes in time. What is taken so is the caller's to remember.
    #[allow(dead_code, reason = "the tests under `chaos` use it")]
    pub fn told(&mut self, time: Duration) -> Option<Value> {
        let event = self.events.recv_timeout(time).ok()?;
        self.note(&event);
        Some(event)
    }

    fn note(&mut self, event: &Value) {
        match (event["event"].as_str(), event["user"].as_str()) {
            (Some("added"), Some(user)) => drop(self.online.insert(user.to_owned())),
            (Some("removed"), Some(user)) => drop(self.online.remove(user)),
            _ => {}
        }
    }

    /// Whom a client has shown as online, by all that was read of it so far.
    pub fn online(&self) -> &BTreeSet<String> {
        &self.online
    }

    /// Takes the events that were passed over since this was asked last, in order.
    pub fn passed(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.passed)
    }

    /// Waits for a line of the log that contains all of `parts`.
    #[track_caller]
    pub fn expect_log(&self, parts: &[&str]) -> String {
        let deadline = Instant::now() + DEADLINE;
        let mut state = self.log.lock();
        loop {
            let found = state.lines.iter().find(|line| parts.iter().all(|part| line.contains(part)));
            if let Some(line) = found {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.ended {
                drop(state);
                panic!("{} did not log {parts:?}\n{}", self.what, self.story());
            }
            state = self.log.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// All that it wrote to standard error.
    pub fn log(&self) -> String {
        self.log.lock().lines.join("\n")
    }

    /// Its process id.
    #[allow(dead_code, reason = "the examples use it")]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the process was not waited for");
    }

    /// Closes its standard input.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Waits for its end. What it still told is passed over.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(event) => self.passed.push(event),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("{} does not end\n{}", self.what, self.story()),
            }
        }
        let status = self.child.wait().expect("the process can be waited for");
        // Its last words are read by a thread of their own.
        let mut state = self.log.lock();
        while !state.ended && Instant::now() < deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            state = self.log.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        status
    }

    /// Kills it without a word, as a crash would.
    pub fn kill(&mut self) {
        self.child.kill().expect("the process can be killed");
        self.child.wait().expect("the process can be waited for");
    }

    /// What is known of it, for the message of a failure.
    pub fn story(&self) -> String {
        let unread: Vec<Value> = self.events.try_iter().collect();
        let mut story = String::from("what it told and nobody waited for:\n");
        for event in self.passed.iter().chain(&unread) {
            let _ = writeln!(story, "  {event}");
        }
        let _ = writeln!(story, "its standard error:\n{}", self.log());
        story
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
