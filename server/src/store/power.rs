//! Power loss: what the store reported as done is there afterwards, whatever the disk had not written yet.
//!
//! A process of its own writes by the store, with the settings of the product, onto a real file system. Each call by which it
//! changes files is recorded, and between them each word by which it reports a step ([`trace`]). From that the disk is put
//! together as a power loss at any place leaves it ([`disk`]); the store opens it and must find the steps reported, or those
//! and the one under way, and nothing else ([`world`]).
//!
//! The process is this test again, told by its environment to be the one that writes.

mod disk;
mod names;
mod trace;
mod world;

use std::{
    collections::BTreeSet,
    env, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use fastrand::Rng;
use socp::id::ServerId;

use self::{
    disk::{Disk, Files, Loss},
    trace::Call,
    world::{Step, World, in_order},
};
use super::{tests::begin_epoch, *};

const STEPS: usize = 120;
const POINTS_PER_SEED: usize = 20;

/// Steps after which the log is moved into the database.
const LOG_STEPS: usize = 25;

/// How the process reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// As the server does.
    Honest,
    /// Before the store has said that it is done.
    Early,
    /// With a store that syncs at no commit.
    Unsynced(&'static str),
}

const MANNERS: [Manner; 4] = [Manner::Honest, Manner::Early, Manner::Unsynced("NORMAL"), Manner::Unsynced("OFF")];

const FOLDER: &str = "SOCP_POWER_FOLDER";
const SEED: &str = "SOCP_POWER_SEED";
const MANNER: &str = "SOCP_POWER_MANNER";

/// Writes, if the environment says that this is the process to do so.
fn is_writer() -> bool {
    let Some(folder) = env::var_os(FOLDER) else { return false };
    let number = |key: &str| env::var(key).unwrap().parse().unwrap();
    await_recorder();
    let path = Path::new(&folder).join("socp.db");
    write(&path, number(SEED), MANNERS[usize::try_from(number(MANNER)).unwrap()]);
    true
}

/// Returns once this thread is recorded.
fn await_recorder() {
    let thread = fs::read_link("/proc/thread-self").unwrap();
    say(&format!("{}{}\n", trace::READY, thread.file_name().unwrap().to_string_lossy()));
    io::stdin().read_line(&mut String::new()).unwrap();
}

fn write(path: &Path, seed: u64, manner: Manner) {
    let mut world = World::new(seed);
    let mut open: Option<(Store, Box<dyn Pages>)> = None;
    for done in 1..=STEPS {
        let step = world.step();
        if manner == Manner::Early {
            say(&format!("{}{done}\n", trace::DONE));
        }
        match step {
            Step::Restart(unix_ms) => {
                drop(open.take());
                let mut store = Store::open(path).unwrap();
                if let Manner::Unsynced(level) = manner {
                    store.database.pragma_update(None, "synchronous", level).unwrap();
                }
                begin_epoch(&mut store, unix_ms);
                let reader = store.pages().unwrap();
                open = Some((store, reader));
            }
            Step::Apply(records) => {
                let (store, reader) = open.as_mut().unwrap();
                store.commit(&records).unwrap();
                // As a server reads while it writes.
                for (user, _) in world.messages().take(done % 2) {
                    reader.page(user, 0).unwrap();
                }
            }
        }
        say(&format!("{}{done}\n", trace::DONE));
        // Between commits, as a server does when the log is long.
        if let Some((store, _)) = &open
            && done.is_multiple_of(LOG_STEPS)
        {
            log::shorten(&store.database).unwrap();
        }
    }
}

/// In one call.
fn say(word: &str) {
    io::stderr().write_all(word.as_bytes()).unwrap();
}

/// Where there is no disk to wait for: what is synced is known from the record.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { env::temp_dir() };
    tempfile::tempdir_in(parent).unwrap()
}

/// Has another process run the test of this name as the one that writes.
fn record(test: &str, seed: u64, manner: Manner) -> Vec<Call> {
    let folder = folder();
    let manner = MANNERS.iter().position(|other| *other == manner).unwrap();
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", test]).env(FOLDER, folder.path());
    command.env(SEED, seed.to_string()).env(MANNER, manner.to_string());
    trace::record(&mut command, folder.path())
}

/// All states from before the first step on.
fn worlds(seed: u64) -> Vec<World> {
    let mut world = World::new(seed);
    let mut worlds = vec![world.clone()];
    worlds.extend((0..STEPS).map(|_| {
        world.step();
        world.clone()
    }));
    worlds
}

/// What was seen in the course of it.
#[derive(Default)]
struct Tally {
    points: usize,
    violations: Vec<String>,
    /// Steps reported, over all points.
    reported: usize,
    /// Points at which something was not synced.
    unsynced: usize,
    /// Points in which the step under way was there, though not reported.
    ahead: usize,
}

/// Loses power at random places of one run, and looks at what is there.
fn lose_power(seed: u64, calls: &[Call], tally: &mut Tally) {
    let mut rng = Rng::with_seed(seed);
    let worlds = worlds(seed);
    let mut points: Vec<usize> = (0..POINTS_PER_SEED).map(|_| rng.usize(..=calls.len())).collect();
    points.sort_unstable();
    let mut disk = Disk::default();
    let (mut taken, mut done) = (0, 0);
    for point in points {
        for call in &calls[taken..point] {
            disk.take(call);
            if let Call::Done(step) = call {
                done = *step;
            }
        }
        taken = point;
        let losses = [Loss::Dropped, Loss::Torn, Loss::Scattered];
        for loss in losses {
            tally.points += 1;
            tally.reported += done;
            let files = disk.after_power_loss(loss, &mut rng);
            tally.unsynced += usize::from(disk.is_unsynced());
            match find(&files, &worlds, done, &mut rng) {
                Ok(found) => tally.ahead += usize::from(found > done),
                Err(violation) => {
                    tally
                        .violations
                        .push(format!("seed {seed}, after {point} calls, {loss:?}, {done} done: {violation}"));
                }
            }
        }
    }
}

/// Opens what a power loss left; gives the number of steps found there, which must be all that were done.
fn find(files: &Files, worlds: &[World], done: usize, rng: &mut Rng) -> Result<usize, String> {
    let folder = folder();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let path = folder.path().join("socp.db");
    if files.contains_key(&PathBuf::from("socp.db")) {
        // Of an earlier time, as it may well be.
        let shared: Vec<u8> = (0..32_768).map(|_| rng.u8(..)).collect();
        fs::write(path.with_extension("db-shm"), shared).unwrap();
    }
    let mut store = Store::open(&path).map_err(|error| format!("it does not open: {error}"))?;
    let loaded = in_order(store.load().map_err(|error| format!("it cannot be read: {error}"))?);
    let last = (done + 1).min(worlds.len() - 1);
    let Some(found) = (done..=last).find(|found| worlds[*found].loaded() == loaded) else {
        let earlier = (0..done).rev().find(|found| worlds[*found].loaded() == loaded);
        return Err(format!("what is there is the state after step {earlier:?}"));
    };
    let reader = store.pages().unwrap();
    for (user, messages) in worlds[found].messages() {
        let mut read = Vec::new();
        while let Some(page) = reader.page(user, read.last().map_or(0, |last: &socp::inbox::Stored| last.position)).ok()
            && !page.is_empty()
        {
            read.extend(page);
        }
        if read != messages {
            return Err(format!("of the messages of `{user}` some are not as they were sent"));
        }
    }
    let posts = worlds[found].posts();
    let positions: Vec<u64> = posts.iter().map(|post| post.position).collect();
    let stranger = UserName::parse("nobody").unwrap();
    if reader.posts(&stranger, &positions).ok() != Some(posts) {
        return Err("of the posts some are not as they were sent".to_owned());
    }
    let next = Record::Blocked { server: ServerId::of_key(&[9; 32]), is_blocked: true };
    store.commit(&[next]).map_err(|error| format!("it takes nothing more: {error}"))?;
    Ok(found)
}

#[test]
fn what_was_reported_as_done_outlives_the_loss_of_power_at_any_moment() {
    if is_writer() {
        return;
    }
    let test = "store::power::what_was_reported_as_done_outlives_the_loss_of_power_at_any_moment";
    let mut tally = Tally::default();
    for seed in 0..4 {
        let calls = record(test, seed, Manner::Honest);
        lose_power(seed, &calls, &mut tally);
        let kinds: BTreeSet<&str> = calls.iter().map(Call::kind).collect();
        assert_eq!(kinds.len(), 7, "a run of seed {seed} does it all: {kinds:?}");
    }
    let Tally { points, violations, reported, unsynced, ahead } = tally;
    println!(
        "{points} points, {unsynced} of them with something unsynced, {ahead} with the step under way; {reported} steps"
    );
    assert!(violations.is_empty(), "{}", violations.join("\n"));
    assert!(unsynced > points / 4 && ahead > 0, "{unsynced} and {ahead} of {points} points");
}

#[test]
fn reporting_before_the_disk_has_it_is_noticed() {
    if is_writer() {
        return;
    }
    let test = "store::power::reporting_before_the_disk_has_it_is_noticed";
    for manner in &MANNERS[1..] {
        let mut tally = Tally::default();
        lose_power(1, &record(test, 1, *manner), &mut tally);
        let Tally { points, violations, .. } = tally;
        println!("{manner:?}: {} violations at {points} points; {:?}", violations.len(), violations.first());
        assert!(!violations.is_empty(), "{manner:?} was not noticed at {points} points");
    }
}
