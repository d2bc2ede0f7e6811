//! One link: what is queued for the peer, what comes from it, and its end.
//!
//! Invariants: the driver hears `LinkUp` once, then frames, then `LinkDown` once, and nothing of the link after that.
//! The three streams have queues of their own, so a removal never waits behind a snapshot; a queue that is full breaks
//! the link. Inwards nothing is queued: a frame waits for the driver, and the peer for it. When one stream has ended,
//! the others may finish for a moment, so that a goodbye is not lost to the order in which streams end. What is no frame at all,
//! or a larger one than any, ends the link at once: nothing that follows it on the stream could be read.

use std::{pin::Pin, time::Duration};

use prost::Message;
use socp::{
    federation::v1::{AdvertiseFrame, DeliverFrame, RemoveFrame},
    id::ServerId,
    input::{Frame, LinkId},
    rejection::Rejection,
};
use socp_quic::{Channel, Closed, Connection, PeerInfo};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use super::transfer::By;
use crate::{
    driver::{Event, Handle},
    limits::{ADVERTISE_BYTES_MAX, CLOSE_MS_MAX, DELIVER_BYTES_MAX, LINGER_MS_MAX, LINK_FRAMES_MAX, REMOVE_BYTES_MAX},
    queue::{self, Full},
    status::{self, Parting},
};

/// Frames from the peer on one stream.
pub(super) type Inbound = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

/// Frames to the peer on one stream, and the reason for its end, if there is one.
pub(super) type Outbound<T> = queue::Receiver<T, Rejection>;

/// The round-trip time of a link's connection now.
pub(super) type RoundTrip = Box<dyn Fn() -> Option<Duration> + Send + Sync>;

/// The writing end of a link, held by the driver. Dropping it closes the link.
pub struct Outbox {
    peer: ServerId,
    round_trip: RoundTrip,
    advertise: queue::Sender<AdvertiseFrame, Rejection>,
    remove: queue::Sender<RemoveFrame, Rejection>,
    deliver: queue::Sender<DeliverFrame, Rejection>,
    /// Holds one word for the link's task; a second one comes to nothing.
    word: mpsc::Sender<Word>,
}

/// What the driver wants of a link.
enum Word {
    /// Send what is queued, then close.
    Close(Rejection),
    /// Close at once.
    BreakOff(Rejection),
}

/// The reading ends of an outbox, for the streams.
pub(super) struct Outbounds {
    pub(super) advertise: Outbound<AdvertiseFrame>,
    pub(super) remove: Outbound<RemoveFrame>,
    pub(super) deliver: Outbound<DeliverFrame>,
    words: mpsc::Receiver<Word>,
}

/// Makes the queues of a link.
pub(super) fn queues(peer: ServerId, round_trip: RoundTrip) -> (Outbox, Outbounds) {
    let (advertise, advertise_out) = queue::bounded(LINK_FRAMES_MAX, ADVERTISE_BYTES_MAX);
    let (remove, remove_out) = queue::bounded(LINK_FRAMES_MAX, REMOVE_BYTES_MAX);
    let (deliver, deliver_out) = queue::bounded(LINK_FRAMES_MAX, DELIVER_BYTES_MAX);
    let (word, words) = mpsc::channel(1);
    let outbounds = Outbounds { advertise: advertise_out, remove: remove_out, deliver: deliver_out, words };
    (Outbox { peer, round_trip, advertise, remove, deliver, word }, outbounds)
}

impl Outbounds {
    /// Parts the streams' queues from what the link's task listens to.
    pub(super) fn split(self) -> (Outbound<AdvertiseFrame>, Outbound<RemoveFrame>, Outbound<DeliverFrame>, Words) {
        (self.advertise, self.remove, self.deliver, Words(self.words))
    }
}

/// What the link's task listens to.
pub(super) struct Words(mpsc::Receiver<Word>);

impl Outbox {
    /// Who is at the other end.
    pub fn peer(&self) -> ServerId {
        self.peer
    }

    /// The last estimate of the round-trip time of the connection.
    pub fn round_trip(&self) -> Option<Duration> {
        (self.round_trip)()
    }

    /// How many frames wait to be sent, and bytes of them.
    pub fn depth(&self) -> (usize, usize) {
        let depths = [self.advertise.depth(), self.remove.depth(), self.deliver.depth()];
        depths.into_iter().fold((0, 0), |(frames, bytes), (more, larger)| (frames + more, bytes + larger))
    }

    /// Queues a frame. A frame for a link that is being closed is dropped.
    pub fn send(&self, frame: Frame) -> Result<(), Full> {
        fn push<T: Message>(queue: &queue::Sender<T, Rejection>, frame: T) -> Result<(), Full> {
            let bytes = frame.encoded_len();
            queue.push(frame, bytes)
        }
        match frame {
            Frame::Advertise(frame) => push(&self.advertise, frame),
            Frame::Remove(frame) => push(&self.remove, frame),
            Frame::Deliver(frame) => push(&self.deliver, frame),
        }
    }

    /// Closes the link after what is queued.
    pub fn close(&self, rejection: Rejection) {
        self.end(&rejection);
        // Full: it is being closed already.
        let _ = self.word.try_send(Word::Close(rejection));
    }

    /// Closes the link at once.
    pub fn break_off(&self, rejection: Rejection) {
        self.end(&rejection);
        let _ = self.word.try_send(Word::BreakOff(rejection));
    }

    fn end(&self, rejection: &Rejection) {
        self.advertise.end(Some(rejection.clone()));
        self.remove.end(Some(rejection.clone()));
        self.deliver.end(Some(rejection.clone()));
    }
}

/// The connection under a link.
pub(super) enum Carrier {
    /// This side dialled. The channel keeps the connection.
    Dialled(Connection, #[expect(dead_code, reason = "kept for its connection")] Channel),
    /// The peer dialled.
    Accepted(PeerInfo),
}

impl Carrier {
    fn close(&self, reason: &str) {
        match self {
            Self::Dialled(connection, _) => connection.close(reason),
            Self::Accepted(peer) => peer.close(reason),
        }
    }

    async fn closed(&self) -> Closed {
        match self {
            Self::Dialled(connection, _) => connection.closed().await,
            Self::Accepted(peer) => peer.closed().await,
        }
    }
}

/// A link whose three streams stand.
pub(super) struct Link {
    pub(super) peer: ServerId,
    pub(super) dialled: bool,
    pub(super) carrier: Carrier,
    /// How files are fetched.
    pub(super) by: By,
    pub(super) inbound: [Inbound; 3],
    pub(super) outbox: Outbox,
    pub(super) words: Words,
}

/// How one inbound stream ended: cleanly, or with the peer's status or the transport's.
type StreamEnd = Option<Status>;

/// Runs a link from its beginning to its end.
pub(super) async fn run(link: Link, handle: Handle) {
    let Link { peer, dialled, carrier, by, inbound, outbox, mut words } = link;
    let id = handle.new_link();
    let _way = handle.ways().begin(id, peer, by, &handle);
    if handle.send(Event::LinkUp { link: id, peer, dialled, outbox }).await.is_err() {
        return carrier.close(&status::closing_text(&status::draining()));
    }
    let mut readers = JoinSet::new();
    for stream in inbound {
        readers.spawn(read(id, stream, handle.clone()));
    }
    let mut unreadable = None;
    let parting = tokio::select! {
        Some(end) = readers.join_next() => {
            let end = end.ok().flatten();
            unreadable = end.as_ref().and_then(status::unreadable);
            if let Some(rejection) = &unreadable {
                carrier.close(&status::closing_text(rejection));
                Some(Parting::default())
            } else {
                let first = said(end);
                let linger = Duration::from_millis(LINGER_MS_MAX);
                let last = timeout(linger, all_ended(&mut readers, &carrier)).await.unwrap_or_default();
                first.or(last)
            }
        }
        closed = carrier.closed() => Some(parting_of(&closed)),
        word = words.0.recv() => {
            let reason = match word {
                Some(Word::Close(rejection)) => {
                    // The peer ends its streams once it has read ours to their end.
                    let patience = Duration::from_millis(CLOSE_MS_MAX);
                    let _ = timeout(patience, all_ended(&mut readers, &carrier)).await;
                    status::closing_text(&rejection)
                }
                Some(Word::BreakOff(rejection)) => status::closing_text(&rejection),
                // The driver has ended.
                None => status::closing_text(&status::draining()),
            };
            carrier.close(&reason);
            Some(Parting::default())
        }
    };
    readers.shutdown().await;
    let is_told = parting.is_some();
    // Before anything is waited for: the driver drops the outbox with it, and the peer waits for our streams to end. An
    // error here and below says that the driver has ended.
    let parting = parting.unwrap_or_default();
    let _ = handle.send(Event::LinkDown { link: id, peer, parting, unreadable }).await;
    let closed = timeout(Duration::from_millis(LINGER_MS_MAX), carrier.closed()).await;
    if let (false, Ok(closed)) = (is_told, closed) {
        // Streams that ended without a word are followed by the connection's closing reason, if the peer has one.
        let _ = handle.send(Event::Parted { peer, parting: parting_of(&closed) }).await;
    }
    carrier.close("");
}

/// Brings frames to the driver until the stream ends.
async fn read(link: LinkId, mut stream: Inbound, handle: Handle) -> StreamEnd {
    while let Some(frame) = stream.next().await {
        match frame {
            Ok(frame) => handle.frame(link, frame).await.ok()?,
            Err(status) => return Some(status),
        }
    }
    None
}

/// Waits until all inbound streams or the connection have ended; what the peer said of it, if anything.
async fn all_ended(readers: &mut JoinSet<StreamEnd>, carrier: &Carrier) -> Option<Parting> {
    let mut parting = None;
    loop {
        tokio::select! {
            biased;
            end = readers.join_next() => match end {
                Some(end) => parting = parting.or(said(end.ok().flatten())),
                None => return parting,
            },
            closed = carrier.closed() => return parting.or(Some(parting_of(&closed))),
        }
    }
}

/// What a peer's status says. A status without a reason is the transport's, and says less than the connection's end.
fn said(end: StreamEnd) -> Option<Parting> {
    end.map(|status| status::parting_of_status(&status)).filter(|parting| parting.reason.is_some())
}

fn parting_of(closed: &Closed) -> Parting {
    match closed {
        Closed::ByPeer { reason, .. } => status::parting_of_text(reason),
        other => Parting { reason: None, text: other.to_string() },
    }
}
