//! Tests of the tests: each deliberate mutation of the core is caught by the tests and checkers that should catch it.
//!
//! A mutation is a fault that one environment variable switches on ([`socp::mutation`]). The simulation's tests are part of
//! this program, which runs itself with a mutation and the name of one test, and looks whether that test fails. What catches
//! what stands in PROMISES.md, and below for all that no promise names.

#[path = "sim/admission.rs"]
mod admission;
#[path = "sim/between.rs"]
mod between;
#[path = "sim/byzantine.rs"]
mod byzantine;
#[path = "sim/calm.rs"]
mod calm;
#[path = "sim/channel.rs"]
mod channel;
#[path = "sim/channel_disk.rs"]
mod channel_disk;
#[path = "sim/checks/mod.rs"]
mod checks;
#[path = "sim/contradiction.rs"]
mod contradiction;
#[path = "sim/directory.rs"]
mod directory;
#[path = "sim/disk.rs"]
mod disk;
#[path = "sim/faults.rs"]
mod faults;
#[path = "sim/floods.rs"]
mod floods;
#[path = "sim/greeting.rs"]
mod greeting;
#[path = "sim/hold.rs"]
mod hold;
#[path = "sim/inbox.rs"]
mod inbox;
#[path = "sim/introducer.rs"]
mod introducer;
#[path = "sim/issuer.rs"]
mod issuer;
#[path = "sim/keys.rs"]
mod keys;
#[path = "sim/lies.rs"]
mod lies;
#[path = "sim/links.rs"]
mod links;
#[path = "sim/mail.rs"]
mod mail;
#[path = "merge.rs"]
mod merge;
#[path = "sim/message.rs"]
mod message;
#[path = "sim/moves.rs"]
mod moves;
#[path = "sim/network.rs"]
mod network;
#[path = "sim/onward.rs"]
mod onward;
#[path = "sim/operator.rs"]
mod operator;
#[path = "sim/outbox.rs"]
mod outbox;
#[path = "sim/page.rs"]
mod page;
#[path = "promises.rs"]
mod promises;
#[path = "sim/restarts.rs"]
mod restarts;
#[path = "sim/rogue.rs"]
mod rogue;
#[path = "sim/rotation.rs"]
mod rotation;
#[path = "sim/seeds.rs"]
mod seeds;
#[path = "sim/server.rs"]
mod server;
#[path = "sim/session.rs"]
mod session;
#[path = "sim/signed_again.rs"]
mod signed_again;
#[path = "sim/tally.rs"]
mod tally;
#[path = "sim/trust.rs"]
mod trust;
#[path = "sim/users.rs"]
mod users;
#[path = "sim/watch.rs"]
mod watch;
#[path = "sim/wires.rs"]
mod wires;
#[path = "sim/world.rs"]
mod world;
#[path = "sim/writes.rs"]
mod writes;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use socp::mutation::Mutation;

/// Seeds that are tried for a mutation before it counts as survived.
const SEEDS: u64 = 100;

/// The one test of the outbox that tells the whole story.
const QUEUED: &str = "outbox::what_is_queued_outlives_a_crash_and_is_brought_in_order_and_its_sender_is_told_once";

/// Tests beyond those that PROMISES.md names, and what they catch.
const ALSO: &[(Mutation, &str)] = &[
    (Mutation::HeldNotShown, "merge::the_latest_word_on_a_user_is_the_one_that_is_shown"),
    (Mutation::HeldWithoutLimit, "merge::a_batch_known_is_a_duplicate_and_one_beyond_the_held_is_refused"),
    (Mutation::SnapshotGoesBack, "merge::a_snapshot_of_an_earlier_position_changes_nothing"),
    (
        Mutation::ContradictionIgnored,
        "contradiction::two_batches_of_one_number_end_the_epoch_and_the_proof_is_passed_on",
    ),
    (Mutation::HoldIgnored, "hold::a_planned_restart_shows_no_flicker_of_those_who_come_back"),
    (Mutation::GoodbyeIgnored, "directory::a_goodbye_removes_the_users_of_a_server_at_once"),
    (Mutation::GoodbyeNotPassedOn, "operator::a_user_whose_home_said_goodbye_is_explained_so"),
    (Mutation::GraceNotGiven, "directory::a_blip_shorter_than_the_grace_leaves_no_trace"),
    (Mutation::NeverSignedAgain, "signed_again::whoever_joins_gets_few_batches_and_watchers_see_none_of_them"),
    (Mutation::ToldBeforeWritten, "inbox::a_message_is_accepted_only_once_it_is_on_disk_and_then_outlives_a_crash"),
    (Mutation::PostToldBeforeWritten, "channel::a_post_is_taken_only_once_it_is_on_disk_and_then_outlives_a_crash"),
    (Mutation::PostsNotReplayed, "channel::a_stream_that_comes_back_gets_the_posts_it_missed_once_and_no_others"),
    (Mutation::OrderNotKept, "inbox::the_messages_of_a_session_are_kept_in_the_order_in_which_they_were_sent"),
    (Mutation::LiveAfterOnePage, "inbox::every_device_and_a_new_one_read_the_same_without_gap_or_repeat"),
    (Mutation::ReadAheadOfTheWord, "inbox::every_device_and_a_new_one_read_the_same_without_gap_or_repeat"),
    (Mutation::CursorNotChecked, "inbox::a_cursor_of_another_inbox_is_refused_and_the_device_reads_anew"),
    (Mutation::InboxWithoutLimit, "inbox::a_full_inbox_refuses_more_and_one_sender_fills_an_eighth"),
    (Mutation::UnreadDropped, "inbox::a_full_inbox_refuses_more_and_one_sender_fills_an_eighth"),
    (Mutation::OvertakingTaken, "outbox::a_message_does_not_overtake_one_that_is_queued_or_was_lost"),
    (Mutation::QueuedBeforeWritten, QUEUED),
    (Mutation::QueuedNotSent, QUEUED),
    (Mutation::OutcomeNotKept, QUEUED),
    (Mutation::OutboxWithoutLimit, "outbox::one_user_queues_so_many_and_outcomes_that_nobody_read_count"),
    (Mutation::RefusalForgotten, "outbox::a_slow_copy_of_what_was_refused_is_refused_too"),
    (Mutation::RepeatHandedOver, "message::a_retry_never_delivers_twice_and_is_answered_as_the_first_was"),
];

/// Checkers, each with mutations that it is the first to notice in one of the seeds.
const CHECKERS: &[(&str, Mutation)] = &[
    ("byzantine", Mutation::SignatureNotChecked),
    ("deliveries", Mutation::ToldBeforeWritten),
    ("deliveries", Mutation::OutcomeNotKept),
    ("ghosts", Mutation::UnreachableStayShown),
    ("liars", Mutation::ContradictionIgnored),
    ("missing", Mutation::ReturnNotShown),
    ("moves", Mutation::MovedStays),
    ("once", Mutation::PositionNotChecked),
    ("posts", Mutation::PostToldBeforeWritten),
    ("posts", Mutation::PostsNotReplayed),
    ("queues", Mutation::HeldWithoutLimit),
    ("queues", Mutation::EarlyWithoutLimit),
    ("queues", Mutation::StatementsWithoutLimit),
    ("queues", Mutation::NoncesWithoutLimit),
    ("queues", Mutation::SessionsWithoutLimit),
    ("queues", Mutation::AdmissionsWithoutLimit),
    ("queues", Mutation::IgnoredWithoutLimit),
    ("queues", Mutation::RefusedWithoutLimit),
    ("resume", Mutation::RemovalNamesAnother),
    ("views", Mutation::DigestKeepsRemoved),
    ("watches", Mutation::RevisionSkipped),
];

/// Where a test with a mutation failed.
#[derive(Debug)]
struct Failure {
    /// As `file.rs:line`.
    place: String,
    seed: Option<u64>,
}

/// Where a test with a mutation failed, in seeds from this one on; `None` if it passed.
fn failure(mutation: Mutation, test: &str, from: u64) -> Option<Failure> {
    let program = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(program);
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.env("SOCP_MUTATION", format!("{mutation:?}")).env("SOCP_SIM_SEEDS", format!("{from}..{SEEDS}"));
    // The properties of merging draw the same cases each time, and leave no file behind.
    command.env("PROPTEST_RNG_SEED", "1").env("PROPTEST_MAX_SHRINK_ITERS", "0");
    command.env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true");
    let output = command.output().expect("this program can be run");
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("running 1 test"), "there is no test `{test}`");
    if output.status.success() {
        return None;
    }
    let place =
        told.split("panicked at ").nth(1).and_then(|rest| rest.split_once(":\n")).map_or("", |(place, _)| place);
    let place = place.rsplit_once(':').map_or(place, |(place, _)| place);
    let seed = told.split("violation in seed ").nth(1).and_then(|rest| rest.lines().next());
    Some(Failure { place: place.to_owned(), seed: seed.and_then(|seed| seed.trim().parse().ok()) })
}

/// The name that a test of PROMISES.md has in this program; `None` if it is not in it.
fn name_here(file: &str, name: &str) -> Option<String> {
    let module =
        file.strip_prefix("proto/tests/sim/").or_else(|| (file == "proto/tests/merge.rs").then_some("merge.rs"))?;
    Some(format!("{}::{name}", module.strip_suffix(".rs")?))
}

fn parse(name: &str) -> Mutation {
    let found = Mutation::ALL.iter().find(|mutation| format!("{mutation:?}") == name);
    *found.unwrap_or_else(|| panic!("there is no mutation `{name}`"))
}

/// What was caught, by which test, and where.
#[derive(Default)]
struct Table {
    rows: Vec<String>,
    caught: BTreeSet<Mutation>,
    survived: Vec<String>,
}

impl Table {
    /// Tries these tests until one fails at such a place, and notes it. What fails elsewhere in one seed is tried in the next.
    fn hunt(&mut self, mutation: Mutation, reason: &str, tests: &[String], place: &str) {
        let mut seen = Vec::new();
        for test in tests {
            let mut from = 0;
            while let Some(found) = failure(mutation, test, from) {
                if found.place.contains(place) {
                    self.rows.push(format!("{:<24} {reason:<10} {test} ({found:?})", format!("{mutation:?}")));
                    self.caught.insert(mutation);
                    return;
                }
                let next = found.seed.map(|seed| seed + 1).filter(|next| *next < SEEDS);
                seen.push((test, found));
                match next {
                    Some(next) => from = next,
                    None => break,
                }
            }
        }
        self.survived.push(format!("{mutation:?}, for {reason}: {seen:?}"));
    }
}

#[test]
fn every_mutation_is_caught() {
    let mut table = Table::default();
    let page = promises::page();
    let rows = promises::rows(&page).into_iter();
    let held: BTreeMap<_, _> = rows.map(|row| (row.id, promises::named(&row.tests))).collect();
    for (id, mutations) in promises::mutations(&page) {
        let tests: Vec<_> = held[&id].iter().filter_map(|(file, name)| name_here(file, name)).collect();
        mutations.iter().for_each(|name| table.hunt(parse(name), &id, &tests, ""));
    }
    for (mutation, test) in ALSO {
        table.hunt(*mutation, "also", &[(*test).to_owned()], "");
    }
    for (checker, mutation) in CHECKERS {
        let seeds = "seeds::every_view_is_right_once_the_network_is_quiet".to_owned();
        table.hunt(*mutation, checker, &[seeds], &format!("sim/checks/{checker}.rs"));
    }
    println!("{}", table.rows.join("\n"));
    assert!(table.survived.is_empty(), "these survived:\n{}", table.survived.join("\n"));
    let idle: Vec<_> = Mutation::ALL.iter().filter(|mutation| !table.caught.contains(mutation)).collect();
    assert!(idle.is_empty(), "nothing was tried on these: {idle:?}");
}

#[test]
fn every_checker_has_a_mutation_that_it_notices() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/tests/sim/checks");
    let files = fs::read_dir(folder).expect("the checkers are there");
    let names = files.map(|file| file.expect("it can be read").file_name().into_string().expect("a name of ours"));
    let names: BTreeSet<String> = names.filter_map(|name| name.strip_suffix(".rs").map(str::to_owned)).collect();
    let listed = CHECKERS.iter().map(|(checker, _)| (*checker).to_owned()).chain(["mod".to_owned()]);
    assert_eq!(names, listed.collect());
}
