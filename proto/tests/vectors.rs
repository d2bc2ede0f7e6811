//! The golden vectors, read by the protocol library and our own client: every valid case is accepted with the values it
//! names, every invalid one refused.

use std::{fs, path::Path};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use prost::{Message as _, bytes::Bytes};
use serde_json::{Value, json};
use socp::{
    batch::{Batch, Content},
    digest::{DigestEntry, SetHash},
    federation::v1::SignedBatch,
    id::{ContentHash, MessageId, ServerId, StatementHash, ed25519_spki, hex},
    identity::Identity,
    message::{Address, Message, Post},
    moves::Move,
    name::UserName,
    safety_number::safety_number,
    signed::Label,
    statement::{KeyStatement, Login, RsaCheck},
    user_key::UserKey,
    v1::{GetServerInfoResponse, SealedMessage, SealedPost, SignedKeyStatement, SignedMove, SignedOutcome},
};
use socp_client::{
    chunk::Cipher,
    download::Sink,
    file_name, introduction, outcome, post,
    private_key::PrivateKey,
    public_key,
    receipt::Receipt,
    seal::{self, Beside},
};

fn page(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/tests/vectors").join(name).with_extension("json");
    serde_json::from_slice(&fs::read(&path).expect("the vectors are there")).expect("they are JSON")
}

fn text<'a>(of: &'a Value, key: &str) -> &'a str {
    of[key].as_str().unwrap_or_else(|| panic!("`{key}` is a text in {of}"))
}

fn bytes(of: &Value, key: &str) -> Bytes {
    let text = text(of, key);
    let pair = |place: usize| u8::from_str_radix(&text[place..place + 2], 16).expect("hexadecimal digits");
    (0..text.len()).step_by(2).map(pair).collect()
}

fn number(of: &Value, key: &str) -> u64 {
    text(of, key).parse().expect("a number of 64 bits")
}

/// Reads all cases of a file with `read`, which tells what a case yields, or that it is refused.
#[track_caller]
fn all(file: &str, read: impl Fn(&Value) -> Option<Value>) {
    let page = page(file);
    let cases = page["cases"].as_array().expect("there are cases");
    let is_valid = |case: &&Value| case["valid"].as_bool().expect("each says whether it is valid");
    assert!(cases.iter().any(|case| is_valid(&case)) && !cases.iter().all(|case| is_valid(&case)), "both kinds");
    for case in cases {
        let told = read(case);
        assert_eq!(told.is_some(), is_valid(&case), "{file}: {}", case["case"]);
        for (key, value) in told.iter().flat_map(|told| told.as_object().expect("an object")) {
            assert_eq!(case[key], *value, "{file}: {}: `{key}`", case["case"]);
        }
    }
}

/// A user of the vectors.
struct User {
    name: String,
    address: Address,
    key: PrivateKey,
}

fn users() -> Vec<User> {
    let keys = page("keys");
    let users = keys["users"].as_object().expect("there are users");
    let user = |(name, user): (&String, &Value)| {
        let home = text(&keys["homes"][text(user, "home")], "server_id");
        let key = PrivateKey::from_pkcs8(&bytes(user, "private_key_pkcs8")).expect("a key");
        assert_eq!(key.public().spki(), &bytes(user, "public_key"));
        assert_eq!(key.public().fingerprint().to_string(), text(user, "key_sha256"));
        let home = ServerId::parse(home).expect("an id");
        User { name: name.clone(), address: Address { home, user: UserName::parse(name).expect("a name") }, key }
    };
    users.iter().map(user).collect()
}

fn named<'a>(users: &'a [User], name: &str) -> &'a User {
    users.iter().find(|user| user.name == name).expect("one of the users")
}

#[test]
fn the_safety_number_on_the_page_is_that_of_alice_and_bob() {
    let users = users();
    let side = |name| {
        let User { address, key, .. } = named(&users, name);
        (address, key.public().fingerprint())
    };
    let number = safety_number(side("alice"), side("bob"));
    assert_eq!(number, safety_number(side("bob"), side("alice")));
    let groups: Vec<&str> = (0..number.len()).step_by(5).map(|place| &number[place..place + 5]).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/PROTOCOL.md");
    let page = fs::read_to_string(path).expect("the page is there");
    assert!(page.contains(&format!("`{}`", groups.join(" "))), "{groups:?}");
}

#[test]
fn a_home_is_known_by_the_hash_of_its_key() {
    for home in page("keys")["homes"].as_object().expect("there are homes").values() {
        let key = Ed25519KeyPair::from_seed_unchecked(&bytes(home, "identity_seed")).expect("a seed");
        let key: [u8; 32] = key.public_key().as_ref().try_into().expect("32 bytes");
        assert_eq!(hex(&ed25519_spki(&key)), text(home, "identity_key"));
        assert_eq!(ServerId::of_key(&key).to_string(), text(home, "server_id"));
    }
}

#[test]
fn key_statements_are_believed_as_the_vectors_say() {
    let signed = |bytes: Bytes| SignedKeyStatement::decode(bytes).expect("it is encoded");
    all("key_statement", |case| {
        let statement = KeyStatement::parse(&signed(bytes(case, "signed_key_statement"))).ok()?;
        let previous = bytes(case, "previous");
        let previous = (!previous.is_empty()).then(|| KeyStatement::parse(&signed(previous)).expect("it was believed"));
        let is_right = statement.user.to_string() == text(case, "user")
            && statement.home.to_string() == text(case, "home_id")
            && statement.hash().to_string() == text(case, "key_statement_sha256")
            && previous.as_ref().is_none_or(|previous| statement.follows(previous))
            && statement.checks(previous.as_ref()).iter().all(public_key::verify);
        let key_sha256 = statement.key.fingerprint().to_string();
        is_right.then(|| json!({ "number": statement.number.to_string(), "key_sha256": key_sha256 }))
    });
}

#[test]
fn logins_are_accepted_as_the_vectors_say() {
    all("login", |case| {
        let (statement, signature) = (bytes(case, "statement"), bytes(case, "signature"));
        let login = Login::parse(&statement, &signature).ok()?;
        let key = UserKey::parse(&bytes(case, "public_key")).expect("a key");
        let is_right = login.server.to_string() == text(case, "server_id")
            && login.user.to_string() == text(case, "user")
            && login.nonce[..] == bytes(case, "nonce")[..]
            && public_key::verify(&RsaCheck::new(&key, Label::Login, &statement, &signature));
        is_right.then(|| json!({}))
    });
}

#[test]
fn moves_are_believed_as_the_vectors_say() {
    all("move", |case| {
        let statement = |key: &str| {
            let signed = SignedKeyStatement::decode(bytes(case, key)).expect("it is encoded");
            KeyStatement::parse(&signed).expect("it is well formed")
        };
        let (before, after) = (statement("key_statement"), statement("new_key_statement"));
        let moved = Move::parse(&SignedMove::decode(bytes(case, "signed_move")).expect("it is encoded")).ok()?;
        let is_right = moved.from.user.to_string() == text(case, "user")
            && moved.from.home.to_string() == text(case, "home_id")
            && moved.is_of(&before)
            && public_key::verify(&moved.check(&before.key))
            && moved.to == Address { home: after.home, user: after.user.clone() }
            && after.checks(None).iter().all(public_key::verify)
            && after.key == before.key;
        is_right.then(|| {
            json!({
                "new_user": moved.to.user.to_string(),
                "new_home_id": moved.to.home.to_string(),
                "time_unix_ms": moved.time_unix_ms.to_string(),
            })
        })
    });
}

#[test]
fn messages_are_opened_as_the_vectors_say() {
    let users = users();
    all("envelope", |case| {
        let sealed = SealedMessage::decode(bytes(case, "sealed_message")).expect("it is encoded");
        let message = Message::parse(&sealed).ok()?;
        let recipient = named(&users, text(case, "recipient"));
        let sender = users.iter().find(|user| user.address == message.authorship.sender)?;
        let opened = seal::open(&recipient.key, &recipient.address, sender.key.public(), &message)?;
        let mut told = json!({
            "sender": sender.name,
            "text": opened,
            "message_id": message.authorship.id.to_string(),
            "time_unix_ms": message.authorship.time_unix_ms.to_string(),
            "statement_sha256": hex(message.authorship.hash.as_bytes()),
        });
        if let Beside::Receipt(Receipt { kind, ids }) = seal::open_beside(&recipient.key, &message)? {
            let ids: Vec<String> = ids.iter().map(MessageId::to_string).collect();
            told["receipt"] = json!({ "kind": kind.as_str_name(), "message_ids": ids });
        }
        Some(told)
    });
}

/// What a home gives of a file: as it stands there, or by the rule.
fn stored(case: &Value) -> Vec<u8> {
    let mut all = Vec::new();
    for piece in case["stored"].as_array().expect("a list") {
        if piece["hex"].is_string() {
            all.extend_from_slice(&bytes(piece, "hex"));
            continue;
        }
        let [length, from, to] = ["bytes", "from", "to"].map(|key| number(piece, key) as usize);
        let key: [u8; 32] = bytes(piece, "key")[..].try_into().expect("a key");
        let cipher = Cipher::new(&key, length as u64).expect("it has few chunks");
        let plain: Vec<u8> = (0..length).map(|place| (place % 251) as u8).collect();
        let mut sealed = Vec::new();
        for index in 0..cipher.chunks() {
            let start = index as usize * 65_536;
            let mut chunk = plain[start..start + cipher.chunk_bytes(index)].to_vec();
            let tag = cipher.seal(index, &mut chunk);
            sealed.extend(chunk);
            sealed.extend(tag);
        }
        all.extend_from_slice(&sealed[from..to]);
    }
    all
}

#[test]
fn files_are_received_as_the_vectors_say() {
    let users = users();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("part");
    all("file", |case| {
        let sealed = SealedMessage::decode(bytes(case, "sealed_message")).expect("it is encoded");
        let message = Message::parse(&sealed).ok()?;
        let recipient = named(&users, text(case, "recipient"));
        let sender = users.iter().find(|user| user.address == message.authorship.sender)?;
        let opened = seal::open(&recipient.key, &recipient.address, sender.key.public(), &message)?;
        let Beside::File(manifest) = seal::open_beside(&recipient.key, &message)? else { return None };
        let disk = fs::File::create(&path).expect("the folder can be written to");
        let mut sink = Sink::new(disk, &manifest)?;
        stored(case).chunks(10_007).try_for_each(|part| sink.take(part)).ok()?;
        sink.finish(&manifest).ok()?;
        let content = fs::read(&path).expect("it was written");
        assert_eq!(content.len() as u64, manifest.bytes);
        Some(json!({
            "text": opened,
            "file_id": manifest.id.to_string(),
            "home_id": manifest.home.to_string(),
            "name": manifest.name,
            "bytes": manifest.bytes.to_string(),
            "key": hex(&manifest.key[..]),
            "ciphertext_sha256": hex(&manifest.ciphertext_sha256),
            "saved_as": file_name::safe(&manifest.name),
            "content_sha256": hex(&socp::id::sha256(&[&content])),
        }))
    });
}

#[test]
fn receipts_are_read_as_the_vectors_say() {
    let users = users();
    all("receipt", |case| {
        let sealed = SealedMessage::decode(bytes(case, "sealed_message")).expect("it is encoded");
        let message = Message::parse(&sealed).ok()?;
        let recipient = named(&users, text(case, "recipient"));
        let sender = users.iter().find(|user| user.address == message.authorship.sender)?;
        seal::open(&recipient.key, &recipient.address, sender.key.public(), &message)?;
        let Beside::Receipt(Receipt { kind, ids }) = seal::open_beside(&recipient.key, &message)? else { return None };
        let ids: Vec<String> = ids.iter().map(MessageId::to_string).collect();
        Some(json!({ "kind": kind.as_str_name(), "message_ids": ids }))
    });
}

#[test]
fn posts_are_opened_as_the_vectors_say() {
    let users = users();
    all("channel_post", |case| {
        let sealed = SealedPost::decode(bytes(case, "sealed_post")).expect("it is encoded");
        let post = Post::parse(&sealed).ok()?;
        let member = named(&users, text(case, "member"));
        let sender = users.iter().find(|user| user.address == post.authorship.sender)?;
        if !post::is_by(sender.key.public(), &post) {
            return None;
        }
        let wrapped = bytes(case, "wrapped_channel_key");
        let channel_key: [u8; 32] = match wrapped.is_empty() {
            true if text(case, "known_key_id") != hex(&post.key_id) => return None,
            true => bytes(case, "known_channel_key")[..].try_into().ok()?,
            false => *member.key.unwrap(&wrapped)?,
        };
        let opened = post::decrypt(&channel_key, &post)?;
        Some(json!({
            "sender": sender.name,
            "text": opened,
            "message_id": post.authorship.id.to_string(),
            "time_unix_ms": post.authorship.time_unix_ms.to_string(),
            "key_id": hex(&post.key_id),
            "counter": post.counter.to_string(),
            "statement_sha256": hex(post.authorship.hash.as_bytes()),
        }))
    });
}

#[test]
fn outcomes_are_believed_as_the_vectors_say() {
    all("outcome", |case| {
        let signed = SignedOutcome::decode(bytes(case, "signed_outcome")).expect("it is encoded");
        let [home, own_home] = ["home_id", "own_home_id"].map(|key| ServerId::parse(text(case, key)).expect("an id"));
        let hash = ContentHash::from_bytes(&bytes(case, "statement_sha256")).expect("a hash");
        match outcome::check_message(&signed, hash, home, own_home) {
            Ok((kind, recipients)) => {
                Some(json!({ "kind": kind.as_str_name(), "reason": "", "recipients": recipients }))
            }
            Err(failure) if failure.reason == "OUTCOME_UNPROVEN" => None,
            Err(failure) => Some(json!({ "kind": "OUTCOME_KIND_REJECTED", "reason": failure.reason, "recipients": 0 })),
        }
    });
}

#[test]
fn servers_prove_who_they_are_as_the_vectors_say() {
    all("server_info", |case| {
        let info = GetServerInfoResponse::decode(bytes(case, "server_info")).expect("it is encoded");
        let pinned = ServerId::parse(text(case, "pinned_server_id")).expect("an id");
        let introduction = introduction::check_key(&info, &bytes(case, "certificate_key"), Some(pinned)).ok()?;
        Some(json!({ "name": introduction.name }))
    });
}

/// Only checks what others signed.
struct Reader;

impl Identity for Reader {
    fn public_key(&self) -> [u8; 32] {
        unreachable!("a reader signs nothing")
    }

    fn sign(&self, _: &[u8]) -> [u8; 64] {
        unreachable!("a reader signs nothing")
    }

    fn verify(&self, key: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
    }
}

#[test]
fn batches_are_accepted_as_the_vectors_say() {
    all("batch", |case| {
        let signed = SignedBatch::decode(bytes(case, "signed_batch")).expect("it is encoded");
        let batch = Batch::open(&Reader, &signed).ok()?;
        if batch.origin.to_string() != text(case, "origin") {
            return None;
        }
        let names = batch.users().iter().map(ToString::to_string).collect::<Vec<_>>();
        let (adverts, removals) = match &batch.content {
            Content::Adverts(_) => (names, Vec::new()),
            Content::Removals(_) | Content::Moved(_) => (Vec::new(), names),
        };
        if digest_of(&case["entries_after"]) != hex(batch.digest.as_bytes()) {
            return None;
        }
        Some(json!({
            "epoch": batch.epoch.number.to_string(),
            "start_id": hex(batch.epoch.start.as_bytes()),
            "number": batch.number.to_string(),
            "adverts": adverts,
            "removals": removals,
            "digest": hex(batch.digest.as_bytes()),
        }))
    });
}

fn digest_of(entries: &Value) -> String {
    let mut set = SetHash::default();
    for entry in entries.as_array().expect("a list") {
        set.insert(&DigestEntry {
            origin: ServerId::parse(text(entry, "server_id")).expect("an id"),
            epoch: number(entry, "epoch"),
            user: &UserName::parse(text(entry, "name")).expect("a name"),
            display_name: text(entry, "display_name"),
            status: text(entry, "status"),
            key_statement: StatementHash::parse(text(entry, "key_statement_sha256")).expect("a hash"),
            online_since: number(entry, "online_since"),
            sessions: entry["sessions"].as_u64().and_then(|count| count.try_into().ok()).expect("a number"),
        });
    }
    hex(set.digest().as_bytes())
}

#[test]
fn digests_are_computed_as_the_vectors_say() {
    all("digest", |case| {
        let digest = digest_of(&case["entries"]);
        (digest == text(case, "digest")).then(|| json!({ "digest": digest }))
    });
}
