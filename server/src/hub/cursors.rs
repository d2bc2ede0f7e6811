//! How far each watcher is, so that those who are behind can be counted though they ask for nothing.
//!
//! Eight bytes for each watcher there ever was at once.

/// A watcher that has not read the present state yet.
const JOINING: u64 = u64::MAX;

/// A place that nobody has.
const FREE: u64 = u64::MAX - 1;

/// The cursors of all watchers.
#[derive(Debug, Default)]
pub struct Cursors {
    at: Vec<u64>,
    free: Vec<u32>,
}

/// The cursor of one watcher.
#[derive(Debug, PartialEq, Eq)]
pub struct Cursor(u32);

impl Cursors {
    /// Adds a watcher that has everything up to a revision, or nothing yet.
    pub fn enter(&mut self, revision: Option<u64>) -> Cursor {
        let place = self.free.pop().unwrap_or_else(|| {
            self.at.push(FREE);
            u32::try_from(self.at.len() - 1).expect("watchers are bounded")
        });
        self.at[place as usize] = revision.unwrap_or(JOINING);
        Cursor(place)
    }

    /// Its transport took everything up to this revision, and asks for more.
    pub fn reached(&mut self, cursor: &Cursor, revision: u64) {
        self.at[cursor.0 as usize] = revision;
    }

    /// Takes a watcher out, once.
    pub fn leave(&mut self, cursor: &Cursor) {
        self.at[cursor.0 as usize] = FREE;
        self.free.push(cursor.0);
    }

    /// How many have not read the present state, how many lack something up to this revision, and the revision of the one
    /// furthest behind.
    pub fn behind(&self, owed: u64) -> (usize, usize, Option<u64>) {
        let joining = self.at.iter().filter(|at| **at == JOINING).count();
        let following = || self.at.iter().copied().filter(|at| *at < FREE);
        (joining, following().filter(|at| *at < owed).count(), following().min())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_joins_follows_lags_and_leaves_is_counted_so() {
        let mut cursors = Cursors::default();
        assert_eq!(cursors.behind(9), (0, 0, None));
        let (one, other) = (cursors.enter(None), cursors.enter(Some(4)));
        assert_eq!(cursors.behind(4), (1, 0, Some(4)));
        assert_eq!(cursors.behind(5), (1, 1, Some(4)));
        cursors.reached(&one, 5);
        assert_eq!(cursors.behind(5), (0, 1, Some(4)));
        cursors.leave(&other);
        assert_eq!(cursors.behind(5), (0, 0, Some(5)));
        let again = cursors.enter(Some(6));
        assert_eq!(again, other, "its place is used again");
        assert_eq!(cursors.at.len(), 2);
    }
}
