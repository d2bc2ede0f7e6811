//! Pages of the list: the same entries that watches show, sorted by bare name, then server name, then server id.
//!
//! A page is read under the hub's lock in one go, so it is of one moment; to keep that short it looks at a bounded
//! number of entries, and a page may hold fewer users than asked for, even none, while the list goes on.

use std::{collections::BTreeMap, sync::Arc};

use socp::{
    id::{ServerId, hex},
    limits::PAGE_USERS_MAX,
    name::{ServerName, UserName},
    rejection::Rejection,
    v1::Reason,
};

use super::{filter::Filter, wire::Shown};

/// Entries looked at for one page: about a millisecond.
const SCAN_MAX: usize = 10_000;

/// All entries, by name and home.
pub type Entries = BTreeMap<(UserName, ServerId), Arc<Shown>>;

/// The place of one user in the list, and of the page after it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    user: UserName,
    server: ServerName,
    id: ServerId,
}

impl Place {
    fn of(shown: &Shown) -> Self {
        let address = &shown.entry.address;
        Self { user: address.user.clone(), server: shown.entry.server_name.clone(), id: address.home }
    }

    /// The page token: hexadecimal text of the three parts.
    pub fn token(&self) -> String {
        hex(format!("{}/{}/{}", self.user, self.server, self.id).as_bytes())
    }

    /// Reads a page token; `None` for an empty one. Rejects: STATEMENT_INVALID.
    pub fn parse(token: &str) -> Result<Option<Self>, Rejection> {
        if token.is_empty() {
            return Ok(None);
        }
        let invalid = || {
            Rejection::new(Reason::StatementInvalid, "the page token is not from an answer of this server")
                .with("field", "page_token")
        };
        let text = unhex(token).ok_or_else(invalid)?;
        let mut parts = text.splitn(3, '/');
        let mut part = || parts.next().ok_or_else(invalid);
        let user = UserName::parse(part()?).map_err(|_| invalid())?;
        let server = ServerName::parse_shown(part()?).map_err(|_| invalid())?;
        let id = ServerId::parse(part()?).ok_or_else(invalid)?;
        Ok(Some(Self { user, server, id }))
    }
}

fn unhex(text: &str) -> Option<String> {
    let digits: Vec<u8> =
        text.bytes().map(|digit| char::from(digit).to_digit(16).map(|value| value as u8)).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| high << 4 | low).collect();
    rest.is_empty().then(|| String::from_utf8(bytes).ok()).flatten()
}

/// How many users a page may hold: 0 stands for the most there may be. Rejects: TOO_MANY.
pub fn page_size(asked: u32) -> Result<usize, Rejection> {
    match asked as usize {
        0 => Ok(PAGE_USERS_MAX),
        size @ 1..=PAGE_USERS_MAX => Ok(size),
        _ => Err(Rejection::new(Reason::TooMany, format!("a page holds at most {PAGE_USERS_MAX} users"))
            .with("limit", PAGE_USERS_MAX.to_string())),
    }
}

/// One page: those after `after` that pass, and where the next page begins, if there is one.
pub fn page(
    entries: &Entries,
    filter: Option<&Filter>,
    after: Option<&Place>,
    size: usize,
) -> (Vec<Arc<Shown>>, Option<Place>) {
    let lowest = ServerId::from_bytes(&[0; 32]).expect("an id has 32 bytes");
    let from = after.map(|place| (place.user.clone(), lowest));
    let mut rest = match from {
        Some(from) => entries.range(from..),
        None => entries.range::<(UserName, ServerId), _>(..),
    }
    .map(|(_, shown)| shown)
    .peekable();
    let mut users = Vec::new();
    let mut last = after.cloned();
    let mut seen = 0;
    while let Some(first) = rest.next() {
        // Those of one name, one at most per server, are sorted by the server's name, which the map does not know.
        let mut namesakes = vec![(Place::of(first), first)];
        while let Some(next) = rest.next_if(|next| next.entry.address.user == first.entry.address.user) {
            namesakes.push((Place::of(next), next));
        }
        namesakes.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        for (place, shown) in namesakes {
            if after.is_some_and(|after| place <= *after) {
                continue;
            }
            if users.len() == size || seen == SCAN_MAX {
                return (users, last);
            }
            seen += 1;
            if filter.is_none_or(|filter| filter.passes(&shown.entry)) {
                users.push(Arc::clone(shown));
            }
            last = Some(place);
        }
    }
    (users, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::testing::shown;

    fn entries(users: &[(&str, u8)]) -> Entries {
        let keyed = |(name, home): &(&str, u8)| {
            let shown = shown(name, *home);
            ((shown.entry.address.user.clone(), shown.entry.address.home), shown)
        };
        users.iter().map(keyed).collect()
    }

    fn labels(page: &[Arc<Shown>]) -> Vec<String> {
        page.iter().map(|shown| shown.entry.label()).collect()
    }

    #[test]
    fn pages_together_are_the_whole_list_sorted_by_name_and_then_server() {
        let all = entries(&[("bob", 3), ("alice", 2), ("bob", 1), ("bob", 2), ("alice", 1), ("carol", 1)]);
        let sorted =
            ["alice@server-1", "alice@server-2", "bob@server-1", "bob@server-2", "bob@server-3", "carol@server-1"];
        for size in 1..=7 {
            let (mut together, mut after, mut pages) = (Vec::new(), None, 0);
            loop {
                let (users, next) = page(&all, None, after.as_ref(), size);
                together.extend(labels(&users));
                pages += 1;
                let Some(next) = next else { break };
                after = Place::parse(&next.token()).unwrap();
            }
            assert_eq!(together, sorted);
            assert_eq!(pages, sorted.len().div_ceil(size));
        }
    }

    #[test]
    fn a_page_that_would_look_too_long_ends_early_and_the_list_goes_on() {
        let names: Vec<_> = (0..SCAN_MAX + 1).map(|number| format!("u{number:05}")).collect();
        let users: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
        let all = entries(&users);
        let last = names.last().unwrap();
        let filter = socp::v1::DirectoryFilter { users: vec![last.clone()], ..Default::default() };
        let filter = Filter::parse(Some(&filter)).unwrap();
        let (none, next) = page(&all, filter.as_ref(), None, 10);
        assert!(none.is_empty());
        let (found, end) = page(&all, filter.as_ref(), next.as_ref(), 10);
        assert_eq!((labels(&found), end), (vec![format!("{last}@server-1")], None));
    }

    #[test]
    fn a_malformed_page_token_or_size_is_rejected() {
        assert_eq!(Place::parse(""), Ok(None));
        for malformed in ["x", "0", "00", "ff", &hex(b"a/b"), &hex(b"a/b/c")] {
            assert_eq!(Place::parse(malformed).unwrap_err().reason, Reason::StatementInvalid, "{malformed}");
        }
        assert_eq!(page_size(0), Ok(PAGE_USERS_MAX));
        assert_eq!(page_size(1_000), Ok(1_000));
        assert_eq!(page_size(1_001).unwrap_err().reason, Reason::TooMany);
    }
}
