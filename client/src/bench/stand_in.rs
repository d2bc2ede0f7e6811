//! What a watch or a file is compared with: stand-ins that only pass bytes on, as processes of their own, begun by the tool itself.
//!
//! * `floor`: two processes. The first passes what it is fed on to the second over TLS, which writes it to every watcher from one
//!   loop; where several servers are watched, or one process may not open so many connections, there are as many such second ones.
//!   No gRPC, no signature, no memory of anything: what this machine can do.
//! * `plain`: a bare tonic server that is fed over TLS, and encodes each message anew for each watcher.
//!
//! The watchers are the same as those of a server, and so is what they read. A stand-in ends when its standard input does.

use std::{
    io::{self, BufRead as _, BufReader, Read as _},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
};

use rustls::{
    ClientConfig, ClientConnection, ServerConfig, StreamOwned, crypto,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
    version::TLS13,
};
use serde::{Deserialize, Serialize};
use socp::id::hex;

use crate::{certificate, failure::Failure};

/// The protocol, as TLS names it, by which a stand-in is told what to pass on: four bytes of length, then an encoded
/// `WatchDirectoryResponse`.
pub const FEED: &[u8] = b"feed";

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Bytes over TLS from one loop, by way of another process.
    Floor,
    /// A bare tonic server that encodes for each watcher.
    Plain,
}

impl Kind {
    /// As it stands in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Plain => "plain",
        }
    }
}

/// A process's part; said on a command line that nobody types.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Part {
    /// Passes what it is fed on to other processes.
    Hop {
        /// Their addresses.
        #[arg(long, required = true)]
        onward: Vec<SocketAddr>,
    },
    /// Writes what it is fed to every watcher.
    Fan,
    /// The same, as a tonic server.
    Plain,
}

/// Where a stand-in listens, and by which certificate it is known.
#[derive(Clone, Debug)]
pub struct Door {
    /// The address.
    pub address: SocketAddr,
    /// The certificate.
    pub certificate: CertificateDer<'static>,
}

/// What a stand-in prints when it listens.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Listening {
    pub(super) watch: SocketAddr,
    pub(super) feed: SocketAddr,
    /// In hexadecimal.
    certificate: String,
}

/// The running processes of a stand-in. Dropped, they end.
#[derive(Debug)]
pub struct StandIn {
    processes: Vec<Process>,
    /// Where it is fed.
    pub feed: Door,
    /// Where it is watched, each by a like share.
    pub watches: Vec<Door>,
}

impl StandIn {
    /// Starts one. The floor is watched in so many places, each by a process of its own.
    pub fn start(kind: Kind, places: usize) -> Result<Self, Failure> {
        match kind {
            Kind::Plain => {
                let (process, feed, watch) = Process::start(&["plain"])?;
                Ok(Self { processes: vec![process], feed, watches: vec![watch] })
            }
            Kind::Floor => {
                let (mut processes, mut watches) = (Vec::new(), Vec::new());
                for _ in 0..places.max(1) {
                    let (fan, _, watch) = Process::start(&["fan"])?;
                    processes.push(fan);
                    watches.push(watch);
                }
                let (hop, feed, _) = Process::hop(watches.iter().map(|watch| watch.address))?;
                processes.push(hop);
                Ok(Self { processes, feed, watches })
            }
        }
    }

    /// The ids of its processes.
    pub fn ids(&self) -> Vec<u32> {
        self.processes.iter().map(|process| process.0.id()).collect()
    }
}

/// Two processes, the first of which passes what it is fed on to the second, and that on. Dropped, they end.
#[derive(Debug)]
pub struct Hops {
    processes: [Process; 2],
    /// Where the first is fed.
    pub feed: Door,
}

impl Hops {
    /// Starts both; `onward` has to accept the second one's connection meanwhile.
    pub fn start(onward: SocketAddr) -> Result<Self, Failure> {
        let (second, feed, _) = Process::hop([onward])?;
        let (first, feed, _) = Process::hop([feed.address])?;
        Ok(Self { processes: [first, second], feed })
    }

    /// The ids of its processes.
    pub fn ids(&self) -> [u32; 2] {
        self.processes.each_ref().map(|process| process.0.id())
    }
}

#[derive(Debug)]
struct Process(Child);

impl Process {
    /// Starts one that passes on what it is fed.
    fn hop(onward: impl IntoIterator<Item = SocketAddr>) -> Result<(Self, Door, Door), Failure> {
        let addresses = onward.into_iter().flat_map(|address| ["--onward".to_owned(), address.to_string()]);
        let part: Vec<_> = ["hop".to_owned()].into_iter().chain(addresses).collect();
        Self::start(&part.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Starts a part; gives where it is fed and where it is watched, once it listens.
    fn start(part: &[&str]) -> Result<(Self, Door, Door), Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::failed(format!("a stand-in does not start: {error}"));
        let own = std::env::current_exe().map_err(|error| failed(&error))?;
        let mut command = Command::new(own);
        command.args(["bench", "stand-in"]).args(part).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Self(command.spawn().map_err(|error| failed(&error))?);
        let output = process.0.stdout.take().ok_or_else(|| failed(&"it has no output"))?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).map_err(|error| failed(&error))?;
        let told: Listening = serde_json::from_str(&line).map_err(|_| failed(&"it ended at once"))?;
        let certificate = unhex(&told.certificate).ok_or_else(|| failed(&"it has no certificate"))?;
        let door = |address| Door { address, certificate: CertificateDer::from(certificate.clone()) };
        Ok((process, door(told.feed), door(told.watch)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already is as wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pair = |place: usize| text.get(place..place + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..text.len()).step_by(2).map(pair).collect()
}

/// What a part is known by: a certificate made for this run.
pub(super) struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
}

impl Identity {
    pub(super) fn make() -> Result<Self, Failure> {
        let failed = |error: rcgen::Error| Failure::failed(format!("no certificate can be made: {error}"));
        let key = rcgen::KeyPair::generate().map_err(failed)?;
        let certificate = rcgen::CertificateParams::new(["localhost".to_owned()]).map_err(failed)?;
        let certificate = certificate.self_signed(&key).map_err(failed)?.der().clone();
        Ok(Self { certificate, key: key.serialize_der().into() })
    }

    pub(super) fn tls(&self, protocols: &[&[u8]]) -> Result<Arc<ServerConfig>, Failure> {
        let failed = |error: rustls::Error| Failure::failed(format!("TLS cannot be set up: {error}"));
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(failed)?
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], PrivateKeyDer::Pkcs8(self.key.clone_key()))
            .map_err(failed)?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// Prints where the part listens, and has the process end with its standard input.
    pub(super) fn announce(&self, watch: SocketAddr, feed: SocketAddr) -> Result<(), Failure> {
        let listening = Listening { watch, feed, certificate: hex(&self.certificate) };
        let line = serde_json::to_string(&listening).map_err(|error| Failure::failed(error.to_string()))?;
        println!("{line}");
        thread::spawn(|| {
            let mut nothing = [0; 64];
            while !matches!(std::io::stdin().read(&mut nothing), Ok(0) | Err(_)) {}
            std::process::exit(0);
        });
        Ok(())
    }
}

/// What whoever feeds a part says of TLS.
pub(super) fn feeding() -> Result<Arc<ClientConfig>, Failure> {
    let mut tls = certificate::tls(None)?;
    tls.alpn_protocols = vec![FEED.to_vec()];
    Ok(Arc::new(tls))
}

/// Connects to where a part is fed; hands are shaken with the first bytes.
pub(super) fn feed(address: SocketAddr) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let tls = feeding().map_err(|failure| io::Error::other(failure.message))?;
    let tls = ClientConnection::new(tls, ServerName::IpAddress(address.ip().into())).map_err(io::Error::other)?;
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    Ok(StreamOwned::new(tls, socket))
}

/// Takes whole messages of a feed from what was read so far; gives the rest.
pub(super) fn fed<'a>(mut bytes: &'a [u8], each: &mut impl FnMut(&[u8])) -> &'a [u8] {
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let Some((message, rest)) = rest.split_at_checked(u32::from_be_bytes(*length) as usize) else { break };
        each(message);
        bytes = rest;
    }
    bytes
}

/// Is a part, until its standard input ends.
pub async fn run(part: Part) -> Result<(), Failure> {
    match part {
        Part::Hop { onward } => crate::sending::blocking(move || super::floor::hop(&onward)).await,
        Part::Fan => crate::sending::blocking(super::floor::fan).await,
        Part::Plain => super::plain::serve().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_is_cut_into_its_messages() {
        let bytes = [0, 0, 0, 2, 7, 8, 0, 0, 0, 0, 0, 0, 0, 3, 1];
        let mut all = Vec::new();
        assert_eq!(fed(&bytes, &mut |message| all.push(message.to_vec())), [0, 0, 0, 3, 1]);
        assert_eq!(all, [vec![7, 8], vec![]]);
    }

    #[test]
    fn hexadecimal_is_read_back() {
        assert_eq!(unhex(&hex(&[0, 1, 0xfe])), Some(vec![0, 1, 0xfe]));
        assert_eq!((unhex("0"), unhex("zz")), (None, None));
    }
}
