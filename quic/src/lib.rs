//! gRPC over HTTP/3 on QUIC (grpc proposal G2, ALPN `h3`), both ends, for any tonic service.
//!
//! * [`Server`] serves a `tonic::service::Routes` (or any tower service of the same shape) on a UDP port.
//! * [`Channel`] is what a generated tonic client is built on: `FooClient::new(channel)`.
//! * [`PeerInfo`] tells a handler who is on the other end, and lets it close the whole connection.
//!
//! ```no_run
//! # async fn example(
//! #     routes: tonic::service::Routes,
//! #     server_tls: rustls::ServerConfig,
//! #     client_tls: rustls::ClientConfig,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! use socp_quic::{Channel, Server, ServerConfig};
//!
//! let server = Server::bind("[::]:0".parse()?, server_tls, ServerConfig::default())?;
//! let address = server.local_addr();
//! let (stop, stopped) = tokio::sync::oneshot::channel();
//! let serving = tokio::spawn(server.serve(routes, async {
//!     let _ = stopped.await;
//! }));
//!
//! let channel = Channel::builder(address, "localhost", client_tls).connect().await?;
//! // FooClient::new(channel).bar(request).await?;
//! stop.send(()).ok();
//! serving.await?;
//! # Ok(())
//! # }
//! ```
//!
//! What holds on both ends, whoever the peer is:
//!
//! * A lost connection is `UNAVAILABLE`, before the response, in the middle of a stream and at its end.
//! * Dropping a call, or its response stream, cancels it: both halves of its QUIC stream are reset, and the server drops
//!   the handler, whatever that was doing. Nothing needs to be read or sent for this.
//! * A message or a stream that was cut off never looks complete: what is not finished is reset.
//! * A reader that stalls stops the writer, after the flow-control windows of the configuration.
//! * `grpc-timeout` is enforced by both sides, before and after the response's head, as `DEADLINE_EXCEEDED`.
//!
//! Absent on purpose: 0-RTT (replayable), server push, QUIC datagrams, HTTP/3 priorities, and TLS below 1.3. The crate
//! brings no TLS of its own choosing: it takes rustls configurations, which carry their provider.

mod body;
mod call;
mod client;
mod closed;
mod config;
mod connection;
mod deadline;
mod dial;
mod farewell;
mod frame_limit;
mod gauges;
mod glue;
mod peer;
mod per_peer;
mod request;
mod reset;
mod server;
mod status;
mod stream_end;

pub use client::{Channel, ChannelBuilder};
pub use closed::Closed;
pub use config::{ClientConfig, ConfigError, ServerConfig};
pub use deadline::of as deadline;
pub use dial::{ClientEndpoint, ConnectError, Connection};
pub use gauges::Gauges;
pub use peer::{ConnectionDriver, PeerInfo};
pub use per_peer::PerPeer;
pub use reset::ResetSecret;
pub use server::{BindError, Server};
