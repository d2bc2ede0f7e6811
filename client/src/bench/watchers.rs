//! Many watchers in one thread: one loop over all their sockets, which reads, decrypts and counts.
//!
//! A connection each unless the caller says otherwise, as real users have. No task, no timer and no copy that a watcher does not
//! need: what the tool takes of the machine is missing to the servers that it measures.

use std::{
    collections::VecDeque,
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};
use rustls::{
    ClientConfig, ClientConnection,
    pki_types::{CertificateDer, ServerName},
};

use super::{
    call::{Calls, Request},
    clock, delta,
    tally::{Cursor, Schedule, Tally},
};
use crate::failure::Failure;

/// Connections that shake hands at once: half of what a server has places for.
const HANDSHAKES_MAX: usize = 128;

/// How long the loop sleeps at most, before it looks whether it is to end.
const LOOK_UP: Duration = Duration::from_millis(50);

/// Bytes that are decrypted at once: a TLS record.
const PLAIN_BYTES: usize = 16 * 1024;

/// Where some watchers connect, and what they ask.
#[derive(Clone, Debug)]
pub struct Aim {
    /// The server.
    pub address: SocketAddr,
    /// The certificate that it has proved to be its own; another is refused.
    pub certificate: CertificateDer<'static>,
    /// What each watcher asks.
    pub request: Request,
    /// How many.
    pub watchers: usize,
    /// How many share a connection.
    pub per_connection: usize,
}

/// How far the watchers are, for whoever waits for them.
#[derive(Debug, Default)]
pub struct Progress {
    /// Watchers that have the present state.
    pub synced: AtomicUsize,
    /// Changes told.
    pub told: AtomicU64,
    stop: AtomicBool,
    failure: Mutex<Option<Failure>>,
}

impl Progress {
    /// Why the watchers cannot go on, if so.
    pub fn failure(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn fail(&self, failure: Failure) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    }
}

/// Watchers at work in threads of their own.
#[derive(Debug)]
pub struct Watchers {
    threads: Vec<JoinHandle<Tally>>,
    /// How far they are.
    pub progress: Arc<Progress>,
}

impl Watchers {
    /// Starts them, spread over so many threads.
    pub fn start(aims: &[Aim], threads: usize, tls: &ClientConfig, schedule: &Arc<Schedule>) -> Result<Self, Failure> {
        let mut tls = tls.clone();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let tls = Arc::new(tls);
        let progress = Arc::new(Progress::default());
        let mut shares: Vec<VecDeque<(usize, usize)>> = vec![VecDeque::new(); threads.max(1)];
        let mut turn = 0;
        for (place, aim) in aims.iter().enumerate() {
            let mut left = aim.watchers;
            while left > 0 {
                let streams = left.min(aim.per_connection.max(1));
                let count = shares.len();
                shares[turn % count].push_back((place, streams));
                (left, turn) = (left - streams, turn + 1);
            }
        }
        let start = |due| {
            let poll = Poll::new().map_err(|error| Failure::failed(format!("cannot wait for sockets: {error}")))?;
            let aims = aims.to_vec();
            let (tls, progress, schedule) = (Arc::clone(&tls), Arc::clone(&progress), Arc::clone(schedule));
            let work = Loop {
                poll,
                aims,
                tls,
                progress,
                schedule,
                due,
                open: Vec::new(),
                shaking: 0,
                tally: Tally::default(),
            };
            Ok(thread::spawn(move || work.run()))
        };
        let threads = shares.into_iter().map(start).collect::<Result<_, Failure>>()?;
        Ok(Self { threads, progress })
    }

    /// Ends them; gives what they were told.
    pub fn stop(self) -> Result<Tally, Failure> {
        self.progress.stop.store(true, Ordering::Release);
        let mut all = Tally::default();
        for thread in self.threads {
            all.add(&thread.join().map_err(|_| Failure::failed("a thread of watchers broke down"))?);
        }
        self.progress.failure().map_or(Ok(all), Err)
    }
}

struct Loop {
    poll: Poll,
    aims: Vec<Aim>,
    tls: Arc<ClientConfig>,
    progress: Arc<Progress>,
    schedule: Arc<Schedule>,
    /// Connections to be made: to which aim, and how many streams.
    due: VecDeque<(usize, usize)>,
    open: Vec<Connection>,
    shaking: usize,
    tally: Tally,
}

struct Connection {
    socket: TcpStream,
    tls: ClientConnection,
    aim: usize,
    calls: Calls,
    /// What is to be sent once hands are shaken.
    first: Vec<u8>,
    /// One for each stream, once it has the present state.
    cursors: Vec<Option<Cursor>>,
    waits_to_write: bool,
}

impl Loop {
    fn run(mut self) -> Tally {
        if let Err(failure) = self.work() {
            self.progress.fail(failure);
        }
        for cursor in self.open.iter().flat_map(|connection| &connection.cursors).flatten() {
            self.tally.close(cursor, &self.schedule);
        }
        self.tally
    }

    fn work(&mut self) -> Result<(), Failure> {
        let mut events = Events::with_capacity(1024);
        let mut plain = vec![0; PLAIN_BYTES];
        while !self.progress.stop.load(Ordering::Acquire) {
            while self.shaking < HANDSHAKES_MAX {
                let Some((aim, streams)) = self.due.pop_front() else { break };
                self.connect(aim, streams)?;
            }
            match self.poll.poll(&mut events, Some(LOOK_UP)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(Failure::failed(format!("cannot wait for sockets: {error}")));
                }
                _ => {}
            }
            let told = self.tally.delivered;
            for event in &events {
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

    fn connect(&mut self, aim: usize, streams: usize) -> Result<(), Failure> {
        let Aim { address, request, .. } = &self.aims[aim];
        let failed = |error: &dyn std::error::Error| Failure::failed(format!("cannot connect to `{address}`: {error}"));
        let mut socket = TcpStream::connect(*address).map_err(|error| failed(&error))?;
        let name = ServerName::IpAddress(address.ip().into());
        let tls = ClientConnection::new(Arc::clone(&self.tls), name).map_err(|error| failed(&error))?;
        let token = Token(self.open.len());
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut socket, token, interest).map_err(|error| failed(&error))?;
        let (calls, first) = Calls::begin(request, streams);
        let cursors = vec![None; streams];
        self.open.push(Connection { socket, tls, aim, calls, first, cursors, waits_to_write: true });
        self.shaking += 1;
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
            connection.read(&self.progress, &self.schedule, &mut self.tally, plain)?;
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

impl Connection {
    fn read(
        &mut self,
        progress: &Progress,
        schedule: &Schedule,
        tally: &mut Tally,
        plain: &mut [u8],
    ) -> Result<(), String> {
        let Self { tls, calls, cursors, .. } = self;
        let mut out = Vec::new();
        loop {
            let length = match tls.reader().read(plain) {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(length) => length,
                Err(error) if is_early(&error) => break,
                Err(error) => return Err(error.to_string()),
            };
            let mut is_understood = true;
            let now_ns = clock::now_ns();
            let each = &mut |stream: usize, message: &[u8]| {
                let cursor: &mut Option<Cursor> = &mut cursors[stream];
                let marks = delta::read(message, &mut |change| match cursor {
                    Some(cursor) => tally.take(cursor, &change, now_ns, schedule),
                    None if schedule.is_actor(change.name) => is_understood = false,
                    None => {}
                });
                match marks {
                    None => is_understood = false,
                    Some(marks) => {
                        if let (Some(revision), None) = (marks.end, &cursor) {
                            *cursor = Some(Cursor::new(schedule, revision));
                            progress.synced.fetch_add(1, Ordering::Release);
                        }
                    }
                }
            };
            calls.receive(&plain[..length], &mut out, each).map_err(|broken| broken.to_string())?;
            if !is_understood {
                return Err("a user of this test is online before it begins, or a message is not understood".into());
            }
        }
        if !out.is_empty() {
            tls.writer().write_all(&out).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn write(&mut self, place: usize, registry: &mio::Registry) -> Result<(), String> {
        let mut blocked = false;
        while self.tls.wants_write() && !blocked {
            match self.tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if is_early(&error) => blocked = true,
                Err(error) => return Err(error.to_string()),
            }
        }
        if self.waits_to_write != blocked {
            self.waits_to_write = blocked;
            let interest = if blocked { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
            registry.reregister(&mut self.socket, Token(place), interest).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// Whether there is nothing to read, or no room to write, yet.
fn is_early(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::NotConnected)
}

/// Notes whether the socket had less than was asked for: then it is empty, and need not be asked again to be sure.
struct Noting<'a> {
    socket: &'a mut TcpStream,
    short: bool,
}

impl io::Read for Noting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.socket.read(buffer)?;
        self.short = length < buffer.len();
        Ok(length)
    }
}
