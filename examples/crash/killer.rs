//! Kills servers, and starts them again.

use std::{
    fs,
    io::{IsTerminal as _, Write as _, stderr},
    sync::{
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use fastrand::Rng;

use crate::{
    SERVERS, World,
    harness::{
        mesh::Mesh,
        server::{self, Server},
    },
};

/// Milliseconds between two kills.
const BETWEEN_MS: std::ops::Range<u64> = 600..1_100;

/// Milliseconds that a server is away, beside its start.
const AWAY_MS: std::ops::Range<u64> = 0..250;

/// Of so many kills one is followed by a longer absence, after which peers have given the server up.
const LONG_ONE_IN: u32 = 8;

/// Milliseconds of such an absence.
const LONG_MS: std::ops::Range<u64> = 2_600..4_500;

/// How long a kill waits at most for the disk thread to be in the midst of a commit.
const AIM_MAX: Duration = Duration::from_millis(150);

/// How often it looks.
const LOOK: Duration = Duration::from_micros(100);

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Servers killed.
    pub kills: usize,
    /// Of those, kills while messages to inboxes at that server had no answer yet.
    pub with_unanswered: usize,
    /// Of those, kills of a server whose disk thread was seen in `fdatasync` or in a write to a file just before.
    pub in_commit: usize,
}

/// The servers, and who is killed next.
pub struct Killer<'a> {
    /// What was done so far.
    pub tally: Tally,
    mesh: &'a Mesh,
    servers: Vec<Life>,
    rng: Rng,
}

enum Life {
    Running(Box<Server>),
    /// Until then.
    Away(Instant),
}

impl<'a> Killer<'a> {
    /// Starts all servers.
    pub fn start(mesh: &'a Mesh, seed: u64) -> Self {
        let servers = (0..SERVERS).map(|_| Life::Away(Instant::now())).collect();
        let mut killer = Self { tally: Tally::default(), mesh, servers, rng: Rng::with_seed(seed) };
        killer.start_all();
        killer
    }

    /// Starts all that do not run.
    pub fn start_all(&mut self) {
        (0..SERVERS).for_each(|index| self.start_one(index));
    }

    /// Starts those that were away for as long as they should.
    fn start_due(&mut self) {
        let is_due = |life: &Life| matches!(life, Life::Away(until) if *until <= Instant::now());
        let due: Vec<usize> = (0..SERVERS).filter(|index| is_due(&self.servers[*index])).collect();
        due.into_iter().for_each(|index| self.start_one(index));
    }

    fn start_one(&mut self, index: usize) {
        if matches!(self.servers[index], Life::Away(_)) {
            let mut command = server::command(self.mesh.site(index));
            command.args(["--log", "error"]);
            self.servers[index] = Life::Running(Box::new(Server::start_by(self.mesh.site(index), command)));
        }
    }

    /// Kills a server about every second; gives whether that was interrupted.
    pub fn kill_for(&mut self, time: Duration, world: &World, interrupted: &Receiver<()>) -> bool {
        let until = Instant::now() + time;
        let waited = |ms: u64| interrupted.recv_timeout(Duration::from_millis(ms)) != Err(RecvTimeoutError::Timeout);
        while Instant::now() < until {
            let between = self.rng.u64(BETWEEN_MS);
            if waited(between) {
                return true;
            }
            self.kill_one(world);
            if stderr().is_terminal() {
                let left = until.saturating_duration_since(Instant::now()).as_secs();
                eprint!("\r{} kills, {left} s left ", self.tally.kills);
                let _ = stderr().flush();
            }
            let short = self.rng.u64(AWAY_MS);
            if waited(short) {
                return true;
            }
            self.start_due();
        }
        false
    }

    fn kill_one(&mut self, world: &World) {
        let index = self.rng.usize(..SERVERS);
        let is_running = |life: &Life| matches!(life, Life::Running(_));
        let away = if self.rng.u32(..LONG_ONE_IN) == 0 { self.rng.u64(LONG_MS) } else { 0 };
        if self.servers.iter().filter(|life| is_running(life)).count() < 2 || !is_running(&self.servers[index]) {
            return;
        }
        let until = Instant::now() + Duration::from_millis(away);
        let Life::Running(server) = &mut self.servers[index] else { return };
        // Every other one comes when it may, the rest in the midst of a commit if there is one soon.
        let is_aimed = self.rng.bool();
        let begun = Instant::now();
        let disk = disk_thread(server.program.id());
        let is_committing = || disk.as_deref().is_some_and(is_in_disk_call);
        let mut in_commit = is_committing();
        while is_aimed && !in_commit && begun.elapsed() < AIM_MAX {
            std::thread::sleep(LOOK);
            in_commit = is_committing();
        }
        let unanswered = world.unanswered[index].load(Ordering::SeqCst);
        server.program.kill();
        self.servers[index] = Life::Away(until);
        self.tally.kills += 1;
        self.tally.with_unanswered += usize::from(unanswered > 0);
        self.tally.in_commit += usize::from(in_commit && unanswered > 0);
    }
}

/// Where the kernel tells what the thread that writes the disk of a server is doing.
fn disk_thread(process: u32) -> Option<String> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let mut folders = threads.filter_map(|thread| Some(thread.ok()?.path().display().to_string()));
    let folder = folders
        .find(|folder| fs::read_to_string(format!("{folder}/comm")).is_ok_and(|name| name.trim() == "disk writes"))?;
    Some(format!("{folder}/syscall"))
}

#[cfg(target_os = "linux")]
fn is_in_disk_call(thread: &str) -> bool {
    use nix::libc::{SYS_fdatasync, SYS_fsync, SYS_pwrite64};
    let told = fs::read_to_string(thread).unwrap_or_default();
    let number = told.split(' ').next().and_then(|number| number.parse().ok());
    number.is_some_and(|number| [SYS_fdatasync, SYS_fsync, SYS_pwrite64].contains(&number))
}

#[cfg(not(target_os = "linux"))]
fn is_in_disk_call(_thread: &str) -> bool {
    false
}
