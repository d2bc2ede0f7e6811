//! A way to a server that can be cut, as when a cable is pulled: packets stop, and nobody is told.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket},
};

use super::{mesh, soon};

/// A port that passes everything on, TCP and UDP, until it is cut.
pub struct Forward {
    /// Where to connect.
    pub address: SocketAddr,
    is_cut: Arc<AtomicBool>,
}

impl Forward {
    /// Begins to pass on to `target`.
    pub fn to(target: SocketAddr) -> Self {
        let address = mesh::address();
        let is_cut = Arc::new(AtomicBool::new(false));
        soon(async {
            let listener = TcpListener::bind(address).await.expect("the port is free");
            let socket = UdpSocket::bind(address).await.expect("the port is free");
            tokio::spawn(forward_tcp(listener, target, Arc::clone(&is_cut)));
            tokio::spawn(forward_udp(Arc::new(socket), target, Arc::clone(&is_cut)));
        });
        Self { address, is_cut }
    }

    /// Passes TCP on; on UDP nobody answers, as behind many a firewall.
    pub fn tcp_only(target: SocketAddr) -> Self {
        let address = mesh::address();
        let is_cut = Arc::new(AtomicBool::new(false));
        soon(async {
            let listener = TcpListener::bind(address).await.expect("the port is free");
            tokio::spawn(forward_tcp(listener, target, Arc::clone(&is_cut)));
        });
        Self { address, is_cut }
    }

    /// Passes nothing on from here.
    pub fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
    }
}

async fn forward_tcp(listener: TcpListener, target: SocketAddr, is_cut: Arc<AtomicBool>) {
    while let Ok((near, _)) = listener.accept().await {
        let Ok(far) = tokio::net::TcpStream::connect(target).await else { continue };
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let (near_in, near_out) = near.into_split();
        let (far_in, far_out) = far.into_split();
        tokio::spawn(pass(near_in, far_out, Arc::clone(&is_cut)));
        tokio::spawn(pass(far_in, near_out, Arc::clone(&is_cut)));
    }
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, is_cut: Arc<AtomicBool>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        if is_cut.load(Ordering::SeqCst) {
            // Both ends stay open, and hear nothing.
            std::future::pending::<()>().await;
        }
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

async fn forward_udp(near: Arc<UdpSocket>, target: SocketAddr, is_cut: Arc<AtomicBool>) {
    let mut ways: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut buffer = vec![0; 64 * 1024];
    while let Ok((read, client)) = near.recv_from(&mut buffer).await {
        if is_cut.load(Ordering::SeqCst) {
            continue;
        }
        let far = match ways.get(&client) {
            Some(far) => Arc::clone(far),
            None => {
                let far = UdpSocket::bind("127.0.0.1:0").await.expect("there is a port");
                far.connect(target).await.expect("the target is on this machine");
                let far = Arc::new(far);
                tokio::spawn(return_udp(Arc::clone(&far), Arc::clone(&near), client, Arc::clone(&is_cut)));
                ways.insert(client, Arc::clone(&far));
                far
            }
        };
        let _ = far.send(&buffer[..read]).await;
    }
}

async fn return_udp(far: Arc<UdpSocket>, near: Arc<UdpSocket>, client: SocketAddr, is_cut: Arc<AtomicBool>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        // A target that is not there shows as an error, and may come back.
        let Ok(read) = far.recv(&mut buffer).await else { continue };
        if !is_cut.load(Ordering::SeqCst) {
            let _ = near.send_to(&buffer[..read], client).await;
        }
    }
}
