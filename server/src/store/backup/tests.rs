use std::os::unix::fs::MetadataExt as _;

use super::*;
use crate::{
    limits::BACKUP_PART_BYTES,
    store::{
        inbox::tests::{entry, stored},
        tests::{account, new_account},
    },
};

fn with_a_message(folder: &Path) -> Store {
    let mut store = Store::open(&folder.join("socp.db")).unwrap();
    let records = [new_account(&account("bob", 2), None), socp::output::Record::Entry(entry("bob", 1, 10))];
    store.commit(&records).unwrap();
    store
}

fn texts() -> TextFiles {
    [("identity-key.pem".to_owned(), "a key".to_owned())].into()
}

fn make(database: &Path, to: &Path) -> Result<Backup, StorageError> {
    Begun::copy(database, to)?.finish(&texts(), &[])
}

/// Files of such sizes, in a folder of their own.
fn sent(folder: &Path, sizes: &[usize]) -> Vec<(FileId, PathBuf)> {
    fs::create_dir(folder.join("files")).unwrap();
    let files = sizes.iter().enumerate().map(|(number, size)| {
        let id = FileId::from_bytes(&[number as u8; 16]).unwrap();
        let path = folder.join("files").join(id.to_string());
        fs::write(&path, (0..*size).map(|place| (place % 253) as u8).collect::<Vec<u8>>()).unwrap();
        (id, path)
    });
    files.collect()
}

#[test]
fn a_backup_made_while_the_store_writes_is_restored_as_it_was_at_one_moment() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = with_a_message(folder.path());
    let (file, to) = (folder.path().join("backup"), folder.path().join("restored.db"));
    let made = make(&folder.path().join("socp.db"), &file).unwrap();
    let then = store.load().unwrap();
    assert_eq!(made.loaded.as_ref(), Some(&then));
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    store.commit(&[socp::output::Record::Entry(entry("bob", 2, 10))]).unwrap();
    let backup = Backup::read(&file).unwrap();
    assert_eq!(backup.texts, texts());
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
fn files_that_users_sent_are_restored_as_they_were_and_one_that_has_gone_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    drop(with_a_message(folder.path()));
    let part = BACKUP_PART_BYTES;
    let mut sent = sent(folder.path(), &[1, part - 1, part, part + 1, 2 * part]);
    let begun = Begun::copy(&folder.path().join("socp.db"), &folder.path().join("backup")).unwrap();
    fs::remove_file(&sent[0].1).unwrap();
    let made = begun.finish(&texts(), &sent).unwrap();
    sent.remove(0);
    let ids: Vec<FileId> = sent.iter().map(|(id, _)| *id).collect();
    assert_eq!(made.sent, ids);
    let restored = folder.path().join("restored");
    fs::create_dir(&restored).unwrap();
    let backup = Backup::read(&folder.path().join("backup")).unwrap();
    backup.restore_files(&restored).unwrap();
    assert_eq!(fs::read_dir(&restored).unwrap().count(), ids.len());
    for (id, path) in &sent {
        let copy = restored.join(id.to_string());
        assert!(fs::read(&copy).unwrap() == fs::read(path).unwrap(), "{id}");
        assert_eq!(fs::metadata(&copy).unwrap().mode() & 0o777, 0o600);
    }
    let database = folder.path().join("restored.db");
    backup.restore_database(&database).unwrap();
    assert!(fs::metadata(&database).unwrap().len() < part as u64, "the files are not in it");
    Store::open_as_it_is(&database).unwrap().check().unwrap();
}

#[test]
fn a_spoilt_file_in_a_backup_is_found() {
    let folder = tempfile::tempdir().unwrap();
    drop(with_a_message(folder.path()));
    let sent = sent(folder.path(), &[2 * BACKUP_PART_BYTES]);
    let file = folder.path().join("backup");
    Begun::copy(&folder.path().join("socp.db"), &file).unwrap().finish(&texts(), &sent).unwrap();
    for spoil in [
        "DELETE FROM backup_part WHERE number = 0",
        "UPDATE backup_part SET content = zeroblob(length(content)) WHERE number = 1",
        "UPDATE backup_part SET file = '../../elsewhere'",
    ] {
        let spoilt = folder.path().join("spoilt");
        fs::copy(&file, &spoilt).unwrap();
        Connection::open(&spoilt).unwrap().execute_batch(spoil).unwrap();
        assert!(matches!(Backup::read(&spoilt).unwrap_err(), StorageError::Damaged { .. }), "{spoil}");
    }
}

#[test]
fn a_backup_takes_the_place_of_no_file() {
    let folder = tempfile::tempdir().unwrap();
    drop(with_a_message(folder.path()));
    let file = folder.path().join("backup");
    fs::write(&file, "something else").unwrap();
    let error = make(&folder.path().join("socp.db"), &file).unwrap_err();
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
    make(&database, &file).unwrap();
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
    assert_eq!(make(&path, &file).unwrap().loaded, None);
    Backup::read(&file).unwrap().restore_database(&to).unwrap();
    assert_eq!(Store::open(&to).unwrap().load().unwrap(), Loaded::default());
}
