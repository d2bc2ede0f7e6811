//! Posts to all: who made which, for how many each home said that it has it, and what devices must have of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::PathBuf,
    time::Duration,
};

use prost::Message as _;
use socp::v1::{
    OutcomeKind, OutcomeStatement, PostHeader, PostStatement, PostToChannelRequest, PostToChannelResponse, SealedPost,
};
use tokio::time::{sleep, timeout};

use crate::{
    World,
    device::Device,
    harness::{caller::Caller, draft, wire},
    session::{self, CALL_MAX, RETRY},
};

/// Tries of one post: what is not known by then of a home that was killed stays so.
const TRIES_MAX: usize = 4;

/// Between two of them: a server is started again meanwhile.
const SILENT: Duration = Duration::from_millis(200);

/// A post as its sender wrote it down.
pub struct Made {
    /// Its id.
    pub id: String,
    /// Place of each home that has it, and for how many users it said so.
    pub homes: Vec<(usize, usize)>,
}

/// Author and id of a post, as its header has them.
pub fn author_and_id(post: &SealedPost) -> (String, String) {
    let statement = PostStatement::decode(&post.statement[..]).expect("servers pass on what was signed");
    let header = PostHeader::decode(&statement.header[..]).expect("servers pass on what was signed");
    (header.sender, header.message_id)
}

/// Makes one post and writes down what became of it.
pub async fn make(world: &World, user: usize, session: &mut Option<Caller>) {
    let caller = match session.take() {
        Some(caller) => caller,
        None => session::open(world, user).await,
    };
    let post = draft::sealed_post(&caller, "to all");
    *session = Some(caller);
    let mut homes = BTreeMap::new();
    for _ in 0..TRIES_MAX {
        let Some(answer) = try_once(world, user, session, &post).await else { break };
        match answer {
            Some(answer) => {
                homes.extend(words(world, &answer));
                if answer.silent_home_ids.is_empty() {
                    break;
                }
                sleep(SILENT).await;
            }
            None => sleep(RETRY).await,
        }
    }
    let words: Vec<String> = homes.iter().map(|(home, count)| format!("{home}:{count}")).collect();
    let mut notes =
        fs::OpenOptions::new().create(true).append(true).open(notes(world, user)).expect("notes can be made");
    writeln!(notes, "{} {}", author_and_id(&post).1, words.join(",")).expect("notes can be made");
}

/// Posts once: nothing if nobody is online, and no answer if none came.
async fn try_once(
    world: &World,
    user: usize,
    session: &mut Option<Caller>,
    post: &SealedPost,
) -> Option<Option<PostToChannelResponse>> {
    let caller = match session.take() {
        Some(caller) => caller,
        None => session::open(world, user).await,
    };
    let request = caller.request(PostToChannelRequest { post: Some(post.clone()), wraps: Vec::new() });
    let answer = timeout(CALL_MAX, caller.messages().post_to_channel(request)).await;
    match answer {
        Ok(Ok(answer)) => {
            *session = Some(caller);
            Some(Some(answer.into_inner()))
        }
        Ok(Err(status)) if wire::refusal(&status).1 == "NOBODY_ONLINE" => {
            *session = Some(caller);
            None
        }
        // The session may be over, or the server.
        _ => Some(None),
    }
}

/// For how many users which homes said that they have it.
fn words(world: &World, answer: &PostToChannelResponse) -> Vec<(usize, usize)> {
    let word = |statement: &[u8]| {
        let statement = OutcomeStatement::decode(statement).ok()?;
        let home = world.places.iter().position(|place| place.id.to_string() == statement.home_id)?;
        let outcome = statement.outcomes.first()?;
        let is_there = matches!(outcome.kind(), OutcomeKind::HandedOver | OutcomeKind::Stored);
        is_there.then_some((home, outcome.recipients as usize))
    };
    answer.outcomes.iter().filter_map(|signed| word(&signed.statement)).collect()
}

fn notes(world: &World, user: usize) -> PathBuf {
    world.notes.join(format!("{user}.posts"))
}

/// What a user wrote down of posts, in the order of making.
pub fn read_notes(world: &World, user: usize) -> Vec<Made> {
    let written = fs::read_to_string(notes(world, user)).unwrap_or_default();
    let word = |word: &str| {
        let (home, count) = word.split_once(':').expect("a home and a number");
        (home.parse().expect("a number"), count.parse().expect("a number"))
    };
    let made = |line: &str| {
        let (id, homes) = line.split_once(' ').expect("a note has two words");
        Made { id: id.to_owned(), homes: homes.split_terminator(',').map(word).collect() }
    };
    written.lines().map(made).collect()
}

/// Makes a post that everybody but its author gets, once so many devices are there: who has it has all before it.
pub async fn make_last(world: &World, user: usize, devices: usize) {
    // The other end is there as long as the world.
    let _ = world.here.subscribe().wait_for(|here| here.len() >= devices).await;
    let mut session = None;
    loop {
        let caller = match session.take() {
            Some(caller) => caller,
            None => session::open(world, user).await,
        };
        let post = draft::sealed_post(&caller, "the last");
        session = Some(caller);
        world.last_posts.lock().expect("nobody panicked").push(author_and_id(&post).1);
        if let Some(Some(answer)) = try_once(world, user, &mut session, &post).await
            && answer.silent_home_ids.is_empty()
        {
            break;
        }
        sleep(RETRY).await;
    }
}

/// What a device has of posts, for the judge.
#[derive(Clone)]
pub struct Had {
    pub user: usize,
    pub home: usize,
    pub number: usize,
    /// Author and id, as they came, without the last ones.
    pub posts: Vec<(String, String)>,
}

impl Had {
    pub fn of(device: &Device, world: &World) -> Self {
        let last = world.last_posts.lock().expect("nobody panicked");
        let posts = device.posts.iter().filter(|(_, id)| !last.contains(id)).cloned().collect();
        Self { user: device.user, home: world.users[device.user].home, number: device.number, posts }
    }
}

/// Compares what devices have with one another and with what homes said. `made` is by the authors' names.
pub fn judge(had: &[Had], made: &BTreeMap<String, Vec<Made>>) -> Vec<String> {
    let mut violations = Vec::new();
    let whole: BTreeMap<usize, &Had> =
        had.iter().filter(|device| device.number == 2).map(|device| (device.user, device)).collect();
    for device in had {
        let who = format!("device {} of user {}", device.number, device.user);
        let once: BTreeSet<_> = device.posts.iter().collect();
        if once.len() < device.posts.len() {
            violations.push(format!("{who} has a post twice"));
        }
        let all = whole.get(&device.user).map_or(&[][..], |whole| &whole.posts);
        let begin = device.posts.first().map_or(Some(0), |first| all.iter().position(|post| post == first));
        let is_part = begin.is_some_and(|begin| all[begin..].starts_with(&device.posts));
        if !is_part {
            violations.push(format!("{who} has other posts than the whole log, or in another order"));
        }
        for (author, made) in made {
            let order = |id: &String| made.iter().position(|post| post.id == *id);
            let places: Vec<_> = device.posts.iter().filter(|(by, _)| by == author).map(|(_, id)| order(id)).collect();
            if places.contains(&None) {
                violations.push(format!("{who} has a post of {author} that was not made"));
            } else if !places.is_sorted() {
                violations.push(format!("{who} has the posts of {author} in another order"));
            }
        }
    }
    let mut counts: BTreeMap<(usize, &str), usize> = BTreeMap::new();
    for device in whole.values() {
        for (_, id) in &device.posts {
            *counts.entry((device.home, id)).or_default() += 1;
        }
    }
    for post in made.values().flatten() {
        for (home, said) in &post.homes {
            let count = counts.get(&(*home, &*post.id)).copied().unwrap_or_default();
            if count < *said {
                violations.push(format!("{count} users of server {home} have post {}, of {said} as it said", post.id));
            }
        }
    }
    violations
}

/// What devices have, made wrong in each way that is looked for.
pub fn falsehoods(had: &[Had]) -> Vec<(&'static str, Vec<Had>)> {
    let is_long = |device: &&Had| device.number == 2 && device.posts.len() > 2;
    let Some(longest) = had.iter().filter(is_long).max_by_key(|device| device.posts.len()) else { return Vec::new() };
    let (user, home, middle) = (longest.user, longest.home, longest.posts.len() / 2);
    let post = longest.posts[middle].clone();
    let falsified = |what, change: &dyn Fn(&mut Had)| {
        let mut had = had.to_vec();
        had.iter_mut().for_each(change);
        (what, had)
    };
    let before = longest.posts[..middle].iter().rposition(|(author, _)| *author == post.0);
    let mut all = vec![
        falsified("a post lost at a home", &|device| {
            if device.home == home {
                device.posts.retain(|other| *other != post);
            }
        }),
        falsified("a post repeated", &|device| {
            if (device.user, device.number) == (user, 2) {
                device.posts.push(post.clone());
            }
        }),
        falsified("a post by nobody", &|device| {
            if (device.user, device.number) == (user, 2) {
                device.posts.push((post.0.clone(), "nobody's".into()));
            }
        }),
    ];
    all.extend(before.map(|before| {
        falsified("posts out of order", &|device| {
            if (device.user, device.number) == (user, 2) {
                device.posts.swap(before, middle);
            }
        })
    }));
    all
}
