//! The stateless reset (RFC 9000, section 10.3): how a server that was killed and started anew tells its old clients that
//! it knows nothing of their connections, so that they need not wait for their idle timeout.
//!
//! Decided here: a server's connection ids and reset tokens come from one secret that outlives the process. A new start
//! recognises an id that an old one gave out, and answers a packet for it with that id's token, which only the client of
//! that connection was told, under encryption; so nobody who does not see the packets can forge a reset.
//!
//! The ids are not those of quinn's `HashedConnectionIdGenerator`. Its hash is no cryptographic one and its ids differ in
//! 3 bytes only. Under a lasting key anybody could collect the tokens of all 2^24 by sending packets for ids that are not
//! in use, and then end others' connections. Here 8 bytes are random and the rest is a keyed check, so that an id does not
//! come again and one that was not given out is answered with nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{hmac, rand};
use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};
use quinn_proto::InvalidCid;

/// Time between two resets. A millisecond (quinn's default is 20) lets a server with 7,000 old clients tell all of them
/// within their usual idle time, for one keyed hash each. Only packets with an id that this server gave out are answered,
/// and a reset is shorter than the packet that it answers, so that forged source addresses amplify nothing and two
/// servers cannot keep answering each other.
const RESET_INTERVAL_MIN: Duration = Duration::from_millis(1);

/// Random bytes of a connection id: none comes again in the life of a secret.
const NONCE_BYTES: usize = 8;

/// Bytes of the check: a guess passes once in 2^32 packets, and then wins the token of an id that nobody uses.
const CHECK_BYTES: usize = 4;

const ID_BYTES: usize = NONCE_BYTES + CHECK_BYTES;

/// What a [`Server`](crate::Server) needs to be recognised after a restart: 32 bytes that nobody else knows.
///
/// They must be the same at each start, and serve one listener only: of two that share them, each would tell the reset
/// tokens of the other's connections to whoever shows it a packet of theirs. Never printed.
#[derive(Clone)]
pub struct ResetSecret([u8; 32]);

impl ResetSecret {
    /// Takes the secret: 32 bytes that are random, or derived from a key by a function such as HKDF.
    pub fn new(secret: [u8; 32]) -> ResetSecret {
        ResetSecret(secret)
    }

    /// Settings of an endpoint whose ids and tokens come from this secret.
    pub(crate) fn endpoint(&self) -> EndpointConfig {
        let ids = self.derive(b"connection ids");
        let mut config = EndpointConfig::new(Arc::new(self.derive(b"stateless reset tokens")));
        config.cid_generator(move || Box::new(Ids(ids.clone()))).min_reset_interval(RESET_INTERVAL_MIN);
        config
    }

    /// HMAC as a key derivation: one key for each use, none of which tells another or the secret.
    fn derive(&self, purpose: &[u8]) -> hmac::Key {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&secret, purpose).as_ref())
    }
}

impl fmt::Debug for ResetSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResetSecret(..)")
    }
}

/// Makes connection ids, random bytes and a check of them, and recognises its own.
struct Ids(hmac::Key);

impl Ids {
    fn check(&self, nonce: &[u8]) -> [u8; CHECK_BYTES] {
        let tag = hmac::sign(&self.0, nonce);
        *tag.as_ref().first_chunk().expect("a tag of SHA-256 has 32 bytes")
    }
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_BYTES];
        let (nonce, check) = id.split_at_mut(NONCE_BYTES);
        rand::fill(nonce).expect("the system has randomness");
        check.copy_from_slice(&self.check(nonce));
        ConnectionId::new(&id)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        let (nonce, check) = id.split_at_checked(NONCE_BYTES).ok_or(InvalidCid)?;
        verify_slices_are_equal(check, &self.check(nonce)).map_err(|_| InvalidCid)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(secret: u8) -> Ids {
        Ids(ResetSecret::new([secret; 32]).derive(b"connection ids"))
    }

    #[test]
    fn ids_are_recognised_under_the_same_secret_only() {
        let id = ids(1).generate_cid();
        assert_eq!(id.len(), ids(1).cid_len());
        assert!(ids(1).validate(&id).is_ok());
        assert!(ids(2).validate(&id).is_err());
        assert_ne!(id, ids(1).generate_cid());
    }

    #[test]
    fn an_id_that_was_changed_cut_or_lengthened_is_refused() {
        let id = ids(1).generate_cid();
        for at in 0..ID_BYTES {
            let mut changed = id.to_vec();
            changed[at] ^= 1;
            assert!(ids(1).validate(&ConnectionId::new(&changed)).is_err(), "byte {at}");
        }
        for length in 0..ID_BYTES {
            assert!(ids(1).validate(&ConnectionId::new(&id[..length])).is_err(), "{length} bytes");
        }
        assert!(ids(1).validate(&ConnectionId::new(&[&id[..], &[0]].concat())).is_err());
    }

    #[test]
    fn the_keys_of_one_secret_differ_and_it_is_not_printed() {
        let secret = ResetSecret::new([7; 32]);
        let tag = |purpose| hmac::sign(&secret.derive(purpose), b"id").as_ref().to_vec();
        assert_eq!(tag(b"connection ids"), tag(b"connection ids"));
        assert_ne!(tag(b"connection ids"), tag(b"stateless reset tokens"));
        assert_eq!(format!("{secret:?}"), "ResetSecret(..)");
    }
}
