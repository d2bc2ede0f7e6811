//! How many connections each peer has, by who its certificate says it is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::pki_types::CertificateDer;

/// A bound for each peer, so that no one takes the places of all.
#[derive(Clone, Copy, Debug)]
pub struct PerPeer {
    /// Connections that a peer may have at once; one more is closed after its handshake.
    pub connections_max: usize,
    /// Who a certificate stands for. Where that is `None`, and where there is no certificate, nothing is counted.
    pub identify: fn(&CertificateDer<'_>) -> Option<[u8; 32]>,
}

/// The connections of all peers. All clones count together.
#[derive(Clone, Default)]
pub(crate) struct Counts {
    connections: Arc<Mutex<BTreeMap<[u8; 32], usize>>>,
}

/// A connection that is counted, until dropped.
pub(crate) struct Place {
    counts: Counts,
    peer: [u8; 32],
}

impl Counts {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<[u8; 32], usize>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more of the peer with this certificate, if it may have it.
    pub(crate) fn enter(&self, certificate: &CertificateDer<'_>, bound: &PerPeer) -> Result<Option<Place>, TooMany> {
        let Some(peer) = (bound.identify)(certificate) else {
            return Ok(None);
        };
        let mut connections = self.lock();
        let count = connections.entry(peer).or_default();
        if *count >= bound.connections_max {
            return Err(TooMany);
        }
        *count += 1;
        Ok(Some(Place { counts: self.clone(), peer }))
    }
}

/// The peer has as many as it may have.
pub(crate) struct TooMany;

impl Drop for Place {
    fn drop(&mut self) {
        let mut connections = self.counts.lock();
        if let Some(count) = connections.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_as_many_places_as_it_may_and_others_have_theirs() {
        let bound = PerPeer {
            connections_max: 2,
            identify: |certificate| certificate.first().filter(|first| **first > 0).map(|first| [*first; 32]),
        };
        let counts = Counts::default();
        let enter = |peer: u8| counts.enter(&CertificateDer::from(vec![peer]), &bound);
        let (one, two) = (enter(1).ok().flatten().unwrap(), enter(1).ok().flatten().unwrap());
        assert!(enter(1).is_err());
        let other = enter(2).ok().flatten().unwrap();
        assert!(enter(0).is_ok_and(|place| place.is_none()), "who is nobody is not counted");
        drop(one);
        let again = enter(1).ok().flatten().unwrap();
        assert!(enter(1).is_err());
        drop((two, other, again));
        assert!(counts.lock().is_empty(), "nothing is kept of who is gone");
    }
}
