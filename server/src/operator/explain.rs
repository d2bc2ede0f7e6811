//! How the answer to `socp-server explain` is printed.

use std::io::{self, Write};

use serde_json::{Value, json};
use socp::operator::v1::{
    ChangeCause, ChangeKind, ExplainResponse, HomeState, OwnSession, Presence, PresenceChange, Reach, Word,
};

use super::{
    peers::{reach, some_number, some_text},
    text::{print_aligned, time},
};

/// One object, with the names of the contract; what there is not is null.
pub(super) fn print_json(explained: &ExplainResponse, out: &mut impl Write) -> io::Result<()> {
    let word = explained.word.as_ref().map(|word| {
        json!({
            "online": word.online,
            "held": word.held,
            "batch": word.batch,
            "online_since": some_number(word.online_since),
            "sessions": word.sessions,
            "heard_from": some_text(&word.heard_from),
            "heard_unix_ms": some_number(word.heard_unix_ms),
        })
    });
    let sessions = explained.sessions.iter().map(|session| {
        json!({
            "session_id": session.session_id,
            "created_unix_ms": session.created_unix_ms,
            "attached": session.attached,
            "grace_until_unix_ms": some_number(session.grace_until_unix_ms),
        })
    });
    let line = json!({
        "user": explained.user,
        "server_id": explained.server_id,
        "presence": presence(explained.presence()),
        "reach": reach(explained.reach()),
        "next_hop": some_text(&explained.next_hop),
        "home_state": match explained.home_state() {
            HomeState::Shown => "shown",
            HomeState::Grace => "grace",
            HomeState::Returning => "returning",
            HomeState::Away => "away",
            HomeState::Ended => "ended",
            HomeState::NotAdmitted => "not-admitted",
            HomeState::Contradicted => "contradicted",
            HomeState::Held => "held",
            HomeState::Unheard | HomeState::Unspecified => "unheard",
        },
        "grace_until_unix_ms": some_number(explained.grace_until_unix_ms),
        "needed_position": some_number(explained.needed_position),
        "epoch": explained.epoch,
        "position": explained.position,
        "told_position": explained.told_position,
        "word": word,
        "sessions": sessions.collect::<Vec<_>>(),
        "last_removal": explained.last_removal.as_ref().map(change),
        "changes": explained.changes.iter().map(change).collect::<Vec<_>>(),
        "forgotten_unix_ms": some_number(explained.forgotten_unix_ms),
        "moved_to": some_text(&explained.moved_to),
    });
    writeln!(out, "{line}")
}

fn change(change: &PresenceChange) -> Value {
    json!({
        "time_unix_ms": change.time_unix_ms,
        "kind": kind(change.kind()),
        "cause": match change.cause() {
            ChangeCause::Batch => "batch",
            ChangeCause::Snapshot => "snapshot",
            ChangeCause::Unreachable => "unreachable",
            ChangeCause::Goodbye => "goodbye",
            ChangeCause::NewEpoch => "new-epoch",
            ChangeCause::Reached => "reached",
            ChangeCause::NotAdmitted => "not-admitted",
            ChangeCause::Contradiction => "contradiction",
            ChangeCause::NotBack => "not-back",
            ChangeCause::Unspecified => "unknown",
        },
        "batch": some_number(change.batch),
        "epoch": change.epoch,
        "from": some_text(&change.from),
    })
}

/// A sentence that says why, then what it rests on, then what was before.
pub(super) fn print_text(explained: &ExplainResponse, out: &mut impl Write) -> io::Result<()> {
    let is_own = explained.reach() == Reach::Self_;
    let (_, home) = explained.user.split_once('@').unwrap_or((&*explained.user, ""));
    writeln!(out, "{} is shown as {}: {}.\n", explained.user, presence(explained.presence()), why(explained))?;

    let way = match explained.reach() {
        Reach::Self_ => "this server".into(),
        Reach::Linked => "a link of its own".into(),
        Reach::Through => format!("through {}", explained.next_hop),
        Reach::Unreachable | Reach::Unspecified => "none".into(),
    };
    let ExplainResponse { epoch, position, told_position, .. } = explained;
    let batches = match told_position.saturating_sub(*position) {
        0 if *epoch == 0 => "none".into(),
        0 => format!("{position} of epoch {epoch}, all that it told of"),
        lag => format!("{position} of epoch {epoch}, {lag} less than it told of"),
    };
    let removal = explained.last_removal.as_ref();
    let removed = removal.map_or_else(
        || "not that is remembered".into(),
        |past| format!("{}, {}", time(past.time_unix_ms), cause(past)),
    );
    let mut rows = vec![
        ["home".to_owned(), format!("{home} ({})", explained.server_id)],
        ["way there".into(), way],
        ["batches".into(), batches],
        [
            "its word".into(),
            explained.word.as_ref().map_or_else(|| "not that it is online".into(), |said| word(said, is_own)),
        ],
        ["last removed".into(), removed],
    ];
    rows.extend(explained.sessions.iter().map(|opened| ["session".into(), session(opened)]));
    if is_own && explained.sessions.is_empty() {
        rows.push(["session".into(), "none is open".into()]);
    }
    print_aligned(&rows, out)?;

    let reaches_back = match explained.forgotten_unix_ms {
        0 => "since this server started".into(),
        forgotten => format!("what was before {} is forgotten", time(forgotten)),
    };
    writeln!(out, "\nchanges, the latest first ({reaches_back}):")?;
    let rows = explained
        .changes
        .iter()
        .map(|past| [format!("  {}", time(past.time_unix_ms)), kind(past.kind()).into(), cause(past)]);
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() { writeln!(out, "  none") } else { print_aligned(&rows, out) }
}

fn presence(presence: Presence) -> &'static str {
    match presence {
        Presence::Online => "online",
        Presence::Offline => "offline",
        Presence::Unreachable | Presence::Unspecified => "unreachable",
    }
}

fn why(explained: &ExplainResponse) -> String {
    let is_own = explained.reach() == Reach::Self_;
    match (explained.presence(), explained.home_state()) {
        (Presence::Online, _) if is_own => "a session is attached, or was until a moment ago".into(),
        (Presence::Online, HomeState::Grace) => {
            format!("there is no way to its home, whose users stay until {}", time(explained.grace_until_unix_ms))
        }
        (Presence::Online, HomeState::Held) => format!(
            "its home said goodbye, and asked to hold its users until {}; it has not spoken of this one since",
            time(explained.grace_until_unix_ms)
        ),
        (Presence::Online, _) => "its home says so and can be reached".into(),
        (Presence::Offline, _) if !explained.moved_to.is_empty() => format!("moved to {}", explained.moved_to),
        (Presence::Offline, _) if is_own => "no session is attached".into(),
        (Presence::Offline, _) => "its home can be reached and does not call it online".into(),
        (_, HomeState::Returning) if explained.needed_position > 0 => {
            format!("there is a way to its home, and batches up to {} are awaited", explained.needed_position)
        }
        (_, HomeState::Returning) => "there is a way to its home, which has not said yet how far it is".into(),
        (_, HomeState::Ended) => "its home said goodbye".into(),
        (_, HomeState::Held) => "its home said goodbye".into(),
        (_, HomeState::Contradicted) => {
            "its home told different servers different things, and is believed nothing".into()
        }
        (_, HomeState::Unheard) => "nothing was heard of its home since this server started".into(),
        _ => "there is no way to its home".into(),
    }
}

fn word(word: &Word, is_own: bool) -> String {
    let said = if word.online {
        let sessions = if word.sessions == 1 { "session" } else { "sessions" };
        format!("online since batch {}, with {} {sessions}", word.online_since, word.sessions)
    } else {
        "offline".into()
    };
    let rests = if word.held { "held until those before it come" } else { "in order" };
    let heard = match (word.heard_unix_ms, &*word.heard_from) {
        (0, _) => "when it was heard is not remembered".into(),
        (at, _) if is_own => format!("said at {}", time(at)),
        (at, from) => format!("heard from {from} at {}", time(at)),
    };
    format!("{said}; by batch {}, {rests}; {heard}", word.batch)
}

fn session(session: &OwnSession) -> String {
    let OwnSession { session_id, created_unix_ms, attached, grace_until_unix_ms } = session;
    let state = match grace_until_unix_ms {
        _ if *attached => "attached".into(),
        0 => "not attached".into(),
        until => format!("broken, counts as attached until {}", time(*until)),
    };
    format!("{session_id}, {state}, since {}", time(*created_unix_ms))
}

fn kind(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Added => "added",
        ChangeKind::Updated => "updated",
        ChangeKind::Removed => "removed",
        ChangeKind::Moved => "moved",
        ChangeKind::Unspecified => "changed",
    }
}

fn cause(change: &PresenceChange) -> String {
    let PresenceChange { batch, epoch, .. } = change;
    let from = if change.from.is_empty() { String::new() } else { format!(", from {}", change.from) };
    match change.cause() {
        ChangeCause::Batch => format!("batch {batch} of epoch {epoch}{from}"),
        ChangeCause::Snapshot => format!("a snapshot as of batch {batch} of epoch {epoch}{from}"),
        ChangeCause::Unreachable => "there was no way to its home, and the grace was over".into(),
        ChangeCause::Goodbye => format!("its home said goodbye{from}"),
        ChangeCause::NewEpoch => "its home started anew".into(),
        ChangeCause::Reached => "its home could be reached, and all that it had told of was here".into(),
        ChangeCause::NotAdmitted => {
            "its home was blocked here, or nobody whose word counts vouched for it any more".into()
        }
        ChangeCause::NotBack => "its home restarted, and the user did not come back while held".into(),
        ChangeCause::Contradiction => format!("its home signed two batches of number {batch} in epoch {epoch}{from}"),
        ChangeCause::Unspecified => "by a cause that this version does not know".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away() -> ExplainResponse {
        let removal = PresenceChange {
            time_unix_ms: 1_700_000_000_000,
            kind: ChangeKind::Removed.into(),
            cause: ChangeCause::Unreachable.into(),
            epoch: 7,
            ..PresenceChange::default()
        };
        let word = Word { online: true, batch: 3, online_since: 3, sessions: 1, ..Word::default() };
        ExplainResponse {
            user: "carol@server-c".into(),
            server_id: "0c".into(),
            presence: Presence::Unreachable.into(),
            reach: Reach::Unreachable.into(),
            home_state: HomeState::Away.into(),
            epoch: 7,
            position: 3,
            told_position: 4,
            word: Some(word),
            last_removal: Some(removal.clone()),
            changes: vec![removal],
            forgotten_unix_ms: 1_699_999_999_000,
            ..ExplainResponse::default()
        }
    }

    fn text(explained: &ExplainResponse) -> String {
        let mut out = Vec::new();
        print_text(explained, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_first_line_says_why_and_the_rest_what_it_rests_on() {
        let text = text(&away());
        assert!(text.starts_with("carol@server-c is shown as unreachable: there is no way to its home.\n\n"), "{text}");
        for line in [
            "home          server-c (0c)",
            "way there     none",
            "batches       3 of epoch 7, 1 less than it told of",
            "last removed  2023-11-14 22:13:20, there was no way to its home, and the grace was over",
        ] {
            assert!(text.lines().any(|told| told == line), "{line}: {text}");
        }
        assert!(
            text.contains("online since batch 3, with 1 session; by batch 3, in order; when it was heard"),
            "{text}"
        );
    }

    #[test]
    fn it_is_said_how_far_back_the_changes_go() {
        assert!(text(&away()).contains("(what was before 2023-11-14 22:13:19 is forgotten)"));
        let whole = ExplainResponse { forgotten_unix_ms: 0, changes: Vec::new(), ..away() };
        assert!(text(&whole).ends_with("(since this server started):\n  none\n"));
    }

    #[test]
    fn of_one_who_moved_it_is_said_where_to() {
        let moved = ExplainResponse {
            presence: Presence::Offline.into(),
            reach: Reach::Self_.into(),
            home_state: HomeState::Shown.into(),
            moved_to: "carol@server-d".into(),
            ..away()
        };
        let told = text(&moved);
        assert!(told.starts_with("carol@server-c is shown as offline: moved to carol@server-d.\n"), "{told}");
    }

    #[test]
    fn one_user_is_one_object_with_null_for_what_there_is_not() {
        let mut out = Vec::new();
        print_json(&away(), &mut out).unwrap();
        let line: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&line["presence"], &line["home_state"]), (&"unreachable".into(), &"away".into()));
        assert_eq!((&line["next_hop"], &line["word"]["heard_unix_ms"]), (&Value::Null, &Value::Null));
        assert_eq!(line["last_removal"]["cause"], "unreachable");
    }
}
