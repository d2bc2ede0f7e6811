//! The listener for metrics: HTTP/1.1, one request for each connection, `GET /metrics` and nothing else.
//!
//! Everything is bounded: connections, the request's head, and the time of a connection as a whole, so neither many who
//! ask nor one who does not read costs more than [`METRICS_CONNECTIONS_MAX`] texts. There is no password: who can reach the
//! address can read, so it is on loopback unless the operator says otherwise.

use std::{
    convert::Infallible,
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::text::MEDIA_TYPE;
use crate::{
    config::MetricsListen,
    limits::{METRICS_CONNECTIONS_MAX, METRICS_HEAD_BYTES_MAX, METRICS_MS_MAX},
    listen::{ACCEPT_PAUSE, ListenError},
};

/// Where metrics can be read, as the start tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Here.
    At(SocketAddr),
    /// Nowhere, as the operator wants it.
    Off,
    /// Nowhere: the operator named no address, and this one could not be had.
    Taken(SocketAddr),
}

/// A listener for metrics, if there is to be one.
#[derive(Debug)]
pub struct MetricsListener {
    tcp: Option<TcpListener>,
    place: Place,
}

impl MetricsListener {
    /// Listens. An address that the operator named must be had; without the one that is there by default the server goes
    /// on, since a second server on a machine is no mistake.
    pub async fn bind(wanted: &MetricsListen) -> Result<Self, ListenError> {
        let (addr, is_named) = match wanted {
            MetricsListen::Off => return Ok(Self { tcp: None, place: Place::Off }),
            MetricsListen::IfFree(addr) => (*addr, false),
            MetricsListen::At(addr) => (*addr, true),
        };
        let bound = TcpListener::bind(addr).await.and_then(|tcp| Ok((tcp.local_addr()?, tcp)));
        match bound {
            Ok((at, tcp)) => {
                if !at.ip().is_loopback() {
                    tracing::warn!(address = %at, "metrics can be read by everybody who reaches this address");
                }
                Ok(Self { tcp: Some(tcp), place: Place::At(at) })
            }
            Err(source) => {
                let error = ListenError::Bind { addr, protocol: "TCP", source };
                if is_named {
                    return Err(error);
                }
                let hint = error.hint("metrics_listen");
                tracing::warn!("metrics are off, and everything else works: {error}. {hint}, or say `off`");
                Ok(Self { tcp: None, place: Place::Taken(addr) })
            }
        }
    }

    /// Where it listens.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Answers with what `text` comes to until `shutdown`.
    pub async fn serve<T: Future<Output = Bytes> + Send>(
        self,
        text: impl Fn() -> T + Clone + Send + Sync + 'static,
        shutdown: impl Future<Output = ()>,
    ) {
        let (Some(tcp), Place::At(address)) = (self.tcp, self.place) else { return };
        let places = Arc::new(Semaphore::new(METRICS_CONNECTIONS_MAX));
        let mut shutdown = pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                accepted = tcp.accept() => accepted,
                () = &mut shutdown => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for metrics");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // One too many is closed at once: it is told from a server that hangs.
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let text = text.clone();
            tokio::spawn(async move {
                let limit = Duration::from_millis(METRICS_MS_MAX);
                if timeout(limit, answer_one(stream, address.ip(), text)).await.is_err() {
                    tracing::debug!("a connection for metrics took too long");
                }
                drop(place);
            });
        }
    }
}

async fn answer_one<T: Future<Output = Bytes>>(stream: TcpStream, own: IpAddr, text: impl Fn() -> T) {
    let service = service_fn(async |request: Request<Incoming>| {
        let answer = match refusal(&request, own) {
            Some((status, text)) => plain(status, "text/plain; charset=utf-8", text.into()),
            None => plain(StatusCode::OK, MEDIA_TYPE, text().await),
        };
        Ok::<_, Infallible>(answer)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(METRICS_MS_MAX))
        .keep_alive(false)
        .max_buf_size(METRICS_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection for metrics failed");
    }
}

/// What a request that is not one for metrics is told.
fn refusal<B>(request: &Request<B>, own: IpAddr) -> Option<(StatusCode, &'static str)> {
    if request.uri().path() != "/metrics" {
        return Some((StatusCode::NOT_FOUND, "metrics are at /metrics, and nothing else is here\n"));
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Some((StatusCode::METHOD_NOT_ALLOWED, "metrics can be read only\n"));
    }
    if own.is_loopback() && !is_called_here(request) {
        return Some((StatusCode::FORBIDDEN, "ask for this by `localhost` or the address itself\n"));
    }
    None
}

/// Whether the client means this machine. A page in a browser on it, whose name somebody points at loopback, does not.
fn is_called_here<B>(request: &Request<B>) -> bool {
    let Some(host) = request.headers().get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = host.rsplit_once(':').map_or(host, |(name, port)| if port.contains(']') { host } else { name });
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.is_empty() || name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

fn plain(status: StatusCode, media_type: &'static str, text: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(media_type));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
    }
    response
}

#[cfg(test)]
mod tests;
