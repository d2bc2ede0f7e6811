//! Shortest paths: which servers can be reached, over which neighbour, and to whom batches are passed on.
//!
//! Every server computes the same from the same edges, the smaller id first wherever there is a choice. Servers are places
//! in one ascending list of ids, so an id is compared only while the graph is built.

use alloc::{
    collections::{BTreeMap, VecDeque},
    vec,
    vec::Vec,
};

use crate::{
    id::ServerId,
    mutation::{Mutation, is_on},
};

/// The graph of the links that count, as one server sees it, and the paths in it.
#[derive(Debug, Default)]
pub(super) struct Paths {
    /// Every server in the graph, ascending.
    ids: Vec<ServerId>,
    /// For each the places of its neighbours, ascending.
    edges: Vec<Vec<usize>>,
    /// Place of this server.
    own: usize,
    /// For each the place of the neighbour that is next on the way there; `None` for this server and those out of reach.
    next: Vec<Option<usize>>,
    /// For each origin asked about so far, the neighbours to which its batches are passed on.
    children: BTreeMap<ServerId, Vec<ServerId>>,
}

impl Paths {
    /// The paths of `own`, whose links go to `own_links`, where the others list each other as given: each with its
    /// neighbours, both ascending. An edge between two others counts when both list it.
    pub(super) fn find<'a>(
        own: ServerId,
        own_links: &[ServerId],
        lists: impl Iterator<Item = (ServerId, &'a [ServerId])>,
    ) -> Self {
        let lists: BTreeMap<ServerId, &[ServerId]> = lists.filter(|(id, _)| *id != own).collect();
        let mut ids: Vec<ServerId> = lists.keys().chain(own_links).copied().chain([own]).collect();
        ids.sort_unstable();
        ids.dedup();
        let place = |id: &ServerId| ids.binary_search(id).ok();
        let listed: Vec<Vec<usize>> = ids
            .iter()
            .map(|id| lists.get(id).into_iter().flat_map(|list| list.iter()).filter_map(place).collect())
            .collect();
        let own = place(&own).expect("it was put in");
        let mut edges: Vec<Vec<usize>> = vec![Vec::new(); ids.len()];
        for (one, others) in listed.iter().enumerate() {
            let lists_back =
                |other: &usize| listed[*other].binary_search(&one).is_ok() || is_on(Mutation::EdgeOfOneEnd);
            edges[one].extend(others.iter().filter(|other| **other != own && lists_back(other)));
        }
        for link in own_links.iter().filter_map(place) {
            edges[own].push(link);
            edges[link].push(own);
        }
        edges.iter_mut().for_each(|edges| edges.sort_unstable());
        let mut paths = Self { ids, edges, own, ..Self::default() };
        paths.next = paths.first_hops();
        paths
    }

    /// The neighbour that is next on the way to a server.
    pub(super) fn next_hop(&self, to: &ServerId) -> Option<ServerId> {
        let to = self.ids.binary_search(to).ok()?;
        self.next[to].map(|hop| self.ids[hop])
    }

    /// The other servers that can be reached, ascending.
    pub(super) fn reachable(&self) -> Vec<ServerId> {
        self.ids.iter().zip(&self.next).filter(|(_, next)| next.is_some()).map(|(id, _)| *id).collect()
    }

    /// The neighbours to which this server passes on what comes from `origin`: those that have this server as the smallest
    /// of their neighbours that are closer to it.
    pub(super) fn children_of(&mut self, origin: ServerId) -> &[ServerId] {
        let Self { ids, edges, own, children, .. } = self;
        children.entry(origin).or_insert_with(|| {
            let Ok(origin) = ids.binary_search(&origin) else { return Vec::new() };
            let distances = distances(edges, origin);
            let parent_of = |place: usize| {
                let closer = distances[place]?.checked_sub(1)?;
                edges[place].iter().find(|other| distances[**other] == Some(closer)).copied()
            };
            edges[*own].iter().filter(|place| parent_of(**place) == Some(*own)).map(|place| ids[*place]).collect()
        })
    }

    fn first_hops(&self) -> Vec<Option<usize>> {
        let mut next = vec![None; self.ids.len()];
        for (place, from) in breadth_first(&self.edges, self.own) {
            next[place] = Some(next[from].unwrap_or(place));
        }
        next
    }
}

/// How many links away each server is.
fn distances(edges: &[Vec<usize>], origin: usize) -> Vec<Option<usize>> {
    let mut distances = vec![None; edges.len()];
    distances[origin] = Some(0);
    for (place, from) in breadth_first(edges, origin) {
        distances[place] = distances[from].map(|distance| distance + 1);
    }
    distances
}

/// All other servers that can be reached from one, the nearest first, each with the one that it was reached from.
fn breadth_first(edges: &[Vec<usize>], start: usize) -> Vec<(usize, usize)> {
    let mut is_found = vec![false; edges.len()];
    is_found[start] = true;
    let (mut found, mut queue) = (Vec::new(), VecDeque::from([start]));
    while let Some(from) = queue.pop_front() {
        for &place in &edges[from] {
            if !core::mem::replace(&mut is_found[place], true) {
                found.push((place, from));
                queue.push_back(place);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> ServerId {
        ServerId::from_bytes(&[number; 32]).expect("32 bytes")
    }

    fn ids(numbers: &[u8]) -> Vec<ServerId> {
        numbers.iter().map(|number| id(*number)).collect()
    }

    /// The paths of server 1, whose links go to `own`, where the others list each other so.
    fn paths(own: &[u8], lists: &[(u8, &[u8])]) -> Paths {
        let lists: Vec<_> = lists.iter().map(|(server, list)| (id(*server), ids(list))).collect();
        Paths::find(id(1), &ids(own), lists.iter().map(|(server, list)| (*server, &list[..])))
    }

    #[test]
    fn an_edge_counts_when_both_ends_list_it() {
        let one_sided = paths(&[2], &[(2, &[1, 3]), (3, &[])]);
        assert_eq!(one_sided.reachable(), ids(&[2]));
        let both = paths(&[2], &[(2, &[1, 3]), (3, &[2])]);
        assert_eq!(both.reachable(), ids(&[2, 3]));
        assert_eq!(both.next_hop(&id(3)), Some(id(2)));
    }

    #[test]
    fn nobody_can_list_a_link_to_this_server_that_it_does_not_have() {
        let paths = paths(&[2], &[(2, &[1]), (3, &[1, 4]), (4, &[3])]);
        assert_eq!(paths.reachable(), ids(&[2]));
    }

    #[test]
    fn of_two_ways_as_short_the_one_over_the_smaller_id_is_taken() {
        let mut paths = paths(&[2, 3], &[(2, &[1, 4]), (3, &[1, 4]), (4, &[2, 3])]);
        assert_eq!(paths.next_hop(&id(4)), Some(id(2)));
        assert_eq!(paths.children_of(id(1)), ids(&[2, 3]));
        // 3 gets what 2 says from 1, and 4 gets it from 2.
        assert_eq!(paths.children_of(id(2)), ids(&[3]));
        // 1 is sent it by 2, and 3 has it from 4.
        assert_eq!(paths.children_of(id(4)), []);
        assert_eq!(paths.children_of(id(9)), [], "an origin that nobody lists");
    }
}
