//! Storm: several faults at once, drawn from the seed, one after another; then peace, and every view has to be right.

use rustix::process::Signal;

use crate::{
    checks,
    faults::{self, Fault},
    figures,
    form::seed,
    mesh::{self, Settings},
    network::SERVERS,
    world::{World, others},
};

/// Faults in one storm.
const FAULTS_MAX: usize = 5;

/// Packets that pass the switch between one fault and the next: up to some three seconds of a quiet mesh.
const PACKETS_MAX: u64 = 200;

/// What has to be made good after a storm.
#[derive(Default)]
struct Damage {
    dead: Vec<usize>,
    hung: Vec<usize>,
    /// Servers that were started anew, and how often their watch had been complete before.
    replaced: Vec<(usize, usize)>,
    offline: Vec<usize>,
}

impl Damage {
    fn may_fall(&self, server: usize) -> bool {
        // Who is left must be able to pass packets, by which time is told here.
        !self.dead.contains(&server) && !self.hung.contains(&server) && self.dead.len() + self.hung.len() < 2
    }

    /// Does something bad; tells what.
    fn strike(&mut self, world: &mut World, random: &mut fastrand::Rng) -> String {
        let server = random.usize(..SERVERS);
        let (one, other) = mesh::LINKS[random.usize(..mesh::LINKS.len())];
        match random.usize(..7) {
            0 | 1 if self.may_fall(server) => {
                self.replaced.push((server, world.watches[server].loads));
                if random.bool() {
                    world.mesh.kill(server);
                } else {
                    world.mesh.signal(server, Signal::TERM);
                    world.mesh.ends_well(server);
                }
                self.dead.push(server);
                format!("end {server}")
            }
            2 if self.may_fall(server) => {
                world.mesh.signal(server, Signal::STOP);
                self.hung.push(server);
                format!("stop {server}")
            }
            3 => {
                world.forwarder.put([(one, other)], Fault::cut("storm: one way"));
                format!("cut {one} to {other}")
            }
            4 => {
                world.forwarder.put(faults::between(&[server], &others(&[server])), Fault::cut("storm: a cable"));
                format!("pull {server}")
            }
            5 => {
                world.forwarder.put(faults::from(&others(&[]), &others(&[])), Fault::lossy("storm: loss and delay"));
                "lose and delay everywhere".into()
            }
            _ => {
                let user = random.usize(..world.users.len());
                // The chat of a user is dropped without a word, as when a laptop is closed for good.
                match world.users[user].1.take() {
                    Some(_) => self.offline.push(user),
                    None => return "nothing".into(),
                }
                format!("end the client of {}", world.users[user].0.label)
            }
        }
    }

    fn repair(self, world: &mut World) {
        world.forwarder.heal();
        self.hung.iter().for_each(|&server| world.mesh.signal(server, Signal::CONT));
        self.dead.iter().for_each(|&server| world.mesh.start_one(server));
        for user in self.offline {
            world.users[user].1 = Some(world.users[user].0.chat());
        }
        world.until("all to be back", |world| {
            self.replaced.iter().all(|&(server, loads)| world.watches[server].loads > loads) && world.is_whole()
        });
    }
}

#[test]
fn after_several_faults_at_once_nobody_is_missing_or_a_ghost_and_every_view_is_the_same() {
    let mut world = World::start(Settings::Default);
    let mut random = fastrand::Rng::with_seed(seed());
    let storms = world.form.times(30);
    let mut strikes = 0;
    for storm in 0..storms {
        let mut damage = Damage::default();
        for _ in 0..random.usize(2..=FAULTS_MAX) {
            let what = damage.strike(&mut world, &mut random);
            println!("  storm {storm}: {what}");
            strikes += 1;
            let packets = |world: &World| world.forwarder.packets().values().sum::<u64>();
            let enough = packets(&world) + random.u64(..PACKETS_MAX);
            world.until("some packets to pass", |world| packets(world) >= enough);
        }
        damage.repair(&mut world);
        world.links();
        checks::at_rest(&mut world);
    }
    figures::count(&format!("storms: faults in {storms}, after each of which all views were right"), strikes, "");
    world.print_faults();
}
