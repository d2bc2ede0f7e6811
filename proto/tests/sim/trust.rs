//! Who may say what: admission, names, and the line between clients and peers.

use std::sync::Arc;

use prost::{Message as _, bytes::Bytes};
use socp::{
    batch::{Advert, Batch, Content, Epoch},
    digest::SetHash,
    federation::v1::{
        AdvertiseFrame, BatchStatement, DeliverFrame, MessageDelivery, OutcomeDelivery, RemoveFrame, SignedBatch,
        Statements, Voucher, advertise_frame, deliver_frame, remove_frame,
    },
    id::{ContentHash, ServerId, StartId},
    identity::Identity as _,
    inbox::Mail,
    input::{Frame, Input, LinkId, Now, Request},
    name::{ServerName, UserName},
    node::{Node, Settings, Start, Trust},
    output::{Note, Output, Refusal},
    signed::{Label, signing_input},
    statement::KeyStatement,
    v1::{OutcomeStatement, Reason, RegistrationPolicy, SignedKeyStatement, SignedOutcome},
};

use crate::{
    checks,
    keys::SimIdentity,
    wires::{End, link_id},
    world::World,
};

/// The handle that server 0 has for its link to server 1.
pub fn link_to_peer(world: &World) -> LinkId {
    let wire = world.wires.iter().find(|(_, wire)| wire.is_up == [true; 2]).expect("they are linked");
    let side = wire.1.servers.iter().position(|server| *server == 0).expect("server 0 has an end");
    link_id(End { wire: wire.0, side })
}

pub fn refused(world: &World) -> Vec<Refusal> {
    let refusal = |note: &Note| match note {
        Note::FrameRefused { refusal, .. } => Some(*refusal),
        _ => None,
    };
    world.servers[0].refusals.iter().filter_map(refusal).collect()
}

pub fn epoch_of(world: &World, server: usize) -> Epoch {
    let node = world.servers[0].node.as_ref().unwrap();
    node.origin(&world.servers[server].id).expect("the origin is known").epoch()
}

fn advert(world: &World, user: usize, number: u64) -> Content {
    let statement = KeyStatement::parse(&world.key_statement(user)).unwrap();
    Content::Adverts(vec![Arc::new(Advert {
        user: statement.user.clone(),
        display_name: "".into(),
        status: "".into(),
        statement: statement.hash(),
        online_since: number,
        sessions: 1,
    })])
}

fn advertise(batch: SignedBatch) -> Frame {
    Frame::Advertise(AdvertiseFrame { kind: Some(advertise_frame::Kind::Batch(batch)) })
}

pub fn remove(batch: SignedBatch) -> Frame {
    Frame::Remove(RemoveFrame { kind: Some(remove_frame::Kind::Batch(batch)) })
}

#[test]
fn a_server_that_was_not_admitted_cannot_join() {
    let mut node = Node::new(
        Settings::new(ServerName::parse("server-a").unwrap()),
        Start {
            identity: Box::new(SimIdentity::new(1)),
            epoch: 1,
            start_id: StartId::from_bytes(&[1; 16]).unwrap(),
            seed: 1,
            accounts: Vec::new(),
            invites: Vec::new(),
            trust: Trust::default(),
            mail: Mail::default(),
        },
    );
    let now = Now { monotonic_ms: 0, unix_ms: 0 };
    let peer = ServerId::of_key(&SimIdentity::new(2).public_key());
    let outputs = node.handle(now, Input::LinkUp { link: LinkId(1), peer, dialled: false });
    assert!(outputs.iter().any(|output| matches!(output, Output::CloseLink { .. })), "{outputs:?}");
    assert!(!outputs.iter().any(|output| matches!(output, Output::Send { .. })), "a stranger is told nothing");
}

#[test]
fn a_server_speaks_only_for_its_own_users() {
    let mut world = World::calm(&[0, 1, 2]);
    world.online_user(0, "alice");
    world.online_user(2, "carol");
    let before = world.servers[0].watch.changes.len();
    let link = link_to_peer(&world);
    let identity = world.servers[1].identity.clone();
    let carol = UserName::parse("carol").unwrap();
    // A batch about C's users that B signs with its own key is a batch of B's, and names nobody that B shows.
    let digest = SetHash::default().digest();
    let removal = || Content::Removals(vec![carol.clone()]);
    let batch = Batch::sign(&identity, epoch_of(&world, 1), 2, digest, 0, removal());
    world.forge(0, link, remove(batch.signed));
    // The same with C's key in it, which is not the one that signs.
    let of_c = world.servers[2].identity.public_key();
    let batch = Batch::sign(&identity, epoch_of(&world, 2), 2, digest, 0, removal());
    let mut statement = <BatchStatement as prost::Message>::decode(&batch.signed.statement[..]).unwrap();
    statement.origin_key = of_c.to_vec().into();
    let statement = prost::Message::encode_to_vec(&statement);
    let signature = identity.sign(&signing_input(Label::Batch, &statement)).to_vec().into();
    world.forge(0, link, remove(SignedBatch { statement: statement.into(), signature }));
    // A statement of another home's user is kept for a batch that names it, and shown to nobody.
    let dave = world.add_user(2, "dave");
    let statements = Statements { statements: vec![world.key_statement(dave)] };
    world.forge(
        0,
        link,
        Frame::Advertise(AdvertiseFrame { kind: Some(advertise_frame::Kind::Statements(statements)) }),
    );
    assert_eq!(refused(&world), [Refusal::BadSignature]);
    world.run_for(5_000);
    assert_eq!(world.servers[0].watch.changes.len(), before, "nothing changed");
    checks::at_rest(&world);
}

#[test]
fn an_advert_that_names_the_key_of_another_homes_user_is_refused() {
    let mut world = World::calm(&[0, 1]);
    let alice = world.online_user(0, "alice");
    let bob = world.online_user(1, "bob");
    let link = link_to_peer(&world);
    let identity = world.servers[1].identity.clone();
    let epoch = epoch_of(&world, 1);
    let before = world.servers[0].watch.changes.len();
    // B says that its bob has the key of A's alice, whose statement everybody has.
    let Content::Adverts(adverts) = advert(&world, alice, 1) else { panic!("it is an advert") };
    let statements = Statements { statements: vec![world.key_statement(alice)] };
    world.forge(
        0,
        link,
        Frame::Advertise(AdvertiseFrame { kind: Some(advertise_frame::Kind::Statements(statements)) }),
    );
    let stolen = Advert { user: world.address(bob).user, ..(*adverts[0]).clone() };
    let mut hash = SetHash::default();
    hash.insert(&socp::digest::DigestEntry {
        origin: world.servers[1].id,
        epoch: epoch.number,
        user: &stolen.user,
        display_name: "",
        status: "",
        key_statement: stolen.statement,
        online_since: 1,
        sessions: 1,
    });
    let content = Content::Adverts(vec![Arc::new(stolen)]);
    let batch = Batch::sign(&identity, epoch, 2, hash.digest(), 0, content);
    world.forge(0, link, advertise(batch.signed));
    assert_eq!(refused(&world), [Refusal::ForeignOrigin]);
    assert_eq!(world.servers[0].watch.changes.len(), before, "nothing changed");
}

#[test]
fn an_advert_with_a_full_name_in_it_is_refused_and_the_link_stays() {
    let mut world = World::calm(&[0, 1]);
    world.online_user(0, "alice");
    let link = link_to_peer(&world);
    let identity = world.servers[1].identity.clone();
    let epoch = epoch_of(&world, 1);
    let eve = world.add_user(1, "eve");
    let good = Batch::sign(&identity, epoch, 1, SetHash::default().digest(), 0, advert(&world, eve, 1));
    // The same batch with `alice@server-a` as the user, properly signed by B.
    let mut statement =
        <socp::federation::v1::BatchStatement as prost::Message>::decode(&good.signed.statement[..]).unwrap();
    statement.adverts[0].user = "alice@server-a".into();
    let statement = prost::Message::encode_to_vec(&statement);
    let input = signing_input(Label::Batch, &statement);
    let signature = identity.sign(&input).to_vec().into();
    world.forge(0, link, advertise(SignedBatch { statement: statement.into(), signature }));
    assert_eq!(refused(&world), [Refusal::Malformed("advert.user")]);
    let bob = world.online_user(1, "bob");
    assert!(world.servers[0].watch.addresses().any(|shown| shown == world.address(bob)), "the link works on");
}

#[test]
fn a_batch_with_a_bad_signature_or_digest_is_refused_and_nothing_changes() {
    let mut world = World::calm(&[0, 1]);
    let link = link_to_peer(&world);
    let identity = world.servers[1].identity.clone();
    let epoch = epoch_of(&world, 1);
    let eve = world.add_user(1, "eve");
    let mut altered = Batch::sign(&identity, epoch, 1, SetHash::default().digest(), 0, advert(&world, eve, 1)).signed;
    altered.signature = vec![0; 64].into();
    world.forge(0, link, advertise(altered));
    let missing = Batch::sign(&identity, epoch, 1, SetHash::default().digest(), 0, advert(&world, eve, 1)).signed;
    world.forge(0, link, advertise(missing.clone()));
    let statements = Statements { statements: vec![world.key_statement(eve)] };
    world.forge(
        0,
        link,
        Frame::Advertise(AdvertiseFrame { kind: Some(advertise_frame::Kind::Statements(statements)) }),
    );
    world.forge(0, link, advertise(missing));
    let expected = [Refusal::BadSignature, Refusal::MissingStatement, Refusal::DigestMismatch];
    assert_eq!(refused(&world), expected);
    assert!(world.servers[0].watch.changes.is_empty());
}

#[test]
fn a_new_key_for_a_known_user_is_refused() {
    let mut world = World::calm(&[0]);
    world.online_user(0, "alice");
    let impostor = world.add_user(0, "alice");
    world.users.users[impostor].spki = crate::keys::user_spki(b"another key");
    let call = world.ask_to_register(impostor);
    assert_eq!(world.answer(0, call).unwrap_err().reason, Reason::NameInUse);
}

#[test]
fn registering_the_same_key_again_is_answered_alike() {
    let mut world = World::calm(&[0]);
    let alice = world.online_user(0, "alice");
    let call = world.ask_to_register(alice);
    assert!(world.answer(0, call).is_ok());
}

#[test]
fn every_wrong_registration_gives_its_own_typed_error() {
    let mut world = World::calm(&[0, 1]);
    let (alice, elsewhere) = (world.add_user(0, "alice"), world.add_user(1, "alice"));
    let (own, foreign) = (world.key_statement(alice), world.key_statement(elsewhere));
    let mut register = |statement: SignedKeyStatement, display_name: String| {
        let call = world.ask(0, Request::Register { statement, invite: String::new(), display_name });
        world.answer(0, call).map(|_| ()).map_err(|rejection| rejection.reason)
    };
    assert_eq!(register(foreign, String::new()), Err(Reason::StatementInvalid), "another home");
    let unsigned = SignedKeyStatement { signature: vec![0; 512].into(), ..own.clone() };
    assert_eq!(register(unsigned, String::new()), Err(Reason::InvalidSig));
    let garbage = SignedKeyStatement { statement: vec![0xff; 9].into(), ..own.clone() };
    assert_eq!(register(garbage, String::new()), Err(Reason::StatementInvalid));
    let too_long = "x".repeat(socp::limits::DISPLAY_NAME_BYTES_MAX + 1);
    assert_eq!(register(own.clone(), too_long), Err(Reason::TooLarge));
    assert_eq!(register(own, "x".repeat(socp::limits::DISPLAY_NAME_BYTES_MAX)), Ok(()));
}

#[test]
fn an_invite_is_good_for_one_registration() {
    let mut world = World::calm(&[0]);
    world.restart_with(0, |settings| settings.registration = RegistrationPolicy::Invite);
    let register = |world: &mut World, name: &str, invite: &str| {
        let user = world.add_user(0, name);
        let statement = world.key_statement(user);
        let call = world.ask(0, Request::Register { statement, invite: invite.into(), display_name: String::new() });
        world.answer(0, call).map(|_| ()).map_err(|rejection| rejection.reason)
    };
    assert_eq!(register(&mut world, "alice", ""), Err(Reason::InviteRequired));
    let call = world.ask(0, Request::CreateInvite { invite: "welcome".into() });
    assert!(world.answer(0, call).is_ok());
    assert_eq!(register(&mut world, "alice", "welcom"), Err(Reason::InviteRequired));
    assert_eq!(register(&mut world, "alice", "welcome"), Ok(()));
    assert_eq!(register(&mut world, "bob", "welcome"), Err(Reason::InviteRequired));
}

#[test]
fn a_closed_server_registers_nobody() {
    let mut world = World::calm(&[0]);
    world.restart_with(0, |settings| settings.registration = RegistrationPolicy::Closed);
    let alice = world.add_user(0, "alice");
    let call = world.ask_to_register(alice);
    assert_eq!(world.answer(0, call).unwrap_err().reason, Reason::RegistrationClosed);
}

#[test]
fn a_peer_cannot_act_as_a_user_of_another_home() {
    let mut world = World::calm(&[0, 1, 2]);
    let alice = world.online_user(2, "alice");
    let bob = world.online_user(0, "bob");
    let header = world.header(alice, bob);
    let sealed = world.sealed(alice, &header);
    let link = link_to_peer(&world);
    // B sends a message that alice of C truly signed, for which C did not vouch.
    let delivery =
        |voucher| MessageDelivery { message: Some(sealed.clone()), voucher, hops_left: 1, ..Default::default() };
    let deliver = |delivery| Frame::Deliver(DeliverFrame { kind: Some(deliver_frame::Kind::Message(delivery)) });
    world.forge(0, link, deliver(delivery(None)));
    let hash = ContentHash::of(&sealed.statement);
    let signature = world.servers[1].identity.sign(&signing_input(Label::Submission, hash.as_bytes()));
    let vouch = |key: [u8; 32]| Voucher { home_key: key.to_vec().into(), signature: signature.to_vec().into() };
    let (own, other) = (world.servers[1].identity.public_key(), world.servers[2].identity.public_key());
    world.forge(0, link, deliver(delivery(Some(vouch(own)))));
    world.forge(0, link, deliver(delivery(Some(vouch(other)))));
    let expected = [Refusal::Malformed("voucher"), Refusal::ForeignOrigin, Refusal::BadSignature];
    assert_eq!(refused(&world), expected);
    assert_eq!(world.deliveries.of(&world.address(bob)), 0);
}

#[test]
fn a_home_needs_no_voucher_over_its_own_link_for_a_message_that_goes_no_further() {
    let mut world = World::calm(&[0, 1, 2]);
    let [alice, bob, carol] =
        [(1, "alice"), (0, "bob"), (2, "carol")].map(|(home, name)| world.online_user(home, name));
    world.run_for(1_000);
    let link = link_to_peer(&world);
    let mut send = |to| {
        let header = world.header(alice, to);
        let message = Some(world.sealed(alice, &header));
        let delivery = MessageDelivery { message, hops_left: 2, ..Default::default() };
        world.forge(0, link, Frame::Deliver(DeliverFrame { kind: Some(deliver_frame::Kind::Message(delivery)) }));
        world.run_for(1_000);
        (world.deliveries.of(&world.address(to)), refused(&world))
    };
    assert_eq!(send(bob), (1, Vec::new()), "the link says who speaks");
    assert_eq!(send(carol), (0, vec![Refusal::Malformed("voucher")]), "the next one could not know");
}

#[test]
fn a_relay_cannot_say_for_a_home_what_became_of_a_message() {
    let mut world = World::calm(&[0, 1, 2]);
    let link = link_to_peer(&world);
    let own_home = world.servers[0].id;
    let mut tell = |home: usize| {
        let statement = OutcomeStatement { home_id: world.servers[home].id.to_string(), ..Default::default() };
        let home_key = Bytes::copy_from_slice(&world.servers[home].identity.public_key());
        let outcome =
            SignedOutcome { statement: statement.encode_to_vec().into(), signature: vec![0; 64].into(), home_key };
        let home_id = Bytes::copy_from_slice(own_home.as_bytes());
        let delivery = OutcomeDelivery { outcome: Some(outcome), home_id, hops_left: 1 };
        world.forge(0, link, Frame::Deliver(DeliverFrame { kind: Some(deliver_frame::Kind::Outcome(delivery)) }));
        refused(&world)
    };
    // The link is that of server 1.
    assert_eq!(tell(1), [], "the link says who speaks, and the sender's client checks the signature");
    assert_eq!(tell(2), [Refusal::BadSignature]);
}
