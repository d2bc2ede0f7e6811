//! Rejections as gRPC statuses, and what a peer's closing words say.
//!
//! Every status carries `google.rpc.ErrorInfo` with domain `socp`; which code a reason has is decided in
//! [`socp::rejection::code`] and nowhere else. Absent on purpose: statuses made of anything but a rejection.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
};

use socp::{
    rejection::{self, Rejection},
    v1::Reason,
};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::limits::REASON_BYTES_MAX;

/// The domain of all our error details.
pub const DOMAIN: &str = "socp";

/// Room for all reasons, to count them.
const REASONS_MAX: usize = 64;

/// How often this process told each reason.
static TOLD: [AtomicU64; REASONS_MAX] = [const { AtomicU64::new(0) }; REASONS_MAX];

/// How often this process told each reason, to clients, peers and the operator.
pub fn told() -> impl Iterator<Item = (Reason, u64)> {
    let reasons = (1..).map_while(|number| Reason::try_from(number).ok());
    reasons.zip(&TOLD[1..]).map(|(reason, told)| (reason, told.load(Ordering::Relaxed)))
}

/// The status that tells of a rejection.
pub fn of(rejection: &Rejection) -> Status {
    if let Some(told) = usize::try_from(rejection.reason as i32).ok().and_then(|number| TOLD.get(number)) {
        told.fetch_add(1, Ordering::Relaxed);
    }
    let code = Code::from_i32(rejection::code(rejection.reason) as i32);
    let metadata: HashMap<_, _> =
        rejection.metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let details = ErrorDetails::with_error_info(rejection.name(), DOMAIN, metadata);
    Status::with_error_details(code, &*rejection.message, details)
}

/// The rejection for a fault of our own environment; the cause is for the log alone.
pub fn server_failed() -> Rejection {
    Rejection::new(Reason::ServerFailed, "the server failed; its operator finds the cause in its log")
}

/// The rejection for a server that is stopping.
pub fn draining() -> Rejection {
    Rejection::new(Reason::Draining, "the server is stopping")
}

/// The rejection of a message that the gRPC library could not take for being too large, or for being none, by the library's
/// status; `None` for any other status.
pub fn unreadable(plain: &Status) -> Option<Rejection> {
    match plain.code() {
        Code::OutOfRange => {
            let limit = plain.message().split_once("message length too large")?.1.split_once("the limit is: ")?.1;
            let limit = limit.split(' ').next()?;
            let rejection = Rejection::new(Reason::TooLarge, format!("the message is larger than {limit} bytes"));
            Some(rejection.with("limit_bytes", limit))
        }
        Code::Internal if plain.message().starts_with("failed to decode Protobuf message") => {
            let rejection = Rejection::new(Reason::UnknownType, "what was sent is not a message of this call");
            Some(rejection.with("field", "request"))
        }
        _ => None,
    }
}

/// Why a peer ended a link, by its own account: for logs, nothing is decided by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parting {
    /// The reason, where it named one that this version knows.
    pub reason: Option<Reason>,
    /// Its words with what metadata it gave, made printable and cut to [`REASON_BYTES_MAX`]; may be empty.
    pub text: String,
}

/// Reads a peer's status.
pub fn parting_of_status(status: &Status) -> Parting {
    let info = status.get_error_details().error_info().filter(|info| info.domain == DOMAIN).cloned();
    let Some(info) = info else {
        return Parting { reason: None, text: printable(status.message()) };
    };
    let mut pairs: Vec<_> = info.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.sort_unstable();
    let text = spell(&info.reason, status.message(), &pairs);
    Parting { reason: rejection::parse(&info.reason), text: printable(&text) }
}

/// The text with which a connection is closed for a rejection: `NAME: message; key=value`.
pub fn closing_text(rejection: &Rejection) -> String {
    let pairs: Vec<_> = rejection.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect();
    printable(&spell(rejection.name(), &rejection.message, &pairs))
}

/// Reads the text with which a peer closed the connection.
pub fn parting_of_text(text: &str) -> Parting {
    let reason = text.split_once(": ").and_then(|(name, _)| rejection::parse(name));
    Parting { reason, text: printable(text) }
}

fn spell(name: &str, message: &str, pairs: &[String]) -> String {
    let mut text = format!("{name}: {message}");
    for pair in pairs {
        text.push_str("; ");
        text.push_str(pair);
    }
    text
}

fn printable(text: &str) -> String {
    let mut shown = String::new();
    for letter in text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }) {
        if shown.len() + letter.len_utf8() > REASON_BYTES_MAX {
            break;
        }
        shown.push(letter);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons() -> impl Iterator<Item = Reason> {
        (1..).map_while(|number| Reason::try_from(number).ok())
    }

    #[test]
    fn each_rejection_maps_to_its_code_with_readable_error_info() {
        assert!(reasons().count() >= 31);
        for reason in reasons() {
            let rejection = Rejection::new(reason, "no").with("user", "alice@server-a");
            let status = of(&rejection);
            assert_eq!(status.code() as i32, rejection::code(reason) as i32);
            assert_ne!(status.code(), Code::Unknown);
            assert_eq!(status.message(), "no");
            let details = status.get_error_details();
            let info = details.error_info().expect("every status has it");
            assert_eq!((info.domain.as_str(), info.reason.as_str()), ("socp", rejection.name()));
            assert_eq!(info.metadata.get("user").map(String::as_str), Some("alice@server-a"));
        }
    }

    #[test]
    fn only_what_the_library_says_of_a_message_makes_it_unreadable() {
        let too_large = "Error, decoded message length too large: found 9 bytes, the limit is: 8 bytes";
        let reason = |status: Status| unreadable(&status).map(|rejection| (rejection.reason, rejection.metadata));
        let limit = vec![("limit_bytes", "8".to_owned())];
        assert_eq!(reason(Status::out_of_range(too_large)), Some((Reason::TooLarge, limit)));
        let field = vec![("field", "request".to_owned())];
        let none = Status::internal("failed to decode Protobuf message: invalid wire type");
        assert_eq!(reason(none), Some((Reason::UnknownType, field)));
        for other in [Status::internal("other"), Status::out_of_range("other"), Status::cancelled(too_large)] {
            assert_eq!(reason(other), None);
        }
    }

    #[test]
    fn a_peers_reason_is_read_from_its_status_and_from_its_closing_text() {
        let rejection =
            Rejection::new(Reason::VersionMismatch, "no common version").with("ours", "1.0").with("theirs", "2.0");
        let text = "VERSION_MISMATCH: no common version; ours=1.0; theirs=2.0";
        let expected = Parting { reason: Some(Reason::VersionMismatch), text: text.to_owned() };
        assert_eq!(parting_of_status(&of(&rejection)), expected);
        assert_eq!(closing_text(&rejection), text);
        assert_eq!(parting_of_text(text), expected);
    }

    #[test]
    fn a_hostile_closing_text_is_cut_and_made_printable() {
        let parting = parting_of_text(&format!("\x1b[2J\n{}", "é".repeat(1_000)));
        assert_eq!(parting.reason, None);
        assert!(parting.text.len() <= REASON_BYTES_MAX);
        assert!(!parting.text.chars().any(char::is_control));
        let foreign = Status::with_error_details(
            Code::Internal,
            "x",
            ErrorDetails::with_error_info("TOO_MANY", "example.org", HashMap::<String, String>::new()),
        );
        assert_eq!(parting_of_status(&foreign).reason, None);
    }

    #[test]
    fn there_is_room_to_count_every_reason_and_each_that_is_told_is() {
        let of = |wanted| told().find(|(reason, _)| *reason == wanted).map(|(_, told)| told).unwrap();
        let before = of(Reason::CursorUnknown);
        assert!(told().count() < REASONS_MAX && told().all(|(reason, _)| reason != Reason::Unspecified));
        super::of(&Rejection::new(Reason::CursorUnknown, "a test of counting"));
        assert!(of(Reason::CursorUnknown) > before);
    }
}
