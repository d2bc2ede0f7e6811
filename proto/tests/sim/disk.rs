//! What of a server survives a crash.

use std::collections::{BTreeMap, BTreeSet};

use socp::{
    account::Account,
    admission::Kept,
    id::ServerId,
    name::{ServerName, UserName},
    node::Trust,
    output::Record,
};

use crate::mail::MailDisk;

/// What survives a crash.
#[derive(Clone, Default)]
pub struct Disk {
    pub epoch: u64,
    pub accounts: BTreeMap<UserName, Account>,
    pub invites: BTreeSet<[u8; 32]>,
    pub admissions: BTreeMap<(ServerId, ServerId), Kept>,
    pub names: BTreeMap<ServerId, ServerName>,
    pub blocked: BTreeSet<ServerId>,
    pub mail: MailDisk,
}

impl Disk {
    pub fn store(&mut self, record: &Record) {
        match record {
            Record::NewAccount { account, invite } => {
                self.accounts.insert(account.user.clone(), (**account).clone());
                if let Some(invite) = invite {
                    self.invites.remove(invite);
                }
            }
            Record::Epoch(epoch) => self.epoch = *epoch,
            Record::NewInvite(invite) => {
                self.invites.insert(*invite);
            }
            Record::Disabled { account } | Record::KeyRotated { account } | Record::Moved { account } => {
                self.accounts.insert(account.user.clone(), (**account).clone());
            }
            Record::Admissions { kept, dropped } => {
                self.admissions.retain(|of, _| !dropped.contains(of));
                let kept = kept.iter().map(|kept| ((kept.admission.issuer, kept.admission.subject), kept.clone()));
                self.admissions.extend(kept);
            }
            Record::Names(names) => {
                for (name, server) in names {
                    assert!(!self.names.iter().any(|(other, bound)| bound == name && other != server), "{name} moves");
                    self.names.insert(*server, name.clone());
                }
            }
            Record::Entry(_)
            | Record::Post(_)
            | Record::PostsDropped { .. }
            | Record::Queued(_)
            | Record::Unqueued { .. }
            | Record::Dropped { .. }
            | Record::Readers { .. }
            | Record::IdsForgotten { .. } => unreachable!("mail is written with others"),
            Record::Blocked { server, is_blocked: true } => {
                self.blocked.insert(*server);
            }
            Record::Blocked { server, is_blocked: false } => {
                self.blocked.remove(server);
            }
        }
    }

    pub fn trust(&self) -> Trust {
        Trust {
            admissions: self.admissions.values().cloned().collect(),
            names: self.names.iter().map(|(server, name)| (name.clone(), *server)).collect(),
            blocked: self.blocked.iter().copied().collect(),
        }
    }
}
