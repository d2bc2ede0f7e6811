//! Who is on the other end of a call, and the handle with which a handler ends the whole connection.
//!
//! The type knows no transport: a TCP listener that speaks HTTP/2 makes the same [`PeerInfo`] and puts it into its requests,
//! so that handlers need not know how a client came. Whether the certificate fits the name that the peer claims is for the
//! handler to decide.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::sync::Notify;

use crate::closed::Closed;

/// The peer of a connection; a request extension in every handler.
///
/// Cheap to clone; all clones mean the same connection. Keeping one does not keep the connection open.
#[derive(Clone)]
pub struct PeerInfo {
    link: Arc<Link>,
}

struct Link {
    id: u64,
    address: Box<dyn Fn() -> SocketAddr + Send + Sync>,
    round_trip: Box<dyn Fn() -> Option<Duration> + Send + Sync>,
    certificates: Option<Arc<[CertificateDer<'static>]>>,
    close: Once<String>,
    ended: Once<Closed>,
}

/// What is said once at most, and whoever waits for it. A fifth of the size of a `watch` channel, and there are two to each
/// connection.
struct Once<T> {
    value: OnceLock<T>,
    said: Notify,
}

impl<T: Clone> Once<T> {
    fn new() -> Self {
        Self { value: OnceLock::new(), said: Notify::new() }
    }

    /// Says it, unless something was said before.
    fn say(&self, value: T) {
        if self.value.set(value).is_ok() {
            self.said.notify_waiters();
        }
    }

    /// Waits until it is said; at once if it was.
    async fn heard(&self) -> T {
        loop {
            // Made before the look: from here on nothing said is missed.
            let said = self.said.notified();
            if let Some(value) = self.value.get() {
                return value.clone();
            }
            said.await;
        }
    }
}

impl PeerInfo {
    /// Describes a connection whose remote address never changes, as TCP's.
    ///
    /// The [`ConnectionDriver`] stays with the code that owns the connection: it learns from it that a handler wants the
    /// connection closed, and tells through it that the connection has ended. `certificates` are those that TLS has
    /// verified, the peer's own first; `None` when the peer sent none.
    pub fn new(
        remote_addr: SocketAddr,
        certificates: Option<Arc<[CertificateDer<'static>]>>,
    ) -> (PeerInfo, ConnectionDriver) {
        PeerInfo::moving(move || remote_addr, || None, certificates)
    }

    /// Describes a connection whose remote address and round-trip time may change, as QUIC's; both are asked for each time.
    pub fn moving(
        address: impl Fn() -> SocketAddr + Send + Sync + 'static,
        round_trip: impl Fn() -> Option<Duration> + Send + Sync + 'static,
        certificates: Option<Arc<[CertificateDer<'static>]>>,
    ) -> (PeerInfo, ConnectionDriver) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let link = Arc::new(Link {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            address: Box::new(address),
            round_trip: Box::new(round_trip),
            certificates,
            close: Once::new(),
            ended: Once::new(),
        });
        (PeerInfo { link: link.clone() }, ConnectionDriver { link })
    }

    /// Finds the peer of a request; `None` if the transport put none in.
    pub fn of<T>(request: &tonic::Request<T>) -> Option<&PeerInfo> {
        request.extensions().get::<PeerInfo>()
    }

    /// The address that the peer has now; over QUIC it may change while a connection lives.
    pub fn remote_addr(&self) -> SocketAddr {
        (self.link.address)()
    }

    /// The last estimate of the round-trip time; `None` if the transport has none.
    pub fn round_trip_time(&self) -> Option<Duration> {
        (self.link.round_trip)()
    }

    /// The certificates that the peer has proved to own, its own first; `None` when it sent none.
    pub fn certificates(&self) -> Option<Arc<[CertificateDer<'static>]>> {
        self.link.certificates.clone()
    }

    /// A number that no other connection of this process has or will have, on any transport. Never 0.
    pub fn connection_id(&self) -> u64 {
        self.link.id
    }

    /// Closes the whole connection at once, with all its calls; the peer is told `reason`.
    ///
    /// Of several calls the first one's reason counts. The calling handler is itself dropped soon after.
    pub fn close(&self, reason: &str) {
        self.link.close.say(reason.to_owned());
    }

    /// Waits until the connection has ended, for whatever cause; at once if it has.
    ///
    /// To be awaited outside of the connection's handlers, which do not outlive it.
    pub async fn closed(&self) -> Closed {
        self.link.ended.heard().await
    }
}

impl fmt::Debug for PeerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerInfo")
            .field("connection_id", &self.link.id)
            .field("remote_addr", &self.remote_addr())
            .field("certificates", &self.link.certificates.as_ref().map(|chain| chain.len()))
            .finish()
    }
}

/// The transport's side of a [`PeerInfo`]. Dropping it says that the connection has ended.
pub struct ConnectionDriver {
    link: Arc<Link>,
}

impl ConnectionDriver {
    /// Waits until a handler asks for the connection to be closed, and yields its reason. May be dropped and called anew.
    pub async fn close_requested(&self) -> String {
        self.link.close.heard().await
    }

    /// Says why the connection has ended. A reason given to [`PeerInfo::close`] stands in for an empty `Here`.
    pub fn ended(self, why: Closed) {
        let why = match (why, self.link.close.value.get()) {
            (Closed::Here { reason }, Some(asked)) if reason.is_empty() => Closed::Here { reason: asked.clone() },
            (why, _) => why,
        };
        self.link.ended.say(why);
    }
}

impl Drop for ConnectionDriver {
    fn drop(&mut self) {
        let reason = self.link.close.value.get().cloned().unwrap_or_default();
        self.link.ended.say(Closed::Here { reason });
    }
}

impl fmt::Debug for ConnectionDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionDriver").field("connection_id", &self.link.id).finish()
    }
}
