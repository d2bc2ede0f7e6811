//! Every decoder, given anything: it reads or refuses, and what it reads it has checked.

use fastrand::Rng;
use proptest::{collection::vec, prelude::*};
use prost::bytes::Bytes;
use socp::{
    admission::Admission,
    batch::{Batch, Content, Epoch, Goodbye, open_goodbye, sign_goodbye},
    digest::SetHash,
    federation::v1::{BatchStatement, SignedAdmission, SignedBatch, SignedGoodbye},
    id::{MessageId, ServerId, SessionId, StartId},
    identity::Identity as _,
    limits::{BATCH_ENTRIES_MAX, DISPLAY_NAME_BYTES_MAX, NAME_BYTES_MAX, STATUS_BYTES_MAX},
    message::{Address, Message, Post, parse_wraps},
    moves::Move,
    name::{ServerName, UserName},
    signed::{Label, signing_input},
    statement::{KeyStatement, Login, encode_login, statement_hash},
    v1::{MessageHeader, SealedMessage, SealedPost, SignedKeyStatement, SignedMove},
};

use crate::{
    keys::SimIdentity,
    rogue::{self, mutated},
};

fn home() -> ServerId {
    ServerId::of_key(&SimIdentity::new(1).public_key())
}

fn epoch() -> Epoch {
    Epoch { number: 1, start: StartId::from_bytes(&[1; 16]).unwrap() }
}

/// Bytes of any kind, or an encoding of something good, somewhat altered.
fn garbage(good: Vec<u8>) -> impl Strategy<Value = Bytes> {
    prop_oneof![
        vec(any::<u8>(), 0..200).prop_map(Bytes::from),
        any::<u64>().prop_map(move |seed| mutated(&mut Rng::with_seed(seed), &good).into()),
    ]
}

fn message() -> SealedMessage {
    rogue::seal_message(&MessageHeader {
        suite: 1,
        message_id: "01890a5d-ac96-774b-bcce-b302099a8057".into(),
        sender: "alice".into(),
        sender_home_id: home().to_string(),
        sender_key_sha256: vec![1; 32].into(),
        recipient: "bob".into(),
        recipient_home_id: home().to_string(),
        recipient_key_sha256: vec![2; 32].into(),
        time_unix_ms: 1,
        require_online: false,
        wants_receipts: false,
    })
}

fn batch() -> Vec<u8> {
    let users = ["alice", "bob"].map(|user| UserName::parse(user).unwrap());
    let content = Content::Removals(users.into());
    Batch::sign(&SimIdentity::new(1), epoch(), 3, SetHash::default().digest(), 0, content).signed.statement.to_vec()
}

fn a_move() -> Vec<u8> {
    let address = |home| Address { home, user: UserName::parse("alice").unwrap() };
    let hash = statement_hash(&rogue::key_statement(home(), "alice"));
    Move::encode(&address(home()), hash, &address(ServerId::of_key(&[9; 32])), 1)
}

fn batch_of_a_move() -> Vec<u8> {
    use prost::Message as _;
    let mut statement = BatchStatement::decode(&batch()[..]).unwrap();
    statement.removals.truncate(1);
    statement.removals[0].moved = Some(SignedMove { statement: a_move().into(), signature: Bytes::new() });
    statement.encode_to_vec()
}

fn batch_of_adverts() -> Vec<u8> {
    use prost::Message as _;
    let mut statement = BatchStatement::decode(&batch()[..]).unwrap();
    statement.removals.clear();
    statement.adverts = vec![socp::federation::v1::Advert {
        user: "alice".into(),
        display_name: "Alice".into(),
        status: "here".into(),
        key_statement_sha256: vec![1; 32].into(),
        online_since: 2,
        sessions: 1,
    }];
    statement.encode_to_vec()
}

fn admission() -> Admission {
    let name = ServerName::parse("server-b").unwrap();
    Admission::sign(&SimIdentity::new(1), ServerId::of_key(&[2; 32]), name, 3, 4, false)
}

proptest! {
    #[test]
    fn an_admission_keeps_the_bytes_it_came_in_and_counts_only_as_it_was_signed(
        statement in garbage(admission().signed.statement.to_vec()),
    ) {
        let signed = SignedAdmission { statement, signature: admission().signed.signature };
        if let Ok(read) = Admission::parse(&signed) {
            prop_assert_eq!(&read.signed, &signed);
            let is_the_one = signed == admission().signed;
            prop_assert_eq!(read.check(&SimIdentity::new(1)).is_ok(), is_the_one);
        }
    }

    #[test]
    fn a_key_statement_is_read_as_it_came_or_not_at_all(
        statement in garbage(rogue::key_statement(home(), "alice").statement.to_vec()),
        signature in vec(any::<u8>(), 0..20),
        previous_signature in vec(any::<u8>(), 0..2),
    ) {
        let signed = SignedKeyStatement {
            statement, signature: signature.into(), previous_signature: previous_signature.into(),
        };
        if let Ok(read) = KeyStatement::parse(&signed) {
            prop_assert_eq!(&read.signed, &signed);
            prop_assert_eq!((read.number == 1, read.number == 0), (read.previous.is_none(), false));
            prop_assert!(!read.follows(&read));
        }
    }

    #[test]
    fn a_login_is_read_as_it_came_or_not_at_all(
        statement in garbage(encode_login(home(), &UserName::parse("alice").unwrap(), &[3; 32])),
    ) {
        let _ = Login::parse(&statement, &Bytes::new());
    }

    #[test]
    fn a_move_is_read_as_it_came_or_not_at_all(statement in garbage(a_move()), signature in vec(any::<u8>(), 0..20)) {
        let signed = SignedMove { statement, signature: signature.into() };
        if let Ok(read) = Move::parse(&signed) {
            prop_assert_eq!(&read.signed, &signed);
            prop_assert_ne!(read.from.home, read.to.home);
        }
    }

    #[test]
    fn a_message_keeps_the_bytes_it_came_in(
        statement in garbage(message().statement.to_vec()), signature in 510..514_usize, wrapped in 510..514_usize,
    ) {
        let sealed = SealedMessage {
            statement, signature: vec![0; signature].into(), wrapped_key: vec![0; wrapped].into(),
        };
        if let Ok(read) = Message::parse(&sealed) {
            prop_assert_eq!((signature, wrapped), (512, 512));
            prop_assert_eq!(read.sealed, sealed);
        }
    }

    #[test]
    fn a_post_keeps_the_bytes_it_came_in(
        statement in garbage(rogue::seal_post(&mut Rng::with_seed(1), home(), "alice", 1).statement.to_vec()),
    ) {
        let sealed = SealedPost { statement, signature: vec![0; 512].into() };
        if let Ok(read) = Post::parse(&sealed) {
            prop_assert_eq!(read.sealed, sealed);
        }
    }

    #[test]
    fn wraps_are_read_all_or_none(user in ".{0,70}", home_id in "[0-9a-f]{63,65}", bytes in 511..514_usize) {
        let wrap = socp::v1::ChannelKeyWrap {
            recipient: user,
            recipient_home_id: home_id,
            recipient_key_sha256: vec![0; 32].into(),
            wrapped_key: vec![0; bytes].into(),
        };
        if let Ok(read) = parse_wraps(&[wrap.clone(), wrap.clone()]) {
            prop_assert_eq!(read.len(), 2);
            prop_assert_eq!(&read[0].wrap, &wrap);
        }
    }

    #[test]
    fn what_a_batch_says_is_within_its_limits_whatever_its_origin_signs(
        statement in prop_oneof![garbage(batch()), garbage(batch_of_adverts()), garbage(batch_of_a_move())],
    ) {
        let identity = SimIdentity::new(1);
        let signature = Bytes::copy_from_slice(&identity.sign(&signing_input(Label::Batch, &statement)));
        let signed = SignedBatch { statement, signature };
        if let Ok(batch) = Batch::open(&identity, &signed) {
            prop_assert_eq!(batch.origin, home());
            prop_assert_eq!(&batch.signed, &signed);
            prop_assert!((1..u64::MAX).contains(&batch.number));
            prop_assert!((1..=BATCH_ENTRIES_MAX).contains(&batch.users().len()));
            if let Content::Moved(moved) = &batch.content {
                prop_assert_eq!(moved.from.home, home());
            }
            for advert in batch.adverts() {
                prop_assert!(advert.status.len() <= STATUS_BYTES_MAX && advert.sessions > 0);
                prop_assert!(advert.display_name.len() <= DISPLAY_NAME_BYTES_MAX);
                prop_assert!((1..=batch.number).contains(&advert.online_since));
            }
        }
    }

    #[test]
    fn a_batch_or_goodbye_that_was_altered_on_the_way_is_not_opened(seed in any::<u64>()) {
        let identity = SimIdentity::new(1);
        let mut rng = Rng::with_seed(seed);
        let statement = batch();
        let signature = Bytes::copy_from_slice(&identity.sign(&signing_input(Label::Batch, &statement)));
        let altered = mutated(&mut rng, &statement);
        prop_assume!(altered != statement);
        let signed = SignedBatch { statement: altered.into(), signature };
        prop_assert!(Batch::open(&identity, &signed).is_err());
        let SignedGoodbye { statement, signature } = sign_goodbye(&identity, epoch(), 0);
        let altered = mutated(&mut rng, &statement);
        prop_assume!(altered != statement);
        let signed = SignedGoodbye { statement: altered.into(), signature };
        prop_assert!(open_goodbye(&identity, &signed).is_err());
    }

    #[test]
    fn a_goodbye_names_its_signer_whatever_that_signs(
        statement in garbage(sign_goodbye(&SimIdentity::new(1), epoch(), 0).statement.to_vec()),
    ) {
        let identity = SimIdentity::new(1);
        let signature = Bytes::copy_from_slice(&identity.sign(&signing_input(Label::Goodbye, &statement)));
        if let Ok(Goodbye { origin, .. }) = open_goodbye(&identity, &SignedGoodbye { statement, signature }) {
            prop_assert_eq!(origin, home());
        }
    }

    #[test]
    fn names_and_ids_print_as_they_were_read(text in prop_oneof![".{0,80}", "[a-z0-9._-]{0,66}", "[0-9a-f-]{30,66}"]) {
        if let Ok(name) = UserName::parse(&text) {
            prop_assert_eq!(name.as_str(), &text);
            prop_assert!((1..=NAME_BYTES_MAX).contains(&text.len()));
        }
        prop_assert_eq!(UserName::parse(&text).is_ok(), ServerName::parse(&text).is_ok());
        prop_assert!(ServerId::parse(&text).is_none_or(|id| id.to_string() == text));
        prop_assert!(SessionId::parse(&text).is_none_or(|id| id.to_string() == text));
        prop_assert!(MessageId::parse(&text).is_none_or(|id| id.to_string() == text));
    }
}
