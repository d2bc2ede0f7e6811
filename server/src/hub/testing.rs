//! Entries and readers for the hub's tests.

use std::sync::Arc;

use prost::{Message as _, bytes::Bytes};
use socp::{
    directory::{Directory, Entry},
    id::ServerId,
    message::Address,
    name::{ServerName, UserName},
    statement::KeyStatement,
    user_key::UserKey,
    v1::{RemovalReason, SignedKeyStatement, WatchDirectoryResponse},
};

use super::{
    Hub,
    wire::{self, Shown},
};

/// The id of the test server with this number, which is named `server-NUMBER`.
pub fn home(number: u8) -> ServerId {
    ServerId::of_key(&[number; 32])
}

/// DER of a key of the right form that is nobody's.
fn spki() -> Bytes {
    let mut spki = vec![0x30, 0x82, 0x02, 0x22];
    spki.extend([0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00]);
    spki.extend([0x03, 0x82, 0x02, 0x0f, 0x00, 0x30, 0x82, 0x02, 0x0a, 0x02, 0x82, 0x02, 0x01, 0x00]);
    spki.extend([0xff; 512]);
    spki.extend([0x02, 0x03, 0x01, 0x00, 0x01]);
    spki.into()
}

/// A user who is online.
pub fn entry(name: &str, number: u8) -> Entry {
    let user = UserName::parse(name).unwrap();
    let key = UserKey::parse(&spki()).unwrap();
    let signed = SignedKeyStatement {
        statement: KeyStatement::encode(&user, home(number), &key, 1, None).into(),
        signature: Bytes::from_static(&[7; 512]),
        previous_signature: Bytes::new(),
    };
    Entry {
        address: Address { home: home(number), user },
        server_name: ServerName::parse(&format!("server-{number}")).unwrap(),
        display_name: "Somebody".into(),
        status: "here".into(),
        statement: Arc::new(KeyStatement::parse(&signed).unwrap()),
        epoch: 1,
        online_since: 1,
        sessions: 1,
    }
}

/// An entry with everything as long as it may be.
pub fn largest_entry() -> Entry {
    use socp::limits::{DISPLAY_NAME_BYTES_MAX, KEY_STATEMENT_BYTES_MAX, NAME_BYTES_MAX, STATUS_BYTES_MAX};
    let longest = "x".repeat(NAME_BYTES_MAX);
    let mut entry = entry(&longest, 1);
    entry.server_name = ServerName::parse(&longest).unwrap();
    entry.display_name = "x".repeat(DISPLAY_NAME_BYTES_MAX).into();
    entry.status = "x".repeat(STATUS_BYTES_MAX).into();
    let mut signed = entry.statement.signed.clone();
    signed.signature = vec![0; KEY_STATEMENT_BYTES_MAX - signed.statement.len()].into();
    entry.statement = Arc::new(KeyStatement::parse(&signed).unwrap());
    entry
}

/// An entry as the hub keeps it.
pub fn shown(name: &str, number: u8) -> Arc<Shown> {
    Shown::new(Arc::new(entry(name, number)))
}

/// Reads the message in a frame.
pub fn changes(frame: &Bytes) -> WatchDirectoryResponse {
    WatchDirectoryResponse::decode(wire::message(frame)).unwrap()
}

/// A directory whose every change is published.
pub struct Published {
    /// The hub.
    pub hub: Hub,
    /// What the node would have.
    pub directory: Directory,
}

impl Published {
    /// Begins with nobody.
    pub fn new(hub: Hub) -> Self {
        Self { hub, directory: Directory::default() }
    }

    /// Shows and hides users in one revision; `None` hides.
    pub fn replace(&mut self, users: impl IntoIterator<Item = (Address, Option<Entry>)>, reason: RemovalReason) {
        let delta = self.directory.replace(users, reason).expect("the test changes something");
        self.hub.publish(&delta);
    }

    /// Shows a user.
    pub fn show(&mut self, entry: Entry) {
        self.replace([(entry.address.clone(), Some(entry))], RemovalReason::Left);
    }

    /// Hides a user.
    pub fn hide(&mut self, entry: &Entry) {
        self.replace([(entry.address.clone(), None)], RemovalReason::Left);
    }
}
