//! The public channel's log on disk: posts, whom they are for, and their channel keys wrapped to those.
//!
//! What a node needs to decide stands before the posts themselves in their rows, so that a start does not read those. Positions
//! have no gap; a log that has one is damaged. Posts that follow each other and are for the same users share one audience.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use socp::{
    channel::{self, Audience, Entry, Kept, KeyName, Log, Stored},
    id::ContentHash,
    inbox::Cursor,
    message::Address,
    name::UserName,
    v1::{ReceivedPost, SealedPost},
};

use super::{StorageError, Store, inbox};

/// Tables of this file, as of the seventh form of the database.
pub(super) const TABLES: &str = "
    CREATE TABLE channel (
        only INTEGER PRIMARY KEY CHECK (only = 0),
        dropped INTEGER NOT NULL,
        dropped_mark BLOB NOT NULL CHECK (length(dropped_mark) = 8)
    ) STRICT;
    INSERT INTO channel VALUES (0, 0, zeroblob(8));
    CREATE TABLE audience (
        since INTEGER PRIMARY KEY,
        users TEXT NOT NULL
    ) STRICT;
    CREATE TABLE channel_key (
        number INTEGER PRIMARY KEY,
        home BLOB NOT NULL CHECK (length(home) = 32),
        sender TEXT NOT NULL,
        id BLOB NOT NULL CHECK (length(id) = 16),
        UNIQUE (home, sender, id)
    ) STRICT;
    CREATE TABLE post (
        position INTEGER PRIMARY KEY,
        hash BLOB NOT NULL CHECK (length(hash) = 32),
        bytes INTEGER NOT NULL,
        received_unix_ms INTEGER NOT NULL,
        audience INTEGER NOT NULL REFERENCES audience,
        channel_key INTEGER NOT NULL REFERENCES channel_key,
        statement BLOB NOT NULL,
        signature BLOB NOT NULL
    ) STRICT;
    CREATE TABLE wrapped_key (
        channel_key INTEGER NOT NULL REFERENCES channel_key,
        user TEXT NOT NULL REFERENCES account,
        wrapped BLOB NOT NULL,
        PRIMARY KEY (channel_key, user)
    ) STRICT, WITHOUT ROWID;
    ALTER TABLE remembered ADD COLUMN recipients INTEGER NOT NULL DEFAULT 1;
";

impl Store {
    /// Reads all that a node needs of the log.
    pub(super) fn channel(&self) -> Result<Log, StorageError> {
        let dropped = self.rows("SELECT dropped, dropped_mark FROM channel", |row| {
            Ok(Cursor { position: row.get(0)?, mark: row.get(1)? })
        })?;
        let dropped = *dropped.first().ok_or_else(|| self.damaged("the channel has no beginning".into()))?;
        let keys = self
            .rows("SELECT number, home, sender, id FROM channel_key", |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, [u8; 32]>(1)?, row.get::<_, String>(2)?, row.get(3)?))
            })?
            .into_iter()
            .map(|(number, home, sender, id)| {
                let sender = Address { home: self.server(&home)?, user: self.user(&sender)? };
                Ok((number, KeyName { sender, id }))
            })
            .collect::<Result<BTreeMap<_, _>, StorageError>>()?;
        let key =
            |number: i64| keys.get(&number).cloned().ok_or_else(|| self.damaged("a channel key is missing".into()));
        let audiences = self
            .rows("SELECT since, users FROM audience", |row| Ok((row.get::<_, u64>(0)?, row.get::<_, String>(1)?)))?
            .into_iter()
            .map(|(since, users)| {
                let read = Audience::parse(&users).ok_or_else(|| self.damaged("an audience cannot be read".into()));
                Ok((since, read?))
            })
            .collect::<Result<BTreeMap<_, _>, StorageError>>()?;
        let query = "SELECT position, hash, bytes, received_unix_ms, audience, channel_key FROM post ORDER BY position";
        let posts = self.rows(query, |row| {
            let meta = (row.get::<_, [u8; 32]>(1)?, row.get(2)?, row.get(3)?);
            Ok((row.get::<_, u64>(0)?, meta, row.get::<_, u64>(4)?, row.get::<_, i64>(5)?))
        })?;
        let mut kept = Vec::with_capacity(posts.len());
        for (position, (hash, bytes, received_unix_ms), audience_since, number) in posts {
            if position != dropped.position + kept.len() as u64 + 1 {
                return Err(self.damaged(format!("the channel's log has a gap before position {position}")));
            }
            let audience = audiences.get(&audience_since).cloned();
            let audience = audience.ok_or_else(|| self.damaged("an audience is missing".into()))?;
            let (hash, key) = (self.hash(&hash)?, key(number)?);
            kept.push(Kept { hash, bytes, received_unix_ms, audience, audience_since, key });
        }
        let wrapped = self
            .rows("SELECT channel_key, count(*) FROM wrapped_key GROUP BY channel_key", |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, u64>(1)?))
            })?
            .into_iter()
            .map(|(number, users)| Ok((key(number)?, users)))
            .collect::<Result<_, StorageError>>()?;
        Ok(Log { dropped, kept, wrapped })
    }

    /// Each post is what it was.
    pub(super) fn check_posts(&self) -> Result<(), StorageError> {
        let posts = "SELECT position, hash, bytes, statement, signature FROM post";
        let wrong = || -> rusqlite::Result<Option<u64>> {
            let mut query = self.database.prepare(posts)?;
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                let part = |column| row.get::<_, Vec<u8>>(column).map(Into::into);
                let sealed = SealedPost { statement: part(3)?, signature: part(4)? };
                let is_right = ContentHash::of(&sealed.statement).as_bytes() == &row.get::<_, [u8; 32]>(1)?
                    && channel::bytes(&sealed) == row.get::<_, u32>(2)?;
                if !is_right {
                    return row.get(0).map(Some);
                }
            }
            Ok(None)
        };
        match wrong().map_err(|error| self.failed(error))? {
            Some(position) => Err(self.damaged(format!("the post at position {position} is not what it was"))),
            None => Ok(()),
        }
    }
}

/// Puts a post at the end of the log, with whom it is for and what keys it brings, and remembers its id.
pub(super) fn insert(transaction: &Transaction<'_>, entry: &Entry) -> rusqlite::Result<()> {
    let Entry { position, received_unix_ms, post, audience, audience_since, wraps, id_until_unix_ms } = entry;
    if position == audience_since {
        let mut keep = transaction.prepare_cached("INSERT INTO audience VALUES (?1, ?2)")?;
        keep.execute(params![position, audience.as_str()])?;
    }
    let (sender, sealed) = (&post.authorship.sender, &post.sealed);
    let named = params![sender.home.as_bytes(), sender.user.as_str(), post.key_id];
    let mut name = transaction
        .prepare_cached("INSERT INTO channel_key (home, sender, id) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?;
    name.execute(named)?;
    let mut find =
        transaction.prepare_cached("SELECT number FROM channel_key WHERE home = ?1 AND sender = ?2 AND id = ?3")?;
    let key: i64 = find.query_row(named, |row| row.get(0))?;
    transaction.prepare_cached("INSERT INTO post VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?.execute(params![
        position,
        post.authorship.hash.as_bytes(),
        channel::bytes(sealed),
        received_unix_ms,
        audience_since,
        key,
        &sealed.statement[..],
        &sealed.signature[..],
    ])?;
    let mut wrap = transaction.prepare_cached("INSERT OR REPLACE INTO wrapped_key VALUES (?1, ?2, ?3)")?;
    for (user, wrapped) in wraps {
        wrap.execute(params![key, user.as_str(), &wrapped[..]])?;
    }
    let recipients = u32::try_from(audience.count()).unwrap_or(u32::MAX);
    inbox::remember(transaction, &post.authorship, recipients, *id_until_unix_ms)
}

/// Drops the oldest posts, the audiences that were theirs alone, and these keys.
pub(super) fn drop_up_to(transaction: &Transaction<'_>, up_to: Cursor, keys: &[KeyName]) -> rusqlite::Result<()> {
    transaction.prepare_cached("DELETE FROM post WHERE position <= ?1")?.execute([up_to.position])?;
    let mut unwrap = transaction.prepare_cached(
        "DELETE FROM wrapped_key WHERE channel_key =
             (SELECT number FROM channel_key WHERE home = ?1 AND sender = ?2 AND id = ?3)",
    )?;
    let mut forget =
        transaction.prepare_cached("DELETE FROM channel_key WHERE home = ?1 AND sender = ?2 AND id = ?3")?;
    for KeyName { sender, id } in keys {
        let named = params![sender.home.as_bytes(), sender.user.as_str(), id];
        unwrap.execute(named)?;
        super::one(forget.execute(named)?)?;
    }
    let mut forget = transaction
        .prepare_cached("DELETE FROM audience WHERE since < coalesce((SELECT min(audience) FROM post), since + 1)")?;
    forget.execute([])?;
    let mut note = transaction.prepare_cached("UPDATE channel SET dropped = ?1, dropped_mark = ?2")?;
    super::one(note.execute(params![up_to.position, up_to.mark])?)
}

/// Reads those of some posts that are there, as they are for a user.
pub(super) fn posts(database: &Connection, user: &UserName, positions: &[u64]) -> rusqlite::Result<Vec<Stored>> {
    let mut query = database.prepare_cached(
        "SELECT received_unix_ms, statement, signature, wrapped FROM post
         LEFT JOIN wrapped_key ON wrapped_key.channel_key = post.channel_key AND user = ?2
         WHERE position = ?1",
    )?;
    let mut read = |position: u64| {
        let found = query.query_row(params![position, user.as_str()], |row| {
            let part = |column| row.get::<_, Option<Vec<u8>>>(column).map(|part| part.unwrap_or_default().into());
            let post = Some(SealedPost { statement: part(1)?, signature: part(2)? });
            let received = ReceivedPost { post, wrapped_channel_key: part(3)?, received_unix_ms: row.get(0)? };
            Ok(Stored { position, received })
        });
        found.optional()
    };
    positions.iter().filter_map(|position| read(*position).transpose()).collect()
}

/// Reads a channel key as it was wrapped to a user last.
pub(super) fn key(database: &Connection, user: &UserName, key: &KeyName) -> rusqlite::Result<Option<Vec<u8>>> {
    let mut query = database.prepare_cached(
        "SELECT wrapped FROM channel_key JOIN wrapped_key ON channel_key = number
         WHERE home = ?1 AND sender = ?2 AND id = ?3 AND user = ?4",
    )?;
    let KeyName { sender, id } = key;
    let named = params![sender.home.as_bytes(), sender.user.as_str(), id, user.as_str()];
    query.query_row(named, |row| row.get(0)).optional()
}

#[cfg(test)]
pub(super) mod tests;
