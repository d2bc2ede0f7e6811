//! Makes the golden vectors anew: `cargo run --example vectors`, or `cargo run --example vectors NAME...` for some.
//!
//! For a change of the contract only. The keys of `keys.json` stay; PSS and OAEP are random, so everything signed or
//! wrapped changes with every run. What the files hold is said in the README beside them.

mod files;
mod receipts;

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, RSA_PSS_SHA256, UnparsedPublicKey},
};
use prost::{Message as _, bytes::Bytes};
use serde_json::{Map, Value, json};
use socp::{
    batch::{Advert, Batch, Content, Epoch},
    digest::{Digest, DigestEntry, SetHash},
    federation::v1::{BatchStatement, SignedBatch},
    id::{MessageId, ServerId, StartId, StatementHash, ed25519_spki, hex, sha256},
    identity::Identity,
    message::{Address, Message, Post},
    moves::Move,
    name::UserName,
    signed::{Label, signing_input},
    statement::{KeyStatement, encode_certificate, encode_login, statement_hash},
    user_key::UserKey,
    v1::{
        self, MessageHeader, MessageStatement, PostHeader, PostStatement, ReceiptKind, SealedMessage, SealedPost,
        SignedKeyStatement, SignedMove,
    },
};
use socp_client::{
    content, post,
    private_key::PrivateKey,
    public_key,
    receipt::Receipt,
    seal::{self, Beside},
};

const TIME_UNIX_MS: i64 = 1_750_000_000_000;
const MESSAGE_ID: &str = "01977420-dc00-774b-bcce-b302099a8057";
const SECOND_ID: &str = "01977420-dc01-774b-bcce-b302099a8057";
const USERS: [(&str, &str); 3] = [("alice", "server-a"), ("bob", "server-b"), ("mallory", "server-b")];
const HOMES: [&str; 2] = ["server-a", "server-b"];

/// A page: its name, what it is about, and how its cases are made.
type Page = (&'static str, &'static str, fn(&Keys) -> Vec<Case>);

const PAGES: [Page; 11] = [
    ("key_statement", "A user's claim to a name and a key, and a rotation.", key_statements),
    ("login", "What a login signs.", logins),
    ("move", "A user's word that they are at another home now.", moves),
    ("envelope", "A message: sealed by its sender, opened by its recipient.", envelopes),
    (
        "file",
        "A message that brings a file, and what its home gives: fetched and opened by its recipient.",
        files::cases,
    ),
    ("receipt", "A message that is a receipt: what became of others.", receipts::cases),
    ("channel_post", "A post to the public channel, and the channel key wrapped to a member.", posts),
    ("outcome", "What became of a message: the word of its recipient's home, or of its sender's.", outcomes),
    ("server_info", "How a server proves who it is.", server_infos),
    ("batch", "What an origin tells other servers. No client meets one.", batches),
    ("digest", "The digest of a directory.", |_| digests()),
];

fn main() {
    let wanted: Vec<String> = env::args().skip(1).collect();
    let keys = Keys::read_or_make();
    write("keys", "The users and homes of all vectors. These private keys are public: never use them.", keys.json());
    for (name, about, make) in PAGES {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            write(name, about, cases(make(&keys)));
        }
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/tests/vectors")
}

fn write(file: &str, about: &str, content: Value) {
    let mut page = Map::from_iter([("about".to_owned(), json!(about))]);
    page.extend(content.as_object().expect("a page is an object").clone());
    let text = serde_json::to_string_pretty(&page).expect("it is JSON") + "\n";
    fs::write(folder().join(file).with_extension("json"), text).expect("the folder can be written to");
}

/// One case: its name, whether it is valid, and what it holds.
type Case = (&'static str, bool, Value);

fn cases(cases: Vec<Case>) -> Value {
    let written = cases.into_iter().map(|(name, valid, content)| {
        let mut case = Map::from_iter([("case".to_owned(), json!(name)), ("valid".to_owned(), json!(valid))]);
        case.extend(content.as_object().expect("a case is an object").clone());
        Value::Object(case)
    });
    json!({ "cases": written.collect::<Vec<_>>() })
}

/// The people and servers of the vectors.
struct Keys {
    users: Vec<PrivateKey>,
    homes: Vec<Home>,
}

impl Keys {
    fn read_or_make() -> Self {
        let kept: Value = fs::read(folder().join("keys.json"))
            .ok()
            .map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).expect("`keys.json` is JSON"));
        let secret = |kind: &str, name: &str, key: &str| kept[kind][name][key].as_str().map(bytes_of);
        let user = |(name, _): &(&str, &str)| {
            secret("users", name, "private_key_pkcs8").map_or_else(
                || PrivateKey::generate().expect("a key can be made"),
                |der| PrivateKey::from_pkcs8(&der).expect("the kept key is one"),
            )
        };
        let home = |name: &&str| match secret("homes", name, "identity_seed") {
            Some(seed) => Home::new(&seed),
            None => Home::new(&sha256(&[b"socp vectors", name.as_bytes()])),
        };
        Self { users: USERS.iter().map(user).collect(), homes: HOMES.iter().map(home).collect() }
    }

    fn json(&self) -> Value {
        let mut users = Map::new();
        for ((name, home), key) in USERS.iter().zip(&self.users) {
            let pkcs8 = key.pkcs8().expect("a key has a form");
            users.insert(
                (*name).to_owned(),
                json!({
                    "home": home,
                    "private_key_pkcs8": hex(&pkcs8),
                    "public_key": hex(key.public().spki()),
                    "key_sha256": key.public().fingerprint().to_string(),
                }),
            );
        }
        let mut homes = Map::new();
        for (name, home) in HOMES.iter().zip(&self.homes) {
            homes.insert(
                (*name).to_owned(),
                json!({
                    "identity_seed": hex(&home.seed),
                    "identity_key": hex(&ed25519_spki(&home.public_key())),
                    "server_id": home.id().to_string(),
                }),
            );
        }
        json!({ "users": users, "homes": homes })
    }

    fn key(&self, user: &str) -> &PrivateKey {
        let place = USERS.iter().position(|(name, _)| *name == user).expect("one of the users");
        &self.users[place]
    }

    fn home(&self, name: &str) -> &Home {
        let place = HOMES.iter().position(|home| *home == name).expect("one of the homes");
        &self.homes[place]
    }

    fn address(&self, user: &str) -> Address {
        let (name, home) = USERS.iter().find(|(name, _)| *name == user).expect("one of the users");
        Address { home: self.home(home).id(), user: UserName::parse(name).expect("a name") }
    }
}

/// A server's identity.
struct Home {
    seed: Vec<u8>,
    key: Ed25519KeyPair,
}

impl Home {
    fn new(seed: &[u8]) -> Self {
        Self { seed: seed.to_vec(), key: Ed25519KeyPair::from_seed_unchecked(seed).expect("32 bytes are a seed") }
    }

    fn id(&self) -> ServerId {
        ServerId::of_key(&self.public_key())
    }
}

impl Identity for Home {
    fn public_key(&self) -> [u8; 32] {
        self.key.public_key().as_ref().try_into().expect("a key is 32 bytes")
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).as_ref().try_into().expect("a signature is 64 bytes")
    }

    fn verify(&self, key: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
    }
}

fn bytes_of(text: &str) -> Vec<u8> {
    let digit = |place: usize| u8::from_str_radix(&text[place..place + 2], 16).expect("two hexadecimal digits");
    (0..text.len()).step_by(2).map(digit).collect()
}

fn sign(key: &PrivateKey, label: Label, statement: &[u8]) -> Bytes {
    key.sign(label, statement).expect("a key signs")
}

fn flipped(bytes: &Bytes, place: usize) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[place] ^= 1;
    bytes.into()
}

// ---- key statements

fn claim(who: &Address, key: &UserKey, number: u64, previous: Option<StatementHash>) -> Bytes {
    KeyStatement::encode(&who.user, who.home, key, number, previous).into()
}

fn key_statements(keys: &Keys) -> Vec<Case> {
    let (alice, mallory) = (keys.key("alice"), keys.key("mallory"));
    let who = keys.address("alice");
    let statement = claim(&who, alice.public(), 1, None);
    let signed = |statement: &Bytes, signature: Bytes| SignedKeyStatement {
        statement: statement.clone(),
        signature,
        previous_signature: Bytes::new(),
    };
    let first = signed(&statement, sign(alice, Label::KeyStatement, &statement));

    // The rotation: mallory's key becomes alice's.
    let second = claim(&who, mallory.public(), 2, Some(statement_hash(&first)));
    let rotation = |previous: &PrivateKey, label| SignedKeyStatement {
        statement: second.clone(),
        signature: sign(mallory, Label::KeyStatement, &second),
        previous_signature: sign(previous, label, &second),
    };
    let rotated = rotation(alice, Label::KeyStatement);
    let skipping = claim(&who, mallory.public(), 3, Some(statement_hash(&first)));
    let skipped = SignedKeyStatement {
        statement: skipping.clone(),
        signature: sign(mallory, Label::KeyStatement, &skipping),
        previous_signature: sign(alice, Label::KeyStatement, &skipping),
    };

    let first_hash = statement_hash(&first);
    let own_hash: &[u8] = first_hash.as_bytes();
    let rotating = |number, previous: &[u8], is_signed_by_both: bool| {
        let content = v1::KeyStatement {
            number,
            previous_sha256: Bytes::copy_from_slice(previous),
            ..v1::KeyStatement::decode(&second[..]).expect("it was encoded here")
        };
        let statement: Bytes = content.encode_to_vec().into();
        let previous_signature =
            if is_signed_by_both { sign(alice, Label::KeyStatement, &statement) } else { Bytes::new() };
        SignedKeyStatement { signature: sign(mallory, Label::KeyStatement, &statement), statement, previous_signature }
    };

    // The entry of the directory that the statement is held against.
    let shown = |signed: &SignedKeyStatement, previous: Option<&SignedKeyStatement>| {
        json!({
            "user": who.user.to_string(),
            "home_id": who.home.to_string(),
            "key_statement_sha256": statement_hash(signed).to_string(),
            "signed_key_statement": hex(&signed.encode_to_vec()),
            "previous": previous.map(|previous| hex(&previous.encode_to_vec())).unwrap_or_default(),
        })
    };
    let with = |mut case: Value, key: &str, value: Value| {
        case[key] = value;
        case
    };
    let accepted = |case: Value, signed: &SignedKeyStatement, key: &PrivateKey| {
        let case =
            with(case, "number", json!(KeyStatement::parse(signed).expect("it is well formed").number.to_string()));
        let case = with(case, "key_sha256", json!(key.public().fingerprint().to_string()));
        with(case, "signing_input", json!(hex(&signing_input(Label::KeyStatement, &signed.statement))))
    };
    let (short_key, short_spki) = short_key();
    let short = v1::KeyStatement {
        public_key: short_spki,
        ..v1::KeyStatement::decode(&statement[..]).expect("it was encoded here")
    };
    let short: Bytes = short.encode_to_vec().into();
    let mut short_signature = vec![0; 256];
    short_key
        .sign(&RSA_PSS_SHA256, &SystemRandom::new(), &signing_input(Label::KeyStatement, &short), &mut short_signature)
        .expect("a key signs");

    vec![
        ("a first statement", true, accepted(shown(&first, None), &first, alice)),
        (
            "a rotation, signed by the key before it too",
            true,
            accepted(shown(&rotated, Some(&first)), &rotated, mallory),
        ),
        (
            "signed under another label",
            false,
            shown(&signed(&statement, sign(alice, Label::Message, &statement)), None),
        ),
        (
            "signed by another key",
            false,
            shown(&signed(&statement, sign(mallory, Label::KeyStatement, &statement)), None),
        ),
        ("altered after it was signed", false, {
            let altered = claim(&who, mallory.public(), 1, None);
            shown(&signed(&altered, first.signature.clone()), None)
        }),
        ("of another user", false, with(shown(&first, None), "user", json!("bob"))),
        ("of another home", false, with(shown(&first, None), "home_id", json!(keys.home("server-b").id().to_string()))),
        (
            "not the one that the entry names",
            false,
            with(shown(&first, None), "key_statement_sha256", json!(hex(&sha256(&[b"another"])))),
        ),
        (
            "a rotation that the key before it did not sign",
            false,
            shown(&rotation(mallory, Label::KeyStatement), Some(&first)),
        ),
        (
            "a rotation that the key before it signed for another purpose",
            false,
            shown(&rotation(alice, Label::Login), Some(&first)),
        ),
        ("a rotation that skips a number", false, shown(&skipped, Some(&first))),
        ("a rotation of another statement", false, shown(&rotating(2, &sha256(&[b"another"]), true), Some(&first))),
        ("a rotation that names no statement before it", false, shown(&rotating(2, &[], true), Some(&first))),
        (
            "a rotation without a signature by the key before it",
            false,
            shown(&rotating(2, own_hash, false), Some(&first)),
        ),
        ("a first statement with one before it", false, shown(&rotating(1, own_hash, true), None)),
        ("number zero", false, shown(&rotating(0, &[], false), None)),
        ("a key of 2048 bits", false, shown(&signed(&short, short_signature.into()), None)),
    ]
}

/// An RSA key that is too short, which our own types refuse to hold.
fn short_key() -> (RsaKeyPair, Bytes) {
    let key = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key can be made");
    let spki: PublicKeyX509Der<'_> = key.public_key().as_der().expect("a key has a form");
    let spki = Bytes::copy_from_slice(spki.as_ref());
    (key, spki)
}

// ---- logins

fn logins(keys: &Keys) -> Vec<Case> {
    let (alice, mallory) = (keys.key("alice"), keys.key("mallory"));
    let who = keys.address("alice");
    let nonce = sha256(&[b"nonce"]);
    let statement: Bytes = encode_login(who.home, &who.user, &nonce).into();
    let login = |statement: &Bytes, signature: &Bytes| {
        json!({
            "user": who.user.to_string(),
            "server_id": who.home.to_string(),
            "nonce": hex(&nonce),
            "public_key": hex(alice.public().spki()),
            "statement": hex(statement),
            "signature": hex(signature),
        })
    };
    let signed = |statement: Vec<u8>| {
        let statement = Bytes::from(statement);
        login(&statement, &sign(alice, Label::Login, &statement))
    };
    let mut good = login(&statement, &sign(alice, Label::Login, &statement));
    good["signing_input"] = json!(hex(&signing_input(Label::Login, &statement)));
    vec![
        ("a login", true, good),
        ("signed under another label", false, login(&statement, &sign(alice, Label::KeyStatement, &statement))),
        ("signed without a label", false, login(&statement, &unlabelled(alice, &statement))),
        ("signed by another key", false, login(&statement, &sign(mallory, Label::Login, &statement))),
        ("altered after it was signed", false, {
            let other = encode_login(who.home, &who.user, &sha256(&[b"other"])).into();
            login(&other, &sign(alice, Label::Login, &statement))
        }),
        ("for another server", false, signed(encode_login(keys.home("server-b").id(), &who.user, &nonce))),
        ("of another user", false, signed(encode_login(who.home, &UserName::parse("bob").expect("a name"), &nonce))),
        ("with another nonce", false, signed(encode_login(who.home, &who.user, &sha256(&[b"other"])))),
    ]
}

fn unlabelled(key: &PrivateKey, statement: &[u8]) -> Bytes {
    let key = RsaKeyPair::from_pkcs8(&key.pkcs8().expect("a key has a form")).expect("it is one");
    let mut signature = vec![0; 512];
    key.sign(&RSA_PSS_SHA256, &SystemRandom::new(), statement, &mut signature).expect("a key signs");
    signature.into()
}

// ---- moves

fn moves(keys: &Keys) -> Vec<Case> {
    let (alice, mallory) = (keys.key("alice"), keys.key("mallory"));
    let (old, home) = (keys.address("alice"), keys.home("server-b").id());
    let at = |user: &str| Address { home, user: UserName::parse(user).expect("a name") };
    let new = at("alice");
    let claim_by = |who: &Address, key: &PrivateKey, signer: &PrivateKey| {
        let statement = claim(who, key.public(), 1, None);
        let signature = sign(signer, Label::KeyStatement, &statement);
        SignedKeyStatement { statement, signature, previous_signature: Bytes::new() }
    };
    let shown = claim_by(&old, alice, alice);
    let hash = statement_hash(&shown);
    let case = |signed: &SignedMove, found: &SignedKeyStatement| {
        json!({
            "user": old.user.to_string(),
            "home_id": old.home.to_string(),
            "key_statement": hex(&shown.encode_to_vec()),
            "signed_move": hex(&signed.encode_to_vec()),
            "new_key_statement": hex(&found.encode_to_vec()),
        })
    };
    let signed = |by: &PrivateKey, label, from: &Address, hash, to: &Address| {
        let statement: Bytes = Move::encode(from, hash, to, TIME_UNIX_MS).into();
        SignedMove { signature: sign(by, label, &statement), statement }
    };
    let good = |to: &Address| {
        let signed = signed(alice, Label::Move, &old, hash, to);
        let mut case = case(&signed, &claim_by(to, alice, alice));
        case["new_user"] = json!(to.user.to_string());
        case["new_home_id"] = json!(to.home.to_string());
        case["time_unix_ms"] = json!(TIME_UNIX_MS.to_string());
        case["signing_input"] = json!(hex(&signing_input(Label::Move, &signed.statement)));
        case
    };
    let found = claim_by(&new, alice, alice);
    let refused = |by, label, from: &Address, hash, to: &Address| case(&signed(by, label, from, hash, to), &found);
    let honest = signed(alice, Label::Move, &old, hash, &new);
    let altered = Move::encode(&old, hash, &at("mallory"), TIME_UNIX_MS).into();
    let another_hash = statement_hash(&claim_by(&old, alice, alice));
    let of_bob = Address { user: UserName::parse("bob").expect("a name"), ..old.clone() };
    let elsewhere = Address { home: keys.home("server-b").id(), ..old.clone() };
    let renamed = Address { user: UserName::parse("alicia").expect("a name"), ..old.clone() };
    vec![
        ("to another home", true, good(&new)),
        ("to another home under another name", true, good(&at("alicia"))),
        ("signed under another label", false, refused(alice, Label::KeyStatement, &old, hash, &new)),
        ("signed by another key", false, refused(mallory, Label::Move, &old, hash, &new)),
        ("altered after it was signed", false, {
            let mallorys = claim_by(&at("mallory"), mallory, mallory);
            case(&SignedMove { statement: altered, ..honest.clone() }, &mallorys)
        }),
        ("of another user", false, refused(alice, Label::Move, &of_bob, hash, &new)),
        ("from another home", false, case(&signed(alice, Label::Move, &elsewhere, hash, &old), &shown)),
        ("of another key statement", false, refused(alice, Label::Move, &old, another_hash, &new)),
        ("to where the user is", false, case(&signed(alice, Label::Move, &old, hash, &old), &shown)),
        ("to another name of the same home", false, {
            let signed = signed(alice, Label::Move, &old, hash, &renamed);
            case(&signed, &claim_by(&renamed, alice, alice))
        }),
        ("to where another key is", false, case(&honest, &claim_by(&new, mallory, mallory))),
        ("to where the key is claimed by somebody else", false, case(&honest, &claim_by(&new, alice, mallory))),
        ("to where another user has the key", false, case(&honest, &claim_by(&at("alicia"), alice, alice))),
    ]
}

// ---- messages

fn envelopes(keys: &Keys) -> Vec<Case> {
    const TEXT: &str = "Grüße, Bob 👋";
    let (alice, bob, mallory) = (keys.key("alice"), keys.key("bob"), keys.key("mallory"));
    let (sender, recipient) = (keys.address("alice"), keys.address("bob"));
    let draft = |message_id, text| seal::Draft {
        message_id,
        sender: &sender,
        recipient: &recipient,
        recipient_key: bob.public(),
        time_unix_ms: TIME_UNIX_MS,
        wants_receipts: false,
        text,
        beside: &Beside::Nothing,
    };
    let sealed = |message_id, text| seal::seal(alice, &draft(message_id, text)).expect("it can be sealed");
    let honest = sealed(MESSAGE_ID, TEXT);
    let case = |sealed: &SealedMessage| json!({ "recipient": "bob", "sealed_message": hex(&sealed.encode_to_vec()) });
    let good = |sealed: &SealedMessage, text: &str| {
        let message = Message::parse(sealed).expect("it is well formed");
        let content_key = bob.unwrap(&sealed.wrapped_key).expect("it is wrapped to bob");
        let mut case = case(sealed);
        case["sender"] = json!("alice");
        case["text"] = json!(text);
        case["message_id"] = json!(message.authorship.id.to_string());
        case["time_unix_ms"] = json!(TIME_UNIX_MS.to_string());
        case["statement_sha256"] = json!(hex(&sha256(&[&sealed.statement])));
        case["header"] = json!(hex(&message.header));
        case["nonce"] = json!(hex(&message.nonce));
        case["content_key"] = json!(hex(&content_key[..]));
        case["signing_input"] = json!(hex(&signing_input(Label::Message, &sealed.statement)));
        case
    };
    // What a dishonest sender would do: change something and sign it again.
    let resigned = |change: &dyn Fn(&mut MessageStatement)| {
        let mut statement = MessageStatement::decode(&honest.statement[..]).expect("it was encoded here");
        change(&mut statement);
        let statement: Bytes = statement.encode_to_vec().into();
        SealedMessage { signature: sign(alice, Label::Message, &statement), statement, ..honest.clone() }
    };
    let readdressed = |change: &dyn Fn(&mut MessageHeader)| {
        resigned(&|statement| {
            let mut header = MessageHeader::decode(&statement.header[..]).expect("it was encoded here");
            change(&mut header);
            statement.header = header.encode_to_vec().into();
        })
    };
    // Whole in itself, with a header that must not be accepted.
    let sealed_with = |change: &dyn Fn(&mut MessageHeader)| {
        let message = MessageStatement::decode(&honest.statement[..]).expect("it was encoded here");
        let mut header = MessageHeader::decode(&message.header[..]).expect("it was encoded here");
        change(&mut header);
        seal::seal_under(alice, &draft(MESSAGE_ID, TEXT), header.encode_to_vec()).expect("it can be sealed")
    };
    // Whole in itself, but addressed otherwise than the reader must accept.
    let to = |recipient: &Address, key: &PrivateKey| {
        let draft = seal::Draft { recipient, recipient_key: key.public(), ..draft(MESSAGE_ID, TEXT) };
        seal::seal(alice, &draft).expect("it can be sealed")
    };
    let signed_as =
        |key: &PrivateKey, label| SealedMessage { signature: sign(key, label, &honest.statement), ..honest.clone() };
    let other_home = Address { home: keys.home("server-a").id(), ..recipient.clone() };
    let end = honest.statement.len() - 1;
    vec![
        ("a message", true, good(&honest, TEXT)),
        ("a message without text", true, {
            let empty = sealed(SECOND_ID, "");
            good(&empty, "")
        }),
        ("a message that asks for receipts", true, {
            let asking = seal::Draft { wants_receipts: true, ..draft(SECOND_ID, TEXT) };
            good(&seal::seal(alice, &asking).expect("it can be sealed"), TEXT)
        }),
        ("a receipt", true, {
            let ids = [MESSAGE_ID, SECOND_ID];
            let parsed = ids.map(|id| MessageId::parse(id).expect("a good id"));
            let receipt = Beside::Receipt(Receipt { kind: ReceiptKind::Read, ids: parsed.to_vec() });
            let draft = seal::Draft { beside: &receipt, ..draft(SECOND_ID, "") };
            let mut case = good(&seal::seal(alice, &draft).expect("it can be sealed"), "");
            case["receipt"] = json!({ "kind": "RECEIPT_KIND_READ", "message_ids": ids });
            case
        }),
        ("signed under another label", false, case(&signed_as(alice, Label::Post))),
        ("signed by another key", false, case(&signed_as(mallory, Label::Message))),
        (
            "one bit of the signature altered",
            false,
            case(&SealedMessage { signature: flipped(&honest.signature, 100), ..honest.clone() }),
        ),
        (
            "one bit of the statement altered",
            false,
            case(&SealedMessage { statement: flipped(&honest.statement, end), ..honest.clone() }),
        ),
        (
            "header altered, not signed again",
            false,
            case(&SealedMessage {
                signature: honest.signature.clone(),
                ..readdressed(&|header| header.time_unix_ms += 1)
            }),
        ),
        ("header altered and signed again", false, case(&readdressed(&|header| header.time_unix_ms += 1))),
        (
            "sender in the header altered and signed again",
            false,
            case(&readdressed(&|header| header.sender = "mallory".into())),
        ),
        ("for another user", false, case(&to(&keys.address("mallory"), bob))),
        ("for a user of that name at another home", false, case(&to(&other_home, bob))),
        ("to another key", false, case(&to(&recipient, mallory))),
        (
            "another content key wrapped",
            false,
            case(&SealedMessage {
                wrapped_key: public_key::wrap(bob.public(), &[1; 32]).expect("bob's key wraps"),
                ..honest.clone()
            }),
        ),
        ("no content key wrapped", false, case(&SealedMessage { wrapped_key: Bytes::new(), ..honest.clone() })),
        (
            "another commitment, signed again",
            false,
            case(&resigned(&|statement| statement.key_commitment = Bytes::from_static(&[9; 32]))),
        ),
        (
            "ciphertext cut, signed again",
            false,
            case(&resigned(&|statement| statement.ciphertext = statement.ciphertext.slice(1..))),
        ),
        (
            "another nonce, signed again",
            false,
            case(&resigned(&|statement| statement.nonce = Bytes::from_static(&[9; 12]))),
        ),
        ("a nonce of 13 bytes, signed again", false, {
            case(&resigned(&|statement| statement.nonce = Bytes::from_static(&[9; 13])))
        }),
        ("another suite", false, case(&sealed_with(&|header| header.suite = 2))),
        ("an id that is no UUID of version 7", false, {
            case(&sealed_with(&|header| header.message_id = "01977420-dc00-474b-bcce-b302099a8057".into()))
        }),
        ("a home id in upper case", false, {
            case(&sealed_with(&|header| header.recipient_home_id = header.recipient_home_id.to_uppercase()))
        }),
        ("a key hash that is too short", false, {
            case(&sealed_with(&|header| header.recipient_key_sha256 = header.recipient_key_sha256.slice(1..)))
        }),
    ]
}

// ---- posts

fn posts(keys: &Keys) -> Vec<Case> {
    const TEXT: &str = "good morning, everybody";
    let (alice, bob, mallory) = (keys.key("alice"), keys.key("bob"), keys.key("mallory"));
    let sender = keys.address("alice");
    let channel_key = content::random_key().expect("there is randomness");
    let sealed = |message_id, counter, text: &str| {
        let draft = post::Draft {
            message_id,
            sender: &sender,
            key_id: [6; 16],
            channel_key: &channel_key,
            counter,
            time_unix_ms: TIME_UNIX_MS,
            text,
        };
        post::seal(alice, &draft).expect("it can be sealed")
    };
    let wrap = |key: &UserKey, plain: &[u8; 32]| public_key::wrap(key, plain).expect("the key wraps");
    let honest = sealed(MESSAGE_ID, 0, TEXT);
    let wrapped = wrap(bob.public(), &channel_key);
    // A member who has the channel key already is sent no wrap: `known_channel_key` is what it keeps under key_id.
    let case = |sealed: &SealedPost, wrapped: &Bytes, known: &[u8]| {
        json!({
            "member": "bob",
            "sealed_post": hex(&sealed.encode_to_vec()),
            "wrapped_channel_key": hex(wrapped),
            "known_channel_key": hex(known),
            "known_key_id": if known.is_empty() { String::new() } else { hex(&[6; 16]) },
        })
    };
    let good = |sealed: &SealedPost, wrapped: &Bytes, known: &[u8]| {
        let read = Post::parse(sealed).expect("it is well formed");
        let mut case = case(sealed, wrapped, known);
        let id = read.authorship.id.to_string();
        let post_key = post::derive_key(&channel_key, &read.salt, &id).expect("a key can be derived");
        case["sender"] = json!("alice");
        case["text"] = json!(TEXT);
        case["message_id"] = json!(id);
        case["time_unix_ms"] = json!(TIME_UNIX_MS.to_string());
        case["key_id"] = json!(hex(&read.key_id));
        case["counter"] = json!(read.counter.to_string());
        case["statement_sha256"] = json!(hex(&sha256(&[&sealed.statement])));
        case["header"] = json!(hex(&read.header));
        case["salt"] = json!(hex(&read.salt));
        case["nonce"] = json!(hex(&read.nonce));
        case["channel_key"] = json!(hex(&channel_key[..]));
        case["post_key"] = json!(hex(&post_key[..]));
        case["signing_input"] = json!(hex(&signing_input(Label::Post, &sealed.statement)));
        case
    };
    let resigned = |change: &dyn Fn(&mut PostStatement)| {
        let mut statement = PostStatement::decode(&honest.statement[..]).expect("it was encoded here");
        change(&mut statement);
        let statement: Bytes = statement.encode_to_vec().into();
        SealedPost { signature: sign(alice, Label::Post, &statement), statement }
    };
    let with_header = |change: &dyn Fn(&mut PostHeader)| {
        resigned(&|statement| {
            let mut header = PostHeader::decode(&statement.header[..]).expect("it was encoded here");
            change(&mut header);
            statement.header = header.encode_to_vec().into();
        })
    };
    // Whole in itself, with a header that must not be accepted.
    let sealed_with = |change: &dyn Fn(&mut PostHeader)| {
        let statement = PostStatement::decode(&honest.statement[..]).expect("it was encoded here");
        let mut header = PostHeader::decode(&statement.header[..]).expect("it was encoded here");
        change(&mut header);
        let salt: [u8; 32] = header.salt[..].try_into().expect("the salt is not altered");
        let post_key = post::derive_key(&channel_key, &salt, &header.message_id).expect("a key can be derived");
        post::seal_under(alice, &post_key, TEXT, header.encode_to_vec()).expect("it can be sealed")
    };
    let signed_as =
        |key: &PrivateKey, label| SealedPost { signature: sign(key, label, &honest.statement), ..honest.clone() };
    let bad = |sealed: &SealedPost| case(sealed, &wrapped, &[]);
    vec![
        ("a post with the channel key", true, good(&honest, &wrapped, &[])),
        ("the next post, to a member who has the key", true, {
            let next = sealed(SECOND_ID, 1, TEXT);
            good(&next, &Bytes::new(), &channel_key[..])
        }),
        ("signed under another label", false, bad(&signed_as(alice, Label::Message))),
        ("signed by another key", false, bad(&signed_as(mallory, Label::Post))),
        (
            "header altered, not signed again",
            false,
            bad(&SealedPost { signature: honest.signature.clone(), ..with_header(&|header| header.counter = 7) }),
        ),
        ("header altered and signed again", false, bad(&with_header(&|header| header.counter = 7))),
        ("another salt, signed again", false, bad(&with_header(&|header| header.salt = Bytes::from_static(&[9; 32])))),
        (
            "another message id, signed again",
            false,
            bad(&with_header(&|header| header.message_id = "01977420-dc00-774b-bcce-b302099a8058".into())),
        ),
        (
            "sender in the header altered and signed again",
            false,
            bad(&with_header(&|header| header.sender = "mallory".into())),
        ),
        ("the channel key wrapped to another member", false, case(&honest, &wrap(mallory.public(), &channel_key), &[])),
        ("another channel key wrapped", false, case(&honest, &wrap(bob.public(), &[1; 32]), &[])),
        ("another channel key kept", false, case(&honest, &Bytes::new(), &[1; 32])),
        ("no channel key at all", false, case(&honest, &Bytes::new(), &[])),
        (
            "another commitment, signed again",
            false,
            bad(&resigned(&|statement| statement.key_commitment = Bytes::from_static(&[9; 32]))),
        ),
        ("another suite", false, bad(&sealed_with(&|header| header.suite = 2))),
        ("another channel", false, bad(&sealed_with(&|header| header.channel = "private".into()))),
        ("a key id that is too short", false, bad(&sealed_with(&|header| header.key_id = header.key_id.slice(1..)))),
    ]
}

// ---- outcomes

fn outcomes(keys: &Keys) -> Vec<Case> {
    let (home, other) = (keys.home("server-b"), keys.home("server-a"));
    let hash = sha256(&[b"what was sent"]);
    let outcome = |kind: v1::OutcomeKind, reason: &str, hash: &[u8]| v1::Outcome {
        statement_sha256: Bytes::copy_from_slice(hash),
        kind: kind.into(),
        reason: reason.into(),
        recipients: u32::from(kind == v1::OutcomeKind::HandedOver || kind == v1::OutcomeKind::Stored),
    };
    let statement = |home_id: ServerId, outcomes: Vec<v1::Outcome>| -> Bytes {
        let content = v1::OutcomeStatement { home_id: home_id.to_string(), time_unix_ms: TIME_UNIX_MS, outcomes };
        content.encode_to_vec().into()
    };
    let signed = |by: &Home, label, statement: Bytes, key: &Home| v1::SignedOutcome {
        signature: Bytes::copy_from_slice(&by.sign(&signing_input(label, &statement))),
        statement,
        home_key: Bytes::copy_from_slice(&key.public_key()),
    };
    // As the sender holds it against the message: sent from `own_home_id` to a user of `home_id`, with this hash.
    let case = |signed: &v1::SignedOutcome| {
        json!({
            "home_id": home.id().to_string(),
            "own_home_id": other.id().to_string(),
            "statement_sha256": hex(&hash),
            "signed_outcome": hex(&signed.encode_to_vec()),
        })
    };
    let good = |signed: &v1::SignedOutcome, kind: v1::OutcomeKind, reason: &str, recipients: u32| {
        let mut case = case(signed);
        case["kind"] = json!(kind.as_str_name());
        case["reason"] = json!(reason);
        case["recipients"] = json!(recipients);
        case["signing_input"] = json!(hex(&signing_input(Label::Outcome, &signed.statement)));
        case
    };
    let (handed_over, rejected) = (v1::OutcomeKind::HandedOver, v1::OutcomeKind::Rejected);
    let kept = statement(home.id(), vec![outcome(v1::OutcomeKind::Stored, "", &hash)]);
    let handed = statement(home.id(), vec![outcome(handed_over, "", &hash)]);
    let offline = outcome(rejected, "RECIPIENT_OFFLINE", &hash);
    let among_others = vec![outcome(handed_over, "", &sha256(&[b"something else"])), offline];
    let refused = statement(home.id(), among_others);
    let elsewhere = statement(home.id(), vec![outcome(handed_over, "", &sha256(&[b"something else"]))]);
    let unspecified = statement(home.id(), vec![outcome(v1::OutcomeKind::Unspecified, "", &hash)]);
    let of_other = statement(other.id(), vec![outcome(handed_over, "", &hash)]);
    let (queued, expired) = (v1::OutcomeKind::Queued, v1::OutcomeKind::Expired);
    let about = |by: &Home, kind, reason| {
        signed(by, Label::Outcome, statement(by.id(), vec![outcome(kind, reason, &hash)]), by)
    };
    let honest = signed(home, Label::Outcome, handed.clone(), home);
    let last = honest.statement.len() - 1;
    vec![
        ("handed over", true, good(&honest, handed_over, "", 1)),
        ("refused, among others", true, {
            good(&signed(home, Label::Outcome, refused, home), rejected, "RECIPIENT_OFFLINE", 0)
        }),
        ("stored", true, good(&signed(home, Label::Outcome, kept, home), v1::OutcomeKind::Stored, "", 1)),
        ("queued, by the sender's home", true, good(&about(other, queued, ""), queued, "", 0)),
        ("expired, by the sender's home", true, good(&about(other, expired, ""), expired, "", 0)),
        ("queued, by the recipient's home", false, case(&about(home, queued, ""))),
        ("expired, by the recipient's home", false, case(&about(home, expired, ""))),
        ("stored, by the sender's home", false, case(&about(other, v1::OutcomeKind::Stored, ""))),
        ("handed over, by the sender's home", false, case(&about(other, handed_over, ""))),
        ("refused, by the sender's home", false, case(&about(other, rejected, "RECIPIENT_OFFLINE"))),
        ("signed under another label", false, case(&signed(home, Label::Batch, handed.clone(), home))),
        ("signed by another server", false, case(&signed(other, Label::Outcome, handed.clone(), home))),
        ("another server's word", false, case(&signed(other, Label::Outcome, handed.clone(), other))),
        ("a word in the name of another server", false, case(&signed(home, Label::Outcome, of_other, home))),
        ("altered after it was signed", false, {
            case(&v1::SignedOutcome { statement: flipped(&honest.statement, last), ..honest.clone() })
        }),
        ("of another message", false, case(&signed(home, Label::Outcome, elsewhere, home))),
        ("of no kind", false, case(&signed(home, Label::Outcome, unspecified, home))),
    ]
}

// ---- server info

fn server_infos(keys: &Keys) -> Vec<Case> {
    let (home, other) = (keys.home("server-a"), keys.home("server-b"));
    // Stands for the SubjectPublicKeyInfo of the TLS certificate in use.
    let certificate_key = b"the certificate's key".as_slice();
    let certificate: Bytes = encode_certificate(home.id(), certificate_key).into();
    let info = |key: &Home, statement: &Bytes, signature: [u8; 64]| v1::GetServerInfoResponse {
        name: "server-a".into(),
        server_id: home.id().to_string(),
        identity_key: Bytes::copy_from_slice(&ed25519_spki(&key.public_key())),
        certificate_statement: statement.clone(),
        certificate_signature: Bytes::copy_from_slice(&signature),
        protocol_version: "1.0".into(),
        ..v1::GetServerInfoResponse::default()
    };
    let signed = |by: &Home, label, statement: &Bytes| by.sign(&signing_input(label, statement));
    let case = |info: &v1::GetServerInfoResponse| {
        json!({
            "pinned_server_id": home.id().to_string(),
            "certificate_key": hex(certificate_key),
            "server_info": hex(&info.encode_to_vec()),
        })
    };
    let honest = info(home, &certificate, signed(home, Label::Certificate, &certificate));
    let mut good = case(&honest);
    good["name"] = json!("server-a");
    good["signing_input"] = json!(hex(&signing_input(Label::Certificate, &certificate)));
    let with = |statement: Vec<u8>| {
        let statement = Bytes::from(statement);
        case(&info(home, &statement, signed(home, Label::Certificate, &statement)))
    };
    let later = v1::GetServerInfoResponse { protocol_version: "2.0".into(), ..honest.clone() };
    vec![
        ("the pinned server", true, good),
        (
            "signed under another label",
            false,
            case(&info(home, &certificate, signed(home, Label::Outcome, &certificate))),
        ),
        (
            "signed by another server",
            false,
            case(&info(home, &certificate, signed(other, Label::Certificate, &certificate))),
        ),
        ("another server", false, case(&info(other, &certificate, signed(other, Label::Certificate, &certificate)))),
        ("a statement of another server", false, with(encode_certificate(other.id(), certificate_key))),
        ("another certificate", false, with(encode_certificate(home.id(), b"another certificate's key"))),
        ("another major version", false, case(&later)),
    ]
}

// ---- batches

fn batches(keys: &Keys) -> Vec<Case> {
    let (home, other) = (keys.home("server-a"), keys.home("server-b"));
    let epoch = Epoch { number: 1_750_000_000_000, start: StartId::from_bytes(&[7; 16]).expect("16 bytes") };
    let advert = |user: &str, display_name: &str, status: &str, sessions| {
        Arc::new(Advert {
            user: UserName::parse(user).expect("a name"),
            display_name: display_name.into(),
            status: status.into(),
            statement: StatementHash::from_bytes(&sha256(&[user.as_bytes()])).expect("32 bytes"),
            online_since: 1,
            sessions,
        })
    };
    let adverts = vec![advert("alice", "Alice Äpfel", "here", 1), advert("carol", "", "", 2)];
    let digest_of = |adverts: &[Arc<Advert>]| {
        let mut set = SetHash::default();
        for advert in adverts {
            set.insert(&advert.digest_entry(home.id(), epoch.number));
        }
        set.digest()
    };
    let time = u64::try_from(TIME_UNIX_MS).expect("it is after 1970");
    let first = Batch::sign(home, epoch, 1, digest_of(&adverts), time, Content::Adverts(adverts.clone()));
    let gone = vec![UserName::parse("alice").expect("a name")];
    let second = Batch::sign(home, epoch, 2, digest_of(&adverts[1..]), time + 1, Content::Removals(gone));
    let entries = |shown: &[Arc<Advert>]| {
        json!(shown.iter().map(|advert| entry(home.id(), epoch.number, advert)).collect::<Vec<_>>())
    };
    let case =
        |signed: &SignedBatch| json!({ "origin": home.id().to_string(), "signed_batch": hex(&signed.encode_to_vec()) });
    let good = |batch: &Batch, shown: &[Arc<Advert>]| {
        let mut case = case(&batch.signed);
        let names = |users: Vec<&UserName>| json!(users.iter().map(ToString::to_string).collect::<Vec<_>>());
        let (adverts, removals) = match &batch.content {
            Content::Adverts(_) => (names(batch.users()), json!([])),
            Content::Removals(_) | Content::Moved(_) => (json!([]), names(batch.users())),
        };
        case["epoch"] = json!(batch.epoch.number.to_string());
        case["start_id"] = json!(hex(batch.epoch.start.as_bytes()));
        case["number"] = json!(batch.number.to_string());
        case["adverts"] = adverts;
        case["removals"] = removals;
        case["digest"] = json!(hex(batch.digest.as_bytes()));
        case["signing_input"] = json!(hex(&signing_input(Label::Batch, &batch.signed.statement)));
        // What the digest is of: the origin's entries after this batch.
        case["entries_after"] = entries(shown);
        case
    };
    let signed_by = |key: &Home, label, statement: Bytes| SignedBatch {
        signature: Bytes::copy_from_slice(&key.sign(&signing_input(label, &statement))),
        statement,
    };
    let changed = |change: &dyn Fn(&mut BatchStatement)| -> Bytes {
        let mut statement = BatchStatement::decode(&first.signed.statement[..]).expect("it was encoded here");
        change(&mut statement);
        statement.encode_to_vec().into()
    };
    let statement = first.signed.statement.clone();
    let other_key = Bytes::copy_from_slice(&other.public_key());
    vec![
        ("two users come", true, good(&first, &adverts)),
        ("one of them goes", true, good(&second, &adverts[1..])),
        ("signed under another label", false, case(&signed_by(home, Label::Goodbye, statement.clone()))),
        ("signed by another server", false, case(&signed_by(other, Label::Batch, statement))),
        (
            "another server's, and signed by it",
            false,
            case(&signed_by(other, Label::Batch, changed(&|batch| batch.origin_key = other_key.clone()))),
        ),
        (
            "number altered after it was signed",
            false,
            case(&SignedBatch { statement: changed(&|batch| batch.number = 2), ..first.signed.clone() }),
        ),
        (
            "digest altered after it was signed",
            false,
            case(&SignedBatch {
                statement: changed(&|batch| batch.digest = flipped(&batch.digest, 0)),
                ..first.signed.clone()
            }),
        ),
        (
            "adverts and removals in one",
            false,
            case(&signed_by(
                home,
                Label::Batch,
                changed(&|batch| {
                    batch.removals = vec![socp::federation::v1::Removal { user: "bob".into(), moved: None }];
                }),
            )),
        ),
        ("nothing in it", false, case(&signed_by(home, Label::Batch, changed(&|batch| batch.adverts.clear())))),
        ("number zero", false, case(&signed_by(home, Label::Batch, changed(&|batch| batch.number = 0)))),
        ("a digest that is not its entries'", false, {
            let statement = changed(&|batch| batch.digest = flipped(&batch.digest, 0));
            let mut case = case(&signed_by(home, Label::Batch, statement));
            case["entries_after"] = entries(&adverts);
            case
        }),
    ]
}

fn entry(origin: ServerId, epoch: u64, advert: &Advert) -> Value {
    json!({
        "server_id": origin.to_string(),
        "epoch": epoch.to_string(),
        "name": advert.user.to_string(),
        "display_name": &*advert.display_name,
        "status": &*advert.status,
        "key_statement_sha256": hex(advert.statement.as_bytes()),
        "online_since": advert.online_since.to_string(),
        "sessions": advert.sessions,
    })
}

// ---- digests

/// An entry that owns its texts.
#[derive(Clone)]
struct Shown {
    home: u8,
    epoch: u64,
    name: &'static str,
    display_name: &'static str,
    status: &'static str,
    online_since: u64,
    sessions: u32,
}

impl Shown {
    fn advert(&self) -> Advert {
        Advert {
            user: UserName::parse(self.name).expect("a name"),
            display_name: self.display_name.into(),
            status: self.status.into(),
            statement: StatementHash::from_bytes(&sha256(&[self.name.as_bytes()])).expect("32 bytes"),
            online_since: self.online_since,
            sessions: self.sessions,
        }
    }

    fn origin(&self) -> ServerId {
        ServerId::of_key(&[self.home; 32])
    }

    fn json(&self) -> Value {
        entry(self.origin(), self.epoch, &self.advert())
    }
}

fn digest_of(shown: &[Shown]) -> Digest {
    let mut set = SetHash::default();
    for one in shown {
        let advert = one.advert();
        set.insert(&DigestEntry {
            origin: one.origin(),
            epoch: one.epoch,
            user: &advert.user,
            display_name: &advert.display_name,
            status: &advert.status,
            key_statement: advert.statement,
            online_since: advert.online_since,
            sessions: advert.sessions,
        });
    }
    set.digest()
}

fn digests() -> Vec<Case> {
    let alice = Shown {
        home: 1,
        epoch: 1_750_000_000_000,
        name: "alice",
        display_name: "",
        status: "",
        online_since: 1,
        sessions: 1,
    };
    let bob = Shown {
        home: 2,
        epoch: u64::MAX,
        name: "bob.b-2_x",
        display_name: "Bob Ünïcode 🦀",
        status: "back at 5",
        online_since: 1 << 60,
        sessions: u32::MAX,
    };
    let namesake = Shown { home: 2, ..alice.clone() };
    let case = |shown: &[Shown], digest: Digest| {
        let entries: Vec<Value> = shown.iter().map(Shown::json).collect();
        json!({ "entries": entries, "digest": hex(digest.as_bytes()) })
    };
    let right = |shown: &[Shown]| case(shown, digest_of(shown));
    let of_alice = digest_of(std::slice::from_ref(&alice));
    let instead = |other: Shown| case(&[other], of_alice);
    vec![
        ("nobody", true, right(&[])),
        ("one user", true, right(std::slice::from_ref(&alice))),
        ("three users of two homes", true, right(&[alice.clone(), bob.clone(), namesake.clone()])),
        ("the same in another order", true, right(&[namesake.clone(), alice.clone(), bob.clone()])),
        (
            "one missing",
            false,
            case(&[alice.clone(), bob.clone()], digest_of(&[alice.clone(), bob.clone(), namesake.clone()])),
        ),
        ("one twice", false, case(&[alice.clone(), alice.clone()], of_alice)),
        ("another home", false, instead(Shown { home: 2, ..alice.clone() })),
        ("another epoch", false, instead(Shown { epoch: alice.epoch + 1, ..alice.clone() })),
        ("another status", false, instead(Shown { status: "away", ..alice.clone() })),
        ("display name and status changed places", false, {
            let told = Shown { display_name: "away", ..alice.clone() };
            case(&[Shown { display_name: "", status: "away", ..alice.clone() }], digest_of(&[told]))
        }),
        ("another beginning of this time online", false, instead(Shown { online_since: 2, ..alice.clone() })),
        ("another number of sessions", false, instead(Shown { sessions: 2, ..alice })),
    ]
}
