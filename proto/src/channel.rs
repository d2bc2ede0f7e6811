//! The public channel at a home: the log of its posts, each with those of the home's users whom it is for, as it is on disk.
//!
//! A post is for those who are online when it comes, so each stands in the log with their names: its audience. As long as nobody
//! comes or goes, posts share one. Channel keys are kept apart from the posts, wrapped as they came, for as long as a post under
//! them is in the log.

use alloc::{
    boxed::Box,
    collections::BTreeSet,
    string::{String, ToString as _},
    sync::Arc,
    vec::Vec,
};

use prost::bytes::Bytes;

use crate::{
    id::ContentHash,
    inbox::Cursor,
    message::{Address, Post},
    name::UserName,
    v1::{AttachResponse, ReceivedPost, SealedPost, attach_response::Event},
};

/// Users of one home, whom a post is for.
///
/// In text form, which is the one in memory, too: their names, sorted, each with a line's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audience(Arc<str>);

impl Audience {
    /// These users.
    pub fn of(users: &BTreeSet<UserName>) -> Self {
        let mut text = String::with_capacity(users.iter().map(|user| user.as_str().len() + 1).sum());
        for user in users {
            text.push_str(user.as_str());
            text.push('\n');
        }
        Self(text.into())
    }

    /// Reads the text form; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let names = text.strip_suffix('\n')?.split('\n');
        let is_sorted = names.clone().is_sorted_by(|name, next| name < next);
        (is_sorted && names.map(UserName::parse).all(|name| name.is_ok())).then(|| Self(text.into()))
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Their names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split_terminator('\n')
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.names().count()
    }

    /// Whether a user is among them: a binary search by lines.
    pub fn contains(&self, user: &UserName) -> bool {
        let mut rest = &*self.0;
        while !rest.is_empty() {
            let middle = rest.len() / 2;
            // Names are ASCII, so every byte is a character.
            let begin = rest[..middle].rfind('\n').map_or(0, |end| end + 1);
            let end = begin + rest[begin..].find('\n').unwrap_or(rest.len() - begin);
            match rest[begin..end].cmp(user.as_str()) {
                core::cmp::Ordering::Equal => return true,
                core::cmp::Ordering::Less => rest = rest.get(end + 1..).unwrap_or_default(),
                core::cmp::Ordering::Greater => rest = &rest[..begin],
            }
        }
        false
    }
}

/// Which channel key: whose, and which of theirs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyName {
    /// The sender of the posts under it.
    pub sender: Address,
    /// As their headers name it.
    pub id: [u8; 16],
}

impl KeyName {
    /// The key that a post was made under.
    pub fn of(post: &Post) -> Self {
        Self { sender: post.authorship.sender.clone(), id: post.key_id }
    }
}

/// What goes into the log.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The position before which all are taken.
    pub position: u64,
    /// When this server took it, Unix milliseconds.
    pub received_unix_ms: u64,
    /// The post.
    pub post: Box<Post>,
    /// Whom it is for.
    pub audience: Audience,
    /// The position of the first post of those before it, without a gap, that have the same audience; its own if there is none.
    pub audience_since: u64,
    /// Its channel key wrapped to users of the audience who lack it.
    pub wraps: Vec<(UserName, Bytes)>,
    /// Until when its id is remembered, Unix milliseconds.
    pub id_until_unix_ms: u64,
}

impl Entry {
    /// As it is read from the disk for a user.
    pub fn stored(&self, wrapped_channel_key: Bytes) -> Stored {
        let received_unix_ms = i64::try_from(self.received_unix_ms).unwrap_or(i64::MAX);
        let received = ReceivedPost { post: Some(self.post.sealed.clone()), wrapped_channel_key, received_unix_ms };
        Stored { position: self.position, received }
    }
}

/// How much room a post takes: the bytes of its parts.
pub fn bytes(sealed: &SealedPost) -> u32 {
    u32::try_from(sealed.statement.len() + sealed.signature.len()).unwrap_or(u32::MAX)
}

/// A post in the log, as it is read for a user.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Its position.
    pub position: u64,
    /// What the user is told.
    pub received: ReceivedPost,
}

impl Stored {
    /// Its place.
    pub fn cursor(&self) -> Cursor {
        let statement = self.received.post.as_ref().map_or(&[][..], |post| &post.statement);
        Cursor::of(self.position, &ContentHash::of(statement))
    }

    /// As a client is given it, with its cursor.
    pub fn response(self) -> AttachResponse {
        let cursor = self.cursor().to_string();
        AttachResponse { event: Some(Event::Post(self.received)), cursor }
    }
}

/// What is known of a post in the log, without the post itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Hash of the signed bytes.
    pub hash: ContentHash,
    /// How much room it takes.
    pub bytes: u32,
    /// When this server took it, Unix milliseconds.
    pub received_unix_ms: u64,
    /// Whom it is for.
    pub audience: Audience,
    /// As in [`Entry`].
    pub audience_since: u64,
    /// The key that it was made under.
    pub key: KeyName,
}

/// The log as it is on disk, without the posts themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The last post that was dropped.
    pub dropped: Cursor,
    /// Those after it, in order.
    pub kept: Vec<Kept>,
    /// Of how many users the disk has a key, by key.
    pub wrapped: Vec<(KeyName, u64)>,
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    fn audience(names: &[&str]) -> Audience {
        Audience::of(&names.iter().map(|name| UserName::parse(name).unwrap()).collect())
    }

    #[test]
    fn an_audience_has_those_it_was_made_of_and_nobody_else() {
        let all = ["a", "aa", "ab", "alice", "alice.2", "b", "bob", "z"];
        for count in 0..=all.len() {
            let some = audience(&all[..count]);
            assert_eq!((some.count(), some.names().collect::<Vec<_>>()), (count, all[..count].to_vec()));
            for (place, name) in all.iter().enumerate() {
                assert_eq!(some.contains(&UserName::parse(name).unwrap()), place < count, "{name} of {count}");
            }
            for stranger in ["0", "al", "alice.", "bo", "bobb", "zz"] {
                assert!(!some.contains(&UserName::parse(stranger).unwrap()), "{stranger} of {count}");
            }
        }
        let many: Vec<_> = (0..1_000).map(|number| format!("user-{number}")).collect();
        let many = audience(&many.iter().map(String::as_str).collect::<Vec<_>>());
        assert!((0..1_000).all(|number| many.contains(&UserName::parse(&format!("user-{number}")).unwrap())));
        assert!(!many.contains(&UserName::parse("user-1000").unwrap()));
    }

    #[test]
    fn an_audience_is_read_as_it_was_written_and_in_no_other_way() {
        let both = audience(&["bob", "alice"]);
        assert_eq!(both.as_str(), "alice\nbob\n");
        assert_eq!(Audience::parse(both.as_str()), Some(both));
        for wrong in ["", "\n", "alice", "bob\nalice\n", "alice\nalice\n", "alice\n\n", "Alice\n", "alice\r\n"] {
            assert_eq!(Audience::parse(wrong), None, "{wrong:?}");
        }
    }
}
