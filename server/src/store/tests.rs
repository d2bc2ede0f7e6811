//! What is on disk stays there, wholly or not at all.

use socp::{
    admission::{Admission, Kept},
    id::ServerId,
    message::Address,
    name::ServerName,
    node::next_epoch,
};

use super::*;
use crate::identity::ServerIdentity;

pub(super) const HOME: [u8; 32] = [1; 32];

/// DER around 512 bytes of modulus, as the one form of a user's key.
fn key(seed: u8) -> Vec<u8> {
    let mut spki = vec![0x30, 0x82, 0x02, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    spki.extend([0x01, 0x05, 0x00, 0x03, 0x82, 0x02, 0x0f, 0x00, 0x30, 0x82, 0x02, 0x0a, 0x02, 0x82, 0x02, 0x01, 0x00]);
    spki.extend([0xff; 511]);
    spki.extend([seed | 1, 0x02, 0x03, 0x01, 0x00, 0x01]);
    spki
}

pub(super) fn account(name: &str, statements: u64) -> Arc<Account> {
    let user = UserName::parse(name).unwrap();
    let mut chain: Vec<KeyStatement> = Vec::new();
    for number in 1..=statements {
        let key = socp::user_key::UserKey::parse(&key(number as u8).into()).unwrap();
        let previous = chain.last().map(KeyStatement::hash);
        let statement = KeyStatement::encode(&user, ServerId::of_key(&HOME), &key, number, previous);
        let previous_signature = if number > 1 { vec![8; 512] } else { Vec::new() };
        let signed = SignedKeyStatement {
            statement: statement.into(),
            signature: vec![7; 512].into(),
            previous_signature: previous_signature.into(),
        };
        chain.push(KeyStatement::parse(&signed).unwrap());
    }
    Arc::new(Account {
        user,
        statements: chain,
        display_name: "Ünïcode".into(),
        created_unix_ms: 1_700_000_000_000,
        disabled: false,
        moved: None,
    })
}

/// The same account after its user moved, by a move that names this statement.
fn moved(account: &Account, named: &KeyStatement) -> Arc<Account> {
    let from = Address { home: ServerId::of_key(&HOME), user: account.user.clone() };
    let to = Address { home: ServerId::of_key(&[2; 32]), user: account.user.clone() };
    let statement = Move::encode(&from, named.hash(), &to, 1_750_000_000_000).into();
    let moved = Move::parse(&SignedMove { statement, signature: vec![9; 512].into() }).unwrap();
    Arc::new(Account { moved: Some(Arc::new(moved)), ..account.clone() })
}

pub(super) fn new_account(account: &Arc<Account>, invite: Option<[u8; 32]>) -> Record {
    Record::NewAccount { account: account.clone(), invite }
}

/// Begins an epoch as a start does.
pub(super) fn begin_epoch(store: &mut Store, unix_ms: u64) -> u64 {
    let epoch = next_epoch(store.load().unwrap().epoch, unix_ms);
    store.commit(&[Record::Epoch(epoch)]).unwrap();
    epoch
}

#[test]
fn what_was_applied_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socp.db");
    let (bob, alice) = (account("bob", 1), account("alice", 3));
    let mut store = Store::open(&path).unwrap();
    assert_eq!(store.load().unwrap(), Loaded::default());
    store.commit(&[Record::NewInvite([4; 32])]).unwrap();
    store.commit(&[Record::NewInvite([5; 32])]).unwrap();
    store.commit(&[new_account(&bob, None)]).unwrap();
    store.commit(&[new_account(&alice, Some([4; 32]))]).unwrap();
    let disabled = Arc::new(Account { disabled: true, ..(*bob).clone() });
    store.commit(&[Record::Disabled { account: disabled.clone() }]).unwrap();
    drop(store);
    let loaded = Store::open(&path).unwrap().load().unwrap();
    assert_eq!(loaded.accounts, [(*alice).clone(), (*disabled).clone()]);
    assert_eq!(loaded.invites, [[5; 32]]);
}

fn kept(issuer: &ServerIdentity, subject: u8, serial: u64) -> Kept {
    let name = ServerName::parse("server-x").unwrap();
    let admission = Admission::sign(issuer, ServerId::of_key(&[subject; 32]), name, serial, 9, serial == 3);
    Kept { admission, by_operator: serial == 2 }
}

#[test]
fn whom_a_server_believes_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socp.db");
    let issuer = ServerIdentity::generate().unwrap();
    let mut store = Store::open(&path).unwrap();
    let keep = |kept: Vec<Kept>, dropped| Record::Admissions { kept, dropped };
    store.commit(&[keep(vec![kept(&issuer, 1, 1), kept(&issuer, 2, 1), kept(&issuer, 3, 1)], Vec::new())]).unwrap();
    let third = (issuer.server_id(), ServerId::of_key(&[3; 32]));
    store.commit(&[keep(vec![kept(&issuer, 1, 2), kept(&issuer, 2, 3)], vec![third])]).unwrap();
    let [one, other] = [1, 2].map(|number| ServerId::of_key(&[number; 32]));
    let name = ServerName::parse("server-x").unwrap();
    store.commit(&[Record::Names(vec![(name.clone(), one)])]).unwrap();
    store.commit(&[Record::Names(vec![(name.clone(), other)])]).unwrap_err();
    store.commit(&[Record::Names(vec![(name.with_id(&one, 8), one), (name.clone(), other)])]).unwrap();
    for server in [one, other] {
        store.commit(&[Record::Blocked { server, is_blocked: true }]).unwrap();
    }
    store.commit(&[Record::Blocked { server: one, is_blocked: false }]).unwrap();
    drop(store);
    let mut trust = Store::open(&path).unwrap().load().unwrap().trust;
    trust.admissions.sort_by_key(|kept| kept.admission.serial);
    assert_eq!(trust.admissions, [kept(&issuer, 1, 2), kept(&issuer, 2, 3)]);
    assert_eq!(trust.names, [(name.clone(), other), (name.with_id(&one, 8), one)]);
    assert_eq!(trust.blocked, [other]);
}

#[test]
fn a_spoilt_admission_or_name_is_damage() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(&folder.path().join("socp.db")).unwrap();
    let issuer = ServerIdentity::generate().unwrap();
    store.commit(&[Record::Admissions { kept: vec![kept(&issuer, 1, 1)], dropped: Vec::new() }]).unwrap();
    store.database.execute("UPDATE admission SET statement = x'ff'", []).unwrap();
    assert!(matches!(store.load().unwrap_err(), StorageError::Damaged { .. }));
    store.database.execute("DELETE FROM admission", []).unwrap();
    store.database.execute("INSERT INTO server_name VALUES (zeroblob(32), 'Server X')", []).unwrap();
    assert!(store.load().unwrap_err().to_string().contains("`Server X`"));
}

#[test]
fn a_move_is_kept_once_and_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socp.db");
    let (bob, alice) = (account("bob", 2), account("alice", 1));
    let mut store = Store::open(&path).unwrap();
    store.commit(&[new_account(&bob, None)]).unwrap();
    store.commit(&[new_account(&alice, None)]).unwrap();
    let gone = moved(&bob, bob.statement());
    store.commit(&[Record::Moved { account: gone.clone() }]).unwrap();
    store.commit(&[Record::Moved { account: gone.clone() }]).unwrap_err();
    store.commit(&[Record::Moved { account: moved(&account("carol", 1), bob.statement()) }]).unwrap_err();
    drop(store);
    let loaded = Store::open(&path).unwrap().load().unwrap();
    assert_eq!(loaded.accounts, [(*alice).clone(), (*gone).clone()]);
}

#[test]
fn a_move_that_is_spoilt_or_of_another_key_is_damage() {
    for (named, spoil) in [(0, ""), (1, "UPDATE move SET statement = x'ff'")] {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("socp.db")).unwrap();
        let bob = account("bob", 2);
        store.commit(&[new_account(&bob, None)]).unwrap();
        store.commit(&[Record::Moved { account: moved(&bob, &bob.statements[named]) }]).unwrap();
        store.database.execute_batch(spoil).unwrap();
        let error = store.load().unwrap_err();
        assert!(matches!(error, StorageError::Damaged { .. }) && error.to_string().contains("`bob`"), "{error}");
    }
}

#[test]
fn a_database_of_the_first_form_is_brought_to_the_present_one_and_a_copy_is_left_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socp.db");
    let bob = account("bob", 1);
    let first = Connection::open(&path).unwrap();
    first.execute_batch(MIGRATIONS[0]).unwrap();
    first.pragma_update(None, "user_version", 1).unwrap();
    let mut store = Store { path: path.clone(), database: first };
    store.commit(&[new_account(&bob, None)]).unwrap();
    drop(store);
    let mut store = Store::open(&path).unwrap();
    assert_eq!(store.load().unwrap().accounts, [(*bob).clone()]);
    store.commit(&[Record::Blocked { server: ServerId::of_key(&HOME), is_blocked: true }]).unwrap();
    assert!(folder.path().join("socp.form-1.db").exists());
}

#[test]
fn a_change_that_fails_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(&folder.path().join("socp.db")).unwrap();
    store.commit(&[Record::NewInvite([4; 32])]).unwrap();
    store.commit(&[new_account(&account("alice", 1), Some([9; 32]))]).unwrap_err();
    assert_eq!(store.load().unwrap().accounts, []);
    store.commit(&[new_account(&account("alice", 1), Some([4; 32]))]).unwrap();
    store.commit(&[new_account(&account("alice", 2), None)]).unwrap_err();
    store.commit(&[Record::Disabled { account: account("bob", 1) }]).unwrap_err();
    let loaded = store.load().unwrap();
    assert_eq!(loaded.accounts, [(*account("alice", 1)).clone()]);
    assert!(loaded.invites.is_empty());
}

#[test]
fn epochs_only_grow_whatever_the_clock_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socp.db");
    let mut store = Store::open(&path).unwrap();
    assert_eq!(begin_epoch(&mut store, 1_000), 1_000);
    assert_eq!(begin_epoch(&mut store, 500), 1_001);
    drop(store);
    let mut store = Store::open(&path).unwrap();
    assert_eq!(store.load().unwrap().epoch, 1_001);
    assert_eq!(begin_epoch(&mut store, 1_001), 1_002);
    assert_eq!(begin_epoch(&mut store, 9_000), 9_000);
}

#[test]
fn a_spoilt_statement_is_damage() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(&folder.path().join("socp.db")).unwrap();
    store.commit(&[new_account(&account("alice", 2), None)]).unwrap();
    store.database.execute("UPDATE statement SET signature = x'00' WHERE number = 1", []).unwrap();
    let error = store.load().unwrap_err();
    assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("`alice`"));
}

#[test]
fn users_of_another_identity_are_found() {
    let loaded = Loaded { accounts: vec![(*account("alice", 1)).clone()], ..Loaded::default() };
    assert_eq!(loaded.foreigner(ServerId::of_key(&HOME)), None);
    assert!(loaded.foreigner(ServerId::of_key(&[2; 32])).is_some());
}

#[test]
fn a_database_of_a_later_form_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socp.db");
    let store = Store::open(&path).unwrap();
    store.database.pragma_update(None, "user_version", MIGRATIONS.len() + 1).unwrap();
    drop(store);
    let error = Store::open(&path).unwrap_err();
    let expected = (MIGRATIONS.len() + 1, MIGRATIONS.len());
    assert!(matches!(error, StorageError::Newer { found, known, .. } if (found, known) == expected), "{error}");
}

#[test]
fn a_file_that_is_no_database_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socp.db");
    fs::write(&path, "not a database, but long enough to be looked at").unwrap();
    assert!(Store::open(&path).unwrap_err().to_string().contains("socp.db"));
}

#[test]
fn a_database_is_durable_at_each_commit() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("socp.db")).unwrap();
    let pragma = |name: &str| -> String {
        let query = format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}");
        store.database.query_row(&query, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(pragma("journal_mode"), "wal");
    assert_eq!(pragma("synchronous"), "2");
}

#[test]
fn a_full_disk_is_told_as_such_and_nothing_that_was_accepted_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socp.db");
    let mut store = Store::open(&path).unwrap();
    store.commit(&[new_account(&account("alice", 1), None)]).unwrap();
    let pages: u64 =
        store.database.query_row("SELECT page_count FROM pragma_page_count", [], |row| row.get(0)).unwrap();
    store.database.pragma_update(None, "max_page_count", pages + 5).unwrap();
    let mut accepted = vec![(*account("alice", 1)).clone()];
    let error = loop {
        let next = account(&format!("user-{:03}", accepted.len()), 1);
        match store.commit(&[new_account(&next, None)]) {
            Ok(()) => accepted.push((*next).clone()),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StorageError::Full { .. }) && accepted.len() > 3, "{error}");
    assert!(error.to_string().contains("no room") && error.hint().contains("nothing that was accepted is lost"));
    assert_eq!(store.load().unwrap().accounts, accepted, "it can be read still");
    drop(store);
    let mut store = Store::open(&path).unwrap();
    assert_eq!(store.load().unwrap().accounts, accepted);
    store.commit(&[new_account(&account("zoe", 1), None)]).unwrap();
    assert_eq!(store.check().unwrap().loaded.unwrap().accounts.len(), accepted.len() + 1);
}

#[test]
fn the_log_is_moved_into_the_database_between_commits_and_in_one_only_if_it_is_very_long() {
    let longest = |settles: bool| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socp.db");
        let mut store = Store::open(&path).unwrap();
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..150 {
            let invites: Vec<Record> =
                (0..200).map(|_| Record::NewInvite(std::array::from_fn(|_| random.u8(..)))).collect();
            store.commit(&invites).unwrap();
            if settles {
                store.settle().unwrap();
            }
        }
        assert_eq!(store.load().unwrap().invites.len(), 30_000);
        // It is written from its beginning again, and as long as it ever was.
        fs::metadata(path.with_extension("db-wal")).unwrap().len() / 4_096
    };
    // A commit is of 250 pages at most here.
    let (settled, unsettled) = (longest(true), longest(false));
    assert!((1_000..1_400).contains(&settled), "{settled} pages");
    assert!((4_000..4_400).contains(&unsettled), "{unsettled} pages");
}
