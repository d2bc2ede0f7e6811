//! The public channel of real servers: a post is on disk before its sender is told, and comes once to whoever it is for.

use socp::v1::{
    AttachRequest, AttachResponse, GetChannelKeyRequest, PostToChannelRequest, ReceivedPost, SealedMessage, SealedPost,
    attach_response::Event,
};

use crate::harness::{
    caller::{Caller, Stream},
    client::User,
    draft::{CHANNEL_KEY_ID, channel_key_for, sealed, sealed_post, send},
    mesh::Mesh,
    soon,
    wire::{Wire, refusal},
};

/// Two linked servers, at the second of which a broken stream's user stays online for the whole test.
fn mesh() -> Mesh {
    let mut mesh = Mesh::new(2);
    let timing = format!("[timing]\nattach_grace_ms = 60000\n{}", mesh.site(0).entry());
    mesh.site(1).configure(&timing);
    mesh.start(0);
    mesh.start(1);
    mesh.expect_link(0, 1);
    mesh
}

/// Attaches after this place of the channel; gives the newest one.
#[track_caller]
fn attach(caller: &Caller, channel_cursor: &str) -> (Stream<AttachResponse>, String) {
    let request = AttachRequest { channel_cursor: channel_cursor.into(), ..AttachRequest::default() };
    let stream = soon(caller.messages().attach(caller.request(request))).expect("the token is good");
    let mut stream = Stream(stream.into_inner());
    let Some(Event::Attached(attached)) = stream.next().event else { panic!("it is attached first") };
    (stream, attached.newest_channel_cursor)
}

/// The next post, with its cursor.
#[track_caller]
fn next(stream: &mut Stream<AttachResponse>) -> (ReceivedPost, String) {
    let response = stream.next();
    let Some(Event::Post(received)) = response.event else { panic!("a post comes, not {response:?}") };
    (received, response.cursor)
}

/// Makes a post and waits until it is taken.
#[track_caller]
fn taken(from: &Caller, text: &str, wrapped_for: &[&Caller]) -> SealedPost {
    let sealed = sealed_post(from, text);
    let wraps = wrapped_for.iter().map(|member| channel_key_for(&member.address, member.key.public())).collect();
    let request = from.request(PostToChannelRequest { post: Some(sealed.clone()), wraps });
    let answer = soon(from.messages().post_to_channel(request)).expect("it is taken").into_inner();
    assert_eq!((answer.outcomes.len(), &answer.silent_home_ids[..]), (1, &[][..]));
    sealed
}

#[test]
fn a_post_that_was_missed_by_a_broken_stream_comes_once_it_is_back() {
    let mesh = mesh();
    let alice = Caller::new("alice", &mesh[0], Wire::Tcp);
    let bob = Caller::new("bob", &mesh[1], Wire::H3);
    let (mut first, since) = attach(&bob, "");
    User::register("carol", &mesh[0]).watch().shows("bob@server-b");
    let early = taken(&alice, "early", &[&bob]);
    let (received, cursor) = next(&mut first);
    assert_eq!(received.post.as_ref(), Some(&early));
    drop(first);
    let missed: Vec<SealedPost> = (0..20).map(|count| taken(&alice, &format!("number {count}"), &[])).collect();
    let (mut back, newest) = attach(&bob, &cursor);
    let mut last = String::new();
    for wanted in &missed {
        let (received, cursor) = next(&mut back);
        assert_eq!(received.post.as_ref(), Some(wanted));
        // Out of the log each brings its key, for a device that has it no more.
        assert!(bob.key.unwrap(&received.wrapped_channel_key).is_some());
        last = cursor;
    }
    assert_eq!(last, newest);
    let live = taken(&alice, "live", &[]);
    assert_eq!(next(&mut back).0.post.as_ref(), Some(&live));
    // Another device, or one that has lost what it had, reads them all from the beginning.
    let (mut all, _) = attach(&bob.other_session(), &since);
    for wanted in [early].iter().chain(&missed).chain([&live]) {
        assert_eq!(next(&mut all).0.post.as_ref(), Some(wanted));
    }
    let request = AttachRequest { channel_cursor: "7-0000000000000000".into(), ..AttachRequest::default() };
    let refused = bob.try_attach(request).expect_err("it is of no post");
    assert_eq!(refusal(&refused).1, "CURSOR_UNKNOWN");
}

#[test]
fn a_device_that_was_away_reads_its_inbox_and_the_channel_beside_each_other() {
    let mesh = mesh();
    let alice = Caller::new("alice", &mesh[0], Wire::Tcp);
    let bob = Caller::new("bob", &mesh[1], Wire::Tcp);
    let since = attach(&bob, "").1;
    User::register("carol", &mesh[0]).watch().shows("bob@server-b");
    let posts: Vec<SealedPost> = (0..3).map(|count| taken(&alice, &format!("post {count}"), &[])).collect();
    let messages: Vec<SealedMessage> =
        (0..3).map(|count| sealed(&alice, &bob.address, bob.key.public(), &format!("message {count}"))).collect();
    messages.iter().for_each(|message| send(&alice, message.clone()).expect("it is good"));
    let mut both = attach(&bob, &since).0;
    let (mut told, mut posted) = (Vec::new(), Vec::new());
    while told.len() + posted.len() < 6 {
        match both.next().event {
            Some(Event::Message(received)) => told.push(received.message.expect("it is in it")),
            Some(Event::Post(received)) => posted.push(received.post.expect("it is in it")),
            other => panic!("{other:?} comes"),
        }
    }
    assert_eq!((told, posted), (messages, posts));
}

#[test]
fn a_post_outlives_the_kill_of_its_readers_home_and_a_lost_channel_key_is_given_again() {
    let mut mesh = mesh();
    let alice = Caller::new("alice", &mesh[0], Wire::Tcp);
    let [bob, carol] = ["bob", "carol"].map(|name| Caller::new(name, &mesh[1], Wire::Tcp));
    let since = attach(&bob, "").1;
    drop(attach(&carol, ""));
    let mut watch = User::register("dave", &mesh[0]).watch();
    ["bob@server-b", "carol@server-b"].iter().for_each(|user| watch.shows(user));
    // Nobody is handed it; it is kept for both.
    let sealed = taken(&alice, "kept", &[&bob]);
    mesh.kill(1);
    mesh.start(1);
    let [bob, carol] = ["bob", "carol"].map(|name| Caller::new(name, &mesh[1], Wire::Tcp));
    let (received, cursor) = next(&mut attach(&bob, &since).0);
    assert_eq!(received.post, Some(sealed));
    assert!(bob.key.unwrap(&received.wrapped_channel_key).is_some());
    assert_eq!(attach(&carol, &cursor).1, cursor);
    let ask = |caller: &Caller| {
        let (sender, sender_home_id) = (alice.address.user.to_string(), alice.address.home.to_string());
        let wanted = GetChannelKeyRequest { sender, sender_home_id, key_id: CHANNEL_KEY_ID.to_vec().into() };
        let answer = soon(caller.messages().get_channel_key(caller.request(wanted))).expect("it is answered");
        answer.into_inner().wrapped_channel_key
    };
    assert_eq!(ask(&bob), received.wrapped_channel_key);
    assert_eq!(ask(&carol), [].as_slice(), "none came for her");
    assert!(bob.key.unwrap(&ask(&bob)).is_some() && carol.key.unwrap(&ask(&bob)).is_none());
    let wanted = GetChannelKeyRequest { sender: "alice".into(), ..GetChannelKeyRequest::default() };
    let refused = soon(bob.messages().get_channel_key(bob.request(wanted))).expect_err("it names no home");
    assert_eq!(refusal(&refused).1, "STATEMENT_INVALID");
}

#[test]
fn a_chat_that_is_started_again_at_once_shows_the_posts_that_it_missed() {
    let mesh = mesh();
    let alice = User::register("alice", &mesh[0]);
    let bob = User::register("bob", &mesh[1]);
    let mut at_alices = alice.chat();
    let mut at_bobs = bob.chat();
    at_alices.shows(&bob.label);
    at_alices.say("/all one");
    assert_eq!(at_bobs.post("one"), alice.label);
    assert_eq!(at_alices.answer()["outcome"], "handed_over");
    // What it has shown is in the profile before it answers: the next one goes on after that.
    at_bobs.list();
    at_bobs.kill();
    at_alices.say("/all two");
    at_alices.answer();
    let mut again = bob.chat();
    assert_eq!(again.post("two"), alice.label);
    let passed = again.passed();
    assert!(!passed.iter().any(|event| event["event"] == "post" && event["text"] == "one"), "{passed:?}");
}
