//! How the answer to `socp-server peers` is printed.

use std::io::{self, Write};

use serde_json::json;
use socp::operator::v1::{Dial, Peer, Reach, Standing};

use super::text::{print_aligned, time};

/// One object a line, with the names of the contract; what there is not is null.
pub(super) fn print_json(peers: &[Peer], out: &mut impl Write) -> io::Result<()> {
    peers.iter().try_for_each(|peer| {
        let line = json!({
            "name": peer.name,
            "server_id": peer.server_id,
            "dialled": peer.dialled,
            "reach": reach(peer.reach()),
            "next_hop": some_text(&peer.next_hop),
            "linked_unix_ms": some_number(peer.linked_unix_ms),
            "linked_by_own_dial": (peer.reach() == Reach::Linked).then_some(peer.linked_by_own_dial),
            "dial": match peer.dial() {
                Dial::Idle | Dial::Unspecified => "idle",
                Dial::UnderWay => "under-way",
                Dial::Waiting => "waiting",
            },
            "next_dial_unix_ms": some_number(peer.next_dial_unix_ms),
            "last_error": some_text(&peer.last_error),
            "last_error_unix_ms": some_number(peer.last_error_unix_ms),
            "heard_unix_ms": some_number(peer.heard_unix_ms),
            "epoch": peer.epoch,
            "position": peer.position,
            "told_position": peer.told_position,
            "users_shown": peer.users_shown,
            "refused_frames": peer.refused_frames,
            "standing": standing(peer.standing()),
            "admitted_by": some_text(&peer.admitted_by),
            "admitted_until_unix_ms": some_number(peer.admitted_until_unix_ms),
            "vouched_until_unix_ms": some_number(peer.vouched_until_unix_ms),
        });
        writeln!(out, "{line}")
    })
}

/// A heading, and one line a peer.
pub(super) fn print_table(peers: &[Peer], out: &mut impl Write) -> io::Result<()> {
    let heading =
        ["NAME", "STATE", "TAKEN", "HEARD", "EPOCH", "BATCHES", "LAG", "USERS", "REFUSED", "ID", "LAST ERROR"];
    let rows = peers.iter().map(|peer| {
        let error = match &*peer.last_error {
            "" => "none".into(),
            error => format!("{}: {error}", time(peer.last_error_unix_ms)),
        };
        [
            peer.name.clone(),
            state(peer),
            taken(peer),
            time(peer.heard_unix_ms),
            peer.epoch.to_string(),
            peer.position.to_string(),
            peer.told_position.saturating_sub(peer.position).to_string(),
            peer.users_shown.to_string(),
            peer.refused_frames.to_string(),
            peer.server_id.clone(),
            error,
        ]
    });
    let rows: Vec<_> = [heading.map(str::to_owned)].into_iter().chain(rows).collect();
    print_aligned(&rows, out)
}

fn state(peer: &Peer) -> String {
    if peer.standing() == Standing::Blocked {
        return "blocked".into();
    }
    let reach = match peer.reach() {
        Reach::Linked => {
            let dialler = if peer.linked_by_own_dial { "dialled here" } else { "dialled there" };
            return format!("linked since {}, {dialler}", time(peer.linked_unix_ms));
        }
        Reach::Through => format!("through {}", peer.next_hop),
        Reach::Self_ | Reach::Unreachable | Reach::Unspecified => "unreachable".into(),
    };
    match peer.dial() {
        Dial::UnderWay => format!("{reach}, dialling"),
        Dial::Waiting => format!("{reach}, next dial {}", time(peer.next_dial_unix_ms)),
        Dial::Idle | Dial::Unspecified if peer.dialled => reach,
        Dial::Idle | Dial::Unspecified => format!("{reach}, not dialled"),
    }
}

/// Whether and why a server is taken, for people.
fn taken(peer: &Peer) -> String {
    match peer.standing() {
        Standing::Admitted => {
            format!("admitted by {} until {}", peer.admitted_by, time(peer.admitted_until_unix_ms))
        }
        standing @ (Standing::Pinned | Standing::Blocked | Standing::Unspecified) => self::standing(standing).into(),
    }
}

fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Pinned => "pinned",
        Standing::Admitted => "admitted",
        Standing::Blocked => "blocked",
        Standing::Unspecified => "unknown",
    }
}

/// A way to a server in one word.
pub(super) fn reach(reach: Reach) -> &'static str {
    match reach {
        Reach::Self_ => "self",
        Reach::Linked => "linked",
        Reach::Through => "through",
        Reach::Unreachable | Reach::Unspecified => "unreachable",
    }
}

pub(super) fn some_text(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

pub(super) fn some_number<T: Default + PartialEq>(number: T) -> Option<T> {
    (number != T::default()).then_some(number)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn peers() -> [Peer; 4] {
        let linked = Peer {
            name: "server-b".into(),
            server_id: "0b".into(),
            dialled: true,
            reach: Reach::Linked.into(),
            linked_unix_ms: 1_700_000_000_000,
            linked_by_own_dial: true,
            dial: Dial::Idle.into(),
            heard_unix_ms: 1_700_000_001_000,
            epoch: 7,
            position: 3,
            told_position: 5,
            users_shown: 2,
            refused_frames: 1,
            standing: Standing::Pinned.into(),
            ..Peer::default()
        };
        let through = Peer {
            name: "server-c".into(),
            reach: Reach::Through.into(),
            next_hop: "server-b".into(),
            dial: Dial::Idle.into(),
            standing: Standing::Admitted.into(),
            admitted_by: "server-b".into(),
            admitted_until_unix_ms: 1_700_000_003_000,
            ..Peer::default()
        };
        let away = Peer {
            name: "server-long".into(),
            dialled: true,
            reach: Reach::Unreachable.into(),
            dial: Dial::Waiting.into(),
            next_dial_unix_ms: 1_700_000_002_000,
            last_error: "no answer".into(),
            last_error_unix_ms: 1_700_000_001_000,
            standing: Standing::Pinned.into(),
            ..Peer::default()
        };
        let blocked = Peer { name: "server-x".into(), standing: Standing::Blocked.into(), ..Peer::default() };
        [linked, through, away, blocked]
    }

    #[test]
    fn peers_are_printed_one_to_an_aligned_line() {
        let mut out = Vec::new();
        print_table(&peers(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5);
        let state = lines[0].find("STATE").unwrap();
        assert!(lines[1][state..].starts_with("linked since 2023-11-14 22:13:20, dialled here  "), "{text}");
        assert!(lines[2][state..].starts_with("through server-b, not dialled  "), "{text}");
        assert!(lines[3][state..].starts_with("unreachable, next dial 2023-11-14 22:13:22  "), "{text}");
        assert!(lines[4][state..].starts_with("blocked  "), "{text}");
        let taken = lines[0].find("TAKEN").unwrap();
        assert!(lines[1][taken..].starts_with("pinned  "), "{text}");
        assert!(lines[2][taken..].starts_with("admitted by server-b until 2023-11-14 22:13:23  "), "{text}");
        assert!(lines[4][taken..].starts_with("blocked  "), "{text}");
        let lag = lines[0].find("LAG").unwrap();
        assert_eq!(&lines[1][lag..=lag], "2", "{text}");
        assert!(lines[3].ends_with("2023-11-14 22:13:21: no answer"), "{text}");
    }

    #[test]
    fn peers_are_printed_as_one_object_a_line_with_null_for_what_there_is_not() {
        let mut out = Vec::new();
        print_json(&peers(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&lines[0]["reach"], &lines[0]["linked_by_own_dial"]), (&"linked".into(), &true.into()));
        assert_eq!((&lines[1]["next_hop"], &lines[1]["linked_unix_ms"]), (&"server-b".into(), &Value::Null));
        assert_eq!((&lines[1]["standing"], &lines[1]["admitted_by"]), (&"admitted".into(), &"server-b".into()));
        assert_eq!((&lines[3]["standing"], &lines[3]["admitted_until_unix_ms"]), (&"blocked".into(), &Value::Null));
        assert_eq!((&lines[2]["dial"], &lines[2]["last_error"]), (&"waiting".into(), &"no answer".into()));
    }
}
