use std::sync::Arc;

use prost::Message as _;
use socp::{
    inbox::Settled,
    message::SUITE,
    outbox::Queued,
    output::Record,
    v1::{MessageHeader, MessageStatement},
};

use super::*;
use crate::{
    storage::Storage as _,
    store::{
        MIGRATIONS,
        tests::{HOME, account, new_account},
    },
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
        wants_receipts: false,
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
    let content =
        Content::Message { message: Box::new(Message::parse(&sealed).unwrap()), id_until_unix_ms: 100 + position };
    Arc::new(Entry { user: UserName::parse(user).unwrap(), position, received_unix_ms: 10 + position, content })
}

/// The message of such an entry, and until when its id is remembered.
pub(in crate::store) fn message(entry: &Entry) -> (&Message, u64) {
    let Content::Message { message, id_until_unix_ms } = &entry.content else { panic!("it is a message") };
    (message, *id_until_unix_ms)
}

/// What became of a queued message, in the inbox of its sender.
pub(in crate::store) fn outcome(user: &str, position: u64, number: u64) -> Arc<Entry> {
    let settled = Settled {
        number,
        id: message(&entry("bob", position, 1)).0.authorship.id,
        recipient: address("bob", SENDER_HOME),
        signed: SignedOutcome {
            statement: vec![5; 40].into(),
            signature: vec![6; 64].into(),
            home_key: SENDER_HOME.to_vec().into(),
        },
    };
    let content = Content::Outcome(settled);
    Arc::new(Entry { user: UserName::parse(user).unwrap(), position, received_unix_ms: 10 + position, content })
}

fn with_users(folder: &std::path::Path) -> Store {
    let mut store = Store::open(&folder.join("socp.db")).unwrap();
    store.commit(&[new_account(&account("bob", 1), None), new_account(&account("carol", 1), None)]).unwrap();
    store
}

fn messages(entries: &[Arc<Entry>]) -> Vec<Record> {
    entries.iter().cloned().map(Record::Entry).collect()
}

pub(in crate::store) fn kept(entry: &Entry) -> Kept {
    Kept {
        hash: entry.hash(),
        bytes: entry.bytes(),
        sender: entry.sender().cloned(),
        received_unix_ms: entry.received_unix_ms,
    }
}

pub(in crate::store) fn stored(entry: &Entry) -> Stored {
    Stored { position: entry.position, event: entry.event() }
}

#[test]
fn messages_are_there_after_a_restart_and_can_be_read_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = with_users(folder.path());
    let reader = store.pages().unwrap();
    let bob = UserName::parse("bob").unwrap();
    let entries: Vec<_> = (1..=3).map(|position| entry("bob", position, 10)).collect();
    let other = entry("carol", 1, 20);
    assert_eq!(reader.page(&bob, 0).unwrap(), []);
    store.commit(&messages(&entries[..2])).unwrap();
    assert_eq!(reader.page(&bob, 0).unwrap(), [stored(&entries[0]), stored(&entries[1])]);
    store.commit(&messages(&[other.clone(), entries[2].clone()])).unwrap();
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
    let id = |entry: &Entry| (message(entry).0.authorship.id, message(entry).1);
    // Carol's has the id of bob's first, and came later.
    assert_eq!(ids, [id(&other), id(&entries[1]), id(&entries[2])]);
}

#[test]
fn the_oldest_messages_go_and_positions_do_not_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = with_users(folder.path());
    let entries: Vec<_> = (1..=4).map(|position| entry("bob", position, 10)).collect();
    store.commit(&messages(&entries[..3])).unwrap();
    let user = UserName::parse("bob").unwrap();
    let up_to = entries[2].cursor();
    store.commit(&[Record::Dropped { user: user.clone(), up_to }]).unwrap();
    assert_eq!(
        store.load().unwrap().mail.inboxes,
        [Inbox { user: user.clone(), dropped: up_to, kept: Vec::new(), readers: Vec::new() }]
    );
    store.commit(&messages(&entries[3..])).unwrap();
    let left = Inbox { user: user.clone(), dropped: up_to, kept: vec![kept(&entries[3])], readers: Vec::new() };
    assert_eq!(store.load().unwrap().mail.inboxes, [left]);
    assert_eq!(store.pages().unwrap().page(&user, 0).unwrap(), [stored(&entries[3])]);
    store.commit(&[Record::IdsForgotten { before_unix_ms: message(&entries[1]).1 }]).unwrap();
    assert_eq!(store.load().unwrap().mail.remembered.len(), 3, "one of four was too old");
    store.commit(&messages(&entries[3..])).unwrap_err();
}

#[test]
fn what_is_queued_is_there_after_a_restart_until_its_outcome_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = with_users(folder.path());
    let queued = |number: u64| {
        let message = message(&entry("carol", number, 30)).0.clone();
        Queued { number, received_unix_ms: 7, message }
    };
    let queue = |number| Record::Queued(Arc::new(queued(number)));
    store.commit(&[queue(9), queue(3), queue(11)]).unwrap();
    store.commit(&[queue(3)]).unwrap_err();
    drop(store);
    let mut store = Store::open(&folder.path().join("socp.db")).unwrap();
    assert_eq!(store.load().unwrap().mail.queued, [queued(3), queued(9), queued(11)]);
    let user = UserName::parse("bob").unwrap();
    let entries = [entry("bob", 1, 10), outcome("bob", 2, 9), entry("bob", 3, 10)];
    store.commit(&messages(&entries)).unwrap();
    store.commit(&[Record::Unqueued { number: 11 }]).unwrap();
    store.commit(&[Record::Unqueued { number: 11 }]).unwrap_err();
    store.commit(&messages(&[outcome("bob", 4, 9)])).expect_err("it has its outcome");
    drop(store);
    let mut store = Store::open(&folder.path().join("socp.db")).unwrap();
    let mail = store.load().unwrap().mail;
    assert_eq!(mail.queued, [queued(3)]);
    assert_eq!(mail.inboxes[0].kept, entries.iter().map(|entry| kept(entry)).collect::<Vec<_>>());
    assert_eq!(mail.remembered.len(), 2, "an outcome has no id to be remembered");
    let page = |store: &Store| store.pages().unwrap().page(&user, 0).unwrap();
    assert_eq!(page(&store), entries.iter().map(|entry| stored(entry)).collect::<Vec<_>>());
    assert_eq!(page(&store)[1].cursor(), entries[1].cursor());
    store.commit(&[Record::Dropped { user: user.clone(), up_to: entries[1].cursor() }]).unwrap();
    assert_eq!(page(&store), [stored(&entries[2])]);
}

#[test]
fn a_page_ends_at_its_limits_of_messages_and_of_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = with_users(folder.path());
    let small: Vec<_> = (1..=REPLAY_ENTRIES_MAX as u64 + 1).map(|position| entry("bob", position, 1)).collect();
    let large: Vec<_> = (1..=6).map(|position| entry("carol", position, 60_000)).collect();
    store.commit(&messages(&small)).unwrap();
    store.commit(&messages(&large)).unwrap();
    let reader = store.pages().unwrap();
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
    store.commit(&messages(&[entry("bob", 1, 1), entry("bob", 2, 1), entry("bob", 3, 1)])).unwrap();
    store.database.execute("DELETE FROM entry WHERE position = 2", []).unwrap();
    let error = store.load().unwrap_err();
    assert!(matches!(error, StorageError::Damaged { .. }) && error.to_string().contains("`bob`"), "{error}");
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
    store.commit(&[new_account(&bob, None)]).unwrap();
    drop(store);
    let mut store = Store::open(&path).unwrap();
    assert_eq!(store.load().unwrap().accounts, [(*bob).clone()]);
    store.commit(&messages(&[entry("bob", 1, 1)])).unwrap();
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
    store.commit(&[Record::Readers { user: user.clone(), readers: readers.clone() }]).unwrap();
    assert_eq!(store.load().unwrap().mail.inboxes[0].readers, readers, "before the first message");
    store.commit(&messages(&[entry("bob", 1, 1)])).unwrap();
    store.commit(&[Record::Readers { user, readers: readers[1..].to_vec() }]).unwrap();
    let inboxes = store.load().unwrap().mail.inboxes;
    assert_eq!((inboxes.len(), &inboxes[0].readers[..]), (1, &readers[1..]));
    assert_eq!(inboxes[0].kept.len(), 1);
}
