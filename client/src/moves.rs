//! Moves as a client believes them: signed by the key that was known, to an address that shows the same key.
//!
//! The old home alone is never believed, nor the new one. What a server says beside a signed move (labels, reasons) is for
//! people to read, and decides nothing.

use std::{future, pin::Pin, sync::Arc};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use socp::{
    message::Address,
    moves::Move,
    rejection,
    statement::KeyStatement,
    user_key::UserKey,
    v1::{Reason, SignedMove},
};

use crate::{
    directory::{Destination, Entry},
    event::Event,
    failure::Failure,
    public_key,
    sending::{self, Correspondent},
    session::{Account, Session},
    trust::Verdict,
};

/// The reason given when a move is not the user's word, or leads to another key.
pub const MOVE_REFUSED: &str = "MOVE_REFUSED";

/// Moves that are checked at once; one beyond is checked when the user is addressed.
const CHECKS_MAX: usize = 64;

/// Where a user says they are now, in a move that their key signed.
#[derive(Clone, Debug)]
pub struct Moved {
    /// Whence.
    pub from: Address,
    /// Whither.
    pub address: Address,
    /// The key that signed.
    pub key: UserKey,
    /// The new address as the own server labels it.
    pub label: String,
}

/// A user at the new address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// `name@server-name`.
    pub label: String,
    /// Whether the new address shows the same key, which is pinned; else its home could not be asked.
    pub is_pinned: bool,
}

/// Judges the move that is shown of a user, by their key statement in force, which must be believed already.
pub fn judge(statement: &KeyStatement, signed: &SignedMove, label: &str) -> Result<Moved, Failure> {
    let moved = Move::parse(signed).ok();
    let moved = moved.filter(|moved| moved.is_of(statement) && public_key::verify(&moved.check(&statement.key)));
    let Some(Move { from, to, .. }) = moved else {
        let message =
            format!("THE SERVER OF `{}` SAYS THAT THEY MOVED, AND THEIR KEY DID NOT SIGN THAT", statement.user);
        return Err(Failure::refused(MOVE_REFUSED, message)
            .hint("that server is at fault; stay with the address and the key that you know"));
    };
    let fits = label.split_once('@').is_some_and(|(name, server)| name == to.user.as_str() && !server.is_empty());
    let label = if fits && !label.chars().any(char::is_control) {
        label.to_owned()
    } else {
        format!("{}@{}", to.user, to.home)
    };
    Ok(Moved { from, address: to, key: statement.key.clone(), label })
}

/// Asks the new address for its key, which must be the one that signed the move, and pins it.
pub async fn find(session: &Session, account: &Account, moved: &Moved) -> Result<Found, Failure> {
    let user = format!("{}@{}", moved.address.user, moved.address.home);
    match sending::ask_for(session, &user).await {
        Ok((_, answer)) => {
            account.trust.follow_move(moved, &answer.key_statements)?;
            Ok(Found { label: answer.user, is_pinned: true })
        }
        // A server that is not pinned at the own one is not known there.
        Err(failure) if failure.passing || failure.is(Reason::UserNotFound) => {
            Ok(Found { label: moved.label.clone(), is_pinned: false })
        }
        Err(failure) => Err(failure),
    }
}

/// Fails if a user who was looked up is elsewhere, and says where.
pub async fn refuse(session: &Session, account: &Account, user: &Correspondent) -> Result<(), Failure> {
    let Some(moved) = user.moved.clone().transpose()? else { return Ok(()) };
    let found = find(session, account, &moved).await?;
    let message = format!("`{}` has moved to `{}`", user.label, found.label);
    let hint = if found.is_pinned {
        format!("nothing was sent; `{}` has the same key, which is pinned: write there", found.label)
    } else {
        "nothing was sent; the new server cannot be asked now, so its key is not pinned yet".to_owned()
    };
    Err(Failure::refused(rejection::name(Reason::UserMoved), message).hint(hint))
}

/// What is told of a user who was looked up and is elsewhere; `None` of one who did not move.
pub async fn event(session: &Session, account: &Account, user: &Correspondent) -> Option<Event> {
    let told = match user.moved.clone()? {
        Ok(moved) => find(session, account, &moved).await.map(|found| (moved, found)),
        Err(failure) => Err(failure),
    };
    Some(told_as(user.label.clone(), told))
}

fn told_as(user: String, told: Result<(Moved, Found), Failure>) -> Event {
    match told {
        Ok((moved, found)) => Event::Moved {
            user,
            to: found.label,
            server_id: moved.address.home.to_string(),
            fingerprint: moved.key.fingerprint().to_string(),
            pinned: found.is_pinned,
        },
        Err(failure) if failure.passing => Event::error(failure, None),
        Err(failure) => Event::MoveRefused { user, message: failure.message },
    }
}

/// Moves that the watch told of and that are being checked.
#[derive(Default)]
pub struct Checks {
    jobs: FuturesUnordered<Pin<Box<dyn Future<Output = Event> + Send>>>,
}

impl Checks {
    /// Begins to check the move of a user who was shown until now.
    pub fn begin(&mut self, session: Session, account: Arc<Account>, entry: Arc<Entry>, destination: Destination) {
        if self.jobs.len() >= CHECKS_MAX {
            return;
        }
        self.jobs.push(Box::pin(async move {
            let told = check(&session, &account, &entry, &destination).await;
            told_as(entry.wire.user.clone(), told)
        }));
    }

    /// Waits for what came of one, for ever if there is none; cancelling loses nothing.
    pub async fn next(&mut self) -> Event {
        match self.jobs.next().await {
            Some(event) => event,
            None => future::pending().await,
        }
    }
}

async fn check(
    session: &Session,
    account: &Account,
    entry: &Entry,
    destination: &Destination,
) -> Result<(Moved, Found), Failure> {
    // Without the old home, if the entry had all that is needed.
    let moved = match &entry.wire.key_statement {
        Some(signed) if is_trusted(account, entry, signed) => {
            judge(&KeyStatement::parse(signed)?, &destination.moved, &destination.label)?
        }
        _ => {
            let user = format!("{}@{}", entry.address.user, entry.address.home);
            let found = sending::look_up(session, account, &user).await?;
            let hidden =
                || Failure::refused(MOVE_REFUSED, format!("`{user}` WAS SAID TO HAVE MOVED, AND IS NOT ANY MORE"));
            found.moved.ok_or_else(hidden)??
        }
    };
    let found = find(session, account, &moved).await?;
    Ok((moved, found))
}

fn is_trusted(account: &Account, entry: &Entry, signed: &socp::v1::SignedKeyStatement) -> bool {
    matches!(account.trust.judge(&entry.address, entry.statement, signed), Ok(Verdict::Trusted(_)))
}

#[cfg(test)]
mod tests {
    use prost::bytes::Bytes;
    use socp::{
        id::{KeyFingerprint, ServerId},
        name::UserName,
        signed::Label,
        v1::SignedKeyStatement,
    };

    use super::*;
    use crate::{
        private_key::{PrivateKey, test_keys::*},
        profile::Profile,
        trust::{KEY_CHANGED, Trust},
    };

    fn address(user: &str, home: u8) -> Address {
        Address { home: ServerId::of_key(&[home; 32]), user: UserName::parse(user).unwrap() }
    }

    fn statement(of: &Address, key: &PrivateKey) -> SignedKeyStatement {
        let statement: Bytes = KeyStatement::encode(&of.user, of.home, key.public(), 1, None).into();
        let signature = key.sign(Label::KeyStatement, &statement).unwrap();
        SignedKeyStatement { statement, signature, previous_signature: Bytes::new() }
    }

    fn signed(key: &PrivateKey, from: &Address, of: &KeyStatement, to: &Address) -> SignedMove {
        let statement: Bytes = Move::encode(from, of.hash(), to, 7).into();
        SignedMove { signature: key.sign(Label::Move, &statement).unwrap(), statement }
    }

    fn trust() -> (Trust, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let profile = Profile {
            name: "alice".into(),
            folder: folder.path().into(),
            user: UserName::parse("alice").unwrap(),
            server: String::new(),
            server_id: ServerId::of_key(&[9; 32]),
            server_name: "server-d".into(),
            key_fingerprint: KeyFingerprint::of_spki(b"key"),
            ca: None,
        };
        (Trust::open(&profile).unwrap(), folder)
    }

    #[test]
    fn a_home_that_invents_a_move_or_brings_another_ones_is_refused_loudly() {
        let (bob, there) = (address("bob", 1), address("bob", 2));
        let known = KeyStatement::parse(&statement(&bob, &BOB)).unwrap();
        let good = signed(&BOB, &bob, &known, &there);
        assert_eq!(judge(&known, &good, "bob@server-c").unwrap().label, "bob@server-c");
        let other_statement = KeyStatement::parse(&statement(&bob, &BOB)).unwrap();
        let carol = address("carol", 1);
        let of_carol = KeyStatement::parse(&statement(&carol, &BOB)).unwrap();
        let mut relabelled = good.clone();
        relabelled.signature = BOB.sign(Label::Login, &good.statement).unwrap();
        let mut altered = good.clone();
        altered.statement = Move::encode(&bob, known.hash(), &address("mallory", 2), 7).into();
        for (what, wrong) in [
            ("signed by another key", signed(&MALLORY, &bob, &known, &there)),
            ("unsigned", SignedMove { signature: Bytes::new(), ..good.clone() }),
            ("signed for another purpose", relabelled),
            ("altered", altered),
            ("of another user with the same key", signed(&BOB, &carol, &of_carol, &there)),
            ("of an earlier registration", signed(&BOB, &bob, &other_statement, &there)),
            ("from another home, replayed", signed(&BOB, &there, &known, &bob)),
            ("to the same home", signed(&BOB, &bob, &known, &address("robert", 1))),
            ("nothing", SignedMove::default()),
        ] {
            let refused = judge(&known, &wrong, "bob@server-c").unwrap_err();
            assert_eq!(refused.reason, MOVE_REFUSED, "{what}");
            assert!(refused.message.contains("THEIR KEY DID NOT SIGN THAT"), "{refused}");
        }
    }

    #[test]
    fn a_label_of_another_name_or_that_cannot_be_printed_gives_way_to_the_id() {
        let (bob, there) = (address("bob", 1), address("bob", 2));
        let known = KeyStatement::parse(&statement(&bob, &BOB)).unwrap();
        let moved = signed(&BOB, &bob, &known, &there);
        for label in ["", "mallory@server-c", "bob", "bob@", "bob@c\u{1b}[2J"] {
            assert_eq!(judge(&known, &moved, label).unwrap().label, format!("bob@{}", there.home), "{label}");
        }
    }

    #[test]
    fn the_new_address_is_pinned_only_if_it_shows_the_same_key() {
        let (bob, there) = (address("bob", 1), address("bob", 2));
        let known = KeyStatement::parse(&statement(&bob, &BOB)).unwrap();
        let moved = judge(&known, &signed(&BOB, &bob, &known, &there), "bob@server-c").unwrap();
        let (trust, _folder) = trust();
        let usurped = trust.follow_move(&moved, &[statement(&there, &MALLORY)]).unwrap_err();
        assert_eq!(usurped.reason, MOVE_REFUSED, "somebody else has the name there");
        assert!(usurped.message.contains("WHICH HAS ANOTHER KEY"), "{usurped}");
        let mut claimed = statement(&there, &BOB);
        claimed.signature = MALLORY.sign(Label::KeyStatement, &claimed.statement).unwrap();
        assert_eq!(trust.follow_move(&moved, &[claimed]).unwrap_err().reason, "INVALID_SIG");
        let elsewhere = statement(&address("robert", 2), &BOB);
        assert_eq!(trust.follow_move(&moved, &[elsewhere]).unwrap_err().reason, "STATEMENT_INVALID");
        assert!(trust.follow_move(&moved, &[]).is_err());
        assert_eq!(trust.pin_of(&there), None, "nothing was pinned meanwhile");
        trust.follow_move(&moved, &[statement(&there, &BOB)]).unwrap();
        assert_eq!(trust.pin_of(&there).unwrap().fingerprint, BOB.public().fingerprint());
        // From here on the new home can show no other key.
        let usurped = trust.follow(&there, &[statement(&there, &MALLORY)]).unwrap_err();
        assert_eq!(usurped.reason, KEY_CHANGED);
    }

    #[test]
    fn a_move_to_an_address_that_is_pinned_with_another_key_is_refused_loudly() {
        let (bob, carol) = (address("bob", 1), address("carol", 2));
        let (trust, _folder) = trust();
        trust.follow(&carol, &[statement(&carol, &ALICE)]).unwrap();
        let known = KeyStatement::parse(&statement(&bob, &BOB)).unwrap();
        let moved = judge(&known, &signed(&BOB, &bob, &known, &carol), "carol@server-c").unwrap();
        let changed = trust.follow_move(&moved, &[statement(&carol, &BOB)]).unwrap_err();
        assert_eq!(changed.reason, KEY_CHANGED);
        assert_eq!(trust.pin_of(&carol).unwrap().fingerprint, ALICE.public().fingerprint());
    }
}
