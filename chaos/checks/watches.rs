//! What one watching client was told, from its start on.
//!
//! The rules of the watch are held at every event: revisions rise without gap, nobody is added twice or removed twice, and
//! the client's own digest is always the server's.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::Value;

use crate::{harness::program::Program, network};

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
    /// How often the connection was made.
    pub connects: usize,
    /// How often it broke.
    pub breaks: usize,
    /// How often the present state was complete: once, and once more for each new start of the server.
    pub loads: usize,
    /// How often nothing had changed for a while, and the server's digest was the client's.
    pub bookmarks: usize,
}

impl Watch {
    /// Takes a `socp watch` that was just started.
    pub fn new(server: usize, program: Program) -> Self {
        let (shown, place, changes) = (BTreeMap::new(), Place::Loading, Vec::new());
        Self { server, program, shown, place, changes, connects: 0, breaks: 0, loads: 0, bookmarks: 0 }
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
            if let Err(broken) = self.take(&event) {
                panic!("{}: {broken}: {event}", self.name());
            }
        }
    }

    fn name(&self) -> String {
        format!("the watch of server-{}", network::letter(self.server))
    }

    /// Takes one event; the rule that it breaks is the error.
    fn take(&mut self, event: &Value) -> Result<(), &'static str> {
        match event["event"].as_str() {
            Some("added" | "updated" | "removed") => self.change(event)?,
            Some("synced" | "bookmark") => self.mark(event)?,
            Some("disconnected") => self.breaks += 1,
            Some("reloading") => self.place = Place::Loading,
            Some("watching") => self.connects += 1,
            _ => return Err("a watch tells of nothing else"),
        }
        Ok(())
    }

    fn change(&mut self, event: &Value) -> Result<(), &'static str> {
        let number = |key: &str| event[key].as_u64().ok_or("a change is complete");
        let user = event["user"].as_str().ok_or("a change is of a user")?.to_owned();
        let (revision, unix_ns) = (number("revision")?, number("unix_ns")?);
        let is_next = match self.place {
            Place::Loading => true,
            Place::After(last) => revision == last + 1,
            Place::Within(last) => [last, last + 1].contains(&revision),
        };
        holds(is_next, "revisions rise without gap")?;
        if self.is_complete() {
            self.place = Place::Within(revision);
        }
        let what = if event["event"] == "removed" {
            holds(self.shown.remove(&user).is_some(), "only who is shown is removed")?;
            What::Went
        } else {
            let entry = (number("epoch")?, number("online_since")?);
            let before = self.shown.insert(user.clone(), entry);
            if event["event"] == "added" {
                holds(before.is_none(), "who is shown is not added")?;
                What::Came
            } else {
                holds(before == Some(entry), "an update is of the time online that is shown")?;
                What::Changed
            }
        };
        if event["initial"] != true {
            self.changes.push(Change { unix_ns, user, what, revision });
        }
        Ok(())
    }

    fn mark(&mut self, event: &Value) -> Result<(), &'static str> {
        holds(event["digest_ok"] == true, "the view is the server's")?;
        let revision = event["revision"].as_u64().ok_or("a mark has a revision")?;
        match (event["event"].as_str(), self.place) {
            (Some("bookmark"), Place::After(last) | Place::Within(last)) => {
                holds(revision == last, "nothing was missed before a bookmark")?;
                self.bookmarks += 1;
            }
            _ => self.loads += 1,
        }
        self.place = Place::After(revision);
        Ok(())
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

fn holds(is_so: bool, rule: &'static str) -> Result<(), &'static str> {
    is_so.then_some(()).ok_or(rule)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use serde_json::json;

    use super::*;

    fn change(kind: &str, user: &str, revision: u64, epoch: u64) -> Value {
        json!({"event": kind, "user": user, "revision": revision, "epoch": epoch, "online_since": 1, "unix_ns": 1})
    }

    fn mark(kind: &str, revision: u64, digest_ok: bool) -> Value {
        json!({"event": kind, "revision": revision, "digest_ok": digest_ok})
    }

    /// What a watch that shows alice after revision 7 says of these events.
    fn takes(events: &[Value]) -> Result<(), &'static str> {
        let mut watch = Watch::new(0, Program::start("nobody", &mut Command::new("true")));
        let begin = [change("added", "alice", 5, 1), mark("synced", 7, true)];
        begin.iter().chain(events).try_for_each(|event| watch.take(event))
    }

    #[test]
    fn a_watch_that_is_right_is_taken() {
        let (bob, away) = (change("added", "bob", 8, 1), change("removed", "alice", 8, 1));
        let right = [bob.clone(), away, change("updated", "bob", 9, 1), mark("bookmark", 9, true)];
        assert_eq!(takes(&right), Ok(()));
        let (broken, again) = (json!({"event": "disconnected"}), json!({"event": "reloading"}));
        let anew = [bob, broken, again, change("removed", "bob", 2, 1), mark("synced", 2, true)];
        assert_eq!(takes(&anew), Ok(()));
    }

    #[test]
    fn each_rule_of_the_watch_is_held() {
        let bob = change("added", "bob", 8, 1);
        let gap = Err("revisions rise without gap");
        assert_eq!(takes(&[change("added", "bob", 9, 1)]), gap);
        assert_eq!(takes(&[change("added", "bob", 7, 1)]), gap, "the end mark said that it was over");
        assert_eq!(takes(&[bob.clone(), mark("bookmark", 9, true)]), Err("nothing was missed before a bookmark"));
        assert_eq!(takes(&[change("added", "alice", 8, 1)]), Err("who is shown is not added"));
        assert_eq!(takes(&[change("removed", "bob", 8, 1)]), Err("only who is shown is removed"));
        let update = Err("an update is of the time online that is shown");
        assert_eq!(takes(&[change("updated", "bob", 8, 1)]), update);
        assert_eq!(takes(&[change("updated", "alice", 8, 2)]), update);
        assert_eq!(takes(&[bob, mark("bookmark", 8, false)]), Err("the view is the server's"));
    }
}
