//! One who sends, one message after the other, and writes down what became of each.

use std::{fs::File, io::Write as _, time::Duration};

use fastrand::Rng;
use prost::Message as _;
use socp::v1::{MessageHeader, MessageStatement, SealedMessage, SendMessageRequest};
use tokio::time::{sleep, timeout};
use tonic::Status;

use crate::{
    USERS, Unanswered, World,
    harness::{caller::Caller, draft, wire},
    post,
    session::{self, CALL_MAX, RETRY},
};

/// Messages of one sender at most: what is read of an inbox at the end is all of it, so nothing may have had to make room.
const MESSAGES_MAX: usize = 1_500;

/// How long one waits whose message could not be sent on.
const REJECTED: Duration = Duration::from_millis(60);

/// Before so many messages a sender makes one post.
const POST_ONE_IN: usize = 10;

/// To whom one writes: the users after the own number, so all three homes are among them.
const RECIPIENTS: usize = 3;

/// What became of a message, as its sender wrote it down.
pub struct Fate {
    /// Number of the recipient.
    pub to: usize,
    /// The message's id.
    pub id: String,
    /// Why it was rejected, if it was.
    pub rejected: Option<String>,
}

/// A sender and its notes.
pub struct Sender {
    /// Its number.
    pub user: usize,
    /// Messages for which an answer did not come at first.
    pub unknown: usize,
    /// Tries of all messages.
    pub tries: usize,
    /// Reasons that should not have come.
    pub strange: Vec<String>,
    sent: usize,
    rng: Rng,
    spacing: Duration,
    notes: Vec<Fate>,
}

/// What an answer says of a message.
enum Word {
    Accepted,
    /// Nothing is known: it may be there or not.
    Unknown,
    /// This try did not get as far as the recipient's home.
    NotSentOn(String),
    /// The session is over.
    LoggedOut,
    Refused(String),
}

fn word(answer: Result<(), Status>) -> Word {
    let Err(status) = answer else { return Word::Accepted };
    match wire::refusal(&status).1.as_str() {
        "" | "SERVER_FAILED" | "TIMEOUT" => Word::Unknown,
        "TOKEN_INVALID" => Word::LoggedOut,
        reason @ ("HOME_UNREACHABLE" | "TOO_MANY") => Word::NotSentOn(reason.into()),
        reason => Word::Refused(reason.into()),
    }
}

/// Sender and id of a message, as its header has them.
pub fn sender_and_id(message: &SealedMessage) -> (String, String) {
    let statement = MessageStatement::decode(&message.statement[..]).expect("servers pass on what was signed");
    let header = MessageHeader::decode(&statement.header[..]).expect("servers pass on what was signed");
    (header.sender, header.message_id)
}

impl Sender {
    pub fn new(user: usize, seed: u64, spacing: Duration) -> Self {
        let rng = Rng::with_seed(seed ^ (user as u64 + 1) << 32);
        let (strange, notes) = (Vec::new(), Vec::new());
        Self { user, unknown: 0, tries: 0, strange, sent: 0, rng, spacing, notes }
    }

    /// How many of the messages to a user were accepted.
    pub fn accepted_for(&self, user: usize) -> usize {
        self.notes.iter().filter(|fate| fate.to == user && fate.rejected.is_none()).count()
    }

    /// Sends until it is over.
    pub async fn send(mut self, world: &World) -> Self {
        let path = world.notes.join(self.user.to_string());
        let mut notes = File::create(&path).expect("notes can be made");
        let mut session = None;
        while !*world.is_over.borrow() && self.sent < MESSAGES_MAX {
            let to = (self.user + self.rng.usize(1..=RECIPIENTS)) % USERS;
            let caller = match session.take() {
                Some(caller) => caller,
                None => session::open(world, self.user).await,
            };
            let text = format!("number {} of user {}", self.sent, self.user);
            let message = draft::sealed(&caller, &world.users[to].address, world.key.public(), &text);
            session = Some(caller);
            self.sent += 1;
            if self.rng.usize(..POST_ONE_IN) == 0 {
                post::make(world, self.user, &mut session).await;
            }
            let (_, id) = sender_and_id(&message);
            let rejected = self.decide(world, &mut session, to, message).await;
            let line = rejected.as_deref().unwrap_or("accepted");
            writeln!(notes, "{to} {id} {line}").expect("notes can be made");
            sleep(if rejected.is_some() { REJECTED } else { self.spacing }).await;
        }
        // What counts is what was written down.
        let written = std::fs::read_to_string(path).expect("notes can be read");
        self.notes = written.lines().map(read_note).collect();
        self
    }

    /// Sends the same bytes until it is known what became of them; gives why they were rejected.
    async fn decide(
        &mut self,
        world: &World,
        session: &mut Option<Caller>,
        to: usize,
        message: SealedMessage,
    ) -> Option<String> {
        let mut is_unknown = false;
        loop {
            self.tries += 1;
            let caller = match session.take() {
                Some(caller) => caller,
                None => session::open(world, self.user).await,
            };
            let request = caller.request(SendMessageRequest { message: Some(message.clone()) });
            let answer = {
                let _unanswered = Unanswered::new(&world.unanswered[world.users[to].home]);
                timeout(CALL_MAX, caller.messages().send_message(request)).await
            };
            let word = word(answer.unwrap_or_else(|_| Err(Status::unknown("no answer"))).map(drop));
            match word {
                Word::Accepted => {
                    *session = Some(caller);
                    return None;
                }
                Word::Refused(reason) => {
                    self.strange.push(format!("user {} was refused with {reason}", self.user));
                    *session = Some(caller);
                    return Some(reason);
                }
                // An earlier try may have got there all the same.
                Word::NotSentOn(reason) => {
                    *session = Some(caller);
                    if !is_unknown {
                        return Some(reason);
                    }
                }
                Word::LoggedOut => {}
                Word::Unknown => {
                    self.unknown += usize::from(!is_unknown);
                    is_unknown = true;
                }
            }
            sleep(RETRY).await;
        }
    }

    /// What was written down, in the order of sending.
    pub fn notes(&self) -> &[Fate] {
        &self.notes
    }
}

fn read_note(line: &str) -> Fate {
    let mut words = line.split(' ');
    let mut word = || words.next().expect("a note has three words").to_owned();
    let (to, id, fate) = (word(), word(), word());
    let rejected = (fate != "accepted").then_some(fate);
    Fate { to: to.parse().expect("a number"), id, rejected }
}
