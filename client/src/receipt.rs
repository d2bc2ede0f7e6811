//! Receipts: what the recipient's device tells the sender of messages that asked for it, encrypted in a message of its own.
//!
//! The recipient's signature is under it, so no server can make one, and none sees that it is one of having read. A receipt may
//! be missing (a device that was killed, a user who gives none); one that comes is true as far as its sender is.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use prost::Message as _;
use socp::{
    id::MessageId,
    message::{Address, RECEIPT_LABEL, SealedPart},
    v1::{self, ReceiptKind},
};
use tokio::time::Instant;

use crate::{content, failure::Failure};

/// Ids in one receipt, so that it stays a small message.
pub const IDS_MAX: usize = 100;

/// How long ids are gathered for one receipt: each costs a signature and a place in an inbox.
const GATHER: Duration = Duration::from_millis(500);

/// Users for whom ids are gathered at once; receipts for more are left out.
const USERS_MAX: usize = 1_000;

/// A receipt that was read or is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Delivered or read.
    pub kind: ReceiptKind,
    /// Of which messages.
    pub ids: Vec<MessageId>,
}

impl Receipt {
    /// Encrypts it for a message with this content key and header, whose text has this nonce.
    pub fn seal(&self, content_key: &[u8; 32], header: &[u8], text_nonce: [u8; 12]) -> Result<SealedPart, Failure> {
        let message_ids = self.ids.iter().map(MessageId::to_string).collect();
        let receipt = v1::Receipt { kind: self.kind.into(), message_ids }.encode_to_vec();
        content::seal_part(content_key, RECEIPT_LABEL, header, text_nonce, receipt)
    }

    /// Decrypts one; `None` for whatever reason.
    pub fn open(content_key: &[u8; 32], header: &[u8], sealed: &SealedPart) -> Option<Self> {
        let plain = content::open_part(content_key, RECEIPT_LABEL, header, sealed)?;
        let receipt = v1::Receipt::decode(&plain[..]).ok()?;
        let kind = Some(receipt.kind()).filter(|kind| *kind != ReceiptKind::Unspecified)?;
        let ids = receipt.message_ids.iter().map(|id| MessageId::parse(id)).collect::<Option<Vec<_>>>()?;
        (1..=IDS_MAX).contains(&ids.len()).then_some(Self { kind, ids })
    }
}

/// How a kind is told.
pub fn name(kind: ReceiptKind) -> &'static str {
    if kind == ReceiptKind::Read { "read" } else { "delivered" }
}

/// Ids of messages of which their senders are to be told.
#[derive(Debug, Default)]
pub struct Receipts {
    by_user: BTreeMap<Address, Vec<MessageId>>,
    /// When the oldest has waited for long enough.
    due: Option<Instant>,
}

impl Receipts {
    /// Notes one more. Gives a receipt that has no room for more.
    pub fn note(&mut self, sender: Address, id: MessageId, now: Instant) -> Option<(Address, Vec<MessageId>)> {
        let users = self.by_user.len();
        match self.by_user.entry(sender) {
            Entry::Vacant(_) if users >= USERS_MAX => None,
            Entry::Vacant(new) => {
                new.insert(vec![id]);
                self.due.get_or_insert(now + GATHER);
                None
            }
            Entry::Occupied(mut gathered) => {
                gathered.get_mut().push(id);
                (gathered.get().len() >= IDS_MAX).then(|| gathered.remove_entry())
            }
        }
    }

    /// When to take them.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Takes all that were gathered.
    pub fn take(&mut self) -> BTreeMap<Address, Vec<MessageId>> {
        self.due = None;
        std::mem::take(&mut self.by_user)
    }
}

#[cfg(test)]
mod tests {
    use socp::{id::ServerId, name::UserName};

    use super::*;

    fn id(number: usize) -> MessageId {
        MessageId::parse(&format!("01890a5d-ac96-774b-bcce-{number:012x}")).unwrap()
    }

    fn user(name: &str) -> Address {
        Address { home: ServerId::of_key(&[1; 32]), user: UserName::parse(name).unwrap() }
    }

    #[test]
    fn a_receipt_is_opened_under_its_key_and_header_and_refused_out_of_form() {
        let receipt = Receipt { kind: ReceiptKind::Read, ids: (0..IDS_MAX).map(id).collect() };
        let sealed = receipt.seal(&[1; 32], b"header", [0; 12]).unwrap();
        assert_eq!(Receipt::open(&[1; 32], b"header", &sealed), Some(receipt.clone()));
        assert_eq!(Receipt::open(&[2; 32], b"header", &sealed), None);
        assert_eq!(Receipt::open(&[1; 32], b"another", &sealed), None);
        let ids = |count: usize| (0..count).map(id).collect();
        for (kind, ids) in
            [(ReceiptKind::Unspecified, ids(1)), (ReceiptKind::Read, ids(0)), (ReceiptKind::Read, ids(IDS_MAX + 1))]
        {
            let sealed = Receipt { kind, ids }.seal(&[1; 32], b"header", [0; 12]).unwrap();
            assert_eq!(Receipt::open(&[1; 32], b"header", &sealed), None);
        }
    }

    #[test]
    fn ids_are_gathered_by_user_up_to_what_one_receipt_holds() {
        let mut receipts = Receipts::default();
        let now = Instant::now();
        assert_eq!(receipts.due(), None);
        for number in 0..IDS_MAX - 1 {
            assert_eq!(receipts.note(user("alice"), id(number), now), None);
        }
        assert_eq!(receipts.note(user("bob"), id(0), now + GATHER), None);
        assert_eq!(receipts.due(), Some(now + GATHER), "the first of all is due first");
        let (to, full) = receipts.note(user("alice"), id(IDS_MAX), now).unwrap();
        assert_eq!((to, full.len()), (user("alice"), IDS_MAX));
        assert_eq!(receipts.take(), BTreeMap::from([(user("bob"), vec![id(0)])]));
        assert_eq!(receipts.due(), None);
        for number in 0..USERS_MAX + 1 {
            receipts.note(user(&format!("u{number}")), id(0), now);
        }
        assert_eq!(receipts.take().len(), USERS_MAX);
    }
}
