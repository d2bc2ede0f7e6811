//! Connections to the server: HTTP/3 and TCP race, and the first that is made and introduced wins.
//!
//! Each connection is dialled once and never redialled underneath its user, so that every one was introduced (see
//! [`crate::introduction`]) before anybody else gets it.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use http::Uri;
use rustls::pki_types::{CertificateDer, ServerName};
use socp::{
    id::ServerId,
    v1::{GetServerInfoRequest, account_service_client::AccountServiceClient},
};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::{
    certificate,
    failure::{Failure, Kind},
    introduction::{self, Introduction, WRONG_IDENTITY},
    transport::{Choice, Transport, TransportKind},
};

/// How long the second transport waits for the first.
const HEAD_START: Duration = Duration::from_millis(300);

/// How long the next address of a name waits for the one before.
const ADDRESS_STEP: Duration = Duration::from_millis(50);

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

/// How long the other attempts may still take once one has failed: a host that refuses over TCP is there, and would have
/// answered over QUIC; one that is back in a moment is found by the next race sooner than by a lost packet's repetition.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// How long one attempt may take, introduction included.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(5);

/// Where to connect, and whom to expect there.
#[derive(Clone, Debug)]
pub struct Target {
    /// `HOST:PORT`.
    pub server: String,
    /// The pin; `None` only at registration with a CA.
    pub server_id: Option<ServerId>,
    /// A CA that the certificate must be signed by as well.
    pub ca: Option<PathBuf>,
    /// Which transports.
    pub choice: Choice,
    /// The transport that connected last: it goes first.
    pub first: TransportKind,
}

/// A connection to a server that proved who it is.
#[derive(Clone, Debug)]
pub struct Connection {
    /// What calls go over.
    pub transport: Transport,
    /// Who is on the other end.
    pub introduction: Introduction,
}

/// Splits `HOST:PORT`; an IPv6 address stands in brackets.
pub fn host_and_port(server: &str) -> Result<(&str, u16), Failure> {
    let parts = server.rsplit_once(':').and_then(|(host, port)| {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bare.or_else(|| (!host.contains(':')).then_some(host))?;
        Some((host, port.parse().ok()?)).filter(|(host, port)| !host.is_empty() && *port != 0)
    });
    parts.ok_or_else(|| {
        Failure::failed(format!("`{server}` is not an address")).hint("write `HOST:PORT`, e.g. `chat.example.org:7443`")
    })
}

/// Dials the transports chosen, one after the other with a head start, and takes the first that is introduced.
pub async fn connect(target: &Target) -> Result<Connection, Failure> {
    let (host, port) = host_and_port(&target.server)?;
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| Failure::failed(format!("`{host}` is neither a name nor an address")))?;
    let addresses = resolve(host, port).await?;
    let tls = certificate::tls(target.ca.as_deref())?;
    let origin: Uri = format!("https://{}", target.server)
        .parse()
        .map_err(|_| Failure::failed(format!("`{}` is not an address", target.server)))?;
    let attempt = Arc::new(Attempt { target: target.clone(), name, host: host.to_owned(), tls, origin });

    let mut attempts = FuturesUnordered::new();
    for (turn, kind) in target.choice.order(target.first).into_iter().enumerate() {
        for (place, address) in addresses.iter().copied().enumerate() {
            let attempt = attempt.clone();
            let delay =
                HEAD_START * u32::try_from(turn).unwrap_or(1) + ADDRESS_STEP * u32::try_from(place).unwrap_or(1);
            attempts.push(async move {
                sleep(delay).await;
                attempt.run(kind, address).await
            });
        }
    }
    let mut worst: Option<Failure> = None;
    let mut deadline = Instant::now() + ATTEMPT_TIME_MAX + HEAD_START * 2;
    while let Ok(Some(outcome)) = timeout_at(deadline, attempts.next()).await {
        match outcome {
            Ok(connection) => return Ok(connection),
            Err(failure) => {
                deadline = deadline.min(Instant::now() + AFTER_FAILURE);
                tracing::debug!(%failure, "an attempt to connect failed");
                // A wrong identity or a refusal says more than a silence.
                let tells_more = failure.reason == WRONG_IDENTITY || failure.kind == Kind::Refused;
                if worst.is_none() || tells_more {
                    worst = Some(failure);
                }
            }
        }
    }
    Err(worst.unwrap_or_else(|| Failure::failed(format!("`{host}` has no address"))))
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
    let found = tokio::net::lookup_host((host, port)).await.map_err(|error| {
        Failure::unreachable(format!("cannot find `{host}`: {error}")).hint("check the name and the network")
    })?;
    let mut addresses: Vec<_> = found.collect();
    // `localhost` is often both, and servers are more often bound to the older one.
    addresses.sort_by_key(SocketAddr::is_ipv6);
    addresses.dedup();
    addresses.truncate(ADDRESSES_MAX);
    Ok(addresses)
}

/// What all attempts of a race have in common.
struct Attempt {
    target: Target,
    name: ServerName<'static>,
    host: String,
    tls: rustls::ClientConfig,
    origin: Uri,
}

impl Attempt {
    async fn run(&self, kind: TransportKind, address: SocketAddr) -> Result<Connection, Failure> {
        let unanswered = || {
            Failure::unreachable(format!("no answer from `{}` ({address}, {kind}) in time", self.target.server))
                .hint("is the server running, and reachable from here?")
        };
        timeout(ATTEMPT_TIME_MAX, self.dial(kind, address)).await.unwrap_or_else(|_| Err(unanswered()))
    }

    async fn dial(&self, kind: TransportKind, address: SocketAddr) -> Result<Connection, Failure> {
        let tls = self.tls.clone();
        let (transport, certificate): (_, CertificateDer<'static>) = match kind {
            TransportKind::H3 => Transport::dial_h3(address, &self.host, tls).await?,
            TransportKind::Tcp => Transport::dial_tcp(address, self.name.clone(), tls, self.origin.clone()).await?,
        };
        let info = AccountServiceClient::new(transport.clone()).get_server_info(GetServerInfoRequest {}).await?;
        let introduction = introduction::check(info.get_ref(), &certificate, self.target.server_id)?;
        Ok(Connection { transport, introduction })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_host_and_a_port() {
        for (text, host) in [("a.example:7443", "a.example"), ("127.0.0.1:7443", "127.0.0.1"), ("[::1]:7443", "::1")] {
            assert_eq!(host_and_port(text).unwrap(), (host, 7443));
        }
        for text in ["a.example", ":7443", "a:b", "a:0", "a:65536", "::1:7443", ""] {
            assert!(host_and_port(text).is_err(), "{text}");
        }
    }
}
