//! Which entries a watch or list is about, and how much of each key it shows.
//!
//! A filter passes by an entry's names and ids alone, so that the same user passes from coming to leaving unless the
//! home's shown name changes; [`super::ring`] sees to that case.

use std::collections::BTreeSet;

use socp::{
    directory::Entry,
    id::{ServerId, sha256},
    limits::{FILTER_SERVERS_MAX, FILTER_USERS_MAX},
    name::{ServerName, UserName},
    rejection::Rejection,
    v1::{self, KeyDetail, Reason},
};

/// How much of each key is sent: the two forms in which changes are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// The whole signed key statement.
    Statement,
    /// Fingerprint and statement hash only.
    Fingerprint,
}

impl Detail {
    /// Reads the contract's value. Rejects: UNKNOWN_TYPE.
    pub fn parse(keys: i32) -> Result<Self, Rejection> {
        match KeyDetail::try_from(keys) {
            Ok(KeyDetail::Unspecified | KeyDetail::Statement) => Ok(Self::Statement),
            Ok(KeyDetail::Fingerprint) => Ok(Self::Fingerprint),
            Err(_) => Err(Rejection::new(Reason::UnknownType, "no such key detail").with("field", "keys")),
        }
    }

    /// The contract's value.
    pub fn contract(self) -> KeyDetail {
        match self {
            Self::Statement => KeyDetail::Statement,
            Self::Fingerprint => KeyDetail::Fingerprint,
        }
    }
}

/// A server as people name it. 64 hexadecimal digits could be both a name and an id, so they pass as either.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Server {
    text: String,
    id: Option<ServerId>,
}

impl Server {
    /// Reads an id, a name, or `name#hex`. Rejects: NAME_INVALID.
    fn parse(text: &str) -> Result<Self, Rejection> {
        let bare = match text.split_once('#') {
            Some((bare, hex)) if !hex.is_empty() && hex.bytes().all(|digit| digit.is_ascii_hexdigit()) => bare,
            _ => text,
        };
        ServerName::parse(bare)?;
        Ok(Self { text: text.to_owned(), id: ServerId::parse(text) })
    }

    fn passes(&self, entry: &Entry) -> bool {
        self.id == Some(entry.address.home) || self.text == entry.server_name.as_str()
    }
}

/// A filter that was read. An empty kind passes everything; kinds are joined by AND, values of a kind by OR.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    servers: BTreeSet<Server>,
    users: BTreeSet<(UserName, Option<Server>)>,
    name_prefix: String,
}

impl Filter {
    /// Reads a filter; `None` for one that passes everything. Rejects: TOO_MANY, NAME_INVALID.
    pub fn parse(filter: Option<&v1::DirectoryFilter>) -> Result<Option<Self>, Rejection> {
        let Some(filter) = filter else {
            return Ok(None);
        };
        at_most(FILTER_SERVERS_MAX, filter.servers.len(), "servers")?;
        at_most(FILTER_USERS_MAX, filter.users.len(), "users")?;
        if !filter.name_prefix.is_empty() {
            UserName::parse(&filter.name_prefix)?;
        }
        let user = |text: &String| match text.split_once('@') {
            Some((name, server)) => Ok((UserName::parse(name)?, Some(Server::parse(server)?))),
            None => Ok((UserName::parse(text)?, None)),
        };
        let filter = Self {
            servers: filter.servers.iter().map(|text| Server::parse(text)).collect::<Result<_, _>>()?,
            users: filter.users.iter().map(user).collect::<Result<_, Rejection>>()?,
            name_prefix: filter.name_prefix.clone(),
        };
        Ok((filter != Self::default()).then_some(filter))
    }

    /// Tells whether an entry passes.
    pub fn passes(&self, entry: &Entry) -> bool {
        let names_user = |(name, server): &(UserName, Option<Server>)| {
            *name == entry.address.user && server.as_ref().is_none_or(|server| server.passes(entry))
        };
        entry.address.user.as_str().starts_with(&self.name_prefix)
            && (self.servers.is_empty() || self.servers.iter().any(|server| server.passes(entry)))
            && (self.users.is_empty() || self.users.iter().any(names_user))
    }
}

/// A short hash of what a watch asked for, by which a resume token is bound to it.
pub fn fingerprint(filter: Option<&Filter>, detail: Detail) -> [u8; 8] {
    // Sets print in order, and names and ids hold nothing that could be taken for punctuation.
    let text = format!("{filter:?} {detail:?}");
    let hash = sha256(&[b"socp.v1.WatchFingerprint\0", text.as_bytes()]);
    let mut short = [0; 8];
    short.copy_from_slice(&hash[..8]);
    short
}

fn at_most(limit: usize, count: usize, what: &str) -> Result<(), Rejection> {
    if count <= limit {
        return Ok(());
    }
    Err(Rejection::new(Reason::TooMany, format!("a filter names at most {limit} {what}"))
        .with("limit", limit.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::testing::{entry, home};

    fn filter(servers: &[&str], users: &[&str], prefix: &str) -> Result<Option<Filter>, Rejection> {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Filter::parse(Some(&v1::DirectoryFilter {
            servers: own(servers),
            users: own(users),
            name_prefix: prefix.to_owned(),
        }))
    }

    fn passing(servers: &[&str], users: &[&str], prefix: &str) -> Vec<String> {
        let filter = filter(servers, users, prefix).unwrap().unwrap();
        let all = [entry("alice", 1), entry("bob", 1), entry("alice", 2), entry("alina", 2)];
        all.iter().filter(|entry| filter.passes(entry)).map(Entry::label).collect()
    }

    #[test]
    fn an_empty_filter_is_none() {
        assert_eq!(Filter::parse(None), Ok(None));
        assert_eq!(filter(&[], &[], ""), Ok(None));
    }

    #[test]
    fn kinds_are_joined_by_and_and_values_by_or() {
        let id = home(2).to_string();
        assert_eq!(passing(&["server-1"], &[], ""), ["alice@server-1", "bob@server-1"]);
        assert_eq!(passing(&[&id], &[], ""), ["alice@server-2", "alina@server-2"]);
        assert_eq!(passing(&["server-1", &id], &["alice"], ""), ["alice@server-1", "alice@server-2"]);
        assert_eq!(passing(&[], &["alice@server-2", "bob"], ""), ["bob@server-1", "alice@server-2"]);
        assert_eq!(passing(&[], &[], "ali"), ["alice@server-1", "alice@server-2", "alina@server-2"]);
        assert_eq!(passing(&[&id], &["alice"], "b"), Vec::<String>::new());
    }

    #[test]
    fn a_filter_at_its_limits_is_taken_and_one_past_them_is_too_many() {
        let reason = |servers: usize, users: usize| {
            filter(&vec!["server-1"; servers], &vec!["bob"; users], "").err().map(|rejection| rejection.reason)
        };
        assert_eq!(reason(FILTER_SERVERS_MAX, FILTER_USERS_MAX), None);
        assert_eq!(reason(FILTER_SERVERS_MAX + 1, 0), Some(Reason::TooMany));
        assert_eq!(reason(0, FILTER_USERS_MAX + 1), Some(Reason::TooMany));
    }

    #[test]
    fn a_filter_that_names_what_cannot_be_is_rejected() {
        for (servers, users, prefix) in
            [(&["A"][..], &[][..], ""), (&[], &["b o"], ""), (&[], &["bob@"], ""), (&[], &[], "é"), (&["x#"], &[], "")]
        {
            assert_eq!(
                filter(servers, users, prefix).unwrap_err().reason,
                Reason::NameInvalid,
                "{servers:?} {users:?}"
            );
        }
        assert!(filter(&["server-1#0a1b2c3d"], &[], "").is_ok());
        assert_eq!(Detail::parse(9).unwrap_err().reason, Reason::UnknownType);
    }

    #[test]
    fn the_same_filter_in_another_order_has_the_same_fingerprint() {
        let print = |users: &[&str], detail| fingerprint(filter(&[], users, "").unwrap().as_ref(), detail);
        let ab = print(&["a", "b"], Detail::Statement);
        assert_eq!(ab, print(&["b", "a", "b"], Detail::Statement));
        assert_ne!(ab, print(&["a", "b"], Detail::Fingerprint));
        assert_ne!(ab, print(&["a"], Detail::Statement));
        assert_ne!(ab, print(&[], Detail::Statement));
    }
}
