//! How the answers to `socp-server admit` and `socp-server block` are printed.

use std::io::{self, Write};

use serde_json::json;
use socp::operator::v1::SetBlockedResponse;

use super::{peers::some_text, text::time};

pub(super) fn print_admitted(
    name: &str,
    server_id: &str,
    until_unix_ms: i64,
    json: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    if json {
        let line = json!({ "name": name, "server_id": server_id, "until_unix_ms": until_unix_ms });
        return writeln!(out, "{line}");
    }
    writeln!(out, "admitted `{name}` until {}", time(until_unix_ms))
}

pub(super) fn print_revoked(server_id: &str, json: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        return writeln!(out, "{}", json!({ "server_id": server_id, "revoked": true }));
    }
    writeln!(out, "this server vouches for `{server_id}` no more")
}

pub(super) fn print_blocked(
    answer: &SetBlockedResponse,
    blocked: bool,
    json: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    let SetBlockedResponse { name, server_id } = answer;
    if json {
        let line = json!({ "name": some_text(name), "server_id": server_id, "blocked": blocked });
        return writeln!(out, "{line}");
    }
    let done = if blocked { "blocked" } else { "not blocked any more:" };
    let name = if name.is_empty() { "a server without a name here" } else { name };
    writeln!(out, "{done} `{name}`, {server_id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(print: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_answer_is_a_line_for_people_and_an_object_for_programs() {
        let until = 1_700_000_000_000;
        let line = printed(|out| print_admitted("server-c", "0c", until, false, out));
        assert_eq!(line, "admitted `server-c` until 2023-11-14 22:13:20\n");
        let object = printed(|out| print_admitted("server-c", "0c", until, true, out));
        assert!(object.contains("\"until_unix_ms\":1700000000000"), "{object}");
        let nameless = SetBlockedResponse { name: String::new(), server_id: "0c".into() };
        assert!(printed(|out| print_blocked(&nameless, true, true, out)).contains("\"name\":null"));
        let named = SetBlockedResponse { name: "server-c".into(), ..nameless };
        assert_eq!(printed(|out| print_blocked(&named, false, false, out)), "not blocked any more: `server-c`, 0c\n");
        assert_eq!(printed(|out| print_revoked("0c", true, out)), "{\"revoked\":true,\"server_id\":\"0c\"}\n");
    }
}
