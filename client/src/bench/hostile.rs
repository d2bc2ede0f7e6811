//! Watchers that nobody wants, beside the honest ones: they stop reading, read a byte a second, or connect in a loop.
//!
//! Each asks for whole key statements over a connection of its own, and comes again when the server has ended it.

use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clap::ValueEnum as _;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::sleep,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{call::Calls, plan::Aim};
use crate::failure::Failure;

/// Hostile watchers of each kind.
const COUNT_MAX: usize = 10_000;

/// Pause before one comes again, so that it is the server that has to bear it, not the tool: ten times a second.
const AGAIN: Duration = Duration::from_millis(100);

/// How long one is frozen: longer than a server waits for a sign of life.
const FROZEN: Duration = Duration::from_secs(10);

/// How long one waits between two bytes.
const APART: Duration = Duration::from_secs(1);

/// Bytes that a server may send to one that stops reading: less than a present state with some keys.
const WINDOW: u32 = 16 * 1024;

/// Bytes that the system takes for one that reads little or nothing: the least there is, so that the server has the rest.
const KERNEL_BYTES: u32 = 4 * 1024;

/// How a watcher is hostile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Manner {
    /// Takes 16 KiB and no more, though it says that it lives.
    Stopped,
    /// Reads nothing, and says nothing, as a process that is stopped; the server gives it up, and it comes again.
    Frozen,
    /// Reads a byte a second.
    Slow,
    /// Leaves at the first message and comes again, up to ten times a second.
    Looping,
}

/// So many of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    manner: Manner,
    count: usize,
}

impl Group {
    /// How many.
    pub fn count(&self) -> usize {
        self.count
    }
}

impl FromStr for Group {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (manner, count) = text.split_once('=').ok_or("a kind, `=` and a number")?;
        let manner = Manner::from_str(manner, false)?;
        let count = count.parse().ok().filter(|count| (1..=COUNT_MAX).contains(count));
        Ok(Self { manner, count: count.ok_or(format!("from 1 to {COUNT_MAX}"))? })
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let manner = self.manner.to_possible_value().expect("every kind has a name");
        write!(f, "{} {}", self.count, manner.get_name())
    }
}

/// What hostile watchers did.
#[derive(Debug, Default)]
pub struct Deeds {
    /// Watches asked for.
    pub begun: AtomicU64,
    /// Those that did not end by the watcher's own will.
    pub ended: AtomicU64,
}

/// Hostile watchers at work. Dropped, they leave.
#[derive(Debug)]
pub struct Hostile {
    _tasks: JoinSet<()>,
    /// How many there are.
    pub count: u64,
}

impl Hostile {
    /// Has them come.
    pub fn come(groups: &[Group], aim: &Aim, tls: &ClientConfig, deeds: &Arc<Deeds>) -> Self {
        let mut tls = tls.clone();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let (tls, aim) = (TlsConnector::from(Arc::new(tls)), Arc::new(aim.clone()));
        let mut tasks = JoinSet::new();
        for Group { manner, count } in groups {
            for _ in 0..*count {
                let (manner, aim, tls, deeds) = (*manner, Arc::clone(&aim), tls.clone(), Arc::clone(deeds));
                tasks.spawn(async move {
                    loop {
                        // Whatever became of it, it comes again.
                        if visit(manner, &aim, &tls, &deeds).await.is_err() {
                            deeds.ended.fetch_add(1, Ordering::Relaxed);
                        }
                        sleep(AGAIN).await;
                    }
                });
            }
        }
        Self { count: tasks.len() as u64, _tasks: tasks }
    }
}

/// Watches once; an error says that the server or the system ended it.
async fn visit(manner: Manner, aim: &Aim, tls: &TlsConnector, deeds: &Deeds) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("a hostile watcher was lost: {error}"));
    let socket = if aim.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(failed)?;
    if manner != Manner::Looping {
        socket.set_recv_buffer_size(KERNEL_BYTES).map_err(failed)?;
    }
    let tcp = socket.connect(aim.address).await.map_err(failed)?;
    tcp.set_nodelay(true).map_err(failed)?;
    let name = ServerName::IpAddress(aim.address.ip().into());
    let mut stream = tls.connect(name, tcp).await.map_err(failed)?;
    if stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()) != Some(&aim.certificate) {
        return Err(Failure::failed("it shows another certificate than before"));
    }
    let (mut calls, first) = match manner {
        Manner::Stopped => Calls::begin_short(WINDOW, &aim.request),
        Manner::Frozen | Manner::Slow | Manner::Looping => Calls::begin(&aim.request, &[Vec::new()]),
    };
    stream.write_all(&first).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;
    deeds.begun.fetch_add(1, Ordering::Relaxed);
    match manner {
        Manner::Stopped => read(&mut stream, &mut calls, false).await.map_err(failed),
        Manner::Looping => read(&mut stream, &mut calls, true).await.map_err(failed),
        Manner::Frozen => {
            sleep(FROZEN).await;
            Ok(())
        }
        Manner::Slow => {
            let (mut tcp, mut byte) = (stream.into_inner().0, [0]);
            while tcp.read(&mut byte).await.map_err(failed)? > 0 {
                sleep(APART).await;
            }
            Err(Failure::failed("the server closed the connection"))
        }
    }
}

/// Reads what may come, to its end or to the first message.
async fn read(stream: &mut TlsStream<TcpStream>, calls: &mut Calls, once: bool) -> std::io::Result<()> {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let length = stream.read(&mut bytes).await?;
        if length == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let (mut out, mut messages) = (Vec::new(), 0);
        calls
            .receive(&bytes[..length], &mut out, &mut |_, _| messages += 1)
            .map_err(|broken| std::io::Error::other(broken.to_string()))?;
        stream.write_all(&out).await?;
        stream.flush().await?;
        if once && messages > 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_a_kind_and_a_number_within_the_limit() {
        for (text, manner, count) in [("stopped=1", Manner::Stopped, 1), ("looping=10000", Manner::Looping, COUNT_MAX)]
        {
            assert_eq!(text.parse(), Ok(Group { manner, count }));
        }
        assert_eq!("slow=7".parse::<Group>().unwrap().to_string(), "7 slow");
        for wrong in ["", "slow", "slow=", "slow=0", "slow=10001", "slow=x", "quick=1"] {
            assert!(wrong.parse::<Group>().is_err(), "{wrong}");
        }
    }
}
