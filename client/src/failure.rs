//! What went wrong, in the words and with the exit code that the user gets.
//!
//! Two kinds: refused (somebody said no, and said why) and failed (environment, network, usage). Nothing in a
//! failure is secret.

use std::{fmt, io, path::Path, process::ExitCode};

use socp::{
    rejection::{self, Rejection},
    v1::Reason,
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::render;

/// The domain of `google.rpc.ErrorInfo` under which servers give reasons.
const DOMAIN: &str = "socp";

/// Why a command did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Whose decision it was.
    pub kind: Kind,
    /// Machine-readable: a reason of the contract, or one of this program's own (`KEY_CHANGED`, `UNREACHABLE`, `FAILED`).
    pub reason: String,
    /// One sentence that names the thing in backticks, without a full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether the same may succeed a little later without anybody doing anything.
    pub passing: bool,
    /// The new address (`name@server-id`) of a user who moved, as a server says: proved by nothing.
    pub moved_to: Option<Box<str>>,
    /// What of the request was refused, as a server says.
    pub field: Option<Box<str>>,
}

/// Whose decision a failure was; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A server, or this client for the user's safety, refused. Exit code 1.
    Refused,
    /// The environment, the network or the usage. Exit code 2.
    Failed,
}

impl Failure {
    /// A refusal with a reason.
    pub fn refused(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Refused,
            reason: reason.into(),
            message: message.into(),
            hint: None,
            passing: false,
            moved_to: None,
            field: None,
        }
    }

    /// A failure of environment, network or usage.
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Failed,
            reason: "FAILED".into(),
            message: message.into(),
            hint: None,
            passing: false,
            moved_to: None,
            field: None,
        }
    }

    /// A server that cannot be reached now.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self { reason: "UNREACHABLE".into(), passing: true, ..Self::failed(message) }
    }

    /// A file that could not be used.
    pub fn file(what: &str, path: &Path, error: &io::Error) -> Self {
        Self::failed(format!("cannot {what} `{}`: {error}", path.display()))
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Tells whether a server gave this reason.
    pub fn is(&self, reason: Reason) -> bool {
        self.reason == rejection::name(reason)
    }

    /// The exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self.kind {
            Kind::Refused => 1,
            Kind::Failed => 2,
        })
    }
}

impl fmt::Display for Failure {
    /// `error: …`, a blank line, `hint: …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        if self.kind == Kind::Refused {
            write!(f, " ({})", self.reason)?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\n\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        Self { hint: hint(rejection.reason).map(Into::into), ..Self::refused(rejection.name(), rejection.message) }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        // Perhaps the words of a server that has not proved who it is.
        let message = render::clean(status.message()).trim_end_matches('.').to_owned();
        let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN);
        match info {
            Some(info) => {
                let known = rejection::parse(&info.reason);
                Self {
                    hint: known.and_then(hint).map(Into::into),
                    passing: known.is_some_and(is_passing),
                    moved_to: info.metadata.get("moved_to").map(|address| render::clean(address).into()),
                    field: info.metadata.get("field").map(|field| render::clean(field).into()),
                    ..Self::refused(render::clean(&info.reason), message)
                }
            }
            None => match status.code() {
                Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal => {
                    Self::unreachable(format!("the connection to the server failed: {message}"))
                }
                Code::Unimplemented => Self::failed(format!("the server does not know this call: {message}"))
                    .hint("client and server may be of different versions; see `socp --version`"),
                code => Self::failed(format!("the server answered {code:?}: {message}")),
            },
        }
    }
}

/// Whether trying again a little later can help.
fn is_passing(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Draining
            | Reason::WatcherTooSlow
            | Reason::Timeout
            | Reason::HomeUnreachable
            | Reason::TooMany
            | Reason::ServerFailed
            | Reason::TokenInvalid
            | Reason::NonceExpired
            | Reason::RevisionCompacted
            | Reason::ResumeTokenInvalid
            | Reason::CursorUnknown
    )
}

/// What a person can do about a rejection; `None` where the message says all.
fn hint(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::UserNotFound => "`socp list` shows who is online; names are `name@server`",
        Reason::UserAmbiguous => "say the whole name, `name@server`",
        Reason::NameInUse => "choose another name; if it is yours, bring its key with `--key FILE`",
        Reason::NameInvalid => "a name is 1 to 64 characters of `a-z 0-9 . _ -`",
        Reason::BadKey => "the key must be RSA of 4096 bits with exponent 65537; without `--key` one is made",
        Reason::InviteRequired => {
            "ask the operator for an invite (`socp-server invite`) and pass it with `--invite CODE`"
        }
        Reason::RegistrationClosed => "ask the operator to open registration",
        Reason::UserDisabled => "ask the operator of the server",
        Reason::UserMoved => {
            "if it is you, use the profile of the new address; of others `socp fingerprint USER` tells it"
        }
        Reason::RecipientOffline => "nothing was kept; send again when they are back",
        Reason::InboxFull => "the recipient has to read or lose older messages first; try later",
        Reason::FileNotFound => "files are kept for some days only; ask for it again",
        Reason::FilesFull => "older files of yours have to expire first; try later, or ask the operator",
        Reason::RecipientKeyChanged => "send again; if it repeats, compare with `socp fingerprint USER`",
        Reason::TimeOutOfRange => "set this machine's clock",
        Reason::TooLarge => "send less at once",
        Reason::TooMany => "wait a moment and send again",
        Reason::Timeout => "the recipient's server did not answer; the message may or may not have arrived",
        Reason::HomeUnreachable => "the recipient's server cannot be reached now; try later",
        Reason::NobodyOnline => "`socp list` shows who is online",
        Reason::Draining => "the server is stopping; try again in a moment",
        Reason::ServerFailed => "the server's operator has the cause in the log",
        Reason::TokenInvalid => "log in again: any command does",
        Reason::WrongServer => "this profile belongs to another server; see `socp whoami`",
        Reason::Replaced => "the same session was attached elsewhere",
        Reason::VersionMismatch => "client and server are of different versions; see `socp --version`",
        Reason::Unspecified
        | Reason::InvalidSig
        | Reason::CursorUnknown
        | Reason::StatementInvalid
        | Reason::NonceExpired
        | Reason::SenderMismatch
        | Reason::IdReused
        | Reason::UnknownType
        | Reason::RevisionCompacted
        | Reason::ResumeTokenInvalid
        | Reason::WatcherTooSlow => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_reason_in_the_details_makes_a_refusal_with_a_hint() {
        let details = ErrorDetails::with_error_info("RECIPIENT_OFFLINE", "socp", HashMap::new());
        let status = Status::with_error_details(Code::FailedPrecondition, "`bob@b` is not online", details);
        let failure = Failure::from(status);
        assert_eq!((failure.kind, failure.passing), (Kind::Refused, false));
        assert!(failure.is(Reason::RecipientOffline));
        let text = failure.to_string();
        assert!(text.starts_with("error: `bob@b` is not online (RECIPIENT_OFFLINE)\n\nhint: "), "{text}");
    }

    #[test]
    fn a_lost_connection_passes_and_is_no_refusal() {
        let failure = Failure::from(Status::unavailable("connection lost"));
        assert_eq!((failure.kind, failure.passing), (Kind::Failed, true));
    }

    #[test]
    fn a_reason_of_another_domain_does_not_count() {
        let details = ErrorDetails::with_error_info("TOKEN_INVALID", "elsewhere", HashMap::new());
        let failure = Failure::from(Status::with_error_details(Code::Unauthenticated, "no", details));
        assert_eq!(failure.kind, Kind::Failed);
    }
}
