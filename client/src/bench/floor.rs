//! The floor: bytes over TLS from one process to another, and from that to every watcher in one loop.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};
use prost::Message as _;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use socp::v1::{EndMark, WatchDirectoryResponse};

use super::{
    frame,
    stand_in::{self, FEED, Identity, fed},
};
use crate::failure::Failure;

/// Bytes that are passed on at once.
const PASSED_BYTES: usize = 16 * 1024;

/// The listener's token; connections have those after it.
const LISTENER: Token = Token(0);

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::failed(format!("the floor breaks: {error}"))
}

/// The first process: passes on what it is fed, unread, to each of these.
pub fn hop(onward: &[SocketAddr]) -> Result<(), Failure> {
    let identity = Identity::make()?;
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let next = onward.iter().map(|onward| {
        let mut next = stand_in::feed(*onward)?;
        next.flush()?;
        Ok(next)
    });
    let mut all = next.collect::<io::Result<Vec<_>>>().map_err(failed)?;
    identity.announce(address, address)?;
    let (feed, _) = listener.accept().map_err(failed)?;
    feed.set_nodelay(true).map_err(failed)?;
    let mut feed = StreamOwned::new(ServerConnection::new(identity.tls(&[FEED])?).map_err(failed)?, feed);
    let mut bytes = vec![0; PASSED_BYTES];
    loop {
        let length = match feed.read(&mut bytes) {
            Ok(0) | Err(_) => return Ok(()),
            Ok(length) => length,
        };
        for next in &mut all {
            next.write_all(&bytes[..length]).and_then(|()| next.flush()).map_err(failed)?;
        }
    }
}

/// The second process: writes what it is fed to every watcher.
pub fn fan() -> Result<(), Failure> {
    let identity = Identity::make()?;
    let mut listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0).into()).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let poll = Poll::new().map_err(failed)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE).map_err(failed)?;
    let tls = identity.tls(&[b"h2", FEED])?;
    identity.announce(address, address)?;
    let mut head = Vec::new();
    frame::put_response_head(&mut head);
    let mark = WatchDirectoryResponse { end_mark: Some(EndMark::default()), ..WatchDirectoryResponse::default() };
    frame::put_message(&mut head, &mark.encode_to_vec());
    Fan { poll, listener, tls, head, open: Vec::new(), fed: Vec::new() }.run()
}

struct Fan {
    poll: Poll,
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    /// What each watcher is told first.
    head: Vec<u8>,
    /// `None` where a connection has ended.
    open: Vec<Option<Peer>>,
    /// The beginning of a message of the feed.
    fed: Vec<u8>,
}

struct Peer {
    socket: TcpStream,
    tls: ServerConnection,
    role: Role,
    waits_to_write: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Unknown,
    Watcher,
    Feed,
}

impl Fan {
    fn run(mut self) -> Result<(), Failure> {
        let mut events = Events::with_capacity(1024);
        let mut plain = vec![0; PASSED_BYTES];
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(failed(error)),
                _ => {}
            }
            for event in &events {
                if event.token() == LISTENER {
                    self.accept()?;
                } else {
                    self.serve(event.token().0 - 1, &mut plain);
                }
            }
        }
    }

    fn accept(&mut self) -> Result<(), Failure> {
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(failed(error)),
            };
            socket.set_nodelay(true).map_err(failed)?;
            let token = Token(self.open.len() + 1);
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut socket, token, interest).map_err(failed)?;
            let mut tls = ServerConnection::new(Arc::clone(&self.tls)).map_err(failed)?;
            tls.set_buffer_limit(None);
            self.open.push(Some(Peer { socket, tls, role: Role::Unknown, waits_to_write: true }));
        }
    }

    fn serve(&mut self, place: usize, plain: &mut [u8]) {
        let Some(peer) = self.open[place].as_mut() else { return };
        let mut read = Vec::new();
        let outcome = peer.read(&self.head, plain, &mut read);
        if outcome.is_err() || peer.write(place, self.poll.registry()).is_err() {
            self.open[place] = None;
        }
        if read.is_empty() {
            return;
        }
        self.fed.extend_from_slice(&read);
        let mut frames = Vec::new();
        let rest = fed(&self.fed, &mut |message| frame::put_message(&mut frames, message));
        self.fed = rest.to_vec();
        self.tell(&frames);
    }

    fn tell(&mut self, frames: &[u8]) {
        for (place, open) in self.open.iter_mut().enumerate() {
            let Some(peer) = open.as_mut().filter(|peer| peer.role == Role::Watcher) else { continue };
            let told = peer.tls.writer().write_all(frames).and_then(|()| peer.write(place, self.poll.registry()));
            if told.is_err() {
                *open = None;
            }
        }
    }
}

impl Peer {
    /// Reads all there is; what the feed says is appended to `fed`.
    fn read(&mut self, head: &[u8], plain: &mut [u8], fed: &mut Vec<u8>) -> io::Result<()> {
        loop {
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            self.tls.process_new_packets().map_err(io::Error::other)?;
            if self.role == Role::Unknown && !self.tls.is_handshaking() {
                self.role = if self.tls.alpn_protocol() == Some(FEED) { Role::Feed } else { Role::Watcher };
                if self.role == Role::Watcher {
                    self.tls.writer().write_all(head)?;
                }
            }
            loop {
                match self.tls.reader().read(plain) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    // What a watcher says is of no interest here.
                    Ok(length) if self.role == Role::Feed => fed.extend_from_slice(&plain[..length]),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
    }

    fn write(&mut self, place: usize, registry: &mio::Registry) -> io::Result<()> {
        let mut blocked = false;
        while self.tls.wants_write() && !blocked {
            match self.tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => blocked = true,
                Err(error) => return Err(error),
            }
        }
        if self.waits_to_write != blocked {
            self.waits_to_write = blocked;
            let interest = if blocked { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
            registry.reregister(&mut self.socket, Token(place + 1), interest)?;
        }
        Ok(())
    }
}
