//! Channel keys: this device's own, with whom it was shared, and those that other devices shared with this one.
//!
//! A post carries the key wrapped for members who lack it. A member lacks it until a wrap was handed over, and again
//! after any change of the member's entry, since a new session of theirs cannot have it. A home that handed a post to
//! fewer than its members does not say whom it missed, so there no wrap counts. Going offline is not leaving: the key
//! stays the same, and is renewed only for the next post after a member who had it left for another home, or has another key
//! of their own: what was in the hands of the old home, or of the old key, opens no later post.

use std::collections::{BTreeMap, VecDeque};

use socp::{
    id::{KeyFingerprint, StatementHash},
    message::Address,
};

use crate::{content, failure::Failure, private_key::SymmetricKey};

/// Channel keys remembered of one sender: one for each session that a user can have, and as many renewed or used once.
const KEYS_PER_SENDER_MAX: usize = 2 * socp::limits::SESSIONS_PER_USER_MAX;

/// Senders whose channel keys are remembered at once.
const SENDERS_MAX: usize = 20_000;

/// This device's channel key.
pub struct OwnKey {
    id: [u8; 16],
    key: SymmetricKey,
    counter: u64,
    /// Counts changes of entries, so that a wrap under way does not count for a session that came meanwhile.
    clock: u64,
    members: BTreeMap<Address, Member>,
    /// Whether somebody who had it left since the last post.
    was_left: bool,
}

#[derive(Default)]
struct Member {
    /// The statement whose key the channel key was last wrapped to.
    wrapped_to: Option<StatementHash>,
    holds: bool,
    changed: u64,
}

/// The key for one post.
#[derive(Clone)]
pub struct PostKey {
    /// Which channel key.
    pub id: [u8; 16],
    /// The channel key.
    pub key: SymmetricKey,
    /// Posts under it before.
    pub counter: u64,
    /// When it was taken, in changes of entries.
    clock: u64,
}

impl OwnKey {
    /// A fresh key that nobody has.
    pub fn new() -> Result<Self, Failure> {
        let (id, key) = (content::random()?, content::random_key()?);
        Ok(Self { id, key, counter: 0, clock: 0, members: BTreeMap::new(), was_left: false })
    }

    /// Notes that a member's entry was added, updated or removed: they lack the key from here on.
    pub fn member_changed(&mut self, member: &Address) {
        self.clock += 1;
        if let Some(known) = self.members.get_mut(member) {
            known.holds = false;
            known.changed = self.clock;
        }
    }

    /// Notes that a member left for good: whoever had the key before must not read what comes next.
    pub fn member_left(&mut self, member: &Address) {
        self.member_changed(member);
        self.was_left |= self.members.get(member).is_some_and(|known| known.wrapped_to.is_some());
    }

    /// Takes the key for a post to these members, and tells which of them lack it. Renews it if one has another key than before, or
    /// left.
    pub fn take<'a>(
        &mut self,
        members: impl Iterator<Item = (&'a Address, StatementHash)> + Clone,
    ) -> Result<(PostKey, Vec<&'a Address>), Failure> {
        let rekeyed = |(member, hash): (&Address, StatementHash)| {
            self.members.get(member).and_then(|known| known.wrapped_to).is_some_and(|before| before != hash)
        };
        if self.was_left || members.clone().any(rekeyed) {
            *self = Self { clock: self.clock, ..Self::new()? };
        }
        let lacks = |member: &Address| !self.members.get(member).is_some_and(|known| known.holds);
        let lacking: Vec<_> = members.map(|(member, _)| member).filter(|member| lacks(member)).collect();
        for member in &lacking {
            self.members.entry((*member).clone()).or_default();
        }
        let key = PostKey { id: self.id, key: self.key.clone(), counter: self.counter, clock: self.clock };
        self.counter += 1;
        Ok((key, lacking))
    }

    /// Notes that the wrap of a post was handed to a member, unless the key or the member's entry changed since.
    pub fn handed_over(&mut self, post: &PostKey, member: &Address, statement: StatementHash) {
        if post.id != self.id {
            return;
        }
        let known = self.members.entry(member.clone()).or_default();
        known.wrapped_to = Some(statement);
        known.holds = known.changed <= post.clock;
    }
}

/// Channel keys of others.
#[derive(Default)]
pub struct OthersKeys {
    keys: BTreeMap<Address, VecDeque<(KeyFingerprint, [u8; 16], SymmetricKey)>>,
}

impl OthersKeys {
    /// The key with this id of a sender's device.
    pub fn find(&self, sender: &Address, signer: KeyFingerprint, id: [u8; 16]) -> Option<&SymmetricKey> {
        let keys = self.keys.get(sender)?;
        keys.iter().find(|(by, known, _)| *by == signer && *known == id).map(|(_, _, key)| key)
    }

    /// Keeps a key under which a verified post of the sender was opened.
    pub fn keep(&mut self, sender: &Address, signer: KeyFingerprint, id: [u8; 16], key: SymmetricKey) {
        if self.keys.len() >= SENDERS_MAX
            && !self.keys.contains_key(sender)
            && let Some(victim) = self.keys.keys().next().cloned()
        {
            self.keys.remove(&victim);
        }
        let keys = self.keys.entry(sender.clone()).or_default();
        keys.retain(|(_, known, _)| *known != id);
        keys.push_back((signer, id, key));
        if keys.len() > KEYS_PER_SENDER_MAX {
            keys.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use socp::{id::ServerId, message::Post, name::UserName};

    use super::*;
    use crate::{
        post::{self, Draft},
        private_key::test_keys::ALICE,
    };

    fn address(name: &str) -> Address {
        Address { home: ServerId::of_key(&[1; 32]), user: UserName::parse(name).unwrap() }
    }

    fn hash(seed: u8) -> StatementHash {
        StatementHash::from_bytes(&[seed; 32]).unwrap()
    }

    #[test]
    fn a_member_gets_one_wrap_until_their_entry_changes() {
        let (bob, carol) = (address("bob"), address("carol"));
        let members = [(&bob, hash(1)), (&carol, hash(2))];
        let mut own = OwnKey::new().unwrap();
        let (first, lacking) = own.take(members.iter().copied()).unwrap();
        assert_eq!(lacking, [&bob, &carol]);
        own.handed_over(&first, &bob, hash(1));
        let (second, lacking) = own.take(members.iter().copied()).unwrap();
        assert_eq!((lacking, second.counter, second.id), (vec![&carol], 1, first.id));
        own.handed_over(&second, &carol, hash(2));
        assert!(own.take(members.iter().copied()).unwrap().1.is_empty());
        own.member_changed(&bob);
        assert_eq!(own.take(members.iter().copied()).unwrap().1, [&bob]);
    }

    #[test]
    fn a_wrap_does_not_count_for_a_session_that_came_while_it_was_under_way() {
        let bob = address("bob");
        let mut own = OwnKey::new().unwrap();
        for _ in ["the first wrap", "a later one"] {
            let (post, _) = own.take([(&bob, hash(1))].into_iter()).unwrap();
            own.member_changed(&bob);
            own.handed_over(&post, &bob, hash(1));
            assert_eq!(own.take([(&bob, hash(1))].into_iter()).unwrap().1, [&bob]);
            own.handed_over(&post, &bob, hash(1));
        }
    }

    #[test]
    fn the_key_is_renewed_when_a_member_has_another_key() {
        let bob = address("bob");
        let mut own = OwnKey::new().unwrap();
        let (first, _) = own.take([(&bob, hash(1))].into_iter()).unwrap();
        own.handed_over(&first, &bob, hash(1));
        let (second, lacking) = own.take([(&bob, hash(2))].into_iter()).unwrap();
        assert_ne!(first.id, second.id);
        assert_ne!(*first.key, *second.key);
        assert_eq!((lacking, second.counter), (vec![&bob], 0));
    }

    #[test]
    fn a_member_who_left_cannot_read_later_posts() {
        let (bob, carol) = (address("bob"), address("carol"));
        let both = [(&bob, hash(1)), (&carol, hash(2))];
        let mut own = OwnKey::new().unwrap();
        let seal_post = |post: &PostKey| {
            let draft = Draft {
                message_id: "01890a5d-ac96-774b-bcce-b302099a8057",
                sender: &carol,
                key_id: post.id,
                channel_key: &post.key,
                counter: post.counter,
                time_unix_ms: 1,
                text: "to all",
            };
            Post::parse(&post::seal(&ALICE, &draft).unwrap()).unwrap()
        };
        let (early, _) = own.take(both.iter().copied()).unwrap();
        own.handed_over(&early, &bob, hash(1));
        let bobs = early.key.clone();
        assert!(post::decrypt(&bobs, &seal_post(&early)).is_some());
        // Going offline is not leaving.
        own.member_changed(&bob);
        let (meanwhile, _) = own.take([(&carol, hash(2))].into_iter()).unwrap();
        assert_eq!(meanwhile.id, early.id);
        own.member_left(&bob);
        let (late, lacking) = own.take([(&carol, hash(2))].into_iter()).unwrap();
        assert_eq!((lacking, late.counter), (vec![&carol], 0), "whoever stays gets the new one");
        assert!(post::decrypt(&bobs, &seal_post(&late)).is_none());
        assert!(post::decrypt(&late.key, &seal_post(&late)).is_some());
        // Once, and not for one who never had it.
        own.member_left(&address("dave"));
        assert_eq!(own.take([(&carol, hash(2))].into_iter()).unwrap().0.id, late.id);
    }

    #[test]
    fn others_keys_are_found_by_sender_signer_and_id_and_are_bounded() {
        let (bob, carol) = (address("bob"), address("carol"));
        let signer = KeyFingerprint::of_spki(b"bob");
        let mut others = OthersKeys::default();
        let last = u8::try_from(KEYS_PER_SENDER_MAX).unwrap();
        for id in 0..=last {
            others.keep(&bob, signer, [id; 16], [id; 32].into());
        }
        assert_eq!(others.find(&bob, signer, [0; 16]), None, "one more than the limit pushed the first out");
        assert_eq!(others.find(&bob, signer, [1; 16]).map(|key| **key), Some([1; 32]));
        assert_eq!(others.find(&bob, signer, [last; 16]).map(|key| **key), Some([last; 32]));
        assert_eq!(others.find(&carol, signer, [last; 16]), None);
        assert_eq!(others.find(&bob, KeyFingerprint::of_spki(b"x"), [last; 16]), None);
    }
}
