//! A way to a server that can be cut, as when a cable is pulled: packets stop, and nobody is told. Or broken, as when a
//! router starts anew: connections end at once, and none comes about until it is healed.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
};

use super::{mesh, soon};

/// What the way does.
#[derive(Clone, Copy, Default)]
struct State {
    is_cut: bool,
    is_broken: bool,
    /// How often it broke: a connection ends with the first break after it began.
    breaks: u64,
    /// Bytes passed on over TCP, both ways.
    passed: u64,
    /// At how many of them it breaks.
    break_at: Option<u64>,
}

/// A port that passes everything on, TCP and UDP, until it is cut or broken.
pub struct Forward {
    /// Where to connect.
    pub address: SocketAddr,
    state: Arc<watch::Sender<State>>,
}

impl Forward {
    /// Begins to pass on to `target`.
    pub fn to(target: SocketAddr) -> Self {
        let way = Self::tcp_only(target);
        soon(async {
            let socket = UdpSocket::bind(way.address).await.expect("the port is free");
            tokio::spawn(forward_udp(Arc::new(socket), target, way.state.subscribe()));
        });
        way
    }

    /// Passes TCP on; on UDP nobody answers, as behind many a firewall.
    pub fn tcp_only(target: SocketAddr) -> Self {
        let (address, state) = (mesh::address(), Arc::<watch::Sender<State>>::default());
        soon(async {
            let listener = TcpListener::bind(address).await.expect("the port is free");
            tokio::spawn(forward_tcp(listener, target, Arc::clone(&state)));
        });
        Self { address, state }
    }

    /// Passes nothing on from here.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.is_cut = true);
    }

    /// Ends all connections, and every new one, until [`Forward::heal`]; UDP packets are lost.
    #[allow(dead_code, reason = "the tests with other people's programs break connections")]
    pub fn break_off(&self) {
        self.state.send_modify(|state| {
            state.is_broken = true;
            state.breaks += 1;
        });
    }

    /// The same once so many more bytes were passed on over TCP, both ways.
    #[allow(dead_code, reason = "the tests with other people's programs break connections")]
    pub fn break_after(&self, bytes: u64) {
        self.state.send_modify(|state| state.break_at = Some(state.passed + bytes));
    }

    /// Waits until it is broken.
    #[allow(dead_code, reason = "the tests with other people's programs break connections")]
    #[track_caller]
    pub fn broke(&self) {
        let mut state = self.state.subscribe();
        let _ = soon(async { state.wait_for(|now| now.is_broken).await.map(drop) });
    }

    /// Bytes passed on over TCP so far, both ways.
    #[allow(dead_code, reason = "the tests with other people's programs break connections")]
    pub fn passed(&self) -> u64 {
        self.state.borrow().passed
    }

    /// Passes new connections on again.
    #[allow(dead_code, reason = "the tests with other people's programs break connections")]
    pub fn heal(&self) {
        self.state.send_modify(|state| state.is_broken = false);
    }
}

async fn forward_tcp(listener: TcpListener, target: SocketAddr, state: Arc<watch::Sender<State>>) {
    while let Ok((near, _)) = listener.accept().await {
        let began = *state.borrow();
        if began.is_broken {
            continue;
        }
        let Ok(far) = TcpStream::connect(target).await else { continue };
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let (near_in, near_out) = near.into_split();
        let (far_in, far_out) = far.into_split();
        for passing in [pass(near_in, far_out, Arc::clone(&state)), pass(far_in, near_out, Arc::clone(&state))] {
            let mut state = state.subscribe();
            tokio::spawn(async move {
                tokio::select! {
                    () = passing => {}
                    Ok(_) = state.wait_for(|now| now.breaks > began.breaks) => {}
                }
            });
        }
    }
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, state: Arc<watch::Sender<State>>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        if state.borrow().is_cut {
            // Both ends stay open, and hear nothing.
            std::future::pending::<()>().await;
        }
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
        count(&state, read);
    }
}

fn count(state: &watch::Sender<State>, read: usize) {
    state.send_if_modified(|state| {
        state.passed += read as u64;
        let breaks = state.break_at.is_some_and(|at| state.passed >= at);
        if breaks {
            (state.break_at, state.is_broken) = (None, true);
            state.breaks += 1;
        }
        breaks
    });
}

async fn forward_udp(near: Arc<UdpSocket>, target: SocketAddr, state: watch::Receiver<State>) {
    let mut ways: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut buffer = vec![0; 64 * 1024];
    while let Ok((read, client)) = near.recv_from(&mut buffer).await {
        if is_silent(&state) {
            continue;
        }
        let far = match ways.get(&client) {
            Some(far) => Arc::clone(far),
            None => {
                let far = UdpSocket::bind("127.0.0.1:0").await.expect("there is a port");
                far.connect(target).await.expect("the target is on this machine");
                let far = Arc::new(far);
                tokio::spawn(return_udp(Arc::clone(&far), Arc::clone(&near), client, state.clone()));
                ways.insert(client, Arc::clone(&far));
                far
            }
        };
        let _ = far.send(&buffer[..read]).await;
    }
}

async fn return_udp(far: Arc<UdpSocket>, near: Arc<UdpSocket>, client: SocketAddr, state: watch::Receiver<State>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        // A target that is not there shows as an error, and may come back.
        let Ok(read) = far.recv(&mut buffer).await else { continue };
        if !is_silent(&state) {
            let _ = near.send_to(&buffer[..read], client).await;
        }
    }
}

fn is_silent(state: &watch::Receiver<State>) -> bool {
    let state = *state.borrow();
    state.is_cut || state.is_broken
}
