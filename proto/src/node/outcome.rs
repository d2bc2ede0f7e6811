//! Outcomes: what became of messages and posts, signed by the recipient's home and awaited by the sender's. Those of messages are
//! awaited in the outbox (see [`super::outbox`]), those of posts here.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::ToString,
    vec::Vec,
};

use prost::{Message as _, bytes::Bytes};

use super::{Node, Timer, inbox::Taken, sizes::Sizes};
use crate::{
    federation::v1::{OutcomeDelivery, deliver_frame},
    id::{ContentHash, ServerId},
    identity::signature,
    input::{CallId, LinkId},
    limits::{OUTCOME_MS, SENDS_PER_SESSION_MAX, WAITING_MAX},
    output::{Answer, Refusal},
    rejection::{self, Rejection},
    signed::{Label, signing_input},
    v1::{Outcome, OutcomeKind, OutcomeStatement, PostToChannelResponse, Reason, SignedOutcome},
};

/// A post whose outcomes are awaited from other homes.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) calls: Vec<CallId>,
    /// Whose word is awaited.
    pub(super) homes: BTreeSet<ServerId>,
    /// Whose word will not come.
    pub(super) silent: BTreeSet<ServerId>,
    pub(super) outcomes: Vec<SignedOutcome>,
    pub(super) recipients: u32,
    pub(super) until_ms: u64,
}

/// All that wait.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    waiting: BTreeMap<ContentHash, Waiting>,
}

impl Outcomes {
    pub(super) fn sizes(&self, sizes: &mut Sizes) {
        sizes.note("posts that wait", self.waiting.len());
        self.waiting.values().for_each(|waiting| sizes.note("calls that wait for one post", waiting.calls.len()));
    }

    /// Takes all calls that wait for an outcome, to answer them otherwise.
    pub(super) fn take_calls(&mut self) -> Vec<CallId> {
        core::mem::take(&mut self.waiting).into_values().flat_map(|waiting| waiting.calls).collect()
    }
}

impl Node {
    /// Checks that one more call can wait, before anything is sent: a rejection leaves no message behind. Rejects: TOO_MANY.
    pub(super) fn check_room_to_wait(&self, hash: ContentHash) -> Result<(), Rejection> {
        let (is_full, limit) = match self.outcomes.waiting.get(&hash) {
            Some(waiting) => (waiting.calls.len() >= SENDS_PER_SESSION_MAX, SENDS_PER_SESSION_MAX),
            None => (self.outcomes.waiting.len() >= WAITING_MAX, WAITING_MAX),
        };
        if !is_full {
            return Ok(());
        }
        Err(Rejection::new(Reason::TooMany, "too many posts wait for other servers; try again")
            .with("limit", limit.to_string()))
    }

    /// Makes a call wait for the word of other homes; one that has none to wait for is answered at once.
    pub(super) fn await_outcome(&mut self, call: CallId, hash: ContentHash, begun: Waiting) {
        if let Some(waiting) = self.outcomes.waiting.get_mut(&hash) {
            waiting.calls.push(call);
            return;
        }
        let is_complete = begun.homes.is_empty();
        let until_ms = self.now.monotonic_ms + OUTCOME_MS;
        self.outcomes.waiting.insert(hash, Waiting { calls: Vec::from([call]), until_ms, ..begun });
        if is_complete {
            self.conclude(hash);
        } else {
            self.after(OUTCOME_MS, Timer::Outcome(hash));
        }
    }

    pub(super) fn outcome_overdue(&mut self, hash: ContentHash) {
        let now_ms = self.now.monotonic_ms;
        if self.outcomes.waiting.get(&hash).is_some_and(|waiting| waiting.until_ms <= now_ms) {
            self.conclude(hash);
        }
    }

    /// There is no way to a home any more: its word will not come.
    pub(super) fn outcomes_lost(&mut self, home: ServerId) {
        let mut complete = Vec::new();
        for (hash, waiting) in &mut self.outcomes.waiting {
            if waiting.homes.remove(&home) {
                waiting.silent.insert(home);
                complete.extend(waiting.homes.is_empty().then_some(*hash));
            }
        }
        complete.into_iter().for_each(|hash| self.conclude(hash));
    }

    /// Answers what waits with the outcomes that are here.
    fn conclude(&mut self, hash: ContentHash) {
        let Some(waiting) = self.outcomes.waiting.remove(&hash) else { return };
        let answer = Answer::Posted(PostToChannelResponse {
            outcomes: waiting.outcomes,
            recipients: waiting.recipients,
            silent_home_ids: waiting.homes.union(&waiting.silent).map(ServerId::to_string).collect(),
        });
        waiting.calls.into_iter().for_each(|call| self.answer(call, Ok(answer.clone())));
    }

    /// Takes the word of a recipient's home, or passes it on to the sender's.
    pub(super) fn outcome_from_peer(
        &mut self,
        link: LinkId,
        peer: ServerId,
        delivery: OutcomeDelivery,
    ) -> Result<(), Refusal> {
        let to = ServerId::from_bytes(&delivery.home_id).ok_or(Refusal::Malformed("home_id"))?;
        let signed = delivery.outcome.as_ref().ok_or(Refusal::Malformed("outcome"))?;
        let key: [u8; 32] = signed.home_key[..].try_into().map_err(|_| Refusal::Malformed("home_key"))?;
        let home = ServerId::of_key(&key);
        // Over its own link a home needs no proof that the word is its own; the sender's client checks the signature, too.
        let is_from_home = home == peer && to == self.id;
        if !is_from_home {
            let signed_bytes = signing_input(Label::Outcome, &signed.statement);
            if !self.identity.verify(&key, &signed_bytes, &signed.signature) {
                return Err(Refusal::BadSignature);
            }
        }
        if to != self.id {
            if let Some((link, hops_left)) = self.onward(&to, delivery.hops_left) {
                self.send_deliver(link, deliver_frame::Kind::Outcome(OutcomeDelivery { hops_left, ..delivery }));
            }
            return Ok(());
        }
        let result = self.outcomes_of(home, signed);
        self.blame(link, home, result)
    }

    /// Takes what a home signed.
    fn outcomes_of(&mut self, home: ServerId, signed: &SignedOutcome) -> Result<(), Refusal> {
        let statement = OutcomeStatement::decode(&signed.statement[..]).map_err(|_| Refusal::Malformed("outcome"))?;
        if statement.home_id != home.to_string() {
            return Err(Refusal::ForeignOrigin);
        }
        for outcome in &statement.outcomes {
            if matches!(outcome.kind(), OutcomeKind::Unspecified | OutcomeKind::Queued | OutcomeKind::Expired) {
                return Err(Refusal::Malformed("outcome.kind"));
            }
            let hash = ContentHash::from_bytes(&outcome.statement_sha256).ok_or(Refusal::Malformed("outcome"))?;
            self.take_outcome(hash, home, outcome, signed);
        }
        Ok(())
    }

    fn take_outcome(&mut self, hash: ContentHash, home: ServerId, outcome: &Outcome, signed: &SignedOutcome) {
        if self.outcomes.waiting.contains_key(&hash) {
            self.post_settled(hash, home, outcome.recipients, signed.clone());
        } else {
            self.message_settled(home, hash, outcome, signed);
        }
    }

    /// This server has a post of its own user on disk.
    pub(super) fn own_outcome(&mut self, hash: ContentHash, taken: Taken) {
        let signed = self.sign_outcome(hash, Ok(taken));
        self.post_settled(hash, self.id, taken.recipients, signed);
    }

    fn post_settled(&mut self, hash: ContentHash, home: ServerId, recipients: u32, signed: SignedOutcome) {
        let Some(waiting) = self.outcomes.waiting.get_mut(&hash) else { return };
        if !waiting.homes.remove(&home) {
            return;
        }
        waiting.outcomes.push(signed);
        waiting.recipients = waiting.recipients.saturating_add(recipients);
        if waiting.homes.is_empty() {
            self.conclude(hash);
        }
    }

    pub(super) fn sign_outcome(&self, hash: ContentHash, result: Result<Taken, Reason>) -> SignedOutcome {
        let (kind, reason, recipients) = match result {
            Ok(Taken { kind, recipients }) => (kind, "", recipients),
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
        SignedOutcome {
            signature: signature(&*self.identity, Label::Outcome, &statement),
            statement: statement.into(),
            home_key: Bytes::copy_from_slice(&self.identity.public_key()),
        }
    }
}

/// What a person is told whose message the recipient's home refused.
pub(super) fn refusal(reason: Reason) -> &'static str {
    match reason {
        Reason::RecipientOffline => "the recipient is not online; nothing was kept",
        Reason::UserNotFound => "the recipient's home knows no such user",
        Reason::RecipientKeyChanged => "the recipient has another key now; look the user up again",
        Reason::UserMoved => "the recipient moved to another home; look the user up again",
        Reason::InboxFull => "the recipient's inbox has no more room for messages of yours",
        Reason::IdReused => "this message id was used before with other content",
        _ => "the recipient's home refused the message",
    }
}

/// The reason that a recipient's home gives for refusing a message; UNKNOWN_TYPE for one that is unknown, or that only
/// the sender's own home can have, such as TOKEN_INVALID: a peer must not make a client log in anew.
pub(super) fn reason_of_home(name: &str) -> Reason {
    match rejection::parse(name) {
        Some(
            reason @ (Reason::UserNotFound
            | Reason::RecipientOffline
            | Reason::RecipientKeyChanged
            | Reason::UserMoved
            | Reason::IdReused
            | Reason::TimeOutOfRange
            | Reason::TooLarge
            | Reason::TooMany
            | Reason::InboxFull),
        ) => reason,
        _ => Reason::UnknownType,
    }
}
