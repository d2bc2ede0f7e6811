use std::sync::Arc;

use prost::Message as _;
use socp::{
    message::{Message, SUITE},
    output::Record,
    v1::{MessageHeader, MessageStatement},
};

use super::*;
use crate::store::{
    MIGRATIONS,
    tests::{HOME, account, new_account},
};

const SENDER_HOME: [u8; 32] = [7; 32];

fn address(user: &str, key: [u8; 32]) -> Address {
    Address { home: ServerId::of_key(&key), user: UserName::parse(user).unwrap() }
}

/// A message of alice of another home to a user, of so many bytes of text.
pub(in crate::store) fn entry(user: &str, position: u64, bytes: usize) -> Arc<Entry> {
    let (from, to) = (address("alice", SENDER_HOME), address(user, HOME));
    let header = MessageHeader {
        suite: SUITE,
        message_id: format!("01890a5d-ac96-774b-bcce-{position:012x}"),
        sender: from.user.to_string(),
        sender_home_id: from.home.to_string(),
        sender_key_sha256: vec![1; 32].into(),
        recipient: to.user.to_string(),
        recipient_home_id: to.home.to_string(),
        recipient_key_sha256: vec![2; 32].into(),
        time_unix_ms: 1_000,
        require_online: false,
    };
    let statement = MessageStatement {
        header: header.encode_to_vec().into(),
        nonce: vec![0; 12].into(),
        ciphertext: vec![position as u8; bytes].into(),
        key_commitment: vec![0; 32].into(),
        ..MessageStatement::default()
    };
    let sealed = SealedMessage {
        statement: statement.encode_to_vec().into(),
        signature: vec![3; 512].into(),
        wrapped_key: vec![4; 512].into(),
    };
    let message = Message::parse(&sealed).unwrap();
    let user = UserName::parse(user).unwrap();
    Arc::new(Entry { user, position, received_unix_ms: 10 + position, id_until_unix_ms: 100 + position, message })
}

fn with_users(folder: &std::path::Path) -> Store {
    let mut store = Store::open(&folder.join("socp.db")).unwrap();
    store.apply(&[new_account(&account("bob", 1), None), new_account(&account("carol", 1), None)]).unwrap();
    store
}

fn messages(entries: &[Arc<Entry>]) -> Vec<Record> {
    entries.iter().cloned().map(Record::Message).collect()
}

pub(in crate::store) fn kept(entry: &Entry) -> Kept {
    let authorship = &entry.message.authorship;
    Kept {
        hash: authorship.hash,
        bytes: entry.bytes(),
        sender: authorship.sender.clone(),
        received_unix_ms: entry.received_unix_ms,
    }
}

pub(in crate::store) fn stored(entry: &Entry) -> Stored {
    let Entry { position, received_unix_ms, message, .. } = entry;
    Stored { position: *position, received_unix_ms: *received_unix_ms, sealed: message.sealed.clone() }
}

#[test]
fn messages_are_there_after_a_restart_and_can_be_read_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = with_users(folder.path());
    let reader = store.inbox_reader().unwrap();
    let bob = UserName::parse("bob").unwrap();
    let entries: Vec<_> = (1..=3).map(|position| entry("bob", position, 10)).collect();
    let other = entry("carol", 1, 20);
    assert_eq!(reader.page(&bob, 0).unwrap(), []);
    store.apply(&messages(&entries[..2])).unwrap();
    assert_eq!(reader.page(&bob, 0).unwrap(), [stored(&entries[0]), stored(&entries[1])]);
    store.apply(&messages(&[other.clone(), entries[2].clone()])).unwrap();
    assert_eq!(reader.page(&bob, 1).unwrap(), [stored(&entries[1]), stored(&entries[2])]);
    drop((store, reader));
    let mail = Store::open(&folder.path().join("socp.db")).unwrap().load().unwrap().mail;
    let inbox = |user: &str, kept| Inbox {
        user: UserName::parse(user).unwrap(),
        dropped: Cursor::default(),
        kept,
        readers: Vec::new(),
    };
    let bobs = entries.iter().map(|entry| kept(entry)).collect();
    assert_eq!(mail.inboxes, [inbox("bob", bobs), inbox("carol", vec![kept(&other)])]);
    let ids: Vec<_> = mail.remembered.iter().map(|remembered| (remembered.id, remembered.until_unix_ms)).collect();
    let id = |entry: &Entry| (entry.message.authorship.id, entry.id_until_unix_ms);
    // Carol's has the id of bob's first, and came later.
    assert_eq!(ids, [id(&other), id(&entries[1]), id(&entries[2])]);
}

#[test]
fn the_oldest_messages_go_and_positions_do_not_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = with_users(folder.path());
    let entries: Vec<_> = (1..=4).map(|position| entry("bob", position, 10)).collect();
    store.apply(&messages(&entries[..3])).unwrap();
    let user = UserName::parse("bob").unwrap();
    let up_to = entries[2].cursor();
    store.apply(&[Record::Dropped { user: user.clone(), up_to }]).unwrap();
    assert_eq!(
        store.load().unwrap().mail.inboxes,
        [Inbox { user: user.clone(), dropped: up_to, kept: Vec::new(), readers: Vec::new() }]
    );
    store.apply(&messages(&entries[3..])).unwrap();
    let left = Inbox { user: user.clone(), dropped: up_to, kept: vec![kept(&entries[3])], readers: Vec::new() };
    assert_eq!(store.load().unwrap().mail.inboxes, [left]);
    assert_eq!(store.inbox_reader().unwrap().page(&user, 0).unwrap(), [stored(&entries[3])]);
    store.apply(&[Record::IdsForgotten { before_unix_ms: entries[1].id_until_unix_ms }]).unwrap();
    assert_eq!(store.load().unwrap().mail.remembered.len(), 3, "one of four was too old");
    store.apply(&messages(&entries[3..])).unwrap_err();
}

#[test]
fn a_page_ends_at_its_limits_of_messages_and_of_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = with_users(folder.path());
    let small: Vec<_> = (1..=REPLAY_ENTRIES_MAX as u64 + 1).map(|position| entry("bob", position, 1)).collect();
    let large: Vec<_> = (1..=6).map(|position| entry("carol", position, 60_000)).collect();
    store.apply(&messages(&small)).unwrap();
    store.apply(&messages(&large)).unwrap();
    let reader = store.inbox_reader().unwrap();
    let page = |user: &str, after| reader.page(&UserName::parse(user).unwrap(), after).unwrap().len();
    assert_eq!(
        (page("bob", 0), page("bob", 1), page("bob", 2)),
        (REPLAY_ENTRIES_MAX, REPLAY_ENTRIES_MAX, REPLAY_ENTRIES_MAX - 1)
    );
    assert_eq!((page("carol", 0), page("carol", 5)), (5, 1), "the one that goes over it is the last");
}

#[test]
fn an_inbox_with_a_gap_is_damage() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = with_users(folder.path());
    store.apply(&messages(&[entry("bob", 1, 1), entry("bob", 2, 1), entry("bob", 3, 1)])).unwrap();
    store.database.execute("DELETE FROM entry WHERE position = 2", []).unwrap();
    let error = store.load().unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }) && error.to_string().contains("`bob`"), "{error}");
}

#[test]
fn a_database_without_inboxes_gets_them_and_keeps_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socp.db");
    let bob = account("bob", 1);
    let third = Connection::open(&path).unwrap();
    MIGRATIONS[..3].iter().for_each(|step| third.execute_batch(step).unwrap());
    third.pragma_update(None, "user_version", 3).unwrap();
    let mut store = Store { path: path.clone(), database: third };
    store.apply(&[new_account(&bob, None)]).unwrap();
    drop(store);
    let mut store = Store::open(&path).unwrap();
    assert_eq!(store.load().unwrap().accounts, [(*bob).clone()]);
    store.apply(&messages(&[entry("bob", 1, 1)])).unwrap();
    assert!(folder.path().join("socp.form-3.db").exists());
}

#[test]
fn what_devices_have_read_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = with_users(folder.path());
    let reader = |device: Option<u8>, read| Reader {
        device: device.and_then(|device| DeviceId::from_bytes(&[device; 16])),
        read,
        seen_unix_ms: 5,
    };
    let user = UserName::parse("bob").unwrap();
    let readers = vec![reader(None, 1), reader(Some(1), 2), reader(Some(2), 3)];
    store.apply(&[Record::Readers { user: user.clone(), readers: readers.clone() }]).unwrap();
    assert_eq!(store.load().unwrap().mail.inboxes[0].readers, readers, "before the first message");
    store.apply(&messages(&[entry("bob", 1, 1)])).unwrap();
    store.apply(&[Record::Readers { user, readers: readers[1..].to_vec() }]).unwrap();
    let inboxes = store.load().unwrap().mail.inboxes;
    assert_eq!((inboxes.len(), &inboxes[0].readers[..]), (1, &readers[1..]));
    assert_eq!(inboxes[0].kept.len(), 1);
}
