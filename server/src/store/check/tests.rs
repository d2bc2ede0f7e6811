use std::fs;

use socp::{id::DeviceId, inbox::Reader, name::UserName, output::Record};

use super::*;
use crate::store::{
    inbox::tests::entry,
    tests::{account, new_account},
};

fn with_messages(folder: &std::path::Path, count: u64) -> Store {
    let mut store = Store::open(&folder.join("socp.db")).unwrap();
    store.commit(&[new_account(&account("bob", 2), None)]).unwrap();
    let messages: Vec<Record> = (1..=count).map(|position| Record::Entry(entry("bob", position, 500))).collect();
    store.commit(&messages).unwrap();
    store
}

#[test]
fn a_sound_database_is_found_sound() {
    let folder = tempfile::tempdir().unwrap();
    let store = with_messages(folder.path(), 3);
    let checked = store.check().unwrap();
    assert_eq!(checked, Checked { form: MIGRATIONS.len(), loaded: Some(store.load().unwrap()) });
}

#[test]
fn whatever_is_wrong_is_found_and_named() {
    let device = DeviceId::from_bytes(&[1; 16]);
    let ahead = Record::Readers {
        user: UserName::parse("bob").unwrap(),
        readers: vec![Reader { device, read: 4, seen_unix_ms: 5 }],
    };
    let spoils: [(&str, &str); 7] = [
        ("DELETE FROM entry WHERE position = 2", "gap before position 3"),
        ("DELETE FROM message WHERE position = 2", "position 2"),
        ("DELETE FROM entry WHERE position = 3", "position 3"),
        ("UPDATE message SET signature = x'00' WHERE position = 1", "position 1"),
        ("UPDATE message SET statement = zeroblob(length(statement)) WHERE position = 3", "position 3"),
        ("DELETE FROM statement WHERE number = 1", "`bob`"),
        ("PRAGMA foreign_keys = OFF; INSERT INTO inbox VALUES ('eve', 0, zeroblob(8))", "`account`"),
    ];
    for (spoil, named) in spoils {
        let folder = tempfile::tempdir().unwrap();
        let store = with_messages(folder.path(), 3);
        store.database.execute_batch(spoil).unwrap();
        let error = store.check().unwrap_err();
        assert!(matches!(&error, StorageError::Damaged { reason, .. } if reason.contains(named)), "{spoil}: {error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let mut store = with_messages(folder.path(), 3);
    store.commit(&[ahead]).unwrap();
    assert!(store.check().unwrap_err().to_string().contains("read more"));
}

#[test]
fn a_page_that_was_overwritten_is_found_by_both_checks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socp.db");
    drop(with_messages(folder.path(), 200));
    let mut bytes = fs::read(&path).unwrap();
    // The header of a page in the midst of it.
    let page = bytes.len() / 2 / 4_096 * 4_096;
    bytes[page..page + 64].fill(0x55);
    fs::write(&path, bytes).unwrap();
    let store = Store::open_as_it_is(&path).unwrap();
    for error in [store.look_over().unwrap_err(), store.check().unwrap_err()] {
        assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
    }
}

#[test]
fn looking_over_ends_when_its_time_is_over_and_leaves_the_database_usable() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = with_messages(folder.path(), 200);
    store.database.execute("DELETE FROM statement WHERE number = 1", []).unwrap();
    store.look_over_until(Instant::now()).unwrap();
    store.commit(&[Record::Entry(entry("bob", 201, 10))]).unwrap();
    store.look_over().unwrap();
}

#[test]
fn a_database_of_an_earlier_form_is_checked_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socp.db");
    let first = rusqlite::Connection::open(&path).unwrap();
    first.execute_batch(MIGRATIONS[0]).unwrap();
    first.pragma_update(None, "user_version", 1).unwrap();
    drop(first);
    let checked = Store::open_as_it_is(&path).unwrap().check().unwrap();
    assert_eq!(checked, Checked { form: 1, loaded: None });
    assert!(!folder.path().join("socp.form-1.db").exists());
}
