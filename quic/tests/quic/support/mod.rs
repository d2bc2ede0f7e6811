//! What tests share: certificates, a service made of closures, a server around it, and peers that misbehave.

pub mod certs;
pub mod forward;
pub mod raw;
pub mod service;

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use socp_quic::{Channel, ClientConfig, Gauges, Server, ServerConfig};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::service::Routes;

pub use certs::Certs;
pub use service::{Script, client, message, messages};

/// Awaits an event that must come; the time is for machines under load, not a claim about speed.
pub async fn soon<F: Future>(event: F) -> F::Output {
    timeout(Duration::from_secs(20), event).await.expect("the event came in time")
}

/// Polls a future once.
pub async fn once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// A server with a scripted service, and what it takes to call it.
pub struct Served {
    pub addr: SocketAddr,
    pub certs: Certs,
    pub gauges: Gauges,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl Served {
    pub fn new(script: Script) -> Served {
        Served::with(script, ServerConfig::default())
    }

    pub fn with(script: Script, config: ServerConfig) -> Served {
        let certs = Certs::new();
        let server = Server::bind(localhost(), certs.server(), config).expect("the port is free");
        Served::start(server, Routes::new(script), certs)
    }

    pub fn start(server: Server, routes: Routes, certs: Certs) -> Served {
        let (stop, stopped) = oneshot::channel();
        Served {
            addr: server.local_addr(),
            certs,
            gauges: server.gauges(),
            stop: Some(stop),
            serving: tokio::spawn(server.serve(routes, async {
                let _ = stopped.await;
            })),
        }
    }

    /// A connected channel without a client certificate.
    pub async fn channel(&self) -> Channel {
        self.channel_with(ClientConfig::default()).await
    }

    pub async fn channel_with(&self, config: ClientConfig) -> Channel {
        let channel = Channel::builder(self.addr, "localhost", self.certs.client());
        soon(channel.config(config).connect()).await.expect("the server is there")
    }

    /// Asks the server to drain; it returns when [`Served::stopped`] does.
    pub fn stop(&mut self) {
        let stop = self.stop.take().expect("stopped once only");
        stop.send(()).expect("the server runs");
    }

    pub async fn stopped(self) {
        soon(self.serving).await.expect("the server does not panic");
    }

    /// Drops the serving future.
    pub fn abort(self) {
        self.serving.abort();
    }

    /// Waits until no handler is left; fails if one leaks.
    pub async fn no_handler_left(&self) {
        soon(async {
            while self.gauges.live_handlers() != 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

pub fn localhost() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// Says that it was dropped.
pub struct DropGuard(mpsc::UnboundedSender<()>);

impl Drop for DropGuard {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// Makes guards, and hears of their drop.
pub struct Drops {
    sender: mpsc::UnboundedSender<()>,
    dropped: mpsc::UnboundedReceiver<()>,
}

impl Drops {
    pub fn new() -> Drops {
        let (sender, dropped) = mpsc::unbounded_channel();
        Drops { sender, dropped }
    }

    /// A maker of guards that closures can own.
    pub fn maker(&self) -> impl Fn() -> DropGuard + Send + Sync + Clone + 'static {
        let sender = self.sender.clone();
        move || DropGuard(sender.clone())
    }

    /// Waits until a guard is dropped.
    pub async fn one(&mut self) {
        soon(self.dropped.recv()).await.expect("a sender is here");
    }

    /// Tells whether a guard has been dropped that nobody waited for.
    pub fn any(&mut self) -> bool {
        self.dropped.try_recv().is_ok()
    }
}

/// A counter of events that closures can own: `hit` in the handler, `one` in the test.
pub struct Events<T> {
    sender: mpsc::UnboundedSender<T>,
    events: mpsc::UnboundedReceiver<T>,
}

impl<T: Send + 'static> Events<T> {
    pub fn new() -> Events<T> {
        let (sender, events) = mpsc::unbounded_channel();
        Events { sender, events }
    }

    pub fn sender(&self) -> mpsc::UnboundedSender<T> {
        self.sender.clone()
    }

    pub async fn one(&mut self) -> T {
        soon(self.events.recv()).await.expect("a sender is here")
    }
}
