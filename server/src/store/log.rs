//! SQLite's write-ahead log, and when what is in it is moved into the database.
//!
//! By itself SQLite does that in the middle of the commit after which the log is long, so that whoever is committed then waits for
//! the database to be written and synced, too; the larger it is, the more of its pages a message touches, and the longer that
//! takes. Here it is done between commits. What is committed is on disk before and after.

use std::{cell::Cell, ffi::c_int};

use rusqlite::{Connection, hooks::Wal};

/// Pages of a log that is long: as many as for SQLite itself, 4 MB.
const LONG_PAGES: usize = 1_000;

/// Pages after which it is moved in the middle of a commit nevertheless, where nobody does it between commits.
const PAGES_MAX: usize = 4 * LONG_PAGES;

thread_local! {
    /// Pages in the log after this thread's last commit. SQLite tells a function that has no state; a store is one thread's.
    static PAGES: Cell<usize> = const { Cell::new(0) };
}

/// Has this connection's commits noted.
pub(super) fn note(database: &Connection) {
    database.wal_hook(Some(noted));
}

fn noted(wal: &Wal, pages: c_int) -> rusqlite::Result<()> {
    let pages = usize::try_from(pages).unwrap_or_default();
    PAGES.set(pages);
    if pages >= PAGES_MAX {
        // A failure is none of the commit, for SQLite itself neither.
        let _ = wal.checkpoint();
    }
    Ok(())
}

/// Whether this thread's last commit left a long log.
pub(super) fn is_long() -> bool {
    PAGES.get() >= LONG_PAGES
}

/// Moves the log into the database, as far as no reader is in the way.
pub(super) fn shorten(database: &Connection) -> rusqlite::Result<()> {
    database.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}
