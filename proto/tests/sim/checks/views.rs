//! Equal views: all servers show the same, to the byte that a digest covers.

use socp::digest::SetHash;

use crate::world::World;

/// All watchers have equal entries, apart from those of servers that lied, for which see [`super::liars`]; and the digest that the nodes publish is the one of those entries.
pub fn at_rest(world: &World) {
    let mut first = None;
    for server in &world.servers {
        let node = server.node.as_ref().expect("every server runs at rest");
        let mut hash = SetHash::default();
        server.watch.entries().for_each(|entry| hash.insert(&entry.digest_entry()));
        let digest = hash.digest();
        assert_eq!(digest, node.directory().digest(), "{} publishes another digest than its entries have", server.name);
        assert_eq!(digest, node.base_hash().digest(), "{} shows something else than its origins' bases", server.name);
        let entries = server.watch.entries().filter(|entry| !world.is_of_liar(&entry.address));
        let shown: Vec<_> = entries.map(|entry| (entry.label(), entry.clone())).collect();
        let (name, expected) = first.get_or_insert_with(|| (server.name.clone(), shown.clone()));
        assert_eq!(*expected, shown, "{name} and {} show different entries", server.name);
    }
}
