//! What SQLite fails with, as the seam tells it.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::storage::StorageError;

/// What SQLite said of a file, as it concerns the operator.
pub(super) fn failure(path: &Path, source: rusqlite::Error) -> StorageError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StorageError::Full { path },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StorageError::Damaged { path, reason: source.to_string() }
        }
        _ => StorageError::Engine { path, source: source.into() },
    }
}
