//! One connection at the server, from its handshake to its close.
//!
//! One task owns the connection and all of its requests; when it ends, they do. A drain is: GOAWAY, then wait for the
//! running requests and for the acknowledgement of their last byte, then close. The close comes before the requests are
//! dropped, so that a client sees a lost connection, not calls that were cancelled one by one.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h3::error::Code;
use http::{Request, Response};
use quinn::VarInt;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tonic::body::Body;
use tower::Service;

use crate::closed::Closed;
use crate::config::ServerConfig;
use crate::farewell;
use crate::gauges::{Counted, Gauges};
use crate::glue;
use crate::peer::{ConnectionDriver, PeerInfo};
use crate::per_peer::{self, TooMany};
use crate::request;
use crate::stream_end::Accepted;

type H3 = h3::server::Connection<glue::Connection, Bytes>;

/// What a time above stands for: far beyond any process, and far from the clock's end.
const NO_LIMIT: Duration = Duration::from_secs(3600 * 24 * 365);

/// What all connections of a server share.
pub(crate) struct Shared<S> {
    pub(crate) service: S,
    pub(crate) local: std::net::SocketAddr,
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) gauges: Gauges,
    pub(crate) counts: per_peer::Counts,
    pub(crate) stopping: watch::Receiver<bool>,
}

/// Finishes the handshake and serves the connection until it ends.
pub(crate) async fn serve<S>(connecting: quinn::Connecting, handshake: Counted, shared: Shared<S>)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    // Apart, since it is large and soon over, while this task is kept for long; so is what would be moved about in it.
    let established = Box::pin(timeout(shared.config.handshake_time_max, async {
        let quic = connecting.await?;
        let h3 = build(&quic, shared.config.header_bytes_max).await;
        Ok::<_, quinn::ConnectionError>((quic, h3))
    }));
    let (quic, built) = match established.await {
        Ok(Ok(established)) => established,
        Ok(Err(error)) => return tracing::debug!(%error, "a handshake failed"),
        Err(_) => return tracing::debug!("a handshake took too long"),
    };
    let (h3, accepted) = match built {
        Ok(built) => built,
        Err(error) => return tracing::debug!(%error, "a connection ended at its start"),
    };
    let counted = shared.gauges.connection();
    drop(handshake);
    let certificates = certificates(&quic);
    let _place = match (&shared.config.per_peer, certificates.as_deref()) {
        (Some(bound), Some([own, ..])) => match shared.counts.enter(own, bound) {
            Ok(place) => place,
            Err(TooMany) => {
                tracing::debug!(remote = %quic.remote_address(), "a peer has too many connections");
                return farewell::close(&quic, Code::H3_EXCESSIVE_LOAD, b"too many connections of one peer");
            }
        },
        _ => None,
    };
    let (peer, driver) = PeerInfo::moving(
        {
            let quic = quic.clone();
            move || quic.remote_address()
        },
        {
            let quic = quic.clone();
            move || Some(quic.rtt())
        },
        certificates,
    );
    let connection = Connection {
        config: shared.config.clone(),
        accepted,
        requests: JoinSet::new(),
        service: shared.service,
        context: Arc::new(request::Context { peer, local: shared.local, config: shared.config, gauges: shared.gauges }),
    };
    let why = connection.run(h3, &quic, shared.stopping, &driver).await;
    tracing::debug!(%why, "a connection ended");
    drop(counted);
    driver.ended(why);
}

async fn build(
    quic: &quinn::Connection,
    header_bytes_max: u32,
) -> Result<(Box<H3>, Accepted), h3::error::ConnectionError> {
    let quic = glue::Connection::new(quic.clone(), header_bytes_max);
    let accepted = quic.accepted();
    let h3 = h3::server::builder()
        .max_field_section_size(u64::from(header_bytes_max))
        .send_grease(false)
        .build(quic)
        .await?;
    Ok((Box::new(h3), accepted))
}

/// The certificates that the peer has proved to own, if any.
pub(crate) fn certificates(quic: &quinn::Connection) -> Option<Arc<[CertificateDer<'static>]>> {
    let chain = quic.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    (!chain.is_empty()).then(|| Arc::from(*chain))
}

struct Connection<S> {
    config: Arc<ServerConfig>,
    accepted: Accepted,
    requests: JoinSet<request::Ended>,
    service: S,
    context: Arc<request::Context>,
}

impl<S> Connection<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    async fn run(
        mut self,
        mut h3: Box<H3>,
        quic: &quinn::Connection,
        mut stopping: watch::Receiver<bool>,
        driver: &ConnectionDriver,
    ) -> Closed {
        let mut accepting = true;
        let mut has_few_streams = true;
        let mut requests_left = self.config.requests_max;
        let mut broken_left = self.config.broken_requests_max;
        let mut drain_until: Option<Instant> = None;
        let mut bare_since = Some(Instant::now());
        loop {
            let bare_until = bare_since.zip(self.config.bare_time_max).map(|(since, time)| since + time.min(NO_LIMIT));
            let drain = tokio::select! {
                accepted = h3.accept(), if accepting => match accepted {
                    Ok(Some(resolver)) => {
                        self.spawn(resolver);
                        if has_few_streams && self.requests.len() >= self.config.streams_many() {
                            has_few_streams = false;
                            quic.set_max_concurrent_bi_streams(VarInt::from_u32(self.config.streams_max));
                        }
                        requests_left = requests_left.saturating_sub(1);
                        requests_left == 0
                    }
                    // The client has said goodbye; what it asked before still runs.
                    Ok(None) => {
                        accepting = false;
                        true
                    }
                    Err(_) => break,
                },
                Some(ended) = self.requests.join_next() => {
                    let broken = matches!(ended, Ok(request::Ended::Broken));
                    broken_left = broken_left.saturating_sub(u64::from(broken));
                    broken_left == 0
                }
                Ok(_) = stopping.wait_for(|stopping| *stopping), if drain_until.is_none() => true,
                () = deadline(drain_until) => {
                    farewell::close(quic, Code::H3_NO_ERROR, b"the time to drain is over");
                    break;
                }
                () = deadline(bare_until) => {
                    farewell::close(quic, Code::H3_NO_ERROR, b"no request was under way for too long");
                    break;
                }
                reason = driver.close_requested() => {
                    farewell::close(quic, Code::H3_NO_ERROR, reason.as_bytes());
                    break;
                }
            };
            bare_since = self.requests.is_empty().then(|| bare_since.unwrap_or_else(Instant::now));
            if drain && drain_until.is_none() {
                let until = Instant::now() + self.config.drain_time_max.min(NO_LIMIT);
                drain_until = Some(until);
                // One more than the last: RFC 9114 lets the client count on all below the id named. A client that does not
                // take the frame gets no longer than one that does not end its calls.
                if !matches!(timeout_at(until, h3.shutdown(1)).await, Ok(Ok(()))) {
                    break;
                }
            }
            if drain_until.is_some() && self.requests.is_empty() {
                break;
            }
        }
        farewell::close(quic, Code::H3_NO_ERROR, b"");
        self.requests.shutdown().await;
        Closed::from(quic.closed().await)
    }

    fn spawn(&mut self, resolver: h3::server::RequestResolver<glue::Connection, Bytes>) {
        let Some(watch) = self.accepted.take(resolver.frame_stream.id()) else {
            return;
        };
        let request = request::serve(resolver, watch, self.service.clone(), self.context.clone());
        self.requests.spawn(request);
    }
}

async fn deadline(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
