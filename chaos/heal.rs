//! Heal: networks that part, lose and delay, and what is so after them.

use std::time::Duration;

use crate::{
    checks::{self, once, watches::What},
    faults::{self, Fault},
    figures,
    form::Bound,
    mesh::{self, Settings},
    network::SERVERS,
    world::{World, now_ns, others},
};

#[test]
fn after_a_partition_of_two_halves_links_and_users_return_once_and_every_view_is_the_same() {
    const NAME: &str = "partition of two halves";
    let mut world = World::start(Settings::Default);
    let (mut links, mut views, mut healed) = (Vec::new(), Vec::new(), Vec::new());
    for first in 0..world.form.times(2 * SERVERS) {
        // Two neighbours on the ring, and the three others, who are linked among themselves.
        let one = [first % SERVERS, (first + 1) % SERVERS];
        let other = others(&one);
        let mark = world.mark();
        world.forwarder.put(faults::between(&one, &other), Fault::cut(NAME));
        world.until("each half to be alone", |world| {
            once::all(world, &mark, &one, &other, What::Went) && once::all(world, &mark, &other, &one, What::Went)
        });
        if first % 2 == 1 {
            // So long that everybody dials as seldom as they ever do.
            world.quiet();
        }
        let healed_ns = now_ns();
        world.heal(NAME, |count| count.dropped > 0);
        let linked_ns = world.links();
        world.until("every view to be whole", World::is_whole);
        links.push(Duration::from_nanos(linked_ns.saturating_sub(healed_ns)));
        for (half, away) in [(&one[..], &other[..]), (&other, &one)] {
            views.extend(once::times(&world, &mark, half, away, What::Came, linked_ns));
            healed.extend(once::times(&world, &mark, half, away, What::Came, healed_ns));
        }
        checks::at_rest(&mut world);
        for (half, away) in [(&one[..], &other[..]), (&other, &one)] {
            once::left_and_returned(&world, &mark, half, away);
            assert_eq!(once::flickers(&world, &mark, half, away), 0, "nobody of the own half is touched");
        }
    }
    figures::times("partition of two halves: links back after the network", links, Some(Bound::Links));
    figures::times("partition of two halves: each view whole after the last link", views, Some(Bound::Views));
    figures::times("partition of two halves: each view whole after the network", healed, None);
    world.print_faults();
}

#[test]
fn a_link_that_loses_one_way_is_given_up_and_nobody_flickers() {
    const NAME: &str = "one-way loss of one link";
    let mut world = World::start(Settings::Default);
    let mut flickers = 0;
    for (deaf, dumb) in mesh::LINKS.into_iter().take(world.form.times(mesh::LINKS.len())) {
        let mark = world.mark();
        world.forwarder.put([(dumb, deaf)], Fault::cut(NAME));
        world.until("the link to be given up", |world| world.mesh.seen(deaf, dumb)["reach"] != "linked");
        world.heal(NAME, |count| count.dropped > 0);
        world.links();
        checks::at_rest(&mut world);
        flickers += once::flickers(&world, &mark, &others(&[]), &[]);
    }
    figures::count("one-way loss of one link: changes told of anybody", flickers, "at most 0");
    assert_eq!(flickers, 0);
    world.print_faults();
}

#[test]
fn with_loss_delay_and_reordering_changes_still_arrive_once_and_nobody_else_flickers() {
    const NAME: &str = "5 % loss, 100 ms delay, reordering";
    let mut world = World::start(Settings::Default);
    world.forwarder.put(faults::from(&others(&[]), &others(&[])), Fault::lossy(NAME));
    let (mut gone, mut back, mut flickers) = (Vec::new(), Vec::new(), 0);
    for repetition in 0..world.form.times(10) {
        for server in 0..SERVERS {
            let mark = world.mark();
            let index = world.users.len() * server / SERVERS + repetition % 2;
            let chat = world.users[index].1.take().expect("all are online");
            let left_ns = chat.quit();
            let label = world.users[index].0.label.clone();
            world.until("the one who left to be gone", World::is_whole);
            gone.extend(once::of_one(&world, &mark, &label, What::Went, left_ns));
            let chat = world.users[index].0.chat();
            let came_ns = chat.asked_ns;
            world.users[index].1 = Some(chat);
            world.until("the one who came to be shown", World::is_whole);
            back.extend(once::of_one(&world, &mark, &label, What::Came, came_ns));
            once::left_and_returned_alone(&world, &mark, &label);
            flickers += once::flickers_but(&world, &mark, &label);
        }
    }
    let enough = 20 * world.form.times(10) as u64;
    world.until("enough of it to happen", |world| {
        let count = world.forwarder.count(NAME);
        count.dropped >= enough && count.reordered >= enough
    });
    world.heal(NAME, |count| count.dropped > 0 && count.delayed > 0 && count.reordered > 0);
    world.links();
    checks::at_rest(&mut world);
    figures::times("5 % loss, 100 ms delay: one who left is gone at each watch", gone, None);
    figures::times("5 % loss, 100 ms delay: one who came is shown at each watch", back, None);
    figures::count("5 % loss, 100 ms delay: changes told of anybody else", flickers, "at most 0");
    assert_eq!(flickers, 0);
    world.print_faults();
}
