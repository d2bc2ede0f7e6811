//! The public channel by the samples: a post that is made while one is away comes once it is back.

use std::{fs, path::Path, time::Instant};

use prost::Message as _;
use serde_json::json;
use socp::{
    id::ServerId,
    message::Address,
    user_key::UserKey,
    v1::{ChannelKeyWrap, GetUserRequest, KeyStatement, PostToChannelRequest},
};

use super::partner::{Partner, RETURN_TIME_MAX, START_TIME_MAX, Sample, folder};
use crate::harness::{
    caller::{self, Caller},
    client::User,
    draft::{channel_key_for, sealed_post},
    forward::Forward,
    mesh::Mesh,
    soon,
    wire::Wire,
};

/// Who makes the posts, one after the other, and brings the channel key only when told to.
struct Poster {
    caller: Caller,
    next: usize,
}

impl Poster {
    /// The channel key for a user.
    #[track_caller]
    fn wrap_for(&self, label: &str) -> ChannelKeyWrap {
        let request = self.caller.request(GetUserRequest { user: label.into() });
        let found = soon(self.caller.directory().get_user(request)).expect("the user is known").into_inner();
        let statement = found.key_statements.last().expect("it has a key");
        let key = KeyStatement::decode(&statement.statement[..]).expect("it was checked by its home").public_key;
        let (name, _) = label.split_once('@').expect("it is a whole name");
        let home = ServerId::parse(&found.server_id).expect("it is an id");
        let member = Address { home, user: caller::name(name) };
        channel_key_for(&member, &UserKey::parse(&key).expect("it was checked by its home"))
    }

    /// Makes so many posts, each taken by all homes when the next is made.
    #[track_caller]
    fn post(&mut self, count: usize, wraps: &[ChannelKeyWrap]) {
        for _ in 0..count {
            let post = Some(sealed_post(&self.caller, &format!("number {}", self.next)));
            let request = self.caller.request(PostToChannelRequest { post, wraps: wraps.to_vec() });
            let answer = soon(self.caller.messages().post_to_channel(request)).expect("it is taken").into_inner();
            assert_eq!((answer.outcomes.len(), &answer.silent_home_ids[..]), (2, &[][..]));
            self.next += 1;
        }
    }
}

/// Asks until the sample has shown the posts of these numbers, in order, and nothing else in this run.
#[track_caller]
fn expect_posts(partner: &mut Partner, numbers: std::ops::Range<usize>) {
    let deadline = Instant::now() + RETURN_TIME_MAX;
    let wanted = json!(numbers.map(|number| number.to_string()).collect::<Vec<_>>());
    loop {
        let shown = partner.asks("posts").expect("nothing is refused");
        if shown == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{shown} is not {wanted}");
    }
}

/// Puts the cursor of no post into what the sample keeps, as if its home had lost its log.
fn spoil_channel_cursor(kept: &Path) {
    let file = kept.join("key.pem.device");
    let text = fs::read_to_string(&file).expect("the sample keeps it");
    let name = text.find("channel_cursor").expect("it keeps the channel's, too") + "channel_cursor".len();
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '-';
    let begin = name + text[name..].find(is_part).expect("it has one");
    let end = begin + text[begin..].find(|character| !is_part(character)).expect("it ends");
    fs::write(file, format!("{}7-0000000000000000{}", &text[..begin], &text[end..])).expect("it can be written to");
}

/// The sample's way breaks, it is killed, and its home loses the log: in each case it goes on as well as can be.
#[track_caller]
fn goes_on(language: &str) {
    let mut mesh = Mesh::new(2);
    let timing = format!("[timing]\nattach_grace_ms = 60000\n{}", mesh.site(1).entry());
    mesh.site(0).configure(&timing);
    mesh.start(0);
    mesh.start(1);
    mesh.expect_link(0, 1);
    let way = Forward::to(mesh[0].client);
    let bob = User::register("bob", &mesh[1]);
    let mut partner = Partner::new(&bob, format!("{language}@server-a"));
    let kept = folder();
    let start = || Sample::start(language, mesh.site(0), &way, &bob.label, kept.path());
    let mut poster = Poster { caller: Caller::new("alice", &mesh[1], Wire::Tcp), next: 0 };

    // Nothing came before, so that it goes on after what was the newest as it attached.
    let mut sample = start();
    partner.meets(START_TIME_MAX);
    partner.exchanges_pings(|_, nonce| nonce.to_owned());
    expect_posts(&mut partner, 0..0); // its pings are answered by now
    let wraps = [poster.wrap_for(&partner.sample), poster.wrap_for(&bob.label)];
    way.break_off();
    poster.post(10, &wraps);
    way.heal();
    expect_posts(&mut partner, 0..10);
    poster.post(2, &[]);
    expect_posts(&mut partner, 0..12);

    // Out of the log each brings its key, for the next run, which has it no more.
    sample.0.kill();
    poster.post(10, &[]);
    let mut sample = start();
    partner.exchanges_pings(|_, nonce| nonce.to_owned());
    expect_posts(&mut partner, 12..22);

    // One that does not is opened with the key that the home kept.
    sample.0.kill();
    let mut sample = start();
    partner.exchanges_pings(|_, nonce| nonce.to_owned());
    expect_posts(&mut partner, 22..22);
    poster.post(2, &[]);
    expect_posts(&mut partner, 22..24);

    // Where the log is another one, it attaches without that cursor, and the inbox goes on where it was.
    sample.0.kill();
    spoil_channel_cursor(kept.path());
    let mut sample = start();
    partner.exchanges_pings(|_, nonce| nonce.to_owned());
    expect_posts(&mut partner, 24..24);
    poster.post(1, &[]);
    expect_posts(&mut partner, 24..25);
    partner.parts_from(&mut sample);
    partner.live.quit();
}

#[test]
fn the_python_sample_shows_each_post_once_that_was_made_while_it_was_cut_off_or_killed() {
    goes_on("python");
}

#[test]
fn the_go_sample_shows_each_post_once_that_was_made_while_it_was_cut_off_or_killed() {
    goes_on("go");
}

#[test]
fn the_node_sample_shows_each_post_once_that_was_made_while_it_was_cut_off_or_killed() {
    goes_on("node");
}

#[test]
fn the_java_sample_shows_each_post_once_that_was_made_while_it_was_cut_off_or_killed() {
    goes_on("java");
}
