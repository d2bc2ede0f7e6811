//! Gone: servers that die, hang, are cut off or stop, and what the watches of the others say of their users.

use std::time::Duration;

use rustix::process::Signal;

use crate::{
    checks::{self, once, watches::What},
    faults::{self, Fault},
    figures,
    form::Bound,
    mesh::Settings,
    network::SERVERS,
    world::{World, now_ns, others},
};

/// By what a server falls silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silence {
    /// kill -9; it is started again.
    Killed,
    /// kill -9, and started again before anybody can have noticed.
    Replaced,
    /// SIGSTOP, then SIGCONT.
    Hung,
    /// The same, but so long that its clients have given it up meanwhile.
    HungLong,
    /// Its cable is pulled, and put in again.
    CutOff,
    /// What it sends is lost; what others send it is not.
    Unheard,
}

impl Silence {
    const ALL: [Self; 6] = [Self::Killed, Self::Replaced, Self::Hung, Self::HungLong, Self::CutOff, Self::Unheard];

    fn text(self) -> &'static str {
        match self {
            Self::Killed => "kill -9",
            Self::Replaced => "kill -9 and a new start at once",
            Self::Hung => "SIGSTOP",
            Self::HungLong => "SIGSTOP for longer than clients wait",
            Self::CutOff => "cable pull",
            Self::Unheard => "one-way loss of all that it sends",
        }
    }

    fn begin(self, world: &mut World, victim: usize) {
        match self {
            Self::Killed => world.mesh.kill(victim),
            Self::Replaced => {
                world.mesh.kill(victim);
                world.mesh.start_one(victim);
            }
            Self::Hung | Self::HungLong => world.mesh.signal(victim, Signal::STOP),
            Self::CutOff => {
                world.forwarder.put(faults::between(&[victim], &others(&[victim])), Fault::cut(self.text()));
            }
            Self::Unheard => world.forwarder.put(faults::from(&[victim], &others(&[victim])), Fault::cut(self.text())),
        }
    }

    fn end(self, world: &mut World, victim: usize) {
        match self {
            Self::Killed => world.mesh.start_one(victim),
            Self::Replaced => {}
            Self::Hung | Self::HungLong => world.mesh.signal(victim, Signal::CONT),
            Self::CutOff | Self::Unheard => world.heal(self.text(), |count| count.dropped > 0),
        }
    }
}

/// Lets a server fall silent and come back. Gives how long each of the other watches showed its users after it was silent,
/// and after it was back did not.
fn falls_silent(world: &mut World, silence: Silence, victim: usize) -> (Vec<Duration>, Vec<Duration>) {
    let rest = others(&[victim]);
    let (mark, loads, breaks) = (world.mark(), world.watches[victim].loads, world.watches[victim].breaks);
    let silent_ns = now_ns();
    silence.begin(world, victim);
    world.until("its users to be gone", |world| once::all(world, &mark, &rest, &[victim], What::Went));
    let gone = once::times(world, &mark, &rest, &[victim], What::Went, silent_ns);
    if silence == Silence::CutOff {
        world.until("the others to be gone", |world| once::all(world, &mark, &[victim], &rest, What::Went));
    }
    if silence == Silence::HungLong {
        world.until("its watching client to give it up", |world| world.watches[victim].breaks > breaks);
    }
    let connects = world.watches[victim].connects;
    let back_ns = now_ns();
    silence.end(world, victim);
    if silence == Silence::HungLong {
        world.until("its watching client to be back", |world| world.watches[victim].connects > connects);
    }
    // The watch of a new start begins anew.
    let wanted = if matches!(silence, Silence::Killed | Silence::Replaced) { loads + 1 } else { loads };
    world.until("all to be back", |world| world.watches[victim].loads >= wanted && world.is_whole());
    let back = once::times(world, &mark, &rest, &[victim], What::Came, back_ns);
    world.links();
    checks::at_rest(world);
    once::left_and_returned(world, &mark, &rest, &[victim]);
    assert_eq!(once::flickers(world, &mark, &rest, &[victim]), 0, "{silence:?}: users of the others stay");
    if silence == Silence::CutOff {
        once::left_and_returned(world, &mark, &[victim], &rest);
    }
    (gone, back)
}

fn all_silences(settings: Settings, bound: Bound) {
    let mut world = World::start(settings);
    for silence in Silence::ALL {
        let (mut gone, mut back) = (Vec::new(), Vec::new());
        // Those in which clients have to find out too take long.
        let times = if matches!(silence, Silence::Replaced | Silence::HungLong) { 3 } else { 10 };
        for repetition in 0..world.form.times(times) {
            let (now_gone, now_back) = falls_silent(&mut world, silence, (repetition + silence as usize) % SERVERS);
            gone.extend(now_gone);
            back.extend(now_back);
        }
        let what = format!("{}, {} settings: users", silence.text(), settings.text());
        figures::times(&format!("{what} gone at each other watch"), gone, Some(bound));
        figures::times(&format!("{what} back at each other watch"), back, None);
    }
    world.print_faults();
}

#[test]
fn users_of_a_server_that_dies_hangs_or_is_cut_off_leave_every_watch_once_within_seconds_and_return_once() {
    all_silences(Settings::Default, Bound::Gone);
}

#[test]
fn at_tight_settings_they_leave_within_a_second() {
    all_silences(Settings::Tight, Bound::GoneTight);
}

#[test]
fn users_of_a_server_that_says_goodbye_leave_every_watch_at_once() {
    let mut world = World::start(Settings::Default);
    let (mut gone, mut back) = (Vec::new(), Vec::new());
    for victim in (0..SERVERS).cycle().take(world.form.times(10)) {
        let rest = others(&[victim]);
        let (mark, loads) = (world.mark(), world.watches[victim].loads);
        let stopped_ns = now_ns();
        world.mesh.signal(victim, Signal::TERM);
        world.until("its users to be gone", |world| once::all(world, &mark, &rest, &[victim], What::Went));
        gone.extend(once::times(&world, &mark, &rest, &[victim], What::Went, stopped_ns));
        world.mesh.ends_well(victim);
        world.mesh.start_one(victim);
        let started_ns = now_ns();
        world.until("all to be back", |world| world.watches[victim].loads > loads && world.is_whole());
        back.extend(once::times(&world, &mark, &rest, &[victim], What::Came, started_ns));
        world.links();
        checks::at_rest(&mut world);
        once::left_and_returned(&world, &mark, &rest, &[victim]);
        assert_eq!(once::flickers(&world, &mark, &rest, &[victim]), 0, "users of the others stay");
    }
    figures::times("SIGTERM: users gone at each other watch", gone, Some(Bound::Goodbye));
    figures::times("SIGTERM and a new start: users back at each other watch", back, None);
}
