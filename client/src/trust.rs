//! Which key is a user's: verified statements, compared with the pins. Everything that seals or opens asks here.

use std::sync::{Mutex, MutexGuard, PoisonError};

use socp::{
    id::{ServerId, StatementHash},
    message::Address,
    name::UserName,
    statement::KeyStatement,
    user_key::UserKey,
    v1::SignedKeyStatement,
};

use crate::{
    failure::Failure,
    moves::{MOVE_REFUSED, Moved},
    pins::{Comparison, Pin, Pins},
    profile::Profile,
    public_key,
    verified::{Marks, Standing},
};

/// The reason given when a user's key is not the one it must be.
pub const KEY_CHANGED: &str = "KEY_CHANGED";

/// The reason given when a user's key is pinned rightly and is not the one that was compared.
pub const VERIFICATION_LAPSED: &str = "VERIFICATION_LAPSED";

/// What is said of a user whose key is not the one that was compared.
pub fn lapsed(user: &Address) -> String {
    format!("THE KEY OF `{}@{}` IS NOT THE ONE THAT YOU VERIFIED: compare it again", user.user, user.home)
}

/// The pins of a profile. A pin is made of a verified statement only, so a statement that is pinned needs no second check.
pub struct Trust {
    pins: Mutex<Pins>,
    marks: Mutex<Marks>,
}

/// What is to be thought of a statement.
#[derive(Debug)]
pub enum Verdict {
    /// This is the user's key.
    Trusted(UserKey),
    /// The statement is newer than the pin: [`Trust::follow`] the whole chain.
    NeedsChain,
}

impl Trust {
    /// Opens the pins of a profile.
    pub fn open(profile: &Profile) -> Result<Self, Failure> {
        let pins = Mutex::new(Pins::open(profile.file("pins.jsonl"))?);
        let marks = Mutex::new(Marks::open(profile.file("verified.jsonl"))?);
        Ok(Self { pins, marks })
    }

    fn pins(&self) -> MutexGuard<'_, Pins> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a person has found out about this key of a user.
    pub fn standing(&self, user: &Address, key: &UserKey) -> Result<Standing, Failure> {
        self.marks().standing(user, key.fingerprint())
    }

    /// What a person has found out about the key that is pinned for a user; nothing if the marks cannot be read.
    pub fn standing_of(&self, user: &Address) -> Standing {
        let pinned = self.pin_of(user).map(|pin| pin.fingerprint);
        pinned.and_then(|pinned| self.marks().standing(user, pinned).ok()).unwrap_or_default()
    }

    /// Notes that a person compared this key of a user and found it right, or takes that back.
    pub fn mark(&self, user: &Address, key: &UserKey, verified: bool) -> Result<(), Failure> {
        self.marks().mark(user, key.fingerprint(), verified)
    }

    /// Fails if a person compared another key of a user than this one, and has not compared this one.
    pub fn check_standing(&self, user: &Address, key: &UserKey) -> Result<(), Failure> {
        if self.standing(user, key)? != Standing::Lapsed {
            return Ok(());
        }
        let hint = "nothing was sent. `socp verify USER` shows the safety number: if it agrees with theirs, `--confirm` marks \
                    the new key, and `--undo` goes on without";
        Err(Failure::refused(VERIFICATION_LAPSED, lapsed(user)).hint(hint))
    }

    /// What is pinned of a user.
    pub fn pin_of(&self, user: &Address) -> Option<Pin> {
        self.pins().find(user)
    }

    /// The only pinned user with this bare name, or with `name@server-id` the one at that home.
    pub fn only_pinned(&self, user: &str) -> Option<Address> {
        let (name, home) = user.split_once('@').map_or((user, None), |(name, home)| (name, ServerId::parse(home)));
        let name = UserName::parse(name).ok()?;
        self.pins().only_one(&name, home)
    }

    /// Judges the statement that a directory entry of `user` carries beside its hash. The first verified one is pinned.
    pub fn judge(&self, user: &Address, named: StatementHash, signed: &SignedKeyStatement) -> Result<Verdict, Failure> {
        let statement = read(user, signed)?;
        if statement.hash() != named {
            let message = format!("the key statement shown for `{}` is not the one that the entry names", user.user);
            return Err(Failure::refused("STATEMENT_INVALID", message)
                .hint("the server is at fault; nothing was sent or opened"));
        }
        let seen = Pin::of(&statement);
        let comparison = self.pins().compare(user, &seen);
        match comparison {
            Comparison::Contradicts => return Err(self.changed(user, &seen)),
            Comparison::Newer => return Ok(Verdict::NeedsChain),
            Comparison::Same => {}
            Comparison::SameKey => verify(user, &statement, None)?,
            Comparison::New => {
                // First sight takes the last statement as it is: what came before binds nobody who never saw it.
                verify(user, &statement, None)?;
                self.pin(user, seen)?;
            }
        }
        Ok(Verdict::Trusted(statement.key))
    }

    /// Judges all statements of a user, from number 1 on; gives the last, which is in force.
    pub fn follow(&self, user: &Address, chain: &[SignedKeyStatement]) -> Result<KeyStatement, Failure> {
        self.accept(user, verified(user, chain)?)
    }

    /// Judges all statements that are shown at the address that a move names: they must hold the key that signed the move,
    /// and agree with a pin of that address if there is one. Nothing is pinned before both are so.
    pub fn follow_move(&self, moved: &Moved, chain: &[SignedKeyStatement]) -> Result<KeyStatement, Failure> {
        let user = &moved.address;
        let statements = verified(user, chain)?;
        if statements.iter().any(|statement| statement.key == moved.key) {
            return self.accept(user, statements);
        }
        let message =
            format!("`{}` IS SAID TO HAVE MOVED TO `{}`, WHICH HAS ANOTHER KEY", moved.from.user, moved.label);
        Err(Failure::refused(MOVE_REFUSED, message)
            .hint("somebody else has that name there; nothing was sent or pinned"))
    }

    /// Pins the last statement of a verified chain, if the pin is in it.
    fn accept(&self, user: &Address, mut statements: Vec<KeyStatement>) -> Result<KeyStatement, Failure> {
        let last = statements.pop().expect("a verified chain is not empty");
        let seen = Pin::of(&last);
        if let Some(pinned) = self.pin_of(user)
            && !pinned.has_key_of(&seen)
            && !statements.iter().any(|statement| pinned.has_key_of(&Pin::of(statement)))
        {
            return Err(self.changed(user, &seen));
        }
        self.pin(user, seen)?;
        Ok(last)
    }

    fn pin(&self, user: &Address, seen: Pin) -> Result<(), Failure> {
        if self.pins().pin(user, seen)?.has_key_of(&seen) { Ok(()) } else { Err(self.changed(user, &seen)) }
    }

    fn changed(&self, user: &Address, seen: &Pin) -> Failure {
        let pinned = self.pin_of(user).map_or_else(|| "another".to_owned(), |pin| pin.fingerprint.to_string());
        Failure::refused(
            KEY_CHANGED,
            format!("THE KEY OF `{}` CHANGED: pinned {pinned}, now shown {}", user.user, seen.fingerprint),
        )
        .hint(
            "somebody may be reading along, or the user lost the key and registered anew. Nothing was sent or opened. \
             Compare fingerprints over another way (`socp fingerprint`); if the new one is right, remove the user's lines from `pins.jsonl`",
        )
    }
}

/// Reads all statements of a user and checks that they are a chain from number 1 on. Never empty.
fn verified(user: &Address, chain: &[SignedKeyStatement]) -> Result<Vec<KeyStatement>, Failure> {
    let broken = |why: &str| {
        Failure::refused("INVALID_SIG", format!("the key statements of `{}` are no chain: {why}", user.user))
            .hint("the user's server is at fault, or one on the way is; nothing was sent or opened")
    };
    let statements = chain.iter().map(|signed| read(user, signed)).collect::<Result<Vec<_>, _>>()?;
    let mut previous: Option<&KeyStatement> = None;
    for statement in &statements {
        let linked = previous.map_or(statement.number == 1, |previous| statement.follows(previous));
        if !linked {
            return Err(broken("a statement does not follow the one before it"));
        }
        verify(user, statement, previous)?;
        previous = Some(statement);
    }
    if statements.is_empty() { Err(broken("there are none")) } else { Ok(statements) }
}

fn verify(user: &Address, statement: &KeyStatement, previous: Option<&KeyStatement>) -> Result<(), Failure> {
    if statement.checks(previous).iter().all(public_key::verify) {
        return Ok(());
    }
    Err(Failure::refused("INVALID_SIG", format!("the key statement of `{}` is not signed by its key", user.user))
        .hint("the user's server is at fault, or one on the way is; nothing was sent or opened"))
}

/// Reads a statement and checks that it is about this user of this home.
fn read(user: &Address, signed: &SignedKeyStatement) -> Result<KeyStatement, Failure> {
    let statement = KeyStatement::parse(signed)?;
    if statement.user == user.user && statement.home == user.home {
        Ok(statement)
    } else {
        Err(Failure::refused(
            "STATEMENT_INVALID",
            format!("the key statement shown for `{}` is another user's", user.user),
        ))
    }
}

#[cfg(test)]
mod tests {
    use prost::bytes::Bytes;
    use socp::{signed::Label, statement::statement_hash};

    use super::*;
    use crate::private_key::{PrivateKey, test_keys::*};

    fn user() -> Address {
        Address { home: ServerId::of_key(&[1; 32]), user: UserName::parse("alice").unwrap() }
    }

    fn statement(key: &PrivateKey, before: Option<(&PrivateKey, &SignedKeyStatement)>) -> SignedKeyStatement {
        let previous = before.map(|(_, signed)| KeyStatement::parse(signed).unwrap());
        let number = previous.as_ref().map_or(1, |previous| previous.number + 1);
        let hash = previous.map(|previous| previous.hash());
        let statement: Bytes = KeyStatement::encode(&user().user, user().home, key.public(), number, hash).into();
        let sign = |key: &PrivateKey| key.sign(Label::KeyStatement, &statement).unwrap();
        SignedKeyStatement {
            signature: sign(key),
            previous_signature: before.map_or_else(Bytes::new, |(key, _)| sign(key)),
            statement,
        }
    }

    fn trust() -> (Trust, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let pins = Pins::open(folder.path().join("pins.jsonl")).unwrap();
        let marks = Marks::open(folder.path().join("verified.jsonl")).unwrap();
        (Trust { pins: Mutex::new(pins), marks: Mutex::new(marks) }, folder)
    }

    fn trusted(verdict: Result<Verdict, Failure>) -> UserKey {
        match verdict.unwrap() {
            Verdict::Trusted(key) => key,
            Verdict::NeedsChain => panic!("a chain is asked for"),
        }
    }

    /// Judges a statement in the entry that it belongs to.
    fn judge(trust: &Trust, signed: &SignedKeyStatement) -> Result<Verdict, Failure> {
        trust.judge(&user(), statement_hash(signed), signed)
    }

    #[test]
    fn the_first_key_is_pinned_and_another_one_is_refused_loudly() {
        let (trust, _folder) = trust();
        let first = statement(&ALICE, None);
        assert_eq!(&trusted(judge(&trust, &first)), ALICE.public());
        assert_eq!(&trusted(judge(&trust, &first)), ALICE.public());
        let refused = judge(&trust, &statement(&MALLORY, None)).unwrap_err();
        assert_eq!(refused.reason, KEY_CHANGED);
        assert!(refused.message.contains("THE KEY OF `alice` CHANGED"), "{refused}");
    }

    #[test]
    fn the_same_key_registered_anew_is_no_change_and_is_checked_like_any_other() {
        let (trust, _folder) = trust();
        judge(&trust, &statement(&ALICE, None)).unwrap();
        let anew = statement(&ALICE, None);
        assert!(matches!(judge(&trust, &anew), Ok(Verdict::Trusted(_))), "signed anew, by the same key");
        assert!(trust.follow(&user(), std::slice::from_ref(&anew)).is_ok());
        let forged = SignedKeyStatement { signature: Bytes::from_static(&[1; 512]), ..anew };
        assert_eq!(judge(&trust, &forged).unwrap_err().reason, "INVALID_SIG");
    }

    #[test]
    fn a_rotation_is_followed_forward_and_never_back() {
        let (trust, _folder) = trust();
        let first = statement(&ALICE, None);
        let second = statement(&BOB, Some((&ALICE, &first)));
        trusted(judge(&trust, &first));
        assert!(matches!(judge(&trust, &second), Ok(Verdict::NeedsChain)));
        assert_eq!(&trust.follow(&user(), &[first.clone(), second.clone()]).unwrap().key, BOB.public());
        assert_eq!(&trusted(judge(&trust, &second)), BOB.public());
        assert_eq!(judge(&trust, &first).unwrap_err().reason, KEY_CHANGED, "a lower number");
        assert_eq!(trust.follow(&user(), &[first]).unwrap_err().reason, KEY_CHANGED, "a chain that was cut");
    }

    #[test]
    fn a_key_that_the_verified_one_vouches_for_is_pinned_and_no_longer_verified() {
        let (trust, _folder) = trust();
        let first = statement(&ALICE, None);
        trusted(judge(&trust, &first));
        trust.mark(&user(), ALICE.public(), true).unwrap();
        assert_eq!(trust.standing(&user(), ALICE.public()).unwrap(), Standing::Verified);
        let second = statement(&BOB, Some((&ALICE, &first)));
        let key = trust.follow(&user(), &[first, second]).unwrap().key;
        assert_eq!(trust.standing(&user(), &key).unwrap(), Standing::Lapsed);
        let refused = trust.check_standing(&user(), &key).unwrap_err();
        assert_eq!(refused.reason, VERIFICATION_LAPSED);
        assert!(refused.message.contains("IS NOT THE ONE THAT YOU VERIFIED"), "{refused}");
        trust.mark(&user(), &key, true).unwrap();
        trust.check_standing(&user(), &key).unwrap();
    }

    #[test]
    fn a_rotation_that_the_old_key_did_not_sign_is_refused() {
        let (trust, _folder) = trust();
        let first = statement(&ALICE, None);
        trusted(judge(&trust, &first));
        let usurped = statement(&MALLORY, Some((&MALLORY, &first)));
        assert_eq!(trust.follow(&user(), &[first.clone(), usurped]).unwrap_err().reason, "INVALID_SIG");
        let other = statement(&MALLORY, None);
        let own_chain = statement(&BOB, Some((&MALLORY, &other)));
        assert_eq!(trust.follow(&user(), &[other, own_chain]).unwrap_err().reason, KEY_CHANGED, "a chain of its own");
        assert!(trust.follow(&user(), &[]).is_err());
    }

    #[test]
    fn a_statement_that_its_entry_does_not_name_is_refused_and_not_pinned() {
        let (trust, _folder) = trust();
        let [shown, named] = [statement(&ALICE, None), statement(&ALICE, None)];
        let refused = trust.judge(&user(), statement_hash(&named), &shown).unwrap_err();
        assert_eq!(refused.reason, "STATEMENT_INVALID", "both are good, and only one of them is in the digest");
        assert_eq!(trust.pin_of(&user()), None);
    }

    #[test]
    fn a_statement_that_is_mis_signed_or_another_users_is_refused_and_not_pinned() {
        let (trust, _folder) = trust();
        let mut forged = statement(&ALICE, None);
        forged.signature = MALLORY.sign(Label::KeyStatement, &forged.statement).unwrap();
        assert_eq!(judge(&trust, &forged).unwrap_err().reason, "INVALID_SIG");
        let first = statement(&ALICE, None);
        let other = Address { user: UserName::parse("carol").unwrap(), ..user() };
        assert_eq!(trust.judge(&other, statement_hash(&first), &first).unwrap_err().reason, "STATEMENT_INVALID");
        assert_eq!(trust.pin_of(&user()), None);
    }
}
