//! Everything that runs: the switch, the servers, users online at each, and a watching client at each.

use std::{
    collections::BTreeSet,
    env, fs,
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    checks::{self, watches::Watch},
    faults::Count,
    figures,
    form::{self, Form, PATIENCE},
    forwarder::Forwarder,
    harness::mesh::Site,
    mesh::{self, Mesh, Settings},
    network::SERVERS,
    user::{Chat, User},
};

/// Users online at each server.
const NAMES: [&str; 2] = ["una", "ulf"];

/// How long one watch is waited for before the others have their turn.
const TURN: Duration = Duration::from_millis(5);

/// How many changes each watch had told at some time.
pub struct Mark(Vec<usize>);

impl Mark {
    /// The place in the changes of this watch.
    pub fn of(&self, watch: &Watch) -> usize {
        self.0[watch.server]
    }
}

/// All that runs. It ends with this value.
pub struct World {
    /// In which form this runs.
    pub form: Form,
    /// The servers.
    pub mesh: Mesh,
    /// The switch between them.
    pub forwarder: Forwarder,
    /// A watching client at each server.
    pub watches: Vec<Watch>,
    /// The user of each watching client, who is not online.
    pub watchers: Vec<User>,
    /// Who may be online, and their client while they are.
    pub users: Vec<(User, Option<Chat>)>,
    started: Mark,
}

/// The wall clock, which clients stamp events by, nanoseconds since 1970.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set");
    u64::try_from(since.as_nanos()).expect("the clock is set")
}

/// All servers but these.
pub fn others(but: &[usize]) -> Vec<usize> {
    (0..SERVERS).filter(|server| !but.contains(server)).collect()
}

/// Does the same for every server at the same time.
fn each<T: Send>(make: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let make = &make;
    thread::scope(|scope| {
        let made: Vec<_> = (0..SERVERS).map(|server| scope.spawn(move || make(server))).collect();
        made.into_iter().map(|made| made.join().expect("it can be made")).collect()
    })
}

impl World {
    /// Starts everything; every watch is whole and every link stands on return.
    pub fn start(settings: Settings) -> Self {
        let forwarder = Forwarder::start(form::seed());
        let mesh = Mesh::start(settings);
        let sites: Vec<&Site> = others(&[]).into_iter().map(|server| mesh.site(server)).collect();
        let watchers = each(|server| User::register("wim", server, sites[server]));
        let users = each(|server| NAMES.map(|name| User::register(name, server, sites[server])));
        let users: Vec<User> = users.into_iter().flatten().collect();
        let watches = each(|server| Watch::new(server, watchers[server].watch()));
        let users = users.into_iter().map(|user| (user, None)).collect();
        let started = Mark(vec![0; SERVERS]);
        let mut world = Self { form: Form::asked(), mesh, forwarder, watches, watchers, users, started };
        world.until("every watch to be complete", |world| world.watches.iter().all(Watch::is_complete));
        for (user, chat) in &mut world.users {
            *chat = Some(user.chat());
        }
        world.links();
        checks::at_rest(&mut world);
        world
    }

    /// Labels of everybody whose client is attached, or comes back when it can.
    pub fn online(&self) -> BTreeSet<&str> {
        self.users.iter().filter(|(_, chat)| chat.is_some()).map(|(user, _)| &*user.label).collect()
    }

    /// Labels of who is online at these servers.
    pub fn users_of(&self, homes: &[usize]) -> BTreeSet<&str> {
        let is_theirs =
            |label: &&str| homes.iter().any(|&home| label.ends_with(&format!("@{}", self.mesh.site(home).name)));
        self.online().into_iter().filter(is_theirs).collect()
    }

    /// Whether every watch shows just who is online, and all the same of them.
    pub fn is_whole(&self) -> bool {
        let online = self.online();
        let first = self.watches[0].entries();
        let is_right = |watch: &Watch| watch.is_complete() && watch.shown() == online && watch.entries() == first;
        self.watches.iter().all(is_right)
    }

    /// How far every watch is.
    pub fn mark(&mut self) -> Mark {
        self.read(Duration::ZERO);
        Mark(self.watches.iter().map(|watch| watch.changes.len()).collect())
    }

    fn read(&mut self, time: Duration) {
        for (index, watch) in self.watches.iter_mut().enumerate() {
            watch.read(if index == 0 { time } else { Duration::ZERO });
        }
    }

    /// Reads what the watches tell until something is so.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.read(TURN);
            if is_so(self) {
                return;
            }
            if Instant::now() > deadline {
                panic!("waited {PATIENCE:?} for {what}\n{}", self.story());
            }
        }
    }

    /// Waits until every watch says that nothing changed for a while: 15 s.
    #[track_caller]
    pub fn quiet(&mut self) {
        let before: Vec<usize> = self.watches.iter().map(|watch| watch.bookmarks).collect();
        self.until("every watch to say that nothing changes", |world| {
            world.watches.iter().zip(&before).all(|(watch, before)| watch.bookmarks > *before)
        });
    }

    /// Waits until every link stands, and gives since when the youngest does, Unix nanoseconds.
    #[track_caller]
    pub fn links(&mut self) -> u64 {
        let all = mesh::pairs();
        let mut youngest_ms = 0;
        self.until("every link", |world| {
            let links = world.mesh.links(&others(&[]));
            youngest_ms = links.values().copied().max().unwrap_or_default();
            links.keys().copied().collect::<BTreeSet<_>>() == all
        });
        youngest_ms * 1_000_000
    }

    /// Takes all faults of the network away, and holds that this one happened: nothing that it counts is zero.
    #[track_caller]
    pub fn heal(&self, name: &str, happened: impl Fn(Count) -> bool) {
        self.forwarder.heal();
        let count = self.forwarder.count(name);
        assert!(happened(count), "{name}: {count:?}");
    }

    /// Prints how often each fault of the network happened.
    pub fn print_faults(&self) {
        for (name, Count { dropped, delayed, reordered }) in self.forwarder.counts() {
            figures::line(&format!("{name}: {dropped} packets dropped, {delayed} delayed, {reordered} reordered"));
        }
    }

    fn story(&self) -> String {
        let watches = self.watches.iter().map(|watch| watch.story(self.started.of(watch)));
        watches.collect::<Vec<_>>().join("\n")
    }

    /// Keeps the servers' logs where somebody who reads a failure finds them.
    fn keep_logs(&self) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos-logs");
        let _ = fs::create_dir_all(&folder);
        for (name, log) in self.mesh.logs() {
            let _ = fs::write(folder.join(format!("{name}.log")), log);
        }
        eprintln!("{}\nthe servers' logs are in {}", self.story(), folder.display());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if thread::panicking() && env::var_os("SOCP_CHAOS_NAMESPACES").is_some() {
            self.keep_logs();
        }
    }
}
