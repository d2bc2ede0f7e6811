//! Those who come and go: real users who attach and detach, or the feed of a stand-in that is told the same.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use prost::{Message as _, bytes::Bytes};
use rustls::pki_types::ServerName;
use socp::v1::{
    AttachRequest, DetachRequest, DirectoryChange, DirectoryEntry, RemovalReason, RemovedEntry, WatchDirectoryResponse,
    directory_change, message_service_client::MessageServiceClient,
};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    stand_in::{self, Door},
    tally::Schedule,
    users::User,
};
use crate::failure::Failure;

/// Actors at work in tasks of their own. Dropped, they are online no more.
#[derive(Debug)]
pub struct Actors {
    /// One for each actor, or one for all.
    tasks: Vec<UnboundedSender<usize>>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    done: AtomicUsize,
    failure: Mutex<Option<Failure>>,
}

impl Actors {
    /// Users who attach and detach, one call after the other.
    pub fn of_users(users: Vec<User>, schedule: &Arc<Schedule>) -> Self {
        let state = Arc::new(State::default());
        let tasks = users.into_iter().map(|user| {
            let (task, events) = unbounded_channel();
            let (state, schedule) = (Arc::clone(&state), Arc::clone(schedule));
            tokio::spawn(async move {
                if let Err(failure) = come_and_go(&user, events, &schedule, &state).await {
                    state.fail(failure);
                }
            });
            task
        });
        Self { tasks: tasks.collect(), state }
    }

    /// A feed that says what users of a server would have it say.
    pub async fn of_feed(door: &Door, schedule: &Arc<Schedule>) -> Result<Self, Failure> {
        let mut feed = open(door).await?;
        let (task, mut events) = unbounded_channel();
        let (state, schedule) = (Arc::new(State::default()), Arc::clone(schedule));
        let told = Arc::clone(&state);
        tokio::spawn(async move {
            let mut revision = 0;
            while let Some(event) = events.recv().await {
                revision += 1;
                let message = message(&schedule, event, revision);
                let mut bytes = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
                bytes.extend_from_slice(&message);
                schedule.begin(event);
                let sent = async {
                    feed.write_all(&bytes).await?;
                    feed.flush().await
                };
                if let Err(error) = sent.await {
                    return told.fail(Failure::failed(format!("the stand-in takes no more: {error}")));
                }
                told.done.fetch_add(1, Ordering::Release);
            }
        });
        Ok(Self { tasks: vec![task], state })
    }

    /// Lets an event happen, once the one before it of the same actor has.
    pub fn act(&self, schedule: &Schedule, event: usize) {
        let actor = schedule.event(event).0;
        // One that has given up has told why.
        let _ = self.tasks[actor % self.tasks.len()].send(event);
    }

    /// How many events have happened, each call answered.
    pub fn done(&self) -> usize {
        self.state.done.load(Ordering::Acquire)
    }

    /// Why the actors cannot go on, if so.
    pub fn failure(&self) -> Option<Failure> {
        self.state.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl State {
    fn fail(&self, failure: Failure) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    }
}

async fn come_and_go(
    user: &User,
    mut events: UnboundedReceiver<usize>,
    schedule: &Schedule,
    state: &State,
) -> Result<(), Failure> {
    let mut messages = MessageServiceClient::new(user.transport.clone());
    let mut stream = None;
    while let Some(event) = events.recv().await {
        if schedule.event(event).1 {
            let request = user.request(AttachRequest::default());
            schedule.begin(event);
            let mut attached = messages.attach(request).await?.into_inner();
            attached.message().await?;
            stream = Some(attached);
        } else {
            let request = user.request(DetachRequest {});
            schedule.begin(event);
            messages.detach(request).await?;
            stream = None;
        }
        state.done.fetch_add(1, Ordering::Release);
    }
    drop(stream);
    Ok(())
}

async fn open(door: &Door) -> Result<TlsStream<TcpStream>, Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("the stand-in cannot be reached: {error}"));
    let tcp = TcpStream::connect(door.address).await.map_err(failed)?;
    tcp.set_nodelay(true).map_err(failed)?;
    let name = ServerName::IpAddress(door.address.ip().into());
    let feed = TlsConnector::from(stand_in::feeding()?).connect(name, tcp).await.map_err(failed)?;
    match feed.get_ref().1.peer_certificates().and_then(|chain| chain.first()) {
        Some(shown) if *shown == door.certificate => Ok(feed),
        _ => Err(Failure::failed("the stand-in shows another certificate than the one it told")),
    }
}

/// What a server tells its watchers of an event: as long as the real thing, fingerprints only.
fn message(schedule: &Schedule, event: usize, revision: u64) -> Vec<u8> {
    let (actor, comes) = schedule.event(event);
    let name = schedule.name(actor);
    let user = format!("{name}@server-a");
    let server_id = "0123456789abcdef".repeat(4);
    let change = if comes {
        directory_change::Change::Added(DirectoryEntry {
            user,
            name,
            server_id: server_id.clone(),
            server_name: "server-a".into(),
            key_fingerprint: server_id,
            key_statement_sha256: Bytes::from_static(&[7; 32]),
            epoch: 1_790_000_000_000,
            online_since: revision,
            sessions: 1,
            ..DirectoryEntry::default()
        })
    } else {
        let reason = RemovalReason::Left.into();
        directory_change::Change::Removed(RemovedEntry { user, name, server_id, reason, ..RemovedEntry::default() })
    };
    WatchDirectoryResponse {
        changes: vec![DirectoryChange { revision, change: Some(change) }],
        resume_token: "0".repeat(RESUME_TOKEN_BYTES),
        ..WatchDirectoryResponse::default()
    }
    .encode_to_vec()
}

/// Bytes of a server's resume token.
const RESUME_TOKEN_BYTES: usize = 50;
