//! The dashboard and the alert rules of `monitoring/`, held to what a server exports, and to what promtool says.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use socp_server::metrics::families::{self, Kind};

use crate::harness::{mesh, metrics::Scrape};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("monitoring")
}

fn read(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn panels() -> Vec<Value> {
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).expect("the dashboard is JSON");
    let panels = dashboard["panels"].as_array().expect("it has panels").clone();
    panels.into_iter().filter(|panel| panel["type"] != "row").collect()
}

/// All expressions of the dashboard.
fn expressions() -> Vec<String> {
    let targets = panels().into_iter().flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    targets.map(|target| target["expr"].as_str().expect("a target has an expression").to_owned()).collect()
}

/// The metrics that a text names, as exported.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    let words = words.filter(|word| word.starts_with("socp_") || word.starts_with("process_"));
    let histogram = |word: &str| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix))?;
        families::ALL.iter().find(|family| family.name == base && family.kind == Kind::Histogram)
    };
    words.map(|word| histogram(word).map_or(word, |family| family.name).to_owned()).collect()
}

#[test]
fn dashboard_and_rules_name_metrics_that_are_exported_and_the_dashboard_shows_all_of_them() {
    let exported: BTreeSet<String> = families::ALL.iter().map(|family| family.name.to_owned()).collect();
    let shown = named(&expressions().join("\n"));
    assert_eq!(shown, exported, "the dashboard");
    for file in ["alerts.yml", "alerts_test.yml"] {
        let rules = named(&read(file));
        assert!(rules.len() > 10 && rules.is_subset(&exported), "{file}: {:?}", rules.difference(&exported));
    }
}

#[test]
fn every_alert_is_tested_to_fire() {
    let (rules, tests) = (read("alerts.yml"), read("alerts_test.yml"));
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in alerts {
        assert!(tests.contains(&format!("alertname=\"{alert}\"")), "{alert}");
    }
}

#[test]
fn the_panels_of_the_dashboard_have_places_of_their_own_and_say_what_they_show() {
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeMap::new());
    for panel in panels() {
        let title = panel["title"].as_str().expect("a panel has a title").to_owned();
        assert!(ids.insert(panel["id"].as_u64().expect("a panel has a number")), "{title}");
        let place = |key: &str| panel["gridPos"][key].as_u64().expect("a panel has a place");
        assert!(place("x") + place("w") <= 24, "{title}");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                let before = taken.insert((x, y), title.clone());
                assert_eq!(before, None, "{title}");
            }
        }
        assert!(panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()), "{title}");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}");
    }
}

/// Runs promtool on a text; `None`, with a warning, if there is none.
fn promtool(arguments: &[&str], input: &str) -> Option<Output> {
    let program = std::env::var_os("PROMTOOL").unwrap_or_else(|| "promtool".into());
    let mut command = Command::new(program);
    command.current_dir(folder()).args(arguments);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        eprintln!(
            "WARNING: there is no promtool (`PROMTOOL=$(monitoring/promtool)` gets it): {arguments:?} was NOT checked"
        );
        return None;
    };
    // It may end before it has read everything, and then says why.
    let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
    Some(child.wait_with_output().expect("promtool ends"))
}

#[track_caller]
fn agrees(output: Option<Output>) {
    if let Some(output) = output {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    }
}

#[test]
fn promtool_takes_the_rules_their_tests_and_the_configuration() {
    agrees(promtool(&["check", "rules", "--lint=all", "--lint-fatal", "alerts.yml"], ""));
    agrees(promtool(&["test", "rules", "alerts_test.yml"], ""));
    agrees(promtool(&["check", "config", "prometheus.yml"], ""));
}

#[test]
fn promtool_takes_every_expression_of_the_dashboard() {
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for (number, expression) in expressions().iter().enumerate() {
        let expression = expression.replace("$__rate_interval", "1m").replace("$instance", ".*");
        assert!(!expression.contains('$'), "{expression}");
        let expression = serde_json::to_string(&expression).expect("a text is JSON, which is YAML");
        rules.push_str(&format!("      - record: dashboard:number_{number}\n        expr: {expression}\n"));
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("dashboard.yml");
    fs::write(&file, rules).expect("the folder can be written to");
    agrees(promtool(&["check", "rules", &file.to_string_lossy()], ""));
}

#[test]
fn promtool_takes_what_a_server_exports() {
    let (_site, server) = mesh::alone();
    agrees(promtool(&["check", "metrics"], &Scrape::text(&server)));
}
