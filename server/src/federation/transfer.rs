//! Files between servers: a stream of its own for each, beside the three of a link, so that nothing waits behind them.
//!
//! Only the side that dialled can open a stream. So it keeps one open that nobody uses, an offer, and opens another once the other
//! side has taken it: either side can fetch a file from the other, without having to ask for a stream first. Bytes go on as they
//! come, and no server on the way keeps any; who breaks off asks again with an offset. Who may have what is the node's to say.

use std::{
    collections::{BTreeMap, VecDeque},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use socp::{
    federation::v1::{
        FileFetch, TransferEnd, TransferFrame, TransferOffer, TransferRequest,
        federation_service_client::FederationServiceClient, transfer_frame::Kind,
    },
    id::ServerId,
    input::{LinkId, Request},
    output::Answer,
    rejection::{self, Rejection},
    v1::Reason,
};
use socp_quic::Channel;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc},
    task::AbortHandle,
    time::{sleep, timeout},
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Status};

use crate::{
    driver::Handle,
    files::Reading,
    limits::{FEDERATION_MESSAGE_BYTES_MAX, FETCHES_PER_LINK_MAX, OFFER_MS, OFFERS_MAX, TRANSFER_SILENCE_MS},
    status,
};

/// Parts that were read from the disk, or came from another server, and are not on their way yet.
pub(super) const PARTS_AHEAD: usize = 2;

/// Frames that come from the other side.
pub(super) type Frames = Pin<Box<dyn Stream<Item = Result<TransferFrame, Status>> + Send>>;

/// Both directions of a stream.
pub(super) struct Both {
    pub(super) frames: Frames,
    pub(super) out: mpsc::Sender<TransferFrame>,
}

/// Streams that the other side of a link offers, for this side to fetch by.
#[derive(Default)]
pub(super) struct Offers {
    waiting: Mutex<VecDeque<Both>>,
    arrived: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Offers {
    /// Keeps a stream until it is needed. Gives it back if there are enough.
    pub(super) fn put(&self, both: Both) -> Result<(), Both> {
        let mut waiting = lock(&self.waiting);
        // One that was given up by its other side need not be kept.
        waiting.retain(|kept| !kept.out.is_closed());
        if waiting.len() >= OFFERS_MAX {
            return Err(both);
        }
        waiting.push_back(both);
        self.arrived.notify_one();
        Ok(())
    }

    async fn take(&self) -> Both {
        loop {
            let arrived = self.arrived.notified();
            if let Some(both) = lock(&self.waiting).pop_front() {
                return both;
            }
            arrived.await;
        }
    }
}

/// How files can be fetched over a link.
#[derive(Clone)]
pub(super) enum By {
    /// This side dialled: it opens a stream.
    Call(FederationServiceClient<Channel>),
    /// The other side dialled, and offers streams.
    Offer(Arc<Offers>),
}

#[derive(Clone)]
struct Way {
    by: By,
    fetches: Arc<Semaphore>,
}

/// The links over which files can be fetched. Cheap to clone.
#[derive(Clone, Default)]
pub struct Ways(Arc<Mutex<BTreeMap<LinkId, Way>>>);

impl Ways {
    /// Lets files be fetched over a link, by either side, until what this gives is dropped.
    pub(super) fn begin(&self, link: LinkId, peer: ServerId, by: By, handle: &Handle) -> Begun {
        let offering = match &by {
            By::Call(client) => Some(tokio::spawn(offer(handle.clone(), peer, client.clone())).abort_handle()),
            By::Offer(_) => None,
        };
        let fetches = Arc::new(Semaphore::new(FETCHES_PER_LINK_MAX));
        lock(&self.0).insert(link, Way { by, fetches });
        Begun { ways: self.clone(), link, offering }
    }

    /// Asks the server at the other end of a link for a file. Rejects: HOME_UNREACHABLE, TIMEOUT; what that server says comes later.
    pub async fn fetch(&self, link: LinkId, fetch: FileFetch) -> Result<Fetched, Rejection> {
        let way = lock(&self.0).get(&link).cloned().ok_or_else(broken)?;
        let patience = Duration::from_millis(OFFER_MS);
        let opened = async {
            let permit = Arc::clone(&way.fetches).acquire_owned().await.map_err(|_| broken())?;
            let asked = TransferFrame { kind: Some(Kind::Fetch(fetch)) };
            let both = match way.by {
                By::Call(client) => open(client, asked).await.map_err(|_| broken())?,
                By::Offer(offers) => loop {
                    let both = offers.take().await;
                    if both.out.send(asked.clone()).await.is_ok() {
                        break both;
                    }
                },
            };
            Ok(Fetched { both, _permit: permit })
        };
        let late = || Rejection::new(Reason::Timeout, "the next server on the way takes no more files at the moment");
        timeout(patience, opened).await.unwrap_or_else(|_| Err(late()))
    }
}

/// A link over which files can be fetched.
pub(super) struct Begun {
    ways: Ways,
    link: LinkId,
    offering: Option<AbortHandle>,
}

impl Drop for Begun {
    fn drop(&mut self) {
        lock(&self.ways.0).remove(&self.link);
        if let Some(offering) = &self.offering {
            offering.abort();
        }
    }
}

fn broken() -> Rejection {
    Rejection::new(Reason::HomeUnreachable, "the way to the file's home broke")
}

/// Opens a stream with this first frame.
async fn open(mut client: FederationServiceClient<Channel>, first: TransferFrame) -> Result<Both, Status> {
    let (out, mut outbound) = mpsc::channel(PARTS_AHEAD);
    out.try_send(first).expect("the channel is empty");
    let outbound = futures_util::stream::poll_fn(move |context| outbound.poll_recv(context));
    let frames = client.transfer(outbound.map(|frame| TransferRequest { frame: Some(frame) })).await?.into_inner();
    let frames = frames.map(|answer| Ok(answer?.frame.unwrap_or_default()));
    Ok(Both { frames: Box::pin(frames), out })
}

/// What serves the client of a link.
pub(super) fn client(channel: Channel) -> FederationServiceClient<Channel> {
    FederationServiceClient::new(channel).max_decoding_message_size(FEDERATION_MESSAGE_BYTES_MAX)
}

/// A file that comes from another server. Dropping it breaks off.
pub struct Fetched {
    both: Both,
    _permit: OwnedSemaphorePermit,
}

impl Fetched {
    /// The next bytes; `None` at the end. Rejects: what a server on the way said, HOME_UNREACHABLE, TIMEOUT.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Rejection> {
        let patience = Duration::from_millis(TRANSFER_SILENCE_MS);
        let frame = timeout(patience, self.both.frames.next()).await;
        let frame = frame.map_err(|_| Rejection::new(Reason::Timeout, "nothing came for too long"))?;
        match frame {
            Some(Ok(TransferFrame { kind: Some(Kind::Part(part)) })) => Ok(Some(part)),
            Some(Ok(TransferFrame { kind: Some(Kind::End(TransferEnd { reason })) })) if reason.is_empty() => Ok(None),
            Some(Ok(TransferFrame { kind: Some(Kind::End(TransferEnd { reason })) })) => {
                let reason = rejection::parse(&reason).unwrap_or(Reason::UnknownType);
                Err(Rejection::new(reason, "the file's home, or a server on the way there, refused"))
            }
            // Without a word on the end nobody knows whether it was one.
            Some(_) | None => Err(broken()),
        }
    }
}

/// Answers the fetch of a peer, on the stream on which it came.
pub(super) async fn serve(handle: Handle, peer: ServerId, fetch: FileFetch, out: mpsc::Sender<TransferFrame>) {
    let ended = give(&handle, peer, fetch, &out).await;
    let reason = ended.map_or_else(|rejection| rejection.name().to_owned(), |()| String::new());
    let end = TransferFrame { kind: Some(Kind::End(TransferEnd { reason })) };
    // Whoever went away wants no last word.
    let _ = timeout(Duration::from_millis(TRANSFER_SILENCE_MS), out.send(end)).await;
}

/// Where bytes come from.
enum Origin {
    Disk(Reading),
    Server(Fetched),
}

async fn give(
    handle: &Handle,
    peer: ServerId,
    fetch: FileFetch,
    out: &mpsc::Sender<TransferFrame>,
) -> Result<(), Rejection> {
    let _place = handle.files().place(None)?;
    let offset = fetch.offset;
    let mut origin = match handle.call(Request::FetchFile { peer, fetch }).await? {
        Answer::FileHere { file, .. } => Origin::Disk(handle.files().read(&file, offset).await?),
        Answer::FileElsewhere { link, fetch, .. } => Origin::Server(handle.ways().fetch(link, fetch).await?),
        _ => return Err(status::server_failed()),
    };
    loop {
        let part = match &mut origin {
            Origin::Disk(reading) => reading.next().await?,
            Origin::Server(fetched) => fetched.next().await?,
        };
        let Some(part) = part else { return Ok(()) };
        pass_on(out, part).await?;
    }
}

/// Sends a part. Rejects: HOME_UNREACHABLE, if the other side took nothing for too long, or went away.
async fn pass_on(out: &mpsc::Sender<TransferFrame>, part: Bytes) -> Result<(), Rejection> {
    let frame = TransferFrame { kind: Some(Kind::Part(part)) };
    match timeout(Duration::from_millis(TRANSFER_SILENCE_MS), out.send(frame)).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(broken()),
    }
}

/// Keeps an offer open as long as the link lasts, and serves those that are taken.
async fn offer(handle: Handle, peer: ServerId, client: FederationServiceClient<Channel>) {
    loop {
        let offer = TransferFrame { kind: Some(Kind::Offer(TransferOffer {})) };
        let mut both = match open(client.clone(), offer).await {
            Ok(both) => both,
            // A server of an earlier version.
            Err(status) if status.code() == Code::Unimplemented => return,
            Err(_) => {
                sleep(Duration::from_millis(OFFER_MS)).await;
                continue;
            }
        };
        match both.frames.next().await {
            Some(Ok(TransferFrame { kind: Some(Kind::Fetch(fetch)) })) => {
                let handle = handle.clone();
                tokio::spawn(async move {
                    let Both { mut frames, out } = both;
                    serve(handle, peer, fetch, out).await;
                    // Going away now would reset what is still on its way; the other side ends the stream once it has the end.
                    let over = async { while frames.next().await.is_some_and(|frame| frame.is_ok()) {} };
                    let _ = timeout(Duration::from_millis(TRANSFER_SILENCE_MS), over).await;
                });
            }
            _ => sleep(Duration::from_millis(OFFER_MS)).await,
        }
    }
}

#[cfg(test)]
mod tests;
