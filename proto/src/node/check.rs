//! Slow checks: RSA signatures that are looked at outside, and what goes on when the result is here.
//!
//! Results come in any order. What one session sends goes on in the order in which it was sent.

use alloc::{
    collections::{BTreeMap, VecDeque},
    string::{String, ToString},
    vec::Vec,
};

use super::Node;
use crate::{
    id::{SessionId, StatementHash, TokenHash},
    input::{CallId, CheckId},
    limits::{CHECKS_MAX, STRANGERS_CHECKS_MAX},
    message::{Message, Post, Wrap},
    moves::Move,
    mutation::{Mutation, is_on},
    name::UserName,
    output::Output,
    rejection::Rejection,
    statement::{KeyStatement, RsaCheck},
    v1::Reason,
};

/// What waits for a slow check.
#[derive(Debug)]
pub(super) enum Checking {
    Registration(Registration),
    Login(Login),
    Rotation { call: CallId, token: TokenHash, statement: KeyStatement },
    Move { call: CallId, token: TokenHash, moved: Move },
    Message { call: CallId, token: TokenHash, message: Message },
    Post { call: CallId, token: TokenHash, post: Post, wraps: Vec<Wrap> },
}

/// A registration, its statement not proved yet.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) call: CallId,
    pub(super) statement: KeyStatement,
    pub(super) invite: [u8; 32],
    pub(super) display_name: String,
}

/// A login, its user not proved yet.
#[derive(Debug)]
pub(super) struct Login {
    pub(super) call: CallId,
    pub(super) user: UserName,
    pub(super) device: String,
    pub(super) token: TokenHash,
    pub(super) session: SessionId,
    /// The statement of the key that must have signed.
    pub(super) statement: StatementHash,
}

impl Checking {
    fn call(&self) -> CallId {
        match self {
            Self::Registration(Registration { call, .. })
            | Self::Login(Login { call, .. })
            | Self::Rotation { call, .. }
            | Self::Move { call, .. }
            | Self::Message { call, .. }
            | Self::Post { call, .. } => *call,
        }
    }

    /// The session that sends, whose share of the checks this counts to.
    fn session(&self) -> Option<TokenHash> {
        match self {
            Self::Rotation { token, .. }
            | Self::Move { token, .. }
            | Self::Message { token, .. }
            | Self::Post { token, .. } => Some(*token),
            Self::Registration(_) | Self::Login(_) => None,
        }
    }
}

/// Checks under way.
#[derive(Debug, Default)]
pub(super) struct Checks {
    waiting: BTreeMap<CheckId, Checking>,
    begun: u64,
    /// What each session sends, in order, with results that came before their turn.
    turns: BTreeMap<TokenHash, VecDeque<(CheckId, Option<bool>)>>,
}

impl Checks {
    pub(super) fn under_way(&self) -> usize {
        self.waiting.len()
    }

    /// Takes all calls that wait for a check, to answer them otherwise.
    pub(super) fn take_calls(&mut self) -> Vec<CallId> {
        self.turns.clear();
        core::mem::take(&mut self.waiting).into_values().map(|checking| checking.call()).collect()
    }
}

impl Node {
    /// Has signatures checked outside; goes on in [`Self::checked`].
    pub(super) fn check(&mut self, call: CallId, signatures: Vec<RsaCheck>, checking: Checking) {
        let limit = if checking.session().is_some() { CHECKS_MAX } else { STRANGERS_CHECKS_MAX };
        if self.checks.waiting.len() >= limit {
            let rejection = Rejection::new(Reason::TooMany, "too many signatures are being checked; try again");
            return self.answer(call, Err(rejection.with("limit", limit.to_string())));
        }
        self.checks.begun += 1;
        let check = CheckId(self.checks.begun);
        if let Some(token) = checking.session() {
            self.checks.turns.entry(token).or_default().push_back((check, None));
            if let Some(session) = self.sessions.session_mut(token) {
                session.sends += 1;
            }
        }
        self.checks.waiting.insert(check, checking);
        self.output(Output::Check { check, signatures });
    }

    pub(super) fn checked(&mut self, check: CheckId, valid: bool) {
        let Some(checking) = self.checks.waiting.get(&check) else { return };
        let Some(token) = checking.session().filter(|_| !is_on(Mutation::OrderNotKept)) else {
            return self.go_on(check, valid);
        };
        let turns = self.checks.turns.entry(token).or_default();
        if let Some((_, result)) = turns.iter_mut().find(|(turn, _)| *turn == check) {
            *result = Some(valid);
        }
        while let Some(turns) = self.checks.turns.get_mut(&token) {
            let Some((check, Some(valid))) = turns.front().copied() else { break };
            turns.pop_front();
            if turns.is_empty() {
                self.checks.turns.remove(&token);
            }
            self.go_on(check, valid);
        }
    }

    fn go_on(&mut self, check: CheckId, valid: bool) {
        let Some(checking) = self.checks.waiting.remove(&check) else { return };
        if let Some(session) = checking.session().and_then(|token| self.sessions.session_mut(token)) {
            session.sends -= 1;
        }
        match checking {
            Checking::Registration(registration) => self.registration_checked(registration, valid),
            Checking::Login(login) => self.login_checked(login, valid),
            Checking::Rotation { call, statement, .. } => self.rotation_checked(call, statement, valid),
            Checking::Move { call, moved, .. } => self.move_checked(call, moved, valid),
            Checking::Message { call, .. } | Checking::Post { call, .. } if !valid => {
                let message = "the signature does not match the message and the sender's registered key";
                self.answer(call, Err(Rejection::new(Reason::InvalidSig, message)));
            }
            Checking::Message { call, message, .. } => self.route_message(call, message),
            Checking::Post { call, post, wraps, .. } => self.route_post(call, &post, &wraps),
        }
    }
}
