//! Old entries that their origin signs again, so that what is kept for whoever joins stays small.

use socp::directory::Change;

use crate::{checks, world::World};

#[test]
fn whoever_joins_gets_few_batches_and_watchers_see_none_of_them() {
    let mut world = World::calm(&[0, 1, 2]);
    world.restart_with(0, |settings| settings.kept_batches_max = 8);
    world.run_for(2_000);
    let users: Vec<usize> = (0..60).map(|user| world.online_user(0, &format!("user{user}"))).collect();
    for user in &users[..20] {
        world.detach(*user, 0);
    }
    world.run_for(1_000);
    world.restart_with_empty_disk(2);
    world.run_for(5_000);
    let id = world.servers[0].id;
    for server in &world.servers {
        let base = server.node.as_ref().expect("it runs").origin(&id).expect("everybody knows the first").base();
        assert_eq!((base.online(), base.kept() <= 8), (40, true), "{} keeps {} batches", server.name, base.kept());
        assert!(base.stale() <= 40 / 2 + 8, "{} keeps {} stale adverts", server.name, base.stale());
    }
    let seen = &world.servers[1].watch.changes;
    let counted = |is_one: fn(&Change) -> bool| seen.iter().filter(|change| is_one(change)).count();
    let updated = counted(|change| matches!(change, Change::Updated(_)));
    assert_eq!((counted(|change| matches!(change, Change::Added(_))), updated), (60, 0));
    checks::at_rest(&world);
}
