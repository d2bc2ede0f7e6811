//! A peer that misuses its right to vouch: for servers that it made up, under names of its choice, and never twice the same.

use socp::{
    admission::Admission,
    batch::{Advert, Batch, Content, Epoch},
    digest::SetHash,
    federation::v1::{Admissions, AdvertiseFrame, NeighboursStatement, Statements, advertise_frame, remove_frame},
    id::{ServerId, StartId},
    identity::Identity as _,
    input::Frame,
    limits::{ADMISSIONS_PER_ISSUER_MAX, DAY_MS},
    message::Address,
    name::{ServerName, UserName},
    signed::{Label, signing_input},
    statement::{KeyStatement, statement_hash},
    user_key::UserKey,
    v1::SignedKeyStatement,
};

use crate::{
    byzantine::{remove, sign},
    keys::{SimIdentity, seal, user_spki},
    tally::Kind,
    world::World,
};

/// The first seed of servers that were made up; none of a run's own has one so high.
const MADE_UP: u64 = u64::MAX / 2;

/// A server that a peer made up, with its last word on it.
struct MadeUp {
    by: usize,
    identity: SimIdentity,
    word: Admission,
}

/// All that were made up in a run.
#[derive(Default)]
pub struct Introduced {
    made_up: Vec<MadeUp>,
}

impl World {
    /// A peer says something of servers that it made up.
    pub fn introduce(&mut self) {
        let running: Vec<usize> = (0..self.servers.len()).filter(|at| self.servers[*at].node.is_some()).collect();
        let Some(by) = self.rng.choice(running) else { return };
        match self.rng.u32(0..8) {
            0..3 => {
                let word = self.make_up(by);
                self.vouch(by, &[word]);
            }
            3..5 => self.take_back(),
            5 => {
                let words: Vec<Admission> = (0..=ADMISSIONS_PER_ISSUER_MAX).map(|_| self.make_up(by)).collect();
                self.vouch(by, &words);
            }
            _ => self.speak_for_one_made_up(),
        }
    }

    /// One that was made up by a peer that runs.
    fn any_made_up(&mut self) -> Option<usize> {
        let made_up = &self.introduced.made_up;
        let of: Vec<usize> =
            (0..made_up.len()).filter(|index| self.servers[made_up[*index].by].node.is_some()).collect();
        self.rng.choice(of)
    }

    /// Of a name that nobody has, or of another server's.
    fn make_up(&mut self, by: usize) -> Admission {
        let number = self.introduced.made_up.len() as u64;
        let identity = SimIdentity::new(MADE_UP + number);
        let subject = ServerId::of_key(&identity.public_key());
        let name = match self.rng.u32(0..4) {
            0 => self.servers[self.rng.usize(0..self.servers.len())].name.clone(),
            _ => ServerName::parse(&format!("made-up-{number}")).expect("a good name"),
        };
        let until = self.true_unix_ms() + self.rng.u64(1_000..DAY_MS);
        let word = Admission::sign(&self.servers[by].identity, subject, name, 1, until, false);
        self.introduced.made_up.push(MadeUp { by, identity, word: word.clone() });
        self.tally.count(Kind::ServerMadeUp);
        word
    }

    fn take_back(&mut self) {
        let Some(index) = self.any_made_up() else { return };
        let by = self.introduced.made_up[index].by;
        let Admission { subject, name, serial, until_unix_ms, is_revoked, .. } =
            self.introduced.made_up[index].word.clone();
        let identity = &self.servers[by].identity;
        let word = Admission::sign(identity, subject, name, serial + 1, until_unix_ms, !is_revoked);
        let before = std::mem::replace(&mut self.introduced.made_up[index].word, word.clone());
        self.tally.count(Kind::AdmissionTakenBack);
        // The word before is said again, to no avail.
        self.vouch(by, &[word, before]);
    }

    fn vouch(&mut self, by: usize, words: &[Admission]) {
        let admissions = words.iter().map(|word| word.signed.clone()).collect();
        self.tell_neighbours_of(by, remove(remove_frame::Kind::Admissions(Admissions { admissions })));
    }

    /// What is made up lists the peer as its neighbour, which lists it too, and has a user online.
    fn speak_for_one_made_up(&mut self) {
        let Some(index) = self.any_made_up() else { return };
        let MadeUp { by, identity, .. } = &self.introduced.made_up[index];
        let (by, identity) = (*by, identity.clone());
        let id = ServerId::of_key(&identity.public_key());
        let Some(mut own) = self.overheard.list_of(&self.servers[by].id) else { return };
        own.number += 1;
        own.neighbour_ids.push(id.as_bytes().to_vec().into());
        let epoch =
            Epoch { number: self.true_unix_ms(), start: StartId::from_bytes(&[8; 16]).expect("16 bytes are a start") };
        let list = NeighboursStatement {
            origin_key: identity.public_key().to_vec().into(),
            epoch: epoch.number,
            start_id: epoch.start.as_bytes().to_vec().into(),
            number: 1,
            position: 1,
            neighbour_ids: vec![self.servers[by].id.as_bytes().to_vec().into()],
        };
        let user = UserName::parse("nobody").expect("a good name");
        let spki = user_spki(b"nobody");
        let key = UserKey::parse(&spki).expect("a key of the right form");
        let statement = KeyStatement::encode(&user, id, &key, 1, None);
        let signature = seal(&spki, &signing_input(Label::KeyStatement, &statement));
        let statement =
            SignedKeyStatement { statement: statement.into(), signature, previous_signature: Default::default() };
        let advert = Advert {
            user: user.clone(),
            display_name: "".into(),
            status: "".into(),
            statement: statement_hash(&statement),
            online_since: 1,
            sessions: 1,
        };
        let mut hash = SetHash::default();
        hash.insert(&advert.digest_entry(id, epoch.number));
        self.said.say(Address { home: id, user }, epoch.number, &advert);
        let batch = Batch::sign(&identity, epoch, 1, hash.digest(), 0, Content::Adverts(vec![advert.into()]));
        self.tally.count(Kind::MadeUpSpoke);
        let advertise = |kind| Frame::Advertise(AdvertiseFrame { kind: Some(kind) });
        let own = remove(remove_frame::Kind::Neighbours(sign(&self.servers[by].identity, &own)));
        let statements = Statements { statements: vec![statement] };
        for frame in [
            remove(remove_frame::Kind::Neighbours(sign(&identity, &list))),
            own,
            advertise(advertise_frame::Kind::Statements(statements)),
            advertise(advertise_frame::Kind::Batch(batch.signed)),
        ] {
            self.tell_neighbours_of(by, frame);
        }
    }
}
