//! What a new neighbour is told of others: who vouches for whom, and everybody's lists of neighbours.
//!
//! In a large network that comes to megabytes. It goes out in portions, so that neither a keep-alive nor a removal waits
//! long behind it, and no queue has to hold it.

use alloc::{collections::VecDeque, vec::Vec};

use super::{Node, Timer};
use crate::{
    admission::Admission,
    federation::v1::{self as wire, SignedAdmission, remove_frame},
    id::ServerId,
    input::LinkId,
    limits::ADMISSIONS_FRAME_MAX,
};

/// Bytes told at once, but for the last item: what is sent after it waits a tenth of a second on a link of 10 Mbit/s.
const PORTION_BYTES: usize = 128 * 1024;

/// The next portion goes out so long after the last.
const APART_MS: u64 = 50;

/// Something that a neighbour is still to be told.
#[derive(Debug)]
pub(super) enum Untold {
    Admissions(Vec<SignedAdmission>),
    /// The list of this server, as it is when its turn comes.
    List(ServerId),
}

impl Node {
    /// Tells a new neighbour everything of others, beginning at once.
    pub(super) fn greet(&mut self, link: LinkId) {
        let now_unix_ms = self.now.unix_ms;
        let issuers = self.admissions.admitted.issuers.iter();
        let all: Vec<&Admission> = issuers.flat_map(|issuer| self.admissions.by(issuer, now_unix_ms)).collect();
        let frames = all.chunks(ADMISSIONS_FRAME_MAX);
        let admissions =
            frames.map(|some| Untold::Admissions(some.iter().map(|admission| admission.signed.clone()).collect()));
        // Before the lists, so that those of the servers that they admit are taken.
        let untold: VecDeque<_> = admissions.chain(self.neighbours.listed().map(Untold::List)).collect();
        if let Some(state) = self.links.state_mut(link) {
            state.untold = untold;
        }
        self.greet_more(link);
    }

    /// Tells the next portion.
    pub(super) fn greet_more(&mut self, link: LinkId) {
        let now_ms = self.now.monotonic_ms;
        let mut bytes = 0;
        while bytes < PORTION_BYTES {
            let Some(state) = self.links.state_mut(link) else { return };
            let Some(untold) = state.untold.pop_front() else { return };
            let kind = match untold {
                Untold::Admissions(admissions) => {
                    bytes += admissions.iter().map(|signed| signed.statement.len()).sum::<usize>();
                    remove_frame::Kind::Admissions(wire::Admissions { admissions })
                }
                Untold::List(server) => {
                    let Some(signed) = self.neighbours.fresh(&server, now_ms) else { continue };
                    bytes += signed.statement.len();
                    remove_frame::Kind::Neighbours(signed)
                }
            };
            self.send_remove(link, kind);
        }
        self.after(APART_MS, Timer::Greeting(link));
    }
}
