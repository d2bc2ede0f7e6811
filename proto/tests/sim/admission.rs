//! Admission: who is taken on whose word, for how long, and under which name.

use std::collections::BTreeSet;

use socp::{
    admission::Admission,
    directory::Change,
    id::ServerId,
    identity::Identity as _,
    input::Request,
    limits::DAY_MS,
    name::ServerName,
    node::Pin,
    operator::v1::{ChangeCause, HomeState, Peer, Reach, Standing},
    output::{Answer, Note},
    v1::{Reason, RemovalReason},
};

use crate::{
    checks,
    issuer::admissions,
    keys::SimIdentity,
    wires::{End, link_id},
    world::World,
};

/// A chain of four: each pins its neighbours only.
const CHAIN: [(usize, usize); 6] = [(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2)];

/// Three around server 1, and a fourth that pins server 1 and is pinned by nobody.
const STAR: [(usize, usize); 5] = [(0, 1), (1, 0), (2, 1), (1, 2), (3, 1)];

fn peers(world: &mut World, server: usize) -> Vec<Peer> {
    let call = world.ask(server, Request::ListPeers);
    let Ok(Answer::Peers(list)) = world.answer(server, call) else { panic!("peers are listed") };
    list.peers
}

/// How a server sees another; `None` if it knows nothing of it.
fn seen(world: &mut World, server: usize, other: usize) -> Option<Peer> {
    let id = world.servers[other].id.to_string();
    peers(world, server).into_iter().find(|peer| peer.server_id == id)
}

fn asked(world: &mut World, server: usize, request: Request) -> Result<Answer, Reason> {
    let call = world.ask(server, request);
    world.answer(server, call).map_err(|rejection| rejection.reason)
}

fn admit(world: &mut World, server: usize, other: usize, days: u32) {
    let (name, server_id) = (world.servers[other].name.to_string(), world.servers[other].id.to_string());
    asked(world, server, Request::Admit { name, server_id, days }).expect("it is admitted");
}

fn revoke(world: &mut World, server: usize, other: usize) {
    let server_id = world.servers[other].id.to_string();
    asked(world, server, Request::RevokeAdmission { server_id }).expect("it is taken back");
}

fn block(world: &mut World, server: usize, other: &str, is_blocked: bool) {
    asked(world, server, Request::SetBlocked { server: other.into(), is_blocked }).expect("it is known");
}

/// Who went from a watch since some moment, and why, in order.
fn gone(world: &World, server: usize, since: usize) -> Vec<(String, RemovalReason)> {
    let changes = world.servers[server].watch.changes[since..].iter();
    let removed = changes.filter_map(|change| match change {
        Change::Removed(entry, reason) => Some((entry.label(), *reason)),
        _ => None,
    });
    removed.collect()
}

fn moments(world: &World) -> Vec<usize> {
    world.servers.iter().map(|server| server.watch.changes.len()).collect()
}

fn unreachable(label: &str) -> (String, RemovalReason) {
    (label.into(), RemovalReason::Unreachable)
}

#[test]
fn a_server_is_taken_and_shown_on_the_word_of_a_chain_that_starts_at_a_pin() {
    let mut world = World::calm_pinned(4, &CHAIN, |_| {});
    let users: Vec<usize> = (0..4).map(|server| world.online_user(server, "alice")).collect();
    world.run_for(1_000);
    checks::at_rest(&world);
    let far = seen(&mut world, 0, 3).expect("it is listed");
    assert_eq!((far.standing(), &*far.admitted_by, far.reach()), (Standing::Admitted, "server-c", Reach::Through));
    assert!(far.admitted_until_unix_ms > 0 && far.vouched_until_unix_ms == 0, "{far:?}");
    let near = seen(&mut world, 0, 1).expect("it is listed");
    assert_eq!((near.standing(), &*near.admitted_by), (Standing::Pinned, ""));
    assert!(near.vouched_until_unix_ms > 0, "pins are vouched for");
    world.tell(users[0], users[3]);
    world.tell(users[3], users[0]);
    world.run_for(1_000);
    for user in [users[0], users[3]] {
        assert_eq!(world.deliveries.of(&world.address(user)), 1);
    }
    // What the handshake lets through is exactly that, on every server.
    for index in 0..4 {
        let others = world.servers.iter().map(|server| server.id).filter(|id| *id != world.servers[index].id);
        assert_eq!(*world.servers[index].admitted, others.collect::<BTreeSet<_>>());
    }
}

#[test]
fn an_admitted_server_may_dial_in_under_the_name_that_it_was_admitted_by() {
    let mut pinned = CHAIN[..4].to_vec();
    pinned.push((2, 0));
    let mut world = World::calm_pinned(3, &pinned, |_| {});
    world.run_for(2_000);
    let linked = seen(&mut world, 0, 2).expect("it is listed");
    assert_eq!((linked.standing(), linked.reach()), (Standing::Admitted, Reach::Linked));
    world.online_user(2, "carol");
    world.run_for(1_000);
    checks::at_rest(&world);
    world.restart_with(2, |settings| settings.name = ServerName::parse("server-a2").unwrap());
    world.run_for(5_000);
    assert_eq!(seen(&mut world, 0, 2).expect("it is listed").reach(), Reach::Unreachable);
}

#[test]
fn a_server_that_nobody_vouches_for_stays_out_whatever_it_pins() {
    let mut world = World::calm_pinned(4, &STAR, |_| {});
    let (_, dave) = (world.online_user(0, "alice"), world.online_user(3, "dave"));
    world.run_for(5_000);
    for server in 0..3 {
        assert_eq!(world.servers[server].watch.labels(), ["alice@server-a"], "at {server}");
        assert_eq!(seen(&mut world, server, 3), None);
    }
    assert_eq!(world.servers[3].watch.addresses().collect::<Vec<_>>(), [world.address(dave)]);
}

#[test]
fn a_word_that_is_taken_back_removes_the_server_once_everywhere_and_saying_it_again_does_nothing() {
    let mut world = World::calm_pinned(4, &STAR, |_| {});
    world.online_user(0, "alice");
    world.online_user(3, "dave");
    admit(&mut world, 1, 3, 30);
    let said = Admission::sign(
        &world.servers[1].identity,
        world.servers[3].id,
        world.servers[3].name.clone(),
        1_800_000_000_000,
        1_800_000_000_000 + DAY_MS,
        false,
    );
    world.run_for(5_000);
    checks::at_rest(&world);
    assert!(world.servers[0].watch.labels().contains(&"dave@server-d".to_owned()));
    let since = moments(&world);
    revoke(&mut world, 1, 3);
    world.run_for(5_000);
    for (server, since) in since[..3].iter().enumerate() {
        assert_eq!(gone(&world, server, *since), [unreachable("dave@server-d")], "at {server}");
        assert_eq!(seen(&mut world, server, 3), None);
    }
    assert_eq!(gone(&world, 3, since[3]), [unreachable("alice@server-a")]);
    // An older word of the same issuer, which is rightly signed, brought by a neighbour.
    let (wire, side) = world
        .wires
        .iter()
        .find_map(|(id, wire)| Some((id, (wire.is_up == [true; 2]).then(|| wire.end_at(id, 0))??.side)))
        .expect("server 0 is linked");
    let link = link_id(End { wire, side });
    world.forge(0, link, admissions([&said]));
    world.run_for(1_000);
    assert_eq!(seen(&mut world, 0, 3), None);
    // Nor do restarts bring it back, with the disk or without.
    world.restart_with(0, |_| {});
    world.restart_with_empty_disk(2);
    world.restart_with(1, |_| {});
    world.run_for(5_000);
    assert!((0..3).all(|server| seen(&mut world, server, 3).is_none()));
    // The operator may change their mind.
    admit(&mut world, 1, 3, 30);
    world.run_for(5_000);
    assert!((0..3).all(|server| seen(&mut world, server, 3).is_some_and(|peer| peer.reach() != Reach::Unreachable)));
}

#[test]
fn a_word_that_is_over_removes_the_server_once_everywhere() {
    let mut world = World::calm_pinned(4, &STAR, |_| {});
    world.online_user(3, "dave");
    admit(&mut world, 1, 3, 1);
    world.run_for(5_000);
    let since = moments(&world);
    world.servers.iter_mut().for_each(|server| server.clock_ahead_ms += DAY_MS as i64);
    world.run_for(15_000);
    for (server, since) in since[..3].iter().enumerate() {
        assert_eq!(gone(&world, server, *since), [unreachable("dave@server-d")], "at {server}");
        assert_eq!(seen(&mut world, server, 3), None);
    }
    // The others are renewed in time, and nobody flickers.
    world.online_user(2, "carol");
    world.run_for(1_000);
    let since = moments(&world);
    for _ in 0..12 {
        world.servers.iter_mut().for_each(|server| server.clock_ahead_ms += 5 * DAY_MS as i64);
        world.run_for(11_000);
    }
    assert_eq!(gone(&world, 0, since[0]), []);
    assert_eq!(seen(&mut world, 0, 2).expect("it is listed").standing(), Standing::Admitted);
}

#[test]
fn a_blocked_server_is_gone_at_once_with_all_that_its_word_let_in_and_stays_so_over_a_restart() {
    // Server 0 pins 1 and 3; 1 lets 2 in.
    let mut world = World::calm_pinned(4, &[(0, 1), (1, 0), (1, 2), (2, 1), (0, 3), (3, 0)], |_| {});
    for server in 1..4 {
        world.online_user(server, "alice");
    }
    world.run_for(1_000);
    checks::at_rest(&world);
    let since = moments(&world);
    block(&mut world, 0, "server-b", true);
    let expected = [unreachable("alice@server-b"), unreachable("alice@server-c")];
    let mut went = gone(&world, 0, since[0]);
    went.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(went, expected, "in the very moment");
    let blocked = seen(&mut world, 0, 1).expect("it is listed");
    assert_eq!((blocked.standing(), &*blocked.name), (Standing::Blocked, "server-b"));
    assert_eq!(seen(&mut world, 0, 2), None);
    assert!(!world.servers[0].admitted.contains(&world.servers[1].id), "nor does the handshake let it through");
    world.run_for(5_000);
    // Server 3 took both on the word of server 0 only.
    went = gone(&world, 3, since[3]);
    went.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(went, expected);
    let explained = asked(&mut world, 0, Request::Explain { user: "alice@server-b".into() });
    let Ok(Answer::Explained(explained)) = explained else { panic!("it is explained") };
    assert_eq!(explained.home_state(), HomeState::NotAdmitted);
    assert_eq!(explained.last_removal.map(|past| past.cause()), Some(ChangeCause::NotAdmitted));
    world.restart_with(0, |_| {});
    world.run_for(5_000);
    assert_eq!(world.servers[0].watch.labels(), ["alice@server-d"]);
    assert_eq!(seen(&mut world, 0, 1).expect("it is listed").standing(), Standing::Blocked);
    // By its id, and undone.
    let id = world.servers[1].id.to_string();
    block(&mut world, 0, &id, false);
    world.run_for(5_000);
    for label in ["alice@server-b", "alice@server-c", "alice@server-d"] {
        assert!(world.servers[0].watch.labels().contains(&label.to_owned()), "{label} is back");
    }
    checks::at_rest(&world);
}

#[test]
fn a_server_that_is_admitted_by_two_stays_while_one_of_them_stands_for_it() {
    // Servers 1 and 2 both pin 3; server 0 pins 1 and 2.
    let pinned = [(0, 1), (1, 0), (0, 2), (2, 0), (1, 3), (3, 1), (2, 3), (3, 2)];
    let mut world = World::calm_pinned(4, &pinned, |_| {});
    world.online_user(3, "dave");
    world.run_for(1_000);
    let since = moments(&world);
    block(&mut world, 0, "server-b", true);
    world.run_for(5_000);
    assert_eq!(gone(&world, 0, since[0]), [], "it is reached the other way, on the other's word");
    assert_eq!(seen(&mut world, 0, 3).expect("it is listed").admitted_by, "server-c");
}

#[test]
fn of_two_servers_of_one_name_the_second_is_told_apart_and_it_stays_so() {
    // Servers 1 and 2 each let one in that is called server-d.
    let pinned = [(0, 1), (1, 0), (0, 2), (2, 0), (1, 3), (3, 1), (2, 4), (4, 2)];
    let mut world = World::calm_pinned(5, &pinned, |world| world.servers[4].name = world.servers[3].name.clone());
    world.online_user(3, "dave");
    world.online_user(4, "dave");
    world.run_for(2_000);
    let names = |world: &mut World| [3, 4].map(|other| seen(world, 0, other).expect("it is listed").name);
    let before = names(&mut world);
    let label = |index: usize| world.servers[3].name.with_id(&world.servers[index].id, 8).to_string();
    let expected = [["server-d".to_owned(), label(4)], [label(3), "server-d".to_owned()]];
    assert!(expected.contains(&before), "{before:?}");
    let noted = &world.servers[0].names_noted;
    assert!(matches!(noted[..], [Note::NameTaken { .. }]), "it is said loudly: {noted:?}");
    let mut labels: Vec<String> = before.iter().map(|name| format!("dave@{name}")).collect();
    let mut shown = world.servers[0].watch.labels();
    labels.sort();
    shown.sort();
    assert_eq!(shown, labels);
    // What is shown can be typed.
    for label in labels {
        let explained = asked(&mut world, 0, Request::Explain { user: label.clone() });
        assert!(matches!(explained, Ok(Answer::Explained(explained)) if explained.user == label));
    }
    // Whoever comes first after a restart, the names stay.
    let second = usize::from(before[0] == "server-d") + 3;
    let first = 7 - second;
    world.crash(first, 20_000);
    world.restart_with(0, |_| {});
    world.run_for(5_000);
    let again = seen(&mut world, 0, second).expect("it is listed").name;
    assert_eq!(again, before[second - 3]);
    // An operator does not give it away by mistake, either.
    let server_id = ServerId::of_key(&SimIdentity::new(77).public_key()).to_string();
    let refused = asked(&mut world, 0, Request::Admit { name: "server-d".into(), server_id, days: 1 });
    assert_eq!(refused.unwrap_err(), Reason::NameInUse);
}

#[test]
fn a_name_that_was_known_for_another_key_moves_by_a_pin_only_and_that_is_said_loudly() {
    let mut world = World::calm_pinned(3, &CHAIN[..4], |_| {});
    world.run_for(1_000);
    assert_eq!(seen(&mut world, 0, 2).expect("it is listed").name, "server-c");
    let (holder, other) = (world.servers[2].id, ServerId::of_key(&SimIdentity::new(77).public_key()));
    world.restart_with(0, |settings| {
        let name = ServerName::parse("server-c").unwrap();
        settings.peers.push(Pin { id: other, name, is_dialled: false });
    });
    let name = world.servers[2].name.clone();
    let moved = Note::NameMoved { name: name.clone(), from: holder, to: other };
    let taken = Note::NameTaken { name: name.clone(), server: holder, bearer: other };
    assert_eq!(world.servers[0].names_noted, [moved, taken]);
    world.run_for(5_000);
    let label = name.with_id(&holder, 8).to_string();
    assert_eq!(seen(&mut world, 0, 2).expect("it is listed").name, label);
    let names: Vec<String> = peers(&mut world, 0).into_iter().map(|peer| peer.name).collect();
    assert_eq!(names, ["server-b", "server-c", &label]);
}
