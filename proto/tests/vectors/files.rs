//! The vectors of files: what a message says of one, and what its home then gives.
//!
//! Content is made by a rule and not written down, so that the page stays small; its hashes are there.

use prost::{Message as _, bytes::Bytes};
use serde_json::{Value, json};
use socp::{
    file::{CHUNK_BYTES, MANIFEST_LABEL, TAG_BYTES},
    id::{hex, sha256},
    message::Message,
    signed::Label,
    v1::{FileManifest, MessageStatement, SealedMessage},
};
use socp_client::{chunk::Cipher, content, seal};

use crate::{Case, Keys, MESSAGE_ID, TIME_UNIX_MS, sign};

const CHUNK: usize = CHUNK_BYTES as usize;
const SEALED_CHUNK: usize = CHUNK + TAG_BYTES as usize;
const TEXT: &str = "[file] report.pdf";

/// A file whose content follows the rule: byte `p` is `p` modulo 251.
#[derive(Clone, Copy)]
struct Made {
    key: [u8; 32],
    bytes: usize,
}

/// Each has a key of its own: two contents under one key would be a fault.
fn made(bytes: usize) -> Made {
    Made { key: sha256(&[b"socp vectors", bytes.to_string().as_bytes()]), bytes }
}

impl Made {
    fn content(self) -> Vec<u8> {
        (0..self.bytes).map(|place| (place % 251) as u8).collect()
    }

    fn sealed(self) -> Vec<u8> {
        let cipher = Cipher::new(&self.key, self.bytes as u64).expect("it has few chunks");
        let (plain, mut all) = (self.content(), Vec::new());
        for index in 0..cipher.chunks() {
            let start = CHUNK * usize::try_from(index).expect("there are few chunks");
            let mut chunk = plain[start..start + cipher.chunk_bytes(index)].to_vec();
            let tag = cipher.seal(index, &mut chunk);
            all.extend(chunk);
            all.extend(tag);
        }
        all
    }

    /// Some of the encrypted bytes, by the rule.
    fn part(self, from: usize, to: usize) -> Piece {
        Piece::Part(self, from, to)
    }

    /// All of them.
    fn whole(self) -> Piece {
        self.part(0, self.sealed().len())
    }

    /// A whole chunk.
    fn chunk(self, index: usize) -> Piece {
        self.part(index * SEALED_CHUNK, self.sealed().len().min((index + 1) * SEALED_CHUNK))
    }
}

/// Bytes that a home gives.
enum Piece {
    Part(Made, usize, usize),
    Plain(Vec<u8>),
}

impl Piece {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Part(made, from, to) => made.sealed()[*from..*to].to_vec(),
            Self::Plain(bytes) => bytes.clone(),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Part(made, from, to) => json!({
                "key": hex(&made.key),
                "bytes": made.bytes.to_string(),
                "from": from.to_string(),
                "to": to.to_string(),
            }),
            Self::Plain(bytes) => json!({ "hex": hex(bytes) }),
        }
    }
}

fn hash_of(pieces: &[Piece]) -> Bytes {
    let all: Vec<u8> = pieces.iter().flat_map(Piece::bytes).collect();
    Bytes::copy_from_slice(&sha256(&[&all]))
}

/// Messages from alice to bob that bring a file.
struct Sender<'a> {
    keys: &'a Keys,
}

impl Sender<'_> {
    /// What alice says of a file when these bytes are at her home.
    fn manifest(&self, of: Made, stored: &[Piece]) -> FileManifest {
        FileManifest {
            file_id: "0123456789abcdef0123456789abcdef".into(),
            home_id: self.keys.home("server-a").id().to_string(),
            name: "report.pdf".into(),
            bytes: of.bytes as u64,
            chunk_bytes: CHUNK as u32,
            key: Bytes::copy_from_slice(&of.key),
            ciphertext_sha256: hash_of(stored),
        }
    }

    /// A message whose manifest is these bytes, encrypted with this additional data before the header; then changed, and signed.
    fn sealed_with(&self, label: &[u8], manifest: Vec<u8>, change: impl Fn(&mut MessageStatement)) -> SealedMessage {
        let (alice, bob) = (self.keys.key("alice"), self.keys.key("bob"));
        let draft = seal::Draft {
            message_id: MESSAGE_ID,
            sender: &self.keys.address("alice"),
            recipient: &self.keys.address("bob"),
            recipient_key: bob.public(),
            time_unix_ms: TIME_UNIX_MS,
            wants_receipts: false,
            text: TEXT,
            beside: &seal::Beside::Nothing,
        };
        let mut sealed = seal::seal(alice, &draft).expect("it can be sealed");
        let content_key = bob.unwrap(&sealed.wrapped_key).expect("it is wrapped to bob");
        let mut statement = MessageStatement::decode(&sealed.statement[..]).expect("it was encoded here");
        let additional_data = [label, &statement.header].concat();
        let encrypted = content::encrypt_bytes(&content_key, &additional_data, manifest).expect("it can be encrypted");
        statement.file_nonce = Bytes::copy_from_slice(&encrypted.nonce);
        statement.file_ciphertext = encrypted.ciphertext;
        change(&mut statement);
        sealed.statement = statement.encode_to_vec().into();
        sealed.signature = sign(alice, Label::Message, &sealed.statement);
        sealed
    }

    fn sealed(&self, manifest: &FileManifest) -> SealedMessage {
        self.sealed_with(MANIFEST_LABEL, manifest.encode_to_vec(), |_| {})
    }

    fn good(&self, of: Made, name: &str, saved_as: &str, stored: &[Piece]) -> Value {
        let manifest = FileManifest { name: name.into(), ..self.manifest(of, stored) };
        let sealed = self.sealed(&manifest);
        let message = Message::parse(&sealed).expect("it is well formed");
        let content_key = self.keys.key("bob").unwrap(&sealed.wrapped_key).expect("it is wrapped to bob");
        let mut case = case(&sealed, stored);
        case["text"] = json!(TEXT);
        case["file_id"] = json!(manifest.file_id);
        case["home_id"] = json!(manifest.home_id);
        case["name"] = json!(name);
        case["bytes"] = json!(manifest.bytes.to_string());
        case["key"] = json!(hex(&of.key));
        case["ciphertext_sha256"] = json!(hex(&manifest.ciphertext_sha256));
        case["saved_as"] = json!(saved_as);
        case["content_sha256"] = json!(hex(&sha256(&[&of.content()])));
        case["header"] = json!(hex(&message.header));
        case["content_key"] = json!(hex(&content_key[..]));
        case["manifest"] = json!(hex(&manifest.encode_to_vec()));
        case
    }

    /// What a home gives that must not pass for the file, with a hash that it fits: the chunks alone have to tell.
    fn bad(&self, of: Made, stored: &[Piece]) -> Value {
        case(&self.sealed(&self.manifest(of, stored)), stored)
    }
}

fn case(sealed: &SealedMessage, stored: &[Piece]) -> Value {
    json!({
        "recipient": "bob",
        "sealed_message": hex(&sealed.encode_to_vec()),
        "stored": stored.iter().map(Piece::json).collect::<Vec<_>>(),
    })
}

pub fn cases(keys: &Keys) -> Vec<Case> {
    let sender = Sender { keys };
    [sizes(&sender), names(&sender), manifests(&sender), chunks(&sender)].into_iter().flatten().collect()
}

fn sizes(sender: &Sender<'_>) -> Vec<Case> {
    let good = |bytes| {
        let of = made(bytes);
        // Small ones stand there as they are.
        let stored = if bytes < 2 { Piece::Plain(of.sealed()) } else { of.whole() };
        sender.good(of, "report.pdf", "report.pdf", &[stored])
    };
    vec![
        ("an empty file", true, good(0)),
        ("one byte", true, good(1)),
        ("one byte less than a chunk", true, good(CHUNK - 1)),
        ("a chunk", true, good(CHUNK)),
        ("one byte more than a chunk", true, good(CHUNK + 1)),
        ("four chunks", true, good(3 * CHUNK + 7)),
    ]
}

fn names(sender: &Sender<'_>) -> Vec<Case> {
    let named = |name: &str, saved_as: &str| {
        let of = made(1);
        sender.good(of, name, saved_as, &[Piece::Plain(of.sealed())])
    };
    vec![
        ("a name with other letters", true, named("Grüße 👋.txt", "Grüße 👋.txt")),
        ("a path in the name", true, named("../../etc/passwd", "passwd")),
        ("a path from the root in the name", true, named("/etc/passwd", "passwd")),
        ("a path of another system in the name", true, named("..\\..\\boot.ini", "boot.ini")),
        ("a name that ends with a slash", true, named("folder/", "file")),
        ("the folder above for a name", true, named("..", "file")),
        ("no name", true, named("", "file")),
        ("a name that hides", true, named(".bashrc", "_.bashrc")),
        ("a name that looks like an option", true, named("-rf", "_-rf")),
        ("a name that looks like a home", true, named("~root", "_~root")),
        ("a name with blanks before a dot", true, named("  .profile ", "_.profile")),
        ("control characters in the name", true, named("a\u{0}b\u{1b}[2Jc.txt", "ab[2Jc.txt")),
        ("a name that turns its direction", true, named("exe.\u{202e}fdp", "exe.fdp")),
    ]
}

fn manifests(sender: &Sender<'_>) -> Vec<Case> {
    let of = made(1);
    let stored = || [Piece::Plain(of.sealed())];
    let honest = sender.manifest(of, &stored());
    let with = |change: &dyn Fn(&mut FileManifest)| {
        let mut manifest = honest.clone();
        change(&mut manifest);
        case(&sender.sealed(&manifest), &stored())
    };
    let resigned = |change: &dyn Fn(&mut MessageStatement)| {
        case(&sender.sealed_with(MANIFEST_LABEL, honest.encode_to_vec(), change), &stored())
    };
    let flip = |bytes: &mut Bytes| *bytes = crate::flipped(bytes, 0);
    vec![
        ("one bit of the manifest altered, signed again", false, resigned(&|said| flip(&mut said.file_ciphertext))),
        ("another nonce of the manifest, signed again", false, resigned(&|said| flip(&mut said.file_nonce))),
        ("a nonce of the manifest of 11 bytes", false, {
            resigned(&|said| said.file_nonce = said.file_nonce.slice(1..))
        }),
        ("no nonce of the manifest", false, resigned(&|said| said.file_nonce.clear())),
        ("a nonce and no manifest", false, resigned(&|said| said.file_ciphertext.clear())),
        ("the text in place of the manifest", false, {
            resigned(&|said| {
                (said.file_nonce, said.file_ciphertext) = (said.nonce.clone(), said.ciphertext.clone());
            })
        }),
        ("a manifest encrypted under another label", false, {
            case(&sender.sealed_with(b"socp.v1.FileChunk\0", honest.encode_to_vec(), |_| {}), &stored())
        }),
        ("a manifest encrypted without a label", false, {
            case(&sender.sealed_with(b"", honest.encode_to_vec(), |_| {}), &stored())
        }),
        ("a manifest that does not decode", false, {
            case(&sender.sealed_with(MANIFEST_LABEL, vec![0xff; 40], |_| {}), &stored())
        }),
        ("an empty manifest", false, case(&sender.sealed_with(MANIFEST_LABEL, Vec::new(), |_| {}), &stored())),
        ("a file id that is too short", false, with(&|said| said.file_id.truncate(31))),
        ("a file id in upper case", false, with(&|said| said.file_id = said.file_id.to_uppercase())),
        ("a home id that is too short", false, with(&|said| said.home_id.truncate(63))),
        ("a name of 1,025 bytes", false, with(&|said| said.name = "n".repeat(1025))),
        ("chunks of another size", false, with(&|said| said.chunk_bytes = 65_535)),
        ("a key that is too short", false, with(&|said| said.key = said.key.slice(1..))),
        ("a hash that is too short", false, with(&|said| said.ciphertext_sha256 = said.ciphertext_sha256.slice(1..))),
        ("more chunks than can be counted", false, with(&|said| said.bytes = 1 << 48)),
        ("another hash than that of the bytes", false, {
            with(&|said| said.ciphertext_sha256 = crate::flipped(&said.ciphertext_sha256, 0))
        }),
        ("another key than that of the bytes", false, with(&|said| said.key = crate::flipped(&said.key, 0))),
        ("a size that is too small", false, with(&|said| said.bytes = 0)),
        ("a size that is too large", false, with(&|said| said.bytes = 2)),
    ]
}

fn chunks(sender: &Sender<'_>) -> Vec<Case> {
    let (of, other) = (made(2 * CHUNK + 100), Made { key: [9; 32], ..made(2 * CHUNK + 100) });
    let bad = |stored: &[Piece]| sender.bad(of, stored);
    let all = of.sealed();
    let end = all.len();
    // Whoever drops the last chunk may lie about the size, too: no chunk that is left is marked as the last.
    let cut = Made { bytes: 2 * CHUNK, ..of };
    let altered = |place: usize| [of.part(0, place), Piece::Plain(vec![all[place] ^ 1]), of.part(place + 1, end)];
    vec![
        ("chunks reordered", false, bad(&[of.chunk(1), of.chunk(0), of.chunk(2)])),
        ("the first chunk dropped", false, bad(&[of.chunk(1), of.chunk(2)])),
        ("a chunk in the middle dropped", false, bad(&[of.chunk(0), of.chunk(2)])),
        ("the last chunk dropped", false, bad(&[of.chunk(0), of.chunk(1)])),
        ("the last chunk dropped, and the size said accordingly", false, {
            sender.bad(cut, &[of.chunk(0), of.chunk(1)])
        }),
        ("a chunk in the middle dropped, and the size said accordingly", false, {
            sender.bad(Made { bytes: CHUNK + 100, ..of }, &[of.chunk(0), of.chunk(2)])
        }),
        ("a chunk twice", false, bad(&[of.chunk(0), of.chunk(0), of.chunk(1), of.chunk(2)])),
        ("a chunk twice in place of another", false, bad(&[of.chunk(0), of.chunk(0), of.chunk(2)])),
        ("a chunk of another file", false, bad(&[of.chunk(0), other.chunk(1), of.chunk(2)])),
        ("another file", false, bad(&[other.whole()])),
        ("cut off within a chunk", false, bad(&[of.part(0, SEALED_CHUNK + 1000)])),
        ("one byte short", false, bad(&[of.part(0, end - 1)])),
        ("one byte short at the beginning", false, bad(&[of.part(1, end)])),
        ("one byte long", false, bad(&[of.whole(), Piece::Plain(vec![0])])),
        ("an empty chunk after the last", false, bad(&[of.whole(), Piece::Plain(made(0).sealed())])),
        ("nothing at all", false, bad(&[])),
        ("one bit altered in the first chunk", false, bad(&altered(0))),
        ("one bit altered in the last tag", false, bad(&altered(end - 1))),
        ("one bit altered, and the hash of what was sent", false, {
            case(&sender.sealed(&sender.manifest(of, &[of.whole()])), &altered(SEALED_CHUNK))
        }),
        ("nothing at all for an empty file", false, sender.bad(made(0), &[])),
        ("a chunk that is not marked as the last", false, {
            let one = made(CHUNK);
            // The first of two chunks has the size of the only one.
            let two = Made { bytes: CHUNK + 1, ..one };
            sender.bad(one, &[two.chunk(0)])
        }),
    ]
}
