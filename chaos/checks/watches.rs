//! What one watching client was told, from its start on.
//!
//! The rules of the watch are held at every event: revisions rise without gap, nobody is added twice or removed twice, and
//! the client's own digest is always the server's.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::Value;

use crate::harness::program::Program;

/// What became of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Shown.
    Came,
    /// Shown with another content.
    Changed,
    /// No longer shown.
    Went,
}

/// One change, as it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When the client read it, Unix nanoseconds.
    pub unix_ns: u64,
    /// `name@server-name`.
    pub user: String,
    /// What became of them.
    pub what: What,
    /// By the server's counter.
    pub revision: u64,
}

/// How far a watch is in the server's counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The present state is on its way, or a new one after a break.
    Loading,
    /// All of this revision was told.
    After(u64),
    /// More of this revision may follow.
    Within(u64),
}

/// A watching client, and all that it told.
pub struct Watch {
    /// The server that it watches.
    pub server: usize,
    program: Program,
    shown: BTreeMap<String, (u64, u64)>,
    place: Place,
    /// Every change after the first state, in order.
    pub changes: Vec<Change>,
    /// How often the stream broke.
    pub breaks: usize,
    /// How often the present state was complete: once, and once more for each new start of the server.
    pub loads: usize,
    /// How often nothing had changed for a while, and the server's digest was the client's.
    pub bookmarks: usize,
}

impl Watch {
    /// Takes a `socp watch` that was just started.
    pub fn new(server: usize, program: Program) -> Self {
        let (shown, changes) = (BTreeMap::new(), Vec::new());
        Self { server, program, shown, place: Place::Loading, changes, breaks: 0, loads: 0, bookmarks: 0 }
    }

    /// Whether the present state is complete.
    pub fn is_complete(&self) -> bool {
        self.place != Place::Loading
    }

    /// Labels of who is shown.
    pub fn shown(&self) -> BTreeSet<&str> {
        self.shown.keys().map(String::as_str).collect()
    }

    /// Who is shown, each with the epoch and batch with which this time online began: the same on every server.
    pub fn entries(&self) -> &BTreeMap<String, (u64, u64)> {
        &self.shown
    }

    /// Takes what was told so far, and waits so long for the first of it.
    pub fn read(&mut self, time: Duration) {
        let mut time = time;
        while let Some(event) = self.program.told(time) {
            time = Duration::ZERO;
            self.take(&event);
        }
    }

    fn take(&mut self, event: &Value) {
        match event["event"].as_str().expect("every event has a kind") {
            "added" | "updated" | "removed" => self.change(event),
            "synced" | "bookmark" => self.mark(event),
            "disconnected" => self.breaks += 1,
            "reloading" => self.place = Place::Loading,
            "watching" => {}
            other => panic!("{}: a watch told `{other}`: {event}", self.name()),
        }
    }

    fn name(&self) -> String {
        format!("the watch of server-{}", crate::network::letter(self.server))
    }

    fn change(&mut self, event: &Value) {
        let user = event["user"].as_str().expect("a change is of a user").to_owned();
        let number = |key: &str| event[key].as_u64().unwrap_or_else(|| panic!("`{key}` in {event}"));
        let revision = number("revision");
        match self.place {
            Place::Loading => {}
            Place::After(last) => {
                assert_eq!(revision, last + 1, "{}: revisions rise without gap: {event}", self.name());
            }
            Place::Within(last) => {
                assert!([last, last + 1].contains(&revision), "{}: {event} after revision {last}", self.name());
            }
        }
        if self.is_complete() {
            self.place = Place::Within(revision);
        }
        let what = match event["event"].as_str() {
            Some("removed") => {
                assert!(self.shown.remove(&user).is_some(), "{}: who is not shown is removed: {event}", self.name());
                What::Went
            }
            kind => {
                let entry = (number("epoch"), number("online_since"));
                let before = self.shown.insert(user.clone(), entry);
                let added = kind == Some("added");
                assert_eq!(before.is_none(), added, "{}: added once, updated while shown: {event}", self.name());
                assert!(added || before == Some(entry), "{}: an update is of one time online: {event}", self.name());
                if added { What::Came } else { What::Changed }
            }
        };
        if event["initial"] != true {
            self.changes.push(Change { unix_ns: number("unix_ns"), user, what, revision });
        }
    }

    fn mark(&mut self, event: &Value) {
        assert_eq!(event["digest_ok"], true, "{}: the view is the server's: {event}", self.name());
        let revision = event["revision"].as_u64().expect("a mark has a revision");
        match (event["event"].as_str(), self.place) {
            (Some("bookmark"), Place::After(last) | Place::Within(last)) => {
                assert_eq!(revision, last, "{}: nothing was missed: {event}", self.name());
                self.bookmarks += 1;
            }
            _ => self.loads += 1,
        }
        self.place = Place::After(revision);
    }

    /// What it told since then, for people who read a failure.
    pub fn story(&self, since: usize) -> String {
        let told = self.changes[since..].iter().map(|change| {
            let Change { unix_ns, user, what, revision } = change;
            format!(
                "    {}.{:03} revision {revision}: {user} {what:?}",
                unix_ns / 1_000_000_000,
                unix_ns / 1_000_000 % 1_000
            )
        });
        let told: Vec<String> = told.collect();
        format!("  {}, {} breaks, shows {:?}\n{}", self.name(), self.breaks, self.shown(), told.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use std::{panic::catch_unwind, process::Command};

    use serde_json::json;

    use super::*;

    fn change(kind: &str, user: &str, revision: u64, epoch: u64) -> Value {
        json!({"event": kind, "user": user, "revision": revision, "epoch": epoch, "online_since": 1, "unix_ns": 1})
    }

    fn mark(kind: &str, revision: u64, digest_ok: bool) -> Value {
        json!({"event": kind, "revision": revision, "digest_ok": digest_ok})
    }

    /// Whether a watch that shows alice after revision 7 takes these events.
    fn takes(events: &[Value]) -> bool {
        let taken = catch_unwind(|| {
            let mut watch = Watch::new(0, Program::start("nobody", &mut Command::new("true")));
            let begin = [change("added", "alice", 5, 1), mark("synced", 7, true)];
            begin.iter().chain(events).for_each(|event| watch.take(event));
        });
        taken.is_ok()
    }

    #[test]
    fn a_watch_that_is_right_is_taken() {
        let (bob, away) = (change("added", "bob", 8, 1), change("removed", "alice", 8, 1));
        assert!(takes(&[bob.clone(), away, change("updated", "bob", 9, 1), mark("bookmark", 9, true)]));
        let (broken, again) = (json!({"event": "disconnected"}), json!({"event": "reloading"}));
        assert!(takes(&[bob, broken, again, change("removed", "bob", 2, 1), mark("synced", 2, true)]));
    }

    #[test]
    fn a_watch_that_skips_repeats_or_differs_is_not() {
        let bob = change("added", "bob", 8, 1);
        assert!(!takes(&[change("added", "bob", 9, 1)]), "a revision is missing");
        assert!(!takes(&[change("added", "bob", 7, 1)]), "the end mark said that it was over");
        assert!(!takes(&[bob.clone(), mark("bookmark", 9, true)]), "a revision is missing before a bookmark");
        assert!(!takes(&[change("added", "alice", 8, 1)]), "added twice");
        assert!(!takes(&[change("removed", "bob", 8, 1)]), "removed and never shown");
        assert!(!takes(&[change("updated", "bob", 8, 1)]), "updated and never shown");
        assert!(!takes(&[change("updated", "alice", 8, 2)]), "updated in another time online");
        assert!(!takes(&[bob, mark("bookmark", 8, false)]), "another digest");
    }
}
