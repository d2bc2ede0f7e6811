//! The load tool against real servers, with tiny numbers: what it counts, never how fast.

use std::{
    fs,
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    client, keys,
    mesh::{Mesh, Site},
    metrics::Scrape,
    program::Program,
};

/// The command that runs a workload against these servers.
fn command(cache: &TempDir, mesh: &Mesh, servers: &[usize], workload: &str, arguments: &str) -> Command {
    let mut command = client::command(cache.path());
    command.env("XDG_CACHE_HOME", cache.path()).args(["--json", "bench", workload]);
    for &server in servers {
        let (at, id) = (mesh[server].client.to_string(), mesh[server].id.to_string());
        command.args(["--server", &at, "--server-id", &id, "--server-pid", &mesh[server].program.id().to_string()]);
    }
    command.args(arguments.split_whitespace());
    command
}

/// Runs a workload that must succeed against these servers; gives what it prints.
#[track_caller]
fn bench(mesh: &Mesh, servers: &[usize], workload: &str, arguments: &str) -> Value {
    let cache = cache();
    let mut command = command(&cache, mesh, servers, workload, arguments);
    let output = command.stdin(Stdio::null()).output().expect("socp runs");
    assert!(output.status.success(), "{workload}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("it prints one object")
}

/// A cache folder with a key in it that was made before.
fn cache() -> TempDir {
    let cache = tempfile::tempdir().expect("a temporary folder can be made");
    let folder = cache.path().join("socp/bench");
    fs::create_dir_all(&folder).expect("the folder can be written to");
    fs::copy(keys::file("bench"), folder.join("key.pem")).expect("the folder can be written to");
    cache
}

/// Two servers that are linked.
fn two() -> Mesh {
    let mesh = Mesh::started(&[0, 1]);
    mesh.expect_link(0, 1);
    mesh.expect_link(1, 0);
    mesh
}

#[track_caller]
fn assert_whole(result: &Value, name: &str, count: u64) {
    let told = (&result["name"], &result["count"], &result["missed"], &result["repeated"]);
    assert_eq!(told, (&name.into(), &count.into(), &0.into(), &0.into()), "{result}");
}

#[test]
fn bench_watch_counts_each_change_for_each_watcher_and_so_do_its_stand_ins() {
    let mesh = two();
    let plot = tempfile::tempdir().expect("a temporary folder can be made");
    let plot = plot.path().join("watch.svg");
    let arguments =
        format!("--watchers 5 --users 3 --rate 50 --seconds 1 --with floor,plain --plot {}", plot.display());
    let report = bench(&mesh, &[0, 1], "watch", &arguments);
    for (place, name) in ["watch", "floor", "plain"].into_iter().enumerate() {
        assert_whole(&report["results"][place], name, 50 * 5);
    }
    assert!(report["results"][0]["server_cores"].is_f64(), "{report}");
    assert_eq!((&report["ratios"][0]["to"], &report["ratios"][1]["to"]), (&"floor".into(), &"plain".into()));
    assert!(fs::read_to_string(plot).expect("it is written").starts_with("<svg "));
}

#[test]
fn bench_watch_counts_a_burst_at_one_server_and_again_in_a_second_run() {
    let mesh = Mesh::started(&[0]);
    for threads in ["1", "2"] {
        let arguments = format!("--burst --watchers 7 --users 4 --keys --per-connection 3 --threads {threads}");
        let report = bench(&mesh, &[0], "watch", &arguments);
        assert_whole(&report["results"][0], "watch", 2 * 4 * 7);
        assert!(report["results"][0]["all_told_after_last_ms"].is_f64(), "{report}");
    }
}

#[test]
fn bench_watch_counts_the_same_over_http3() {
    let mesh = two();
    let arguments = "--http3 --watchers 5 --users 3 --rate 50 --seconds 1 --threads 2";
    assert_whole(&bench(&mesh, &[0, 1], "watch", arguments)["results"][0], "watch", 50 * 5);
}

#[test]
fn bench_watch_counts_by_turns_without_and_beside_hostile_watchers() {
    let mesh = two();
    let arguments =
        "--watchers 4 --users 3 --rate 30 --seconds 1 --hostile stopped=3,frozen=2,slow=2,looping=2 --with floor";
    let report = bench(&mesh, &[0, 1], "watch", arguments);
    for (place, name) in ["beside hostile", "watch", "floor"].into_iter().enumerate() {
        assert_whole(&report["results"][place], name, 30 * 4);
    }
    let beside = &report["results"][0];
    assert!(beside["hostile_watches_begun"].as_u64() >= Some(3 * 9), "{report}");
    for memory in ["resident_before_kib", "resident_most_kib", "resident_after_kib"] {
        assert!(beside[memory].as_u64() > Some(0), "{report}");
    }
    assert_eq!(report["ratios"][0]["to"], "watch", "{report}");
}

#[test]
fn bench_watch_counts_by_turns_without_and_beside_a_file() {
    let mesh = two();
    let report = bench(&mesh, &[0, 1], "watch", "--watchers 4 --users 3 --rate 30 --seconds 3 --beside-file 2");
    assert_whole(&report["results"][0], "beside a file", 3 * 30 * 4);
    assert_whole(&report["results"][1], "watch", 3 * 30 * 4);
    let beside = &report["results"][0];
    assert!(beside["mib_sent"].as_u64() >= Some(2) && beside["mib_received"].as_u64() >= Some(2), "{report}");
    assert_eq!(report["ratios"][0]["to"], "watch", "{report}");
}

#[test]
fn bench_says_what_the_servers_must_allow() {
    let site = Site::new("server-a");
    site.configure("registration = \"closed\"");
    let server = site.start();
    let cache = cache();
    let (at, id) = (server.client.to_string(), server.id.to_string());
    let mut command = client::command(cache.path());
    command.env("XDG_CACHE_HOME", cache.path()).args(["bench", "watch", "--server", &at, "--server-id", &id]);
    let output = command.output().expect("socp runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("(REGISTRATION_CLOSED)") && said.contains("`registration = \"open\"`"), "{said}");
}

#[test]
fn bench_tell_counts_each_message_at_its_recipient() {
    let mesh = two();
    for pace in ["", "--rate 100"] {
        let report = bench(&mesh, &[0, 1], "tell", &format!("--pairs 3 --messages 20 --in-flight 2 {pace}"));
        assert_whole(&report["results"][0], "accepted", 20);
        assert_whole(&report["results"][1], "received", 20);
        let told = (&report["results"][0]["refused"], &report["results"][0]["queued"]);
        assert_eq!(told, (&0.into(), &0.into()), "{report}");
    }
}

#[test]
fn bench_file_moves_a_file_beside_messages_and_compares_it_with_a_plain_copy() {
    let mesh = two();
    let report = bench(&mesh, &[0, 1], "file", "--mib 3 --rate 50 --seconds 1");
    assert_whole(&report["results"][0], "file", 3);
    assert_whole(&report["results"][1], "plain copy", 3);
    for name in ["messages_received_alone_p99_ms", "messages_received_beside_p99_ms"] {
        assert!(report["results"][0][name].as_f64() > Some(0.0), "{report}");
    }
    assert!(report["ratios"][0]["per_second"].as_f64() > Some(0.0), "{report}");
}

#[test]
fn bench_all_counts_each_post_at_each_member() {
    let mesh = two();
    let report = bench(&mesh, &[0, 1], "all", "--members 3 --posts 5 --rate 100");
    assert_whole(&report["results"][0], "answered", 5);
    assert_whole(&report["results"][1], "received", 5 * 3);
    assert_eq!(report["results"][0]["recipients"], 5 * 3, "{report}");
}

#[test]
fn bench_login_brings_everybody_online() {
    let mesh = Mesh::started(&[0]);
    for logins in [4, 4, 6] {
        let report = bench(&mesh, &[0], "login", &format!("--logins {logins} --at-once 3"));
        assert_whole(&report["results"][0], "login", logins);
    }
}

#[test]
fn bench_idle_tells_what_each_connection_costs_by_the_systems_word_or_the_servers_own() {
    let mesh = Mesh::started(&[0]);
    let metrics = format!("--http3 --server-metrics {}", mesh[0].metrics);
    for (more, word) in [("", "memory by the system"), (&*metrics, "memory by the server's own metrics")] {
        let report = bench(&mesh, &[0], "idle", &format!("--watchers 6 --sessions 2 --seconds 1 {more}"));
        assert!(report["title"].as_str().is_some_and(|title| title.ends_with(word)), "{report}");
        assert_whole(&report["results"][0], "watchers", 6);
        assert_whole(&report["results"][1], "sessions", 2);
        for result in [&report["results"][0], &report["results"][1]] {
            assert!(result["kib_each"].is_f64() && result["resident_after_kib"].as_u64() > Some(0), "{result}");
        }
    }
}

#[test]
fn bench_storm_brings_every_watcher_back_in_step_with_and_without_a_token() {
    let mesh = two();
    let report = bench(&mesh, &[0, 1], "storm", "--watchers 5 --users 4 --changes 3");
    assert_whole(&report["results"][0], "without", 5);
    assert_whole(&report["results"][1], "with a token", 5);
}

#[test]
fn bench_spreads_watchers_over_processes_and_adds_up_what_each_counted() {
    let mesh = two();
    let arguments = "--watchers 5 --users 3 --rate 50 --seconds 1 --processes 2 --with floor,plain";
    let report = bench(&mesh, &[0, 1], "watch", arguments);
    for (place, name) in ["watch", "floor", "plain"].into_iter().enumerate() {
        assert_whole(&report["results"][place], name, 50 * 5);
    }
    let arguments = "--burst --watchers 5 --users 3 --processes 3 --watchers-at 1,2 --with floor";
    let report = bench(&mesh, &[0, 1], "watch", arguments);
    assert_whole(&report["results"][0], "watch", 2 * 3 * 5);
    assert_whole(&report["results"][1], "floor", 2 * 3 * 5);
    let arguments = "--http3 --watchers 4 --users 3 --rate 50 --seconds 1 --processes 2";
    assert_whole(&bench(&mesh, &[0, 1], "watch", arguments)["results"][0], "watch", 50 * 4);
    let report = bench(&mesh, &[0, 1], "storm", "--watchers 5 --users 4 --changes 3 --processes 2");
    assert_whole(&report["results"][0], "without", 5);
    assert_whole(&report["results"][1], "with a token", 5);
    let report = bench(&mesh, &[0], "idle", "--watchers 5 --sessions 1 --seconds 1 --processes 2");
    assert_whole(&report["results"][0], "watchers", 5);
}

/// Starts a long run by two processes; gives it with their ids, once all watch.
fn spread(mesh: &Mesh, cache: &TempDir) -> (Program, Vec<i32>) {
    let arguments = "--watchers 4 --users 2 --rate 20 --seconds 3600 --processes 2";
    let program = Program::start("`socp bench`", &mut command(cache, mesh, &[0], "watch", arguments));
    let told = program.expect_log(&["watching by 2 processes: "]);
    let ids = told.rsplit(": ").next().expect("it was split").split(' ');
    let ids = ids.map(|id| id.parse().expect("a process has a number")).collect();
    Scrape::until(&mesh[0], "watchers", |scrape| scrape.number("socp_watchers", &[]) == 4.0);
    (program, ids)
}

#[test]
fn bench_fails_and_says_why_when_one_of_its_processes_ends() {
    let (mesh, cache) = (Mesh::started(&[0]), cache());
    let (mut program, ids) = spread(&mesh, &cache);
    assert_eq!(ids.len(), 2);
    kill_process(Pid::from_raw(ids[1]).expect("no process has number 0"), Signal::KILL).expect("it runs");
    assert_eq!(program.wait().code(), Some(2), "{}", program.log());
    let said = format!("load process {} ended before its time", ids[1]);
    assert!(program.log().contains(&said), "{}", program.log());
    Scrape::until(&mesh[0], "nobody watches", |scrape| scrape.number("socp_watchers", &[]) == 0.0);
}

#[test]
fn bench_leaves_no_watcher_behind_when_it_is_killed() {
    let (mesh, cache) = (Mesh::started(&[0]), cache());
    let (mut program, _) = spread(&mesh, &cache);
    program.kill();
    Scrape::until(&mesh[0], "nobody watches", |scrape| scrape.number("socp_watchers", &[]) == 0.0);
}
