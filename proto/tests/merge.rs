//! The laws of merging an origin's batches: what a server shows depends on which batches it has, never on the order
//! or number of their arrivals, nor on whether a snapshot stood in for some of them.

use std::sync::Arc;

use proptest::{collection::vec, prelude::*, sample::Index};
use prost::bytes::Bytes;
use socp::{
    batch::{Advert, Batch, Content, Epoch},
    federation::v1::SignedBatch,
    id::{ServerId, StartId},
    limits::USERS_PER_ORIGIN_MAX,
    name::UserName,
    origin::{CatchUp, Origin, Received},
    statement::KeyStatement,
    user_key::UserKey,
    v1::SignedKeyStatement,
};

const USERS: usize = 4;

/// What one user does: comes or changes (true), or goes.
type Step = (usize, bool);

fn home() -> ServerId {
    ServerId::of_key(&[1; 32])
}

fn epoch() -> Epoch {
    Epoch { number: 1, start: StartId::from_bytes(&[1; 16]).unwrap() }
}

fn name(user: usize) -> UserName {
    UserName::parse(&format!("user{user}")).unwrap()
}

fn statement(user: usize) -> Arc<KeyStatement> {
    let mut spki = vec![
        0x30, 0x82, 0x02, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05,
        0x00, 0x03, 0x82, 0x02, 0x0f, 0x00, 0x30, 0x82, 0x02, 0x0a, 0x02, 0x82, 0x02, 0x01, 0x00,
    ];
    spki.extend([0xff; 511]);
    spki.push(2 * user as u8 + 1);
    spki.extend([0x02, 0x03, 0x01, 0x00, 0x01]);
    let key = UserKey::parse(&spki.into()).unwrap();
    let signed = SignedKeyStatement {
        statement: KeyStatement::encode(&name(user), home(), &key, 1, None).into(),
        signature: Bytes::from_static(&[0; 512]),
        previous_signature: Bytes::new(),
    };
    Arc::new(KeyStatement::parse(&signed).unwrap())
}

/// A server that knows all statements and nothing else.
fn fresh() -> Origin {
    let mut origin = Origin::new(home(), epoch());
    (0..USERS).for_each(|user| origin.keep_statement(statement(user)));
    origin
}

/// The origin itself after some steps, and its batches in order.
fn history(steps: &[Step]) -> (Origin, Vec<Arc<Batch>>) {
    let mut origin = fresh();
    let mut batches = Vec::new();
    for (user, comes) in steps {
        let told = origin.view(&name(*user)).cloned();
        let content = match (comes, told) {
            (false, None) => continue,
            (false, Some(_)) => Content::Removals(vec![name(*user)]),
            (true, told) => Content::Adverts(vec![Arc::new(Advert {
                user: name(*user),
                display_name: "".into(),
                status: format!("{}", batches.len()).into(),
                statement: statement(*user).hash(),
                online_since: told.map_or(origin.position() + 1, |told| told.online_since),
                sessions: 1,
            })]),
        };
        batches.push(origin.originate(content, |number, digest, content| Batch {
            origin: home(),
            epoch: epoch(),
            number,
            digest,
            time_unix_ms: 0,
            content,
            signed: SignedBatch::default(),
        }));
    }
    (origin, batches)
}

fn views(origin: &Origin) -> Vec<Option<Arc<Advert>>> {
    (0..USERS).map(|user| origin.view(&name(user)).cloned()).collect()
}

fn receive_all<'a>(origin: &mut Origin, batches: impl IntoIterator<Item = &'a Arc<Batch>>) {
    for batch in batches {
        origin.receive(Arc::clone(batch)).expect("an honest batch is taken");
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec((0..USERS, any::<bool>()), 1..40)
}

proptest! {
    #[test]
    fn any_order_and_any_repetition_of_all_batches_ends_the_same(
        steps in steps(), order in vec(any::<Index>(), 0..60), shuffle in any::<u64>(),
    ) {
        let (truth, batches) = history(&steps);
        let mut shuffled = batches.clone();
        fastrand::Rng::with_seed(shuffle).shuffle(&mut shuffled);
        let repeated = order.iter().filter(|_| !batches.is_empty()).map(|index| index.get(&batches));
        let mut origin = fresh();
        receive_all(&mut origin, repeated.chain(&shuffled));
        prop_assert_eq!(origin.position(), truth.position());
        prop_assert_eq!(views(&origin), views(&truth));
        prop_assert_eq!(origin.hash(), truth.hash());
        prop_assert!(origin.is_consistent());
    }

    #[test]
    fn what_is_shown_is_a_function_of_the_set_of_batches(
        steps in steps(), kept in vec(any::<bool>(), 40), shuffle in any::<u64>(),
    ) {
        let (_, batches) = history(&steps);
        let some: Vec<_> = batches.iter().zip(kept).filter(|(_, kept)| *kept).map(|(batch, _)| Arc::clone(batch)).collect();
        let mut shuffled = some.clone();
        fastrand::Rng::with_seed(shuffle).shuffle(&mut shuffled);
        let (mut one, mut other) = (fresh(), fresh());
        receive_all(&mut one, &some);
        receive_all(&mut other, &shuffled);
        prop_assert_eq!(views(&one), views(&other));
        prop_assert_eq!(one.position(), other.position());
    }

    #[test]
    fn the_latest_word_on_a_user_is_the_one_that_is_shown(steps in steps(), kept in vec(any::<bool>(), 40)) {
        let (_, batches) = history(&steps);
        let some: Vec<_> = batches.iter().zip(kept).filter(|(_, kept)| *kept).map(|(batch, _)| Arc::clone(batch)).collect();
        let mut origin = fresh();
        receive_all(&mut origin, some.iter().rev());
        for user in 0..USERS {
            let latest = some.iter().rev().find_map(|batch| batch.word_on(&name(user))).flatten();
            prop_assert_eq!(origin.view(&name(user)), latest);
        }
    }

    #[test]
    fn catching_up_from_any_position_by_batches_or_snapshot_ends_the_same(
        steps in steps(), cut in any::<Index>(), later in vec(any::<Index>(), 0..10),
    ) {
        let (truth, batches) = history(&steps);
        prop_assume!(!batches.is_empty());
        let cut = cut.index(batches.len());
        let mut origin = fresh();
        receive_all(&mut origin, &batches[..cut]);
        receive_all(&mut origin, later.iter().map(|index| index.get(&batches)));
        match truth.catch_up(origin.position()) {
            CatchUp::Nothing => {}
            CatchUp::Batches(missing) => receive_all(&mut origin, &missing),
            CatchUp::Snapshot { parts, last } => {
                origin.begin_snapshot(last.number);
                for (batch, current) in &parts {
                    origin.stage(batch, current).expect("an honest part is taken");
                }
                prop_assert_eq!(origin.end_snapshot(last), Ok(true));
            }
        }
        prop_assert_eq!(origin.position(), truth.position());
        prop_assert_eq!(views(&origin), views(&truth));
        prop_assert!(origin.is_consistent());
    }

    #[test]
    fn a_snapshot_that_hides_or_adds_an_entry_changes_nothing(steps in steps(), which in any::<Index>(), hides in any::<bool>()) {
        let (truth, batches) = history(&steps);
        prop_assume!(truth.online() > 0);
        // From position 0 with a short log this may be batches; the parts of a snapshot are made by hand then.
        let mut parts: Vec<(Arc<Batch>, Vec<u32>)> = batches
            .iter()
            .filter(|batch| batch.adverts().iter().any(|advert| truth.view(&advert.user).is_some_and(|now| Arc::ptr_eq(now, advert))))
            .map(|batch| (Arc::clone(batch), vec![0]))
            .collect();
        if hides {
            parts.remove(which.index(parts.len()));
        } else {
            let stale: Vec<_> = batches.iter().filter(|batch| !batch.adverts().is_empty() && parts.iter().all(|(part, _)| part.number != batch.number)).collect();
            prop_assume!(!stale.is_empty());
            let stale = which.get(&stale);
            // Last, so that it is the word that counts in the staged entries.
            parts.push((Arc::clone(stale), vec![0]));
        }
        let mut origin = fresh();
        let last = Arc::clone(batches.last().expect("somebody came"));
        origin.begin_snapshot(last.number);
        for (batch, current) in &parts {
            origin.stage(batch, current).expect("each part by itself is well-formed");
        }
        prop_assert!(origin.end_snapshot(last).is_err());
        prop_assert_eq!(origin.position(), 0);
        prop_assert_eq!(views(&origin), vec![None; USERS]);
    }
}

#[test]
fn a_snapshot_of_an_earlier_position_changes_nothing() {
    let (_, batches) = history(&[(0, true), (1, true), (0, false)]);
    let mut origin = fresh();
    receive_all(&mut origin, &batches);
    let before = views(&origin);
    origin.begin_snapshot(2);
    for batch in &batches[..2] {
        origin.stage(batch, &[0]).unwrap();
    }
    assert_eq!(origin.end_snapshot(Arc::clone(&batches[1])), Ok(false));
    assert_eq!((views(&origin), origin.position()), (before, 3));
}

#[test]
fn a_batch_known_is_a_duplicate_and_one_beyond_the_held_is_refused() {
    let steps: Vec<Step> = (0..2 * socp::limits::HELD_BATCHES_MAX).map(|_| (0, true)).collect();
    let (_, batches) = history(&steps);
    let mut origin = fresh();
    receive_all(&mut origin, &batches[1..=socp::limits::HELD_BATCHES_MAX]);
    assert_eq!(origin.receive(Arc::clone(&batches[1])), Ok(Received::Duplicate));
    assert!(origin.receive(Arc::clone(&batches[socp::limits::HELD_BATCHES_MAX + 1])).is_err());
    assert_eq!(origin.receive(Arc::clone(&batches[0])), Ok(Received::Taken));
    assert_eq!(origin.position(), socp::limits::HELD_BATCHES_MAX as u64 + 1);
    assert!(origin.is_consistent());
}

#[test]
fn a_held_batch_that_contradicts_the_base_is_given_back_and_shown_no_more() {
    let (_, batches) = history(&[(0, true), (1, true)]);
    let mut origin = fresh();
    let lie = Batch { digest: batches[0].digest, ..(*batches[1]).clone() };
    let lie = Arc::new(lie);
    assert_eq!(origin.receive(Arc::clone(&lie)), Ok(Received::Taken));
    assert!(origin.view(&name(1)).is_some());
    assert_eq!(origin.receive(Arc::clone(&batches[0])), Ok(Received::Contradicted(lie)));
    assert_eq!((origin.view(&name(1)), origin.position()), (None, 1));
    assert_eq!(origin.receive(Arc::clone(&batches[1])), Ok(Received::Taken), "the truth is taken later");
}

#[test]
fn a_part_whose_indexes_do_not_rise_gives_the_snapshot_up() {
    let (_, batches) = history(&[(0, true)]);
    for indexes in [&[0, 0][..], &[1], &[0, 1]] {
        let mut origin = fresh();
        origin.begin_snapshot(1);
        assert!(origin.stage(&batches[0], indexes).is_err(), "{indexes:?}");
        assert!(origin.end_snapshot(Arc::clone(&batches[0])).is_err());
    }
}

#[test]
fn other_statements_never_displace_those_of_a_snapshot_that_is_being_staged() {
    let (_, batches) = history(&[(0, true)]);
    let mut origin = fresh();
    origin.begin_snapshot(1);
    origin.stage(&batches[0], &[0]).unwrap();
    let first = statement(1);
    for other in 0..=USERS_PER_ORIGIN_MAX as u32 {
        let signed = SignedKeyStatement { signature: other.to_be_bytes().to_vec().into(), ..first.signed.clone() };
        origin.keep_statement(Arc::new(KeyStatement::parse(&signed).unwrap()));
    }
    assert!(origin.statement(first.hash()).is_none(), "the unused ones made room");
    assert_eq!(origin.end_snapshot(Arc::clone(&batches[0])), Ok(true));
    assert!(origin.statement(statement(0).hash()).is_some());
}
