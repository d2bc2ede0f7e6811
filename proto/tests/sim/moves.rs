//! Moves: who says it, who is told, and what nobody else can make of it.

use std::sync::Arc;

use prost::Message as _;
use socp::{
    batch::{Batch, Content},
    digest::SetHash,
    directory::Change,
    federation::v1::{BatchStatement, SignedBatch},
    identity::Identity as _,
    input::Request,
    message::Address,
    moves::Move,
    name::UserName,
    output::{Answer, Refusal},
    signed::{Label, signing_input},
    statement::statement_hash,
    v1::{GetUserResponse, Reason, RemovalReason, SignedMove},
};

use crate::{
    checks,
    keys::seal,
    trust::{epoch_of, link_to_peer, refused, remove},
    world::World,
};

/// What this user is told of another whom they ask for.
pub fn look_up(world: &mut World, user: usize, whom: &str) -> GetUserResponse {
    let (server, token) = (world.users.users[user].server, world.users.users[user].devices[0].token);
    let call = world.ask(server, Request::GetUser { token, user: whom.into() });
    match world.answer(server, call) {
        Ok(Answer::User(found)) => *found,
        other => panic!("{other:?}"),
    }
}

fn reason_of(result: Result<Answer, socp::rejection::Rejection>) -> Reason {
    result.unwrap_err().reason
}

/// Bob of server 0, online, and his registration at server 2 under the same key.
fn bob_about_to_move(world: &mut World) -> (usize, usize) {
    let bob = world.online_user(0, "bob");
    let new = world.same_person(bob, 2, "bob");
    world.new_device(new);
    (bob, new)
}

#[test]
fn a_user_who_moves_is_shown_as_moved_to_every_watcher_on_every_server() {
    let mut world = World::calm(&[0, 1, 2]);
    let (bob, new) = bob_about_to_move(&mut world);
    let second = world.new_device(bob);
    world.attach(bob, second, "");
    let moved = world.signed_move(bob, new);
    assert!(matches!(world.move_user(bob, moved.clone()), Ok(Answer::UserMoved)));
    world.run_for(500);
    for server in &world.servers {
        let Some(Change::Moved(entry, destination)) = server.watch.changes.last() else {
            panic!("{}: {:?}", server.name, server.watch.changes.last());
        };
        assert_eq!(entry.label(), "bob@server-a");
        assert_eq!((&destination.label[..], &destination.moved.signed), ("bob@server-c", &moved));
        assert!(server.watch.labels().is_empty());
    }
    world.attach(new, 0, "");
    world.run_for(500);
    assert!(world.servers.iter().all(|server| server.watch.labels() == ["bob@server-c"]));
    checks::at_rest(&world);
}

#[test]
fn one_who_moved_is_found_by_the_move_and_nobody_gets_the_name_they_left() {
    let mut world = World::calm(&[0, 1, 2]);
    let (bob, new) = bob_about_to_move(&mut world);
    let carol = world.online_user(1, "carol");
    let dave = world.online_user(0, "dave");
    let moved = world.signed_move(bob, new);
    assert!(world.move_user(bob, moved.clone()).is_ok());
    assert_eq!(reason_of(world.move_user(bob, moved.clone())), Reason::TokenInvalid, "the session is over");
    for restarts in [false, true] {
        if restarts {
            world.crash(0, 0);
            world.run_for(6_000);
            for user in [carol, dave] {
                let device = world.new_device(user);
                world.attach(user, device, "");
            }
            world.run_for(1_000);
        }
        let call = world.ask_to_log_in(bob);
        let refused = world.answer(0, call).unwrap_err();
        let moved_to = ("moved_to", format!("bob@{}", world.servers[2].id));
        assert_eq!(refused.reason, Reason::UserMoved, "restarted: {restarts}");
        assert_eq!(refused.metadata, [("user", "bob@server-a".into()), moved_to]);
        let call = world.ask_to_register(bob);
        assert_eq!(reason_of(world.answer(0, call)), Reason::UserMoved);
        let impostor = world.add_user(0, "bob");
        world.users.users[impostor].spki = crate::keys::user_spki(b"another key");
        let call = world.ask_to_register(impostor);
        assert_eq!(reason_of(world.answer(0, call)), Reason::NameInUse, "nobody gets the name");
        for asker in [carol, dave] {
            let found = look_up(&mut world, asker, "bob@server-a");
            assert_eq!((found.moved.as_ref(), &found.moved_to[..]), (Some(&moved), "bob@server-c"));
            assert_eq!(found.key_statements, [world.key_statement(bob)]);
            assert_eq!(look_up(&mut world, asker, "bob@server-c").moved, None);
            let server = world.users.users[asker].server;
            let call = world.tell(asker, bob);
            assert_eq!(reason_of(world.answer(server, call)), Reason::UserMoved, "restarted: {restarts}");
        }
    }
}

#[test]
fn one_who_is_offline_can_move_and_one_who_moved_first_elsewhere_stays_there() {
    let mut world = World::calm(&[0, 1, 2]);
    let bob = world.add_user(0, "bob");
    world.new_device(bob);
    let (first, other) = (world.same_person(bob, 1, "bob"), world.same_person(bob, 2, "bob"));
    let before = world.servers[1].watch.changes.len();
    let (server, token) = (0, world.users.users[bob].devices[0].token);
    let moves = [world.signed_move(bob, first), world.signed_move(bob, other)];
    let calls = moves.clone().map(|moved| world.ask(server, Request::MoveUser { token, moved }));
    let answers = calls.map(|call| world.answer(server, call).map(drop).map_err(|rejection| rejection.reason));
    // Both were being checked at once; whichever was done first is kept.
    let kept = answers.iter().position(Result::is_ok).expect("one is taken");
    assert_eq!(answers[1 - kept], Err(Reason::UserMoved));
    let carol = world.online_user(1, "carol");
    assert_eq!(look_up(&mut world, carol, "bob@server-a").moved, Some(moves[kept].clone()));
    let told: Vec<_> = world.servers[1].watch.changes[before..].iter().collect();
    assert!(matches!(told[..], [Change::Added(entry)] if entry.label() == "carol@server-b"), "{told:?}");
}

#[test]
fn a_move_is_taken_from_the_user_it_names_only_and_under_the_key_in_force_only() {
    let mut world = World::calm(&[0, 1, 2]);
    let (bob, new) = bob_about_to_move(&mut world);
    let (mallory, elsewhere) = (world.online_user(0, "mallory"), world.online_user(1, "bob"));
    let (home, there) = (world.address(bob), world.address(new));
    let hash = statement_hash(&world.key_statement(bob));
    let keys = [bob, mallory].map(|user| world.users.users[user].spki.clone());
    let [bobs, mallorys] = &keys;
    let now = 1_800_000_000_000 + world.now_ms as i64;
    let signed = |from: &Address, hash, to: &Address, at: i64, key: &[u8], label| {
        let statement = Move::encode(from, hash, to, at);
        let signature = seal(key, &signing_input(label, &statement));
        SignedMove { statement: statement.into(), signature }
    };
    let label = Label::Move;
    let away =
        |user: &str, server: usize| Address { home: world.servers[server].id, user: UserName::parse(user).unwrap() };
    let (robert, of_another_home) = (away("robert", 0), away("bob", 1));
    let other_hash = statement_hash(&world.key_statement(elsewhere));
    let week = 7 * 24 * 3_600_000;
    let wrong = [
        (bob, signed(&home, hash, &there, now, mallorys, label), Reason::InvalidSig, "another key"),
        (bob, signed(&home, hash, &there, now, bobs, Label::Login), Reason::InvalidSig, "another purpose"),
        (mallory, signed(&home, hash, &there, now, bobs, label), Reason::StatementInvalid, "another user's session"),
        (mallory, signed(&home, hash, &there, now, mallorys, label), Reason::StatementInvalid, "another user"),
        (bob, signed(&of_another_home, hash, &there, now, bobs, label), Reason::StatementInvalid, "another home"),
        (bob, signed(&home, hash, &home, now, bobs, label), Reason::StatementInvalid, "to itself"),
        (bob, signed(&home, hash, &robert, now, bobs, label), Reason::StatementInvalid, "another name of this home"),
        (bob, signed(&home, other_hash, &there, now, bobs, label), Reason::StatementInvalid, "another statement"),
        (bob, signed(&home, hash, &there, now - week - 1, bobs, label), Reason::TimeOutOfRange, "long ago"),
        (bob, signed(&home, hash, &there, now + 600_000, bobs, label), Reason::TimeOutOfRange, "ahead"),
        (
            bob,
            SignedMove { statement: vec![0xff; 9].into(), ..SignedMove::default() },
            Reason::StatementInvalid,
            "garbage",
        ),
        (bob, SignedMove { signature: vec![0; 9 * 1024].into(), ..SignedMove::default() }, Reason::TooLarge, "large"),
    ];
    let before = world.servers[1].watch.changes.len();
    for (user, moved, reason, what) in wrong {
        assert_eq!(reason_of(world.move_user(user, moved)), reason, "{what}");
    }
    let call = world.ask(
        0,
        Request::MoveUser { token: world.users.users[elsewhere].devices[0].token, moved: SignedMove::default() },
    );
    assert_eq!(reason_of(world.answer(0, call)), Reason::TokenInvalid);
    world.run_for(1_000);
    assert_eq!(world.servers[1].watch.changes.len(), before, "nobody is told anything");
    let call = world.ask_to_log_in(bob);
    assert!(world.answer(0, call).is_ok(), "he is where he was");
    // At another home the same word is nothing: it is not about a user of that home.
    let moved = world.signed_move(bob, new);
    assert_eq!(reason_of(world.move_user(elsewhere, moved)), Reason::StatementInvalid, "replayed elsewhere");
}

/// The move of a user of server 1 to server 2, which nobody but that server signed.
fn invented(world: &World, user: usize, key_statement_of: usize) -> Arc<Move> {
    let (from, user) = (world.address(user), UserName::parse("eve").unwrap());
    let to = Address { home: world.servers[2].id, user };
    let hash = statement_hash(&world.key_statement(key_statement_of));
    let statement = Move::encode(&from, hash, &to, 1).into();
    Arc::new(Move::parse(&SignedMove { statement, signature: vec![0; 512].into() }).unwrap())
}

#[test]
fn a_home_has_no_word_about_moves_of_another_homes_users() {
    let mut world = World::calm(&[0, 1, 2]);
    let (eve, carol) = (world.online_user(1, "eve"), world.online_user(2, "carol"));
    let link = link_to_peer(&world);
    let identity = world.servers[1].identity.clone();
    let (epoch, digest) = (epoch_of(&world, 1), SetHash::default().digest());
    let before = world.servers[0].watch.changes.len();
    let sign = |moved| Batch::sign(&identity, epoch, 2, digest, 0, Content::Moved(moved)).signed;
    // A truly signed move of carol's, in a batch of the home that she is not of.
    let new = world.same_person(carol, 1, "carol");
    let hers = Move::parse(&world.signed_move(carol, new)).unwrap();
    world.forge(0, link, remove(sign(Arc::new(hers))));
    let edited = |change: fn(&mut BatchStatement)| {
        let mut statement = BatchStatement::decode(&sign(invented(&world, eve, eve)).statement[..]).unwrap();
        change(&mut statement);
        let statement = statement.encode_to_vec();
        let signature = identity.sign(&signing_input(Label::Batch, &statement)).to_vec().into();
        remove(SignedBatch { statement: statement.into(), signature })
    };
    let wrong = [
        edited(|batch| batch.removals[0].user = "carol".into()),
        edited(|batch| batch.removals[0].moved = Some(SignedMove::default())),
        edited(|batch| batch.removals.extend(batch.removals.clone())),
    ];
    for frame in wrong {
        world.forge(0, link, frame);
    }
    let malformed = Refusal::Malformed("removal.moved");
    assert_eq!(refused(&world), [malformed, malformed, malformed, Refusal::Malformed("batch content")]);
    world.run_for(5_000);
    assert_eq!(world.servers[0].watch.changes.len(), before, "nothing changed");
    checks::at_rest(&world);
}

#[test]
fn a_move_that_names_another_key_than_the_one_shown_is_told_as_having_left() {
    for (of_own_key, expected) in [(true, "moved"), (false, "left")] {
        let mut world = World::calm(&[0, 1, 2]);
        let (eve, carol) = (world.online_user(1, "eve"), world.online_user(2, "carol"));
        let link = link_to_peer(&world);
        let moved = invented(&world, eve, if of_own_key { eve } else { carol });
        let digest = SetHash::default().digest();
        let batch = Batch::sign(&world.servers[1].identity, epoch_of(&world, 1), 2, digest, 0, Content::Moved(moved));
        world.forge(0, link, remove(batch.signed));
        // Servers check no signatures of users; that is for the clients.
        let told = match world.servers[0].watch.changes.last() {
            Some(Change::Moved(..)) => "moved",
            Some(Change::Removed(_, RemovalReason::Left)) => "left",
            other => panic!("{other:?}"),
        };
        assert_eq!(told, expected);
    }
}

#[test]
fn a_server_that_was_cut_off_while_a_user_moved_does_not_show_them_and_tells_where_they_are_on_asking() {
    let mut world = World::calm(&[0, 1, 2]);
    let (bob, new) = bob_about_to_move(&mut world);
    let carol = world.online_user(1, "carol");
    world.cut([1].into(), 8_000);
    let moved = world.signed_move(bob, new);
    assert!(world.move_user(bob, moved.clone()).is_ok());
    world.attach(new, 0, "");
    world.run_for(20_000);
    let shown = world.servers[1].watch.labels();
    assert!(shown.contains(&"bob@server-c".into()) && !shown.contains(&"bob@server-a".into()), "{shown:?}");
    assert_eq!(look_up(&mut world, carol, "bob@server-a").moved, Some(moved));
    checks::at_rest(&world);
}
