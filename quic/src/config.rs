//! Every limit and time of both ends, with its unit, default and reason, and their translation to QUIC transport parameters.
//!
//! The defaults suit a server on the open internet that holds thousands of quiet connections. What costs memory for each
//! idle connection is the number of streams that the peer may open (quinn prepares for all of them), so those stay small;
//! windows cost nothing until somebody stalls.

use std::sync::Arc;
use std::time::Duration;

use quinn::{IdleTimeout, TransportConfig, VarInt};

use crate::farewell;
use crate::per_peer::PerPeer;
use crate::reset::ResetSecret;

/// A setting that QUIC cannot express, such as an idle timeout above 2^62 ms, or no stream at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{setting}` is out of range: {reason}")]
pub struct ConfigError {
    setting: &'static str,
    reason: &'static str,
}

/// Limits and times of a [`Server`](crate::Server). Change what is needed and take the rest from `default()`.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Time a client has to finish the QUIC and TLS handshake. Default 5 s: two lost packets on a slow path fit.
    pub handshake_time_max: Duration,
    /// Handshakes under way at once; more are refused. Default 256: each costs a signature and some 20 KiB.
    pub handshakes_max: usize,
    /// Handshakes under way from which on a client must first prove its address (a Retry packet, one more round trip).
    /// Default 64: forged addresses then cost the server no memory, and quiet times cost clients no round trip.
    pub handshakes_before_retry: usize,
    /// Connections open at once; more are refused. Default 10,000: about 600 MiB when all are idle.
    pub connections_max: usize,
    /// Requests that one connection may have open at once. Default 100, the least that RFC 9114 advises.
    pub streams_max: u32,
    /// Of these, those that it may open to begin with. Default 8; at most `streams_max` count. Once it has half as many open, it may
    /// open `streams_max`, and a round trip later knows.
    ///
    /// About 80 bytes per connection and stream are held from the moment it may be opened, used or not.
    pub streams_first: u32,
    /// Unidirectional streams that the client may open. Default 8: HTTP/3 needs 3, the rest is for unknown kinds, which
    /// peers may send and which are refused one by one. Less than 3 is an error.
    pub uni_streams_max: u32,
    /// Bytes of a request's headers, as RFC 9114, section 4.2.2, counts them (32 more for each field). Default 16 KiB.
    /// A request above it is reset with `H3_EXCESSIVE_LOAD`, which gRPC calls `RESOURCE_EXHAUSTED`.
    pub header_bytes_max: u32,
    /// Time from the opening of a stream until the request's headers are complete. Default 10 s. Streams that exceed it are
    /// reset; without it a client could hold streams open for nothing.
    pub head_time_max: Duration,
    /// Requests that one connection may carry in its whole life, after which it is drained as in a shutdown and the client
    /// connects anew. Default 1,000,000: bounds whatever grows by a few bytes per request, and is out of the way otherwise.
    pub requests_max: u64,
    /// Streams of one connection that never became a request (no headers, too many, too late, reset before), after which
    /// the connection is drained. Default 10,000: h3 keeps 16 bytes for each of them.
    pub broken_requests_max: u64,
    /// Bytes that a client may send on one stream beyond what the handler has read. Default 128 KiB.
    pub stream_window_bytes: u32,
    /// Bytes that a client may send on one connection beyond what handlers have read. Default 2 MiB, so that 15 handlers
    /// that stall do not stop the sixteenth stream of the same connection.
    pub connection_window_bytes: u32,
    /// Bytes sent to one client and not yet acknowledged, over all streams. Default 1 MiB: what a client that vanishes
    /// can make the server hold.
    pub send_window_bytes: u64,
    /// Time without a packet after which the client is given up for lost, and its handlers are dropped. Default 10 s.
    /// The smaller of both ends' values counts.
    pub idle_timeout: Duration,
    /// Time of silence after which a packet is sent to keep the connection alive. Default 2 s, a fifth of the idle timeout,
    /// so that four lost packets do no harm; each costs the server two packets, so that ten thousand quiet connections keep
    /// a good part of a core busy. `None` leaves it to the client.
    pub keep_alive: Option<Duration>,
    /// Time without a request under way, whole or not, after which a connection is closed. Default `None`: a client may be quiet for
    /// long. For a server whose clients always have one, this is what a connection that is not used may hold its place for.
    pub bare_time_max: Option<Duration>,
    /// A bound for each peer by its certificate, beside `connections_max` for all. Default `None`: most clients have none.
    pub per_peer: Option<PerPeer>,
    /// Time that running calls have to end once the server drains. Default 30 s; afterwards the connection is closed under
    /// them, which clients see as `UNAVAILABLE`.
    pub drain_time_max: Duration,
    /// Lets clients notice at once that the server was killed and started anew: their next packet is answered with a
    /// stateless reset ([`Closed::Forgotten`](crate::Closed::Forgotten)). Default `None`: the keys are random at each start,
    /// and clients of an earlier one wait for their idle timeout.
    pub reset_secret: Option<ResetSecret>,
}

impl Default for ServerConfig {
    fn default() -> ServerConfig {
        ServerConfig {
            handshake_time_max: Duration::from_secs(5),
            handshakes_max: 256,
            handshakes_before_retry: 64,
            connections_max: 10_000,
            streams_max: 100,
            streams_first: 8,
            uni_streams_max: 8,
            header_bytes_max: 16 * 1024,
            head_time_max: Duration::from_secs(10),
            requests_max: 1_000_000,
            broken_requests_max: 10_000,
            stream_window_bytes: 128 * 1024,
            connection_window_bytes: 2 * 1024 * 1024,
            send_window_bytes: 1024 * 1024,
            idle_timeout: Duration::from_secs(10),
            keep_alive: Some(Duration::from_secs(2)),
            bare_time_max: None,
            per_peer: None,
            drain_time_max: Duration::from_secs(30),
            reset_secret: None,
        }
    }
}

/// Limits and times of a [`Channel`](crate::Channel). Change what is needed and take the rest from `default()`.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Time for one attempt to connect, handshake and HTTP/3 settings included. Default 5 s.
    pub connect_time_max: Duration,
    /// Unidirectional streams that the server may open. Default 8: HTTP/3 needs 3, the rest is for unknown kinds. Less
    /// than 3 is an error. A server may open no bidirectional stream at all: HTTP/3 has none.
    pub uni_streams_max: u32,
    /// Bytes of a response's headers, and of its trailers, as RFC 9114, section 4.2.2, counts them. Default 16 KiB.
    pub header_bytes_max: u32,
    /// Bytes that the server may send on one stream beyond what the caller has read. Default 128 KiB.
    pub stream_window_bytes: u32,
    /// Bytes that the server may send on the connection beyond what callers have read. Default 2 MiB, so that 15 streams
    /// that nobody reads do not stop the sixteenth.
    pub connection_window_bytes: u32,
    /// Bytes sent to the server and not yet acknowledged, over all streams. Default 1 MiB.
    pub send_window_bytes: u64,
    /// Time without a packet after which the connection is given up for lost. Default 10 s. The smaller of both ends'
    /// values counts.
    pub idle_timeout: Duration,
    /// Time of silence after which a packet is sent to keep the connection alive. Default 2 s, a fifth of the idle timeout.
    /// `None` lets the connection end when it is idle and the server does not keep it alive.
    pub keep_alive: Option<Duration>,
}

impl Default for ClientConfig {
    fn default() -> ClientConfig {
        ClientConfig {
            connect_time_max: Duration::from_secs(5),
            uni_streams_max: 8,
            header_bytes_max: 16 * 1024,
            stream_window_bytes: 128 * 1024,
            connection_window_bytes: 2 * 1024 * 1024,
            send_window_bytes: 1024 * 1024,
            idle_timeout: Duration::from_secs(10),
            keep_alive: Some(Duration::from_secs(2)),
        }
    }
}

impl ServerConfig {
    /// How many requests make a connection one that may have `streams_max`.
    pub(crate) fn streams_many(&self) -> usize {
        (self.streams_first / 2) as usize
    }

    pub(crate) fn transport(&self) -> Result<Arc<TransportConfig>, ConfigError> {
        if self.streams_max == 0 {
            return Err(ConfigError { setting: "streams_max", reason: "no request could ever be sent" });
        }
        if self.streams_first == 0 {
            return Err(ConfigError { setting: "streams_first", reason: "no request could ever be sent" });
        }
        let mut transport = shared(self.uni_streams_max, self.idle_timeout, self.keep_alive)?;
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(self.streams_first.min(self.streams_max)))
            .stream_receive_window(VarInt::from_u32(self.stream_window_bytes))
            .receive_window(VarInt::from_u32(self.connection_window_bytes))
            .send_window(self.send_window_bytes);
        Ok(Arc::new(transport))
    }
}

impl ClientConfig {
    pub(crate) fn transport(&self) -> Result<Arc<TransportConfig>, ConfigError> {
        let mut transport = shared(self.uni_streams_max, self.idle_timeout, self.keep_alive)?;
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .stream_receive_window(VarInt::from_u32(self.stream_window_bytes))
            .receive_window(VarInt::from_u32(self.connection_window_bytes))
            .send_window(self.send_window_bytes);
        Ok(Arc::new(transport))
    }
}

fn shared(uni_streams: u32, idle: Duration, keep_alive: Option<Duration>) -> Result<TransportConfig, ConfigError> {
    if uni_streams < 3 {
        return Err(ConfigError { setting: "uni_streams_max", reason: "HTTP/3 needs 3 of them" });
    }
    let idle =
        IdleTimeout::try_from(idle).map_err(|_| ConfigError { setting: "idle_timeout", reason: "above 2^62 ms" })?;
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_uni_streams(VarInt::from_u32(uni_streams))
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(keep_alive)
        .datagram_receive_buffer_size(None)
        .congestion_controller_factory(Arc::new(farewell::Factory::default()));
    Ok(transport)
}
