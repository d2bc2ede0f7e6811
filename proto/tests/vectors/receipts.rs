//! The vectors of receipts: what a message says that is one.

use prost::{Message as _, bytes::Bytes};
use serde_json::{Value, json};
use socp::{
    file::MANIFEST_LABEL,
    id::hex,
    message::RECEIPT_LABEL,
    signed::Label,
    v1::{FileManifest, MessageStatement, Receipt, ReceiptKind, SealedMessage},
};
use socp_client::{content, seal};

use crate::{Case, Keys, MESSAGE_ID, SECOND_ID, TIME_UNIX_MS, flipped, sign};

/// A part beside the text: the label that stands before the header, and what is encrypted.
type Part<'a> = (&'a [u8], Vec<u8>);

pub fn cases(keys: &Keys) -> Vec<Case> {
    // From bob to alice, of messages that alice sent. The parts are those of a receipt and of a file.
    let sealed = |receipt: Option<Part<'_>>, file: Option<Part<'_>>, change: &dyn Fn(&mut MessageStatement)| -> Value {
        let (bob, alice) = (keys.key("bob"), keys.key("alice"));
        let draft = seal::Draft {
            message_id: MESSAGE_ID,
            sender: &keys.address("bob"),
            recipient: &keys.address("alice"),
            recipient_key: alice.public(),
            time_unix_ms: TIME_UNIX_MS,
            wants_receipts: false,
            text: "",
            beside: &seal::Beside::Nothing,
        };
        let mut sealed = seal::seal(bob, &draft).expect("it can be sealed");
        let content_key = alice.unwrap(&sealed.wrapped_key).expect("it is wrapped to alice");
        let mut said = MessageStatement::decode(&sealed.statement[..]).expect("it was encoded here");
        let encrypted = |part: Option<Part<'_>>| match part {
            None => (Bytes::new(), Bytes::new()),
            Some((label, plain)) => {
                let additional_data = [label, &said.header].concat();
                let made = content::encrypt_bytes(&content_key, &additional_data, plain).expect("it can be encrypted");
                (Bytes::copy_from_slice(&made.nonce), made.ciphertext)
            }
        };
        let (receipt, file) = (encrypted(receipt), encrypted(file));
        (said.receipt_nonce, said.receipt_ciphertext) = receipt;
        (said.file_nonce, said.file_ciphertext) = file;
        change(&mut said);
        sealed.statement = said.encode_to_vec().into();
        sealed.signature = sign(bob, Label::Message, &sealed.statement);
        case(&sealed)
    };
    let receipt = |kind: i32, ids: &[&str]| {
        Receipt { kind, message_ids: ids.iter().map(|id| (*id).to_owned()).collect() }.encode_to_vec()
    };
    let (delivered, read) = (ReceiptKind::Delivered, ReceiptKind::Read);
    let good = |kind: ReceiptKind, ids: &[&str]| {
        let mut case = sealed(Some((RECEIPT_LABEL, receipt(kind.into(), ids))), None, &|_| {});
        case["kind"] = json!(kind.as_str_name());
        case["message_ids"] = json!(ids);
        case
    };
    let bad = |kind: i32, ids: &[&str]| sealed(Some((RECEIPT_LABEL, receipt(kind, ids))), None, &|_| {});
    let honest = || Some((RECEIPT_LABEL, receipt(read.into(), &[MESSAGE_ID])));
    let changed = |change: &dyn Fn(&mut MessageStatement)| sealed(honest(), None, change);
    let manifest = FileManifest {
        file_id: "0123456789abcdef0123456789abcdef".into(),
        home_id: keys.home("server-a").id().to_string(),
        name: "a".into(),
        bytes: 0,
        chunk_bytes: 65_536,
        key: Bytes::from_static(&[1; 32]),
        ciphertext_sha256: Bytes::from_static(&[2; 32]),
    };
    let manifest = manifest.encode_to_vec();
    vec![
        ("one message was delivered", true, good(delivered, &[MESSAGE_ID])),
        ("two messages were read", true, good(read, &[MESSAGE_ID, SECOND_ID])),
        ("as many as fit", true, good(read, &[MESSAGE_ID; 100])),
        ("one more than fit", false, bad(read.into(), &[MESSAGE_ID; 101])),
        ("of no message", false, bad(read.into(), &[])),
        ("of no kind", false, bad(0, &[MESSAGE_ID])),
        ("of a kind that is not known", false, bad(3, &[MESSAGE_ID])),
        ("of an id that is none", false, bad(read.into(), &["01977420-dc00-474b-bcce-b302099a8057"])),
        ("one bit altered, signed again", false, {
            changed(&|said| said.receipt_ciphertext = flipped(&said.receipt_ciphertext, 0))
        }),
        ("another nonce, signed again", false, {
            changed(&|said| said.receipt_nonce = flipped(&said.receipt_nonce, 0))
        }),
        ("a nonce of 11 bytes", false, changed(&|said| said.receipt_nonce = said.receipt_nonce.slice(1..))),
        ("no nonce", false, changed(&|said| said.receipt_nonce.clear())),
        ("a nonce and no receipt", false, changed(&|said| said.receipt_ciphertext.clear())),
        ("encrypted under another label", false, {
            sealed(Some((MANIFEST_LABEL, receipt(read.into(), &[MESSAGE_ID]))), None, &|_| {})
        }),
        ("one that does not decode", false, sealed(Some((RECEIPT_LABEL, vec![0xff; 40])), None, &|_| {})),
        ("with a file", false, sealed(honest(), Some((MANIFEST_LABEL, manifest)), &|_| {})),
    ]
}

fn case(sealed: &SealedMessage) -> Value {
    json!({ "recipient": "alice", "sealed_message": hex(&sealed.encode_to_vec()) })
}
