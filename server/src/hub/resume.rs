//! Resume tokens: after which revision of which start of the server a watch goes on, and what it asked for.
//!
//! A token is hexadecimal text: a version byte, 8 bytes of the start id, the revision, and the fingerprint of filter and
//! detail. It is a note of the client's own place, not a permission, so it is not signed: whoever makes one up
//! sees a part of what a new watch would show.

use socp::{
    id::{StartId, hex, parse_hex},
    rejection::Rejection,
    v1::Reason,
};

const VERSION: u8 = 1;

/// Makes and reads the tokens of one kind of watch at one start of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tokens {
    start: [u8; 8],
    fingerprint: [u8; 8],
}

impl Tokens {
    /// For watches with this fingerprint of filter and detail.
    pub fn new(start: &StartId, fingerprint: [u8; 8]) -> Self {
        let mut part = [0; 8];
        part.copy_from_slice(&start.as_bytes()[..8]);
        Self { start: part, fingerprint }
    }

    /// The token after a revision.
    pub fn at(&self, revision: u64) -> String {
        hex(&[&[VERSION][..], &self.start, &revision.to_be_bytes(), &self.fingerprint].concat())
    }

    /// The revision of a token. Rejects: RESUME_TOKEN_INVALID, REVISION_COMPACTED if it is of another start.
    pub fn read(&self, token: &str) -> Result<u64, Rejection> {
        let bytes: [u8; 25] = parse_hex(token).ok_or_else(invalid)?;
        if bytes[0] != VERSION || bytes[17..] != self.fingerprint {
            return Err(invalid());
        }
        if bytes[1..9] != self.start {
            return Err(compacted());
        }
        let mut revision = [0; 8];
        revision.copy_from_slice(&bytes[9..17]);
        Ok(u64::from_be_bytes(revision))
    }
}

/// The rejection of a token that cannot be one of this kind of watch.
pub fn invalid() -> Rejection {
    Rejection::new(Reason::ResumeTokenInvalid, "the resume token is not of a watch with this filter and key detail")
}

/// The rejection of a token whose changes are no longer kept.
pub fn compacted() -> Rejection {
    Rejection::new(Reason::RevisionCompacted, "the resume token is too old; watch again without one")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(start: u8, fingerprint: u8) -> Tokens {
        Tokens::new(&StartId::from_bytes(&[start; 16]).unwrap(), [fingerprint; 8])
    }

    #[test]
    fn a_token_is_read_as_it_was_made() {
        let tokens = tokens(1, 0xab);
        assert_eq!(tokens.read(&tokens.at(u64::MAX)), Ok(u64::MAX));
    }

    #[test]
    fn a_token_of_another_start_is_too_old_and_one_of_another_watch_is_invalid() {
        let reason = |token: &str| tokens(1, 0xab).read(token).unwrap_err().reason;
        assert_eq!(reason(&tokens(9, 0xab).at(5)), Reason::RevisionCompacted);
        assert_eq!(reason(&tokens(1, 9).at(5)), Reason::ResumeTokenInvalid);
        let token = tokens(1, 0xab).at(5);
        for malformed in [&token[1..], &token.to_uppercase(), "x", &token.replacen("01", "02", 1)] {
            assert_eq!(reason(malformed), Reason::ResumeTokenInvalid, "{malformed}");
        }
    }
}
