//! Rotation: an own user's next key, which the key in force vouches for.
//!
//! Everybody else follows by the advert, which names the new statement, and the chain, which is told to whoever asks. What is
//! on its way under the old key is taken as it was when it was sent; what comes later is refused.

use alloc::{string::ToString as _, sync::Arc};

use super::{Node, account::disabled_user, check::Checking};
use crate::{
    account::Account,
    id::TokenHash,
    input::CallId,
    limits::KEY_STATEMENTS_MAX,
    name::UserName,
    output::{Answer, Record},
    rejection::Rejection,
    statement::{KeyStatement, invalid},
    v1::{Reason, RotateKeyResponse, SignedKeyStatement},
};

impl Node {
    pub(super) fn rotate_key(&mut self, call: CallId, token: TokenHash, signed: &SignedKeyStatement) {
        let checked = self.authorize(token).and_then(|user| {
            let statement = KeyStatement::parse(signed)?;
            if statement.user != user || statement.home != self.id {
                return Err(invalid(if statement.user == user { "home_id" } else { "user" }));
            }
            if self.is_in_force(&statement) {
                return Ok((None, statement));
            }
            let account = self.check_rotation(&statement)?;
            self.check_room_to_send(token)?;
            Ok((Some(statement.checks(Some(account.statement()))), statement))
        });
        match checked {
            Ok((Some(checks), statement)) => self.check(call, checks, Checking::Rotation { call, token, statement }),
            Ok((None, statement)) => self.answer(call, Ok(rotated(&statement))),
            Err(rejection) => self.answer(call, Err(rejection)),
        }
    }

    pub(super) fn rotation_checked(&mut self, call: CallId, statement: KeyStatement, valid: bool) {
        if !valid {
            let message = "the key statement is not signed by the key in it and the one before it";
            return self.answer(call, Err(Rejection::new(Reason::InvalidSig, message)));
        }
        let answer = rotated(&statement);
        // The same may have been asked twice at once.
        if !self.is_in_force(&statement) {
            let account = match self.check_rotation(&statement) {
                Ok(account) => account,
                Err(rejection) => return self.answer(call, Err(rejection)),
            };
            let mut account = (*account).clone();
            let user: UserName = account.user.clone();
            account.statements.push(statement);
            self.store_account(account, |account| Record::KeyRotated { account });
            self.advertise(&user);
        }
        self.answer(call, Ok(answer));
    }

    fn is_in_force(&self, statement: &KeyStatement) -> bool {
        self.accounts.find(&statement.user).is_some_and(|account| account.statement().signed == statement.signed)
    }

    /// Checks all but the signatures of a statement; gives the account that it is to be added to.
    fn check_rotation(&self, statement: &KeyStatement) -> Result<Arc<Account>, Rejection> {
        let account = self.accounts.find(&statement.user).ok_or_else(|| invalid("user"))?;
        if account.disabled {
            return Err(disabled_user(&account.user));
        }
        self.check_still_here(account)?;
        if !statement.follows(account.statement()) {
            return Err(invalid("previous_sha256"));
        }
        if account.statements.iter().any(|before| before.key == statement.key) {
            return Err(Rejection::new(Reason::BadKey, "the user had this key before; make a new one"));
        }
        if account.statements.len() >= KEY_STATEMENTS_MAX {
            return Err(Rejection::new(Reason::TooMany, "this user's key was renewed as often as it can be")
                .with("limit", KEY_STATEMENTS_MAX.to_string()));
        }
        Ok(Arc::clone(account))
    }
}

fn rotated(statement: &KeyStatement) -> Answer {
    Answer::KeyRotated(RotateKeyResponse { key_fingerprint: statement.key.fingerprint().to_string() })
}
