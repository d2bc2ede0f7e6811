//! What `chat` and `watch` tell: one event each, as a line of text or as a JSON object.
//!
//! With `--json` every event is one object on a line of its own, flushed at once: `event` says which it is, and
//! `unix_ns` when it was read from the network, by this machine's clock. The objects are described in
//! [`HELP`], which `socp chat --help` prints.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use socp::{
    id::hex,
    v1::{DirectoryEntry, RemovalReason},
};

use crate::{
    directory::{Entry, Notice},
    failure::Failure,
};

/// The description of the JSON events.
pub const HELP: &str = r#"With --json, one object a line; every object has "event" and "unix_ns" (when it was read, nanoseconds since 1970):
  {"event":"attached","user":"bob@server-b","session_id":HEX,"transport":"h3"|"tcp","server_id":HEX,
      "asked_unix_ns":..}                                            (when the client asked to be online)
  {"event":"watching","transport":"h3"|"tcp","server_id":HEX}                        (watch only, in place of attached)
  {"event":"added","user":"alice@server-a","name":..,"server":..,"server_id":HEX,"display_name":..,"status":..,
      "fingerprint":HEX,"sessions":1,"epoch":..,"online_since":..,"revision":3,"initial":true|false}
  {"event":"updated", ...as added without "initial"...}
  {"event":"removed","user":..,"name":..,"server_id":HEX,"reason":"left"|"unreachable"|"moved","revision":4}
  {"event":"moved","user":"bob@server-a","to":"bob@server-c","server_id":HEX,"fingerprint":HEX,"pinned":true|false}
                                        (the user's key says so, and has the new name too; false: not asked yet)
  {"event":"move_refused","user":..,"message":..}            (the user's key does not say so, or the new name has another)
  {"event":"synced","entries":3,"revision":4,"digest":HEX|null,"digest_ok":true|false|null}
  {"event":"bookmark","revision":4,"digest":HEX|null,"digest_ok":true|false|null}
                  (the server's digest, and whether the view has the same; null: a filtered watch)
  {"event":"unread","messages":3}                (so many came while this device was away, with outcomes and receipts; they follow,
                                                  and messages say "unread":true)
  {"event":"message","from":"bob@server-b","id":UUID,"text":"hi","sent_unix_ms":..,"received_unix_ms":..,"unread":true|false,
      "verified":true|false}                                          (whether the sender's key was compared: `socp verify`)
  {"event":"post","from":..,"id":UUID,"text":..,"sent_unix_ms":..,"received_unix_ms":..,"unread":false,"verified":true|false}
  {"event":"file","from":..,"id":UUID,"name":"report.pdf","bytes":1300000,"sent_unix_ms":..,"received_unix_ms":..,
      "verified":true|false}
                             (a file that may be fetched: `socp receive-file ID`, or at once with `socp chat --files DIR`)
  {"event":"file_saved","from":..,"id":UUID,"path":"/home/bob/report.pdf","bytes":1300000}     (whole, checked and on disk)
  {"event":"file_progress","bytes":650000,"of":1300000}             (send-file and receive-file only; at each sixteenth)
  {"event":"unreadable","kind":"message"|"post"|"outcome"}
  {"event":"gap","missed":3}                                         (messages grew too old before this device read them)
  {"event":"channel_gap","missed":3}               (so many posts at most were dropped from the log while this device was away)
  {"event":"sent","kind":"message","to":"bob@server-b","id":UUID,"outcome":"handed_over"|"stored"|"queued",
      "recipients":1,"silent":[]}                  (stored: on the disk of the recipient's server, until they come online;
                       queued: on the disk of your server, which goes on trying to reach the recipient's; then "settled")
  {"event":"sent","kind":"file", ...as a message...}                 (its bytes are at the own server, ready to be fetched)
  {"event":"settled","to":"bob@SERVER-ID","id":UUID,"outcome":"handed_over"|"stored"|"rejected"|"expired",
      "reason":"USER_NOT_FOUND"|null}                                          (what became of a message that was queued)
  {"event":"receipt","from":"bob@server-b","kind":"delivered"|"read","ids":[UUID..],"received_unix_ms":..}
                  (a device of theirs has these messages of yours, or has shown them; by their word, and only if you asked)
  {"event":"sent","kind":"post","to":"all","id":UUID,"outcome":"handed_over","recipients":2,"silent":[HEX..]}
  {"event":"recipient_offline","user":"bob@server-b"}                (the one addressed last has left)
  {"event":"key_changed","user":..,"message":..}
  {"event":"verification_lapsed","user":..,"message":..}        (another key than the one that was compared; nothing is sent to it)
  {"event":"user", ...as added...} and {"event":"listed","entries":2}                (answers /list)
  {"event":"who","user":..,"server_id":HEX,"online":true,"fingerprint":HEX,"statements":1,"verified":false}
                                                                     (then "moved", if so)
  {"event":"history","from":..,"id":UUID,"text":..,"sent_unix_ms":..,"received_unix_ms":..,"unread":true|false,
      "verified":true|false}
  {"event":"history_unreadable","from":..|null,"why":"unreadable"|"unverified","received_unix_ms":..,"unread":true|false}
      (not what the pinned key signed for this one; or its sender's key cannot be had now; "from" is what it says of itself)
  {"event":"history_end","shown":20,"unread":3,"has_older":true|false}                            (the end of /history)
  {"event":"error","reason":"RECIPIENT_OFFLINE","message":..,"hint":..,"command":"/tell bob hi"}
  {"event":"disconnected","reason":..,"message":..,"retry_ms":250}
  {"event":"reloading","reason":"REVISION_COMPACTED"}                (the watch starts over; only differences follow)
  {"event":"detached","asked_unix_ns":..}                            (the last one of a chat that ended by itself)"#;

/// Something that is told.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are described once, in `HELP`")]
pub enum Event {
    /// The device receives from here on.
    Attached { user: String, session_id: String, transport: String, server_id: String, asked_unix_ns: u64 },
    /// The watch begins.
    Watching { transport: String, server_id: String },
    /// A user came online.
    Added {
        #[serde(flatten)]
        user: Shown,
        revision: u64,
        initial: bool,
    },
    /// A user's entry changed.
    Updated {
        #[serde(flatten)]
        user: Shown,
        revision: u64,
        #[serde(skip)]
        visibly: bool,
    },
    /// A user is no longer shown.
    Removed { user: String, name: String, server_id: String, reason: &'static str, revision: u64 },
    /// The view is complete.
    Synced { entries: usize, revision: u64, digest: Option<String>, digest_ok: Option<bool> },
    /// Nothing changed.
    Bookmark { revision: u64, digest: Option<String>, digest_ok: Option<bool> },
    /// So many messages came while this device was away.
    Unread { messages: u64 },
    /// A message that was opened.
    Message(Received),
    /// A post that was opened.
    Post(Received),
    /// A file that may be fetched.
    File {
        from: String,
        id: String,
        name: String,
        bytes: u64,
        sent_unix_ms: u64,
        received_unix_ms: i64,
        verified: bool,
    },
    /// How far the one file is.
    FileProgress { bytes: u64, of: u64 },
    /// A file that was fetched.
    FileSaved { from: String, id: String, path: String, bytes: u64 },
    /// Something that could not be opened; why is told to nobody.
    Unreadable { kind: &'static str },
    /// Messages that this device never read are gone.
    Gap { missed: u64 },
    /// So many posts in the public channel are gone that this device never read, at most.
    ChannelGap { missed: u64 },
    /// What became of something sent.
    Sent(Sent),
    /// What became of a message that was queued.
    Settled { to: String, id: String, outcome: &'static str, reason: Option<String> },
    /// The recipient's word about messages.
    Receipt(Receipted),
    /// The user addressed last has left.
    RecipientOffline { user: String },
    /// A user is at another home now, by their own word.
    Moved { user: String, to: String, server_id: String, fingerprint: String, pinned: bool },
    /// A user is said to have moved, and it is not their word, or the new address is somebody else's.
    MoveRefused { user: String, message: String },
    /// A user's key is not the pinned one.
    KeyChanged { user: String, message: String },
    /// A user's key is pinned rightly, and is not the one that was compared.
    VerificationLapsed { user: String, message: String },
    /// One line of a list.
    User(Shown),
    /// The end of a list.
    Listed { entries: usize },
    /// What is known of one user.
    Who { user: String, server_id: String, online: bool, fingerprint: String, statements: usize, verified: bool },
    /// A message read back.
    #[serde(rename = "history")]
    Past(Past),
    /// A message read back that cannot be opened, or not be checked now.
    #[serde(rename = "history_unreadable")]
    PastUnreadable { from: Option<String>, why: &'static str, received_unix_ms: i64, unread: bool },
    /// The end of what was read back.
    HistoryEnd { shown: usize, unread: usize, has_older: bool },
    /// A command that was not carried out.
    Error { reason: String, message: String, hint: Option<String>, command: Option<String> },
    /// The connection is lost and will be made again.
    Disconnected { reason: String, message: String, retry_ms: u64 },
    /// The watch starts over over the same connection.
    Reloading { reason: String },
    /// The device is offline.
    Detached { asked_unix_ns: u64 },
}

/// A user as shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the fields are those of `DirectoryEntry`")]
pub struct Shown {
    pub user: String,
    pub name: String,
    pub server: String,
    pub server_id: String,
    pub display_name: String,
    pub status: String,
    pub fingerprint: String,
    pub sessions: u32,
    pub epoch: u64,
    pub online_since: u64,
}

/// A text that arrived.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the fields are described once, in `HELP`")]
pub struct Received {
    pub from: String,
    pub id: String,
    pub text: String,
    pub sent_unix_ms: u64,
    pub received_unix_ms: i64,
    pub unread: bool,
    pub verified: bool,
}

/// A receipt that arrived.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the fields are described once, in `HELP`")]
pub struct Receipted {
    pub from: String,
    pub kind: &'static str,
    pub ids: Vec<String>,
    pub received_unix_ms: i64,
}

/// A text that arrived some time ago.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the fields are described once, in `HELP`")]
pub struct Past {
    pub from: String,
    pub id: String,
    pub text: String,
    pub sent_unix_ms: u64,
    pub received_unix_ms: i64,
    pub unread: bool,
    pub verified: bool,
}

/// A text that was sent, and what the recipients' homes said.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the fields are described once, in `HELP`")]
pub struct Sent {
    pub kind: &'static str,
    pub to: String,
    pub id: String,
    pub outcome: &'static str,
    pub recipients: u32,
    pub silent: Vec<String>,
}

/// An event with the time it was read.
#[derive(Serialize)]
pub struct Stamped<'a> {
    /// The event.
    #[serde(flatten)]
    pub event: &'a Event,
    /// Nanoseconds since 1970.
    pub unix_ns: u64,
}

/// The wall clock, nanoseconds since 1970.
pub fn now_unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The wall clock, milliseconds since 1970, as statements want it.
pub fn now_unix_ms() -> i64 {
    i64::try_from(now_unix_ns() / 1_000_000).unwrap_or(i64::MAX)
}

impl From<&DirectoryEntry> for Shown {
    fn from(entry: &DirectoryEntry) -> Self {
        Self {
            user: entry.user.clone(),
            name: entry.name.clone(),
            server: entry.server_name.clone(),
            server_id: entry.server_id.clone(),
            display_name: entry.display_name.clone(),
            status: entry.status.clone(),
            fingerprint: entry.key_fingerprint.clone(),
            sessions: entry.sessions,
            epoch: entry.epoch,
            online_since: entry.online_since,
        }
    }
}

impl From<&Entry> for Shown {
    fn from(entry: &Entry) -> Self {
        Self::from(&entry.wire)
    }
}

impl From<&Notice> for Event {
    fn from(notice: &Notice) -> Self {
        match notice {
            Notice::Added { entry, revision, initial } => {
                Self::Added { user: (&**entry).into(), revision: *revision, initial: *initial }
            }
            Notice::Updated { before, entry, revision } => {
                Self::Updated { user: (&**entry).into(), revision: *revision, visibly: entry.looks_different(before) }
            }
            Notice::Removed { entry, reason, revision, .. } => Self::Removed {
                user: entry.wire.user.clone(),
                name: entry.wire.name.clone(),
                server_id: entry.wire.server_id.clone(),
                reason: removal(*reason),
                revision: *revision,
            },
            Notice::Synced { revision, entries, digest, digest_ok } => {
                let digest = digest.map(|digest| hex(digest.as_bytes()));
                Self::Synced { entries: *entries, revision: *revision, digest, digest_ok: *digest_ok }
            }
            Notice::Bookmark { revision, digest, digest_ok } => {
                let digest = digest.map(|digest| hex(digest.as_bytes()));
                Self::Bookmark { revision: *revision, digest, digest_ok: *digest_ok }
            }
        }
    }
}

fn removal(reason: RemovalReason) -> &'static str {
    match reason {
        RemovalReason::Unspecified | RemovalReason::Left => "left",
        RemovalReason::Unreachable => "unreachable",
        RemovalReason::Moved => "moved",
    }
}

impl Event {
    /// The event of a command that failed.
    pub fn error(failure: Failure, command: Option<String>) -> Self {
        Self::Error { reason: failure.reason, message: failure.message, hint: failure.hint, command }
    }
}

impl fmt::Display for Stamped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_flat_object_on_one_line() {
        let text = "two\nlines".to_owned();
        let (from, id) = ("bob@b".into(), "i".into());
        let received = Received { from, id, text, sent_unix_ms: 1, received_unix_ms: 2, unread: false, verified: true };
        let line = Stamped { event: &Event::Message(received), unix_ns: 3 }.to_string();
        assert_eq!(
            line,
            r#"{"event":"message","from":"bob@b","id":"i","text":"two\nlines","sent_unix_ms":1,"received_unix_ms":2,"unread":false,"verified":true,"unix_ns":3}"#
        );
        let synced = Event::Synced { entries: 3, revision: 4, digest: Some("0a".into()), digest_ok: Some(true) };
        let line = Stamped { event: &synced, unix_ns: 3 }.to_string();
        assert_eq!(line, r#"{"event":"synced","entries":3,"revision":4,"digest":"0a","digest_ok":true,"unix_ns":3}"#);
        let added = Event::Added { user: Shown::from(&DirectoryEntry::default()), revision: 1, initial: false };
        let line = Stamped { event: &added, unix_ns: 3 }.to_string();
        assert!(line.starts_with(r#"{"event":"added","user":"","name":"""#), "{line}");
        assert!(line.ends_with(r#""revision":1,"initial":false,"unix_ns":3}"#), "{line}");
    }
}
