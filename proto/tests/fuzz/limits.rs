//! What a rogue peer or client could once use against a node, and the limits that stop them.

use socp::{
    federation::v1::{KeepAlive, remove_frame},
    input::Frame,
    output::Refusal,
};

use crate::{rogue, victim::Victim};

fn keep_alive() -> Frame {
    rogue::remove(remove_frame::Kind::KeepAlive(KeepAlive { positions: Vec::new(), time_unix_ms: 0 }))
}

#[test]
fn frames_that_overtake_the_hello_are_kept_up_to_64_and_taken_after_it() {
    let mut victim = Victim::new(1);
    let link = victim.link_up(false);
    (0..64).for_each(|_| victim.frame(link, keep_alive()));
    assert_eq!(victim.refusals, []);
    victim.frame(link, keep_alive());
    assert_eq!(victim.refusals, [Refusal::OutOfTurn]);
    let hello = victim.rogue.hello();
    victim.frame(link, hello);
    assert_eq!(victim.refusals.len(), 1);
}
