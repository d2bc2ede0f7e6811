//! Rotation: a user's next key, which the one in force vouches for, and nothing else can put in its place.

use prost::bytes::Bytes;
use socp::{
    id::{ServerId, StatementHash},
    input::Request,
    limits::KEY_STATEMENTS_MAX,
    output::Answer,
    rejection::Rejection,
    signed::{Label, signing_input},
    statement::{KeyStatement, statement_hash},
    user_key::UserKey,
    v1::{Reason, SignedKeyStatement},
};

use crate::{
    inbox::tell,
    keys::{seal, sign, user_spki},
    moves::look_up,
    world::World,
};

/// What the next statement of a user's chain says, and by which keys it is signed.
#[derive(Clone)]
struct Next {
    name: &'static str,
    home: ServerId,
    spki: Bytes,
    number: u64,
    previous: Option<StatementHash>,
    old_spki: Bytes,
}

impl Next {
    fn signed(&self) -> SignedKeyStatement {
        let name = socp::name::UserName::parse(self.name).expect("a good name");
        let key = UserKey::parse(&self.spki).expect("a key of the right form");
        let statement = KeyStatement::encode(&name, self.home, &key, self.number, self.previous);
        let input = signing_input(Label::KeyStatement, &statement);
        let (signature, previous_signature) = (sign(&self.spki, &input), sign(&self.old_spki, &input));
        SignedKeyStatement { statement: statement.into(), signature, previous_signature }
    }
}

/// Bob of server 1, online, and a good next statement of his.
fn bob_about_to_rotate(world: &mut World) -> (usize, Next) {
    let bob = world.online_user(1, "bob");
    let next = Next {
        name: "bob",
        home: world.servers[1].id,
        spki: user_spki(b"bob's second key"),
        number: 2,
        previous: Some(statement_hash(&world.key_statement(bob))),
        old_spki: world.users.users[bob].spki.clone(),
    };
    (bob, next)
}

fn rotate(world: &mut World, user: usize, statement: SignedKeyStatement) -> Result<Answer, Rejection> {
    let token = world.users.users[user].devices[0].token;
    let call = world.ask(1, Request::RotateKey { token, statement });
    world.answer(1, call)
}

#[test]
fn a_key_that_the_one_before_vouches_for_is_shown_everywhere_outlives_a_restart_and_ends_no_session() {
    let mut world = World::calm(&[0, 1]);
    let alice = world.online_user(0, "alice");
    let (bob, next) = bob_about_to_rotate(&mut world);
    let address = world.address(bob);
    let shown = |world: &World, server: usize| {
        let node = world.servers[server].node.as_ref().expect("it runs");
        let entry = node.directory().entry(&address).expect("he is online");
        (entry.statement.hash(), entry.online_since, entry.sessions)
    };
    let (_, since, sessions) = shown(&world, 0);
    let signed = next.signed();
    let before = world.header(alice, bob);
    for _ in 0..2 {
        assert!(
            matches!(rotate(&mut world, bob, signed.clone()), Ok(Answer::KeyRotated(_))),
            "a retry is answered alike"
        );
    }
    world.run_for(500);
    for server in [0, 1] {
        assert_eq!(shown(&world, server), (statement_hash(&signed), since, sessions), "the same time online");
    }
    let chain = look_up(&mut world, alice, "bob@server-b").key_statements;
    assert_eq!(chain, [world.key_statement(bob), signed.clone()]);
    // What is sealed to the old key comes too late; what is sealed to the new one is taken, by the session that went on.
    let late = world.sealed(alice, &before);
    let call = world.send(alice, late, 1);
    assert_eq!(world.answer(0, call).unwrap_err().reason, Reason::RecipientKeyChanged);
    world.users.users[bob].spki = next.spki.clone();
    assert_eq!(tell(&mut world, alice, bob), Ok(()));
    world.crash(1, 500);
    world.run_for(10_000);
    assert_eq!(look_up(&mut world, alice, "bob@server-b").key_statements, chain);
    let device = world.new_device(bob);
    assert_eq!(device, 0, "the new key logs in");
    world.users.users[bob].spki = next.old_spki.clone();
    world.new_device(bob);
    assert_eq!(world.users.users[bob].devices.len(), 1, "the old one does not");
}

#[test]
fn a_key_that_nothing_vouches_for_or_that_does_not_follow_is_refused_and_changes_nothing() {
    let mut world = World::calm(&[0, 1]);
    let (bob, good) = bob_about_to_rotate(&mut world);
    let mallory = user_spki(b"mallory");
    let unsigned = |change: fn(&mut SignedKeyStatement, &[u8])| {
        let mut signed = good.signed();
        let input = signing_input(Label::KeyStatement, &signed.statement);
        change(&mut signed, &input);
        signed
    };
    let wrong = |change: &dyn Fn(&mut Next)| {
        let mut next = good.clone();
        change(&mut next);
        next.signed()
    };
    let other_home = world.servers[0].id;
    for (what, statement, reason) in [
        ("vouched for by another key", wrong(&|next| next.old_spki = mallory.clone()), Reason::InvalidSig),
        ("not signed by itself", unsigned(|signed, input| signed.signature = seal(b"x", input)), Reason::InvalidSig),
        (
            "vouched for by nobody",
            unsigned(|signed, _| signed.previous_signature = Bytes::new()),
            Reason::StatementInvalid,
        ),
        ("a number left out", wrong(&|next| next.number = 3), Reason::StatementInvalid),
        ("after another", wrong(&|next| next.previous = StatementHash::from_bytes(&[7; 32])), Reason::StatementInvalid),
        ("of another user", wrong(&|next| next.name = "carol"), Reason::StatementInvalid),
        ("of another home", wrong(&|next| next.home = other_home), Reason::StatementInvalid),
        ("a key that he has", wrong(&|next| next.spki = next.old_spki.clone()), Reason::BadKey),
        ("nothing", SignedKeyStatement::default(), Reason::StatementInvalid),
    ] {
        assert_eq!(rotate(&mut world, bob, statement).unwrap_err().reason, reason, "{what}");
    }
    let call = world.ask(1, Request::RotateKey { token: socp::id::TokenHash::of("x"), statement: good.signed() });
    assert_eq!(world.answer(1, call).unwrap_err().reason, Reason::TokenInvalid);
    assert_eq!(look_up(&mut world, bob, "bob").key_statements, [world.key_statement(bob)]);
    assert!(rotate(&mut world, bob, good.signed()).is_ok());
}

#[test]
fn a_user_has_32_key_statements_and_not_one_more() {
    let mut world = World::calm(&[0, 1]);
    let (bob, mut next) = bob_about_to_rotate(&mut world);
    for number in 2..=KEY_STATEMENTS_MAX as u64 + 1 {
        let signed = Next { number, spki: user_spki(&number.to_be_bytes()), ..next.clone() }.signed();
        let result = rotate(&mut world, bob, signed.clone()).map_err(|rejection| rejection.reason);
        assert_eq!(result.map(drop), if number <= KEY_STATEMENTS_MAX as u64 { Ok(()) } else { Err(Reason::TooMany) });
        next.previous = Some(statement_hash(&signed));
        next.old_spki = user_spki(&number.to_be_bytes());
    }
    assert_eq!(look_up(&mut world, bob, "bob").key_statements.len(), KEY_STATEMENTS_MAX);
}
