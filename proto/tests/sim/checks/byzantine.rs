//! Byzantine peers change nothing that is not theirs: what is shown of a user is what the user's own home showed.

use std::{collections::BTreeSet, sync::Arc};

use socp::{
    batch::Advert,
    directory::{Change, Delta, Entry},
    id::{ServerId, StatementHash},
    message::Address,
};

use crate::world::World;

/// All that the homes ever showed of their own users.
#[derive(Default)]
pub struct Said(BTreeSet<(Address, u64, u64, u32, Arc<str>, StatementHash)>);

impl Said {
    /// A home says this of its user, though it may not be so.
    pub fn say(&mut self, address: Address, epoch: u64, advert: &Advert) {
        let Advert { online_since, sessions, status, statement, .. } = advert;
        self.0.insert((address, epoch, *online_since, *sessions, Arc::clone(status), *statement));
    }

    /// A server publishes a revision.
    pub fn publish(&mut self, server: ServerId, delta: &Delta) {
        for change in &delta.changes {
            let (Change::Added(entry) | Change::Updated(entry)) = change else { continue };
            let Entry { address, epoch, online_since, sessions, status, statement, .. } = &**entry;
            let said = (address.clone(), *epoch, *online_since, *sessions, Arc::clone(status), statement.hash());
            if address.home == server {
                self.0.insert(said);
            } else {
                assert!(self.0.contains(&said), "{server:?} shows {entry:?}, which its home never said");
            }
        }
    }
}

/// Nobody remembers a server that was invented.
pub fn at_rest(world: &World) {
    for server in &world.servers {
        let node = server.node.as_ref().expect("every server runs at rest");
        let known = world.invented.iter().find(|id| node.origin(id).is_some());
        assert!(known.is_none(), "{} keeps something of an invented server", server.name);
    }
}
