//! A device: attaches after its cursors, keeps what comes, and says how far it is.

use std::time::Duration;

use fastrand::Rng;
use socp::v1::{
    AcknowledgeMessagesRequest, AttachRequest, AttachResponse,
    attach_response::Event::{Attached, ChannelGap, Gap, Message, Post},
};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::Streaming;

use crate::{
    World,
    harness::{caller::Caller, wire},
    post::author_and_id,
    sender::sender_and_id,
    session::{self, CALL_MAX, RETRY},
};

/// Messages after which it says how far it is.
const ACKNOWLEDGED_EACH: usize = 20;

/// Of so many messages one makes a device that comes and goes go.
const LEAVES_ONE_IN: u32 = 40;

/// How long such a device is away.
const AWAY: Duration = Duration::from_millis(300);

/// The place before all posts.
const LOG_BEGIN: &str = "0";

/// A device and what it received.
pub struct Device {
    /// Whose.
    pub user: usize,
    /// 0 stays attached, 1 comes and goes, 2 comes at the end.
    pub number: usize,
    /// Sender and id of all messages, as they came.
    pub received: Vec<(String, String)>,
    /// The same of all posts.
    pub posts: Vec<(String, String)>,
    /// How often it attached.
    pub attached: usize,
    /// What should not have happened.
    pub violations: Vec<String>,
    id: String,
    cursor: String,
    /// Of posts.
    channel_cursor: String,
    rng: Rng,
}

/// Why a device reads no further.
#[derive(PartialEq, Eq)]
enum End {
    /// The stream broke, or the device left.
    Left,
    /// It has all up to what was asked for.
    HasAll,
    /// The server does not know its cursor.
    Lost,
}

impl Device {
    pub fn new(user: usize, number: usize, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ ((user * 3 + number) as u64 + 1) << 48);
        let id = format!("{:032x}", rng.u128(..));
        // The last one reads the whole log, too.
        let channel_cursor = if number == 2 { LOG_BEGIN.to_owned() } else { String::new() };
        Self {
            user,
            number,
            received: Vec::new(),
            posts: Vec::new(),
            attached: 0,
            violations: Vec::new(),
            id,
            cursor: String::new(),
            channel_cursor,
            rng,
        }
    }

    /// Receives until it is over.
    pub async fn receive(mut self, world: &World) -> Self {
        let mut is_over = world.is_over.clone();
        loop {
            let end = tokio::select! {
                _ = is_over.wait_for(|is_over| *is_over) => break,
                end = self.stay(world) => end,
            };
            if end == End::Lost {
                break;
            }
            tokio::select! {
                _ = is_over.wait_for(|is_over| *is_over) => break,
                () = sleep(if self.number == 1 { AWAY } else { RETRY }) => {}
            }
        }
        self
    }

    /// Attaches once and receives for as long as that holds.
    async fn stay(&mut self, world: &World) -> End {
        let caller = session::open(world, self.user).await;
        match self.attach(&caller).await {
            Ok((stream, _)) => self.read(world, &caller, stream, None).await,
            Err(end) => end,
        }
    }

    /// Reads what is there, and again until it has so many.
    pub async fn drain(mut self, world: &World, expected: usize, until: Instant) -> Self {
        while let Some(caller) = session::open_until(world, self.user, until).await {
            let end = match timeout_at(until, self.attach(&caller)).await {
                Ok(Ok((stream, newest))) => {
                    world.here.send_if_modified(|here| here.insert((self.user, self.number)));
                    timeout_at(until, self.read(world, &caller, stream, Some(newest))).await
                }
                Ok(Err(end)) => Ok(end),
                Err(_) => break,
            };
            match end {
                Ok(End::HasAll) if self.received.len() >= expected => break,
                Ok(End::Lost) | Err(_) => break,
                Ok(End::HasAll | End::Left) => sleep(RETRY).await,
            }
        }
        self
    }

    /// Attaches after the cursor; gives that of the newest message.
    async fn attach(&mut self, caller: &Caller) -> Result<(Streaming<AttachResponse>, String), End> {
        let attach = AttachRequest {
            status: String::new(),
            cursor: self.cursor.clone(),
            device_id: self.id.clone(),
            channel_cursor: self.channel_cursor.clone(),
        };
        let stream = timeout(CALL_MAX, caller.messages().attach(caller.request(attach))).await;
        let mut stream = match stream {
            Ok(Ok(stream)) => stream.into_inner(),
            Ok(Err(status)) => return Err(self.broke(&status)),
            Err(_) => return Err(End::Left),
        };
        match timeout(CALL_MAX, stream.message()).await {
            Ok(Ok(Some(AttachResponse { event: Some(Attached(attached)), .. }))) => {
                self.attached += 1;
                if self.channel_cursor.is_empty() {
                    self.channel_cursor = attached.newest_channel_cursor;
                }
                Ok((stream, attached.newest_cursor))
            }
            Ok(Err(status)) => Err(self.broke(&status)),
            _ => Err(End::Left),
        }
    }

    /// Takes what comes: up to a cursor and one of the last posts, or until the stream breaks.
    async fn read(
        &mut self,
        world: &World,
        caller: &Caller,
        mut stream: Streaming<AttachResponse>,
        up_to: Option<String>,
    ) -> End {
        while up_to.as_ref() != Some(&self.cursor) || !self.has_last_post(world) {
            let response = match stream.message().await {
                Ok(Some(response)) => response,
                Ok(None) => return End::Left,
                Err(status) => return self.broke(&status),
            };
            match response.event {
                Some(Message(message)) => {
                    self.received.push(sender_and_id(&message.message.unwrap_or_default()));
                }
                Some(Post(post)) => {
                    self.posts.push(author_and_id(&post.post.unwrap_or_default()));
                    self.channel_cursor = response.cursor;
                    continue;
                }
                Some(ChannelGap(gap)) => self.violations.push(format!("up to {} posts were dropped", gap.missed)),
                Some(Gap(gap)) => self.violations.push(format!("{} messages were dropped", gap.missed)),
                _ => {}
            }
            if !response.cursor.is_empty() {
                self.cursor = response.cursor;
            }
            if self.received.len().is_multiple_of(ACKNOWLEDGED_EACH) {
                let request = caller.request(AcknowledgeMessagesRequest { cursor: self.cursor.clone() });
                // One that has no answer is said again later.
                let _ = timeout(CALL_MAX, caller.messages().acknowledge_messages(request)).await;
            }
            if self.number == 1 && up_to.is_none() && self.rng.u32(..LEAVES_ONE_IN) == 0 {
                return End::Left;
            }
        }
        End::HasAll
    }

    /// Whether it has a post that was made when all devices were there again.
    fn has_last_post(&self, world: &World) -> bool {
        let last = world.last_posts.lock().expect("nobody panicked");
        self.posts.last().is_some_and(|(_, id)| last.contains(id))
    }

    fn broke(&mut self, status: &tonic::Status) -> End {
        if wire::refusal(status).1 == "CURSOR_UNKNOWN" {
            self.violations.push("its cursor is not known any more".into());
            return End::Lost;
        }
        End::Left
    }
}
