//! A live connection: connects, attaches, watches, and does it all again when the connection is lost.
//!
//! What happens comes out of [`Live::next`], one thing at a time, in order. A watch that breaks resumes where it was;
//! one that cannot is loaded anew, and only the difference is told.

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use socp::v1::{
    AttachRequest, AttachResponse, Attached, DetachRequest, DirectoryFilter, KeyDetail, LogOutRequest, Reason,
    WatchDirectoryRequest, WatchDirectoryResponse, attach_response,
};
use tokio::time::{sleep, timeout};
use tonic::Streaming;

use crate::{
    content,
    directory::{Notice, View},
    event::now_unix_ns,
    failure::Failure,
    inbox::Arrival,
    session::{Account, Session},
    transport::TransportKind,
};

/// The first delay before connecting again; doubled each time.
const RETRY_MIN: Duration = Duration::from_millis(100);

/// The longest delay before connecting again.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// How long going offline may take.
const DETACH_TIME_MAX: Duration = Duration::from_secs(2);

/// The reason given when the session was ended by another program of the user.
pub const SESSION_ENDED: &str = "SESSION_ENDED";

/// The reason given when the server ended a watch without a status.
const WATCH_ENDED: &str = "WATCH_ENDED";

/// How the device takes part.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether to receive, and so be online; with this status text.
    pub attach: Option<String>,
    /// What the device has of the inbox; empty for nothing.
    pub cursor: String,
    /// What the device has of the public channel; empty for what comes from now on.
    pub channel_cursor: String,
    /// Which device it is, so that the inbox keeps what it has not read; empty for none.
    pub device_id: String,
    /// Which entries are watched.
    pub filter: DirectoryFilter,
    /// How much of each key.
    pub keys: KeyDetail,
}

/// One thing that happened.
pub enum Happening {
    /// The device is attached, by a stream that was asked for at this time (nanoseconds since 1970).
    Attached(Attached, TransportKind, u64),
    /// The device watches, without being attached.
    Watching(TransportKind),
    /// The directory changed.
    Directory(Notice, u64),
    /// A message, outcome or post arrived, with its place in the inbox or the channel's log.
    Arrived(Arrival, String, u64),
    /// So many messages are gone that this device never read.
    Missed(u64),
    /// So many posts are, at most.
    PostsMissed(u64),
    /// The watch could not go on where it was, and starts over.
    Reloading(Failure),
    /// The connection is lost, and is made again after a delay.
    Lost(Failure, Duration),
}

type Boxed<T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send>>;

/// The live view and the connection under it.
pub struct Live {
    account: Arc<Account>,
    options: Options,
    view: View,
    state: State,
    /// Notices read and not yet told.
    pending: VecDeque<(Notice, u64)>,
    /// Connections in a row that were not made, or not kept until the view was complete.
    failed: u32,
    /// Watches in a row that started over before the view was complete and right.
    reloaded: u32,
    was_online: bool,
}

enum State {
    Connecting(Boxed<Online>),
    Online(Box<Online>),
}

struct Online {
    session: Session,
    inbox: Option<Streaming<AttachResponse>>,
    /// When the stream was asked for.
    asked_unix_ns: u64,
    /// Whether the server has said that the device is attached, or need not. What is watched is told after that.
    is_attached: bool,
    watch: Watch,
}

enum Watch {
    Opening(Boxed<Streaming<WatchDirectoryResponse>>),
    Open(Box<Streaming<WatchDirectoryResponse>>),
}

impl Watch {
    /// Waits for the next message; cancelling loses nothing.
    async fn next(&mut self) -> Result<WatchDirectoryResponse, Failure> {
        loop {
            match self {
                Self::Opening(opening) => *self = Self::Open(Box::new(opening.await?)),
                Self::Open(stream) => return stream.message().await?.ok_or_else(watch_ended),
            }
        }
    }
}

/// No server of this version ends a watch without a status; asking for another tells what is the matter.
fn watch_ended() -> Failure {
    Failure { reason: WATCH_ENDED.into(), ..Failure::unreachable("the server ended the watch") }
}

/// Streams of a session end without a status only when it is detached or logged out; nobody asked for that here.
fn session_ended() -> Failure {
    Failure::refused(SESSION_ENDED, "the session was detached or logged out elsewhere")
        .hint("start again to log in anew; `socp sessions` shows the others")
}

/// A delay that grows with failures and differs between clients: half to all of it.
fn delay(failed: u32) -> Duration {
    let whole = RETRY_MIN.saturating_mul(1 << failed.min(10)).min(RETRY_MAX);
    let random = content::random::<1>().map_or(255, |[byte]| byte);
    whole.mul_f64(0.5 + f64::from(random) / 510.0)
}

impl Live {
    /// Begins; nothing is dialled before [`Live::next`] is awaited.
    pub fn new(account: Arc<Account>, options: Options) -> Self {
        let state = State::Connecting(Box::pin(connect(account.clone(), options.clone(), Duration::ZERO)));
        let (view, pending) = (View::default(), VecDeque::new());
        Self { account, options, view, state, pending, failed: 0, reloaded: 0, was_online: false }
    }

    /// Who is online.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The session, while there is a connection.
    pub fn session(&self) -> Option<Session> {
        match &self.state {
            State::Online(online) => Some(online.session.clone()),
            State::Connecting(_) => None,
        }
    }

    /// Waits for the next thing to happen. Cancelling loses nothing. Fails for good where trying again cannot help.
    ///
    /// Without `take_arrivals` messages stay where they are, and in the end with the server.
    pub async fn next(&mut self, take_arrivals: bool) -> Result<Happening, Failure> {
        loop {
            if let Some((notice, unix_ns)) = self.pending.pop_front() {
                return Ok(Happening::Directory(notice, unix_ns));
            }
            match &mut self.state {
                State::Connecting(connecting) => match connecting.await {
                    Ok(online) => {
                        self.was_online = true;
                        let kind = online.session.transport.kind();
                        self.state = State::Online(Box::new(online));
                        self.watch_again(Duration::ZERO);
                        if self.options.attach.is_none() {
                            return Ok(Happening::Watching(kind));
                        }
                    }
                    Err(failure) if failure.is(Reason::CursorUnknown) => return Ok(self.read_anew(failure)),
                    Err(failure) if failure.passing && self.was_online => return Ok(self.lose(failure)),
                    Err(failure) => return Err(failure),
                },
                State::Online(online) => {
                    let Online { inbox, asked_unix_ns, is_attached, watch, session } = &mut **online;
                    let arrival = async {
                        match inbox {
                            Some(stream) if take_arrivals || !*is_attached => {
                                stream.message().await.map_err(Failure::from)?.ok_or_else(session_ended)
                            }
                            _ => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        biased;
                        arrival = arrival => match arrival.map(|response| (response.event, response.cursor)) {
                            Ok((Some(attach_response::Event::Attached(attached)), _)) => {
                                if self.options.channel_cursor.is_empty() {
                                    self.options.channel_cursor.clone_from(&attached.newest_channel_cursor);
                                }
                                *is_attached = true;
                                return Ok(Happening::Attached(attached, session.transport.kind(), *asked_unix_ns));
                            }
                            Ok((Some(attach_response::Event::Message(message)), cursor)) => {
                                self.options.cursor.clone_from(&cursor);
                                return Ok(Happening::Arrived(Arrival::Message(message), cursor, now_unix_ns()));
                            }
                            Ok((Some(attach_response::Event::Outcome(outcome)), cursor)) => {
                                self.options.cursor.clone_from(&cursor);
                                return Ok(Happening::Arrived(Arrival::Outcome(outcome), cursor, now_unix_ns()));
                            }
                            Ok((Some(attach_response::Event::Post(post)), cursor)) => {
                                self.options.channel_cursor.clone_from(&cursor);
                                return Ok(Happening::Arrived(Arrival::Post(post), cursor, now_unix_ns()));
                            }
                            Ok((Some(attach_response::Event::Gap(gap)), _)) => {
                                return Ok(Happening::Missed(gap.missed));
                            }
                            Ok((Some(attach_response::Event::ChannelGap(gap)), _)) => {
                                return Ok(Happening::PostsMissed(gap.missed));
                            }
                            Ok((None, _)) => {} // An event of a later version.
                            Err(failure) => return self.inbox_ended(failure),
                        },
                        response = watch.next(), if *is_attached => match response {
                            Ok(response) => self.take(response),
                            Err(failure) => return self.watch_ended(failure),
                        },
                    }
                }
            }
        }
    }

    fn take(&mut self, response: WatchDirectoryResponse) {
        let unix_ns = now_unix_ns();
        match self.view.apply(response) {
            Ok(notices) => {
                let differs = |notice: &Notice| {
                    matches!(
                        notice,
                        Notice::Synced { digest_ok: Some(false), .. } | Notice::Bookmark { digest_ok: Some(false), .. }
                    )
                };
                if notices.iter().any(differs) {
                    self.view.start_over();
                    self.reload();
                } else if !self.view.is_loading() {
                    (self.failed, self.reloaded) = (0, 0);
                }
                self.pending.extend(notices.into_iter().map(|notice| (notice, unix_ns)));
            }
            Err(failure) => {
                tracing::warn!(%failure, "the watch starts over");
                self.view.start_over();
                self.reload();
            }
        }
    }

    /// Asks for a watch from where the view is, over the same connection.
    fn watch_again(&mut self, after: Duration) {
        self.view.begin();
        let State::Online(online) = &mut self.state else { return };
        let session = online.session.clone();
        let request = session.streaming_request(WatchDirectoryRequest {
            resume_token: self.view.resume_token().to_owned(),
            filter: Some(self.options.filter.clone()),
            keys: self.options.keys.into(),
        });
        online.watch = Watch::Opening(Box::pin(async move {
            sleep(after).await;
            Ok(session.directory().watch_directory(request).await?.into_inner())
        }));
    }

    /// Asks for another watch: at once the first time, then with a growing delay.
    fn reload(&mut self) {
        let after = if self.reloaded == 0 { Duration::ZERO } else { delay(self.reloaded) };
        self.reloaded += 1;
        self.watch_again(after);
    }

    fn watch_ended(&mut self, failure: Failure) -> Result<Happening, Failure> {
        let restarts = failure.is(Reason::RevisionCompacted) || failure.is(Reason::ResumeTokenInvalid);
        if restarts {
            self.view.start_over();
        }
        if restarts || failure.is(Reason::WatcherTooSlow) || failure.reason == WATCH_ENDED {
            self.reload();
            return Ok(Happening::Reloading(failure));
        }
        self.inbox_or_watch_lost(failure)
    }

    /// The home has another log of the channel now, or another inbox: all of that is read, and what was shown in this run is not
    /// shown again.
    fn read_anew(&mut self, failure: Failure) -> Happening {
        if failure.field.as_deref() == Some("channel_cursor") {
            self.options.channel_cursor.clear();
        } else {
            self.options.cursor.clear();
        }
        self.lose(failure)
    }

    fn inbox_ended(&mut self, failure: Failure) -> Result<Happening, Failure> {
        if failure.is(Reason::CursorUnknown) {
            return Ok(self.read_anew(failure));
        }
        if (failure.is(Reason::Replaced) || failure.reason == SESSION_ENDED)
            && let State::Online(online) = &mut self.state
        {
            online.inbox = None; // What became of the session elsewhere is to stay so.
        }
        self.inbox_or_watch_lost(failure)
    }

    fn inbox_or_watch_lost(&mut self, failure: Failure) -> Result<Happening, Failure> {
        // The token was good when the connection was made.
        if failure.is(Reason::TokenInvalid) {
            return Err(session_ended());
        }
        if failure.passing { Ok(self.lose(failure)) } else { Err(failure) }
    }

    fn lose(&mut self, failure: Failure) -> Happening {
        let after = delay(self.failed);
        self.failed += 1;
        self.state = State::Connecting(Box::pin(connect(self.account.clone(), self.options.clone(), after)));
        Happening::Lost(failure, after)
    }

    /// Goes offline and closes the connection, as far as that works within its time.
    pub async fn leave(self) {
        let State::Online(online) = self.state else { return };
        let session = online.session.clone();
        let goodbye = async {
            if online.inbox.is_some() {
                let _ = session.messages().detach(session.request(DetachRequest {})).await;
            }
            if self.account.has_own_session() {
                let _ = session.accounts().log_out(session.request(LogOutRequest::default())).await;
            }
        };
        let _ = timeout(DETACH_TIME_MAX, goodbye).await;
        session.transport.leave().await;
    }
}

/// Connects, makes sure of a session and attaches.
async fn connect(account: Arc<Account>, options: Options, after: Duration) -> Result<Online, Failure> {
    sleep(after).await;
    let session = account.session().await?;
    let asked_unix_ns = now_unix_ns();
    let inbox = match options.attach {
        None => None,
        Some(status) => {
            let request = session.streaming_request(AttachRequest {
                status,
                cursor: options.cursor,
                device_id: options.device_id,
                channel_cursor: options.channel_cursor,
            });
            Some(session.messages().attach(request).await?.into_inner())
        }
    };
    let is_attached = inbox.is_none();
    let watch = Watch::Opening(Box::pin(std::future::pending()));
    Ok(Online { session, inbox, asked_unix_ns, is_attached, watch })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_grows_and_is_capped() {
        for (failed, whole) in [(0, 100), (1, 200), (3, 800), (40, 5_000)] {
            for _ in 0..50 {
                let delay = delay(failed).as_millis();
                assert!((whole / 2..=whole).contains(&delay), "{failed}: {delay} ms");
            }
        }
    }
}
