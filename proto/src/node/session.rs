//! Logins, sessions, and who of this server's users is online.
//!
//! A session is opened by proving possession of the key, and makes its user online while a stream is attached to it,
//! or was until a moment ago: a stream that breaks leaves a grace, a detach does not. A user is online until the last
//! such session ends. A stream that ends late, after a newer one took its place, ends nothing.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};

use prost::bytes::Bytes;

use super::{
    Node, Timer,
    account::disabled_user,
    check::{self, Checking},
    sizes::Sizes,
};
use crate::{
    id::{DeviceId, SessionId, TokenHash},
    input::{AttachmentId, CallId},
    limits::{
        DEVICE_BYTES_MAX, NONCE_MS, NONCES_MAX, NONCES_PER_USER_MAX, SESSION_IDLE_MS, SESSIONS_PER_USER_MAX,
        STATUS_BYTES_MAX, USERS_PER_ORIGIN_MAX,
    },
    mutation::{Mutation, is_on},
    name::UserName,
    output::{Answer, Output},
    rejection::Rejection,
    signed::Label,
    statement::{Login, RsaCheck, invalid, too_large},
    v1::{self, AttachRequest, Reason},
};

/// Whether a session makes its user online.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Attachment {
    None,
    /// A stream is open.
    Open {
        id: AttachmentId,
        status: Arc<str>,
        /// The inbox.
        reading: Reading,
        /// The channel's log.
        posts: Reading,
    },
    /// The stream broke; the user stays online until then.
    Broken {
        until_ms: u64,
        status: Arc<str>,
    },
}

/// How far an open stream is with a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reading {
    /// The position of the last entry that it was handed, or that is not for its user.
    after: u64,
    /// Whether that was the last there is: the next comes as it is put in, and not from the disk.
    is_live: bool,
}

/// One login of a user.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) user: UserName,
    device: String,
    pub(super) created_unix_ms: u64,
    used_ms: u64,
    attachment: Attachment,
    /// The device that attached, if it said which it is.
    pub(super) device_id: Option<DeviceId>,
    /// Messages under way.
    pub(super) sends: usize,
}

impl Session {
    fn status(&self) -> Option<&Arc<str>> {
        match &self.attachment {
            Attachment::None => None,
            Attachment::Open { status, .. } | Attachment::Broken { status, .. } => Some(status),
        }
    }

    pub(super) fn attachment(&self) -> Option<AttachmentId> {
        match self.attachment {
            Attachment::Open { id, .. } => Some(id),
            Attachment::None | Attachment::Broken { .. } => None,
        }
    }

    /// Until when a stream that broke makes the user online.
    pub(super) fn grace_until_ms(&self) -> Option<u64> {
        match self.attachment {
            Attachment::Broken { until_ms, .. } => Some(until_ms),
            Attachment::None | Attachment::Open { .. } => None,
        }
    }
}

/// A user who is online: what an advert says beyond the account.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Presence {
    pub(super) status: Arc<str>,
    pub(super) sessions: u32,
}

#[derive(Debug)]
struct Nonce {
    user: UserName,
    nonce: [u8; 32],
    until_ms: u64,
}

/// All sessions and outstanding challenges.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    by_token: BTreeMap<TokenHash, Session>,
    by_user: BTreeMap<UserName, BTreeSet<TokenHash>>,
    by_attachment: BTreeMap<AttachmentId, TokenHash>,
    /// Oldest first.
    nonces: VecDeque<Nonce>,
}

impl Sessions {
    pub(super) fn sizes(&self, sizes: &mut Sizes) {
        sizes.note("nonces", self.nonces.len());
        let mut of_user: BTreeMap<&UserName, usize> = BTreeMap::new();
        self.nonces.iter().for_each(|nonce| *of_user.entry(&nonce.user).or_default() += 1);
        of_user.into_values().for_each(|nonces| sizes.note("nonces of a user", nonces));
        self.by_user.values().for_each(|sessions| sizes.note("sessions of a user", sessions.len()));
        self.by_token.values().for_each(|session| sizes.note("messages of a session under way", session.sends));
    }

    pub(super) fn count(&self) -> usize {
        self.by_token.len()
    }

    pub(super) fn of(&self, user: &str) -> impl Iterator<Item = &Session> {
        let tokens = self.by_user.get(user).into_iter().flatten();
        tokens.filter_map(|token| self.by_token.get(token))
    }

    /// Whether a user has an open stream.
    pub(super) fn is_attached(&self, user: &str) -> bool {
        self.of(user).any(|session| session.attachment().is_some())
    }

    /// The streams to be handed the message at this position of a user's inbox, which counts as handed.
    pub(super) fn live(&mut self, user: &UserName, position: u64) -> Vec<(AttachmentId, Option<DeviceId>)> {
        let mut streams = Vec::new();
        for token in self.by_user.get(user).into_iter().flatten() {
            if let Some(Session { attachment: Attachment::Open { id, reading, .. }, device_id, .. }) =
                self.by_token.get_mut(token)
                && reading.is_live
            {
                reading.after = position;
                streams.push((*id, *device_id));
            }
        }
        streams
    }

    /// The streams to be handed the post at this position of the channel's log, which counts as handed.
    pub(super) fn live_for_post(&mut self, user: &str, position: u64) -> Vec<AttachmentId> {
        let mut streams = Vec::new();
        for token in self.by_user.get(user).into_iter().flatten() {
            if let Some(Session { attachment: Attachment::Open { id, posts, .. }, .. }) = self.by_token.get_mut(token)
                && posts.is_live
            {
                posts.after = position;
                streams.push(*id);
            }
        }
        streams
    }

    /// How far a stream is with posts.
    pub(super) fn set_posts(&mut self, attachment: AttachmentId, after: u64, is_live: bool) {
        let session = self.by_attachment.get(&attachment).and_then(|token| self.by_token.get_mut(token));
        if let Some(Session { attachment: Attachment::Open { posts, .. }, .. }) = session {
            *posts = Reading { after, is_live };
        }
    }

    /// Whom a stream belongs to that is given posts from the disk, and after which position; `None` if it is not, or not any
    /// more.
    pub(super) fn replaying_posts(&self, attachment: AttachmentId) -> Option<(UserName, u64)> {
        let session = self.by_token.get(self.by_attachment.get(&attachment)?)?;
        match session.attachment {
            Attachment::Open { id, posts, .. } if id == attachment && !posts.is_live => {
                Some((session.user.clone(), posts.after))
            }
            _ => None,
        }
    }

    /// How far a stream is with the inbox.
    pub(super) fn set_reading(&mut self, attachment: AttachmentId, after: u64, is_live: bool) {
        let session = self.by_attachment.get(&attachment).and_then(|token| self.by_token.get_mut(token));
        if let Some(Session { attachment: Attachment::Open { reading, .. }, .. }) = session {
            *reading = Reading { after, is_live };
        }
    }

    /// The devices that have open streams, with their users.
    pub(super) fn attached_devices(&self) -> Vec<(UserName, Option<DeviceId>)> {
        let sessions = self.by_attachment.values().filter_map(|token| self.by_token.get(token));
        sessions.map(|session| (session.user.clone(), session.device_id)).collect()
    }

    /// Whose inbox a stream is given from the disk, for which device, and after which position; `None` if it is not, or not
    /// any more.
    pub(super) fn replaying(&self, attachment: AttachmentId) -> Option<(UserName, Option<DeviceId>, u64)> {
        let session = self.by_token.get(self.by_attachment.get(&attachment)?)?;
        match session.attachment {
            Attachment::Open { id, reading, .. } if id == attachment && !reading.is_live => {
                Some((session.user.clone(), session.device_id, reading.after))
            }
            _ => None,
        }
    }

    /// All users who are online.
    pub(super) fn online(&self) -> BTreeSet<UserName> {
        let is_online = |(_, tokens): &(&UserName, &BTreeSet<TokenHash>)| {
            tokens.iter().filter_map(|token| self.by_token.get(token)).any(|session| session.status().is_some())
        };
        self.by_user.iter().filter(is_online).map(|(user, _)| user.clone()).collect()
    }

    /// How a user is online, if so. The status is that of the session that attached last.
    pub(super) fn presence(&self, user: &UserName) -> Option<Presence> {
        let online: Vec<&Session> = self.of(user.as_str()).filter(|session| session.status().is_some()).collect();
        let latest = online.iter().max_by_key(|session| (session.attachment(), session.id))?;
        Some(Presence {
            status: Arc::clone(latest.status()?),
            sessions: u32::try_from(online.len()).unwrap_or(u32::MAX),
        })
    }

    pub(super) fn session_mut(&mut self, token: TokenHash) -> Option<&mut Session> {
        self.by_token.get_mut(&token)
    }

    /// Drops challenges and sessions that are over; none of those is attached.
    pub(super) fn sweep(&mut self, now_ms: u64) {
        while self.nonces.front().is_some_and(|nonce| nonce.until_ms <= now_ms) {
            self.nonces.pop_front();
        }
        let is_over =
            |session: &Session| session.attachment == Attachment::None && session.used_ms + SESSION_IDLE_MS <= now_ms;
        let over = self.by_token.iter().filter(|(_, session)| is_over(session)).map(|(token, _)| *token);
        over.collect::<Vec<_>>().into_iter().for_each(|token| drop(self.remove(token)));
    }

    fn remove(&mut self, token: TokenHash) -> Option<Session> {
        let session = self.by_token.remove(&token)?;
        if let Some(attachment) = session.attachment() {
            self.by_attachment.remove(&attachment);
        }
        if let Some(tokens) = self.by_user.get_mut(&session.user) {
            tokens.remove(&token);
            if tokens.is_empty() {
                self.by_user.remove(&session.user);
            }
        }
        Some(session)
    }

    fn token_of(&self, user: &UserName, session: SessionId) -> Option<TokenHash> {
        let tokens = self.by_user.get(user)?;
        tokens.iter().copied().find(|token| self.by_token.get(token).is_some_and(|other| other.id == session))
    }

    /// Takes the nonce out, if it was given to this user and is still good.
    fn redeem(&mut self, user: &UserName, nonce: &[u8; 32], now_ms: u64) -> bool {
        let given = self.nonces.iter().position(|given| given.user == *user && given.nonce == *nonce);
        given.and_then(|index| self.nonces.remove(index)).is_some_and(|given| given.until_ms > now_ms)
    }
}

fn parse_device(text: &str) -> Result<DeviceId, Rejection> {
    DeviceId::parse(text).ok_or_else(|| invalid("device_id"))
}

impl Node {
    /// The user of a token. Rejects: TOKEN_INVALID.
    pub(super) fn authorize(&mut self, token: TokenHash) -> Result<UserName, Rejection> {
        let used_ms = self.now.monotonic_ms;
        let session = self.sessions.by_token.get_mut(&token).ok_or_else(|| {
            Rejection::new(Reason::TokenInvalid, "the session token is absent, unknown or ended; log in again")
        })?;
        session.used_ms = used_ms;
        Ok(session.user.clone())
    }

    pub(super) fn create_challenge(&mut self, call: CallId, user: &str, nonce: [u8; 32]) {
        let user = match UserName::parse(user) {
            Ok(user) => user,
            Err(rejection) => return self.answer(call, Err(rejection)),
        };
        let nonces = &mut self.sessions.nonces;
        let of_user = nonces.iter().filter(|given| given.user == user).count();
        let oldest = if is_on(Mutation::NoncesWithoutLimit) {
            None
        } else if of_user >= NONCES_PER_USER_MAX {
            nonces.iter().position(|given| given.user == user)
        } else {
            (nonces.len() >= NONCES_MAX).then_some(0)
        };
        if let Some(oldest) = oldest {
            nonces.remove(oldest);
        }
        nonces.push_back(Nonce { user, nonce, until_ms: self.now.monotonic_ms + NONCE_MS });
        let challenge = v1::CreateChallengeResponse {
            nonce: Bytes::copy_from_slice(&nonce),
            expires_unix_ms: i64::try_from(self.now.unix_ms + NONCE_MS).unwrap_or(i64::MAX),
        };
        self.answer(call, Ok(Answer::Challenge(challenge)));
    }

    pub(super) fn log_in(
        &mut self,
        call: CallId,
        statement: &Bytes,
        signature: &Bytes,
        device: String,
        token: TokenHash,
        session: SessionId,
    ) {
        let result = Login::parse(statement, signature).and_then(|login| {
            if login.server != self.id {
                let rejection = Rejection::new(Reason::WrongServer, "this login was signed for another server");
                return Err(rejection.with("server_id", self.id.to_string()));
            }
            if device.len() > DEVICE_BYTES_MAX {
                return Err(too_large(DEVICE_BYTES_MAX));
            }
            if !self.sessions.redeem(&login.user, &login.nonce, self.now.monotonic_ms) {
                let message = "the login nonce is unknown, used or older than a minute; ask for a new challenge";
                return Err(Rejection::new(Reason::NonceExpired, message));
            }
            let account = self.accounts.find(&login.user);
            let account = account.ok_or_else(|| super::user::not_found(login.user.as_str()))?;
            let check = RsaCheck::new(&account.statement().key, Label::Login, statement, signature);
            let statement = account.statement_hash();
            Ok((check, check::Login { call, user: login.user, device, token, session, statement }))
        });
        match result {
            Ok((check, login)) => self.check(call, Vec::from([check]), Checking::Login(login)),
            Err(rejection) => self.answer(call, Err(rejection)),
        }
    }

    pub(super) fn login_checked(&mut self, login: check::Login, valid: bool) {
        let call = login.call;
        // A key that was renewed meanwhile opens nothing.
        let account = self.accounts.find(&login.user);
        let is_in_force = account.is_some_and(|account| account.statement_hash() == login.statement);
        let result = if valid && is_in_force {
            self.open_session(login)
        } else {
            Err(Rejection::new(Reason::InvalidSig, "the login is not signed by the user's registered key"))
        };
        self.answer(call, result);
    }

    fn open_session(&mut self, login: check::Login) -> Result<Answer, Rejection> {
        let check::Login { user, device, token, session, .. } = login;
        if self.accounts.find(&user).is_none_or(|account| account.disabled) {
            return Err(disabled_user(&user));
        }
        if let Some(account) = self.accounts.find(&user) {
            self.check_still_here(account)?;
        }
        if self.sessions.of(user.as_str()).count() >= SESSIONS_PER_USER_MAX && !is_on(Mutation::SessionsWithoutLimit) {
            self.end_oldest_idle_session(&user)?;
        }
        self.sessions.by_user.entry(user.clone()).or_default().insert(token);
        let answer = Answer::LoggedIn { user: self.own_label(&user), session };
        let session = Session {
            id: session,
            user,
            device,
            created_unix_ms: self.now.unix_ms,
            used_ms: self.now.monotonic_ms,
            attachment: Attachment::None,
            device_id: None,
            sends: 0,
        };
        self.sessions.by_token.insert(token, session);
        Ok(answer)
    }

    fn end_oldest_idle_session(&mut self, user: &UserName) -> Result<(), Rejection> {
        let tokens = self.sessions.by_user.get(user).into_iter().flatten();
        let sessions = tokens.filter_map(|token| Some((*token, self.sessions.by_token.get(token)?)));
        let idle = sessions.filter(|(_, session)| session.attachment == Attachment::None);
        let Some((token, _)) = idle.min_by_key(|(_, session)| session.used_ms) else {
            return Err(Rejection::new(Reason::TooMany, "every session of this user is attached; log one out first")
                .with("limit", SESSIONS_PER_USER_MAX.to_string()));
        };
        self.sessions.remove(token);
        Ok(())
    }

    pub(super) fn log_out(&mut self, call: CallId, token: TokenHash, session: &str) {
        let user = match self.authorize(token) {
            Ok(user) => user,
            Err(rejection) => return self.answer(call, Err(rejection)),
        };
        let ended = if session.is_empty() {
            Some(token)
        } else {
            SessionId::parse(session).and_then(|session| self.sessions.token_of(&user, session))
        };
        if let Some(ended) = ended {
            self.end_session(ended, None);
        }
        self.answer(call, Ok(Answer::LoggedOut));
    }

    pub(super) fn list_sessions(&mut self, call: CallId, token: TokenHash) {
        let result = self.authorize(token).map(|user| {
            let current = self.sessions.by_token.get(&token).map(|session| session.id);
            let mut sessions: Vec<_> = self.sessions.of(user.as_str()).collect();
            sessions.sort_by_key(|session| (session.created_unix_ms, session.id));
            let sessions = sessions.into_iter().map(|session| v1::Session {
                session_id: session.id.to_string(),
                device: session.device.clone(),
                created_unix_ms: i64::try_from(session.created_unix_ms).unwrap_or(i64::MAX),
                attached: session.attachment().is_some(),
                current: Some(session.id) == current,
            });
            Answer::Sessions(v1::ListSessionsResponse { sessions: sessions.collect() })
        });
        self.answer(call, result);
    }

    pub(super) fn attach(&mut self, call: CallId, token: TokenHash, attachment: AttachmentId, attach: AttachRequest) {
        let AttachRequest { status, cursor, device_id, channel_cursor } = attach;
        let result = self.authorize(token).and_then(|user| {
            if status.len() > STATUS_BYTES_MAX {
                return Err(too_large(STATUS_BYTES_MAX));
            }
            let comes_online = self.sessions.presence(&user).is_none();
            if comes_online && self.own().origin.online() >= USERS_PER_ORIGIN_MAX {
                return Err(Rejection::new(Reason::TooMany, "too many users are online here")
                    .with("limit", USERS_PER_ORIGIN_MAX.to_string()));
            }
            let device = if device_id.is_empty() { None } else { Some(parse_device(&device_id)?) };
            Ok((self.inboxes.find(&user, &cursor)?, self.channel.find(&channel_cursor)?, device, user))
        });
        let ((after, missed), (posts_after, posts_missed), device, user) = match result {
            Ok(checked) => checked,
            Err(rejection) => return self.answer(call, Err(rejection)),
        };
        self.sessions.by_attachment.insert(attachment, token);
        let session = self.sessions.by_token.get_mut(&token).expect("the token was authorized");
        let session_id = session.id.to_string();
        let replaced = session.attachment();
        let [reading, posts] = [after, posts_after].map(|after| Reading { after, is_live: false });
        session.attachment = Attachment::Open { id: attachment, status: status.into(), reading, posts };
        session.device_id = device;
        if let Some(replaced) = replaced {
            if !is_on(Mutation::LateStreamEndsSession) {
                self.sessions.by_attachment.remove(&replaced);
            }
            let rejection = Rejection::new(Reason::Replaced, "this session attached again elsewhere");
            self.output(Output::EndAttachment { attachment: replaced, rejection: Some(rejection) });
        }
        let newest_cursor = self.inboxes.newest(&user).to_string();
        let unread = self.inboxes.unread(&user, after);
        let newest_channel_cursor = self.channel.newest();
        let user_label = self.own_label(&user);
        let attached = v1::Attached { user: user_label, session_id, newest_cursor, unread, newest_channel_cursor };
        // Others are told first: that is what they wait for, and the user knows.
        self.advertise(&user);
        self.answer(call, Ok(Answer::Attached(attached)));
        self.begin_replay(&user, attachment, device, after, missed);
        self.begin_replaying_posts(&user, attachment, posts_after, posts_missed);
    }

    pub(super) fn detach(&mut self, call: CallId, token: TokenHash) {
        match self.authorize(token) {
            Ok(_) => {
                self.detach_session(token, None);
                self.answer(call, Ok(Answer::Detached));
            }
            Err(rejection) => self.answer(call, Err(rejection)),
        }
    }

    /// Ends a session's stream at once, and with it the user's being online if it was the last.
    fn detach_session(&mut self, token: TokenHash, rejection: Option<Rejection>) {
        let Some(session) = self.sessions.by_token.get_mut(&token) else { return };
        let user = session.user.clone();
        let open = session.attachment();
        session.attachment = Attachment::None;
        if is_on(Mutation::DetachEndsAllSessions) {
            let sessions = self.sessions.by_token.values_mut().filter(|session| session.user == user);
            sessions.for_each(|session| session.attachment = Attachment::None);
        }
        if let Some(attachment) = open {
            self.sessions.by_attachment.remove(&attachment);
        }
        self.advertise(&user);
        if let Some(attachment) = open {
            self.output(Output::EndAttachment { attachment, rejection });
        }
    }

    fn end_session(&mut self, token: TokenHash, rejection: Option<Rejection>) {
        self.detach_session(token, rejection);
        self.sessions.remove(token);
    }

    pub(super) fn end_sessions_of(&mut self, user: &UserName, rejection: &Rejection) {
        let tokens = self.sessions.by_user.get(user).cloned().unwrap_or_default();
        tokens.into_iter().for_each(|token| self.end_session(token, Some(rejection.clone())));
    }

    /// Ends all streams with a status, without a word to the directory: the server stops as a whole.
    pub(super) fn end_all_attachments(&mut self, rejection: &Rejection) {
        for (attachment, token) in core::mem::take(&mut self.sessions.by_attachment) {
            if let Some(session) = self.sessions.by_token.get_mut(&token) {
                session.attachment = Attachment::None;
            }
            self.output(Output::EndAttachment { attachment, rejection: Some(rejection.clone()) });
        }
    }

    pub(super) fn attachment_ended(&mut self, attachment: AttachmentId) {
        let Some(token) = self.sessions.by_attachment.remove(&attachment) else { return };
        let used_ms = self.now.monotonic_ms;
        let until_ms = used_ms + self.settings.attach_grace_ms;
        let Some(session) = self.sessions.by_token.get_mut(&token) else { return };
        session.used_ms = used_ms;
        if let Attachment::Open { status, .. } = &session.attachment {
            session.attachment = Attachment::Broken { until_ms, status: Arc::clone(status) };
            self.after(self.settings.attach_grace_ms, Timer::AttachGrace(token));
        }
    }

    pub(super) fn attach_grace_over(&mut self, token: TokenHash) {
        let now_ms = self.now.monotonic_ms;
        let Some(session) = self.sessions.by_token.get_mut(&token) else { return };
        if matches!(session.attachment, Attachment::Broken { until_ms, .. } if until_ms <= now_ms) {
            session.attachment = Attachment::None;
            let user = session.user.clone();
            self.advertise(&user);
        }
    }
}
