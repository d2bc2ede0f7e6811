//! Rolling restart: every server once, one at a time, in a mesh that stays connected.

use rustix::process::Signal;

use crate::{
    checks::{self, once},
    figures,
    mesh::Settings,
    network::SERVERS,
    world::{World, others},
};

#[test]
fn in_a_rolling_restart_of_all_servers_users_of_the_others_never_flicker() {
    let mut world = World::start(Settings::Default);
    let mut flickers = 0;
    let rounds = world.form.times(5);
    for server in (0..SERVERS).cycle().take(rounds * SERVERS) {
        let rest = others(&[server]);
        let (mark, loads) = (world.mark(), world.watches[server].loads);
        world.mesh.signal(server, Signal::TERM);
        world.mesh.ends_well(server);
        world.mesh.start_one(server);
        world.until("the mesh to be whole", |world| world.watches[server].loads > loads && world.is_whole());
        world.links();
        checks::at_rest(&mut world);
        once::left_and_returned(&world, &mark, &rest, &[server]);
        flickers += once::flickers(&world, &mark, &rest, &[server]);
    }
    let what = format!("rolling restart of five, {rounds} times: users of the others that flickered");
    figures::count(&what, flickers, "at most 0");
    assert_eq!(flickers, 0);
}
