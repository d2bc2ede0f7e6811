//! What was received before: read back from the inbox at home, verified like what arrives, and shown with its time.
//!
//! Looking back makes nobody online, and marks nothing as read. What cannot be opened or checked is shown as such. Messages
//! that were sent are not in an inbox of one's own, since they are encrypted to their recipients alone.

use std::{collections::BTreeMap, sync::Arc};

use socp::{
    id::KeyFingerprint,
    message::{Address, Message},
    user_key::UserKey,
    v1::{ReadInboxRequest, Reason, ReceivedMessage, attach_response},
};

use crate::{
    event::{Event, Past},
    failure::Failure,
    inbox::Log,
    known_keys,
    private_key::PrivateKey,
    seal, sending,
    session::{Account, Session},
    trust::{self, KEY_CHANGED},
    verified::Standing,
};

/// Messages shown at once: as many as an inbox holds by default.
pub const MESSAGES_MAX: usize = 10_000;

/// Messages shown unless more are asked for: a screen.
pub const MESSAGES: usize = 20;

/// Pages read: a server whose inbox never ends is left. Some times what the largest inbox has.
const PAGES_MAX: usize = 10_000;

/// What is to be shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Of whom; of everybody if not said.
    pub sender: Option<Address>,
    /// How many, the latest.
    pub messages: usize,
    /// Only those that this device has not shown.
    pub unread: bool,
}

/// A message as it is in the inbox.
struct Entry {
    received: ReceivedMessage,
    /// Readable, if it is a message at all.
    message: Option<Message>,
    unread: bool,
}

/// What is known of a sender.
enum Sender {
    /// The first is the pinned key; the others were in force before it.
    Known { label: String, keys: Vec<UserKey>, verified: bool },
    /// The key shown is not the pinned one.
    Changed { message: String },
    /// The key cannot be had now.
    Unknown,
}

/// Finds an own key, in force or before.
type OwnKeys<'a> = dyn Fn(KeyFingerprint) -> Option<Arc<PrivateKey>> + 'a;

/// The events that show what is wanted, oldest first, and then one that sums up.
pub async fn read(session: &Session, account: &Arc<Account>, wanted: &Wanted) -> Result<Vec<Event>, Failure> {
    account.key().await?; // And with it those that it renewed.
    let (entries, has_older) = collect(session, wanted, &Log::Inbox.cursor(&account.profile)?).await?;
    let mut senders = BTreeMap::new();
    let mut events = Vec::new();
    for message in entries.iter().filter_map(|entry| entry.message.as_ref()) {
        let address = &message.authorship.sender;
        if !senders.contains_key(address) {
            let sender = sender(session, account, message).await;
            if matches!(sender, Sender::Known { .. }) && account.trust.standing_of(address) == Standing::Lapsed {
                let user = format!("{}@{}", address.user, address.home);
                events.push(Event::VerificationLapsed { user, message: trust::lapsed(address) });
            }
            if let Sender::Changed { message } = &sender {
                let user = format!("{}@{}", address.user, address.home);
                events.push(Event::KeyChanged { user, message: message.clone() });
            }
            senders.insert(address.clone(), sender);
        }
    }
    let me = account.profile.address();
    let (shown, unread) = (entries.len(), entries.iter().filter(|entry| entry.unread).count());
    let account = account.clone();
    let open = move || {
        let own = |fingerprint| account.own_key(fingerprint);
        Ok(entries.into_iter().map(|entry| open(&own, &me, &senders, entry)).collect::<Vec<_>>())
    };
    events.extend(sending::blocking(open).await?);
    events.push(Event::HistoryEnd { shown, unread, has_older });
    Ok(events)
}

/// Whom a name means: asked at the server, or if it cannot tell, the one who is pinned under it.
pub async fn sender_named(session: &Session, account: &Account, user: &str) -> Result<Address, Failure> {
    match sending::ask_for(session, user).await {
        Ok((address, _)) => Ok(address),
        Err(failure) if failure.passing || failure.is(Reason::UserNotFound) => {
            account.trust.only_pinned(user).ok_or(failure)
        }
        Err(failure) => Err(failure),
    }
}

/// Reads pages back from the newest until there are as many as wanted; oldest first, and whether there are older ones.
async fn collect(session: &Session, wanted: &Wanted, cursor: &str) -> Result<(Vec<Entry>, bool), Failure> {
    let mut found = Vec::new();
    let mut before_cursor = String::new();
    let mut unread = true;
    for _ in 0..PAGES_MAX {
        let request = session.request(ReadInboxRequest { before_cursor });
        let page = session.messages().read_inbox(request).await?.into_inner();
        let oldest = page.entries.first().map(|entry| entry.cursor.clone());
        for entry in page.entries.into_iter().rev() {
            // The place up to which this device has shown everything.
            unread &= entry.cursor != cursor;
            if wanted.unread && !unread {
                found.reverse();
                return Ok((found, true));
            }
            // Whatever else may be in an inbox is no message.
            let Some(attach_response::Event::Message(received)) = entry.event else { continue };
            let message = received.message.as_ref().and_then(|sealed| Message::parse(sealed).ok());
            if message.as_ref().is_some_and(|message| message.receipt.is_some()) {
                continue;
            }
            let sender = message.as_ref().map(|message| &message.authorship.sender);
            if wanted.sender.is_some() && wanted.sender.as_ref() != sender {
                continue;
            }
            if found.len() == wanted.messages {
                found.reverse();
                return Ok((found, true));
            }
            found.push(Entry { received, message, unread });
        }
        match oldest {
            Some(oldest) if page.has_older => before_cursor = oldest,
            _ => {
                found.reverse();
                return Ok((found, false));
            }
        }
    }
    Err(Failure::failed("the inbox at the server has no end"))
}

/// Asks for the sender's key; while their home cannot be reached the pinned one will do, if it was kept.
async fn sender(session: &Session, account: &Account, message: &Message) -> Sender {
    let address = &message.authorship.sender;
    let user = format!("{}@{}", address.user, address.home);
    let known = |label: String, key: UserKey, earlier: Vec<UserKey>| {
        let keys = [vec![key], earlier].concat();
        Sender::Known { label, keys, verified: account.trust.standing_of(address) == Standing::Verified }
    };
    match sending::look_up(session, account, &user).await {
        Ok(found) => {
            known_keys::keep(&account.profile, &found.key);
            known(found.label, found.key, found.earlier_keys)
        }
        Err(failure) if failure.reason == KEY_CHANGED => Sender::Changed { message: failure.message },
        Err(failure) => {
            tracing::debug!(%failure, "the sender's home does not tell the key");
            known_keys::pinned(account, address).map_or(Sender::Unknown, |key| known(user, key, Vec::new()))
        }
    }
}

/// The text of a message, under the sender's key that it names and the own one.
fn read_under(known: &[UserKey], own: &OwnKeys<'_>, me: &Address, message: &Message) -> Option<String> {
    let signer = known.iter().find(|key| key.fingerprint() == message.authorship.sender_key)?;
    seal::open(&*own(message.recipient_key)?, me, signer, message)
}

/// Verifies and opens one message. Why one cannot be opened is told to nobody.
fn open(own: &OwnKeys<'_>, me: &Address, senders: &BTreeMap<Address, Sender>, entry: Entry) -> Event {
    let Entry { received, message, unread } = entry;
    let received_unix_ms = received.received_unix_ms;
    let Some(message) = message else {
        return Event::PastUnreadable { from: None, why: "unreadable", received_unix_ms, unread };
    };
    let claimed = &message.authorship.sender;
    let unreadable = |why, label: Option<&String>| {
        let from = label.cloned().unwrap_or_else(|| format!("{}@{}", claimed.user, claimed.home));
        Event::PastUnreadable { from: Some(from), why, received_unix_ms, unread }
    };
    match senders.get(claimed) {
        Some(Sender::Known { label, keys, verified }) => match read_under(keys, own, me, &message) {
            Some(text) => Event::Past(Past {
                from: label.clone(),
                id: message.authorship.id.to_string(),
                text,
                sent_unix_ms: message.authorship.time_unix_ms,
                received_unix_ms,
                unread,
                verified: *verified,
            }),
            None => unreadable("unreadable", Some(label)),
        },
        Some(Sender::Changed { .. }) => unreadable("unreadable", None),
        Some(Sender::Unknown) | None => unreadable("unverified", None),
    }
}

#[cfg(test)]
mod tests {
    use socp::{id::ServerId, name::UserName, v1::SealedMessage};

    use super::*;
    use crate::private_key::test_keys::*;

    fn address(name: &str) -> Address {
        Address { home: ServerId::of_key(&[1; 32]), user: UserName::parse(name).unwrap() }
    }

    fn entry(by: &PrivateKey, from: &str, to: &PrivateKey) -> Entry {
        let draft = seal::Draft {
            message_id: "01890a5d-ac96-774b-bcce-b302099a8057",
            sender: &address(from),
            recipient: &address("bob"),
            recipient_key: to.public(),
            time_unix_ms: 1_700_000_000_000,
            wants_receipts: false,
            text: "hello",
            beside: &seal::Beside::Nothing,
        };
        let sealed: SealedMessage = seal::seal(by, &draft).unwrap();
        let message = Message::parse(&sealed).ok();
        Entry { received: ReceivedMessage { message: Some(sealed), received_unix_ms: 7 }, message, unread: true }
    }

    /// What bob is shown, who knows alice's key and no other.
    fn shown(entry: Entry) -> Event {
        let alice =
            Sender::Known { label: "alice@server-a".into(), keys: vec![ALICE.public().clone()], verified: true };
        let senders = [
            (address("alice"), alice),
            (address("carol"), Sender::Unknown),
            (address("dave"), Sender::Changed { message: "CHANGED".into() }),
        ];
        open(&|_| Some(BOB.clone()), &address("bob"), &senders.into(), entry)
    }

    #[test]
    fn only_what_the_pinned_key_signed_for_this_key_is_shown_with_its_text() {
        let Event::Past(past) = shown(entry(&ALICE, "alice", &BOB)) else { panic!("it is good") };
        assert_eq!((&*past.from, &*past.text, past.received_unix_ms), ("alice@server-a", "hello", 7));
    }

    #[test]
    fn what_cannot_be_opened_or_checked_is_shown_as_such_and_never_with_its_text() {
        let home = ServerId::of_key(&[1; 32]);
        let no_message = Entry { message: None, ..entry(&ALICE, "alice", &BOB) };
        for (what, entry, from, why) in [
            ("signed by another key", entry(&MALLORY, "alice", &BOB), Some("alice@server-a".to_owned()), "unreadable"),
            ("for another key", entry(&ALICE, "alice", &MALLORY), Some("alice@server-a".into()), "unreadable"),
            (
                "of one whose key cannot be had",
                entry(&ALICE, "carol", &BOB),
                Some(format!("carol@{home}")),
                "unverified",
            ),
            ("of one whose key changed", entry(&ALICE, "dave", &BOB), Some(format!("dave@{home}")), "unreadable"),
            ("no message at all", no_message, None, "unreadable"),
        ] {
            assert_eq!(shown(entry), Event::PastUnreadable { from, why, received_unix_ms: 7, unread: true }, "{what}");
        }
    }
}
