//! Accounts: the users registered at this server, as they are on disk.

use alloc::{string::String, sync::Arc, vec::Vec};

use crate::{
    id::{StatementHash, sha256},
    moves::Move,
    name::UserName,
    statement::KeyStatement,
};

/// A registered user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The bare name.
    pub user: UserName,
    /// All key statements from number 1 on, never empty; the last is in force.
    pub statements: Vec<KeyStatement>,
    /// Display name, may be empty.
    pub display_name: String,
    /// When registered, Unix milliseconds.
    pub created_unix_ms: u64,
    /// Whether the operator disabled the user.
    pub disabled: bool,
    /// The user's word that they moved to another home: nobody logs in here as them any more.
    pub moved: Option<Arc<Move>>,
}

impl Account {
    /// The statement in force.
    pub fn statement(&self) -> &KeyStatement {
        self.statements.last().expect("an account has at least its first statement")
    }

    /// Hash of the statement in force.
    pub fn statement_hash(&self) -> StatementHash {
        self.statement().hash()
    }
}

/// What is kept of an invite: enough to know it again, not to give it away.
pub fn invite_hash(invite: &str) -> [u8; 32] {
    sha256(&[b"socp.v1.Invite\0", invite.as_bytes()])
}
