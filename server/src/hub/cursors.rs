//! How far each watcher is, so that those who are behind are known though they ask for nothing, and can be got rid of.
//!
//! Sixteen bytes for each watcher there ever was at once.

use socp_quic::PeerInfo;

/// Set for a watcher that reads the present state; beside it stands the second in which it asked last.
const JOINING: u64 = 1 << 63;

/// A place that nobody has.
const FREE: u64 = u64::MAX;

/// The cursors of all watchers.
#[derive(Debug, Default)]
pub struct Cursors {
    at: Vec<u64>,
    peers: Vec<Option<PeerInfo>>,
    free: Vec<u32>,
}

/// The cursor of one watcher.
#[derive(Debug, PartialEq, Eq)]
pub struct Cursor(u32);

impl Cursor {
    /// Its place, which no other watcher has; as small as can be.
    pub fn place(&self) -> usize {
        self.0 as usize
    }
}

/// Where a watcher is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Its transport asked in this second for a part of the present state.
    Joining(u64),
    /// Its transport took everything up to this revision, and asked for more.
    Following(u64),
}

impl At {
    fn packed(self) -> u64 {
        match self {
            Self::Joining(second) => JOINING | second,
            Self::Following(revision) => revision,
        }
    }

    fn unpacked(packed: u64) -> Option<Self> {
        match packed {
            FREE => None,
            joining if joining & JOINING != 0 => Some(Self::Joining(joining & !JOINING)),
            revision => Some(Self::Following(revision)),
        }
    }
}

impl Cursors {
    /// Adds a watcher, and whom it serves, if that is known.
    pub fn enter(&mut self, at: At, peer: Option<PeerInfo>) -> Cursor {
        let place = self.free.pop().unwrap_or_else(|| {
            self.at.push(FREE);
            self.peers.push(None);
            u32::try_from(self.at.len() - 1).expect("watchers are bounded")
        });
        self.at[place as usize] = at.packed();
        self.peers[place as usize] = peer;
        Cursor(place)
    }

    /// Its transport asked for more.
    pub fn reached(&mut self, cursor: &Cursor, at: At) {
        self.at[cursor.place()] = at.packed();
    }

    /// Takes a watcher out, once.
    pub fn leave(&mut self, cursor: &Cursor) {
        self.at[cursor.place()] = FREE;
        self.peers[cursor.place()] = None;
        self.free.push(cursor.0);
    }

    /// How many have not read the present state, how many lack something up to this revision, and the revision of the one
    /// furthest behind.
    pub fn behind(&self, owed: u64) -> (usize, usize, Option<u64>) {
        let (mut joining, mut lagging, mut least) = (0, 0, None);
        for at in self.at.iter().filter_map(|at| At::unpacked(*at)) {
            match at {
                At::Joining(_) => joining += 1,
                At::Following(revision) => {
                    lagging += usize::from(revision < owed);
                    least = Some(least.unwrap_or(revision).min(revision));
                }
            }
        }
        (joining, lagging, least)
    }

    /// Whom those serve that lack something up to this revision, or asked for no part of the present state since before this
    /// second. Each is told once.
    pub fn stalled(&mut self, owed: u64, second: u64) -> Vec<PeerInfo> {
        let is_stalled = |at: &u64| match At::unpacked(*at) {
            None => false,
            Some(At::Joining(asked)) => asked < second,
            Some(At::Following(revision)) => revision < owed,
        };
        let places = self.at.iter().zip(&mut self.peers);
        places.filter(|(at, _)| is_stalled(at)).filter_map(|(_, peer)| peer.take()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_joins_follows_lags_and_leaves_is_counted_so() {
        let mut cursors = Cursors::default();
        assert_eq!(cursors.behind(9), (0, 0, None));
        let (one, other) = (cursors.enter(At::Joining(7), None), cursors.enter(At::Following(4), None));
        assert_eq!(cursors.behind(4), (1, 0, Some(4)));
        assert_eq!(cursors.behind(5), (1, 1, Some(4)));
        cursors.reached(&one, At::Following(5));
        assert_eq!(cursors.behind(5), (0, 1, Some(4)));
        cursors.leave(&other);
        assert_eq!(cursors.behind(5), (0, 0, Some(5)));
        let again = cursors.enter(At::Following(6), None);
        assert_eq!(again, other, "its place is used again");
        assert_eq!((cursors.at.len(), cursors.peers.len()), (2, 2));
    }
}
