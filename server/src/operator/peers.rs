//! How the answer to `socp-server peers` is printed.

use std::io::{self, Write};

use serde_json::json;
use socp::operator::v1::{Dial, Peer, Reach};

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
        });
        writeln!(out, "{line}")
    })
}

/// A heading, and one line a peer.
pub(super) fn print_table(peers: &[Peer], out: &mut impl Write) -> io::Result<()> {
    let heading = ["NAME", "STATE", "HEARD", "EPOCH", "BATCHES", "LAG", "USERS", "REFUSED", "ID", "LAST ERROR"];
    let rows = peers.iter().map(|peer| {
        let error = match &*peer.last_error {
            "" => "none".into(),
            error => format!("{}: {error}", time(peer.last_error_unix_ms)),
        };
        [
            peer.name.clone(),
            state(peer),
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

    fn peers() -> [Peer; 3] {
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
            ..Peer::default()
        };
        let through = Peer {
            name: "server-c".into(),
            reach: Reach::Through.into(),
            next_hop: "server-b".into(),
            dial: Dial::Idle.into(),
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
            ..Peer::default()
        };
        [linked, through, away]
    }

    #[test]
    fn peers_are_printed_one_to_an_aligned_line() {
        let mut out = Vec::new();
        print_table(&peers(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        let state = lines[0].find("STATE").unwrap();
        assert!(lines[1][state..].starts_with("linked since 2023-11-14 22:13:20, dialled here  "), "{text}");
        assert!(lines[2][state..].starts_with("through server-b, not dialled  "), "{text}");
        assert!(lines[3][state..].starts_with("unreachable, next dial 2023-11-14 22:13:22  "), "{text}");
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
        assert_eq!((&lines[2]["dial"], &lines[2]["last_error"]), (&"waiting".into(), &"no answer".into()));
    }
}
