//! Files at one home: how many it keeps and for how long, and that nobody gets one that is for somebody else.

use fastrand::Rng;
use prost::Message as _;
use socp::{
    federation::v1::{FileFetch, FileFetchStatement},
    file::{File, Kept},
    id::{FileId, ServerId, TokenHash},
    identity::Identity as _,
    input::{Input, Request},
    limits::{DAY_MS, FILES_MAX, FILES_PER_USER_MAX, HOPS_MAX},
    message::Address,
    name::UserName,
    output::Answer,
    signed::{Label, signing_input},
    v1::{CreateFileRequest, Reason},
};

use crate::{
    keys::SimIdentity,
    rogue::{self, UNIX_MS},
    victim::{self, Victim},
};

/// More than the time between two looks for what is too old.
const SWEEP_MS: u64 = 20_000;

const BYTES: u64 = 100;

fn user(name: &str) -> UserName {
    UserName::parse(name).expect("a good name")
}

fn id(number: usize) -> FileId {
    FileId::from_bytes(&(number as u128 + 1).to_be_bytes()).expect("16 bytes")
}

/// A whole file that the disk has had since so many days before the start.
fn kept(number: usize, owner: &str, recipient: (ServerId, &str), days: u64) -> Kept {
    let recipient = Address { home: recipient.0, user: user(recipient.1) };
    let file = File { id: id(number), owner: user(owner), recipient, bytes: BYTES };
    Kept { file, created_unix_ms: UNIX_MS - days * DAY_MS, is_whole: true }
}

impl Victim {
    /// Something about one of a few files, rightly asked or not.
    pub fn any_file_request(&mut self, rng: &mut Rng, token: TokenHash) -> Request {
        let number = rng.usize(0..4);
        let mut file = id(number).to_string();
        if rng.u32(0..10) == 0 {
            file = rogue::any_text(rng);
        }
        let homes = [self.node.id(), self.rogue.id(), id_of(&SimIdentity::new(3))];
        let home = homes[rng.usize(0..homes.len())];
        match rng.u32(0..5) {
            0 | 1 => {
                let bytes = [0, 16, BYTES, 1 << 33, u64::MAX][rng.usize(0..5)];
                let recipient = rogue::any_user(rng);
                let request =
                    CreateFileRequest { file_id: file, recipient, recipient_home_id: home.to_string(), bytes };
                self.input(Input::FileStored { file: id(number) });
                Request::CreateFile { token, file: request }
            }
            2 => Request::UploadFile { token, file },
            3 => Request::DownloadFile { token, file, home: home.to_string(), offset: rng.u64(..) },
            _ => {
                let signer = SimIdentity::new(rng.u64(1..4));
                let mut fetch = fetch_of(&signer, home, &rogue::any_user(rng), number);
                fetch.hops_left = rng.u32(..);
                if rng.bool() {
                    fetch.statement = rogue::mutated(rng, &fetch.statement).into();
                }
                Request::FetchFile { peer: self.rogue.id(), fetch }
            }
        }
    }

    fn create_file(&mut self, token: TokenHash, number: usize) -> Result<i64, Reason> {
        let file = CreateFileRequest {
            file_id: id(number).to_string(),
            recipient: "bob".into(),
            recipient_home_id: self.node.id().to_string(),
            bytes: BYTES,
        };
        match self.answered(Request::CreateFile { token, file })? {
            Answer::FileCreated { expires_unix_ms, .. } => Ok(expires_unix_ms),
            other => panic!("{other:?}"),
        }
    }

    fn download(&mut self, token: TokenHash, number: usize) -> Result<(), Reason> {
        let home = self.node.id().to_string();
        self.here(Request::DownloadFile { token, file: id(number).to_string(), home, offset: 0 }, number)
    }

    fn fetch(&mut self, fetch: FileFetch, number: usize) -> Result<(), Reason> {
        let peer = self.rogue.id();
        self.here(Request::FetchFile { peer, fetch }, number)
    }

    fn here(&mut self, request: Request, number: usize) -> Result<(), Reason> {
        match self.answered(request)? {
            Answer::FileHere { file, .. } => {
                assert_eq!(file.id, id(number));
                Ok(())
            }
            other => panic!("{other:?}"),
        }
    }

    fn answered(&mut self, request: Request) -> Result<Answer, Reason> {
        let call = self.call(request);
        let answer = self.answers[&call].first().expect("it is answered at once").clone();
        answer.map_err(|rejection| rejection.reason)
    }
}

/// What the home with this key asks the victim for.
fn fetch_of(identity: &SimIdentity, home: ServerId, name: &str, number: usize) -> FileFetch {
    let statement = FileFetchStatement {
        asker_key: identity.public_key().to_vec().into(),
        home_id: home.as_bytes().to_vec().into(),
        file_id: id(number).as_bytes().to_vec().into(),
        user: name.into(),
    };
    let statement = statement.encode_to_vec();
    let signature = identity.sign(&signing_input(Label::FileFetch, &statement)).to_vec().into();
    FileFetch { statement: statement.into(), signature, offset: 0, hops_left: HOPS_MAX }
}

fn id_of(identity: &SimIdentity) -> ServerId {
    ServerId::of_key(&identity.public_key())
}

#[test]
fn a_user_has_1_000_files_kept_and_not_one_more_until_one_has_gone() {
    let mut victim = Victim::new(1);
    let [alice, bob] = ["alice", "bob"].map(|name| victim.log_in(name));
    victim.create_file(alice, 0).expect("there is room");
    victim.pass(SWEEP_MS);
    for number in 1..FILES_PER_USER_MAX {
        victim.create_file(alice, number).expect("there is room");
    }
    assert_eq!(victim.create_file(alice, FILES_PER_USER_MAX), Err(Reason::FilesFull));
    victim.create_file(alice, 0).expect("it is kept already");
    victim.create_file(bob, FILES_PER_USER_MAX + 1).expect("there is room for others");
    victim.pass(7 * DAY_MS - SWEEP_MS);
    assert_eq!(victim.dropped, [id(0)]);
    victim.create_file(alice, FILES_PER_USER_MAX).expect("one has gone");
    assert_eq!(victim.create_file(alice, 0), Err(Reason::FilesFull));
}

#[test]
fn a_server_keeps_100_000_files_and_not_one_more_until_one_has_gone() {
    let home = Victim::new(1).node.id();
    // The last one is the oldest.
    let files = (0..FILES_MAX - 1).map(|number| {
        kept(number, &format!("user-{}", number / FILES_PER_USER_MAX), (home, "bob"), (number / (FILES_MAX - 2)) as u64)
    });
    let mut victim = Victim::with_files(1, files.collect());
    let alice = victim.log_in("alice");
    victim.create_file(alice, FILES_MAX).expect("there is room");
    assert_eq!(victim.create_file(alice, FILES_MAX + 1), Err(Reason::FilesFull));
    victim.pass(6 * DAY_MS);
    assert_eq!(victim.dropped, [id(FILES_MAX - 2)]);
    victim.create_file(alice, FILES_MAX + 1).expect("one has gone");
    assert_eq!(victim.create_file(alice, FILES_MAX + 2), Err(Reason::FilesFull));
}

#[test]
fn a_file_is_there_for_its_days_and_then_gone_whatever_the_clock_says() {
    let home = Victim::new(1).node.id();
    let mut victim =
        Victim::with_files(1, vec![kept(1, "alice", (home, "bob"), 6), kept(2, "alice", (home, "bob"), 8)]);
    let [alice, bob] = ["alice", "bob"].map(|name| victim.log_in(name));
    assert_eq!(victim.dropped, [id(2)], "its time was over before the start");
    assert_eq!(victim.download(bob, 2), Err(Reason::FileNotFound));
    let expires_unix_ms = victim.create_file(alice, 3).expect("there is room");
    assert_eq!(expires_unix_ms, i64::try_from(UNIX_MS + 7 * DAY_MS).expect("it fits"));
    victim.input(Input::FileStored { file: id(3) });
    // A clock that jumps drops nothing.
    victim.now.unix_ms += 30 * DAY_MS;
    victim.pass(DAY_MS - 1);
    for number in [1, 3] {
        assert_eq!(victim.download(bob, number), Ok(()));
    }
    victim.pass(SWEEP_MS);
    assert_eq!((victim.download(bob, 1), &victim.dropped[1..]), (Err(Reason::FileNotFound), &[id(1)][..]));
    victim.pass(6 * DAY_MS - SWEEP_MS);
    assert_eq!(victim.download(bob, 3), Ok(()), "its last millisecond");
    victim.pass(SWEEP_MS);
    assert_eq!((victim.download(bob, 3), &victim.dropped[2..]), (Err(Reason::FileNotFound), &[id(3)][..]));
    victim.create_file(alice, 1).expect("its id is free again");
}

#[test]
fn a_file_is_given_to_its_sender_and_recipient_and_for_no_other_token() {
    let home = Victim::new(1).node.id();
    let mut victim = Victim::with_files(1, vec![kept(1, "alice", (home, "bob"), 0)]);
    let [alice, bob, anchor] = ["alice", "bob", victim::USERS[0]].map(|name| victim.log_in(name));
    assert_eq!((victim.download(alice, 1), victim.download(bob, 1)), (Ok(()), Ok(())));
    assert_eq!(victim.download(anchor, 1), Err(Reason::FileNotFound));
    assert_eq!(victim.download(TokenHash::of("forged"), 1), Err(Reason::TokenInvalid));
    assert_eq!(victim.create_file(anchor, 1), Err(Reason::IdReused));
    for (token, reason) in [(bob, Reason::FileNotFound), (TokenHash::of("forged"), Reason::TokenInvalid)] {
        let upload = Request::UploadFile { token, file: id(1).to_string() };
        assert_eq!(victim.answered(upload).expect_err("it is alice's"), reason);
    }
    // A file that is begun is nobody's yet.
    victim.create_file(alice, 2).expect("there is room");
    assert_eq!(
        (victim.download(alice, 2), victim.download(bob, 2)),
        (Err(Reason::FileNotFound), Err(Reason::FileNotFound))
    );
}

#[test]
fn a_server_gets_files_that_are_for_its_own_users_and_no_others() {
    let (own, rogue, stranger) = (SimIdentity::new(1), SimIdentity::new(2), SimIdentity::new(3));
    let (home, rogues, strangers) = (id_of(&own), id_of(&rogue), id_of(&stranger));
    let files = [(rogues, "eve"), (home, "bob"), (strangers, "eve")];
    let files = files.iter().enumerate().map(|(number, recipient)| kept(number, "alice", *recipient, 0));
    let mut victim = Victim::with_files(1, files.collect());
    victim.link();
    assert_eq!(victim.fetch(fetch_of(&rogue, home, "eve", 0), 0), Ok(()));
    for (what, fetch, number) in [
        ("another user of the same home", fetch_of(&rogue, home, "mallory", 0), 0),
        ("the sender's name at another home", fetch_of(&rogue, home, "alice", 0), 0),
        ("a user of the victim", fetch_of(&rogue, home, "bob", 1), 1),
        ("the victim's own word, sent back", fetch_of(&own, home, "bob", 1), 1),
        ("another home's user", fetch_of(&rogue, home, "eve", 2), 2),
        ("a server that is not admitted", fetch_of(&stranger, home, "eve", 2), 2),
        ("a file that is not there", fetch_of(&rogue, home, "eve", 9), 9),
    ] {
        assert_eq!(victim.fetch(fetch, number), Err(Reason::FileNotFound), "{what}");
    }
}

#[test]
fn a_fetch_that_its_home_did_not_sign_is_refused() {
    let (own, rogue, stranger) = (SimIdentity::new(1), SimIdentity::new(2), SimIdentity::new(3));
    let (home, rogues) = (id_of(&own), id_of(&rogue));
    let mut victim = Victim::with_files(1, vec![kept(0, "alice", (rogues, "eve"), 0)]);
    victim.link();
    let good = fetch_of(&rogue, home, "eve", 0);
    assert_eq!(victim.fetch(good.clone(), 0), Ok(()));
    // The one that names the rogue's key, signed by another.
    let forged = FileFetch {
        signature: stranger.sign(&signing_input(Label::FileFetch, &good.statement)).to_vec().into(),
        ..good.clone()
    };
    let of_another = FileFetch { statement: fetch_of(&rogue, home, "mallory", 0).statement, ..good.clone() };
    let for_another_purpose = FileFetch {
        signature: rogue.sign(&signing_input(Label::Submission, &good.statement)).to_vec().into(),
        ..good.clone()
    };
    let unsigned = FileFetch { signature: Default::default(), ..good.clone() };
    for fetch in [forged, of_another, for_another_purpose, unsigned] {
        assert_eq!(victim.fetch(fetch, 0), Err(Reason::InvalidSig));
    }
    let garbled = FileFetch { statement: vec![0xff; 9].into(), ..good.clone() };
    assert_eq!(victim.fetch(garbled, 0), Err(Reason::StatementInvalid));
    // For a home to which there is no way but back.
    for elsewhere in [rogues, id_of(&stranger)] {
        assert_eq!(victim.fetch(fetch_of(&rogue, elsewhere, "eve", 0), 0), Err(Reason::HomeUnreachable));
    }
}
