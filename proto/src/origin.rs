//! One origin as a server knows it: the rule by which directories converge.
//!
//! Adverts and removals travel on streams of their own, so batches arrive out of order. Therefore an origin has a
//! base, to which batches are applied strictly in order, and later batches held beside it; what is shown is the base
//! overlaid with the held batches in order. The position is the base's: whoever is ahead sends what is missing.
//!
//! A snapshot is made of the origin's own signed batches, with the adverts that are current marked. It is staged, and
//! replaces the base only if its entries have the digest that the origin signed at the snapshot's position, so that
//! whoever serves it can neither hide an entry nor add one. What the base keeps for that is in [`crate::base`].
//!
//! Nothing here knows whether the origin can be reached or what is shown at the moment; that is the node's business.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    vec::Vec,
};

use crate::{
    base::Base,
    batch::{Advert, Batch, Content, Epoch},
    digest::{Digest, SetHash},
    id::{ServerId, StatementHash},
    limits::{
        HELD_BATCHES_MAX, KEY_STATEMENT_BYTES_MAX, LOG_BATCHES_MAX, SNAPSHOT_PARTS_MAX, STAGED_ADVERTS_MAX,
        USERS_PER_ORIGIN_MAX,
    },
    mutation::{Mutation, is_on},
    name::UserName,
    output::Refusal,
    statement::KeyStatement,
};

/// What a batch did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// It is in the base, or held: the users it names may look different now.
    Taken,
    /// It was known.
    Duplicate,
    /// It is in the base, and a held batch after it contradicts the base and is dropped: the users that either names
    /// may look different now.
    Contradicted(Arc<Batch>),
}

/// A snapshot that is being received.
#[derive(Debug)]
struct Staged {
    position: u64,
    base: Base,
    /// Adverts in its parts, current or not.
    listed: usize,
    parts: usize,
    /// Number of the part's batch that came last.
    last: u64,
    /// How much this can be at most as it travels, statements included.
    bytes: usize,
}

/// What is sent to a server that is behind.
#[derive(Debug, PartialEq)]
pub enum CatchUp {
    /// It has everything.
    Nothing,
    /// The batches it lacks, in order.
    Batches(Vec<Arc<Batch>>),
    /// All that is current, as of the batch `last`.
    Snapshot {
        /// Batches with the indexes of their adverts that are current, in the order of their numbers.
        parts: Vec<(Arc<Batch>, Vec<u32>)>,
        /// The batch at the position.
        last: Arc<Batch>,
    },
}

/// One epoch of one origin.
#[derive(Debug)]
pub struct Origin {
    id: ServerId,
    epoch: Epoch,
    position: u64,
    base: Base,
    /// Recent batches up to the position, without gap.
    log: VecDeque<Arc<Batch>>,
    held: BTreeMap<u64, Arc<Batch>>,
    /// What the held batches say of each user, by their numbers: `None` for not online. Makes a view cheap however many are held.
    overlay: BTreeMap<UserName, BTreeMap<u64, Option<Arc<Advert>>>>,
    staged: Option<Staged>,
    statements: BTreeMap<StatementHash, Arc<KeyStatement>>,
}

impl Origin {
    /// An epoch of which nothing is known yet.
    pub fn new(id: ServerId, epoch: Epoch) -> Self {
        Self {
            id,
            epoch,
            position: 0,
            base: Base::new(id, epoch.number),
            log: VecDeque::new(),
            held: BTreeMap::new(),
            overlay: BTreeMap::new(),
            staged: None,
            statements: BTreeMap::new(),
        }
    }

    /// The next epoch of the same origin. Its users are mostly the same, so their statements are kept.
    pub fn next(&mut self, epoch: Epoch) -> Self {
        Self { statements: core::mem::take(&mut self.statements), ..Self::new(self.id, epoch) }
    }

    /// The epoch this is about.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Every batch up to this number is applied.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The batch at the position, or one that is held.
    pub fn last_heard(&self) -> Option<&Arc<Batch>> {
        self.log.back().or_else(|| self.held.values().next())
    }

    /// The digest of the base as the origin signed it; `None` at position 0.
    pub fn digest(&self) -> Option<Digest> {
        self.log.back().map(|last| last.digest)
    }

    /// The batch that is here in the place of this one and says something else.
    pub fn contradicted_by(&self, batch: &Batch) -> Option<&Arc<Batch>> {
        let first = self.log.front().map_or(0, |first| first.number);
        let place = batch.number.checked_sub(first).and_then(|place| usize::try_from(place).ok());
        let logged = place.and_then(|place| self.log.get(place));
        logged.or_else(|| self.held.get(&batch.number)).filter(|here| here.contradicts(batch))
    }

    /// The set hash of the base.
    pub fn hash(&self) -> &SetHash {
        self.base.hash()
    }

    /// Takes a key statement for adverts to name. One more than an origin can have users replaces those not in use.
    pub fn keep_statement(&mut self, statement: Arc<KeyStatement>) {
        if self.statements.len() >= USERS_PER_ORIGIN_MAX {
            self.drop_unused_statements();
        }
        if self.statements.len() < USERS_PER_ORIGIN_MAX {
            self.statements.insert(statement.hash(), statement);
        }
    }

    /// The statement with this hash.
    pub fn statement(&self, hash: StatementHash) -> Option<&Arc<KeyStatement>> {
        self.statements.get(&hash)
    }

    /// What is shown of a user: the latest held word, else the base's.
    pub fn view(&self, user: &UserName) -> Option<&Arc<Advert>> {
        match self.overlay.get(user).and_then(BTreeMap::last_key_value) {
            Some((_, word)) if !is_on(Mutation::HeldNotShown) => word.as_ref(),
            _ => self.base.advert(user),
        }
    }

    /// The batch behind what is shown of a user, and whether it is held beyond the base; `None` if no word is known.
    pub fn word(&self, user: &UserName) -> Option<(u64, bool)> {
        match self.overlay.get(user).and_then(BTreeMap::last_key_value) {
            Some((number, _)) => Some((*number, true)),
            None => self.base.number(user).map(|number| (number, false)),
        }
    }

    /// All users that are in the base or named by a held batch.
    pub fn users(&self) -> BTreeSet<UserName> {
        self.base.users().chain(self.overlay.keys()).cloned().collect()
    }

    /// How large everything is that is kept of this origin, by name, for checkers.
    pub fn sizes(&self) -> [(&'static str, usize); 4] {
        [
            ("users of an origin", self.online()),
            ("held batches", self.held.len()),
            ("logged batches", self.log.len()),
            ("key statements of an origin", self.statements.len()),
        ]
    }

    /// How many users are in the base.
    pub fn online(&self) -> usize {
        self.base.online()
    }

    /// Takes one batch of this epoch, in any order.
    ///
    /// Refuses, and changes nothing: a batch whose statements are not here, one too far ahead to be held, one past
    /// the limit of users. A digest that does not fit is refused too, with the base as it was before the batch.
    pub fn receive(&mut self, batch: Arc<Batch>) -> Result<Received, Refusal> {
        debug_assert!(batch.origin == self.id && batch.epoch == self.epoch);
        let is_applied = batch.number <= self.position && !is_on(Mutation::PositionNotChecked);
        if is_applied || self.held.contains_key(&batch.number) {
            return Ok(Received::Duplicate);
        }
        batch.adverts().iter().try_for_each(|advert| self.check_statement(advert))?;
        if batch.number > self.position + 1 {
            if self.held.len() >= HELD_BATCHES_MAX && !is_on(Mutation::HeldWithoutLimit) {
                return Err(Refusal::TooMany("held batches"));
            }
            self.hold(batch);
            return Ok(Received::Taken);
        }
        self.apply(batch)?;
        Ok(self.apply_held().map_or(Received::Taken, Received::Contradicted))
    }

    /// Makes the next batch of this server's own epoch: `sign` gets its number and the digest after it.
    ///
    /// # Panics
    ///
    /// Past the limit of users, which the node checks before a user comes online.
    pub fn originate(&mut self, content: Content, sign: impl FnOnce(u64, Digest, Content) -> Batch) -> Arc<Batch> {
        let hash = self.base.hash_after(&content).expect("the node keeps its own users within the limit");
        let batch = Arc::new(sign(self.position + 1, hash.digest(), content));
        self.advance(Arc::clone(&batch), hash);
        batch
    }

    /// The base.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// Begins to stage a snapshot; one that was under way is given up.
    pub fn begin_snapshot(&mut self, position: u64) {
        let base = Base::new(self.id, self.epoch.number);
        self.staged = Some(Staged { position, base, listed: 0, parts: 0, last: 0, bytes: 0 });
    }

    /// Whether a snapshot as of this number is being received.
    pub fn is_staging(&self, number: u64) -> bool {
        self.staged.as_ref().is_some_and(|staged| staged.position == number)
    }

    /// How much was staged: at least as much as its sender counted.
    pub fn staged_bytes(&self) -> usize {
        self.staged.as_ref().map_or(0, |staged| staged.bytes)
    }

    /// Adds one batch to the staged snapshot, with the indexes of its current adverts. A part that is refused gives
    /// the snapshot up, and what comes of it after that changes nothing.
    pub fn stage(&mut self, batch: &Arc<Batch>, current: &[u32]) -> Result<(), Refusal> {
        let Some(mut staged) = self.staged.take() else { return Ok(()) };
        staged.parts += 1;
        if staged.parts > SNAPSHOT_PARTS_MAX {
            return Err(Refusal::TooMany("snapshot parts"));
        }
        if batch.number > staged.position {
            return Err(Refusal::Malformed("snapshot_part.number"));
        }
        let is_rising = current.is_sorted_by(|one, next| one < next);
        if !is_rising || current.last().is_some_and(|last| *last as usize >= batch.adverts().len()) {
            return Err(Refusal::Malformed("snapshot_part.current"));
        }
        // In the order of their numbers, so that one that comes again counts once.
        if batch.number <= staged.last {
            self.staged = Some(staged);
            return Ok(());
        }
        staged.last = batch.number;
        staged.bytes += batch.signed.statement.len() + current.len() * KEY_STATEMENT_BYTES_MAX;
        staged.listed += batch.adverts().len();
        if staged.listed > STAGED_ADVERTS_MAX {
            return Err(Refusal::TooMany("snapshot adverts"));
        }
        for advert in current.iter().map(|index| &batch.adverts()[*index as usize]) {
            self.check_statement(advert)?;
            staged.base.insert(advert, batch);
        }
        self.staged = Some(staged);
        Ok(())
    }

    /// Ends the staged snapshot. The base is replaced if the entries have the digest that `last` signs and the
    /// snapshot is ahead of it; then every user may look different. Tells whether it was.
    pub fn end_snapshot(&mut self, last: Arc<Batch>) -> Result<bool, Refusal> {
        let Some(staged) = self.staged.take() else { return Ok(false) };
        if last.number != staged.position {
            return Err(Refusal::Malformed("snapshot_end.last"));
        }
        if staged.base.online() > USERS_PER_ORIGIN_MAX {
            return Err(Refusal::TooMany("users"));
        }
        if staged.base.is_mostly_stale() {
            return Err(Refusal::TooMany("stale entries"));
        }
        if staged.base.hash().digest() != last.digest && !is_on(Mutation::SnapshotDigestNotChecked) {
            return Err(Refusal::DigestMismatch);
        }
        if staged.position <= self.position && !is_on(Mutation::SnapshotGoesBack) {
            return Ok(false);
        }
        self.position = staged.position;
        self.base = staged.base;
        self.log = VecDeque::from([last]);
        let covered: Vec<u64> = self.held.range(..=self.position).map(|(number, _)| *number).collect();
        covered.into_iter().for_each(|number| drop(self.release(number)));
        // Every user may look different anyway, those of a batch that is dropped as well.
        self.apply_held();
        Ok(true)
    }

    /// Whether a server whose position in this epoch is `number` needs a snapshot rather than batches.
    pub fn needs_snapshot(&self, number: u64) -> bool {
        let missing = usize::try_from(self.position.saturating_sub(number)).unwrap_or(usize::MAX);
        // A snapshot sends every current entry; the log is shorter unless much came and went.
        missing > self.log.len() || missing > self.base.online() + 16
    }

    /// What a server needs whose position in this epoch is `number`.
    pub fn catch_up(&self, number: u64) -> CatchUp {
        if number >= self.position {
            return CatchUp::Nothing;
        }
        if !self.needs_snapshot(number) {
            return CatchUp::Batches(self.log.iter().filter(|batch| batch.number > number).cloned().collect());
        }
        let last = self.log.back().expect("a position above 0 has its batch in the log");
        CatchUp::Snapshot { parts: self.base.parts(), last: Arc::clone(last) }
    }

    /// Counts the base anew and compares, and looks for gaps and repetitions in the log, for checkers.
    pub fn is_consistent(&self) -> bool {
        let numbers = self.log.iter().rev().map(|batch| batch.number);
        let is_in_order = numbers.zip((0..=self.position).rev()).all(|(one, other)| one == other);
        self.base.is_consistent() && is_in_order
    }

    /// Applies the next batch in order to the base.
    fn apply(&mut self, batch: Arc<Batch>) -> Result<(), Refusal> {
        let hash = self.base.hash_after(&batch.content)?;
        if hash.digest() != batch.digest && !is_on(Mutation::BatchDigestNotChecked) {
            return Err(Refusal::DigestMismatch);
        }
        self.advance(batch, hash);
        Ok(())
    }

    fn advance(&mut self, batch: Arc<Batch>, hash: SetHash) {
        self.base.apply(&batch, hash);
        self.position = batch.number;
        self.log.push_back(batch);
        if self.log.len() > LOG_BATCHES_MAX {
            self.log.pop_front();
        }
    }

    fn hold(&mut self, batch: Arc<Batch>) {
        for user in batch.users() {
            let word = batch.word_on(user).flatten().map(Arc::clone);
            self.overlay.entry(user.clone()).or_default().insert(batch.number, word);
        }
        self.held.insert(batch.number, batch);
    }

    fn release(&mut self, number: u64) -> Option<Arc<Batch>> {
        let batch = self.held.remove(&number)?;
        for user in batch.users() {
            if let Some(words) = self.overlay.get_mut(user) {
                words.remove(&number);
                if words.is_empty() {
                    self.overlay.remove(user);
                }
            }
        }
        Some(batch)
    }

    /// Applies the held batches that are next. Gives back one by which the origin contradicts itself: it is lost, and
    /// the position stays to say so.
    fn apply_held(&mut self) -> Option<Arc<Batch>> {
        if is_on(Mutation::HeldNotApplied) {
            return None;
        }
        while let Some(batch) = self.release(self.position + 1) {
            if self.apply(Arc::clone(&batch)).is_err() {
                return Some(batch);
            }
        }
        None
    }

    fn check_statement(&self, advert: &Advert) -> Result<(), Refusal> {
        let statement = self.statements.get(&advert.statement).ok_or(Refusal::MissingStatement)?;
        let is_theirs = statement.user == advert.user && statement.home == self.id;
        if is_theirs || is_on(Mutation::StatementOfAnotherTaken) { Ok(()) } else { Err(Refusal::ForeignOrigin) }
    }

    fn drop_unused_statements(&mut self) {
        let held = self.held.values().flat_map(|batch| batch.adverts()).map(|advert| advert.statement);
        let staged = self.staged.iter().flat_map(|staged| staged.base.statements());
        let used: BTreeSet<StatementHash> = self.base.statements().chain(held).chain(staged).collect();
        self.statements.retain(|hash, _| used.contains(hash));
    }
}
