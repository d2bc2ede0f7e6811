use std::os::unix::fs::MetadataExt as _;

use super::*;
use crate::store::{
    inbox::tests::{entry, stored},
    tests::{account, new_account},
};

fn with_a_message(folder: &Path) -> Store {
    let mut store = Store::open(&folder.join("socp.db")).unwrap();
    let records = [new_account(&account("bob", 2), None), socp::output::Record::Entry(entry("bob", 1, 10))];
    store.commit(&records).unwrap();
    store
}

fn files() -> TextFiles {
    [("identity-key.pem".to_owned(), "a key".to_owned())].into()
}

#[test]
fn a_backup_made_while_the_store_writes_is_restored_as_it_was_at_one_moment() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = with_a_message(folder.path());
    let (file, to) = (folder.path().join("backup"), folder.path().join("restored.db"));
    let made = make(&folder.path().join("socp.db"), &files(), &file).unwrap();
    let then = store.load().unwrap();
    assert_eq!(made.loaded.as_ref(), Some(&then));
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    store.commit(&[socp::output::Record::Entry(entry("bob", 2, 10))]).unwrap();
    let backup = Backup::read(&file).unwrap();
    assert_eq!(backup.files, files());
    backup.restore_database(&to).unwrap();
    assert_eq!(fs::metadata(&to).unwrap().mode() & 0o777, 0o600);
    let restored = Store::open(&to).unwrap();
    assert_eq!(restored.load().unwrap(), then);
    let user = socp::name::UserName::parse("bob").unwrap();
    assert_eq!(restored.pages().unwrap().page(&user, 0).unwrap(), [stored(&entry("bob", 1, 10))]);
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".new")), "{left:?}");
}

#[test]
fn a_backup_takes_the_place_of_no_file() {
    let folder = tempfile::tempdir().unwrap();
    drop(with_a_message(folder.path()));
    let file = folder.path().join("backup");
    fs::write(&file, "something else").unwrap();
    let error = make(&folder.path().join("socp.db"), &files(), &file).unwrap_err();
    assert!(matches!(error, StorageError::Copy { .. }), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "something else");
}

#[test]
fn a_file_that_is_no_backup_or_is_damaged_is_not_restored() {
    let folder = tempfile::tempdir().unwrap();
    drop(with_a_message(folder.path()));
    let database = folder.path().join("socp.db");
    assert!(matches!(Backup::read(&database).unwrap_err(), StorageError::NoBackup { .. }));
    let file = folder.path().join("backup");
    make(&database, &files(), &file).unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 2_048].fill(0x55);
    fs::write(&file, &bytes).unwrap();
    Backup::read(&file).unwrap_err();
    fs::write(&file, &bytes[..middle]).unwrap();
    Backup::read(&file).unwrap_err();
    assert!(matches!(Backup::read(&folder.path().join("none")).unwrap_err(), StorageError::Open { .. }));
}

#[test]
fn a_database_of_an_earlier_form_is_backed_up_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socp.db");
    let first = Connection::open(&path).unwrap();
    first.execute_batch(MIGRATIONS[0]).unwrap();
    first.pragma_update(None, "user_version", 1).unwrap();
    drop(first);
    let (file, to) = (folder.path().join("backup"), folder.path().join("restored.db"));
    assert_eq!(make(&path, &files(), &file).unwrap().loaded, None);
    Backup::read(&file).unwrap().restore_database(&to).unwrap();
    assert_eq!(Store::open(&to).unwrap().load().unwrap(), Loaded::default());
}
