//! Onward: servers that reach each other through others only.

use crate::{
    checks::{self, once, watches::What},
    figures,
    mesh::{self, Settings},
    network::SERVERS,
    user::Chat,
    world::{World, now_ns},
};

/// Packets a second on one way of a quiet link: a keep-alive each half second, lists of neighbours, and what acknowledges
/// them, many times over. Anything that circulated would be thousands.
const QUIET_PACKETS_MAX: u64 = 100;

#[test]
fn in_a_partial_mesh_adverts_and_messages_travel_onward_and_nothing_circulates() {
    let mut world = World::start(Settings::Default);
    let (one, other) = (0, 3);
    assert!(!mesh::are_linked(one, other), "there are others between");
    let [first, last] = [one, other].map(|server| world.users.len() * server / SERVERS);
    tells(&mut world, first, last, "there");
    tells(&mut world, last, first, "and back");

    let mark = world.mark();
    let chat = world.users[first].1.take().expect("all are online");
    let left_ns = chat.quit();
    world.until("the one who left to be gone", World::is_whole);
    let label = world.users[first].0.label.clone();
    let gone = once::of_one(&world, &mark, &label, What::Went, left_ns);
    let chat = world.users[first].0.chat();
    let came_ns = chat.asked_ns;
    world.users[first].1 = Some(chat);
    world.until("the one who came to be shown", World::is_whole);
    let back = once::of_one(&world, &mark, &label, What::Came, came_ns);
    once::left_and_returned_alone(&world, &mark, &label);
    figures::times("no fault, partial mesh: one who left is gone at each watch", gone, None);
    figures::times("no fault, partial mesh: one who came is shown at each watch", back, None);

    let before = world.forwarder.packets();
    let quiet_ns = now_ns();
    world.quiet();
    let milliseconds = (now_ns() - quiet_ns) / 1_000_000;
    assert_eq!(once::flickers_but(&world, &mark, &label), 0, "nobody else was told of");
    let mut busiest = 0;
    for (way, packets) in world.forwarder.packets() {
        assert!(mesh::are_linked(way.0, way.1), "{way:?}: {packets} packets between servers that are not linked");
        let meanwhile = packets - before.get(&way).copied().unwrap_or_default();
        busiest = busiest.max(meanwhile * 1_000 / milliseconds);
    }
    figures::count("quiet mesh: packets a second on its busiest way", busiest, &format!("at most {QUIET_PACKETS_MAX}"));
    assert!(busiest <= QUIET_PACKETS_MAX);
    checks::at_rest(&mut world);
    assert!(world.watches.iter().all(|watch| watch.breaks == 0), "every watch stayed up");
}

/// One user writes to another, who reads it.
fn tells(world: &mut World, from: usize, to: usize, text: &str) {
    let label = world.users[to].0.label.clone();
    let sender = chat(world, from);
    sender.program.say(&format!("/tell {label} {text}"));
    let sent =
        sender.program.expect("what became of it", |event| event["event"] == "sent" || event["event"] == "error");
    assert_eq!(sent["outcome"], "handed_over", "{sent}");
    let from = world.users[from].0.label.clone();
    let message = chat(world, to).program.expect("the message", |event| event["event"] == "message");
    assert_eq!((&message["text"], &message["from"]), (&text.into(), &from.into()));
}

fn chat(world: &mut World, user: usize) -> &mut Chat {
    world.users[user].1.as_mut().expect("all are online")
}
