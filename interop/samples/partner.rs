//! A sample that runs, and the user of our own client who talks with it.

use std::{
    collections::{BTreeSet, VecDeque},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use socp::id::hex;
use tempfile::TempDir;

use crate::harness::{
    caller::Caller,
    client::{Live, User},
    forward::Forward,
    mesh::Site,
    program::Program,
};

/// A virtual machine starts and makes an RSA key of 4096 bits, perhaps beside others that do the same.
pub const START_TIME_MAX: Duration = Duration::from_secs(120);

/// A sample that finds no server waits longer each time before it tries again.
pub const RETURN_TIME_MAX: Duration = Duration::from_secs(60);

/// One that is gone after the test.
pub fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

/// A sample that runs. It shows what it wrote where a test fails.
pub struct Sample(pub Program);

impl Sample {
    /// Its key, and what it keeps beside that, are in `kept`, and files that come are saved there.
    pub fn start(language: &str, home: &Site, way: &Forward, partner: &str, kept: &Path) -> Self {
        Self::start_with(language, home, way, partner, kept, &[])
    }

    /// The same with more arguments.
    pub fn start_with(language: &str, home: &Site, way: &Forward, partner: &str, kept: &Path, more: &[&str]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop").join(language).join("start");
        let mut command = Command::new(script);
        command.args(["--server", &way.address.to_string(), "--server-id", &home.id.to_string(), "--ca"]);
        command.arg(home.data().join("ca.pem")).args(["--name", language, "--partner", partner, "--seconds", "600"]);
        command.arg("--key").arg(kept.join("key.pem")).arg("--files").arg(kept).args(more);
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
pub struct Heard {
    /// `message` or `post`.
    pub kind: String,
    pub word: String,
    pub argument: String,
}

/// The user of our own client who talks with the sample.
pub struct Partner {
    pub live: Live,
    /// The sample's label.
    pub sample: String,
    /// Texts that came while something else was waited for.
    unread: VecDeque<Value>,
    /// Where its files are, and where those that come are saved.
    pub out: TempDir,
    pub saved: TempDir,
}

impl Partner {
    /// Online at its own server.
    pub fn new(user: &User, sample: String) -> Self {
        Self::with(user, sample, &[])
    }

    /// The same with more arguments of the chat.
    pub fn with(user: &User, sample: String, more: &[&str]) -> Self {
        let (out, saved) = (folder(), folder());
        let files = ["--files", &saved.path().display().to_string()];
        let live = user.chat_with(&[&files, more].concat());
        Self { live, sample, unread: VecDeque::new(), out, saved }
    }

    /// Says goodbye, upon which the sample ends well: all its nonces came back.
    #[track_caller]
    pub fn parts_from(&mut self, sample: &mut Sample) {
        self.tell("bye");
        assert_eq!(sample.0.wait().code(), Some(0), "all nonces came back");
    }

    /// Says a text to the sample.
    pub fn tell(&mut self, text: &str) {
        self.live.say(&format!("/tell {} {text}", self.sample));
    }

    /// Waits until the sample comes online.
    #[track_caller]
    pub fn meets(&mut self, time: Duration) {
        let sample = &self.sample;
        let is_it = |event: &Value| event["event"] == "added" && event["user"] == sample.as_str();
        self.live.expect_within(time, &format!("that {sample} came"), is_it);
    }

    /// Waits until a user has gone, if that is not so already.
    #[track_caller]
    pub fn misses(&mut self, label: &str) {
        if self.live.online().contains(label) {
            self.live.removed(label, "left");
        }
    }

    /// The next text of the sample's, or that one to it was refused.
    #[track_caller]
    pub fn next(&mut self) -> Result<Heard, Value> {
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
    pub fn exchanges_pings(&mut self, pong: impl FnMut(&str, &str) -> String) {
        self.exchanges_more_pings(Vec::new(), pong);
    }

    /// The same where some of these nonces were sent before.
    #[track_caller]
    pub fn exchanges_more_pings(&mut self, sent: Vec<String>, mut pong: impl FnMut(&str, &str) -> String) {
        let [told, posted] = [nonce(), nonce()];
        self.tell(&format!("ping {told}"));
        let mut unanswered: BTreeSet<String> = sent.into_iter().chain([told.clone(), posted.clone()]).collect();
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
                    if argument == told {
                        // It is attached: a post that is made now is for it, whatever it kept.
                        self.live.say(&format!("/all ping {posted}"));
                    }
                }
                _ => panic!("the sample said `{word} {argument}`"),
            }
        }
    }

    /// Asks until what became of each of the sample's queued messages has come to it.
    ///
    /// One message at least was sent while the partner's home was away. The answer that the partner read just before may be
    /// another: its home had it and was stopped before it could say so.
    #[track_caller]
    pub fn expects_settled(&mut self) {
        let deadline = Instant::now() + RETURN_TIME_MAX;
        loop {
            let told = self.asks("outcomes").expect("nothing is refused");
            let queued = told["queued"].as_u64().expect("a count");
            assert!((1..=2).contains(&queued), "its home kept what was sent meanwhile, and only that: {told}");
            let settled = told["settled"].as_array().expect("a list");
            if settled.len() as u64 == queued {
                let kept = ["OUTCOME_KIND_STORED", "OUTCOME_KIND_HANDED_OVER"].map(Value::from);
                return assert!(settled.iter().all(|each| kept.contains(each)), "{told}");
            }
            assert!(Instant::now() < deadline, "{told}");
        }
    }

    /// Asks for something that is answered with the same word and a JSON object.
    #[track_caller]
    pub fn asks(&mut self, word: &str) -> Result<Value, Value> {
        self.tell(word);
        let heard = self.next()?;
        assert_eq!((&*heard.kind, &*heard.word), ("message", word), "{}", heard.argument);
        Ok(serde_json::from_str(&heard.argument).unwrap_or_else(|_| panic!("no JSON: {}", heard.argument)))
    }

    /// Asks until the sample's view is that of a watch which begins now, and this is true for it.
    #[track_caller]
    pub fn expects_view(&mut self, what: &str, fresh: &Caller, is_it: impl Fn(&Value) -> bool) -> Value {
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

/// 32 hexadecimal digits.
pub fn nonce() -> String {
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
