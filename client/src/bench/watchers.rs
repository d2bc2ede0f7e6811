//! Many watchers in one thread: one loop over all their sockets, which reads, decrypts and counts.
//!
//! A connection each unless the caller says otherwise, as real users have. No task, no timer and no copy that a watcher does not
//! need: what the tool takes of the machine is missing to the servers that it measures.

use std::{
    collections::VecDeque,
    io::{self, Write as _},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use mio::{Events, Interest, Poll, Token, Waker, net::TcpStream};
use prost::Message as _;
use rustls::{ClientConfig, ClientConnection, pki_types::ServerName};
use socp::v1::WatchDirectoryRequest;

use super::{
    call::Calls,
    clock, http3,
    plan::{Aim, Plan},
    seat::Seat,
    socket::{Connection, Noting, is_early},
    tally::{Schedule, Tally},
    worker,
    workers::Worker,
};
use crate::{certificate, failure::Failure};

/// Connections that shake hands at once: twice what a server has places for, so that it never waits for the tool, and what the
/// kernel's queue before it holds.
const HANDSHAKES_MAX: usize = 512;

/// The token of what wakes a thread; connections have those before it.
const WAKE: Token = Token(usize::MAX);

/// How long the loop sleeps at most, before it looks whether it is to end.
const LOOK_UP: Duration = Duration::from_millis(50);

/// Bytes that are decrypted at once: a TLS record.
const PLAIN_BYTES: usize = 16 * 1024;

/// How far the watchers of this process are.
#[derive(Debug, Default)]
pub struct Progress {
    pub(super) synced: AtomicUsize,
    pub(super) told: AtomicU64,
    open: AtomicUsize,
    stop: AtomicBool,
    order: Mutex<(u64, Order)>,
    failure: Mutex<Option<Failure>>,
}

/// What all threads are to do, once.
#[derive(Clone, Copy, Debug, Default)]
enum Order {
    /// Nothing.
    #[default]
    Stay,
    /// To drop all connections.
    Leave,
    /// To make them anew, after what each watcher knows or with a present state.
    Return { resume: bool, begun_ns: u64 },
}

impl Progress {
    fn failure(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the watchers are to end.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Tells that they cannot go on.
    pub(super) fn fail(&self, failure: Failure) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    }
}

/// Watchers at work, in threads or processes of their own.
#[derive(Debug)]
pub struct Watchers {
    pub(super) threads: Vec<JoinHandle<Tally>>,
    pub(super) wakers: Vec<Waker>,
    pub(super) progress: Arc<Progress>,
    pub(super) workers: Vec<Worker>,
}

impl Watchers {
    /// Starts them.
    pub fn start(plan: &Plan, schedule: &Arc<Schedule>) -> Result<Self, Failure> {
        if plan.processes <= 1 {
            return Self::start_here(plan, schedule);
        }
        let workers = Worker::start(plan, schedule)?;
        Ok(Self { threads: Vec::new(), wakers: Vec::new(), progress: Arc::default(), workers })
    }

    /// Starts them in this process, over however many the plan would spread them.
    pub(super) fn start_here(plan: &Plan, schedule: &Arc<Schedule>) -> Result<Self, Failure> {
        let tls = certificate::tls(None)?;
        if plan.http3 {
            return http3::start(&plan.aims, plan.threads, &tls, schedule);
        }
        Self::start_over_tcp(&plan.aims, plan.threads, tls, schedule)
    }

    fn start_over_tcp(
        aims: &[Aim],
        threads: usize,
        mut tls: ClientConfig,
        schedule: &Arc<Schedule>,
    ) -> Result<Self, Failure> {
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let tls = Arc::new(tls);
        let progress = Arc::new(Progress::default());
        let mut shares: Vec<Due> = (0..threads.max(1)).map(|_| Due::new()).collect();
        let mut turn = 0;
        for (place, aim) in aims.iter().enumerate() {
            let mut left = aim.watchers;
            while left > 0 {
                let streams = left.min(aim.per_connection.max(1));
                let count = shares.len();
                let seats = (0..streams).map(|_| Seat::default()).collect();
                shares[turn % count].push_back((place, seats));
                (left, turn) = (left - streams, turn + 1);
            }
        }
        let failed = |error: io::Error| Failure::failed(format!("cannot wait for sockets: {error}"));
        let (mut handles, mut wakers) = (Vec::new(), Vec::new());
        for due in shares {
            let poll = Poll::new().map_err(failed)?;
            wakers.push(Waker::new(poll.registry(), WAKE).map_err(failed)?);
            let work = Loop {
                poll,
                aims: aims.to_vec(),
                tls: Arc::clone(&tls),
                progress: Arc::clone(&progress),
                schedule: Arc::clone(schedule),
                due,
                open: Vec::new(),
                shaking: 0,
                tally: Tally::default(),
                obeyed: 0,
                returning: None,
            };
            handles.push(thread::spawn(move || work.run()));
        }
        Ok(Self { threads: handles, wakers, progress, workers: Vec::new() })
    }

    /// The ids of the processes that they are in, if not in this one.
    pub fn processes(&self) -> Vec<u32> {
        self.workers.iter().map(Worker::id).collect()
    }

    /// How many have the present state, or came back.
    pub fn synced(&self) -> usize {
        self.progress.synced.load(Ordering::Acquire) + self.workers.iter().map(Worker::synced).sum::<usize>()
    }

    /// How many changes they were told, all together.
    pub fn told(&self) -> u64 {
        self.progress.told.load(Ordering::Relaxed) + self.workers.iter().map(Worker::told).sum::<u64>()
    }

    /// Connections that are there or being made.
    pub fn open(&self) -> usize {
        self.progress.open.load(Ordering::Acquire) + self.workers.iter().map(Worker::open).sum::<usize>()
    }

    /// Why they cannot go on, if so.
    pub fn failure(&self) -> Option<Failure> {
        self.progress.failure().or_else(|| self.workers.iter().find_map(Worker::failure))
    }

    /// Drops all connections; they are gone once none is open.
    pub fn leave(&self) -> Result<(), Failure> {
        self.workers.iter().for_each(|worker| worker.order(worker::Order::Leave));
        self.give(Order::Leave)
    }

    /// Makes all connections anew at once, after what each watcher knows or with a present state.
    pub fn come_back(&self, resume: bool) -> Result<(), Failure> {
        self.come_back_since(resume, clock::now_ns())
    }

    /// The same, which began at this time.
    pub(super) fn come_back_since(&self, resume: bool, begun_ns: u64) -> Result<(), Failure> {
        self.progress.synced.store(0, Ordering::Release);
        self.workers.iter().for_each(|worker| worker.order(worker::Order::Return { resume, begun_ns }));
        self.give(Order::Return { resume, begun_ns })
    }

    fn give(&self, order: Order) -> Result<(), Failure> {
        {
            let mut given = self.progress.order.lock().unwrap_or_else(PoisonError::into_inner);
            *given = (given.0 + 1, order);
        }
        for waker in &self.wakers {
            waker.wake().map_err(|error| Failure::failed(format!("a thread cannot be woken: {error}")))?;
        }
        Ok(())
    }

    /// Ends them; gives what they were told.
    pub fn stop(self) -> Result<Tally, Failure> {
        self.progress.stop.store(true, Ordering::Release);
        let mut all = Tally::default();
        self.workers.iter().for_each(|worker| worker.order(worker::Order::Stop));
        for worker in self.workers {
            all.add(&worker.tally()?);
        }
        for thread in self.threads {
            all.add(&thread.join().map_err(|_| Failure::failed("a thread of watchers broke down"))?);
        }
        self.progress.failure().map_or(Ok(all), Err)
    }
}

/// Connections to be made: to which aim, and who sits at them.
type Due = VecDeque<(usize, Vec<Seat>)>;

struct Loop {
    poll: Poll,
    aims: Vec<Aim>,
    tls: Arc<ClientConfig>,
    progress: Arc<Progress>,
    schedule: Arc<Schedule>,
    due: Due,
    open: Vec<Connection>,
    shaking: usize,
    tally: Tally,
    /// The number of the order last obeyed.
    obeyed: u64,
    /// Since when the watchers come back, and whether after what they know.
    returning: Option<(bool, u64)>,
}

impl Loop {
    fn run(mut self) -> Tally {
        if let Err(failure) = self.work() {
            self.progress.fail(failure);
        }
        let open = self.open.iter().map(|connection| &connection.seats);
        for seat in open.chain(self.due.iter().map(|(_, seats)| seats)).flatten() {
            seat.close(&self.schedule, &mut self.tally);
        }
        self.tally
    }

    fn work(&mut self) -> Result<(), Failure> {
        let mut events = Events::with_capacity(1024);
        let mut plain = vec![0; PLAIN_BYTES];
        while !self.progress.is_stopped() {
            self.obey();
            while self.shaking < HANDSHAKES_MAX && !self.has_left() {
                let Some((aim, seats)) = self.due.pop_front() else { break };
                self.connect(aim, seats)?;
            }
            match self.poll.poll(&mut events, Some(LOOK_UP)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(Failure::failed(format!("cannot wait for sockets: {error}")));
                }
                _ => {}
            }
            let told = self.tally.delivered;
            for event in &events {
                if event.token() == WAKE {
                    continue;
                }
                let place = event.token().0;
                self.serve(place, &mut plain).map_err(|why| {
                    let aim = &self.aims[self.open[place].aim];
                    Failure::failed(format!("a watcher at `{}` was lost: {why}", aim.address))
                })?;
            }
            if self.tally.delivered != told {
                self.progress.told.fetch_add(self.tally.delivered - told, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn obey(&mut self) {
        let (number, order) = *self.progress.order.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut self.obeyed, number) == number {
            return;
        }
        match order {
            Order::Stay => {}
            Order::Leave => {
                let open = self.open.len();
                self.due.extend(self.open.drain(..).map(|connection| (connection.aim, connection.seats)));
                self.shaking = 0;
                self.returning = None;
                self.progress.open.fetch_sub(open, Ordering::Release);
            }
            Order::Return { resume, begun_ns } => self.returning = Some((resume, begun_ns)),
        }
    }

    /// Whether an order to leave was the last one.
    fn has_left(&self) -> bool {
        self.obeyed > 0 && self.returning.is_none()
    }

    fn connect(&mut self, aim: usize, mut seats: Vec<Seat>) -> Result<(), Failure> {
        let Aim { address, request, .. } = &self.aims[aim];
        let failed = |error: &dyn std::error::Error| Failure::failed(format!("cannot connect to `{address}`: {error}"));
        let mut socket = TcpStream::connect(*address).map_err(|error| failed(&error))?;
        let name = ServerName::IpAddress(address.ip().into());
        let tls = ClientConnection::new(Arc::clone(&self.tls), name).map_err(|error| failed(&error))?;
        let token = Token(self.open.len());
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut socket, token, interest).map_err(|error| failed(&error))?;
        let resume = self.returning.is_some_and(|(resume, _)| resume);
        let tokens: Vec<_> = seats.iter_mut().map(|seat| resumed_by(seat.come_back(resume))).collect();
        let (calls, first) = Calls::begin(request, &tokens);
        self.open.push(Connection { socket, tls, aim, calls, first, seats, waits_to_write: true });
        self.shaking += 1;
        self.progress.open.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn serve(&mut self, place: usize, plain: &mut [u8]) -> Result<(), String> {
        let connection = &mut self.open[place];
        let was_shaking = !connection.first.is_empty();
        loop {
            let mut socket = Noting { socket: &mut connection.socket, short: false };
            match connection.tls.read_tls(&mut socket) {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(_) => {}
                Err(error) if is_early(&error) => break,
                Err(error) => return Err(error.to_string()),
            }
            let short = socket.short;
            connection.tls.process_new_packets().map_err(|error| error.to_string())?;
            let keeps_token = self.aims[connection.aim].keeps_token;
            let synced = connection.read(&self.schedule, &mut self.tally, plain, keeps_token)?;
            if synced > 0 {
                if let Some((resume, begun_ns)) = self.returning {
                    let taken = clock::now_ns().saturating_sub(begun_ns).max(1);
                    let returns = &mut self.tally.returns[usize::from(resume)];
                    (0..synced).for_each(|_| returns.saturating_record(taken));
                }
                self.progress.synced.fetch_add(synced, Ordering::Release);
            }
            if short {
                break;
            }
        }
        if was_shaking && !connection.tls.is_handshaking() {
            let shown = connection.tls.peer_certificates().and_then(|chain| chain.first());
            if shown != Some(&self.aims[connection.aim].certificate) {
                return Err("it shows another certificate than before".into());
            }
            let first = std::mem::take(&mut connection.first);
            connection.tls.writer().write_all(&first).map_err(|error| error.to_string())?;
            self.shaking -= 1;
        }
        connection.write(place, self.poll.registry())
    }
}

/// The field of a request to watch that says where to go on.
fn resumed_by(token: &[u8]) -> Vec<u8> {
    let resume_token = String::from_utf8_lossy(token).into_owned();
    WatchDirectoryRequest { resume_token, ..WatchDirectoryRequest::default() }.encode_to_vec()
}
