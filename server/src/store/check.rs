//! Looking a database over: a little after an unclean stop, all of it when the operator asks.

use std::time::{Duration, Instant};

use rusqlite::ErrorCode;
use socp::id::ContentHash;

use super::{Loaded, MIGRATIONS, Storage as _, StorageError, Store, form};
use crate::limits::LOOK_OVER_MS_MAX;

/// Findings that are told: the first ones say enough.
const FINDINGS_MAX: usize = 20;

/// Instructions of SQLite between two looks at the clock: some microseconds.
const CLOCK_EACH: i32 = 1_000;

/// What was found in a database in which nothing is wrong.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// The database's form.
    pub form: usize,
    /// What is in it, unless it is of an earlier form.
    pub loaded: Option<Loaded>,
}

impl Store {
    /// Looks for damage to the file, accounts first, for a bounded time: a start must not wait for a large database. What a
    /// start needs is read and checked after that anyway.
    pub(super) fn look_over(&self) -> Result<(), StorageError> {
        let begun = Instant::now();
        self.look_over_until(begun + Duration::from_millis(LOOK_OVER_MS_MAX))?;
        tracing::info!(ms = begun.elapsed().as_millis(), "looked over");
        Ok(())
    }

    fn look_over_until(&self, until: Instant) -> Result<(), StorageError> {
        tracing::info!(database = %self.path.display(), "not closed properly the last time; checking");
        let is_late = move || Instant::now() >= until;
        self.database.progress_handler(CLOCK_EACH, Some(is_late));
        let found = self.database.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
        self.database.progress_handler(0, None::<fn() -> bool>);
        match found {
            Ok(found) if found == "ok" => Ok(()),
            Ok(found) => Err(self.damaged(found)),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                tracing::info!("the database is too large to be looked over as a whole; `socp-server check` does that");
                Ok(())
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Looks for damage to the file as a whole, and for rows that refer to none.
    pub(super) fn look_all_over(&self) -> Result<(), StorageError> {
        let query = format!("PRAGMA integrity_check({FINDINGS_MAX})");
        let mut found = self.rows(&query, |row| row.get::<_, String>(0))?;
        found.retain(|finding| finding != "ok");
        let query = "SELECT \"table\", parent FROM pragma_foreign_key_check LIMIT 1";
        let dangling = self.rows(query, |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        found.extend(dangling.iter().map(|(table, parent)| format!("a row of `{table}` refers to no `{parent}`")));
        if found.is_empty() { Ok(()) } else { Err(self.damaged(found.join("; "))) }
    }

    /// Checks all there is: the file, what every start assumes (chains of key statements, moves, inboxes and a channel
    /// without a gap), and each message and post. Changes nothing.
    pub fn check(&self) -> Result<Checked, StorageError> {
        self.look_all_over()?;
        let form = form(self)?;
        if form < MIGRATIONS.len() {
            return Ok(Checked { form, loaded: None });
        }
        let loaded = self.load()?;
        self.check_messages()?;
        self.check_posts()?;
        for inbox in &loaded.mail.inboxes {
            let last = inbox.dropped.position + inbox.kept.len() as u64;
            if inbox.readers.iter().any(|reader| reader.read > last) {
                let reason = format!("a device of `{}` has read more than there is", inbox.user);
                return Err(self.damaged(reason));
            }
        }
        Ok(Checked { form, loaded: Some(loaded) })
    }

    /// Each entry has its message, and each message is the one of its entry.
    fn check_messages(&self) -> Result<(), StorageError> {
        let query = "SELECT user, position, hash, bytes, statement, signature, wrapped_key
                     FROM entry FULL JOIN message USING (user, position)";
        let wrong = || -> rusqlite::Result<Option<(String, u64)>> {
            let mut query = self.database.prepare(query)?;
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                let hash: Option<[u8; 32]> = row.get(2)?;
                let part =
                    |column| row.get_ref(column).and_then(|part| Ok(part.as_blob_or_null()?.unwrap_or_default()));
                let (statement, signature, wrapped_key) = (part(4)?, part(5)?, part(6)?);
                let bytes = (statement.len() + signature.len() + wrapped_key.len()) as u64;
                let is_right = hash.is_some_and(|hash| *ContentHash::of(statement).as_bytes() == hash)
                    && row.get::<_, Option<u64>>(3)? == Some(bytes);
                if !is_right {
                    return Ok(Some((row.get(0)?, row.get(1)?)));
                }
            }
            Ok(None)
        };
        match wrong().map_err(|error| self.failed(error))? {
            Some((user, position)) => {
                Err(self
                    .damaged(format!("the message at position {position} of the inbox of `{user}` is not what it was")))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
