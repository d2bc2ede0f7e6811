//! Moves of own users to other homes: taken from the user alone, kept for good, and told to whoever asks.
//!
//! Nothing is asked of the new home, and nothing is believed about the users of another one: what a move is worth is its
//! signature, which those check who act on it.

use alloc::{string::String, sync::Arc, vec::Vec};

use super::{Node, account::disabled_user, check::Checking};
use crate::{
    account::Account,
    id::TokenHash,
    input::CallId,
    message::{Address, check_time},
    moves::Move,
    mutation::{Mutation, is_on},
    name::UserName,
    output::{Answer, Record},
    rejection::Rejection,
    statement::invalid,
    v1::{Reason, SignedMove},
};

impl Node {
    pub(super) fn move_user(&mut self, call: CallId, token: TokenHash, signed: &SignedMove) {
        let checked = self.authorize(token).and_then(|user| {
            let moved = Move::parse(signed)?;
            if moved.from.user != user {
                return Err(invalid("user"));
            }
            let account = self.check_move(&moved)?;
            let check = moved.check(&account.statement().key);
            check_time(moved.time_unix_ms, self.now.unix_ms)?;
            self.check_room_to_send(token)?;
            Ok((check, moved))
        });
        match checked {
            Ok((check, moved)) => self.check(call, Vec::from([check]), Checking::Move { call, token, moved }),
            Err(rejection) => self.answer(call, Err(rejection)),
        }
    }

    pub(super) fn move_checked(&mut self, call: CallId, moved: Move, valid: bool) {
        let result = if valid {
            self.check_move(&moved)
        } else {
            Err(Rejection::new(Reason::InvalidSig, "the move is not signed by the user's registered key"))
        };
        match result {
            Ok(account) => {
                let account = Account { moved: Some(Arc::new(moved)), ..(*account).clone() };
                let account = self.store_account(account, |account| Record::Moved { account });
                if let Err(rejection) = self.check_still_here(&account) {
                    self.end_sessions_of(&account.user, &rejection);
                }
                self.answer(call, Ok(Answer::UserMoved));
            }
            Err(rejection) => self.answer(call, Err(rejection)),
        }
    }

    /// Checks all but signature and time of a move; gives the account of the user who moves.
    fn check_move(&self, moved: &Move) -> Result<Arc<Account>, Rejection> {
        if moved.from.home != self.id {
            return Err(invalid("home_id"));
        }
        let account = self.accounts.find(&moved.from.user).ok_or_else(|| invalid("user"))?;
        if account.disabled {
            return Err(disabled_user(&account.user));
        }
        self.check_still_here(account)?;
        if account.statement_hash() != moved.statement {
            return Err(invalid("key_statement_sha256"));
        }
        Ok(Arc::clone(account))
    }

    /// Rejects, with the new address, what is asked of a user who moved: USER_MOVED.
    pub(super) fn check_still_here(&self, account: &Account) -> Result<(), Rejection> {
        match &account.moved {
            Some(moved) if !is_on(Mutation::MovedStays) => {
                Err(moved.rejection(&self.own_label(&account.user), &self.label_of(&moved.to)))
            }
            _ => Ok(()),
        }
    }

    /// Where an own user moved, as it is labelled here; empty if they did not.
    pub(super) fn moved_to(&self, address: &Address) -> String {
        let account = |user: &UserName| self.accounts.find(user).and_then(|account| account.moved.as_ref());
        let moved = if address.home == self.id { account(&address.user) } else { None };
        moved.map_or_else(String::new, |moved| self.label_of(&moved.to))
    }
}
