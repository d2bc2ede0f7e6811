//! Why the store failed.

use std::{
    io,
    path::{Path, PathBuf},
};

use rusqlite::ErrorCode;

/// The disk failed, or holds what it should not. What was asked for has not happened; the operator must act.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened.
    #[error("cannot open the database `{}`: {source}", .path.display())]
    Open {
        /// The database.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// SQLite could not do it.
    #[error("database `{}`: {source}", .path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// There is no room. All that was reported as done is there.
    #[error("there is no room on the disk for `{}`", .path.display())]
    Full {
        /// The database, or the copy that was to be made.
        path: PathBuf,
    },
    /// The file is damaged.
    #[error("database `{}` is damaged: {reason}", .path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A later version of this program made the file.
    #[error("database `{}` has form {found}, and this version knows forms up to {known}", .path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its form.
        found: usize,
        /// The latest form known here.
        known: usize,
    },
    /// A copy could not be made: a backup, what is restored, or what is left of an earlier form.
    #[error("cannot make `{}`: {source}", .path.display())]
    Copy {
        /// The copy.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is no backup.
    #[error("`{}` is no backup made by `socp-server backup`", .path.display())]
    NoBackup {
        /// The file.
        path: PathBuf,
    },
}

impl StoreError {
    /// What SQLite said of a file, as it concerns the operator.
    pub(super) fn of(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full { path },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged { path, reason: source.to_string() }
            }
            _ => Self::Sqlite { path, source },
        }
    }

    /// What the operator can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Copy { path, source } if source.kind() == io::ErrorKind::AlreadyExists => {
                format!("name another file, or move `{}` away", path.display())
            }
            Self::Open { path, .. } | Self::Sqlite { path, .. } | Self::Copy { path, .. } => format!(
                "look for a full or read-only disk, and whether `{}` belongs to the user that runs socp-server",
                path.display()
            ),
            Self::Full { .. } => "make room there, and start again; nothing that was accepted is lost".into(),
            Self::Damaged { path, .. } => {
                format!("stop the server, keep `{}`, and restore a backup into a new data folder", path.display())
            }
            Self::Newer { .. } => {
                "run the newer socp-server, or restore the copy made before it changed the form".into()
            }
            Self::NoBackup { .. } => "name the file that was given to `socp-server backup`".into(),
        }
    }
}
