//! Moves: shown only if the user said so, and whoever was shown to have moved is not at the old home again.

use std::collections::{BTreeMap, BTreeSet};

use socp::{
    directory::{Change, Delta},
    id::ServerId,
    message::Address,
    v1::SignedMove,
};

use crate::world::World;

/// All that users said of where they went, and what of it was shown.
#[derive(Default)]
pub struct Moves {
    said: BTreeSet<Vec<u8>>,
    /// By server: whom its watch has shown as moved since it started.
    departed: BTreeMap<ServerId, BTreeSet<Address>>,
    /// Homes that started from an old disk or none, which may not know of a move any more.
    forgetful: BTreeSet<ServerId>,
}

impl Moves {
    /// A user tells the old home.
    pub fn say(&mut self, moved: &SignedMove) {
        self.said.insert(moved.statement.to_vec());
    }

    /// A server starts, and its watch with it.
    pub fn begin(&mut self, server: ServerId) {
        self.departed.remove(&server);
    }

    /// A home loses its disk, or goes back to an old copy of it.
    pub fn forget(&mut self, home: ServerId) {
        self.forgetful.insert(home);
    }
}

impl World {
    /// A server publishes a revision.
    pub fn check_moves(&mut self, server: usize, delta: &Delta) {
        let (id, name) = (self.servers[server].id, &self.servers[server].name);
        let lied: BTreeSet<ServerId> = self.liars.all().map(|liar| self.servers[liar].id).collect();
        let Moves { said, departed, forgetful } = &mut self.moves;
        // Tests that tell a story make moves of their own.
        let has_said = !said.is_empty();
        let departed = departed.entry(id).or_default();
        for change in &delta.changes {
            match change {
                Change::Moved(entry, destination) => {
                    let moved = &destination.moved;
                    let is_said = !has_said || said.contains(&moved.signed.statement[..]);
                    assert!(is_said && moved.from == entry.address, "{name} shows a move that {entry:?} never said");
                    departed.insert(entry.address.clone());
                }
                Change::Added(entry) if departed.contains(&entry.address) => {
                    let home = &entry.address.home;
                    let is_excused = forgetful.contains(home) || lied.contains(home);
                    assert!(is_excused, "{name} shows {} again, who moved", entry.label());
                }
                Change::Added(_) | Change::Updated(_) | Change::Removed(..) => {}
            }
        }
    }
}

/// Who moved is shown at the old home by nobody, and the home has it on disk.
pub fn at_rest(world: &World) {
    for (index, user) in world.users.users.iter().enumerate().filter(|(_, user)| user.has_moved) {
        let address = world.address(index);
        let home = &world.servers[user.server];
        let is_kept = home.disk.accounts.get(&user.name).is_some_and(|account| account.moved.is_some());
        assert!(is_kept, "{} took the word of {} that they moved, and lost it", home.name, user.name);
        for server in world.servers.iter().filter(|_| !world.is_of_liar(&address)) {
            let is_shown = server.watch.addresses().any(|shown| shown == address);
            assert!(!is_shown, "{} shows {address:?}, who moved", server.name);
        }
    }
}
