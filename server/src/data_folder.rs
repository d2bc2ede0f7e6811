//! The data folder: what lies where, who may read it, and that one process alone uses it.
//!
//! The folder holds private keys and the operator's socket, so it is open to its owner only (mode 0700), and private files
//! in it have mode 0600; a key that others can read is refused, not quietly repaired, since it may have been copied.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

/// What is wrong with the folder or a file in it. Nothing was changed; the operator must act.
#[derive(Debug, thiserror::Error)]
pub enum DataFolderError {
    /// The folder cannot be made or looked at.
    #[error("cannot use the data folder `{}`: {source}", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has the folder open.
    #[error("the data folder `{}` is in use by another socp-server", .path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// Others on this machine can look into the folder.
    #[error("the data folder `{}` is open to other users (mode {mode:04o})", .path.display())]
    Open {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Others on this machine can read a private file.
    #[error("the private file `{}` is open to other users (mode {mode:04o})", .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file cannot be read.
    #[error("cannot read `{}`: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write `{}`: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DataFolderError {
    /// What the operator can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Folder { .. } => {
                "name another folder with `--data DIR`, or give this one to the user that runs socp-server".into()
            }
            Self::Locked { path } => format!(
                "stop the other server, or name another folder with `--data DIR`; `socp-server users --data {}` talks to the one that runs",
                path.display()
            ),
            Self::Open { path, .. } => format!("`chmod 700 {}`, if nobody else has been in it", path.display()),
            Self::Exposed { path, .. } => format!(
                "`chmod 600 {}` if nobody can have copied it; otherwise move it away, so that a new one is made",
                path.display()
            ),
            Self::Read { path, .. } => {
                format!(
                    "give `{}` to the user that runs socp-server (`chown`, mode 600), or restore it",
                    path.display()
                )
            }
            Self::Write { path, .. } => {
                format!("look for a full or read-only disk at `{}`", path.parent().unwrap_or(path).display())
            }
        }
    }
}

/// Where things are in a data folder. Knows names only; opens nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    folder: PathBuf,
}

impl Layout {
    /// The layout of this folder, which need not exist.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The server's Ed25519 identity key: PKCS#8 in PEM, private. Whoever has it is the server.
    pub fn identity_key(&self) -> PathBuf {
        self.folder.join("identity-key.pem")
    }

    /// The certificate of the small CA under which the client-facing certificate is made. Public: for clients and grpcurl.
    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// The private key of that CA.
    pub fn ca_key(&self) -> PathBuf {
        self.folder.join("ca-key.pem")
    }

    /// The client-facing certificate, where the server made it itself.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("certificate.pem")
    }

    /// The private key of that certificate.
    pub fn certificate_key(&self) -> PathBuf {
        self.folder.join("certificate-key.pem")
    }

    /// All files but the database by which clients and peers know the server, and whether they are private. The identity key
    /// comes last.
    pub fn texts(&self) -> [(PathBuf, bool); 5] {
        let [ca, certificate] = [self.ca(), self.certificate()].map(|path| (path, false));
        let [ca_key, certificate_key, identity_key] =
            [self.ca_key(), self.certificate_key(), self.identity_key()].map(|path| (path, true));
        [ca, ca_key, certificate, certificate_key, identity_key]
    }

    /// The database; SQLite keeps `-wal` and `-shm` beside it.
    pub fn database(&self) -> PathBuf {
        self.folder.join("socp.db")
    }

    /// The folder of the files that users send.
    pub fn files(&self) -> PathBuf {
        self.folder.join("files")
    }

    /// The Unix socket on which the operator's commands reach the running server.
    pub fn operator_socket(&self) -> PathBuf {
        self.folder.join("operator.sock")
    }

    fn lock(&self) -> PathBuf {
        self.folder.join("lock")
    }
}

/// A data folder that this process alone uses, until this is dropped.
#[derive(Debug)]
pub struct DataFolder {
    layout: Layout,
    _lock: File,
}

impl DataFolder {
    /// Opens a folder for this process alone, and makes it (mode 0700) where there is none.
    pub fn open(layout: Layout) -> Result<Self, DataFolderError> {
        let path = layout.folder();
        let at = |source| DataFolderError::Folder { path: path.to_owned(), source };
        make(path).map_err(at)?;
        let mode = fs::metadata(path).map_err(at)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            // An empty folder has leaked nothing: whoever made it by hand is spared the chmod.
            if fs::read_dir(path).map_err(at)?.next().is_some() {
                return Err(DataFolderError::Open { path: path.to_owned(), mode });
            }
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(at)?;
        }
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(layout.lock()).map_err(at)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { layout, _lock: lock }),
            Err(Errno::WOULDBLOCK) => Err(DataFolderError::Locked { path: path.to_owned() }),
            Err(error) => Err(at(error.into())),
        }
    }

    /// Where things are in it.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// A file in it, beside the lock, if there is any.
    pub fn content(&self) -> Result<Option<PathBuf>, DataFolderError> {
        let path = self.layout.folder();
        let at = |source| DataFolderError::Folder { path: path.to_owned(), source };
        let lock = self.layout.lock();
        let mut others =
            fs::read_dir(path).map_err(at)?.filter(|entry| entry.as_ref().map_or(true, |entry| entry.path() != lock));
        Ok(others.next().transpose().map_err(at)?.map(|entry| entry.path()))
    }
}

/// Makes a folder (mode 0700) and those above it, where they are missing; their names are on the disk on return.
fn make(path: &Path) -> io::Result<()> {
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    missing.into_iter().rev().try_for_each(sync_name)
}

/// Brings a name to the disk, as far as the folder goes in which it stands: a file that was synced is lost without it.
pub fn sync_name(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Reads a private file; `None` if there is none. Refuses one that others can read.
pub fn read_private(path: &Path) -> Result<Option<String>, DataFolderError> {
    let at = |source| DataFolderError::Read { path: path.to_owned(), source };
    let mode = match fs::metadata(path) {
        Ok(metadata) => metadata.mode() & 0o777,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(error)),
    };
    if mode & 0o077 != 0 {
        return Err(DataFolderError::Exposed { path: path.to_owned(), mode });
    }
    fs::read_to_string(path).map(Some).map_err(at)
}

/// Reads a public file; `None` if there is none.
pub fn read_public(path: &Path) -> Result<Option<String>, DataFolderError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DataFolderError::Read { path: path.to_owned(), source }),
    }
}

/// Writes a file of mode 0600; durable on return, and whole or not there at all.
pub fn write_private(path: &Path, text: &str) -> Result<(), DataFolderError> {
    write(path, text, 0o600)
}

/// Writes a file of mode 0644; durable on return, and whole or not there at all.
pub fn write_public(path: &Path, text: &str) -> Result<(), DataFolderError> {
    write(path, text, 0o644)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), DataFolderError> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    let written = || -> io::Result<()> {
        // A draft left by a crash may have another mode; the mode of `open` counts for new files only.
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().create_new(true).write(true).mode(mode).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        sync_name(path)
    };
    written().map_err(|source| DataFolderError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Layout) {
        let parent = tempfile::tempdir().unwrap();
        let layout = Layout::new(parent.path().join("data"));
        (parent, layout)
    }

    #[test]
    fn a_new_folder_is_open_to_its_owner_only() {
        let (_parent, layout) = folder();
        let _open = DataFolder::open(layout.clone()).unwrap();
        assert_eq!(fs::metadata(layout.folder()).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn an_empty_folder_that_is_open_to_others_is_closed_to_them() {
        let (_parent, layout) = folder();
        DirBuilder::new().mode(0o755).create(layout.folder()).unwrap();
        let _open = DataFolder::open(layout.clone()).unwrap();
        assert_eq!(fs::metadata(layout.folder()).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_folder_with_content_that_is_open_to_others_is_refused() {
        let (_parent, layout) = folder();
        DirBuilder::new().mode(0o755).create(layout.folder()).unwrap();
        fs::write(layout.folder().join("something"), "").unwrap();
        let error = DataFolder::open(layout).unwrap_err();
        assert!(matches!(error, DataFolderError::Open { mode: 0o755, .. }), "{error}");
        assert!(error.hint().contains("chmod 700"));
    }

    #[test]
    fn a_folder_in_use_is_refused_until_it_is_free() {
        let (_parent, layout) = folder();
        let first = DataFolder::open(layout.clone()).unwrap();
        let error = DataFolder::open(layout.clone()).unwrap_err();
        assert!(matches!(error, DataFolderError::Locked { .. }), "{error}");
        assert!(error.to_string().contains(&layout.folder().display().to_string()));
        drop(first);
        DataFolder::open(layout).unwrap();
    }

    #[test]
    fn a_private_file_is_read_back_and_only_while_it_is_private() {
        let (_parent, layout) = folder();
        let _open = DataFolder::open(layout.clone()).unwrap();
        let path = layout.identity_key();
        assert_eq!(read_private(&path).unwrap(), None);
        write_private(&path, "one").unwrap();
        write_private(&path, "two").unwrap();
        assert_eq!(read_private(&path).unwrap().as_deref(), Some("two"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = read_private(&path).unwrap_err();
        assert!(matches!(error, DataFolderError::Exposed { mode: 0o640, .. }), "{error}");
    }
}
