//! Events as lines for people. Text of other people is hostile: control characters never reach the terminal.

use crate::{
    date,
    event::{Event, Past, Receipted, Received, Sent, Shown},
    file,
};

/// Where a line goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// What was asked for: standard output.
    Data,
    /// What is said about it: standard error.
    Talk,
}

/// How a line is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    Plain,
    /// Less important.
    Dim,
    /// To be seen.
    Loud,
}

/// A text without control characters but spaces for line breaks and tabs.
pub fn clean(text: &str) -> String {
    let hostile = |c: char| {
        c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
    };
    text.chars()
        .filter_map(|c| match c {
            '\n' | '\t' => Some(' '),
            c if hostile(c) => None,
            c => Some(c),
        })
        .collect()
}

/// A message's text, which may have several lines: each after the first is indented, so that none can pass for an event.
fn body(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n    ")
}

/// Colours a line for a terminal.
pub fn colour(line: &str, tone: Tone) -> String {
    match tone {
        Tone::Plain => line.to_owned(),
        Tone::Dim => format!("\u{1b}[2m{line}\u{1b}[0m"),
        Tone::Loud => format!("\u{1b}[1;31m{line}\u{1b}[0m"),
    }
}

/// The line of an event; `None` where people need none.
pub fn line(event: &Event) -> Option<(Stream, Tone, String)> {
    use Stream::{Data, Talk};
    use Tone::{Dim, Loud, Plain};
    Some(match event {
        Event::Attached { user, transport, .. } => {
            (Talk, Dim, format!("online as {user} over {transport}; /help lists the commands"))
        }
        Event::Watching { transport, .. } => (Talk, Dim, format!("watching over {transport}")),
        Event::Added { user, .. } => {
            (Data, Plain, format!("[user added] {} is now available for messaging", with_display_name(user)))
        }
        Event::Updated { visibly: false, .. }
        | Event::Bookmark { digest_ok: None | Some(true), .. }
        | Event::FileProgress { .. }
        | Event::Reloading { .. } => return None,
        Event::Updated { user, .. } => {
            let status = if user.status.is_empty() { String::new() } else { format!(": {}", clean(&user.status)) };
            (Data, Plain, format!("[user updated] {}{status}", with_display_name(user)))
        }
        Event::Removed { user, reason, .. } => {
            let why = match *reason {
                "unreachable" => "is gone: its server cannot be reached",
                "moved" => "has left, and is said to have moved",
                _ => "has left",
            };
            (Data, Plain, format!("[user removed] {user} {why}"))
        }
        Event::Synced { digest_ok: Some(false), .. } | Event::Bookmark { .. } => {
            (Talk, Loud, "[directory] the view differs from the server's; loading it anew".into())
        }
        Event::Synced { entries: 1, .. } => (Data, Plain, "[directory] 1 user online".into()),
        Event::Synced { entries, .. } => (Data, Plain, format!("[directory] {entries} users online")),
        Event::Unread { messages } => {
            (Data, Plain, format!("[unread] {} came while this device was away:", counted(*messages, "message")))
        }
        Event::Message(Received { from, text, unread: true, received_unix_ms, verified, .. }) => {
            (Data, Plain, format!("{}  {from}{}: {}", date::utc(*received_unix_ms), mark(*verified), body(text)))
        }
        Event::Message(Received { from, text, verified, .. }) => {
            (Data, Plain, format!("{from}{}: {}", mark(*verified), body(text)))
        }
        Event::Post(Received { from, text, verified, .. }) => {
            (Data, Plain, format!("{from}{} (to all): {}", mark(*verified), body(text)))
        }
        Event::File { from, id, name, bytes, verified, .. } => {
            let (name, size, mark) = (clean(name), file::size(*bytes), mark(*verified));
            (Data, Plain, format!("[file] {from}{mark} sends {name}, {size}; `socp receive-file {id}` fetches it"))
        }
        Event::FileSaved { from, path, bytes, .. } => {
            (Data, Plain, format!("[file saved] {}, {}, from {from}", clean(path), file::size(*bytes)))
        }
        Event::Unreadable { kind } => (Data, Plain, format!("[unreadable] a {kind} could not be opened")),
        Event::Sent(Sent { kind: "post", recipients, silent, .. }) => {
            let people = if *recipients == 1 { "1 user".into() } else { format!("{recipients} users") };
            let silent = match silent.len() {
                0 => String::new(),
                count => format!("; {count} server(s) did not answer in time"),
            };
            (Talk, Dim, format!("[sent] to all: handed to {people}{silent}"))
        }
        Event::Gap { missed } => {
            (Data, Loud, format!("[inbox] {missed} message(s) grew too old before they were read"))
        }
        Event::ChannelGap { missed } => {
            (Data, Loud, format!("[all] up to {missed} post(s) are gone that were made while this device was away"))
        }
        Event::Sent(Sent { kind: "file", to, .. }) => {
            (Talk, Dim, format!("[sent] the file to {to}: ready to be fetched"))
        }
        Event::Sent(Sent { to, outcome: "stored", .. }) => {
            (Talk, Dim, format!("[sent] to {to}: stored until they come online"))
        }
        Event::Sent(Sent { to, outcome: "queued", .. }) => {
            let queued = "queued; their server does not answer, and yours goes on trying for three days";
            (Talk, Plain, format!("[sent] to {to}: {queued}"))
        }
        Event::Sent(Sent { to, .. }) => (Talk, Dim, format!("[sent] to {to}: handed over")),
        Event::Receipt(Receipted { from, kind, ids, .. }) => {
            let became = if *kind == "read" { "has read" } else { "has got" };
            (Talk, Dim, format!("[receipt] {from} {became} {} of yours", counted(ids.len() as u64, "message")))
        }
        Event::Settled { to, outcome, reason, .. } => {
            let (user, server) = to.split_once('@').unwrap_or((to, ""));
            let to = format!("{user}@{}", server.get(..8).unwrap_or(server));
            let became = match (*outcome, reason) {
                ("rejected", Some(reason)) => format!("was refused ({reason})"),
                ("expired", _) => "is given up: their server did not answer for three days".into(),
                _ => "has arrived".into(),
            };
            (Data, Plain, format!("[sent] what was queued for {to} {became}"))
        }
        Event::RecipientOffline { user } => (Data, Plain, format!("recipient went offline: {user}")),
        Event::Moved { user, to, pinned: true, .. } => {
            (Data, Plain, format!("[user moved] {user} has moved to {to}: the same key, now pinned for it"))
        }
        Event::Moved { user, to, .. } => {
            let later = "its server cannot be asked now, so its key is not pinned yet";
            (Data, Plain, format!("[user moved] {user} has moved to {to}: {later}"))
        }
        Event::MoveRefused { message, .. } => (Talk, Loud, format!("[MOVE REFUSED] {}", clean(message))),
        Event::KeyChanged { message, .. } => (Talk, Loud, format!("[KEY CHANGED] {message}")),
        Event::VerificationLapsed { message, .. } => (Talk, Loud, format!("[NOT VERIFIED ANY MORE] {message}")),
        Event::User(user) => (Data, Plain, listed(user)),
        Event::Listed { entries: 1 } => (Talk, Dim, "1 user online".into()),
        Event::Listed { entries } => (Talk, Dim, format!("{entries} users online")),
        Event::Who { user, online, fingerprint, statements, verified, .. } => {
            let verified = if *verified { ", verified" } else { "" };
            let presence = if *online { "online" } else { "offline" };
            (Data, Plain, format!("{user} is {presence}; key number {statements}, fingerprint {fingerprint}{verified}"))
        }
        Event::Past(Past { from, text, received_unix_ms, unread, verified, .. }) => {
            let when = when(*received_unix_ms, *unread);
            (Data, Plain, format!("{when}  {from}{}: {}", mark(*verified), body(text)))
        }
        Event::PastUnreadable { from, why, received_unix_ms, unread } => {
            let by = from.as_ref().map(|from| format!(" that says it is from {from}")).unwrap_or_default();
            let (mark, told) = match *why {
                "unverified" => ("unverified", ": their key cannot be had now, so it is not shown; try later"),
                _ => ("unreadable", " could not be opened"),
            };
            (Data, Plain, format!("{}  [{mark}] a message{by}{told}", when(*received_unix_ms, *unread)))
        }
        Event::HistoryEnd { shown, unread, has_older } => {
            let unread = if *unread > 0 { format!(", {unread} of them unread (marked *)") } else { String::new() };
            let older = if *has_older { "; there are older ones" } else { "" };
            (Talk, Dim, format!("{} received{unread}{older}", counted(*shown as u64, "message")))
        }
        Event::Error { reason, message, hint, .. } => {
            let hint = hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
            (Talk, Plain, format!("error: {} ({reason}){hint}", clean(message)))
        }
        Event::Disconnected { message, retry_ms, .. } => {
            (Talk, Dim, format!("[disconnected] {}; trying again in {retry_ms} ms", clean(message)))
        }
        Event::Detached { .. } => (Talk, Dim, "offline".into()),
    })
}

/// What stands behind the name of one whose key was compared.
fn mark(verified: bool) -> &'static str {
    if verified { " \u{2713}" } else { "" }
}

/// When a message came, and a mark if this device has not shown it before.
fn when(received_unix_ms: i64, unread: bool) -> String {
    format!("{}{}", if unread { "* " } else { "  " }, date::utc(received_unix_ms))
}

fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

fn with_display_name(user: &Shown) -> String {
    match clean(&user.display_name) {
        name if name.is_empty() => user.user.clone(),
        name => format!("{} ({name})", user.user),
    }
}

/// A line of a list.
pub fn listed(user: &Shown) -> String {
    let sessions = if user.sessions > 1 { format!("  {} sessions", user.sessions) } else { String::new() };
    let status = if user.status.is_empty() { String::new() } else { format!("  {}", clean(&user.status)) };
    let key = user.fingerprint.get(..16).unwrap_or_default();
    format!("{}  key {key}{sessions}{status}", with_display_name(user))
}

#[cfg(test)]
mod tests {
    use socp::v1::DirectoryEntry;

    use super::*;

    fn text(event: &Event) -> Option<String> {
        line(event).map(|(_, _, line)| line)
    }

    fn alice() -> Shown {
        Shown::from(&DirectoryEntry { user: "alice@server-a".into(), name: "alice".into(), ..Default::default() })
    }

    #[test]
    fn people_read_who_comes_and_goes_and_why() {
        let added = Event::Added { user: alice(), revision: 1, initial: false };
        assert_eq!(text(&added).unwrap(), "[user added] alice@server-a is now available for messaging");
        let removed = |reason| Event::Removed {
            user: "alice@server-a".into(),
            name: String::new(),
            server_id: String::new(),
            reason,
            revision: 1,
        };
        assert_eq!(text(&removed("left")).unwrap(), "[user removed] alice@server-a has left");
        let unreachable = text(&removed("unreachable")).unwrap();
        assert_eq!(unreachable, "[user removed] alice@server-a is gone: its server cannot be reached");
        let moved = text(&removed("moved")).unwrap();
        assert_eq!(moved, "[user removed] alice@server-a has left, and is said to have moved");
    }

    #[test]
    fn a_move_that_was_checked_names_both_addresses_and_one_that_is_refused_is_loud() {
        let moved = |pinned| Event::Moved {
            user: "alice@server-a".into(),
            to: "alice@server-b".into(),
            server_id: String::new(),
            fingerprint: String::new(),
            pinned,
        };
        let told = text(&moved(true)).unwrap();
        assert_eq!(told, "[user moved] alice@server-a has moved to alice@server-b: the same key, now pinned for it");
        assert!(text(&moved(false)).unwrap().contains("has moved to alice@server-b: its server cannot be asked now"));
        let refused = Event::MoveRefused { user: "alice@server-a".into(), message: "NO\u{1b}".into() };
        assert_eq!(line(&refused).unwrap(), (Stream::Talk, Tone::Loud, "[MOVE REFUSED] NO".into()));
    }

    #[test]
    fn what_came_before_is_shown_with_its_time_and_a_mark_and_what_cannot_be_read_as_such() {
        let past = |text: &str, unread| Past {
            from: "bob@server-b".into(),
            id: String::new(),
            text: text.into(),
            sent_unix_ms: 0,
            received_unix_ms: 951_782_400_000,
            unread,
            verified: unread,
        };
        assert_eq!(text(&Event::Past(past("hi", false))).unwrap(), "  2000-02-29 00:00:00Z  bob@server-b: hi");
        let told = text(&Event::Past(past("hi\n[unreadable]\u{1b}", true))).unwrap();
        assert_eq!(told, "* 2000-02-29 00:00:00Z  bob@server-b \u{2713}: hi\n    [unreadable]");
        let told = |from: Option<&str>, why| {
            let from = from.map(str::to_owned);
            text(&Event::PastUnreadable { from, why, received_unix_ms: 951_782_400_000, unread: false }).unwrap()
        };
        assert_eq!(told(None, "unreadable"), "  2000-02-29 00:00:00Z  [unreadable] a message could not be opened");
        let by = told(Some("bob@server-b"), "unverified");
        assert!(by.contains("[unverified] a message that says it is from bob@server-b: their key"), "{by}");
        let end = text(&Event::HistoryEnd { shown: 1, unread: 1, has_older: true }).unwrap();
        assert_eq!(end, "1 message received, 1 of them unread (marked *); there are older ones");
        assert_eq!(
            text(&Event::Unread { messages: 2 }).unwrap(),
            "[unread] 2 messages came while this device was away:"
        );
    }

    #[test]
    fn an_update_is_told_only_if_it_shows() {
        assert_eq!(text(&Event::Updated { user: alice(), revision: 1, visibly: false }), None);
        let user = Shown { status: "away".into(), display_name: "Alice".into(), ..alice() };
        let told = text(&Event::Updated { user, revision: 1, visibly: true });
        assert_eq!(told.unwrap(), "[user updated] alice@server-a (Alice): away");
    }

    #[test]
    fn hostile_text_cannot_steer_the_terminal_or_pass_for_an_event() {
        let received = |text: &str| Received {
            from: "mallory@b".into(),
            id: String::new(),
            text: text.into(),
            sent_unix_ms: 0,
            received_unix_ms: 0,
            unread: false,
            verified: false,
        };
        let told = text(&Event::Message(received("hi\u{1b}[2J\r\n[user removed] bob@b has left"))).unwrap();
        assert_eq!(told, "mallory@b: hi[2J\n    [user removed] bob@b has left");
        assert_eq!(clean("a\u{202e}b\nc"), "ab c");
    }
}
