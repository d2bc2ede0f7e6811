//! What a new neighbour is told of others in a large network.

use std::collections::{BTreeMap, BTreeSet};

use socp::{
    federation::v1::{RemoveFrame, remove_frame},
    input::{Frame, Input},
};

use crate::between::{Between, HONEST, LIAR, list};

#[test]
fn a_new_neighbour_is_told_all_lists_in_portions_that_nothing_waits_long_behind() {
    // 60 servers with 1,000 neighbours each: 32 KB a list.
    let others: Vec<u64> = (100..160).collect();
    let neighbours: Vec<u64> = (1_000..2_000).collect();
    let mut between = Between::knowing(&others);
    for other in &others {
        between.frame(HONEST, list(*other, 1, &neighbours));
    }
    between.input(Input::LinkDown { link: LIAR, cause: "it ends".into() });
    let since = between.sent.len();
    between.link_up(LIAR);
    between.pass(3_000, 0, 0, |_| {});
    let mut told = BTreeSet::new();
    let mut bytes: BTreeMap<u64, usize> = BTreeMap::new();
    for (at_ms, link, frame) in &between.sent[since..] {
        if let (LIAR, Frame::Remove(RemoveFrame { kind: Some(remove_frame::Kind::Neighbours(signed)) })) =
            (*link, frame)
        {
            told.insert(signed.statement.clone());
            *bytes.entry(*at_ms).or_default() += signed.statement.len();
        }
    }
    assert!(told.len() >= others.len(), "{} of {} lists", told.len(), others.len());
    assert!(bytes.len() > 10 && bytes.values().all(|bytes| *bytes < 200 * 1024), "{bytes:?}");
}
