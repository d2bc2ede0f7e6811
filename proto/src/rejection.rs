//! Rejections: refusals that the requester sees and can act on. State is as before.
//!
//! Faults of our own environment and bugs are not rejections. The shell maps a reason to a gRPC code with
//! [`code`], the one table of it.

use alloc::{borrow::Cow, string::String, vec::Vec};
use core::fmt;

use crate::v1::Reason;

/// Why a request was refused, with what a program and a person need to act on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The machine-readable reason.
    pub reason: Reason,
    /// One sentence for people, lower case, without a full stop. Names the thing refused; never secret.
    pub message: Cow<'static, str>,
    /// Key and value pairs of `google.rpc.ErrorInfo`.
    pub metadata: Vec<(&'static str, String)>,
}

impl Rejection {
    /// A rejection without metadata.
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, message: message.into(), metadata: Vec::new() }
    }

    /// Adds one pair of metadata.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.metadata.push((key, value.into()));
        self
    }

    /// The reason as it stands in `google.rpc.ErrorInfo`, e.g. `USER_NOT_FOUND`.
    pub fn name(&self) -> &'static str {
        name(self.reason)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.name())
    }
}

impl core::error::Error for Rejection {}

/// The name of a reason without its prefix.
pub fn name(reason: Reason) -> &'static str {
    let full = reason.as_str_name();
    full.strip_prefix("REASON_").unwrap_or(full)
}

/// The reason with this name, e.g. `USER_NOT_FOUND`; `None` if this version knows no such reason.
pub fn parse(name: &str) -> Option<Reason> {
    let full = alloc::format!("REASON_{name}");
    Reason::from_str_name(&full)
}

/// A gRPC status code, by its number in the gRPC specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
#[allow(missing_docs, reason = "the names are gRPC's own")]
pub enum Code {
    InvalidArgument = 3,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// The gRPC code of a reason. UNAVAILABLE alone invites a retry.
pub fn code(reason: Reason) -> Code {
    match reason {
        Reason::UserNotFound | Reason::FileNotFound => Code::NotFound,
        Reason::UserAmbiguous
        | Reason::NameInvalid
        | Reason::BadKey
        | Reason::InvalidSig
        | Reason::StatementInvalid
        | Reason::TimeOutOfRange
        | Reason::UnknownType
        | Reason::ResumeTokenInvalid => Code::InvalidArgument,
        Reason::NameInUse | Reason::IdReused => Code::AlreadyExists,
        Reason::InviteRequired | Reason::RegistrationClosed | Reason::UserDisabled | Reason::SenderMismatch => {
            Code::PermissionDenied
        }
        Reason::NonceExpired | Reason::WrongServer | Reason::TokenInvalid => Code::Unauthenticated,
        Reason::RecipientOffline
        | Reason::RecipientKeyChanged
        | Reason::NobodyOnline
        | Reason::VersionMismatch
        | Reason::UserMoved => Code::FailedPrecondition,
        Reason::TooLarge | Reason::TooMany | Reason::InboxFull | Reason::FilesFull => Code::ResourceExhausted,
        Reason::Timeout | Reason::HomeUnreachable | Reason::WatcherTooSlow | Reason::Draining => Code::Unavailable,
        Reason::RevisionCompacted | Reason::CursorUnknown => Code::OutOfRange,
        Reason::Replaced => Code::Aborted,
        Reason::ServerFailed | Reason::Unspecified => Code::Internal,
    }
}
