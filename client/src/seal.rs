//! Messages: sealed to one recipient by the sender's device, opened by the recipient's.
//!
//! Opening answers with a text or with nothing. Why something did not open is told to nobody, since an answer
//! that depends on it would be an oracle.

use prost::{Message as _, bytes::Bytes};
use socp::{
    message::{Address, Message, SUITE, SealedPart},
    signed::Label,
    user_key::UserKey,
    v1::{MessageHeader, MessageStatement, SealedMessage},
};

use crate::{content, failure::Failure, file::Manifest, private_key::PrivateKey, public_key, receipt::Receipt};

/// What a message says of itself.
pub struct Draft<'a> {
    /// UUIDv7, the same in every retry.
    pub message_id: &'a str,
    /// Who sends.
    pub sender: &'a Address,
    /// To whom.
    pub recipient: &'a Address,
    /// The recipient's key, verified and pinned.
    pub recipient_key: &'a UserKey,
    /// The sender's clock.
    pub time_unix_ms: i64,
    /// Whether the recipient's devices are asked for receipts.
    pub wants_receipts: bool,
    /// The text.
    pub text: &'a str,
    /// What comes with it.
    pub beside: &'a Beside,
}

/// What a message brings beside its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Nothing.
    Nothing,
    /// A file.
    File(Manifest),
    /// What became of messages of the recipient.
    Receipt(Receipt),
}

/// Encrypts and signs a message.
pub fn seal(key: &PrivateKey, draft: &Draft<'_>) -> Result<SealedMessage, Failure> {
    seal_under(key, draft, header(key, draft))
}

fn header(key: &PrivateKey, draft: &Draft<'_>) -> Vec<u8> {
    let fingerprint = |key: &UserKey| Bytes::copy_from_slice(key.fingerprint().as_bytes());
    MessageHeader {
        suite: SUITE,
        message_id: draft.message_id.to_owned(),
        sender: draft.sender.user.to_string(),
        sender_home_id: draft.sender.home.to_string(),
        sender_key_sha256: fingerprint(key.public()),
        recipient: draft.recipient.user.to_string(),
        recipient_home_id: draft.recipient.home.to_string(),
        recipient_key_sha256: fingerprint(draft.recipient_key),
        time_unix_ms: draft.time_unix_ms,
        require_online: false,
        wants_receipts: draft.wants_receipts,
    }
    .encode_to_vec()
}

/// The same under any encoded header, which may say otherwise than the draft: for vectors of what must be refused.
pub fn seal_under(key: &PrivateKey, draft: &Draft<'_>, header: Vec<u8>) -> Result<SealedMessage, Failure> {
    let content_key = content::random_key()?;
    let encrypted = content::encrypt(&content_key, &header, draft.text)?;
    let (file, receipt) = match draft.beside {
        Beside::Nothing => (None, None),
        Beside::File(manifest) => (Some(manifest.seal(&content_key, &header, encrypted.nonce)?), None),
        Beside::Receipt(receipt) => (None, Some(receipt.seal(&content_key, &header, encrypted.nonce)?)),
    };
    let parts = |part: Option<SealedPart>| {
        part.map_or_else(Default::default, |part| (Bytes::copy_from_slice(&part.nonce), part.ciphertext))
    };
    let ((file_nonce, file_ciphertext), (receipt_nonce, receipt_ciphertext)) = (parts(file), parts(receipt));
    let statement: Bytes = MessageStatement {
        header: header.into(),
        nonce: Bytes::copy_from_slice(&encrypted.nonce),
        ciphertext: encrypted.ciphertext,
        key_commitment: Bytes::copy_from_slice(&encrypted.key_commitment),
        file_nonce,
        file_ciphertext,
        receipt_nonce,
        receipt_ciphertext,
    }
    .encode_to_vec()
    .into();
    let wrapped_key = public_key::wrap(draft.recipient_key, &content_key)
        .ok_or_else(|| Failure::refused("BAD_KEY", format!("the key of `{}` cannot be used", draft.recipient.user)))?;
    Ok(SealedMessage { signature: key.sign(Label::Message, &statement)?, statement, wrapped_key })
}

/// Verifies and decrypts a message that was read.
///
/// `sender_key` must come from a pin, never from the message. `None` unless it is signed by that key, for `me`
/// and my key, and whole.
pub fn open(key: &PrivateKey, me: &Address, sender_key: &UserKey, message: &Message) -> Option<String> {
    let meant_for_me = message.recipient == *me && message.recipient_key == key.public().fingerprint();
    let by_sender = message.authorship.sender_key == sender_key.fingerprint();
    if !meant_for_me || !by_sender || !public_key::verify(&message.check(sender_key)) {
        return None;
    }
    let content_key = key.unwrap(&message.sealed.wrapped_key)?;
    content::decrypt(&content_key, &message.header, message.nonce, &message.ciphertext, &message.key_commitment)
}

/// Decrypts what comes with a message which [`open`] has opened. `None` if it is not good, or is more than one thing.
pub fn open_beside(key: &PrivateKey, message: &Message) -> Option<Beside> {
    if message.file.is_none() && message.receipt.is_none() {
        return Some(Beside::Nothing);
    }
    let content_key = key.unwrap(&message.sealed.wrapped_key)?;
    match (&message.file, &message.receipt) {
        (Some(file), None) => Manifest::open(&content_key, &message.header, file).map(Beside::File),
        (None, Some(receipt)) => Receipt::open(&content_key, &message.header, receipt).map(Beside::Receipt),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use socp::{id::ServerId, name::UserName};

    use super::*;
    use crate::private_key::test_keys::{ALICE, BOB, MALLORY};

    fn address(name: &str) -> Address {
        Address { home: ServerId::of_key(&[1; 32]), user: UserName::parse(name).unwrap() }
    }

    fn sealed() -> SealedMessage {
        let draft = Draft {
            message_id: "01890a5d-ac96-774b-bcce-b302099a8057",
            sender: &address("alice"),
            recipient: &address("bob"),
            recipient_key: BOB.public(),
            time_unix_ms: 1_700_000_000_000,
            wants_receipts: false,
            text: "hello, Bob",
            beside: &Beside::Nothing,
        };
        seal(&ALICE, &draft).unwrap()
    }

    /// What Bob reads of a message, if the key that he knows as Alice's is hers.
    fn opened(sealed: &SealedMessage) -> Option<String> {
        open(&BOB, &address("bob"), ALICE.public(), &Message::parse(sealed).unwrap())
    }

    /// Changes the signed part and signs it again, as a dishonest sender would.
    fn resigned(key: &PrivateKey, change: impl FnOnce(&mut MessageStatement)) -> SealedMessage {
        let mut sealed = sealed();
        let mut statement = MessageStatement::decode(&sealed.statement[..]).unwrap();
        change(&mut statement);
        sealed.statement = statement.encode_to_vec().into();
        sealed.signature = key.sign(Label::Message, &sealed.statement).unwrap();
        sealed
    }

    fn with_header(change: impl FnOnce(&mut MessageHeader)) -> SealedMessage {
        resigned(&ALICE, |statement| {
            let mut header = MessageHeader::decode(&statement.header[..]).unwrap();
            change(&mut header);
            statement.header = header.encode_to_vec().into();
        })
    }

    #[test]
    fn what_was_sealed_is_opened_by_its_recipient_alone() {
        let sealed = sealed();
        assert_eq!(opened(&sealed).as_deref(), Some("hello, Bob"));
        let message = Message::parse(&sealed).unwrap();
        assert_eq!(open(&MALLORY, &address("bob"), ALICE.public(), &message), None);
        assert_eq!(open(&BOB, &address("mallory"), ALICE.public(), &message), None);
    }

    #[test]
    fn a_message_that_the_known_key_did_not_sign_does_not_open() {
        let message = Message::parse(&sealed()).unwrap();
        assert_eq!(open(&BOB, &address("bob"), MALLORY.public(), &message), None, "another key is known");
        assert_eq!(opened(&resigned(&MALLORY, |_| {})), None, "another key signed");
        let mut other_label = sealed();
        other_label.signature = ALICE.sign(Label::Post, &other_label.statement).unwrap();
        assert_eq!(opened(&other_label), None, "signed for another purpose");
    }

    #[test]
    fn a_header_that_differs_from_the_encrypted_one_does_not_open_even_if_signed() {
        assert_eq!(opened(&with_header(|header| header.time_unix_ms += 1)), None);
        assert_eq!(opened(&with_header(|header| header.sender = "mallory".into())), None);
        assert_eq!(opened(&with_header(|_| {})).as_deref(), Some("hello, Bob"), "the test changes nothing by itself");
    }

    #[test]
    fn a_message_for_another_recipient_or_key_does_not_open() {
        assert_eq!(opened(&with_header(|header| header.recipient = "carol".into())), None);
        let other_home = ServerId::of_key(&[2; 32]).to_string();
        assert_eq!(opened(&with_header(|header| header.recipient_home_id = other_home)), None);
        let other_key = Bytes::copy_from_slice(MALLORY.public().fingerprint().as_bytes());
        assert_eq!(opened(&with_header(|header| header.recipient_key_sha256 = other_key)), None);
    }

    #[test]
    fn a_wrong_commitment_or_ciphertext_does_not_open_even_if_signed() {
        let wrong = Bytes::from_static(&[9; 32]);
        assert_eq!(opened(&resigned(&ALICE, |statement| statement.key_commitment = wrong)), None);
        let cut = |statement: &mut MessageStatement| {
            statement.ciphertext = statement.ciphertext.slice(1..);
        };
        assert_eq!(opened(&resigned(&ALICE, cut)), None);
    }

    #[test]
    fn a_manifest_is_opened_by_the_recipient_alone_under_the_header_it_was_sealed_with() {
        let (alice, bob) = (address("alice"), address("bob"));
        let manifest = Beside::File(crate::file::tests::manifest());
        let draft = Draft {
            message_id: "01890a5d-ac96-774b-bcce-b302099a8057",
            sender: &alice,
            recipient: &bob,
            recipient_key: BOB.public(),
            time_unix_ms: 1_700_000_000_001,
            wants_receipts: true,
            text: "a file",
            beside: &manifest,
        };
        let sealed = seal(&ALICE, &draft).unwrap();
        let message = Message::parse(&sealed).unwrap();
        assert_eq!(opened(&sealed).as_deref(), Some("a file"), "clients that know no files show the text");
        assert!(message.wants_receipts);
        assert_eq!(open_beside(&BOB, &message), Some(manifest.clone()));
        assert_eq!(open_beside(&MALLORY, &message), None);
        let without = open_beside(&BOB, &Message::parse(&self::sealed()).unwrap());
        assert_eq!(without, Some(Beside::Nothing), "a message without a file");
        let mut as_receipt = message.clone();
        as_receipt.receipt = as_receipt.file.take();
        assert_eq!(open_beside(&BOB, &as_receipt), None, "a manifest is no receipt");
        let mut moved = message.clone();
        moved.header = Message::parse(&self::sealed()).unwrap().header;
        assert_ne!(moved.header, message.header);
        assert_eq!(open_beside(&BOB, &moved), None, "another header");
        let file = message.file.as_ref().unwrap();
        let as_text = MessageStatement {
            nonce: Bytes::copy_from_slice(&file.nonce),
            ciphertext: file.ciphertext.clone(),
            ..MessageStatement::decode(&sealed.statement[..]).unwrap()
        };
        let statement: Bytes = as_text.encode_to_vec().into();
        let signature = ALICE.sign(Label::Message, &statement).unwrap();
        assert_eq!(opened(&SealedMessage { statement, signature, ..sealed }), None, "a manifest is no text");
    }

    #[test]
    fn any_bit_changed_on_the_way_is_noticed() {
        for place in [0, 40, 300] {
            let mut sealed = sealed();
            let mut bytes = sealed.statement.to_vec();
            let last = bytes.len() - 1;
            bytes[place.min(last)] ^= 1;
            sealed.statement = bytes.into();
            let read = Message::parse(&sealed);
            assert!(read.is_err() || open(&BOB, &address("bob"), ALICE.public(), &read.unwrap()).is_none(), "{place}");
        }
        let mut sealed = sealed();
        sealed.wrapped_key = public_key::wrap(BOB.public(), &[1; 32]).unwrap();
        assert_eq!(opened(&sealed), None, "another content key");
    }
}
