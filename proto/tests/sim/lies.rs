//! Origins that lie about their own users: one number, and another content for each neighbour.
//!
//! The node of such a server says what is so. On the way out some neighbours are given something else, signed with the same
//! key and with the digest that fits it, so that nobody can find out from one content alone. A stubborn one never hears what was
//! found out, and goes on as if nothing were; another one hears it, and goes on in a higher epoch.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use socp::{
    batch::{Advert, Batch, Content},
    directory::{Change, Entry},
    federation::v1::{AdvertiseFrame, RemoveFrame, advertise_frame, remove_frame},
    input::Frame,
    message::Address,
    name::UserName,
    origin::Origin,
};

use crate::{
    byzantine::{batch_of, is_signed_by},
    server::Server,
    tally::Kind,
    world::World,
};

/// Servers that lied in a run.
#[derive(Default)]
pub struct Liars {
    until_ms: BTreeMap<usize, u64>,
    stubborn: BTreeSet<usize>,
}

impl Liars {
    /// All that ever began to lie.
    pub fn all(&self) -> impl Iterator<Item = usize> {
        self.until_ms.keys().copied()
    }

    /// Whether what a server says of its own users cannot be relied on at the end of a run.
    pub fn is_stubborn(&self, server: usize) -> bool {
        self.stubborn.contains(&server)
    }
}

impl World {
    /// Whether a user is of a server that lied, and never heard that this was found out.
    pub fn is_of_liar(&self, user: &Address) -> bool {
        self.find(user.home).is_some_and(|home| self.liars.is_stubborn(home))
    }

    /// A server begins to lie, for a while.
    pub fn begin_to_lie(&mut self) {
        let server = self.rng.usize(0..self.servers.len());
        let until_ms = self.now_ms + self.rng.u64(500..5_000);
        self.liars.until_ms.insert(server, until_ms);
        if self.rng.bool() {
            self.liars.stubborn.insert(server);
        }
    }

    /// Whether a stubborn liar does not hear this, since it is about what it signed in its present epoch. What it signed in a
    /// higher one it hears: of two epochs the higher counts for everybody, so nobody takes the lists of a server that stays in
    /// the lower one, and it and all behind it cannot be reached, as if it passed nothing on. That is no lie, and no promise
    /// holds beyond such a server.
    pub fn is_unheard(&self, server: usize, frame: &Frame) -> bool {
        if !self.liars.is_stubborn(server) {
            return false;
        }
        let Server { id, identity, node, .. } = &self.servers[server];
        let Some(own) = node.as_ref().and_then(|node| node.origin(id)) else { return false };
        let signed = match frame {
            Frame::Remove(RemoveFrame { kind: Some(remove_frame::Kind::Contradiction(proof)) }) => proof.one.as_ref(),
            _ => batch_of(frame),
        };
        let batch = signed.filter(|signed| is_signed_by(signed, identity)).map(|signed| Batch::open(identity, signed));
        batch.is_some_and(|batch| batch.is_ok_and(|batch| batch.epoch <= own.epoch()))
    }

    /// What a server sends over one link in place of the truth, if it lies now and draws to.
    pub fn in_place_of(&mut self, server: usize, frame: &Frame) -> Option<Frame> {
        let lies = self.faults_on && self.liars.until_ms.get(&server).is_some_and(|until_ms| *until_ms > self.now_ms);
        let signed = batch_of(frame).filter(|_| lies)?;
        let Self { servers, rng, said, tally, .. } = self;
        let server = &servers[server];
        let truth = Batch::open(&server.identity, signed).ok()?;
        let own = server.node.as_ref()?.origin(&server.id)?;
        let version = rng.u32(0..3);
        if truth.origin != server.id || version == 0 {
            return None;
        }
        let left = server.watch.changes.iter().rev().find_map(|change| match change {
            Change::Removed(entry, _) | Change::Moved(entry, _) if truth.users().contains(&&entry.address.user) => {
                Some(&**entry)
            }
            _ => None,
        });
        let lie = other_content(own, &truth, version, left)?;
        for advert in lie.adverts() {
            let address = Address { home: server.id, user: advert.user.clone() };
            said.say(address, truth.epoch.number, advert);
        }
        let lie = match &lie {
            Lie::Content(content, digest) => {
                Batch::sign(&server.identity, truth.epoch, truth.number, *digest, truth.time_unix_ms, content.clone())
            }
            Lie::Time => {
                let later_ms = truth.time_unix_ms + 1;
                Batch::sign(&server.identity, truth.epoch, truth.number, truth.digest, later_ms, truth.content)
            }
        };
        tally.count(Kind::OriginLied);
        Some(match lie.content {
            Content::Adverts(_) => {
                Frame::Advertise(AdvertiseFrame { kind: Some(advertise_frame::Kind::Batch(lie.signed)) })
            }
            _ => Frame::Remove(RemoveFrame { kind: Some(remove_frame::Kind::Batch(lie.signed)) }),
        })
    }
}

/// How a batch differs from the true one of its number.
enum Lie {
    /// It says something else, with the digest that the origin's entries then have.
    Content(Content, socp::digest::Digest),
    /// It says the same, of another time.
    Time,
}

impl Lie {
    fn adverts(&self) -> &[Arc<Advert>] {
        match self {
            Self::Content(Content::Adverts(adverts), _) => adverts,
            _ => &[],
        }
    }
}

/// Something else to say than the truth, which is the last word of this origin. `left` is who left by it, as shown before.
fn other_content(own: &Origin, truth: &Batch, version: u32, left: Option<&Entry>) -> Option<Lie> {
    if own.epoch() != truth.epoch || own.position() != truth.number {
        return None;
    }
    let mut hash = own.hash().clone();
    let (origin, epoch) = (truth.origin, truth.epoch.number);
    let content = match (&truth.content, left) {
        // Somebody has another status, or is not there.
        (Content::Adverts(adverts), _) => {
            let first = &adverts[0];
            adverts.iter().filter(|_| version == 2).for_each(|advert| hash.remove(&advert.digest_entry(origin, epoch)));
            if version == 2 {
                let users: BTreeSet<UserName> = adverts.iter().map(|advert| advert.user.clone()).collect();
                Content::Removals(users.into_iter().collect())
            } else {
                let lie = Advert { status: "a lie".into(), ..(**first).clone() };
                hash.remove(&first.digest_entry(origin, epoch));
                hash.insert(&lie.digest_entry(origin, epoch));
                Content::Adverts([Arc::new(lie)].into_iter().chain(adverts[1..].iter().cloned()).collect())
            }
        }
        // Somebody who left is there still.
        (Content::Removals(_) | Content::Moved(_), Some(left)) if version == 1 => {
            let advert = Advert {
                user: left.address.user.clone(),
                display_name: Arc::clone(&left.display_name),
                status: "still here".into(),
                statement: left.statement.hash(),
                online_since: left.online_since,
                sessions: left.sessions,
            };
            hash.insert(&advert.digest_entry(origin, epoch));
            Content::Adverts(vec![Arc::new(advert)])
        }
        // Somebody who moved has just left.
        (Content::Moved(moved), _) => Content::Removals(vec![moved.from.user.clone()]),
        (Content::Removals(_), _) => return Some(Lie::Time),
    };
    Some(Lie::Content(content, hash.digest()))
}
