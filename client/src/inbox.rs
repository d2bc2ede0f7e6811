//! What arrives: verified against the sender's pinned key, opened, and shown once.
//!
//! The profile holds the cursors of the last message and the last post that were shown, so that the next run goes on after them. They
//! are written after showing: a run that is killed between the two shows a message again, and none is lost.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use prost::bytes::Bytes;
use socp::{
    id::{KeyFingerprint, MessageId, hex},
    message::{Address, Authorship, Message, Post},
    user_key::UserKey,
    v1::{AcknowledgeMessagesRequest, GetChannelKeyRequest, ReceivedMessage, ReceivedOutcome, ReceivedPost},
};

use crate::{
    channel_key::OthersKeys,
    content,
    event::{Event, Receipted, Received},
    failure::Failure,
    file::Manifest,
    known_keys, outcome, post, private_file,
    private_key::{PrivateKey, SymmetricKey},
    profile::Profile,
    receipt::{self, Receipt},
    seal::{self, Beside},
    sending::{self, Member},
    session::{Account, Session},
    trust::KEY_CHANGED,
    verified::Standing,
};

/// The file of a profile that holds the inbox's cursor.
const CURSOR_FILE: &str = "inbox";

/// The file of a profile that holds the public channel's cursor.
const CHANNEL_CURSOR_FILE: &str = "channel";

/// The file of a profile that holds the device's id.
const DEVICE_FILE: &str = "device";

/// The id of the device that this profile is, made the first time.
pub fn device_id(profile: &Profile) -> Result<String, Failure> {
    let path = profile.file(DEVICE_FILE);
    if let Some(id) = private_file::read(&path)? {
        return Ok(id.trim().to_owned());
    }
    let id = hex(&content::random::<16>()?);
    private_file::write(&path, id.as_bytes())?;
    Ok(id)
}

/// Tells the home that this device has all up to this cursor. It is told again with the next one, and when it attaches.
pub async fn acknowledge(session: Session, cursor: String) {
    let request = session.request(AcknowledgeMessagesRequest { cursor });
    if let Err(status) = session.messages().acknowledge_messages(request).await {
        tracing::debug!(%status, "the home does not know what was shown");
    }
}

/// Which log something stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Log {
    /// The user's inbox.
    Inbox,
    /// The public channel, as the home keeps it.
    Channel,
}

impl Log {
    fn file(self) -> &'static str {
        match self {
            Self::Inbox => CURSOR_FILE,
            Self::Channel => CHANNEL_CURSOR_FILE,
        }
    }

    /// The cursor of the last entry that a run of this profile has shown; empty if there was none.
    pub fn cursor(self, profile: &Profile) -> Result<String, Failure> {
        Ok(private_file::read(&profile.file(self.file()))?.map(|text| text.trim().to_owned()).unwrap_or_default())
    }

    /// Notes that all up to this cursor was shown.
    pub fn keep_cursor(self, profile: &Profile, cursor: &str) -> Result<(), Failure> {
        private_file::write(&profile.file(self.file()), cursor.as_bytes())
    }
}

/// Ids remembered in a run, so that nothing is shown twice.
const SEEN_MAX: usize = 65_536;

/// Something that arrived and is not opened yet.
pub enum Arrival {
    /// A message to this user.
    Message(ReceivedMessage),
    /// A post.
    Post(ReceivedPost),
    /// What became of a message from this user that was queued.
    Outcome(ReceivedOutcome),
}

impl Arrival {
    fn kind(&self) -> &'static str {
        match self {
            Self::Message(_) => "message",
            Self::Post(_) => "post",
            Self::Outcome(_) => "outcome",
        }
    }

    /// Which log it stands in.
    pub fn log(&self) -> Log {
        match self {
            Self::Message(_) | Self::Outcome(_) => Log::Inbox,
            Self::Post(_) => Log::Channel,
        }
    }

    /// Who claims to have made it; `None` if it cannot be read at all.
    pub fn authorship(&self) -> Option<Authorship> {
        match self {
            Self::Message(received) => {
                Message::parse(received.message.as_ref()?).ok().map(|message| message.authorship)
            }
            Self::Post(received) => Post::parse(received.post.as_ref()?).ok().map(|post| post.authorship),
            Self::Outcome(_) => None,
        }
    }
}

/// What came of an arrival.
pub struct Opened {
    /// For the user.
    pub event: Event,
    /// When it was read from the network.
    pub unix_ns: u64,
    /// What identifies it, if it was verified.
    pub seen: Option<(Address, MessageId)>,
    /// The sender, if another key of theirs was compared than the one that signed.
    pub lapsed: Option<Address>,
    /// Whether its sender asks for a receipt.
    pub wants_receipt: bool,
    /// A channel key under which it was opened.
    pub channel_key: Option<(Address, KeyFingerprint, [u8; 16], SymmetricKey)>,
    /// What is needed to fetch the file that came with it.
    pub file: Option<Box<Offer>>,
}

/// A file that somebody sends.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Who, for people.
    pub from: String,
    /// Id of the message it came with.
    pub id: String,
    /// What it needs to be fetched.
    pub manifest: Manifest,
}

/// What was shown in this run.
#[derive(Default)]
pub struct Seen {
    ids: BTreeSet<(Address, MessageId)>,
    order: VecDeque<(Address, MessageId)>,
}

impl Seen {
    /// Whether this was shown already.
    pub fn contains(&self, authorship: &Authorship) -> bool {
        self.ids.contains(&(authorship.sender.clone(), authorship.id))
    }

    /// Notes that it was shown; the oldest is forgotten beyond the limit.
    pub fn insert(&mut self, id: (Address, MessageId)) {
        if self.ids.insert(id.clone()) {
            self.order.push_back(id);
        }
        if self.order.len() > SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

/// What opening needs.
pub struct Opener {
    /// Where to ask for a sender whom the directory does not show.
    pub session: Session,
    /// Me.
    pub account: Arc<Account>,
    /// My key.
    pub key: Arc<PrivateKey>,
    /// The sender as the directory shows them: label and entry.
    pub shown: Option<(String, Member)>,
    /// The sender's channel key that a post names, if it is known.
    pub channel_key: Option<SymmetricKey>,
    /// Whether it was in the inbox before this device attached.
    pub unread: bool,
}

/// The channel key that a post was made under, where it is known.
pub fn known_channel_key(arrival: &Arrival, keys: &OthersKeys) -> Option<SymmetricKey> {
    let Arrival::Post(received) = arrival else { return None };
    let post = Post::parse(received.post.as_ref()?).ok()?;
    keys.find(&post.authorship.sender, post.authorship.sender_key, post.key_id).cloned()
}

impl Opener {
    /// Verifies and opens. What cannot be opened is unreadable, and nobody is told why; only a changed key is.
    pub async fn open(self, arrival: Arrival, unix_ns: u64) -> Vec<Opened> {
        let told = |event| Opened {
            event,
            unix_ns,
            seen: None,
            lapsed: None,
            wants_receipt: false,
            channel_key: None,
            file: None,
        };
        let unreadable = || told(Event::Unreadable { kind: arrival.kind() });
        if let Arrival::Outcome(received) = &arrival {
            let settled = outcome::settled(received, self.account.profile.address().home);
            return vec![settled.map_or_else(|_| unreadable(), told)];
        }
        let Some(authorship) = arrival.authorship() else { return vec![unreadable()] };
        let (label, sender_key) = match self.sender(&authorship).await {
            Ok(sender) => sender,
            Err(failure) if failure.reason == KEY_CHANGED => {
                let user = format!("{}@{}", authorship.sender.user, authorship.sender.home);
                return vec![told(Event::KeyChanged { user, message: failure.message }), unreadable()];
            }
            Err(failure) => {
                tracing::debug!(%failure, "the sender of an arrival is not known");
                return vec![unreadable()];
            }
        };
        let kind = arrival.kind();
        let arrival = self.with_channel_key(arrival, &authorship.sender).await;
        let work = sending::blocking(move || Ok(self.decrypt(arrival, label, &sender_key, unix_ns)));
        let opened = work.await.ok().flatten();
        vec![opened.unwrap_or_else(|| told(Event::Unreadable { kind }))]
    }

    /// Asks the home for the channel key of a post that brings none, where this device lost it, or never had it.
    async fn with_channel_key(&self, arrival: Arrival, sender: &Address) -> Arrival {
        let Arrival::Post(mut received) = arrival else { return arrival };
        if self.channel_key.is_some() || !received.wrapped_channel_key.is_empty() {
            return Arrival::Post(received);
        }
        if let Some(post) = received.post.as_ref().and_then(|sealed| Post::parse(sealed).ok()) {
            let wanted = GetChannelKeyRequest {
                sender: sender.user.to_string(),
                sender_home_id: sender.home.to_string(),
                key_id: Bytes::copy_from_slice(&post.key_id),
            };
            match self.session.messages().get_channel_key(self.session.request(wanted)).await {
                Ok(response) => received.wrapped_channel_key = response.into_inner().wrapped_channel_key,
                Err(status) => tracing::debug!(%status, "the home gives no channel key"),
            }
        }
        Arrival::Post(received)
    }

    /// The sender's label and key: from the directory where it shows the key that signed, else from the server, and pinned either way.
    async fn sender(&self, authorship: &Authorship) -> Result<(String, UserKey), Failure> {
        if let Some((label, member)) = &self.shown {
            let key = sending::key_of(&self.session, &self.account, member).await?;
            if key.fingerprint() == authorship.sender_key {
                return Ok((label.clone(), key));
            }
        }
        let user = format!("{}@{}", authorship.sender.user, authorship.sender.home);
        match sending::look_up(&self.session, &self.account, &user).await {
            Ok(found) => {
                let key = found.key_with(authorship.sender_key).cloned();
                Ok((found.label, key.unwrap_or(found.key)))
            }
            // While their home cannot be reached.
            Err(failure) if failure.passing => {
                let key = known_keys::pinned(&self.account, &authorship.sender).ok_or(failure)?;
                Ok((user, key))
            }
            Err(failure) => Err(failure),
        }
    }

    fn decrypt(self, arrival: Arrival, label: String, sender_key: &UserKey, unix_ns: u64) -> Option<Opened> {
        let standing = self.account.trust.standing_of(&arrival.authorship()?.sender);
        let lapsed = |sender: &Address| (standing == Standing::Lapsed).then(|| sender.clone());
        let received = |authorship: &Authorship, text, received_unix_ms| Received {
            from: label.clone(),
            id: authorship.id.to_string(),
            text,
            sent_unix_ms: authorship.time_unix_ms,
            received_unix_ms,
            unread: self.unread,
            verified: standing == Standing::Verified,
        };
        match arrival {
            Arrival::Message(arrival) => {
                let message = Message::parse(&arrival.message?).ok()?;
                let key = self.account.own_key(message.recipient_key).unwrap_or_else(|| self.key.clone());
                let text = seal::open(&key, &self.account.profile.address(), sender_key, &message)?;
                known_keys::keep(&self.account.profile, sender_key);
                // One of which this cannot be read is unreadable as a whole.
                let beside = seal::open_beside(&key, &message)?;
                let authorship = message.authorship;
                let received = received(&authorship, text, arrival.received_unix_ms);
                let wants_receipt = message.wants_receipts && !matches!(beside, Beside::Receipt(_));
                let (event, file) = match beside {
                    Beside::Nothing => (Event::Message(received), None),
                    Beside::File(manifest) => offered(received, manifest),
                    Beside::Receipt(receipt) => (Event::Receipt(told_by(received, &receipt)), None),
                };
                let lapsed = lapsed(&authorship.sender);
                let seen = Some((authorship.sender, authorship.id));
                Some(Opened { event, unix_ns, seen, lapsed, wants_receipt, channel_key: None, file })
            }
            Arrival::Post(arrival) => {
                let post = Post::parse(&arrival.post?).ok()?;
                if !post::is_by(sender_key, &post) {
                    return None;
                }
                // The commitment in the signed post binds whichever of the two is the right one.
                let wrapped = || self.key.unwrap(&arrival.wrapped_channel_key);
                let attempt = |key: SymmetricKey| post::decrypt(&key, &post).map(|text| (key, text));
                let (key, text) = self.channel_key.clone().and_then(attempt).or_else(|| wrapped().and_then(attempt))?;
                let authorship = post.authorship;
                let event = Event::Post(received(&authorship, text, arrival.received_unix_ms));
                let channel_key = Some((authorship.sender.clone(), authorship.sender_key, post.key_id, key));
                let lapsed = lapsed(&authorship.sender);
                let seen = Some((authorship.sender, authorship.id));
                Some(Opened { event, unix_ns, seen, lapsed, wants_receipt: false, channel_key, file: None })
            }
            Arrival::Outcome(_) => None,
        }
    }
}

/// What is told of a receipt.
fn told_by(received: Received, receipt: &Receipt) -> Receipted {
    let Received { from, received_unix_ms, .. } = received;
    let ids = receipt.ids.iter().map(MessageId::to_string).collect();
    Receipted { from, kind: receipt::name(receipt.kind), ids, received_unix_ms }
}

/// What is told of a message that brings a file.
fn offered(received: Received, manifest: Manifest) -> (Event, Option<Box<Offer>>) {
    let Received { from, id, sent_unix_ms, received_unix_ms, verified, .. } = received;
    let (name, bytes) = (manifest.name.clone(), manifest.bytes);
    let offer = Offer { from: from.clone(), id: id.clone(), manifest };
    (Event::File { from, id, name, bytes, sent_unix_ms, received_unix_ms, verified }, Some(Box::new(offer)))
}

#[cfg(test)]
mod tests {
    use socp::{
        id::{ContentHash, ServerId},
        name::UserName,
    };

    use super::*;

    #[test]
    fn what_was_shown_is_not_shown_again_by_the_same_sender_and_id() {
        let authorship = |name: &str| Authorship {
            sender: Address { home: ServerId::of_key(&[1; 32]), user: UserName::parse(name).unwrap() },
            sender_key: KeyFingerprint::of_spki(b"key"),
            id: MessageId::parse("01890a5d-ac96-774b-bcce-b302099a8057").unwrap(),
            hash: ContentHash::of(b""),
            time_unix_ms: 0,
        };
        let mut seen = Seen::default();
        let alice = authorship("alice");
        assert!(!seen.contains(&alice));
        seen.insert((alice.sender.clone(), alice.id));
        assert!(seen.contains(&alice) && !seen.contains(&authorship("bob")));
    }
}
