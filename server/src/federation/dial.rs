//! The dialling side: one connection, three streams, within a time limit. When to dial again is the node's affair.

use std::{io, sync::Arc, time::Duration};

use socp::{
    federation::v1::{
        AdvertiseRequest, DeliverRequest, RemoveRequest, federation_service_client::FederationServiceClient,
    },
    id::ServerId,
    input::Frame,
};
use socp_quic::{Channel, ClientConfig, ClientEndpoint, ConnectError};
use tokio::{net::lookup_host, runtime, time::timeout};
use tokio_stream::StreamExt as _;
use tonic::Status;

use super::{
    Addresses, IDLE, STREAMS, WINDOW_BYTES,
    link::{self, Carrier, Link},
    transfer::{self, By},
};
use crate::{
    driver::{Event, Handle},
    limits::{DIAL_MS_MAX, FEDERATION_MESSAGE_BYTES_MAX},
    random, tls,
};

/// What TLS is told as the peer's name. Nobody checks it: the certificate's key is the name.
const SERVER_NAME: &str = "socp";

/// Dials peers. Cheap to clone.
#[derive(Clone)]
pub struct Dialler {
    endpoint: ClientEndpoint,
    tls: rustls::ClientConfig,
    addresses: Arc<Addresses>,
    runtime: runtime::Handle,
}

/// Why a dial came to nothing.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("no answer within {DIAL_MS_MAX} ms")]
    TimedOut,
    #[error("no address is known for it")]
    NoAddress,
    #[error("cannot look up `{address}`: {source}")]
    Lookup { address: String, source: io::Error },
    #[error("`{0}` has no address")]
    Nowhere(String),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("another server answers there: {}", .0.map_or_else(|| "without an Ed25519 key".to_owned(), |id| id.to_string()))]
    AnotherServer(Option<ServerId>),
    #[error("it refused a stream: {}", .0.message())]
    Stream(#[from] Status),
}

impl Dialler {
    /// Dials from `endpoint` with `tls`, which shows the identity certificate and lets admitted servers through only; that
    /// it is the very server that was dialled is checked here. Links run on `runtime`, and so must the endpoint.
    pub fn new(
        endpoint: ClientEndpoint,
        tls: rustls::ClientConfig,
        addresses: Addresses,
        runtime: runtime::Handle,
    ) -> Self {
        Self { endpoint, tls, addresses: Arc::new(addresses), runtime }
    }

    /// Dials in a task of its own; `LinkUp` or `DialFailed` follows.
    pub(crate) fn dial(&self, peer: ServerId, handle: Handle) {
        let dialler = self.clone();
        self.runtime.spawn(async move {
            let patience = Duration::from_millis(DIAL_MS_MAX);
            let dialled = timeout(patience, dialler.connect(peer)).await.unwrap_or(Err(DialError::TimedOut));
            match dialled {
                Ok(link) => link::run(link, handle).await,
                Err(error) => {
                    // An error says that the driver has ended.
                    let _ = handle.send(Event::DialFailed { peer, cause: error.to_string() }).await;
                }
            }
        });
    }

    async fn connect(&self, peer: ServerId) -> Result<Link, DialError> {
        let address = self.addresses.get(&peer).ok_or(DialError::NoAddress)?;
        let found = lookup_host(address.as_str()).await;
        let found: Vec<_> = found.map_err(|source| DialError::Lookup { address: address.clone(), source })?.collect();
        // A name may lead to addresses that do not answer; each dial tries one at random.
        let [turn] = random::bytes();
        let address =
            *found.get(usize::from(turn) % found.len().max(1)).ok_or_else(|| DialError::Nowhere(address.clone()))?;
        let config = ClientConfig {
            connect_time_max: Duration::from_millis(DIAL_MS_MAX),
            stream_window_bytes: WINDOW_BYTES,
            connection_window_bytes: STREAMS * WINDOW_BYTES,
            send_window_bytes: u64::from(STREAMS * WINDOW_BYTES),
            idle_timeout: IDLE,
            keep_alive: Some(IDLE / 5),
            ..ClientConfig::default()
        };
        let channel = Channel::builder(address, SERVER_NAME, self.tls.clone())
            .endpoint(self.endpoint.clone())
            .config(config)
            .one_connection()
            .connect()
            .await?;
        let connection = channel.ready().await?;
        let answered = connection.peer_certificates().and_then(|chain| tls::server_id(chain.first()?));
        if answered != Some(peer) {
            return Err(DialError::AnotherServer(answered));
        }
        let (outbox, outbounds) = link::queues(peer, {
            let connection = connection.clone();
            Box::new(move || Some(connection.round_trip_time()))
        });
        let (advertise, remove, deliver, words) = outbounds.split();
        // The end's reason has no place in a request; the connection is closed with it.
        let advertise = advertise.map_while(Result::ok).map(|frame| AdvertiseRequest { frame: Some(frame) });
        let remove = remove.map_while(Result::ok).map(|frame| RemoveRequest { frame: Some(frame) });
        let deliver = deliver.map_while(Result::ok).map(|frame| DeliverRequest { frame: Some(frame) });
        let client = FederationServiceClient::new(channel.clone())
            .max_decoding_message_size(FEDERATION_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(usize::MAX);
        let (mut one, mut two, mut three) = (client.clone(), client.clone(), client);
        let (advertise, remove, deliver) =
            tokio::try_join!(one.advertise(advertise), two.remove(remove), three.deliver(deliver))?;
        let advertise = advertise.into_inner().map(|frame| Ok(Frame::Advertise(frame?.frame.unwrap_or_default())));
        let remove = remove.into_inner().map(|frame| Ok(Frame::Remove(frame?.frame.unwrap_or_default())));
        let deliver = deliver.into_inner().map(|frame| Ok(Frame::Deliver(frame?.frame.unwrap_or_default())));
        Ok(Link {
            peer,
            dialled: true,
            by: By::Call(transfer::client(channel.clone())),
            carrier: Carrier::Dialled(connection, channel),
            inbound: [Box::pin(advertise), Box::pin(remove), Box::pin(deliver)],
            outbox,
            words,
        })
    }
}
