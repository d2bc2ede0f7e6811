//! A UDP forwarder between one client and a server, which can stop to forward, and remembers what it saw.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;

use super::localhost;

pub struct Forwarder {
    pub addr: SocketAddr,
    black_hole: Arc<AtomicBool>,
    first_bytes: Arc<Mutex<Vec<u8>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Forwarder {
    pub async fn to(server: SocketAddr) -> Forwarder {
        let front = UdpSocket::bind(localhost()).await.unwrap();
        let back = UdpSocket::bind(localhost()).await.unwrap();
        back.connect(server).await.unwrap();
        let addr = front.local_addr().unwrap();
        let black_hole = Arc::new(AtomicBool::new(false));
        let first_bytes = Arc::new(Mutex::new(Vec::new()));
        let (hole, firsts) = (black_hole.clone(), first_bytes.clone());
        let task = tokio::spawn(async move {
            let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
            let mut client = None;
            loop {
                tokio::select! {
                    Ok((len, from)) = front.recv_from(&mut up) => {
                        client = Some(from);
                        if !hole.load(Ordering::SeqCst) {
                            let _ = back.send(&up[..len]).await;
                        }
                    }
                    Ok(len) = back.recv(&mut down) => {
                        firsts.lock().unwrap().push(down[0]);
                        if let Some(client) = client && !hole.load(Ordering::SeqCst) {
                            let _ = front.send_to(&down[..len], client).await;
                        }
                    }
                }
            }
        });
        Forwarder { addr, black_hole, first_bytes, task }
    }

    /// From now on nothing passes, in either direction.
    pub fn swallow(&self) {
        self.black_hole.store(true, Ordering::SeqCst);
    }

    /// The first byte of each datagram that the server has sent.
    pub fn servers_first_bytes(&self) -> Vec<u8> {
        self.first_bytes.lock().unwrap().clone()
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.task.abort();
    }
}
