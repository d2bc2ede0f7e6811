//! Why a connection ended, in words that both ends and all transports share.

/// Why a connection is over.
///
/// The same type serves a client ([`Channel::closed`](crate::Channel::closed)), a handler
/// ([`PeerInfo::closed`](crate::PeerInfo::closed)) and transports other than QUIC that hand out a `PeerInfo`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Closed {
    /// This side closed it, with the reason given then; empty when it was only no longer needed.
    #[error("closed by this side: {reason}")]
    Here {
        /// What the local caller said.
        reason: String,
    },
    /// The peer closed it.
    #[error("closed by the peer (code {code:#x}): {reason}")]
    ByPeer {
        /// HTTP/3 error code (RFC 9114, section 8.1); `0x100` means that nothing was wrong.
        code: u64,
        /// What the peer said: not trusted, not necessarily printable, at most a datagram long.
        reason: String,
    },
    /// Nothing was heard from the peer for the idle timeout: it is gone, or the network between is.
    #[error("nothing heard from the peer within the idle timeout")]
    Idle,
    /// The peer answered that it knows nothing of this connection, as after a crash and restart.
    #[error("the peer no longer knows the connection")]
    Forgotten,
    /// The transport or TLS failed, as with a certificate that one side refuses.
    #[error("{0}")]
    Failed(String),
}

impl Closed {
    /// Tells whether one of the two sides closed the connection with nothing wrong.
    pub fn is_orderly(&self) -> bool {
        match self {
            Closed::Here { .. } => true,
            Closed::ByPeer { code, .. } => *code == h3::error::Code::H3_NO_ERROR.value(),
            Closed::Idle | Closed::Forgotten | Closed::Failed(_) => false,
        }
    }
}

impl From<quinn::ConnectionError> for Closed {
    fn from(error: quinn::ConnectionError) -> Closed {
        match error {
            quinn::ConnectionError::LocallyClosed => Closed::Here { reason: String::new() },
            quinn::ConnectionError::ApplicationClosed(close) => Closed::ByPeer {
                code: close.error_code.into_inner(),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            quinn::ConnectionError::TimedOut => Closed::Idle,
            quinn::ConnectionError::Reset => Closed::Forgotten,
            other => Closed::Failed(other.to_string()),
        }
    }
}
