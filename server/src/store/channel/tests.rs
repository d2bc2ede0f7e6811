use std::{collections::BTreeSet, sync::Arc};

use prost::Message as _;
use socp::{
    id::ServerId,
    message::{PUBLIC_CHANNEL, Post, SUITE},
    output::Record,
    v1::{PostHeader, PostStatement},
};

use super::*;
use crate::{
    storage::Storage as _,
    store::{
        MIGRATIONS,
        tests::{account, new_account},
    },
};

const SENDER_HOME: [u8; 32] = [7; 32];
const USERS: [&str; 3] = ["bob", "carol", "dave"];

fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

/// A post of alice of another home under this key, for users whose audience began at a position, with wraps for some of them.
pub(in crate::store) fn entry(position: u64, key: u8, (users, since): (&[&str], u64), wraps: &[&str]) -> Arc<Entry> {
    let header = PostHeader {
        suite: SUITE,
        message_id: format!("01890a5d-ac96-774b-bcce-{position:012x}"),
        sender: "alice".into(),
        sender_home_id: ServerId::of_key(&SENDER_HOME).to_string(),
        sender_key_sha256: vec![1; 32].into(),
        channel: PUBLIC_CHANNEL.into(),
        key_id: vec![key; 16].into(),
        salt: vec![2; 32].into(),
        counter: position,
        time_unix_ms: 1_000,
    };
    let statement = PostStatement {
        header: header.encode_to_vec().into(),
        nonce: vec![0; 12].into(),
        ciphertext: vec![position as u8; 10].into(),
        key_commitment: vec![0; 32].into(),
    };
    let sealed = SealedPost { statement: statement.encode_to_vec().into(), signature: vec![3; 512].into() };
    Arc::new(Entry {
        position,
        received_unix_ms: 10 + position,
        post: Box::new(Post::parse(&sealed).unwrap()),
        audience: Audience::of(&users.iter().map(|name| user(name)).collect::<BTreeSet<_>>()),
        audience_since: since,
        wraps: wraps.iter().map(|name| (user(name), vec![position as u8; 512].into())).collect(),
        id_until_unix_ms: 100 + position,
    })
}

pub(in crate::store) fn kept(entry: &Entry) -> Kept {
    Kept {
        hash: entry.post.authorship.hash,
        bytes: channel::bytes(&entry.post.sealed),
        received_unix_ms: entry.received_unix_ms,
        audience: entry.audience.clone(),
        audience_since: entry.audience_since,
        key: KeyName::of(&entry.post),
    }
}

fn key_name(key: u8) -> KeyName {
    KeyName { sender: Address { home: ServerId::of_key(&SENDER_HOME), user: user("alice") }, id: [key; 16] }
}

fn cursor(entry: &Entry) -> Cursor {
    Cursor::of(entry.position, &entry.post.authorship.hash)
}

fn with_users(folder: &std::path::Path) -> Store {
    let mut store = Store::open(&folder.join("socp.db")).unwrap();
    let accounts = USERS.map(|name| new_account(&account(name, 1), None));
    store.commit(&accounts).unwrap();
    store
}

fn four() -> [Arc<Entry>; 4] {
    [
        entry(1, 1, (&["bob", "carol"], 1), &["bob", "carol"]),
        entry(2, 1, (&["bob", "carol"], 1), &[]),
        entry(3, 2, (&["bob", "dave"], 3), &["bob", "dave"]),
        entry(4, 1, (&["bob", "dave"], 3), &["dave"]),
    ]
}

fn posts(entries: &[Arc<Entry>]) -> Vec<Record> {
    entries.iter().cloned().map(Record::Post).collect()
}

#[test]
fn posts_are_there_after_a_restart_and_are_read_with_the_users_own_keys() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = with_users(folder.path());
    let reader = store.pages().unwrap();
    let all = four();
    store.commit(&posts(&all[..3])).unwrap();
    store.commit(&posts(&all[3..])).unwrap();
    let wrapped = |position: usize| Vec::from([position as u8; 512]).into();
    let stored = |position: usize, of: usize| all[position - 1].stored(wrapped(of));
    assert_eq!(
        reader.posts(&user("bob"), &[1, 2, 3, 9]).unwrap(),
        [stored(1, 1), stored(2, 1), stored(3, 3)],
        "a key comes again with each post under it, and what is not there is left out"
    );
    assert_eq!(reader.posts(&user("dave"), &[4]).unwrap(), [stored(4, 4)]);
    assert_eq!(reader.channel_key(&user("carol"), &key_name(1)).unwrap().as_deref(), Some(&[1; 512][..]));
    for (name, key) in [("carol", 2), ("carol", 3), ("eve", 1)] {
        assert_eq!(reader.channel_key(&user(name), &key_name(key)).unwrap(), None, "{name} has key {key}");
    }
    drop((store, reader));
    let mail = Store::open(&folder.path().join("socp.db")).unwrap().load().unwrap().mail;
    let kept = all.iter().map(|entry| kept(entry)).collect();
    let wrapped = vec![(key_name(1), 3), (key_name(2), 2)];
    assert_eq!(mail.channel, Log { dropped: Cursor::default(), kept, wrapped });
    let ids: Vec<_> = mail.remembered.iter().map(|id| (id.id, id.hash, id.recipients, id.until_unix_ms)).collect();
    let id = |entry: &Arc<Entry>| {
        let of = &entry.post.authorship;
        (of.id, of.hash, 2, entry.id_until_unix_ms)
    };
    assert_eq!(ids, all.iter().map(id).collect::<Vec<_>>());
}

#[test]
fn the_oldest_posts_go_with_what_was_theirs_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = with_users(folder.path());
    let all = four();
    store.commit(&posts(&all)).unwrap();
    let dropped = |entry: &Entry, keys| Record::PostsDropped { up_to: cursor(entry), keys };
    store.commit(&[dropped(&all[0], Vec::new())]).unwrap();
    let log = store.load().unwrap().mail.channel;
    assert_eq!((log.dropped, log.kept.len(), log.wrapped.len()), (cursor(&all[0]), 3, 2), "the keys are in use still");
    store.commit(&[dropped(&all[2], vec![key_name(2)])]).unwrap();
    let log = store.load().unwrap().mail.channel;
    assert_eq!((log.kept, log.wrapped), (vec![kept(&all[3])], vec![(key_name(1), 3)]));
    assert_eq!(store.rows("SELECT since FROM audience", |row| row.get::<_, u64>(0)).unwrap(), [3]);
    store.commit(&[dropped(&all[3], vec![key_name(1)])]).unwrap();
    let log = store.load().unwrap().mail.channel;
    assert_eq!(log, Log { dropped: cursor(&all[3]), ..Log::default() });
    for table in ["audience", "channel_key", "wrapped_key", "post"] {
        let left = store.rows(&format!("SELECT count(*) FROM {table}"), |row| row.get::<_, u64>(0)).unwrap();
        assert_eq!(left, [0], "{table}");
    }
    store.commit(&posts(&[entry(5, 1, (&["bob"], 5), &[])])).unwrap();
    assert_eq!(store.check().unwrap().loaded.unwrap().mail.channel.kept.len(), 1);
}

#[test]
fn a_log_with_a_gap_and_a_post_that_is_another_are_damage() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = with_users(folder.path());
    store.commit(&posts(&four())).unwrap();
    store.check().unwrap();
    store.database.execute("UPDATE post SET statement = x'00' WHERE position = 3", []).unwrap();
    let error = store.check().unwrap_err();
    assert!(matches!(error, StorageError::Damaged { .. }) && error.to_string().contains("position 3"), "{error}");
    store.database.execute("DELETE FROM post WHERE position = 2", []).unwrap();
    let error = store.load().unwrap_err();
    assert!(matches!(error, StorageError::Damaged { .. }) && error.to_string().contains("position 3"), "{error}");
}

#[test]
fn a_database_without_a_channel_gets_one_and_keeps_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socp.db");
    let sixth = Connection::open(&path).unwrap();
    MIGRATIONS[..6].iter().for_each(|step| sixth.execute_batch(step).unwrap());
    let id =
        "INSERT INTO remembered VALUES (zeroblob(32), 'alice', x'01890a5dac96774bbcceb302099a8057', zeroblob(32), 7)";
    sixth.execute(id, []).unwrap();
    sixth.pragma_update(None, "user_version", 6).unwrap();
    drop(sixth);
    let store = Store::open(&path).unwrap();
    let mail = store.load().unwrap().mail;
    assert_eq!(mail.channel, Log::default());
    let remembered: Vec<_> = mail.remembered.iter().map(|id| (id.recipients, id.until_unix_ms)).collect();
    assert_eq!(remembered, [(1, 7)], "it is of a message");
    assert!(folder.path().join("socp.form-6.db").exists());
}
