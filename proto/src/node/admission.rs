//! Which admissions are kept, and who is admitted by them.
//!
//! A server is admitted if its operator pinned it, or if a chain of admissions that count leads to it from this server or
//! from a pin; never if it is blocked. Only admissions by those who are admitted are taken, so strangers fill nothing. What
//! is over or taken back is kept while there is room: a clock that went wrong, or an issuer that was out for a while, lets
//! nobody back in by an older word.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use super::{Pin, names::Names, sizes::Sizes};
use crate::{
    admission::{Admission, Kept},
    id::ServerId,
    limits::{
        ADMISSIONS_KEPT_MAX, ADMISSIONS_KEPT_PER_ISSUER_MAX, ADMISSIONS_PER_ISSUER_MAX, ADMISSIONS_TAKEN_MAX,
        ADMITTED_MAX,
    },
    mutation::{Mutation, is_on},
    output::Refusal,
};

/// How a server got in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Pinned,
    /// By the word of another one, which is the last of the shortest chain.
    Admitted {
        by: ServerId,
        until_unix_ms: u64,
    },
}

/// Who is admitted at a time.
#[derive(Clone, Debug, Default)]
pub(super) struct Admitted {
    pub(super) ways: BTreeMap<ServerId, Way>,
    /// Those whose admissions count, this server included; each after the one that admits it.
    pub(super) issuers: Vec<ServerId>,
    /// When this changes by itself.
    pub(super) turns_unix_ms: Option<u64>,
}

/// All that is known of who may take part.
#[derive(Debug)]
pub(super) struct Admissions {
    own: ServerId,
    pub(super) pins: Vec<Pin>,
    /// By issuer and subject.
    kept: BTreeMap<ServerId, BTreeMap<ServerId, Kept>>,
    count: usize,
    pub(super) blocked: BTreeSet<ServerId>,
    pub(super) names: Names,
    pub(super) admitted: Admitted,
    /// How many admissions of each issuer were taken lately.
    taken: BTreeMap<ServerId, usize>,
    /// When it was last looked at who is admitted, by the clock of then.
    pub(super) reviewed_unix_ms: Option<u64>,
}

impl Admissions {
    pub(super) fn new(own: ServerId, pins: Vec<Pin>, kept: Vec<Kept>, blocked: Vec<ServerId>, names: Names) -> Self {
        let mut admissions = Self {
            own,
            pins,
            kept: BTreeMap::new(),
            count: 0,
            blocked: blocked.into_iter().collect(),
            names,
            admitted: Admitted::default(),
            taken: BTreeMap::new(),
            reviewed_unix_ms: None,
        };
        kept.into_iter().for_each(|kept| admissions.insert(kept));
        admissions
    }

    pub(super) fn sizes(&self, sizes: &mut Sizes) {
        sizes.note("admissions", self.count);
        self.kept.values().for_each(|kept| sizes.note("admissions of an issuer", kept.len()));
        self.taken.values().for_each(|taken| sizes.note("admissions taken of an issuer", *taken));
        sizes.note("admitted servers", self.admitted.ways.len());
        sizes.note("blocked servers", self.blocked.len());
        sizes.note("names of servers", self.names.len());
    }

    /// The pins that are not blocked.
    pub(super) fn pinned(&self) -> impl Iterator<Item = &Pin> {
        self.pins.iter().filter(|pin| !self.blocks(&pin.id))
    }

    fn blocks(&self, server: &ServerId) -> bool {
        self.blocked.contains(server) && !is_on(Mutation::BlockedStays)
    }

    pub(super) fn pin(&self, server: &ServerId) -> Option<&Pin> {
        self.pins.iter().find(|pin| pin.id == *server)
    }

    /// What an issuer said of a server last.
    pub(super) fn said(&self, issuer: &ServerId, subject: &ServerId) -> Option<&Kept> {
        self.kept.get(issuer)?.get(subject)
    }

    /// All that an issuer said that is not over: what takes a word back first, so that there is room for the rest.
    pub(super) fn by(&self, issuer: &ServerId, now_unix_ms: u64) -> Vec<&Admission> {
        let kept = self.kept.get(issuer).into_iter().flat_map(BTreeMap::values).map(|kept| &kept.admission);
        let mut all: Vec<_> = kept.filter(|admission| admission.until_unix_ms > now_unix_ms).collect();
        all.sort_by_key(|admission| !admission.is_revoked);
        all
    }

    /// Whether an issuer's admissions are taken.
    pub(super) fn is_issuer(&self, server: &ServerId) -> bool {
        *server == self.own || self.admitted.ways.contains_key(server)
    }

    /// Whether somebody whose word counts calls a server so.
    pub(super) fn is_called(&self, server: &ServerId, name: &str, now_unix_ms: u64) -> bool {
        let said = self.admitted.issuers.iter().filter_map(|issuer| self.said(issuer, server));
        said.map(|kept| &kept.admission).any(|said| said.counts(now_unix_ms) && said.name.as_str() == name)
    }

    /// Whether an admission says something new.
    pub(super) fn is_news(&self, admission: &Admission) -> bool {
        let said = self.said(&admission.issuer, &admission.subject);
        said.is_none_or(|said| admission.replaces(&said.admission))
    }

    fn insert(&mut self, kept: Kept) {
        let (issuer, subject) = (kept.admission.issuer, kept.admission.subject);
        if self.kept.entry(issuer).or_default().insert(subject, kept).is_none() {
            self.count += 1;
        }
    }

    fn remove(&mut self, issuer: ServerId, subject: ServerId) {
        if let Some(of_issuer) = self.kept.get_mut(&issuer) {
            self.count -= usize::from(of_issuer.remove(&subject).is_some());
        }
    }

    /// Keeps an admission that says something new; tells which older ones had to make room.
    pub(super) fn keep(&mut self, kept: Kept, now_unix_ms: u64) -> Result<Vec<(ServerId, ServerId)>, Refusal> {
        let Admission { issuer, subject, .. } = kept.admission;
        let full = Err(Refusal::TooMany("admissions"));
        if issuer != self.own && self.taken.get(&issuer).is_some_and(|taken| *taken >= ADMISSIONS_TAKEN_MAX) {
            return full;
        }
        let is_over = |admission: &Admission| admission.until_unix_ms <= now_unix_ms;
        let is_open = |admission: &Admission| !admission.is_revoked && !is_over(admission);
        let none = BTreeMap::new();
        let of_issuer = self.kept.get(&issuer).unwrap_or(&none);
        let others = of_issuer.values().filter(|other| other.admission.subject != subject);
        let open = others.filter(|other| is_open(&other.admission)).count();
        if is_open(&kept.admission) && open >= ADMISSIONS_PER_ISSUER_MAX {
            return full;
        }
        let mut dropped = Vec::new();
        if !of_issuer.contains_key(&subject) {
            if of_issuer.len() >= ADMISSIONS_KEPT_PER_ISSUER_MAX && !is_on(Mutation::AdmissionsWithoutLimit) {
                let oldest = of_issuer.values().map(|kept| &kept.admission).filter(|other| is_over(other));
                let Some(oldest) = oldest.min_by_key(|other| other.until_unix_ms) else { return full };
                dropped.push((issuer, oldest.subject));
            } else if self.count >= ADMISSIONS_KEPT_MAX {
                // What is over first, then the word of those whose word does not count at present.
                let all = self.kept.values().flat_map(BTreeMap::values).map(|kept| &kept.admission);
                let idle = all.filter(|other| is_over(other) || !self.is_issuer(&other.issuer));
                let Some(oldest) = idle.min_by_key(|other| (!is_over(other), other.until_unix_ms)) else { return full };
                dropped.push((oldest.issuer, oldest.subject));
            }
        }
        dropped.iter().for_each(|(issuer, subject)| self.remove(*issuer, *subject));
        *self.taken.entry(issuer).or_default() += 1;
        self.insert(kept);
        Ok(dropped)
    }

    /// Lets each issuer say one thing more.
    pub(super) fn sweep(&mut self) {
        self.taken.retain(|_, taken| {
            *taken -= 1;
            *taken > 0
        });
    }

    /// Finds who is admitted. Shorter chains come first, so whoever is far away crowds out nobody who is near; among equals
    /// each issuer has its turn.
    pub(super) fn find(&self, now_unix_ms: u64) -> Admitted {
        let mut ways: BTreeMap<ServerId, Way> = self.pinned().map(|pin| (pin.id, Way::Pinned)).collect();
        let mut issuers: Vec<ServerId> = [self.own].into_iter().chain(ways.keys().copied()).collect();
        let mut turns: Option<u64> = None;
        let mut begin = 0;
        while begin < issuers.len() {
            let mut candidates: Vec<(usize, &Admission)> = Vec::new();
            for issuer in &issuers[begin..] {
                let said = self.kept.get(issuer).into_iter().flat_map(BTreeMap::values).map(|kept| &kept.admission);
                turns = turns.into_iter().chain(said.clone().filter_map(|said| said.turns(now_unix_ms))).min();
                let counts = said
                    .filter(|said| said.counts(now_unix_ms) && said.subject != self.own && !self.blocks(&said.subject));
                candidates.extend(counts.take(ADMISSIONS_PER_ISSUER_MAX).enumerate());
            }
            candidates.sort_by_key(|(place, said)| (*place, said.issuer));
            begin = issuers.len();
            for (_, said) in candidates {
                if !ways.contains_key(&said.subject) && ways.len() < ADMITTED_MAX {
                    let way = Way::Admitted { by: said.issuer, until_unix_ms: said.until_unix_ms };
                    ways.insert(said.subject, way);
                    issuers.push(said.subject);
                }
            }
        }
        Admitted { ways, issuers, turns_unix_ms: turns }
    }
}
