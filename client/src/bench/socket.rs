//! One connection of watchers: decrypts, hands over, answers.

use std::io::{self, Read as _, Write as _};

use mio::{Interest, Registry, Token, net::TcpStream};
use rustls::ClientConnection;

use super::{
    call::Calls,
    clock,
    seat::Seat,
    tally::{Schedule, Tally},
};

/// A connection with those who sit at it.
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    pub(super) tls: ClientConnection,
    pub(super) aim: usize,
    pub(super) calls: Calls,
    /// What is to be sent once hands are shaken.
    pub(super) first: Vec<u8>,
    /// One for each stream.
    pub(super) seats: Vec<Seat>,
    pub(super) waits_to_write: bool,
}

impl Connection {
    /// Reads what was decrypted; gives how many watchers are in step with it.
    pub(super) fn read(
        &mut self,
        schedule: &Schedule,
        tally: &mut Tally,
        plain: &mut [u8],
        keeps_token: bool,
    ) -> Result<usize, String> {
        let Self { tls, calls, seats, .. } = self;
        let (mut out, mut synced) = (Vec::new(), 0);
        loop {
            let length = match tls.reader().read(plain) {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(length) => length,
                Err(error) if is_early(&error) => break,
                Err(error) => return Err(error.to_string()),
            };
            let mut astray = None;
            let now_ns = clock::now_ns();
            let each = &mut |stream: usize, message: &[u8]| match seats[stream].take(
                message,
                now_ns,
                schedule,
                tally,
                keeps_token,
            ) {
                Ok(is_new) => synced += usize::from(is_new),
                Err(why) => astray = Some(why),
            };
            calls.receive(&plain[..length], &mut out, each).map_err(|broken| broken.to_string())?;
            if let Some(astray) = astray {
                return Err(astray.to_string());
            }
        }
        if !out.is_empty() {
            tls.writer().write_all(&out).map_err(|error| error.to_string())?;
        }
        Ok(synced)
    }

    pub(super) fn write(&mut self, place: usize, registry: &Registry) -> Result<(), String> {
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
pub(super) fn is_early(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::NotConnected)
}

/// Notes whether the socket had less than was asked for: then it is empty, and need not be asked again to be sure.
pub(super) struct Noting<'a> {
    pub(super) socket: &'a mut TcpStream,
    pub(super) short: bool,
}

impl io::Read for Noting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.socket.read(buffer)?;
        self.short = length < buffer.len();
        Ok(length)
    }
}
