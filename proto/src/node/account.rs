//! Registration and the operator's view of accounts.
//!
//! A name belongs to the first key that proves itself; the check of that proof is slow and runs outside, so names and
//! invites are looked at again when it comes back.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};

use super::{
    Node,
    check::{Checking, Registration},
};
use crate::{
    account::{Account, invite_hash},
    input::CallId,
    limits::{ACCOUNTS_MAX, DISPLAY_NAME_BYTES_MAX},
    mutation::{Mutation, is_on},
    name::UserName,
    operator,
    output::{Answer, Record},
    rejection::Rejection,
    statement::{KeyStatement, invalid, too_large},
    v1::{Reason, RegisterResponse, RegistrationPolicy, SignedKeyStatement},
};

/// All users of this server, and the invites for more.
#[derive(Debug)]
pub(super) struct Accounts {
    by_name: BTreeMap<UserName, Arc<Account>>,
    invites: BTreeSet<[u8; 32]>,
}

impl Accounts {
    pub(super) fn new(accounts: Vec<Account>, invites: Vec<[u8; 32]>) -> Self {
        let by_name = accounts.into_iter().map(|account| (account.user.clone(), Arc::new(account)));
        Self { by_name: by_name.collect(), invites: invites.into_iter().collect() }
    }

    pub(super) fn count(&self) -> usize {
        self.by_name.len()
    }

    pub(super) fn find(&self, user: &UserName) -> Option<&Arc<Account>> {
        self.by_name.get(user)
    }

    pub(super) fn insert(&mut self, account: Arc<Account>) {
        self.by_name.insert(account.user.clone(), account);
    }
}

impl Node {
    pub(super) fn register(
        &mut self,
        call: CallId,
        statement: &SignedKeyStatement,
        invite: &str,
        display_name: String,
    ) {
        let registration = KeyStatement::parse(statement).and_then(|statement| {
            let registration = Registration { call, statement, invite: invite_hash(invite), display_name };
            self.check_registration(&registration)?;
            Ok(registration)
        });
        match registration {
            Ok(registration) if self.has_statement(&registration.statement) => {
                let answer = self.registered(&registration.statement);
                self.answer(call, Ok(answer));
            }
            Ok(registration) => {
                let checks = registration.statement.checks(None);
                self.check(call, checks, Checking::Registration(registration));
            }
            Err(rejection) => self.answer(call, Err(rejection)),
        }
    }

    pub(super) fn registration_checked(&mut self, registration: Registration, valid: bool) {
        let call = registration.call;
        let result = if valid {
            self.check_registration(&registration)
        } else {
            Err(Rejection::new(Reason::InvalidSig, "the key statement is not signed by the key in it"))
        };
        if let Err(rejection) = result {
            return self.answer(call, Err(rejection));
        }
        let answer = self.registered(&registration.statement);
        if !self.is_registered(&registration.statement) {
            let Registration { statement, invite, display_name, .. } = registration;
            let invite = self.accounts.invites.remove(&invite).then_some(invite);
            let account = Account {
                user: statement.user.clone(),
                statements: Vec::from([statement]),
                display_name,
                created_unix_ms: self.now.unix_ms,
                disabled: false,
                moved: None,
            };
            self.store_account(account, |account| Record::NewAccount { account, invite });
        }
        self.answer(call, Ok(answer));
    }

    fn check_registration(&self, registration: &Registration) -> Result<(), Rejection> {
        let statement = &registration.statement;
        if statement.home != self.id {
            return Err(invalid("home_id").with("server_id", self.id.to_string()));
        }
        if statement.number != 1 {
            return Err(invalid("number"));
        }
        if registration.display_name.len() > DISPLAY_NAME_BYTES_MAX {
            return Err(too_large(DISPLAY_NAME_BYTES_MAX));
        }
        if let Some(account) = self.accounts.find(&statement.user) {
            if account.statement().key == statement.key || is_on(Mutation::NameTakenOver) {
                return self.check_still_here(account);
            }
            let message = format!("the name `{}` is registered here with another key", statement.user);
            return Err(Rejection::new(Reason::NameInUse, message).with("user", statement.user.to_string()));
        }
        if self.accounts.by_name.len() >= ACCOUNTS_MAX {
            return Err(Rejection::new(Reason::TooMany, "this server has all the users that it can have")
                .with("limit", ACCOUNTS_MAX.to_string()));
        }
        match self.settings.registration {
            RegistrationPolicy::Open => Ok(()),
            RegistrationPolicy::Invite if self.accounts.invites.contains(&registration.invite) => Ok(()),
            RegistrationPolicy::Invite => Err(Rejection::new(
                Reason::InviteRequired,
                "registration wants an unused invite; ask the server's operator for one",
            )),
            RegistrationPolicy::Closed | RegistrationPolicy::Unspecified => {
                Err(Rejection::new(Reason::RegistrationClosed, "this server registers nobody"))
            }
        }
    }

    /// Whether this very statement was checked before.
    fn has_statement(&self, statement: &KeyStatement) -> bool {
        self.accounts.find(&statement.user).is_some_and(|account| account.statement().signed == statement.signed)
    }

    fn is_registered(&self, statement: &KeyStatement) -> bool {
        self.accounts.find(&statement.user).is_some_and(|account| account.statement().key == statement.key)
    }

    fn registered(&self, statement: &KeyStatement) -> Answer {
        Answer::Registered(RegisterResponse {
            user: self.own_label(&statement.user),
            key_fingerprint: statement.key.fingerprint().to_string(),
        })
    }

    pub(super) fn own_label(&self, user: &UserName) -> String {
        format!("{user}@{}", self.settings.name)
    }

    pub(super) fn create_invite(&mut self, call: CallId, invite: &str) {
        let hash = invite_hash(invite);
        self.accounts.invites.insert(hash);
        self.output(crate::output::Output::Store(Record::NewInvite(hash)));
        self.answer(call, Ok(Answer::InviteCreated));
    }

    pub(super) fn list_accounts(&mut self, call: CallId) {
        let accounts = self.accounts.by_name.values().map(|account| operator::v1::Account {
            name: account.user.to_string(),
            key_fingerprint: account.statement().key.fingerprint().to_string(),
            display_name: account.display_name.clone(),
            created_unix_ms: i64::try_from(account.created_unix_ms).unwrap_or(i64::MAX),
            disabled: account.disabled,
            online: self.sessions.presence(&account.user).is_some(),
            sessions: u32::try_from(self.sessions.of(account.user.as_str()).count()).unwrap_or(u32::MAX),
            moved_to: account.moved.as_ref().map_or_else(String::new, |moved| self.label_of(&moved.to)),
        });
        let accounts = operator::v1::ListAccountsResponse { accounts: accounts.collect() };
        self.answer(call, Ok(Answer::Accounts(accounts)));
    }

    pub(super) fn set_disabled(&mut self, call: CallId, user: &str, disabled: bool) {
        let found = UserName::parse(user).and_then(|user| {
            self.accounts.find(&user).map(Arc::clone).ok_or_else(|| super::user::not_found(user.as_str()))
        });
        let account = match found {
            Ok(account) => account,
            Err(rejection) => return self.answer(call, Err(rejection)),
        };
        if account.disabled != disabled {
            let account = Account { disabled, ..(*account).clone() };
            let account = self.store_account(account, |account| Record::Disabled { account });
            if disabled {
                self.end_sessions_of(&account.user, &disabled_user(&account.user));
            }
        }
        self.answer(call, Ok(Answer::DisabledSet));
    }
}

pub(super) fn disabled_user(user: &UserName) -> Rejection {
    Rejection::new(Reason::UserDisabled, format!("the operator disabled `{user}`")).with("user", user.to_string())
}
