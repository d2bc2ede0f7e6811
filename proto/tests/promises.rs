//! PROMISES.md is kept honest: every test it names exists, and every promise is there, kept or marked as not kept yet.

use std::{collections::BTreeSet, fs, path::Path};

/// One row of a table: id, sentence, tests.
pub struct Row {
    pub id: String,
    pub tests: String,
}

pub fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("PROMISES.md")).expect("PROMISES.md is there")
}

pub fn rows(page: &str) -> Vec<Row> {
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let is_id = |cell: &str| {
        let (kind, number) = cell.split_at_checked(1).unwrap_or_default();
        "DMT".contains(kind) && !kind.is_empty() && number.parse::<u32>().is_ok()
    };
    let rows = page.lines().filter(|line| line.starts_with('|')).map(cells);
    rows.filter(|cells| cells.len() == 3 && is_id(&cells[0]))
        .map(|cells| Row { id: cells[0].clone(), tests: cells[2].clone() })
        .collect()
}

/// The tests that a cell names: `path/to/file.rs::name`, in backticks.
pub fn named(cell: &str) -> Vec<(String, String)> {
    let quoted = cell.split('`').skip(1).step_by(2);
    quoted.filter_map(|text| text.split_once("::")).map(|(file, name)| (file.to_owned(), name.to_owned())).collect()
}

/// The table of mutations: promises, each with the mutations of the core that its tests catch.
pub fn mutations(page: &str) -> Vec<(String, Vec<String>)> {
    let table = page.split_once("| promise | mutations that its tests catch |").map_or("", |(_, rest)| rest);
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = rows.filter_map(|line| line.trim_matches('|').split_once('|'));
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    cells.map(|(id, cell)| (id.trim().to_owned(), quoted(cell))).collect()
}

/// Whether a source defines a function of this name with a test attribute above it.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let defines = |line: &&str| {
        let after = line.trim_start_matches("async ").strip_prefix("fn ").and_then(|rest| rest.strip_prefix(name));
        after.is_some_and(|rest| rest.starts_with('('))
    };
    lines.iter().position(defines).is_some_and(|place| {
        lines[..place]
            .iter()
            .rev()
            .take_while(|line| line.starts_with('#') || line.starts_with("//"))
            .any(|line| line.starts_with("#[test") || line.starts_with("#[tokio::test"))
    })
}

#[test]
fn every_test_that_a_promise_names_exists() {
    let page = page();
    let mut missing = Vec::new();
    let mut count = 0;
    for row in rows(&page) {
        for (file, name) in named(&row.tests) {
            count += 1;
            let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&file)).unwrap_or_default();
            if !has_test(&source, &name) {
                missing.push(format!("{}: {file}::{name}", row.id));
            }
        }
    }
    assert!(count > 0, "the page names tests");
    assert!(missing.is_empty(), "no such tests:\n{}", missing.join("\n"));
}

#[test]
fn every_promise_is_listed_once_and_is_held_by_a_test_or_marked_as_not_kept_yet() {
    let page = page();
    let rows = rows(&page);
    let expected = (1..=16).map(|number| format!("D{number}")).chain((1..=8).map(|number| format!("M{number}")));
    let expected: BTreeSet<String> = expected.chain((1..=7).map(|number| format!("T{number}"))).collect();
    let listed: BTreeSet<String> = rows.iter().map(|row| row.id.clone()).collect();
    assert_eq!(listed, expected);
    assert_eq!(rows.len(), expected.len(), "each once");
    for row in rows {
        let is_open = row.tests.starts_with("**not yet**");
        assert!(is_open || !named(&row.tests).is_empty(), "{} is neither held nor open", row.id);
    }
}

#[test]
fn every_promise_of_the_directory_names_mutations_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = fs::read_to_string(root.join("proto/src/mutation.rs")).expect("the mutations are there");
    let existing: BTreeSet<&str> = source.lines().filter_map(|line| line.trim().strip_suffix(',')).collect();
    let mut named = BTreeSet::new();
    for (id, mutations) in mutations(&page()) {
        assert!(!mutations.is_empty(), "{id} names no mutation");
        for mutation in mutations {
            assert!(existing.contains(&*mutation), "{id} names `{mutation}`, which does not exist");
        }
        assert!(named.insert(id.clone()), "{id} stands there twice");
    }
    let wanted = (1..=11).map(|number| format!("D{number}")).chain([1, 2, 3, 4, 7].map(|number| format!("T{number}")));
    assert_eq!(named, wanted.collect());
}

#[test]
fn a_name_without_a_test_attribute_is_no_test() {
    let source =
        "#[test]\nfn yes() {}\n\nfn no() {}\n// fn comment()\n#[tokio::test(flavor = \"x\")]\nasync fn too() {}";
    assert!(has_test(source, "yes") && has_test(source, "too"));
    assert!(!has_test(source, "no") && !has_test(source, "comment") && !has_test(source, "ye"));
}
