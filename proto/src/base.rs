//! The base of an origin: who is online as of one position, each with the batch that said so last.
//!
//! Those batches are kept as they were signed, because whoever joins is sent them. Most of what an old batch says is of
//! no use any more, and a batch of a single advert costs whoever joins a signature check; so the origin signs old
//! entries again now and then ([`Base::to_sign_again`]), and one that never does is refused at some point.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    vec::Vec,
};
use core::cmp::Reverse;

use crate::{
    batch::{Advert, Batch, Content},
    digest::{DigestEntry, SetHash},
    id::{ServerId, StatementHash},
    limits::{BATCH_ENTRIES_MAX, STALE_TAKEN_MAX, USERS_PER_ORIGIN_MAX},
    mutation::{Mutation, is_on},
    name::UserName,
    output::Refusal,
};

/// A user of the origin who is online, and the number of the batch that said so last.
#[derive(Clone, Debug)]
struct Current {
    advert: Arc<Advert>,
    number: u64,
}

/// A batch, and how many of its adverts are current.
#[derive(Clone, Debug)]
struct Kept {
    batch: Arc<Batch>,
    current: usize,
}

impl Kept {
    fn stale(&self) -> usize {
        self.batch.adverts().len() - self.current
    }
}

/// Who is online at an origin.
#[derive(Clone, Debug)]
pub struct Base {
    id: ServerId,
    epoch: u64,
    entries: BTreeMap<UserName, Current>,
    hash: SetHash,
    /// The batches of all that is current, by their numbers.
    kept: BTreeMap<u64, Kept>,
    /// Adverts in the kept batches, current or not.
    listed: usize,
}

impl Base {
    /// Nobody is online.
    pub fn new(id: ServerId, epoch: u64) -> Self {
        Self { id, epoch, entries: BTreeMap::new(), hash: SetHash::default(), kept: BTreeMap::new(), listed: 0 }
    }

    /// What was said last of a user who is online.
    pub fn advert(&self, user: &UserName) -> Option<&Arc<Advert>> {
        self.entries.get(user).map(|current| &current.advert)
    }

    /// The number of the batch that said it.
    pub fn number(&self, user: &UserName) -> Option<u64> {
        self.entries.get(user).map(|current| current.number)
    }

    /// Everybody who is online.
    pub fn users(&self) -> impl Iterator<Item = &UserName> {
        self.entries.keys()
    }

    /// The key statements in force.
    pub fn statements(&self) -> impl Iterator<Item = StatementHash> {
        self.entries.values().map(|current| current.advert.statement)
    }

    /// How many are online.
    pub fn online(&self) -> usize {
        self.entries.len()
    }

    /// The set hash of all entries.
    pub fn hash(&self) -> &SetHash {
        &self.hash
    }

    /// The hash after a batch of this content, if that would be within the limits.
    pub fn hash_after(&self, content: &Content) -> Result<SetHash, Refusal> {
        let changed: BTreeMap<&UserName, Option<&Advert>> = match content {
            Content::Adverts(adverts) => adverts.iter().map(|advert| (&advert.user, Some(&**advert))).collect(),
            Content::Removals(users) => users.iter().map(|user| (user, None)).collect(),
            Content::Moved(moved) => BTreeMap::from([(&moved.from.user, None)]),
        };
        let mut hash = self.hash.clone();
        let mut users = self.entries.len();
        for (user, advert) in changed {
            if let Some(old) = self.entries.get(user) {
                hash.remove(&self.digest_entry(&old.advert));
                users -= 1;
            }
            if let Some(new) = advert {
                hash.insert(&self.digest_entry(new));
                users += 1;
            }
        }
        if users > USERS_PER_ORIGIN_MAX {
            return Err(Refusal::TooMany("users"));
        }
        if matches!(content, Content::Adverts(adverts) if self.is_mostly_stale() && self.freed_by(adverts) < adverts.len())
        {
            return Err(Refusal::TooMany("stale entries"));
        }
        Ok(hash)
    }

    /// Applies a batch, after which the entries have this hash.
    pub fn apply(&mut self, batch: &Arc<Batch>, hash: SetHash) {
        match &batch.content {
            Content::Adverts(adverts) => adverts.iter().for_each(|advert| self.put(advert, batch)),
            Content::Removals(users) => {
                let removed = users.iter().filter(|_| !is_on(Mutation::RemovedStayInBase));
                removed.for_each(|user| self.remove(user));
            }
            Content::Moved(moved) => self.remove(&moved.from.user),
        }
        self.hash = hash;
    }

    /// Adds one current advert of a batch, as a snapshot lists them.
    pub fn insert(&mut self, advert: &Arc<Advert>, batch: &Arc<Batch>) {
        if let Some(old) = self.entries.get(&advert.user) {
            self.hash.remove(&self.digest_entry(&old.advert));
        }
        self.hash.insert(&self.digest_entry(advert));
        self.put(advert, batch);
    }

    /// Whether more is kept that is not current than an origin may leave to others: as much as is current, and some.
    pub fn is_mostly_stale(&self) -> bool {
        self.stale() > self.entries.len() + STALE_TAKEN_MAX
    }

    /// The entries that their origin should sign again in one batch, so that what is kept stays small; mostly none.
    ///
    /// They are those of the batches with the most stale adverts when over a third of all is stale, and those of the
    /// batches with the fewest current ones when there are more than `kept_max` and one for 64 users. Either is left
    /// alone up to a batch's worth: so there is less than one such batch in 64 changes of presence.
    pub fn to_sign_again(&self, kept_max: usize) -> Vec<Arc<Advert>> {
        let users = self.entries.len();
        let is_stale = self.stale() > users / 2 + kept_max.min(BATCH_ENTRIES_MAX);
        let is_scattered = self.kept.len() > users / 64 + kept_max;
        if !(is_stale || is_scattered) {
            return Vec::new();
        }
        let mut kept: Vec<&Kept> = self.kept.values().collect();
        kept.sort_by_key(|kept| (is_stale.then(|| Reverse(kept.stale())), kept.current));
        let mut again = Vec::new();
        for kept in kept {
            if again.len() + kept.current <= BATCH_ENTRIES_MAX {
                again.extend(self.current(&kept.batch).map(|(_, advert)| Arc::clone(advert)));
            }
        }
        again
    }

    /// The kept batches in the order of their numbers, with the indexes of their current adverts.
    pub fn parts(&self) -> Vec<(Arc<Batch>, Vec<u32>)> {
        let indexes = |batch| self.current(batch).filter_map(|(index, _)| u32::try_from(index).ok()).collect();
        self.kept.values().map(|kept| (Arc::clone(&kept.batch), indexes(&kept.batch))).collect()
    }

    /// Hashes and counts everything anew and compares, for checkers.
    pub fn is_consistent(&self) -> bool {
        let mut hash = SetHash::default();
        self.entries.values().for_each(|current| hash.insert(&self.digest_entry(&current.advert)));
        let counted = self.kept.values().map(|kept| kept.current).sum::<usize>();
        let listed = self.kept.values().map(|kept| kept.batch.adverts().len()).sum::<usize>();
        let is_kept = self.kept.values().all(|kept| kept.current == self.current(&kept.batch).count());
        hash == self.hash && is_kept && (counted, listed) == (self.entries.len(), self.listed)
    }

    /// How many adverts are kept that are not current.
    pub fn stale(&self) -> usize {
        self.listed - self.entries.len()
    }

    /// How many batches are kept.
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// The current adverts of a batch, with their indexes.
    fn current<'a>(&'a self, batch: &'a Batch) -> impl Iterator<Item = (usize, &'a Arc<Advert>)> {
        let is_current = |advert: &Arc<Advert>| {
            let current = self.entries.get(&advert.user);
            current.is_some_and(|current| current.number == batch.number && Arc::ptr_eq(&current.advert, advert))
        };
        batch.adverts().iter().enumerate().filter(move |(_, advert)| is_current(advert))
    }

    /// How many adverts are kept no longer once these are current.
    fn freed_by(&self, adverts: &[Arc<Advert>]) -> usize {
        let users: BTreeSet<&UserName> = adverts.iter().map(|advert| &advert.user).collect();
        let mut leaving: BTreeMap<u64, usize> = BTreeMap::new();
        for number in users.into_iter().filter_map(|user| self.number(user)) {
            *leaving.entry(number).or_default() += 1;
        }
        let freed =
            leaving.iter().filter_map(|(number, count)| self.kept.get(number).filter(|kept| kept.current == *count));
        freed.map(|kept| kept.batch.adverts().len()).sum()
    }

    fn put(&mut self, advert: &Arc<Advert>, batch: &Arc<Batch>) {
        self.remove(&advert.user);
        let kept = self.kept.entry(batch.number).or_insert_with(|| {
            self.listed += batch.adverts().len();
            Kept { batch: Arc::clone(batch), current: 0 }
        });
        kept.current += 1;
        self.entries.insert(advert.user.clone(), Current { advert: Arc::clone(advert), number: batch.number });
    }

    fn remove(&mut self, user: &UserName) {
        let Some(old) = self.entries.remove(user) else { return };
        let Some(kept) = self.kept.get_mut(&old.number) else { return };
        kept.current -= 1;
        if kept.current == 0 {
            self.listed -= kept.batch.adverts().len();
            self.kept.remove(&old.number);
        }
    }

    fn digest_entry<'a>(&self, advert: &'a Advert) -> DigestEntry<'a> {
        advert.digest_entry(self.id, self.epoch)
    }
}
