//! Messages and posts: from a session to the recipient's home, and from there to the recipient's streams.
//!
//! The sender's home checks the sender's signature; the recipient's home decides what becomes of the message and
//! signs its word; the sender's session gets that word. A message is handed over at most once: its id is remembered
//! with the hash of its signed bytes, and a retry is answered as the first was.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    format,
    string::ToString,
    vec::Vec,
};

use prost::{Message as _, bytes::Bytes};

use super::{Node, Timer, account::Registration, session::PendingLogin};
use crate::{
    federation::v1::{DeliverFrame, PostDelivery, deliver_frame},
    id::{ContentHash, KeyFingerprint, MessageId, ServerId, TokenHash},
    input::{CallId, Frame, LinkId},
    limits::{
        CHECKS_MAX, ID_REMEMBERED_MS, IDS_MAX, OUTCOME_MS, SENDS_PER_SESSION_MAX, STRANGERS_CHECKS_MAX, WAITING_MAX,
    },
    message::{Address, Authorship, Message, Post, Wrap, parse_wraps},
    name::UserName,
    output::{Answer, CheckId, Output, Refusal},
    rejection::{self, Rejection},
    signed::{Label, signing_input},
    statement::RsaCheck,
    user_key::UserKey,
    v1::{
        AttachResponse, ChannelKeyWrap, Outcome, OutcomeKind, OutcomeStatement, PostToChannelResponse, Reason,
        ReceivedMessage, ReceivedPost, SealedMessage, SealedPost, SendMessageResponse, SignedOutcome,
        attach_response::Event,
    },
};

/// What waits for a slow check.
#[derive(Debug)]
pub(super) enum Checking {
    Registration(Registration),
    Login(PendingLogin),
    Message { call: CallId, token: TokenHash, message: Message },
    Post { call: CallId, token: TokenHash, post: Post, wraps: Vec<Wrap> },
}

/// A message or post whose outcome is awaited from other homes.
#[derive(Debug, Default)]
struct Waiting {
    calls: Vec<CallId>,
    /// Whose word is awaited.
    homes: BTreeSet<ServerId>,
    /// Whose word will not come.
    silent: BTreeSet<ServerId>,
    is_post: bool,
    outcomes: Vec<SignedOutcome>,
    recipients: u32,
    until_ms: u64,
}

/// A message or post that was handed over.
#[derive(Debug)]
struct Remembered {
    hash: ContentHash,
    recipients: u32,
}

/// Checks under way, outcomes awaited, and what was handed over before.
#[derive(Debug, Default)]
pub(super) struct Messages {
    checks: BTreeMap<CheckId, Checking>,
    checks_begun: u64,
    waiting: BTreeMap<ContentHash, Waiting>,
    remembered: BTreeMap<(Address, MessageId), Remembered>,
    /// When to forget what is remembered, oldest first.
    forgetting: VecDeque<(u64, Address, MessageId)>,
}

impl Messages {
    pub(super) fn sweep(&mut self, now_ms: u64) {
        while self.forgetting.front().is_some_and(|(until_ms, ..)| *until_ms <= now_ms) {
            let oldest = self.forgetting.pop_front();
            oldest.map(|(_, sender, id)| self.remembered.remove(&(sender, id)));
        }
    }

    /// Takes all calls that wait for a check or an outcome, to answer them otherwise.
    pub(super) fn waiting_calls(&mut self) -> Vec<CallId> {
        let checks = core::mem::take(&mut self.checks).into_values().map(|checking| match checking {
            Checking::Message { call, .. } | Checking::Post { call, .. } => call,
            Checking::Registration(registration) => registration.call(),
            Checking::Login(login) => login.call(),
        });
        let waiting = core::mem::take(&mut self.waiting).into_values().flat_map(|waiting| waiting.calls);
        checks.chain(waiting).collect()
    }
}

impl Node {
    /// Has signatures checked outside; goes on in [`Self::checked`].
    pub(super) fn check(&mut self, call: CallId, signatures: Vec<RsaCheck>, checking: Checking) {
        let limit = match &checking {
            Checking::Registration(_) | Checking::Login(_) => STRANGERS_CHECKS_MAX,
            Checking::Message { .. } | Checking::Post { .. } => CHECKS_MAX,
        };
        if self.messages.checks.len() >= limit {
            let rejection = Rejection::new(Reason::TooMany, "too many signatures are being checked; try again");
            return self.answer(call, Err(rejection.with("limit", limit.to_string())));
        }
        if let Checking::Message { token, .. } | Checking::Post { token, .. } = &checking
            && let Some(session) = self.sessions.session_mut(*token)
        {
            session.sends += 1;
        }
        self.messages.checks_begun += 1;
        let check = CheckId(self.messages.checks_begun);
        self.messages.checks.insert(check, checking);
        self.output(Output::Check { check, signatures });
    }

    pub(super) fn checked(&mut self, check: CheckId, valid: bool) {
        let Some(checking) = self.messages.checks.remove(&check) else { return };
        if let Checking::Message { token, .. } | Checking::Post { token, .. } = &checking
            && let Some(session) = self.sessions.session_mut(*token)
        {
            session.sends -= 1;
        }
        match checking {
            Checking::Registration(registration) => self.registration_checked(registration, valid),
            Checking::Login(login) => self.login_checked(login, valid),
            Checking::Message { call, .. } | Checking::Post { call, .. } if !valid => {
                let message = "the signature does not match the message and the sender's registered key";
                self.answer(call, Err(Rejection::new(Reason::InvalidSig, message)));
            }
            Checking::Message { call, message, .. } => self.route_message(call, message),
            Checking::Post { call, post, wraps, .. } => self.route_post(call, &post, &wraps),
        }
    }

    pub(super) fn send_message(&mut self, call: CallId, token: TokenHash, sealed: &SealedMessage) {
        let parsed = self.authorize(token).and_then(|_| Message::parse(sealed));
        let checked = parsed.and_then(|message| {
            let key = self.check_author(token, &message.authorship)?;
            Ok((message.check(&key), message))
        });
        match checked {
            Ok((check, message)) => self.check(call, Vec::from([check]), Checking::Message { call, token, message }),
            Err(rejection) => self.answer(call, Err(rejection)),
        }
    }

    pub(super) fn post(&mut self, call: CallId, token: TokenHash, sealed: &SealedPost, wraps: &[ChannelKeyWrap]) {
        let parsed = self.authorize(token).and_then(|_| Post::parse(sealed));
        let checked = parsed.and_then(|post| {
            let key = self.check_author(token, &post.authorship)?;
            Ok((post.check(&key), post, parse_wraps(wraps)?))
        });
        match checked {
            Ok((check, post, wraps)) => {
                self.check(call, Vec::from([check]), Checking::Post { call, token, post, wraps });
            }
            Err(rejection) => self.answer(call, Err(rejection)),
        }
    }

    /// Checks all but the signature of what a session sends; gives the key that must have signed.
    fn check_author(&mut self, token: TokenHash, authorship: &Authorship) -> Result<UserKey, Rejection> {
        let user = self.authorize(token)?;
        let account = self.accounts.find(&user).expect("a session's user has an account");
        let key = account.statement().key.clone();
        if authorship.sender != (Address { home: self.id, user }) || authorship.sender_key != key.fingerprint() {
            let message = "the header names another sender, home or key than the session's";
            return Err(Rejection::new(Reason::SenderMismatch, message));
        }
        authorship.check_time(self.now.unix_ms)?;
        if self.sessions.session_mut(token).is_some_and(|session| session.sends >= SENDS_PER_SESSION_MAX) {
            return Err(Rejection::new(Reason::TooMany, "too many messages of this session are under way")
                .with("limit", SENDS_PER_SESSION_MAX.to_string()));
        }
        Ok(key)
    }

    fn route_message(&mut self, call: CallId, message: Message) {
        let home = message.recipient.home;
        let hash = message.authorship.hash;
        if home == self.id {
            let result = self.hand_over(&message).map(|recipients| {
                let outcome = self.sign_outcome(hash, Ok(recipients));
                Answer::Sent(SendMessageResponse { outcome: Some(outcome) })
            });
            return self.answer(call, result);
        }
        let Some(link) = self.links.to(&home) else {
            return self.answer(call, Err(self.unreachable(home, message.recipient.user.as_str())));
        };
        if let Err(rejection) = self.check_room_to_wait(hash) {
            return self.answer(call, Err(rejection));
        }
        self.await_outcome(call, hash, Waiting { homes: BTreeSet::from([home]), ..Waiting::default() });
        self.send_deliver(link, deliver_frame::Kind::Message(message.sealed));
    }

    fn route_post(&mut self, call: CallId, post: &Post, wraps: &[Wrap]) {
        let author = &post.authorship.sender;
        let others = self.directory.entries().map(|entry| &entry.address).filter(|address| *address != author);
        let homes: BTreeSet<ServerId> = others.map(|address| address.home).collect();
        if homes.is_empty() {
            let rejection = Rejection::new(Reason::NobodyOnline, "nobody else is online");
            return self.answer(call, Err(rejection));
        }
        if let Err(rejection) = self.check_room_to_wait(post.authorship.hash) {
            return self.answer(call, Err(rejection));
        }
        let mut waiting = Waiting { is_post: true, ..Waiting::default() };
        if homes.contains(&self.id) {
            match self.hand_over_post(post, wraps) {
                Ok(handed) => {
                    waiting.recipients = handed;
                    waiting.outcomes.push(self.sign_outcome(post.authorship.hash, Ok(handed)));
                }
                Err(rejection) => return self.answer(call, Err(rejection)),
            }
        }
        let mut links = Vec::new();
        for home in homes.into_iter().filter(|home| *home != self.id) {
            match self.links.to(&home) {
                Some(link) => {
                    links.push((home, link));
                    waiting.homes.insert(home);
                }
                None => drop(waiting.silent.insert(home)),
            }
        }
        self.await_outcome(call, post.authorship.hash, waiting);
        for (home, link) in links {
            let wraps = wraps.iter().filter(|wrap| wrap.recipient.home == home).map(|wrap| wrap.wrap.clone());
            let delivery = PostDelivery { post: Some(post.sealed.clone()), wraps: wraps.collect() };
            self.send_deliver(link, deliver_frame::Kind::Post(delivery));
        }
    }

    fn unreachable(&self, home: ServerId, user: &str) -> Rejection {
        if self.links.pinned_name(&home).is_none() {
            return super::user::not_found(user);
        }
        let message = format!("the home of `{user}` cannot be reached at the moment");
        Rejection::new(Reason::HomeUnreachable, message).with("server_id", home.to_string())
    }

    /// Checks that one more call can wait, before anything is sent: a rejection leaves no message behind. Rejects: TOO_MANY.
    fn check_room_to_wait(&self, hash: ContentHash) -> Result<(), Rejection> {
        let (is_full, limit) = match self.messages.waiting.get(&hash) {
            Some(waiting) => (waiting.calls.len() >= SENDS_PER_SESSION_MAX, SENDS_PER_SESSION_MAX),
            None => (self.messages.waiting.len() >= WAITING_MAX, WAITING_MAX),
        };
        if !is_full {
            return Ok(());
        }
        Err(Rejection::new(Reason::TooMany, "too many messages wait for other servers; try again")
            .with("limit", limit.to_string()))
    }

    /// Makes a call wait for the word of other homes; one that has none to wait for is answered at once.
    fn await_outcome(&mut self, call: CallId, hash: ContentHash, begun: Waiting) {
        if let Some(waiting) = self.messages.waiting.get_mut(&hash) {
            waiting.calls.push(call);
            return;
        }
        let is_complete = begun.homes.is_empty();
        let until_ms = self.now.monotonic_ms + OUTCOME_MS;
        self.messages.waiting.insert(hash, Waiting { calls: Vec::from([call]), until_ms, ..begun });
        if is_complete {
            self.conclude(hash);
        } else {
            self.after(OUTCOME_MS, Timer::Outcome(hash));
        }
    }

    pub(super) fn outcome_overdue(&mut self, hash: ContentHash) {
        let now_ms = self.now.monotonic_ms;
        if self.messages.waiting.get(&hash).is_some_and(|waiting| waiting.until_ms <= now_ms) {
            self.conclude(hash);
        }
    }

    /// A link is gone: its home's word will not come.
    pub(super) fn outcomes_lost(&mut self, home: ServerId) {
        let mut complete = Vec::new();
        for (hash, waiting) in &mut self.messages.waiting {
            if waiting.homes.remove(&home) {
                waiting.silent.insert(home);
                complete.extend(waiting.homes.is_empty().then_some(*hash));
            }
        }
        complete.into_iter().for_each(|hash| self.conclude(hash));
    }

    /// Answers what waits with the outcomes that are here.
    fn conclude(&mut self, hash: ContentHash) {
        let Some(waiting) = self.messages.waiting.remove(&hash) else { return };
        let result = if waiting.is_post {
            Ok(Answer::Posted(PostToChannelResponse {
                outcomes: waiting.outcomes,
                recipients: waiting.recipients,
                silent_home_ids: waiting.homes.union(&waiting.silent).map(ServerId::to_string).collect(),
            }))
        } else if let Some(outcome) = waiting.outcomes.into_iter().next() {
            Ok(Answer::Sent(SendMessageResponse { outcome: Some(outcome) }))
        } else {
            let message = "the recipient's home did not answer; what became of the message is not known, and sending \
                           it again under the same id is safe";
            Err(Rejection::new(Reason::Timeout, message))
        };
        waiting.calls.into_iter().for_each(|call| self.answer(call, result.clone()));
    }

    pub(super) fn message_from_peer(
        &mut self,
        link: LinkId,
        peer: ServerId,
        sealed: &SealedMessage,
    ) -> Result<(), Refusal> {
        let message = Message::parse(sealed).map_err(|_| Refusal::Malformed("message"))?;
        if message.authorship.sender.home != peer {
            return Err(Refusal::ForeignOrigin);
        }
        if message.recipient.home != self.id {
            return Err(Refusal::Misrouted);
        }
        let result = message.authorship.check_time(self.now.unix_ms).and_then(|()| self.hand_over(&message));
        let outcome = self.sign_outcome(message.authorship.hash, result.map_err(|rejection| rejection.reason));
        self.send_deliver(link, deliver_frame::Kind::Outcome(outcome));
        Ok(())
    }

    pub(super) fn post_from_peer(
        &mut self,
        link: LinkId,
        peer: ServerId,
        delivery: &PostDelivery,
    ) -> Result<(), Refusal> {
        let sealed = delivery.post.as_ref().ok_or(Refusal::Malformed("post"))?;
        let post = Post::parse(sealed).map_err(|_| Refusal::Malformed("post"))?;
        let wraps = parse_wraps(&delivery.wraps).map_err(|_| Refusal::Malformed("wraps"))?;
        if post.authorship.sender.home != peer {
            return Err(Refusal::ForeignOrigin);
        }
        if wraps.iter().any(|wrap| wrap.recipient.home != self.id) {
            return Err(Refusal::Misrouted);
        }
        let result = post.authorship.check_time(self.now.unix_ms).and_then(|()| self.hand_over_post(&post, &wraps));
        let outcome = self.sign_outcome(post.authorship.hash, result.map_err(|rejection| rejection.reason));
        self.send_deliver(link, deliver_frame::Kind::Outcome(outcome));
        Ok(())
    }

    pub(super) fn outcome_from_peer(&mut self, peer: ServerId, signed: &SignedOutcome) -> Result<(), Refusal> {
        let key: [u8; 32] = signed.home_key[..].try_into().map_err(|_| Refusal::Malformed("home_key"))?;
        if !self.identity.verify(&key, &signing_input(Label::Outcome, &signed.statement), &signed.signature) {
            return Err(Refusal::BadSignature);
        }
        if ServerId::of_key(&key) != peer {
            return Err(Refusal::ForeignOrigin);
        }
        let statement = OutcomeStatement::decode(&signed.statement[..]).map_err(|_| Refusal::Malformed("outcome"))?;
        if statement.home_id != peer.to_string() {
            return Err(Refusal::ForeignOrigin);
        }
        for outcome in &statement.outcomes {
            if outcome.kind() == OutcomeKind::Unspecified {
                return Err(Refusal::Malformed("outcome.kind"));
            }
            let hash = ContentHash::from_bytes(&outcome.statement_sha256).ok_or(Refusal::Malformed("outcome"))?;
            self.take_outcome(hash, peer, outcome, signed);
        }
        Ok(())
    }

    fn take_outcome(&mut self, hash: ContentHash, home: ServerId, outcome: &Outcome, signed: &SignedOutcome) {
        let Some(waiting) = self.messages.waiting.get_mut(&hash) else { return };
        if !waiting.homes.remove(&home) {
            return;
        }
        if outcome.kind() == OutcomeKind::Rejected && !waiting.is_post {
            let waiting = self.messages.waiting.remove(&hash).expect("it was just there");
            let reason = reason_of_home(&outcome.reason);
            let refused = Rejection::new(reason, refusal(reason));
            let refused = refused.with("server_id", home.to_string());
            return waiting.calls.into_iter().for_each(|call| self.answer(call, Err(refused.clone())));
        }
        waiting.outcomes.push(signed.clone());
        waiting.recipients = waiting.recipients.saturating_add(outcome.recipients);
        if waiting.homes.is_empty() {
            self.conclude(hash);
        }
    }

    /// Hands a message to all streams of its recipient, unless it was before. Gives the number of recipients, 1.
    fn hand_over(&mut self, message: &Message) -> Result<u32, Rejection> {
        if let Some(recipients) = self.recall(&message.authorship)? {
            return Ok(recipients);
        }
        let user = &message.recipient.user;
        let account = self.accounts.find(user).ok_or_else(|| super::user::not_found(user.as_str()))?;
        if account.statement().key.fingerprint() != message.recipient_key {
            let changed = format!("`{user}` has another key now; look the user up again");
            return Err(Rejection::new(Reason::RecipientKeyChanged, changed).with("user", self.own_label(user)));
        }
        let attachments = self.sessions.attachments(user);
        if attachments.is_empty() {
            let offline = format!("`{user}` is not online; nothing was kept");
            return Err(Rejection::new(Reason::RecipientOffline, offline).with("user", self.own_label(user)));
        }
        self.remember(&message.authorship, 1)?;
        let received = ReceivedMessage { message: Some(message.sealed.clone()), received_unix_ms: self.unix_ms() };
        let event = AttachResponse { event: Some(Event::Message(received)) };
        for attachment in attachments {
            self.output(Output::Deliver { attachment, event: event.clone() });
        }
        Ok(1)
    }

    /// Hands a post to everybody who is online here, except its sender. Gives the number of users.
    fn hand_over_post(&mut self, post: &Post, wraps: &[Wrap]) -> Result<u32, Rejection> {
        if let Some(recipients) = self.recall(&post.authorship)? {
            return Ok(recipients);
        }
        let sender = &post.authorship.sender;
        let mut users = self.sessions.receivers();
        if sender.home == self.id {
            users.remove(&sender.user);
        }
        let recipients = u32::try_from(users.len()).unwrap_or(u32::MAX);
        self.remember(&post.authorship, recipients)?;
        let wraps = self.own_wraps(wraps);
        for user in users {
            let key = self.accounts.find(&user).map(|account| account.statement().key.fingerprint());
            let wrapped_channel_key =
                key.and_then(|key| wraps.get(&(&user, key)).copied().cloned()).unwrap_or_default();
            let received =
                ReceivedPost { post: Some(post.sealed.clone()), wrapped_channel_key, received_unix_ms: self.unix_ms() };
            let event = AttachResponse { event: Some(Event::Post(received)) };
            for attachment in self.sessions.attachments(&user) {
                self.output(Output::Deliver { attachment, event: event.clone() });
            }
        }
        Ok(recipients)
    }

    /// The wrapped keys for this server's users, by user and key; of several alike the first.
    fn own_wraps<'a>(&self, wraps: &'a [Wrap]) -> BTreeMap<(&'a UserName, KeyFingerprint), &'a Bytes> {
        let own = wraps.iter().rev().filter(|wrap| wrap.recipient.home == self.id);
        own.map(|wrap| ((&wrap.recipient.user, wrap.recipient_key), &wrap.wrap.wrapped_key)).collect()
    }

    /// What became of the same message before, if it was here. Rejects: ID_REUSED.
    fn recall(&self, authorship: &Authorship) -> Result<Option<u32>, Rejection> {
        let key = (authorship.sender.clone(), authorship.id);
        match self.messages.remembered.get(&key) {
            None => Ok(None),
            Some(remembered) if remembered.hash == authorship.hash => Ok(Some(remembered.recipients)),
            Some(_) => {
                let message = "this message id was used before with other content";
                Err(Rejection::new(Reason::IdReused, message).with("message_id", authorship.id.to_string()))
            }
        }
    }

    fn remember(&mut self, authorship: &Authorship, recipients: u32) -> Result<(), Rejection> {
        if self.messages.remembered.len() >= IDS_MAX {
            return Err(Rejection::new(Reason::TooMany, "this server has taken all messages that it can remember")
                .with("limit", IDS_MAX.to_string()));
        }
        let until_ms = self.now.monotonic_ms + ID_REMEMBERED_MS;
        let remembered = Remembered { hash: authorship.hash, recipients };
        self.messages.remembered.insert((authorship.sender.clone(), authorship.id), remembered);
        self.messages.forgetting.push_back((until_ms, authorship.sender.clone(), authorship.id));
        Ok(())
    }

    fn sign_outcome(&self, hash: ContentHash, result: Result<u32, Reason>) -> SignedOutcome {
        let (kind, reason, recipients) = match result {
            Ok(recipients) => (OutcomeKind::HandedOver, "", recipients),
            Err(reason) => (OutcomeKind::Rejected, rejection::name(reason), 0),
        };
        let statement = OutcomeStatement {
            home_id: self.id.to_string(),
            time_unix_ms: self.unix_ms(),
            outcomes: Vec::from([Outcome {
                statement_sha256: Bytes::copy_from_slice(hash.as_bytes()),
                kind: kind.into(),
                reason: reason.into(),
                recipients,
            }]),
        }
        .encode_to_vec();
        let signature = self.identity.sign(&signing_input(Label::Outcome, &statement));
        SignedOutcome {
            statement: statement.into(),
            signature: Bytes::copy_from_slice(&signature),
            home_key: Bytes::copy_from_slice(&self.identity.public_key()),
        }
    }

    fn unix_ms(&self) -> i64 {
        i64::try_from(self.now.unix_ms).unwrap_or(i64::MAX)
    }

    fn send_deliver(&mut self, link: LinkId, kind: deliver_frame::Kind) {
        self.output(Output::Send { link, frame: Frame::Deliver(DeliverFrame { kind: Some(kind) }) });
    }
}

/// What a person is told whose message the recipient's home refused.
fn refusal(reason: Reason) -> &'static str {
    match reason {
        Reason::RecipientOffline => "the recipient is not online; nothing was kept",
        Reason::UserNotFound => "the recipient's home knows no such user",
        Reason::RecipientKeyChanged => "the recipient has another key now; look the user up again",
        Reason::IdReused => "this message id was used before with other content",
        _ => "the recipient's home refused the message",
    }
}

/// The reason that a recipient's home gives for refusing a message; UNKNOWN_TYPE for one that is unknown, or that only
/// the sender's own home can have, such as TOKEN_INVALID: a peer must not make a client log in anew.
fn reason_of_home(name: &str) -> Reason {
    match rejection::parse(name) {
        Some(
            reason @ (Reason::UserNotFound
            | Reason::RecipientOffline
            | Reason::RecipientKeyChanged
            | Reason::IdReused
            | Reason::TimeOutOfRange
            | Reason::TooLarge
            | Reason::TooMany),
        ) => reason,
        _ => Reason::UnknownType,
    }
}
