//! docs/PROTOCOL.md is kept complete: whatever the contracts define is named there, and what its tables say of reasons
//! and labels is so. Whether its sentences are true is not looked at here; the sample clients made from it show that.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use socp::{
    rejection::{self, Code},
    signed::Label,
    v1::Reason,
};

/// The contracts that the page covers. `socp.operator.v1` is not among them: it is for the operator's own tool, on a
/// socket in the data folder that no client can reach.
const CONTRACTS: [&str; 2] = ["proto/socp/v1", "proto/socp/federation/v1"];

/// Every value of [`Label`].
const LABELS: [Label; 14] = [
    Label::KeyStatement,
    Label::Login,
    Label::Move,
    Label::Message,
    Label::Post,
    Label::Certificate,
    Label::Outcome,
    Label::Batch,
    Label::Goodbye,
    Label::Neighbours,
    Label::Admission,
    Label::Submission,
    Label::UserReply,
    Label::FileFetch,
];

fn root(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn page() -> String {
    fs::read_to_string(root("docs/PROTOCOL.md")).expect("docs/PROTOCOL.md is there")
}

/// All contracts as one text.
fn contracts() -> String {
    let folders = CONTRACTS.into_iter().map(|folder| fs::read_dir(root(folder)).expect("the folder is there"));
    let files = folders.flatten().map(|file| file.expect("the folder can be read").path());
    let contracts = files.filter(|path| path.extension().is_some_and(|extension| extension == "proto"));
    contracts.map(|path| fs::read_to_string(path).expect("the contract can be read") + "\n").collect()
}

/// What the contracts define, by kind: services, rpcs, messages, enums and their values. Our contracts have one
/// definition a line, which `a_contract_is_read_to_the_last_name` holds them to.
fn defined(contracts: &str) -> BTreeMap<&'static str, BTreeSet<String>> {
    let mut found: BTreeMap<&'static str, BTreeSet<String>> = BTreeMap::new();
    let mut in_enum = false;
    for line in contracts.lines().map(|line| line.split("//").next().unwrap_or_default().trim()) {
        let mut words = line.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
        let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let kind = ["service", "rpc", "message", "enum"].into_iter().find(|kind| *kind == first);
        match kind {
            Some(kind) if !second.is_empty() => {
                in_enum = kind == "enum";
                found.entry(kind).or_default().insert(second.to_owned());
            }
            _ if in_enum && line.contains('=') => {
                found.entry("value").or_default().insert(first.to_owned());
            }
            _ => in_enum &= !line.starts_with('}'),
        }
    }
    found
}

/// The words in backticks, outside of code blocks: of `LogInRequest.statement` both, and the whole.
fn quoted(page: &str) -> BTreeSet<String> {
    let mut in_code = false;
    let mut words = BTreeSet::new();
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            for quoted in line.split('`').skip(1).step_by(2) {
                words.insert(quoted.to_owned());
                words.extend(quoted.split('.').map(str::to_owned));
            }
        }
    }
    words
}

/// The rows of the table whose first column has this head, as cells; none if there is no such table.
fn table(page: &str, head: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let start = format!("| {head} |");
    let rows = page.lines().skip_while(|line| !line.starts_with(&start)).skip(2);
    rows.take_while(|line| line.starts_with('|')).map(cells).collect()
}

fn unquote(cell: &str) -> &str {
    cell.trim_matches('`')
}

/// A code by the name that gRPC's specification gives it.
fn name_of(code: Code) -> &'static str {
    match code {
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The text of a label, without its closing zero byte.
fn text_of(label: Label) -> &'static str {
    let text = std::str::from_utf8(label.as_bytes()).expect("a label is text");
    text.strip_suffix('\0').expect("a label ends with a zero byte")
}

#[test]
fn everything_that_the_contracts_define_is_named_on_the_page() {
    let quoted = quoted(&page());
    let mut missing = Vec::new();
    for (kind, names) in defined(&contracts()) {
        // A reason stands in the table without its prefix, as in `google.rpc.ErrorInfo`.
        let is_there = |name: &String| quoted.contains(name.strip_prefix("REASON_").unwrap_or(name));
        missing.extend(names.into_iter().filter(|name| !is_there(name)).map(|name| format!("{kind} {name}")));
    }
    assert!(missing.is_empty(), "not in backticks in docs/PROTOCOL.md:\n{}", missing.join("\n"));
}

#[test]
fn every_reason_has_one_row_with_its_code_and_every_row_a_reason() {
    let rows = table(&page(), "reason");
    let listed: Vec<_> = rows.iter().map(|row| (unquote(&row[0]).to_owned(), unquote(&row[1]).to_owned())).collect();
    let reasons = (0..).map_while(|number| Reason::try_from(number).ok());
    let expected: Vec<_> = reasons
        .map(|reason| (rejection::name(reason).to_owned(), name_of(rejection::code(reason)).to_owned()))
        .collect();
    assert_eq!(
        expected.len(),
        defined(&contracts())["value"].iter().filter(|name| name.starts_with("REASON_")).count()
    );
    assert_eq!(listed, expected, "in the order of the contract");
}

#[test]
fn the_code_that_the_contract_gives_a_reason_is_the_one_that_is_sent() {
    let contract = fs::read_to_string(root("proto/socp/v1/rejection.proto")).expect("the contract is there");
    let mut comment = String::new();
    let mut count = 0;
    for line in contract.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("// ") {
            comment = if comment.is_empty() { text.to_owned() } else { comment };
            continue;
        }
        if let Some((name, _)) = line.strip_prefix("REASON_").and_then(|rest| rest.split_once(" = ")) {
            let reason = rejection::parse(name).expect("generated from this contract");
            let code = if reason == Reason::Unspecified { "Never sent." } else { name_of(rejection::code(reason)) };
            assert!(comment.starts_with(code), "{name} is sent as {code}, and the contract says: {comment}");
            count += 1;
        }
        comment.clear();
    }
    assert_eq!(count, table(&page(), "reason").len());
}

#[test]
fn every_label_is_in_the_table_of_labels_and_nothing_else_is() {
    let rows = table(&page(), "label (a zero byte follows)");
    let listed: Vec<_> = rows.iter().map(|row| unquote(&row[0])).collect();
    assert_eq!(listed, LABELS.map(text_of));
    // A label that is new would not compile here.
    for label in LABELS {
        match label {
            Label::KeyStatement
            | Label::Login
            | Label::Move
            | Label::Message
            | Label::Post
            | Label::Certificate
            | Label::Outcome
            | Label::Batch
            | Label::Goodbye
            | Label::Neighbours
            | Label::Admission
            | Label::Submission
            | Label::UserReply
            | Label::FileFetch => {}
        }
    }
}

#[test]
fn every_file_and_section_that_the_page_links_to_exists() {
    let page = page();
    let anchor = |title: &str| {
        let kept = |letter: &char| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_');
        title
            .trim()
            .to_lowercase()
            .chars()
            .filter(kept)
            .map(|letter| if letter == ' ' { '-' } else { letter })
            .collect()
    };
    let titles = page.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#'));
    let anchors: BTreeSet<String> = titles.map(anchor).collect();
    let links: Vec<&str> = page.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(!links.is_empty());
    for link in links {
        let exists = match link.strip_prefix('#') {
            Some(section) => anchors.contains(section),
            None => root("docs").join(link).exists(),
        };
        assert!(exists, "docs/PROTOCOL.md links to `{link}`, which is not there");
    }
}

#[test]
fn a_contract_is_read_to_the_last_name() {
    let found = defined(&contracts());
    let word = |kind: &str| contracts().lines().filter(|line| line.trim_start().starts_with(kind)).count();
    for kind in ["service", "rpc", "message", "enum"] {
        assert_eq!(found[kind].len(), word(&format!("{kind} ")), "each {kind} once");
    }
    let in_comment = "// message No {\nenum Kind {\n  // A_COMMENT = 7;\n  KIND_A = 0; // B = 1\n}\nmessage M {\n  Kind kind = 1;\n}";
    let found = defined(in_comment);
    assert_eq!(found["value"], BTreeSet::from(["KIND_A".to_owned()]));
    assert_eq!(found["message"], BTreeSet::from(["M".to_owned()]));
}

#[test]
fn a_word_without_backticks_or_in_a_code_block_is_not_named() {
    let words = quoted("Bookmark and `EndMark.digest`\n```text\n`Outcome`\n```\n| `LogIn` | LogOut |");
    for word in ["EndMark", "digest", "LogIn"] {
        assert!(words.contains(word), "{word}");
    }
    for word in ["Bookmark", "Outcome", "LogOut"] {
        assert!(!words.contains(word), "{word}");
    }
}
