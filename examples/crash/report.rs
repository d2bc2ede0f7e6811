//! What each device must have, and what it has. Believes no server: the senders' notes say what was accepted.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
    time::Duration,
};

use serde_json::json;

use crate::{
    USERS, World,
    device::Device,
    killer::Tally,
    post::{self, Had, Made},
    sender::Sender,
};

/// Violations that are printed.
const SHOWN_MAX: usize = 20;

/// A message as a device has it: the sender's name, and the id.
type Received = (String, String);

/// A run, counted and judged.
pub struct Report {
    seed: u64,
    took: Duration,
    tally: Tally,
    accepted: usize,
    rejected: BTreeMap<String, usize>,
    unknown: usize,
    tries: usize,
    /// Least and most messages of a device, and how often all of them attached.
    devices: (usize, usize, usize, usize),
    /// Posts, and words of homes that they have one.
    posts: (usize, usize),
    violations: Vec<String>,
    /// Falsehoods that were put to the judge, each noticed: see [`falsehoods`].
    noticed: Vec<&'static str>,
}

impl Report {
    pub fn new(
        seed: u64,
        took: Duration,
        tally: &Tally,
        senders: &[Sender],
        devices: &[Device],
        world: &World,
    ) -> Self {
        let notes = || senders.iter().flat_map(Sender::notes);
        let mut rejected = BTreeMap::new();
        for reason in notes().filter_map(|fate| fate.rejected.clone()) {
            *rejected.entry(reason).or_insert(0) += 1;
        }
        let strange = senders.iter().flat_map(|sender| sender.strange.iter().cloned());
        let names: Vec<&str> = senders.iter().map(|sender| world.users[sender.user].address.user.as_str()).collect();
        let wrong = devices.iter().flat_map(|device| {
            let who = format!("device {} of user {}", device.number, device.user);
            let own: Vec<String> = device.violations.iter().map(|violation| format!("{who}: {violation}")).collect();
            own.into_iter().chain(judge(&who, device.user, &device.received, senders, &names))
        });
        let (noticed, unnoticed): (Vec<_>, Vec<_>) = falsehoods(devices, senders, &names)
            .into_iter()
            .partition(|(what, user, received)| !judge(what, *user, received, senders, &names).is_empty());
        let made = senders.iter().zip(&names);
        let made: BTreeMap<String, Vec<Made>> =
            made.map(|(sender, name)| (name.to_string(), post::read_notes(world, sender.user))).collect();
        let had: Vec<Had> = devices.iter().map(|device| Had::of(device, world)).collect();
        let wrong_posts = post::judge(&had, &made);
        let (noticed_posts, unnoticed_posts): (Vec<_>, Vec<_>) =
            post::falsehoods(&had).into_iter().partition(|(_, had)| !post::judge(had, &made).is_empty());
        let unnoticed = unnoticed.into_iter().map(|(what, ..)| what);
        let unnoticed = unnoticed.chain(unnoticed_posts.into_iter().map(|(what, _)| what));
        let unnoticed = unnoticed.map(|what| format!("the judge does not notice what is {what}"));
        let received = || devices.iter().map(|device| device.received.len());
        Self {
            seed,
            took,
            tally: tally.clone(),
            accepted: notes().filter(|fate| fate.rejected.is_none()).count(),
            rejected,
            unknown: senders.iter().map(|sender| sender.unknown).sum(),
            tries: senders.iter().map(|sender| sender.tries).sum(),
            devices: (
                devices.len(),
                received().min().unwrap_or_default(),
                received().max().unwrap_or_default(),
                devices.iter().map(|device| device.attached).sum(),
            ),
            posts: (made.values().map(Vec::len).sum(), made.values().flatten().map(|post| post.homes.len()).sum()),
            violations: strange.chain(wrong).chain(wrong_posts).chain(unnoticed).collect(),
            noticed: noticed
                .into_iter()
                .map(|(what, ..)| what)
                .chain(noticed_posts.into_iter().map(|(what, _)| what))
                .collect(),
        }
    }

    /// What should have happened, for this time.
    fn goals(&self) -> [(&'static str, usize, usize); 4] {
        let of_a_minute = |count: usize| count * self.took.as_secs() as usize / 60;
        [
            ("kills", self.tally.kills, of_a_minute(30)),
            ("kills in mid-commit", self.tally.in_commit, of_a_minute(5)),
            ("accepted messages", self.accepted, of_a_minute(1_000)),
            ("posts", self.posts.0, of_a_minute(100)),
        ]
    }

    pub fn print(&self, json: bool) {
        let (devices, least, most, attached) = self.devices;
        let Tally { kills, with_unanswered, in_commit } = &self.tally;
        if json {
            let line = json!({
                "seed": self.seed, "seconds": self.took.as_secs_f64(), "kills": kills, "kills_in_mid_commit": in_commit,
                "kills_with_unanswered_sends": with_unanswered, "accepted": self.accepted, "rejected": self.rejected,
                "unknown_then_decided": self.unknown, "tries": self.tries, "devices": devices, "attached": attached,
                "messages_of_a_device": [least, most], "posts": self.posts.0, "homes_that_have_one": self.posts.1, "violations": self.violations, "falsehoods_noticed": self.noticed,
            });
            println!("{line}");
        } else {
            println!();
            println!("seed        {}, {:.1} s, {USERS} senders", self.seed, self.took.as_secs_f64());
            println!("kills       {kills}, {with_unanswered} while sends to that server's inboxes had no answer;");
            println!("            {in_commit} of those just after its disk thread was seen in a write or fsync");
            println!("accepted    {}", self.accepted);
            println!("rejected    {:?}", self.rejected);
            println!("posts       {}, of which homes said {} times that they have it", self.posts.0, self.posts.1);
            println!(
                "unknown     {} at first, all decided by sending the same bytes again; {} tries",
                self.unknown, self.tries
            );
            println!("devices     {devices}, with {least} to {most} messages each; attached {attached} times");
            println!("violations  {}", self.violations.len());
            println!("judge       noticed what was made {}", self.noticed.join(", "));
        }
        for violation in self.violations.iter().take(SHOWN_MAX) {
            eprintln!("violation: {violation}");
        }
        for (what, count, goal) in self.goals() {
            if count < goal {
                eprintln!("too little to prove anything: {count} {what}, where {goal} should have been");
            }
        }
    }

    pub fn exit_code(&self) -> ExitCode {
        if !self.violations.is_empty() {
            return ExitCode::FAILURE;
        }
        let is_enough = self.goals().iter().all(|(_, count, goal)| count >= goal);
        if is_enough { ExitCode::SUCCESS } else { ExitCode::from(3) }
    }
}

/// What the device with the most messages has, made wrong in each way that is looked for: the judge has to bite.
fn falsehoods(devices: &[Device], senders: &[Sender], names: &[&str]) -> Vec<(&'static str, usize, Vec<Received>)> {
    let has_some = devices.iter().filter(|device| !device.received.is_empty());
    let Some(device) = has_some.max_by_key(|device| device.received.len()) else { return Vec::new() };
    let falsified = |what, change: &dyn Fn(&mut Vec<Received>)| {
        let mut received = device.received.clone();
        change(&mut received);
        (what, device.user, received)
    };
    let middle = device.received.len() / 2;
    let mut all = vec![
        falsified("lost", &|received| drop(received.remove(middle))),
        falsified("repeated", &|received| received.push(received[middle].clone())),
        falsified("sent by nobody", &|received| received.push(("nobody".into(), received[middle].1.clone()))),
    ];
    let before = device.received[..middle].iter().rposition(|(sender, _)| *sender == device.received[middle].0);
    all.extend(before.map(|before| falsified("out of order", &|received| received.swap(before, middle))));
    let rejected = senders.iter().zip(names).find_map(|(sender, name)| {
        let fate = sender.notes().iter().find(|fate| fate.to == device.user && fate.rejected.is_some())?;
        Some((name.to_string(), fate.id.clone()))
    });
    all.extend(rejected.map(|rejected| falsified("kept though rejected", &|received| received.push(rejected.clone()))));
    all
}

/// Compares what a device of a user has with what was accepted for that user, sender by sender.
fn judge(who: &str, user: usize, has: &[Received], senders: &[Sender], names: &[&str]) -> Vec<String> {
    let mut violations = Vec::new();
    let mut received: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (sender, id) in has {
        received.entry(sender).or_default().push(id);
    }
    for (sender, &name) in senders.iter().zip(names) {
        let has = received.remove(name).unwrap_or_default();
        let fates = || sender.notes().iter().filter(|fate| fate.to == user);
        let accepted: Vec<&str> = fates().filter(|fate| fate.rejected.is_none()).map(|fate| &*fate.id).collect();
        if has == accepted {
            continue;
        }
        let rejected: BTreeSet<&str> = fates().filter(|fate| fate.rejected.is_some()).map(|fate| &*fate.id).collect();
        let mut seen = BTreeSet::new();
        for id in &has {
            if rejected.contains(id) {
                violations.push(format!("{who} has {id} of {name}, which was rejected"));
            } else if !seen.insert(*id) {
                violations.push(format!("{who} has {id} of {name} twice"));
            } else if !accepted.contains(id) {
                violations.push(format!("{who} has {id} of {name}, of which nothing is noted"));
            }
        }
        let lost = accepted.iter().filter(|id| !seen.contains(*id));
        violations.extend(lost.map(|id| format!("{who} lacks {id} of {name}, which was accepted")));
        if violations.is_empty() {
            violations.push(format!("{who} has the messages of {name} in another order"));
        }
    }
    let strangers = received.keys().map(|sender| format!("{who} has messages of `{sender}`, who sent none"));
    violations.extend(strangers);
    violations
}
