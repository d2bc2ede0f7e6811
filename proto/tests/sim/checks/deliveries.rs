//! Messages: each at most once, to its recipient only, and an answered one was truly handed over.
//!
//! Until inboxes are durable, a home that starts anew does not remember what it handed over; so "once" is once for
//! each start of the recipient's home.

use std::collections::BTreeMap;

use socp::{
    id::ContentHash,
    input::AttachmentId,
    message::{Address, Message, Post},
    v1::{SealedMessage, SealedPost},
};

/// All that was handed to streams.
#[derive(Debug, Default)]
pub struct Deliveries {
    handed: BTreeMap<(ContentHash, Address, u64), Vec<AttachmentId>>,
}

impl Deliveries {
    pub fn message(&mut self, to: &Address, epoch: u64, attachment: AttachmentId, sealed: &SealedMessage) {
        let message = Message::parse(sealed).expect("only well-formed messages are delivered");
        assert_eq!(message.recipient, *to, "a message is handed to its recipient only");
        self.hand(message.authorship.hash, to, epoch, attachment);
    }

    pub fn post(&mut self, to: &Address, epoch: u64, attachment: AttachmentId, sealed: &SealedPost) {
        let post = Post::parse(sealed).expect("only well-formed posts are delivered");
        assert_ne!(post.authorship.sender, *to, "a post never comes back to its sender");
        self.hand(post.authorship.hash, to, epoch, attachment);
    }

    fn hand(&mut self, hash: ContentHash, to: &Address, epoch: u64, attachment: AttachmentId) {
        let handed = self.handed.entry((hash, to.clone(), epoch)).or_default();
        assert!(!handed.contains(&attachment), "{to:?} got {hash:?} twice");
        handed.push(attachment);
    }

    /// The sender was told that this message was handed over.
    pub fn confirm(&self, sealed: &SealedMessage) {
        let message = Message::parse(sealed).expect("only well-formed messages are confirmed");
        let hash = message.authorship.hash;
        assert!(self.count(&message.recipient, hash) > 0, "{hash:?} was confirmed, but handed to nobody");
    }

    /// How often a message or post was handed to a user.
    pub fn count(&self, to: &Address, hash: ContentHash) -> usize {
        self.handed.iter().filter(|((h, address, _), _)| *h == hash && address == to).map(|(_, all)| all.len()).sum()
    }

    /// How many deliveries a user got.
    pub fn of(&self, to: &Address) -> usize {
        self.handed.iter().filter(|((_, address, _), _)| address == to).map(|(_, all)| all.len()).sum()
    }
}
