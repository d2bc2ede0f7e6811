//! Which server bears which name here, for good: the first that is heard of under a name keeps it.
//!
//! A name never goes to another server by itself. Only the operator moves one, by a pin; whoever bore it then, or claims it
//! later, is shown as `name#` and the first digits of its id.

use alloc::{collections::BTreeMap, vec::Vec};

use crate::{
    id::ServerId,
    limits::NAMES_MAX,
    mutation::{Mutation, is_on},
    name::ServerName,
};

/// A name, and whose it is.
pub(super) type Bound = (ServerName, ServerId);

/// Every name that is bound. A server has one name.
#[derive(Debug, Default)]
pub(super) struct Names {
    of: BTreeMap<ServerId, ServerName>,
    bearers: BTreeMap<ServerName, ServerId>,
}

impl Names {
    /// As they were kept on disk.
    pub(super) fn new(bound: Vec<Bound>) -> Self {
        let mut names = Self::default();
        bound.into_iter().for_each(|(name, server)| names.insert(server, name));
        names
    }

    pub(super) fn len(&self) -> usize {
        self.of.len().max(self.bearers.len())
    }

    pub(super) fn of(&self, server: &ServerId) -> Option<&ServerName> {
        self.of.get(server)
    }

    pub(super) fn bearer(&self, name: &str) -> Option<ServerId> {
        self.bearers.get(name).copied()
    }

    fn insert(&mut self, server: ServerId, name: ServerName) {
        if let Some(before) = self.of.insert(server, name.clone()) {
            self.bearers.remove(&before);
        }
        self.bearers.insert(name, server);
    }

    /// Gives a name to a server, because the operator says so. Tells who bore it before, if somebody did, and what is to be
    /// kept, in this order.
    pub(super) fn bind(&mut self, server: ServerId, name: &ServerName) -> (Option<ServerId>, Vec<Bound>) {
        let before = self.bearers.get(name).copied();
        if before == Some(server) {
            return (None, Vec::new());
        }
        let mut bound = Vec::new();
        if let Some(other) = before {
            let label = self.label(other, name);
            self.insert(other, label.clone());
            bound.push((label, other));
        }
        self.insert(server, name.clone());
        bound.push((name.clone(), server));
        (before, bound)
    }

    /// The name of a server that somebody vouches for under a name: the one it has, else that one if nobody bears it. Tells
    /// who does otherwise, and whether the name is new and to be kept.
    pub(super) fn claim(&mut self, server: ServerId, claimed: &ServerName) -> (ServerName, Option<ServerId>, bool) {
        let other = self.bearers.get(claimed).copied().filter(|bearer| *bearer != server);
        if let Some(name) = self.of.get(&server) {
            return (name.clone(), other, false);
        }
        let is_full = self.of.len() >= NAMES_MAX;
        // Where no more names are kept, a label that no other server can have needs none.
        let is_taken = other.is_some() && !is_on(Mutation::NameGivenTwice);
        let name = if is_taken || is_full { self.label(server, claimed) } else { claimed.clone() };
        if !is_full {
            self.insert(server, name.clone());
        }
        (name, other, !is_full)
    }

    /// A label that tells a server apart from whoever bears the name.
    fn label(&self, server: ServerId, name: &ServerName) -> ServerName {
        let short = name.with_id(&server, 8);
        if self.bearers.get(short.as_str()).is_none_or(|bearer| *bearer == server) {
            short
        } else {
            name.with_id(&server, 64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(number: u64) -> ServerId {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        ServerId::of_key(&key)
    }

    fn name(text: &str) -> ServerName {
        ServerName::parse(text).unwrap()
    }

    #[test]
    fn the_first_claimant_keeps_the_name_and_the_second_is_told_apart() {
        let mut names = Names::default();
        assert_eq!(names.claim(server(1), &name("b")), (name("b"), None, true));
        let label = name("b").with_id(&server(2), 8);
        assert_eq!(names.claim(server(2), &name("b")), (label.clone(), Some(server(1)), true));
        assert_eq!(names.claim(server(2), &name("b")), (label.clone(), Some(server(1)), false), "and so it stays");
        assert_eq!(names.claim(server(1), &name("c")), (name("b"), None, false), "another name is no new name");
        let mut again = Names::new(Vec::from([(label.clone(), server(2)), (name("b"), server(1))]));
        assert_eq!(again.claim(server(2), &name("b")).0, label);
    }

    #[test]
    fn a_pin_takes_the_name_from_whoever_bore_it() {
        let mut names = Names::default();
        names.claim(server(1), &name("b"));
        let label = name("b").with_id(&server(1), 8);
        let bound = Vec::from([(label.clone(), server(1)), (name("b"), server(2))]);
        assert_eq!(names.bind(server(2), &name("b")), (Some(server(1)), bound));
        assert_eq!(names.bind(server(2), &name("b")), (None, Vec::new()));
        assert_eq!((names.bearer("b"), names.of(&server(1))), (Some(server(2)), Some(&label)));
    }

    #[test]
    fn a_label_that_another_server_has_is_not_given_twice() {
        let mut names = Names::default();
        names.claim(server(1), &name("b"));
        names.insert(server(3), name("b").with_id(&server(2), 8));
        assert_eq!(names.claim(server(2), &name("b")).0, name("b").with_id(&server(2), 64));
    }

    #[test]
    fn names_are_kept_up_to_the_limit_and_past_it_a_server_has_a_label_that_is_its_own() {
        let mut names = Names::default();
        for number in 0..NAMES_MAX as u64 {
            assert!(names.claim(server(number), &name(&alloc::format!("n{number}"))).2);
        }
        let late = server(NAMES_MAX as u64);
        assert_eq!(names.claim(late, &name("free")), (name("free").with_id(&late, 8), None, false));
        assert_eq!(names.bearer("free"), None);
    }
}
