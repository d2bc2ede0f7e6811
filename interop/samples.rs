//! Sample clients in other languages: each holds the exchange of `interop/README.md` with our own client.
//!
//! What a sample did is known from its exit status and from what our client opened of it; what it prints is for people.

use std::{
    collections::{BTreeSet, VecDeque},
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use socp::id::hex;
use tempfile::TempDir;

use crate::harness::{
    caller::Caller,
    client::{Live, User},
    forward::Forward,
    mesh::{Mesh, Site},
    program::Program,
    wire::Wire,
};

/// A virtual machine starts and makes an RSA key of 4096 bits, perhaps beside others that do the same.
const START_TIME_MAX: Duration = Duration::from_secs(120);

/// A sample that finds no server waits longer each time before it tries again.
const RETURN_TIME_MAX: Duration = Duration::from_secs(60);

/// Bytes of the file that is exchanged: some chunks, and a part of one.
const FILE_BYTES: usize = 300_001;

/// Its name, which leads elsewhere on another system, and what is left of that.
const FILE_NAME: &str = "..\\..\\-a file\u{1b}.bin";
const FILE_SAVED_AS: &str = "_-a file.bin";

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

/// A sample that runs. It shows what it wrote where a test fails.
struct Sample(Program);

impl Sample {
    /// Its key, and what it keeps beside that, are in `kept`, and files that come are saved there.
    fn start(language: &str, home: &Site, way: &Forward, partner: &str, kept: &Path) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop").join(language).join("start");
        let mut command = Command::new(script);
        command.args(["--server", &way.address.to_string(), "--server-id", &home.id.to_string(), "--ca"]);
        command.arg(home.data().join("ca.pem")).args(["--name", language, "--partner", partner, "--seconds", "600"]);
        command.arg("--key").arg(kept.join("key.pem")).arg("--files").arg(kept);
        Self(Program::start(format!("the {language} sample"), &mut command))
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the sample, {}", self.0.story());
        }
    }
}

/// A text of the sample's, as our client opened it.
struct Heard {
    /// `message` or `post`.
    kind: String,
    word: String,
    argument: String,
}

/// The user of our own client who talks with the sample.
struct Partner {
    live: Live,
    /// The sample's label.
    sample: String,
    /// Texts that came while something else was waited for.
    unread: VecDeque<Value>,
    /// Where its files are, and where those that come are saved.
    out: TempDir,
    saved: TempDir,
}

impl Partner {
    fn new(user: &User, sample: String) -> Self {
        let (out, saved) = (folder(), folder());
        let live = user.chat_with(&["--files", &saved.path().display().to_string()]);
        Self { live, sample, unread: VecDeque::new(), out, saved }
    }

    fn tell(&mut self, text: &str) {
        self.live.say(&format!("/tell {} {text}", self.sample));
    }

    /// Waits until the sample comes online.
    #[track_caller]
    fn meets(&mut self, time: Duration) {
        let sample = &self.sample;
        let is_it = |event: &Value| event["event"] == "added" && event["user"] == sample.as_str();
        self.live.expect_within(time, &format!("that {sample} came"), is_it);
    }

    /// Waits until a user has gone, if that is not so already.
    #[track_caller]
    fn misses(&mut self, label: &str) {
        if self.live.online().contains(label) {
            self.live.removed(label, "left");
        }
    }

    /// The next text of the sample's, or that one to it was refused.
    #[track_caller]
    fn next(&mut self) -> Result<Heard, Value> {
        let Self { live, sample, unread, .. } = self;
        let is_text = |event: &Value| {
            matches!(event["event"].as_str(), Some("message" | "post")) && event["from"] == sample.as_str()
        };
        let is_fault = |event: &Value| matches!(event["event"].as_str(), Some("error" | "unreadable" | "key_changed"));
        unread.extend(live.passed().into_iter().filter(|event| is_text(event) || is_fault(event)));
        let event = unread
            .pop_front()
            .unwrap_or_else(|| live.expect("a text of the sample's", |event| is_text(event) || is_fault(event)));
        if is_fault(&event) {
            return Err(event);
        }
        let part = |key: &str| event[key].as_str().expect("a text has it").to_owned();
        let text = part("text");
        let (word, argument) = text.split_once(' ').unwrap_or((&text, ""));
        Ok(Heard { kind: part("event"), word: word.to_owned(), argument: argument.to_owned() })
    }

    /// Both sides ping by a message and by a post. Answers what the sample pinged by `pong`, given its kind and nonce.
    #[track_caller]
    fn exchanges_pings(&mut self, pong: impl FnMut(&str, &str) -> String) {
        self.exchanges_more_pings(Vec::new(), pong);
    }

    /// The same where some of these nonces were sent before.
    #[track_caller]
    fn exchanges_more_pings(&mut self, sent: Vec<String>, mut pong: impl FnMut(&str, &str) -> String) {
        let [told, posted] = [nonce(), nonce()];
        self.tell(&format!("ping {told}"));
        self.live.say(&format!("/all ping {posted}"));
        let mut unanswered: BTreeSet<String> = sent.into_iter().chain([told, posted]).collect();
        let mut pinged = BTreeSet::new();
        while !unanswered.is_empty() || pinged.len() < 2 {
            let Heard { kind, word, argument } = self.next().expect("nothing is refused");
            match word.as_str() {
                "ping" => {
                    let is_nonce = argument.len() == 32 && argument.bytes().all(|digit| digit.is_ascii_hexdigit());
                    assert!(is_nonce, "a nonce of 32 hexadecimal digits: {argument}");
                    self.tell(&format!("pong {}", pong(&kind, &argument)));
                    assert!(pinged.insert(kind), "a second ping of the same kind");
                }
                "pong" => {
                    assert_eq!(kind, "message", "pings are answered by `tell`");
                    assert!(unanswered.remove(&argument), "nobody sent the nonce {argument}");
                }
                _ => panic!("the sample said `{word} {argument}`"),
            }
        }
    }

    /// Sends a file, which the sample saves in a folder and sends back.
    #[track_caller]
    fn exchanges_a_file(&mut self, samples: &Path) {
        let content: Vec<u8> = (0..FILE_BYTES).map(|_| fastrand::u8(..)).collect();
        let path = self.out.path().join(FILE_NAME);
        fs::write(&path, &content).expect("the folder can be written to");
        self.live.say(&format!("/file {} {}", self.sample, path.display()));
        let is_end = |event: &Value| matches!(event["event"].as_str(), Some("file_saved" | "error" | "unreadable"));
        let saved = self.live.expect("that it came back", is_end);
        let back = self.saved.path().join(FILE_SAVED_AS);
        assert_eq!((&saved["event"], &saved["path"]), (&json!("file_saved"), &json!(back)), "{saved}");
        assert!(fs::read(back).expect("it is there") == content, "it is as it was");
        assert!(fs::read(samples.join(FILE_SAVED_AS)).expect("the sample saved it") == content, "the sample's, too");
        let part = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().ends_with(".part");
        let left = fs::read_dir(samples).expect("it is there").flatten().any(|entry| part(&entry));
        assert!(!left, "nothing is left under a temporary name");
    }

    /// Asks until what became of the sample's queued message has come to it.
    #[track_caller]
    fn expects_settled(&mut self) {
        let deadline = Instant::now() + RETURN_TIME_MAX;
        loop {
            let told = self.asks("outcomes").expect("nothing is refused");
            assert_eq!(told["queued"], 1, "its home kept the message meanwhile: {told}");
            if let [settled] = &told["settled"].as_array().expect("a list")[..] {
                let kept = ["OUTCOME_KIND_STORED", "OUTCOME_KIND_HANDED_OVER"].map(Value::from);
                return assert!(kept.contains(settled), "{told}");
            }
            assert!(Instant::now() < deadline, "{told}");
        }
    }

    /// Asks for something that is answered with the same word and a JSON object.
    #[track_caller]
    fn asks(&mut self, word: &str) -> Result<Value, Value> {
        self.tell(word);
        let heard = self.next()?;
        assert_eq!((&*heard.kind, &*heard.word), ("message", word), "{}", heard.argument);
        Ok(serde_json::from_str(&heard.argument).unwrap_or_else(|_| panic!("no JSON: {}", heard.argument)))
    }

    /// Asks until the sample's view is that of a watch which begins now, and this is true for it.
    #[track_caller]
    fn expects_view(&mut self, what: &str, fresh: &Caller, is_it: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + RETURN_TIME_MAX;
        loop {
            // One who has just come back may go once more before it stays.
            let view = self.asks("view").unwrap_or_else(|refused| {
                assert_eq!(refused["reason"], "RECIPIENT_OFFLINE", "{refused}");
                refused
            });
            let (digest, users) = present(fresh);
            if view["digest"] == digest && view["users"] == users && is_it(&view) {
                assert_eq!(view["mismatched"], 0, "no digest of the server's was another than its own: {view}");
                return view;
            }
            assert!(Instant::now() < deadline, "{what}: {view} is not {digest} with {users} users");
        }
    }
}

fn nonce() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// Digest and size of the directory as a watch that begins now has them.
#[track_caller]
fn present(caller: &Caller) -> (String, u64) {
    let mut watch = caller.watch("").expect("the token is good");
    loop {
        if let Some(mark) = watch.next().end_mark {
            return (hex(&mark.digest), mark.entries);
        }
    }
}

/// The whole exchange.
#[track_caller]
fn exchange(language: &str) {
    let mut mesh = Mesh::started(&[0, 1]);
    mesh.expect_link(0, 1);
    let way = Forward::to(mesh[0].client);
    let alice = Caller::new("alice", &mesh[0], Wire::H3);
    let [carol, dave] = [("carol", 0), ("dave", 1)].map(|(name, at)| Caller::new(name, &mesh[at], Wire::H3));
    let carols = carol.attach();
    let bob = User::register("bob", &mesh[1]);
    let mut partner = Partner::new(&bob, format!("{language}@server-a"));
    let kept = folder();

    let mut sample = Sample::start(language, mesh.site(0), &way, &bob.label, kept.path());
    partner.meets(START_TIME_MAX);
    partner.exchanges_pings(|_, nonce| nonce.to_owned());
    partner.exchanges_a_file(kept.path());
    let first = partner.expects_view("the present state", &alice, |_| true);
    assert_eq!((&first["resumed"], &first["started_over"]), (&json!(0), &json!(0)), "it was never cut off");

    way.break_off();
    drop(carols);
    let _daves = dave.attach();
    let label = partner.sample.clone();
    partner.live.shows("dave@server-b");
    partner.misses("carol@server-a");
    partner.misses(&label);
    way.heal();
    partner.meets(RETURN_TIME_MAX);
    let resumed = |view: &Value| view["resumed"].as_u64() >= Some(1);
    let again = partner.expects_view("the state after a break", &alice, resumed);
    assert_eq!(again["started_over"], 0, "its token was good: {again}");

    mesh.stop(0);
    partner.live.removed(&label, "unreachable");
    mesh.start(0);
    partner.meets(RETURN_TIME_MAX);
    let alice = Caller::new("alice", &mesh[0], Wire::H3);
    let started_over = |view: &Value| view["started_over"].as_u64() >= Some(1);
    partner.expects_view("the state at another start of the server", &alice, started_over);

    let refusals = partner.asks("refusals").expect("nothing is refused");
    let expected = json!({
        "login_replayed": "NONCE_EXPIRED",
        "wrong_signature": "INVALID_SIG",
        "unknown_user": "USER_NOT_FOUND",
        "no_token": "TOKEN_INVALID",
    });
    assert_eq!(refusals, expected);

    // What is sent to one whose home is away is queued, and settled later. The sample posts that its home has taken it.
    let late = nonce();
    let mut erin = User::register("erin", &mesh[0]).chat();
    partner.tell(&format!("later {late}"));
    partner.asks("view").expect("nothing is refused");
    mesh.stop(1);
    assert_eq!(erin.post(&format!("accepted {late}")), label);
    erin.quit();
    mesh.start(1);
    let heard = partner.next().expect("nothing is refused");
    assert_eq!((&*heard.word, heard.argument), ("later", late));
    partner.live.shows(&label);
    partner.expects_settled();

    partner.tell("bye");
    assert_eq!(sample.0.wait().code(), Some(0), "all nonces came back");
    partner.live.removed(&label, "left");

    // The next run reads what came meanwhile, and nothing of what the first one had: that ended with `bye`.
    let (meanwhile, _first) = (nonce(), sample);
    partner.tell(&format!("ping {meanwhile}"));
    let mut sample = Sample::start(language, mesh.site(0), &way, &bob.label, kept.path());
    partner.meets(START_TIME_MAX);
    partner.exchanges_more_pings(vec![meanwhile], |_, nonce| nonce.to_owned());
    partner.tell("bye");
    assert_eq!(sample.0.wait().code(), Some(0), "all nonces came back");
    partner.live.quit();
}

#[test]
fn the_python_sample_exchanges_sealed_messages_with_our_client_and_keeps_a_correct_watch() {
    exchange("python");
}

#[test]
fn the_go_sample_exchanges_sealed_messages_with_our_client_and_keeps_a_correct_watch() {
    exchange("go");
}

#[test]
fn the_node_sample_exchanges_sealed_messages_with_our_client_and_keeps_a_correct_watch() {
    exchange("node");
}

#[test]
fn the_java_sample_exchanges_sealed_messages_with_our_client_and_keeps_a_correct_watch() {
    exchange("java");
}

#[test]
fn the_python_sample_fails_if_a_nonce_of_its_own_does_not_come_back() {
    let mesh = Mesh::started(&[0, 1]);
    mesh.expect_link(0, 1);
    let way = Forward::to(mesh[0].client);
    let bob = User::register("bob", &mesh[1]);
    let mut partner = Partner::new(&bob, "python@server-a".into());
    let kept = folder();
    let mut sample = Sample::start("python", mesh.site(0), &way, &bob.label, kept.path());
    partner.meets(START_TIME_MAX);
    partner.exchanges_pings(|kind, own| if kind == "post" { nonce() } else { own.to_owned() });
    partner.tell("bye");
    assert_eq!(sample.0.wait().code(), Some(1));
}
