//! Inboxes: the log that each user has at home, as it is on disk and as devices name places in it. It holds the messages to the
//! user, and what became of those from the user that were queued.
//!
//! Positions count from 1 and never come again. A cursor names a position together with the message that stands there, so
//! that a device whose home lost its disk, or went back to an older copy, is not told that it has what it has not. What is
//! kept in memory of an entry is enough to decide about it; the entry itself is on disk only.

use alloc::{boxed::Box, string::ToString as _, vec::Vec};
use core::fmt;

use crate::{
    channel,
    id::{ContentHash, DeviceId, MessageId, ServerId, hex, parse_hex, sha256},
    message::{Address, Message},
    name::UserName,
    outbox::Queued,
    v1::{AttachResponse, ReceivedMessage, ReceivedOutcome, SealedMessage, SignedOutcome, attach_response::Event},
};

/// A place in an inbox: the last message that a device has, or that was dropped.
///
/// In text form the position, a hyphen and 16 hexadecimal digits; empty for the place before the first message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Counted from 1; 0 is the place before the first message.
    pub position: u64,
    /// Tells the message at that position from any other one.
    pub mark: [u8; 8],
}

impl Cursor {
    /// The place of an entry with this hash at this position.
    pub fn of(position: u64, hash: &ContentHash) -> Self {
        let hash = sha256(&[b"socp.v1.Cursor\0", &position.to_be_bytes(), hash.as_bytes()]);
        Self { position, mark: hash[..8].try_into().expect("8 bytes of 32") }
    }

    /// Reads the text form; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::default());
        }
        let (position, mark) = text.split_once('-')?;
        let is_plain = position.bytes().all(|digit| digit.is_ascii_digit()) && !position.starts_with('0');
        let position = position.parse().ok().filter(|_| is_plain)?;
        Some(Self { position, mark: parse_hex(mark)? })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.position == 0 { Ok(()) } else { write!(f, "{}-{}", self.position, hex(&self.mark)) }
    }
}

/// What goes into an inbox.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose inbox.
    pub user: UserName,
    /// The position before which all are taken.
    pub position: u64,
    /// When this server took it, Unix milliseconds.
    pub received_unix_ms: u64,
    /// What it is.
    pub content: Content,
}

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
pub enum Content {
    /// A message to the user.
    Message {
        /// The message.
        message: Box<Message>,
        /// Until when its id is remembered, Unix milliseconds.
        id_until_unix_ms: u64,
    },
    /// What became of a message from the user that was queued, and is not any more.
    Outcome(Settled),
}

/// What became of a queued message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Its number in the outbox.
    pub number: u64,
    /// Its id.
    pub id: MessageId,
    /// To whom it was.
    pub recipient: Address,
    /// The word about it.
    pub signed: SignedOutcome,
}

impl Entry {
    /// Its place.
    pub fn cursor(&self) -> Cursor {
        Cursor::of(self.position, &self.hash())
    }

    /// Hash of the signed bytes in it.
    pub fn hash(&self) -> ContentHash {
        match &self.content {
            Content::Message { message, .. } => message.authorship.hash,
            Content::Outcome(settled) => ContentHash::of(&settled.signed.statement),
        }
    }

    /// Who sent it, of a message.
    pub fn sender(&self) -> Option<&Address> {
        match &self.content {
            Content::Message { message, .. } => Some(&message.authorship.sender),
            Content::Outcome(_) => None,
        }
    }

    /// How much room it takes.
    pub fn bytes(&self) -> u32 {
        match &self.content {
            Content::Message { message, .. } => bytes(&message.sealed),
            Content::Outcome(settled) => {
                u32::try_from(settled.signed.statement.len() + settled.signed.signature.len()).unwrap_or(u32::MAX)
            }
        }
    }

    /// As a client is given it, with its cursor.
    pub fn response(&self) -> AttachResponse {
        AttachResponse { event: Some(self.event()), cursor: self.cursor().to_string() }
    }

    /// What a client is told.
    pub fn event(&self) -> Event {
        let received_unix_ms = i64::try_from(self.received_unix_ms).unwrap_or(i64::MAX);
        match &self.content {
            Content::Message { message, .. } => {
                Event::Message(ReceivedMessage { message: Some(message.sealed.clone()), received_unix_ms })
            }
            Content::Outcome(Settled { id, recipient, signed, .. }) => Event::Outcome(ReceivedOutcome {
                outcome: Some(signed.clone()),
                message_id: id.to_string(),
                recipient: recipient.user.to_string(),
                recipient_home_id: recipient.home.to_string(),
                received_unix_ms,
            }),
        }
    }
}

/// How much room a message takes: the bytes of its parts.
pub(crate) fn bytes(sealed: &SealedMessage) -> u32 {
    let bytes = sealed.statement.len() + sealed.signature.len() + sealed.wrapped_key.len();
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// An entry as it is read from the disk for a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Its position.
    pub position: u64,
    /// What the device is told: a message or an outcome.
    pub event: Event,
}

impl Stored {
    /// Its place.
    pub fn cursor(&self) -> Cursor {
        let statement = match &self.event {
            Event::Message(ReceivedMessage { message: Some(sealed), .. }) => &sealed.statement[..],
            Event::Outcome(ReceivedOutcome { outcome: Some(signed), .. }) => &signed.statement[..],
            _ => &[],
        };
        Cursor::of(self.position, &ContentHash::of(statement))
    }

    /// As a client is given it, with its cursor.
    pub fn response(self) -> AttachResponse {
        let cursor = self.cursor().to_string();
        AttachResponse { event: Some(self.event), cursor }
    }
}

/// What is kept in memory of an entry of an inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Hash of the signed bytes.
    pub hash: ContentHash,
    /// How much room it takes.
    pub bytes: u32,
    /// Who sent it, of a message.
    pub sender: Option<Address>,
    /// When this server took it, Unix milliseconds.
    pub received_unix_ms: u64,
}

/// An inbox as it is on disk, without the entries themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbox {
    /// Whose.
    pub user: UserName,
    /// The last entry that was dropped.
    pub dropped: Cursor,
    /// The entries after that, in order.
    pub kept: Vec<Kept>,
    /// The user's devices.
    pub readers: Vec<Reader>,
}

/// How far a device has read an inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Which; those that do not say which they are count as one.
    pub device: Option<DeviceId>,
    /// It has all up to this position.
    pub read: u64,
    /// When it was here last, to the day, Unix milliseconds.
    pub seen_unix_ms: u64,
}

/// The id of a message that was put into an inbox, or of a post that was put into the channel's log, in it still or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The sender's home.
    pub home: ServerId,
    /// The sender's name.
    pub sender: UserName,
    /// The sender's id for it.
    pub id: MessageId,
    /// Hash of the signed bytes.
    pub hash: ContentHash,
    /// For how many users it is: 1 for a message, the size of its audience for a post.
    pub recipients: u32,
    /// Until when it is to be remembered, Unix milliseconds.
    pub until_unix_ms: u64,
}

/// All of messages that a node needs from disk at its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mail {
    /// All inboxes in which something is or was.
    pub inboxes: Vec<Inbox>,
    /// All ids that are remembered, by time.
    pub remembered: Vec<Remembered>,
    /// All messages that are queued, by number.
    pub queued: Vec<Queued>,
    /// The log of the public channel.
    pub channel: channel::Log,
}

#[cfg(test)]
mod tests {
    use alloc::borrow::ToOwned as _;

    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_in_no_other_way() {
        let cursor = Cursor::of(12, &ContentHash::of(b"a message"));
        let text = cursor.to_string();
        assert_eq!(Cursor::parse(&text), Some(cursor));
        assert_eq!(Cursor::parse(""), Some(Cursor::default()));
        assert_eq!(Cursor::default().to_string(), "");
        assert!(Cursor { position: u64::MAX, ..cursor }.to_string().len() <= 64);
        for wrong in [&text[1..2], &text[3..], &text.to_uppercase(), &(text.clone() + "0"), "0-0000000000000000"] {
            assert_eq!(Cursor::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Cursor::parse(&("+".to_owned() + &text)), None);
        assert_eq!(Cursor::parse(&("0".to_owned() + &text)), None);
    }

    #[test]
    fn another_message_at_the_same_position_has_another_cursor() {
        let [one, other] = [b"one", b"two"].map(|text| Cursor::of(1, &ContentHash::of(text)));
        assert_ne!(one, other);
    }
}
