//! Files that only their owner may read: written whole or not at all, mode 0600, in folders of mode 0700.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::Path,
};

use crate::failure::Failure;

/// Bytes of any file of ours that is read whole: a key takes 4 KiB.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Makes a folder, and those above it, that only the owner may enter.
pub fn create_folder(path: &Path) -> Result<(), Failure> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|error| Failure::file("create the folder", path, &error))
}

/// Options that make a file with mode 0600.
pub fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Replaces a file: written beside it, flushed to disk, renamed over it.
pub fn write(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = Path::new(&beside);
    let done = (|| {
        let mut file = options().write(true).create(true).truncate(true).open(beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(beside, path)
    })();
    done.map_err(|error: io::Error| {
        let _ = fs::remove_file(beside);
        Failure::file("write", path, &error)
    })
}

/// Reads a small text file; `None` if there is none.
pub fn read(path: &Path) -> Result<Option<String>, Failure> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::file("read", path, &error)),
    }
}

/// Removes a file; one that is gone already is fine.
pub fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::file("remove", path, &error)),
        _ => Ok(()),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn files_are_for_their_owner_only_and_so_are_their_folders() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("a/b");
        create_folder(&folder).unwrap();
        let file = folder.join("secret");
        write(&file, b"first").unwrap();
        write(&file, b"second").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&home.path().join("a")), mode(&file)), (0o700, 0o700, 0o600));
        assert_eq!(read(&file).unwrap().as_deref(), Some("second"));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left beside it");
        remove(&file).unwrap();
        remove(&file).unwrap();
        assert_eq!(read(&file).unwrap(), None);
    }
}
