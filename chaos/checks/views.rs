//! Equal views: all servers show the same, to the byte that a digest covers.

use std::{collections::BTreeMap, thread};

use crate::{
    user::{self, User},
    world::World,
};

/// All watchers have equal entries; a client that begins to watch anew, at each server, is shown as many, and told one
/// digest, which it finds to be its own. What a digest covers may still change a while after who is online does: a
/// session that nobody ended counts until its server gives it up.
#[track_caller]
pub fn at_rest(world: &mut World) {
    let entries: Vec<&BTreeMap<_, _>> = world.watches.iter().map(|watch| watch.entries()).collect();
    assert!(entries.windows(2).all(|pair| pair[0] == pair[1]), "views differ: {entries:#?}");
    world.until("one digest at every server", |world| {
        let online = world.online().len();
        let digests: Vec<String> = thread::scope(|scope| {
            let fresh: Vec<_> = world.watchers.iter().map(|user| scope.spawn(move || digest(user, online))).collect();
            fresh.into_iter().map(|digest| digest.join().expect("a watch begins")).collect()
        });
        digests.windows(2).all(|pair| pair[0] == pair[1])
    });
}

fn digest(user: &User, online: usize) -> String {
    let mut program = user.watch();
    let synced = program.expect("the end mark", |event| event["event"] == "synced");
    assert_eq!((&synced["digest_ok"], &synced["entries"]), (&true.into(), &online.into()), "{synced}");
    user::end(&mut program);
    synced["digest"].as_str().expect("a watch of everybody has a digest").to_owned()
}
