//! The laws of merging an origin's batches: what a server shows depends on which batches it has, never on the order
//! or number of their arrivals, nor on whether a snapshot stood in for some of them.

use std::sync::Arc;

use proptest::{collection::vec, prelude::*, sample::Index};
use prost::bytes::Bytes;
use socp::{
    batch::{Advert, Batch, Content, Epoch},
    digest::Digest,
    federation::v1::SignedBatch,
    id::{ServerId, StartId},
    limits::{BATCH_ENTRIES_MAX, KEPT_BATCHES_MAX, STAGED_ADVERTS_MAX, STALE_TAKEN_MAX, USERS_PER_ORIGIN_MAX},
    name::UserName,
    origin::{CatchUp, Origin, Received},
    output::Refusal,
    statement::KeyStatement,
    user_key::UserKey,
    v1::SignedKeyStatement,
};

const USERS: usize = 4;

/// As many as fill several batches.
const MANY: usize = 1_000;

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
    // Any odd number: one key may be that of several users.
    spki.push((user % 128) as u8 * 2 + 1);
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
    fresh_of(USERS)
}

fn fresh_of(users: usize) -> Origin {
    let mut origin = Origin::new(home(), epoch());
    (0..users).for_each(|user| origin.keep_statement(statement(user)));
    origin
}

fn unsigned(number: u64, digest: Digest, content: Content) -> Batch {
    let signed = SignedBatch::default();
    Batch { origin: home(), epoch: epoch(), number, digest, time_unix_ms: 0, content, signed }
}

fn advert(user: usize, sessions: u32) -> Arc<Advert> {
    let (status, display_name) = ("".into(), "".into());
    let statement = statement(user).hash();
    Arc::new(Advert { user: name(user), display_name, status, statement, online_since: 1, sessions })
}

/// The origin itself after some steps of which it signs none again, and its batches in order.
fn history(steps: &[Step]) -> (Origin, Vec<Arc<Batch>>) {
    history_of(USERS, steps, KEPT_BATCHES_MAX)
}

/// The same of an origin with so many users that signs old entries again beyond so many batches.
fn history_of(users: usize, steps: &[Step], kept_max: usize) -> (Origin, Vec<Arc<Batch>>) {
    let mut origin = fresh_of(users);
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
        batches.push(origin.originate(content, unsigned));
        let again = origin.base().to_sign_again(kept_max);
        if !again.is_empty() {
            batches.push(origin.originate(Content::Adverts(again), unsigned));
        }
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

fn kept_max() -> impl Strategy<Value = usize> {
    prop_oneof![1..4_usize, Just(KEPT_BATCHES_MAX)]
}

proptest! {
    #[test]
    fn any_order_and_any_repetition_of_all_batches_ends_the_same(
        steps in steps(), kept_max in kept_max(), order in vec(any::<Index>(), 0..60), shuffle in any::<u64>(),
    ) {
        let (truth, batches) = history_of(USERS, &steps, kept_max);
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
        steps in steps(), kept_max in kept_max(), kept in vec(any::<bool>(), 80), shuffle in any::<u64>(),
    ) {
        let (_, batches) = history_of(USERS, &steps, kept_max);
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
    fn the_latest_word_on_a_user_is_the_one_that_is_shown(
        steps in steps(), kept_max in kept_max(), kept in vec(any::<bool>(), 80),
    ) {
        let (_, batches) = history_of(USERS, &steps, kept_max);
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
        steps in steps(), kept_max in kept_max(), cut in any::<Index>(), later in vec(any::<Index>(), 0..10),
    ) {
        let (truth, batches) = history_of(USERS, &steps, kept_max);
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
            // Of somebody who is not online, so that it is the word that counts.
            prop_assume!(truth.view(&stale.adverts()[0].user).is_none());
            parts.push((Arc::clone(stale), vec![0]));
            parts.sort_by_key(|(part, _)| part.number);
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn what_is_kept_of_an_origin_is_mostly_current_and_in_few_batches(
        seed in any::<u64>(), comes in 300..900_usize, goes in 0..900_usize, kept_max in 8..64_usize,
    ) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut steps: Vec<Step> = (0..comes).map(|_| (rng.usize(0..MANY), true)).collect();
        steps.extend((0..goes).map(|_| (rng.usize(0..MANY), rng.u8(0..4) == 0)));
        let (truth, batches) = history_of(MANY, &steps, kept_max);
        let mut origin = fresh_of(MANY);
        for batch in &batches {
            let before = (origin.hash().clone(), origin.online());
            receive_all(&mut origin, [batch]);
            if batch.adverts().len() > 1 {
                prop_assert_eq!(&before, &(origin.hash().clone(), origin.online()), "nobody sees that they were signed again");
            }
        }
        prop_assert_eq!(origin.hash(), truth.hash());
        prop_assert!(origin.is_consistent());
        let (base, users) = (origin.base(), origin.online());
        prop_assert!(base.kept() <= users / 64 + kept_max, "{} batches of {users}", base.kept());
        prop_assert!(base.stale() <= users / 2 + kept_max, "{} stale of {users}", base.stale());
        let again = batches.iter().filter(|batch| batch.adverts().len() > 1).count();
        prop_assert!(again <= 1 + steps.len() / kept_max.div_ceil(2), "{again} of {} steps, kept {kept_max}", steps.len());
    }
}

#[test]
fn an_origin_that_never_signs_again_is_refused_before_it_fills_the_memory_and_taken_again_once_it_does() {
    let users = STALE_TAKEN_MAX + 2 * BATCH_ENTRIES_MAX;
    let (mut truth, mut origin) = (fresh_of(users), fresh_of(users));
    let tell = |content: Content, truth: &mut Origin| truth.originate(content, unsigned);
    let everybody: Vec<_> = (0..users).map(|user| advert(user, 1)).collect();
    for some in everybody.chunks(BATCH_ENTRIES_MAX) {
        let batch = tell(Content::Adverts(some.to_vec()), &mut truth);
        assert_eq!(origin.receive(batch), Ok(Received::Taken));
    }
    // One of each batch stays: more is stale than is taken by now, and removals are taken all the same.
    let gone: Vec<_> = (0..users).filter(|user| !user.is_multiple_of(BATCH_ENTRIES_MAX)).map(name).collect();
    for some in gone.chunks(BATCH_ENTRIES_MAX) {
        assert_eq!(origin.receive(tell(Content::Removals(some.to_vec()), &mut truth)), Ok(Received::Taken));
    }
    assert!(origin.base().stale() > STALE_TAKEN_MAX + origin.online());
    let more = Content::Adverts(vec![advert(1, 1)]);
    let hash = origin.base().hash_after(&more);
    assert_eq!(hash.err(), Some(Refusal::TooMany("stale entries")));
    let again = Content::Adverts(vec![advert(0, 2), advert(BATCH_ENTRIES_MAX, 2)]);
    assert_eq!(origin.receive(tell(again, &mut truth)), Ok(Received::Taken));
    assert!(origin.base().stale() <= STALE_TAKEN_MAX + origin.online());
    assert_eq!(origin.receive(tell(Content::Adverts(vec![advert(1, 1)]), &mut truth)), Ok(Received::Taken));
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
        assert_eq!(origin.stage(&batches[0], &[0]), Ok(()), "what is left of it is ignored");
        assert_eq!(origin.end_snapshot(Arc::clone(&batches[0])), Ok(false));
        assert_eq!(origin.online(), 0);
    }
}

#[test]
fn a_snapshot_lists_no_more_adverts_than_may_be_kept_and_a_part_that_comes_again_counts_once() {
    let (mut truth, mut origin) = (fresh_of(1), fresh_of(1));
    let advert = advert(0, 1);
    let full = Content::Adverts(vec![advert; BATCH_ENTRIES_MAX]);
    let batches: Vec<_> =
        (0..=STAGED_ADVERTS_MAX / BATCH_ENTRIES_MAX).map(|_| truth.originate(full.clone(), unsigned)).collect();
    let (past, within) = batches.split_last().unwrap();
    origin.begin_snapshot(past.number);
    for batch in within {
        assert_eq!(origin.stage(batch, &[]), Ok(()));
        assert_eq!(origin.stage(batch, &[]), Ok(()));
    }
    assert_eq!(origin.stage(past, &[]), Err(Refusal::TooMany("snapshot adverts")));
    assert!(!origin.is_staging(past.number));
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
