//! Messages and posts: from a session to the recipient's home, and from there to the recipient's streams.
//!
//! The sender's home checks the sender's signature and vouches for it (what is for another home then goes through the outbox, see
//! [`super::outbox`]); servers between pass the message on, by the shortest way; the recipient's home puts it into the inbox (see [`super::inbox`]) and signs its word (see
//! [`super::outcome`]); the sender's session gets that word. A message is taken at most once (see [`super::repeat`]), and
//! a retry is answered with what became of the first. Posts go into the log of each home (see [`super::channel`]).

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::ToString,
    vec::Vec,
};

use prost::bytes::Bytes;

use super::{
    Node,
    check::Checking,
    inbox::{Sender, Taken},
    neighbours::fewer_hops,
    outcome::Waiting,
};
use crate::{
    federation::v1::{DeliverFrame, MessageDelivery, OutcomeDelivery, PostDelivery, Voucher, deliver_frame},
    id::{ContentHash, MessageId, ServerId, TokenHash},
    identity::signature,
    input::{CallId, Frame, LinkId},
    limits::{HOPS_MAX, NEIGHBOURS_MAX, SENDS_PER_SESSION_MAX},
    message::{Address, Authorship, Message, Post, Wrap, parse_wraps},
    mutation::{Mutation, is_on},
    name::UserName,
    output::{Note, Output, Refusal},
    rejection::Rejection,
    signed::{Label, signing_input},
    user_key::UserKey,
    v1::{ChannelKeyWrap, Reason, SealedMessage, SealedPost},
};

impl Node {
    pub(super) fn send_message(&mut self, call: CallId, token: TokenHash, sealed: &SealedMessage) {
        let checked = self.authorize(token).and_then(|user| {
            let message = Message::parse(sealed)?;
            let key = self.check_author(token, user, &message.authorship)?;
            Ok((message.check(&key), message))
        });
        match checked {
            Ok((check, message)) => self.check(call, Vec::from([check]), Checking::Message { call, token, message }),
            Err(rejection) => self.answer(call, Err(rejection)),
        }
    }

    pub(super) fn post(&mut self, call: CallId, token: TokenHash, sealed: &SealedPost, wraps: &[ChannelKeyWrap]) {
        let checked = self.authorize(token).and_then(|user| {
            let post = Post::parse(sealed)?;
            let key = self.check_author(token, user, &post.authorship)?;
            Ok((post.check(&key), post, parse_wraps(wraps)?))
        });
        match checked {
            Ok((check, post, wraps)) => {
                self.check(call, Vec::from([check]), Checking::Post { call, token, post, wraps });
            }
            Err(rejection) => self.answer(call, Err(rejection)),
        }
    }

    /// Checks all but the signature of what a session of `user` sends; gives the key that must have signed.
    fn check_author(
        &mut self,
        token: TokenHash,
        user: UserName,
        authorship: &Authorship,
    ) -> Result<UserKey, Rejection> {
        let account = self.accounts.find(&user).expect("a session's user has an account");
        let key = account.statement().key.clone();
        if authorship.sender != (Address { home: self.id, user }) || authorship.sender_key != key.fingerprint() {
            let message = "the header names another sender, home or key than the session's";
            return Err(Rejection::new(Reason::SenderMismatch, message));
        }
        authorship.check_time(self.now.unix_ms)?;
        self.check_room_to_send(token)?;
        Ok(key)
    }

    /// Checks that a session has not too much under way already.
    pub(super) fn check_room_to_send(&mut self, token: TokenHash) -> Result<(), Rejection> {
        if self.sessions.session_mut(token).is_some_and(|session| session.sends >= SENDS_PER_SESSION_MAX) {
            return Err(Rejection::new(Reason::TooMany, "too many messages of this session are under way")
                .with("limit", SENDS_PER_SESSION_MAX.to_string()));
        }
        Ok(())
    }

    pub(super) fn route_message(&mut self, call: CallId, message: Message) {
        if message.recipient.home == self.id {
            return self.keep(message, Sender::Call(call));
        }
        self.send_out(call, message);
    }

    pub(super) fn route_post(&mut self, call: CallId, post: &Post, wraps: &[Wrap]) {
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
        let mut waiting = Waiting::default();
        if homes.contains(&self.id) {
            match self.keep_post(post.clone(), wraps) {
                Ok(Some(taken)) => {
                    waiting.recipients = taken.recipients;
                    waiting.outcomes.push(self.sign_outcome(post.authorship.hash, Ok(taken)));
                }
                Ok(None) => drop(waiting.homes.insert(self.id)),
                Err(rejection) => return self.answer(call, Err(rejection)),
            }
        }
        for home in homes.into_iter().filter(|home| *home != self.id) {
            let waits = if self.way_to(&home).is_some() { &mut waiting.homes } else { &mut waiting.silent };
            waits.insert(home);
        }
        let mut homes = waiting.homes.clone();
        homes.remove(&self.id);
        let hash = post.authorship.hash;
        self.await_outcome(call, hash, waiting);
        let wraps: Vec<&Wrap> = wraps.iter().collect();
        let voucher = self.vouch(hash);
        self.send_post(&post.sealed, &wraps, &voucher, HOPS_MAX, homes);
    }

    /// Sends a post on its way to these homes: one copy for each link that leads to any of them.
    fn send_post(
        &mut self,
        sealed: &SealedPost,
        wraps: &[&Wrap],
        voucher: &Voucher,
        hops_left: u32,
        homes: BTreeSet<ServerId>,
    ) {
        let mut ways: BTreeMap<LinkId, BTreeSet<ServerId>> = BTreeMap::new();
        for home in homes {
            if let Some(link) = self.way_to(&home) {
                ways.entry(link).or_default().insert(home);
            }
        }
        for (link, homes) in ways {
            let theirs = wraps.iter().filter(|wrap| homes.contains(&wrap.recipient.home));
            let delivery = PostDelivery {
                post: Some(sealed.clone()),
                wraps: theirs.map(|wrap| wrap.wrap.clone()).collect(),
                voucher: Some(voucher.clone()),
                hops_left,
                home_ids: homes.iter().map(|home| Bytes::copy_from_slice(home.as_bytes())).collect(),
            };
            self.send_deliver(link, deliver_frame::Kind::Post(delivery));
        }
    }

    /// This server's word that it checked the sender of what has this hash.
    pub(super) fn vouch(&self, hash: ContentHash) -> Voucher {
        Voucher {
            home_key: Bytes::copy_from_slice(&self.identity.public_key()),
            signature: signature(&*self.identity, Label::Submission, hash.as_bytes()),
        }
    }

    /// Checks that the sender's home vouches for what was sent. Each server on the way does, so that what nobody vouched for
    /// is refused where it came from.
    fn check_voucher(&self, voucher: Option<&Voucher>, authorship: &Authorship) -> Result<(), Refusal> {
        if is_on(Mutation::VoucherNotChecked) {
            return Ok(());
        }
        let voucher = voucher.ok_or(Refusal::Malformed("voucher"))?;
        let key = voucher.home_key[..].try_into().map_err(|_| Refusal::Malformed("voucher.home_key"))?;
        if ServerId::of_key(&key) != authorship.sender.home {
            return Err(Refusal::ForeignOrigin);
        }
        let signed = signing_input(Label::Submission, authorship.hash.as_bytes());
        if self.identity.verify(&key, &signed, &voucher.signature) { Ok(()) } else { Err(Refusal::BadSignature) }
    }

    pub(super) fn message_from_peer(&mut self, peer: ServerId, delivery: MessageDelivery) -> Result<(), Refusal> {
        let sealed = delivery.message.as_ref().ok_or(Refusal::Malformed("message"))?;
        let message = Message::parse(sealed).map_err(|_| Refusal::Malformed("message"))?;
        let is_here = message.recipient.home == self.id;
        // The link itself proves which home speaks.
        let is_from_home = delivery.voucher.is_none() && is_here && message.authorship.sender.home == peer;
        if !is_from_home {
            self.check_voucher(delivery.voucher.as_ref(), &message.authorship)?;
        }
        if !is_here {
            if let Some((link, hops_left)) = self.onward(&message.recipient.home, delivery.hops_left) {
                self.send_deliver(link, deliver_frame::Kind::Message(MessageDelivery { hops_left, ..delivery }));
            }
            return Ok(());
        }
        if self.links.admitted_name(&message.authorship.sender.home).is_none() {
            self.note(Note::FrameIgnored { peer });
            return Ok(());
        }
        if !self.has_before(&message.authorship, &delivery.after_message_id)? {
            return Ok(());
        }
        match self.check_anew(&message, delivery.home_epoch) {
            Ok(()) => self.keep(message, Sender::Home),
            Err(rejection) => self.refuse_message(Sender::Home, &message, rejection),
        }
        Ok(())
    }

    /// Checks what may have changed since a message came before: one that was taken or refused then is so still. `home_epoch` is the
    /// one of this server to which this copy was sent.
    fn check_anew(&self, message: &Message, home_epoch: u64) -> Result<(), Rejection> {
        let Message { authorship, requires_online, .. } = message;
        if matches!(self.repeats.recall(authorship), Ok(Some(_))) {
            return Ok(());
        }
        if let Some(reason) = self.repeats.recall_refusal(&authorship.hash) {
            return Err(Rejection::new(reason, "it was refused a moment ago"));
        }
        // An earlier start may have refused it, and this one knows nothing of that.
        if *requires_online && home_epoch != self.epoch.number {
            return Err(Rejection::new(Reason::RecipientOffline, "it was sent before this server started"));
        }
        authorship.check_time(self.now.unix_ms)
    }

    /// Whether the message is here after which one is to be taken, if there is such a message.
    fn has_before(&self, authorship: &Authorship, id: &[u8]) -> Result<bool, Refusal> {
        if id.is_empty() || is_on(Mutation::OvertakingTaken) {
            return Ok(true);
        }
        let id = id.try_into().ok().and_then(MessageId::from_bytes);
        let before = id.ok_or(Refusal::Malformed("after_message_id"))?;
        Ok(self.repeats.knows(&authorship.sender, before))
    }

    pub(super) fn post_from_peer(&mut self, peer: ServerId, delivery: PostDelivery) -> Result<(), Refusal> {
        let sealed = delivery.post.as_ref().ok_or(Refusal::Malformed("post"))?;
        let post = Post::parse(sealed).map_err(|_| Refusal::Malformed("post"))?;
        let wraps = parse_wraps(&delivery.wraps).map_err(|_| Refusal::Malformed("wraps"))?;
        if delivery.home_ids.len() > NEIGHBOURS_MAX {
            return Err(Refusal::TooMany("homes"));
        }
        let homes = delivery.home_ids.iter().map(|home| ServerId::from_bytes(home));
        let mut homes = homes.collect::<Option<BTreeSet<_>>>().ok_or(Refusal::Malformed("home_ids"))?;
        self.check_voucher(delivery.voucher.as_ref(), &post.authorship)?;
        let is_here = homes.remove(&self.id);
        if is_here && self.links.admitted_name(&post.authorship.sender.home).is_none() {
            self.note(Note::FrameIgnored { peer });
        } else if is_here {
            let authorship = post.authorship.clone();
            let result = authorship.check_time(self.now.unix_ms).and_then(|()| self.keep_post(post, &wraps));
            if let Some(result) = result.transpose() {
                self.send_outcome(&authorship, result);
            }
        }
        if let (Some(voucher), Some(hops_left)) = (&delivery.voucher, fewer_hops(delivery.hops_left)) {
            let wraps: Vec<&Wrap> = wraps.iter().collect();
            self.send_post(sealed, &wraps, voucher, hops_left, homes);
        }
        Ok(())
    }

    /// Signs what became of something, and sends it to the sender's home.
    pub(super) fn send_outcome(&mut self, authorship: &Authorship, result: Result<Taken, Rejection>) {
        let outcome = self.sign_outcome(authorship.hash, result.map_err(|rejection| rejection.reason));
        let home_id = Bytes::copy_from_slice(authorship.sender.home.as_bytes());
        let delivery = OutcomeDelivery { outcome: Some(outcome), home_id, hops_left: HOPS_MAX };
        if let Some(link) = self.way_to(&authorship.sender.home) {
            self.send_deliver(link, deliver_frame::Kind::Outcome(delivery));
        }
    }

    pub(super) fn send_deliver(&mut self, link: LinkId, kind: deliver_frame::Kind) {
        self.output(Output::Send { link, frame: Frame::Deliver(DeliverFrame { kind: Some(kind) }) });
    }
}
