//! The mirror of the core: one owner of the node, one loop, one `match` over what the node wants done, no decision.
//!
//! Invariants: outputs are carried out in the order given; a record to be stored is on disk before anything after it is
//! told to anybody, while one to be written goes to disk with others and is reported; the driver waits for nobody but the
//! disk ([`crate::disk`]). It has a thread of its own, so it may wait there.
//! When the store fails, the node already knows what the disk does not, so the driver ends and the server must stop:
//! every call that waits is answered SERVER_FAILED, and peers and clients see their streams end.

mod clock;
mod gauges;
mod log;
mod reads;
mod run;
mod tally;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use prost::Message as _;
use socp::{
    id::{FileId, ServerId, TokenHash},
    input::{AttachmentId, Frame, LinkId, Request},
    node::Node,
    output::Answer,
    rejection::Rejection,
    v1::{AttachRequest, GetChannelKeyRequest, GetChannelKeyResponse, ReadInboxResponse},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};

use self::reads::Reads;
pub use self::{
    gauges::{Gauges, LinkGauges, OpenLink},
    log::{Counters, REFUSALS},
    tally::Passed,
};
use crate::{
    attachment::{self, EventStream, Events, Streams},
    checks, disk,
    federation::{Dialler, Outbox, Ways},
    files::Files,
    hub::Hub,
    limits::{CALLS_MAX, DRAIN_MS_MAX, FRAMES_BYTES_MAX, INPUTS_MAX, READERS_MAX},
    status::{self, Parting},
    storage::{Pages, Storage, StorageError},
    tls::Admitted,
};

/// All that a driver carries outputs out with.
pub struct Shell {
    /// Where records go.
    pub storage: Box<dyn Storage>,
    /// Where messages come from.
    pub pages: Box<dyn Pages>,
    /// Where files are.
    pub files: Files,
    /// Where published revisions go.
    pub hub: Hub,
    /// Who dials peers.
    pub dialler: Dialler,
    /// Whom the handshakes of both let through.
    pub admitted: Admitted,
}

/// Starts the driver of a node on a thread of its own, where it runs until [`Handle::stop`].
pub fn start(node: Node, shell: Shell) -> io::Result<(Handle, Running)> {
    let (events, inputs) = mpsc::channel(INPUTS_MAX);
    let (streams, ended) = attachment::streams();
    let (checks, checked) = checks::start()?;
    let counters = Arc::<Counters>::default();
    let ids = Arc::new(Ids { attachments: AtomicU64::new(1), links: AtomicU64::new(1) });
    let calls = Arc::new(Semaphore::new(CALLS_MAX));
    let frames = Arc::new(Semaphore::new(FRAMES_BYTES_MAX));
    let Shell { storage, pages, files, hub, dialler, admitted } = shell;
    let (disk, reports) = disk::start(storage, pages, Arc::clone(&counters))?;
    let reads = Reads { way: disk.reads(), readers: Arc::new(Semaphore::new(READERS_MAX)) };
    let (ways, kept) = (Ways::default(), files.clone());
    let handle = Handle { events, streams, calls, frames, reads, ids, counters, ways, files: kept };
    let carriers = run::Carriers { disk, files, hub, dialler, admitted, checks };
    let mut driver =
        run::Driver::new(node, carriers, run::Queues { events: inputs, ended, checked, reports }, handle.clone());
    // What the node says first, above all whom it admits, is carried out before anybody can reach it.
    let begun = driver.begin();
    let (end, running) = oneshot::channel();
    // Of its own, so that neither a busy nor a stopping server holds the node's timers up.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    thread::Builder::new().name("driver".to_owned()).spawn(move || {
        // Nobody may want to know any more.
        let _ = end.send(runtime.block_on(driver.run(begun)));
    })?;
    Ok((handle, Running(running)))
}

/// Something for the driver that comes by its one bounded queue.
pub(crate) enum Event {
    Call {
        request: Request,
        reply: oneshot::Sender<Result<Answer, Rejection>>,
    },
    Attach {
        token: TokenHash,
        attach: AttachRequest,
        attachment: AttachmentId,
        events: Events,
    },
    LinkUp {
        link: LinkId,
        peer: ServerId,
        dialled: bool,
        outbox: Outbox,
    },
    LinkDown {
        link: LinkId,
        peer: ServerId,
        parting: Parting,
        /// Why this side ended it, where what came on it is no frame.
        unreadable: Option<Rejection>,
    },
    /// A word of the peer on a link that was reported down before it came.
    Parted {
        peer: ServerId,
        parting: Parting,
    },
    DialFailed {
        peer: ServerId,
        cause: String,
    },
    Frame {
        link: LinkId,
        frame: Frame,
        _room: OwnedSemaphorePermit,
    },
    /// All of a file is on disk.
    FileStored(FileId),
    /// What is in hand is to be told, for metrics.
    Gauges(oneshot::Sender<Gauges>),
    Drain(oneshot::Sender<()>),
    Stop,
}

struct Ids {
    attachments: AtomicU64,
    links: AtomicU64,
}

/// Asks the node. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    events: mpsc::Sender<Event>,
    streams: Streams,
    /// As many permits as calls may wait for their answers.
    calls: Arc<Semaphore>,
    /// As many permits as bytes of peers' frames may wait for the driver.
    frames: Arc<Semaphore>,
    reads: Reads,
    ids: Arc<Ids>,
    counters: Arc<Counters>,
    /// Links over which files can be fetched.
    ways: Ways,
    files: Files,
}

impl Handle {
    /// Asks the node and waits for its answer. A full queue is waited for. Whoever drops this future leaves the request
    /// where it is: it is carried out, and nobody hears the answer.
    pub async fn call(&self, request: Request) -> Result<Answer, Rejection> {
        let _permit = self.calls.acquire().await.map_err(|_| status::server_failed())?;
        let (reply, answer) = oneshot::channel();
        self.send(Event::Call { request, reply }).await?;
        answer.await.unwrap_or_else(|_| Err(status::server_failed()))
    }

    /// Attaches a device. The stream's first event is `attached`, or it ends with a rejection. It has its place among the streams
    /// there may be from when it is its turn to wait for the driver, so that a crowd of strangers takes few.
    /// Rejects: TOO_MANY, SERVER_FAILED.
    pub async fn attach(&self, token: TokenHash, attach: AttachRequest) -> Result<EventStream, Rejection> {
        let _permit = self.calls.acquire().await.map_err(|_| status::server_failed())?;
        let attachment = AttachmentId(self.ids.attachments.fetch_add(1, Ordering::Relaxed));
        let (events, stream) = self.streams.open(attachment)?;
        self.send(Event::Attach { token, attach, attachment, events }).await?;
        Ok(stream)
    }

    /// Gives a user what the node lets them read of their inbox at once. Waits while as many as may read do; who has no session
    /// is refused before that.
    pub async fn read_inbox(&self, token: TokenHash, before: String) -> Result<ReadInboxResponse, Rejection> {
        match self.call(Request::ReadInbox { token, before }).await? {
            Answer::InboxPage(page) => self.reads.inbox(page).await,
            _ => Err(status::server_failed()),
        }
    }

    /// Gives a user a channel key that came for them before. Waits and refuses as `read_inbox` does.
    pub async fn channel_key(
        &self,
        token: TokenHash,
        wanted: GetChannelKeyRequest,
    ) -> Result<GetChannelKeyResponse, Rejection> {
        match self.call(Request::GetChannelKey { token, wanted }).await? {
            Answer::ChannelKey { user, key } => self.reads.channel_key(user, key).await,
            _ => Err(status::server_failed()),
        }
    }

    /// Tells the node that all of a file is on disk, before whatever is asked after this.
    pub async fn file_stored(&self, file: FileId) -> Result<(), Rejection> {
        self.send(Event::FileStored(file)).await
    }

    /// Says goodbye to peers and clients; returns when all links are closed, or after [`DRAIN_MS_MAX`].
    pub async fn drain(&self) {
        let (done, drained) = oneshot::channel();
        if self.send(Event::Drain(done)).await.is_ok()
            && timeout(Duration::from_millis(DRAIN_MS_MAX), drained).await.is_err()
        {
            tracing::warn!("not all peers took the goodbye in time");
        }
    }

    /// Ends the driver; every later call is refused. To be called after [`Handle::drain`].
    pub async fn stop(&self) {
        // An error says that it has ended already.
        let _ = self.send(Event::Stop).await;
    }

    /// What was counted so far.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// What the driver and the node have in hand now. Waits for its turn like any other event.
    pub async fn gauges(&self) -> Result<Gauges, Rejection> {
        let (reply, told) = oneshot::channel();
        self.send(Event::Gauges(reply)).await?;
        told.await.map_err(|_| status::server_failed())
    }

    /// How many events wait for the driver.
    pub fn queued(&self) -> usize {
        self.events.max_capacity() - self.events.capacity()
    }

    /// Whether few wait for the driver: less than half of the events and calls that may.
    pub(crate) fn keeps_up(&self) -> bool {
        2 * self.queued() < self.events.max_capacity() && self.calls.available_permits() > CALLS_MAX / 2
    }

    /// The links over which files can be fetched.
    pub(crate) fn ways(&self) -> &Ways {
        &self.ways
    }

    /// The files that are kept here.
    pub(crate) fn files(&self) -> &Files {
        &self.files
    }

    /// A number for a new link.
    pub(crate) fn new_link(&self) -> LinkId {
        LinkId(self.ids.links.fetch_add(1, Ordering::Relaxed))
    }

    /// Brings a peer's frame; waits while too many bytes of frames are before it.
    pub(crate) async fn frame(&self, link: LinkId, frame: Frame) -> Result<(), Rejection> {
        let bytes = match &frame {
            Frame::Advertise(frame) => frame.encoded_len(),
            Frame::Remove(frame) => frame.encoded_len(),
            Frame::Deliver(frame) => frame.encoded_len(),
        };
        let bytes = u32::try_from(bytes.min(FRAMES_BYTES_MAX)).expect("the limit fits");
        let room = Arc::clone(&self.frames).acquire_many_owned(bytes).await.map_err(|_| status::server_failed())?;
        self.send(Event::Frame { link, frame, _room: room }).await
    }

    /// Brings an event; waits while the queue is full. Fails only once the driver has ended.
    pub(crate) async fn send(&self, event: Event) -> Result<(), Rejection> {
        self.events.send(event).await.map_err(|_| status::server_failed())
    }
}

/// The running driver.
pub struct Running(oneshot::Receiver<Result<(), DriverError>>);

impl Running {
    /// Waits for the driver's end: `Ok` after [`Handle::stop`].
    pub async fn ended(self) -> Result<(), DriverError> {
        self.0.await.unwrap_or(Err(DriverError::Panicked))
    }
}

/// Why a driver ended by itself. The server must stop: what it shows and what is on disk are no longer the same.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// A record could not be made durable. Nothing that depends on it was told to anybody.
    #[error("the store failed, so the server stops rather than promise what is not on disk")]
    Storage(#[source] StorageError),
    /// A bug of ours: a thread panicked, the driver's or the disk's.
    #[error("a thread panicked; this is a bug")]
    Panicked,
}

#[cfg(test)]
mod tests;
