//! Nothing is applied twice, and nothing is taken back: each batch of an origin is in the base once, in order.

use std::collections::BTreeMap;

use socp::{batch::Epoch, id::ServerId};

use crate::world::World;

/// Networks up to this size have the base of each origin hashed anew: larger ones would take minutes.
const SERVERS_MAX: usize = 16;

/// How far each running server was with each origin when it was looked at last.
#[derive(Default)]
pub struct Positions(BTreeMap<(ServerId, u64, ServerId), (Epoch, u64)>);

/// No position goes back within one start of a server.
pub fn at_any_time(world: &mut World) {
    let World { servers, positions, .. } = world;
    let ids: Vec<ServerId> = servers.iter().map(|server| server.id).collect();
    for server in servers.iter() {
        let Some(node) = &server.node else { continue };
        for id in &ids {
            let Some(origin) = node.origin(id) else { continue };
            let at = (origin.epoch(), origin.position());
            if let Some(before) = positions.0.insert((server.id, server.starts, *id), at) {
                // An epoch known by an introduction alone gives way to a later introduction.
                let is_unsaid = before.1 == 0 && before.0 != at.0;
                assert!(before <= at || is_unsaid, "{} went back with {id:?} from {before:?} to {at:?}", server.name);
            }
        }
    }
}

/// What is kept of each origin is in order, without gap or repetition, and hashes to what the node says.
pub fn at_rest(world: &World) {
    if world.servers.len() > SERVERS_MAX {
        return;
    }
    for server in &world.servers {
        let node = server.node.as_ref().expect("every server runs at rest");
        let origins = world.servers.iter().filter_map(|other| node.origin(&other.id));
        for origin in origins {
            assert!(origin.is_consistent(), "{} has applied something twice or out of order", server.name);
        }
    }
}
