//! The accepting side: three calls of one connection become one link.
//!
//! A call waits for its two companions, and is refused when they do not come in time, so a connection without all
//! three streams is never a link and holds nothing for long. A fourth call is refused.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use socp::{
    federation::v1::{
        AdvertiseFrame, AdvertiseRequest, AdvertiseResponse, DeliverFrame, DeliverRequest, DeliverResponse,
        RemoveFrame, RemoveRequest, RemoveResponse, TransferFrame, TransferRequest, TransferResponse,
        federation_service_server::FederationService, transfer_frame::Kind,
    },
    id::ServerId,
    input::Frame,
    rejection::Rejection,
    v1::Reason,
};
use socp_quic::PeerInfo;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use super::{
    link::{self, Carrier, Inbound, Link, Outbound},
    transfer::{self, Both, By, Offers, PARTS_AHEAD},
};
use crate::{
    driver::Handle,
    limits::{ACCEPT_MS_MAX, ACCEPTING_MAX, OFFERS_MAX},
    status, tls,
};

/// One call that waits for its companions: what comes in on it, and where to put what goes out.
struct Half<T> {
    inbound: Inbound,
    outbound: oneshot::Sender<Outbound<T>>,
}

/// The calls of one connection.
#[derive(Default)]
struct Calls {
    advertise: Option<Half<AdvertiseFrame>>,
    remove: Option<Half<RemoveFrame>>,
    deliver: Option<Half<DeliverFrame>>,
    /// The three are a link; it lasts until that ends.
    is_link: bool,
    /// Streams by which this side may fetch files.
    offers: Arc<Offers>,
}

#[derive(Default)]
struct Connections(Mutex<BTreeMap<u64, Calls>>);

impl Connections {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Calls>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets a connection's calls when one of them goes away before they are a link.
struct Forget<'a> {
    connections: &'a Connections,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        let mut connections = self.connections.lock();
        if connections.get(&self.id).is_some_and(|calls| !calls.is_link) {
            connections.remove(&self.id);
        }
    }
}

/// Makes links of what peers dial.
pub(super) struct Acceptor {
    connections: Arc<Connections>,
    handle: Handle,
}

impl Acceptor {
    pub(super) fn new(handle: Handle) -> Self {
        Self { connections: Arc::default(), handle }
    }

    /// Puts a call to its companions and waits until they are a link.
    async fn join<T>(
        &self,
        peer: PeerInfo,
        inbound: Inbound,
        slot: impl Fn(&mut Calls) -> &mut Option<Half<T>>,
    ) -> Result<Outbound<T>, Rejection> {
        let server = server_of(&peer)?;
        let id = peer.connection_id();
        let (outbound, ready) = oneshot::channel();
        {
            let mut connections = self.connections.lock();
            let accepting = connections.values().filter(|calls| !calls.is_link).count();
            if !connections.contains_key(&id) && accepting >= ACCEPTING_MAX {
                return Err(too_many("too many connections", ACCEPTING_MAX));
            }
            let calls = connections.entry(id).or_default();
            if calls.is_link || slot(calls).is_some() {
                return Err(too_many("a link has one stream of each kind", 1));
            }
            *slot(calls) = Some(Half { inbound, outbound });
        }
        let _forget = Forget { connections: &self.connections, id };
        self.begin_if_complete(id, server, &peer);
        let patience = Duration::from_millis(ACCEPT_MS_MAX);
        match timeout(patience, ready).await {
            Ok(Ok(outbound)) => Ok(outbound),
            _ => Err(Rejection::new(Reason::Timeout, "the other streams of the link did not come in time")),
        }
    }

    /// The streams that were offered on a link. Rejects: TIMEOUT, if the connection is none.
    fn offers(&self, connection: u64) -> Result<Arc<Offers>, Rejection> {
        let connections = self.connections.lock();
        let link = connections.get(&connection).filter(|calls| calls.is_link);
        let none = || Rejection::new(Reason::Timeout, "files pass over links only, and this is none yet");
        link.map(|calls| Arc::clone(&calls.offers)).ok_or_else(none)
    }

    fn begin_if_complete(&self, id: u64, server: ServerId, peer: &PeerInfo) {
        let mut connections = self.connections.lock();
        let Some(calls) = connections.get_mut(&id) else { return };
        let (advertise, remove, deliver) = match (calls.advertise.take(), calls.remove.take(), calls.deliver.take()) {
            (Some(advertise), Some(remove), Some(deliver)) => (advertise, remove, deliver),
            (advertise, remove, deliver) => {
                *calls = Calls { advertise, remove, deliver, ..Calls::default() };
                return;
            }
        };
        calls.is_link = true;
        let offers = Arc::clone(&calls.offers);
        drop(connections);
        let (outbox, outbounds) = link::queues(server, {
            let peer = peer.clone();
            Box::new(move || peer.round_trip_time())
        });
        let (advertise_out, remove_out, deliver_out, words) = outbounds.split();
        // A call that went away meanwhile shows as a stream that ends.
        let _ = advertise.outbound.send(advertise_out);
        let _ = remove.outbound.send(remove_out);
        let _ = deliver.outbound.send(deliver_out);
        let link = Link {
            peer: server,
            dialled: false,
            carrier: Carrier::Accepted(peer.clone()),
            by: By::Offer(offers),
            inbound: [advertise.inbound, remove.inbound, deliver.inbound],
            outbox,
            words,
        };
        let (handle, connections) = (self.handle.clone(), Arc::clone(&self.connections));
        tokio::spawn(async move {
            link::run(link, handle).await;
            connections.lock().remove(&id);
        });
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn peer_of<T>(request: &Request<T>) -> Result<PeerInfo, Status> {
    PeerInfo::of(request).cloned().ok_or_else(|| status::of(&status::server_failed()))
}

fn server_of(peer: &PeerInfo) -> Result<ServerId, Rejection> {
    let server = peer.certificates().and_then(|chain| tls::server_id(chain.first()?));
    server.ok_or_else(|| Rejection::new(Reason::BadKey, "a server shows a certificate with an Ed25519 key"))
}

fn too_many(message: &'static str, limit: usize) -> Rejection {
    Rejection::new(Reason::TooMany, message).with("limit", limit.to_string())
}

#[tonic::async_trait]
impl FederationService for Acceptor {
    type AdvertiseStream = Answers<AdvertiseResponse>;
    type RemoveStream = Answers<RemoveResponse>;
    type DeliverStream = Answers<DeliverResponse>;
    type TransferStream = Answers<TransferResponse>;

    async fn advertise(
        &self,
        request: Request<Streaming<AdvertiseRequest>>,
    ) -> Result<Response<Self::AdvertiseStream>, Status> {
        let peer = peer_of(&request)?;
        let frames = request.into_inner().map(|frame| Ok(Frame::Advertise(frame?.frame.unwrap_or_default())));
        let outbound = self.join(peer, Box::pin(frames), |calls| &mut calls.advertise).await;
        let outbound = outbound.map_err(|rejection| status::of(&rejection))?;
        let answers = outbound.map(|frame| match frame {
            Ok(frame) => Ok(AdvertiseResponse { frame: Some(frame) }),
            Err(rejection) => Err(status::of(&rejection)),
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn remove(&self, request: Request<Streaming<RemoveRequest>>) -> Result<Response<Self::RemoveStream>, Status> {
        let peer = peer_of(&request)?;
        let frames = request.into_inner().map(|frame| Ok(Frame::Remove(frame?.frame.unwrap_or_default())));
        let outbound = self.join(peer, Box::pin(frames), |calls| &mut calls.remove).await;
        let outbound = outbound.map_err(|rejection| status::of(&rejection))?;
        let answers = outbound.map(|frame| match frame {
            Ok(frame) => Ok(RemoveResponse { frame: Some(frame) }),
            Err(rejection) => Err(status::of(&rejection)),
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn deliver(
        &self,
        request: Request<Streaming<DeliverRequest>>,
    ) -> Result<Response<Self::DeliverStream>, Status> {
        let peer = peer_of(&request)?;
        let frames = request.into_inner().map(|frame| Ok(Frame::Deliver(frame?.frame.unwrap_or_default())));
        let outbound = self.join(peer, Box::pin(frames), |calls| &mut calls.deliver).await;
        let outbound = outbound.map_err(|rejection| status::of(&rejection))?;
        let answers = outbound.map(|frame| match frame {
            Ok(frame) => Ok(DeliverResponse { frame: Some(frame) }),
            Err(rejection) => Err(status::of(&rejection)),
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn transfer(
        &self,
        request: Request<Streaming<TransferRequest>>,
    ) -> Result<Response<Self::TransferStream>, Status> {
        let peer = peer_of(&request)?;
        let server = server_of(&peer).map_err(|rejection| status::of(&rejection))?;
        let offers = self.offers(peer.connection_id()).map_err(|rejection| status::of(&rejection))?;
        let mut frames = Box::pin(request.into_inner().map(|frame| Ok(frame?.frame.unwrap_or_default())));
        let patience = Duration::from_millis(ACCEPT_MS_MAX);
        let first = timeout(patience, frames.next()).await.ok().flatten().transpose()?;
        let (out, mut outbound) = mpsc::channel::<TransferFrame>(PARTS_AHEAD);
        let refused = match first.unwrap_or_default().kind {
            Some(Kind::Fetch(fetch)) => {
                let handle = self.handle.clone();
                // It ends when nobody takes what it gives.
                tokio::spawn(async move {
                    transfer::serve(handle, server, fetch, out).await;
                    drop(frames);
                });
                false
            }
            Some(Kind::Offer(_)) => offers.put(Both { frames, out }).is_err(),
            _ => true,
        };
        if refused {
            return Err(status::of(&too_many("a transfer begins with a fetch, or with one of few offers", OFFERS_MAX)));
        }
        let frames = futures_util::stream::poll_fn(move |context| outbound.poll_recv(context));
        Ok(Response::new(Box::pin(frames.map(|frame| Ok(TransferResponse { frame: Some(frame) })))))
    }
}
