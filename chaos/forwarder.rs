//! The switch between the servers: a thread that takes every frame out of one port and puts it into another, or does to
//! it what a fault says.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    fs::File,
    io,
    os::fd::AsFd as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::channel,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, setns},
};

use crate::{
    faults::{Count, Fate, Fault, Faults, Way},
    frame::{self, Destination, Payload},
    network::{self, SERVERS},
    port::Port,
};

/// How long the thread waits for a frame before it looks whether it is to end.
const WAIT: Duration = Duration::from_millis(20);

/// Frames that are delayed at once: a hundred times what these servers send in the longest delay.
const DELAYED_MAX: usize = 100_000;

/// Frames taken from one port before the next one has its turn.
const TURN: usize = 64;

#[derive(Default)]
struct State {
    faults: Faults,
    /// IP packets that came in, by way.
    packets: BTreeMap<Way, u64>,
    failed: Option<io::Error>,
}

/// The switch. Dropping it ends it.
pub struct Forwarder {
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    seed: u64,
}

impl Forwarder {
    /// Starts it; all ports are open on return.
    pub fn start(seed: u64) -> Self {
        let (state, stop) = (Arc::<Mutex<State>>::default(), Arc::<AtomicBool>::default());
        let (sender, opened) = channel();
        let thread = thread::spawn({
            let (state, stop) = (Arc::clone(&state), Arc::clone(&stop));
            move || {
                let ports = open();
                let result = ports.as_ref().map(drop).map_err(|error| io::Error::other(error.to_string()));
                sender.send(result).expect("who started it waits");
                if let Ok(ports) = ports
                    && let Err(error) = Switch::new(ports, &state).run(&stop)
                {
                    lock(&state).failed = Some(error);
                }
            }
        });
        opened.recv().expect("it tells").expect("the switch's ports can be opened");
        Self { state, stop, thread: Some(thread), seed }
    }

    /// Puts a fault on these ways.
    pub fn put(&self, ways: impl IntoIterator<Item = Way>, fault: Fault) {
        lock(&self.state).faults.put(ways, fault, self.seed);
    }

    /// Takes all faults away. What is delayed still comes late.
    pub fn heal(&self) {
        lock(&self.state).faults.heal();
    }

    /// How often each fault happened so far.
    pub fn counts(&self) -> BTreeMap<&'static str, Count> {
        let state = lock(&self.state);
        assert!(state.failed.is_none(), "the switch failed: {:?}", state.failed);
        state.faults.counts().clone()
    }

    /// How often one fault happened so far.
    pub fn count(&self, name: &str) -> Count {
        self.counts().get(name).copied().unwrap_or_default()
    }

    /// IP packets that came in so far, by way.
    pub fn packets(&self) -> BTreeMap<Way, u64> {
        lock(&self.state).packets.clone()
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Moves this thread into the namespace of the switch, and opens its ports.
fn open() -> io::Result<Vec<Port>> {
    setns(File::open(network::switch())?, CloneFlags::CLONE_NEWNET)?;
    (0..SERVERS).map(|server| Port::open(&network::letter(server).to_string())).collect()
}

/// A frame that waits.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Delayed {
    due: Instant,
    /// The how manieth on its way.
    number: u64,
    way: Way,
    name: &'static str,
    frame: Vec<u8>,
}

struct Switch<'a> {
    ports: Vec<Port>,
    state: &'a Mutex<State>,
    delayed: BinaryHeap<Reverse<Delayed>>,
    /// The next number of each way, and one more than the highest that has left.
    numbers: BTreeMap<Way, (u64, u64)>,
}

impl<'a> Switch<'a> {
    fn new(ports: Vec<Port>, state: &'a Mutex<State>) -> Self {
        Self { ports, state, delayed: BinaryHeap::new(), numbers: BTreeMap::new() }
    }

    fn run(&mut self, stop: &AtomicBool) -> io::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            self.release(Instant::now())?;
            let next = self.delayed.peek().map(|Reverse(first)| first.due.saturating_duration_since(Instant::now()));
            // A whole millisecond at least, which is what the system counts in.
            let wait = next.map_or(WAIT, |next| next.min(WAIT).max(Duration::from_millis(1)));
            let mut waited: Vec<_> =
                self.ports.iter().map(|port| PollFd::new(port.as_fd(), PollFlags::POLLIN)).collect();
            poll(&mut waited, PollTimeout::try_from(wait).map_err(io::Error::other)?)?;
            let ready: Vec<usize> = (0..waited.len()).filter(|&port| waited[port].any() == Some(true)).collect();
            for from in ready {
                for _ in 0..TURN {
                    let Some(frame) = self.ports[from].receive()? else { break };
                    self.take(from, frame)?;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, from: usize, mut frame: Vec<u8>) -> io::Result<()> {
        let Some((payload, destination)) = frame::read(&frame) else { return Ok(()) };
        match payload {
            Payload::Ip => frame::complete(&mut frame),
            Payload::Arp => {}
            Payload::Other => return Ok(()),
        }
        let is_for = |to: usize| match destination {
            // `chaos/run` gives the interfaces addresses that end with their number from 1.
            Destination::One(last) => usize::from(last) == to + 1,
            Destination::All => to != from,
        };
        for to in (0..self.ports.len()).filter(|&to| is_for(to)) {
            self.pass((from, to), &frame, payload)?;
        }
        Ok(())
    }

    fn pass(&mut self, way: Way, frame: &[u8], payload: Payload) -> io::Result<()> {
        let mut state = lock(self.state);
        if payload == Payload::Ip {
            *state.packets.entry(way).or_default() += 1;
        }
        let (fate, name) = state.faults.decide(way);
        drop(state);
        let (next, _) = self.numbers.entry(way).or_default();
        let number = *next;
        *next += 1;
        match (fate, name) {
            (Fate::Delayed(by), Some(name)) => {
                if self.delayed.len() >= DELAYED_MAX {
                    return Err(io::Error::other("too many frames are delayed"));
                }
                let due = Instant::now() + by;
                self.delayed.push(Reverse(Delayed { due, number, way, name, frame: frame.to_vec() }));
                Ok(())
            }
            (Fate::Dropped, _) => Ok(()),
            _ => self.leave(way, number, None, frame),
        }
    }

    fn release(&mut self, now: Instant) -> io::Result<()> {
        while self.delayed.peek().is_some_and(|Reverse(first)| first.due <= now) {
            let Some(Reverse(Delayed { number, way, name, frame, .. })) = self.delayed.pop() else { break };
            self.leave(way, number, Some(name), &frame)?;
        }
        Ok(())
    }

    fn leave(&mut self, way: Way, number: u64, fault: Option<&'static str>, frame: &[u8]) -> io::Result<()> {
        let (_, left) = self.numbers.entry(way).or_default();
        if number < *left {
            if let Some(name) = fault {
                lock(self.state).faults.count_reordered(name);
            }
        }
        *left = (*left).max(number + 1);
        self.ports[way.1].send(frame).map(drop)
    }
}
