//! Batches: the numbered, signed steps in which an origin tells the world who is online at it.
//!
//! A batch holds only adverts or only removals, because the two kinds travel on streams of their own. Number, epoch
//! and the digest of the origin's entries after it are inside the signature, so whoever passes it on can neither
//! alter it nor hide what came before.

use alloc::{string::ToString, sync::Arc, vec::Vec};

use prost::{Message as _, bytes::Bytes};

use crate::{
    digest::{Digest, DigestEntry},
    federation::v1::{self as wire, BatchStatement, GoodbyeStatement, SignedBatch, SignedGoodbye},
    id::{ServerId, StartId, StatementHash},
    identity::{Identity, signature, verified_key},
    limits::{BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, DISPLAY_NAME_BYTES_MAX, GOODBYE_HOLD_MS_MAX, STATUS_BYTES_MAX},
    moves::Move,
    name::UserName,
    output::Refusal,
    signed::Label,
    statement::own,
};

/// One start of one origin: what an epoch number is only together with its random start id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch {
    /// Higher replaces lower.
    pub number: u64,
    /// Tells two starts apart that bear one number.
    pub start: StartId,
}

/// A user of the origin is online with this content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advert {
    /// The bare name.
    pub user: UserName,
    /// Display name, may be empty.
    pub display_name: Arc<str>,
    /// Status text, may be empty.
    pub status: Arc<str>,
    /// The key statement in force.
    pub statement: StatementHash,
    /// Batch with which this time online began.
    pub online_since: u64,
    /// Attached sessions, at least 1.
    pub sessions: u32,
}

impl Advert {
    /// What a digest covers of it, in this epoch of its origin.
    pub fn digest_entry(&self, origin: ServerId, epoch: u64) -> DigestEntry<'_> {
        DigestEntry {
            origin,
            epoch,
            user: &self.user,
            display_name: &self.display_name,
            status: &self.status,
            key_statement: self.statement,
            online_since: self.online_since,
            sessions: self.sessions,
        }
    }

    fn to_wire(&self) -> wire::Advert {
        wire::Advert {
            user: self.user.to_string(),
            display_name: self.display_name.to_string(),
            status: self.status.to_string(),
            key_statement_sha256: Bytes::copy_from_slice(self.statement.as_bytes()),
            online_since: self.online_since,
            sessions: self.sessions,
        }
    }

    fn parse(advert: &wire::Advert, number: u64) -> Result<Self, Refusal> {
        let fits = advert.display_name.len() <= DISPLAY_NAME_BYTES_MAX && advert.status.len() <= STATUS_BYTES_MAX;
        if !fits || advert.sessions == 0 || !(1..=number).contains(&advert.online_since) {
            return Err(Refusal::Malformed("advert"));
        }
        Ok(Self {
            user: UserName::parse(&advert.user).map_err(|_| Refusal::Malformed("advert.user"))?,
            display_name: advert.display_name.as_str().into(),
            status: advert.status.as_str().into(),
            statement: StatementHash::from_bytes(&advert.key_statement_sha256)
                .ok_or(Refusal::Malformed("advert.key_statement_sha256"))?,
            online_since: advert.online_since,
            sessions: advert.sessions,
        })
    }
}

/// What a batch says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// These are online; each replaces an earlier advert of the same user.
    Adverts(Vec<Arc<Advert>>),
    /// These are not online any more.
    Removals(Vec<UserName>),
    /// This one is not online any more, and moved to another home. Its form was looked at, its signature not.
    Moved(Arc<Move>),
}

/// A batch whose signature was found good, with the bytes it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Who signed it.
    pub origin: ServerId,
    /// In which epoch.
    pub epoch: Epoch,
    /// Its place: 1, 2, 3 ...
    pub number: u64,
    /// Digest of the origin's entries after it.
    pub digest: Digest,
    /// When the origin made it, Unix milliseconds by its clock.
    pub time_unix_ms: u64,
    /// What it says.
    pub content: Content,
    /// As signed, to be passed on unchanged.
    pub signed: SignedBatch,
}

impl Batch {
    /// Makes and signs the next batch of this server.
    pub fn sign(
        identity: &dyn Identity,
        epoch: Epoch,
        number: u64,
        digest: Digest,
        time_unix_ms: u64,
        content: Content,
    ) -> Self {
        let origin_key = identity.public_key();
        let (adverts, removals) = match &content {
            Content::Adverts(adverts) => (adverts.iter().map(|advert| advert.to_wire()).collect(), Vec::new()),
            Content::Removals(users) => {
                let removal = |user: &UserName| wire::Removal { user: user.to_string(), moved: None };
                (Vec::new(), users.iter().map(removal).collect())
            }
            Content::Moved(moved) => {
                let removal = wire::Removal { user: moved.from.user.to_string(), moved: Some(moved.signed.clone()) };
                (Vec::new(), Vec::from([removal]))
            }
        };
        let statement = BatchStatement {
            origin_key: Bytes::copy_from_slice(&origin_key),
            epoch: epoch.number,
            start_id: Bytes::copy_from_slice(epoch.start.as_bytes()),
            number,
            digest: Bytes::copy_from_slice(digest.as_bytes()),
            time_unix_ms: i64::try_from(time_unix_ms).unwrap_or(i64::MAX),
            adverts,
            removals,
        }
        .encode_to_vec();
        let signature = signature(identity, Label::Batch, &statement);
        let signed = SignedBatch { statement: statement.into(), signature };
        Self { origin: ServerId::of_key(&origin_key), epoch, number, digest, time_unix_ms, content, signed }
    }

    /// Opens a batch from a peer: its signature first, then its content.
    pub fn open(identity: &dyn Identity, signed: &SignedBatch) -> Result<Self, Refusal> {
        if signed.statement.len() > BATCH_BYTES_MAX {
            return Err(Refusal::TooMany("batch bytes"));
        }
        let statement =
            BatchStatement::decode(signed.statement.clone()).map_err(|_| Refusal::Malformed("batch.statement"))?;
        let key = verified_key(identity, Label::Batch, &statement.origin_key, &signed.statement, &signed.signature)?;
        if statement.adverts.len() + statement.removals.len() > BATCH_ENTRIES_MAX {
            return Err(Refusal::TooMany("batch entries"));
        }
        let number = statement.number;
        let content = match (&statement.adverts[..], &statement.removals[..]) {
            (adverts @ [_, ..], []) => {
                let adverts = adverts.iter().map(|advert| Advert::parse(advert, number).map(Arc::new));
                Content::Adverts(adverts.collect::<Result<_, _>>()?)
            }
            ([], [removal @ wire::Removal { moved: Some(signed), .. }]) => {
                let moved = Move::parse(signed).map_err(|_| Refusal::Malformed("removal.moved"))?;
                if moved.from.home != ServerId::of_key(&key) || moved.from.user.as_str() != removal.user {
                    return Err(Refusal::Malformed("removal.moved"));
                }
                Content::Moved(Arc::new(moved))
            }
            ([], removals @ [_, ..]) if removals.iter().all(|removal| removal.moved.is_none()) => {
                let users = removals.iter().map(|removal| UserName::parse(&removal.user));
                Content::Removals(users.collect::<Result<_, _>>().map_err(|_| Refusal::Malformed("removal.user"))?)
            }
            _ => return Err(Refusal::Malformed("batch content")),
        };
        // Nothing could follow the last number, and positions are counted one beyond.
        if number == 0 || number == u64::MAX {
            return Err(Refusal::Malformed("batch.number"));
        }
        Ok(Self {
            origin: ServerId::of_key(&key),
            epoch: epoch(statement.epoch, &statement.start_id)?,
            number,
            digest: Digest::from_bytes(&statement.digest).ok_or(Refusal::Malformed("batch.digest"))?,
            time_unix_ms: u64::try_from(statement.time_unix_ms)
                .map_err(|_| Refusal::Malformed("batch.time_unix_ms"))?,
            content,
            signed: SignedBatch { statement: own(&signed.statement), signature: own(&signed.signature) },
        })
    }

    /// The users that this batch is about.
    pub fn users(&self) -> Vec<&UserName> {
        match &self.content {
            Content::Adverts(adverts) => adverts.iter().map(|advert| &advert.user).collect(),
            Content::Removals(users) => users.iter().collect(),
            Content::Moved(moved) => Vec::from([&moved.from.user]),
        }
    }

    /// The adverts; none in a batch of removals.
    pub fn adverts(&self) -> &[Arc<Advert>] {
        match &self.content {
            Content::Adverts(adverts) => adverts,
            Content::Removals(_) | Content::Moved(_) => &[],
        }
    }

    /// Whether the origin signed both for the same place: then it told different servers different things.
    pub fn contradicts(&self, other: &Self) -> bool {
        let place = |batch: &Self| (batch.origin, batch.epoch, batch.number);
        place(self) == place(other) && self.signed.statement != other.signed.statement
    }

    /// What this batch says of one user: `None` nothing, `Some(None)` not online.
    pub fn word_on(&self, user: &UserName) -> Option<Option<&Arc<Advert>>> {
        match &self.content {
            Content::Adverts(adverts) => adverts.iter().rev().find(|advert| advert.user == *user).map(Some),
            Content::Removals(users) => users.contains(user).then_some(None),
            Content::Moved(moved) => (moved.from.user == *user).then_some(None),
        }
    }
}

/// Makes and signs this server's goodbye, which asks that its users be held for so long.
pub fn sign_goodbye(identity: &dyn Identity, epoch: Epoch, hold_ms: u64) -> SignedGoodbye {
    let statement = GoodbyeStatement {
        origin_key: Bytes::copy_from_slice(&identity.public_key()),
        epoch: epoch.number,
        start_id: Bytes::copy_from_slice(epoch.start.as_bytes()),
        hold_ms: u32::try_from(hold_ms.min(GOODBYE_HOLD_MS_MAX)).unwrap_or_default(),
    }
    .encode_to_vec();
    let signature = signature(identity, Label::Goodbye, &statement);
    SignedGoodbye { statement: statement.into(), signature }
}

/// A goodbye whose signature was found good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// Who says it.
    pub origin: ServerId,
    /// What ends.
    pub epoch: Epoch,
    /// How long its users are to be held, at most the limit.
    pub hold_ms: u64,
}

/// Opens a goodbye from a peer.
pub fn open_goodbye(identity: &dyn Identity, signed: &SignedGoodbye) -> Result<Goodbye, Refusal> {
    let statement = GoodbyeStatement::decode(&signed.statement[..]).map_err(|_| Refusal::Malformed("goodbye"))?;
    let key = verified_key(identity, Label::Goodbye, &statement.origin_key, &signed.statement, &signed.signature)?;
    let hold_ms = u64::from(statement.hold_ms);
    if hold_ms > GOODBYE_HOLD_MS_MAX {
        return Err(Refusal::TooMany("goodbye.hold_ms"));
    }
    Ok(Goodbye { origin: ServerId::of_key(&key), epoch: epoch(statement.epoch, &statement.start_id)?, hold_ms })
}

/// Reads an epoch's two parts.
pub fn epoch(number: u64, start_id: &[u8]) -> Result<Epoch, Refusal> {
    let start = StartId::from_bytes(start_id).ok_or(Refusal::Malformed("start_id"))?;
    Ok(Epoch { number, start })
}
