//! Outcomes: what homes say became of messages and posts, believed only where the right one signed it.

use prost::Message as _;
use socp::{
    id::{ContentHash, MessageId, ServerId},
    name::UserName,
    rejection,
    signed::Label,
    v1::{OutcomeKind, OutcomeStatement, Reason, ReceivedOutcome, SignedOutcome},
};

use crate::{event::Event, failure::Failure, public_key, sending::Member};

/// Checks what became of a message: by the word of the recipient's home, or, while it is queued or when it expired, of the
/// sender's.
pub fn check_message(
    outcome: &SignedOutcome,
    hash: ContentHash,
    home: ServerId,
    own_home: ServerId,
) -> Result<(OutcomeKind, u32), Failure> {
    let signer = home_of(outcome)?;
    let checked = check(outcome, hash, |signer| signer == home || signer == own_home);
    let is_of_own_home = matches!(checked, Ok((OutcomeKind::Queued | OutcomeKind::Expired, _)));
    if signer == if is_of_own_home { own_home } else { home } { checked } else { Err(unproven()) }
}

/// What became of a message that was queued, by the word of the recipient's home or, if it expired, of the sender's.
pub fn settled(received: &ReceivedOutcome, own_home: ServerId) -> Result<Event, Failure> {
    let home = ServerId::parse(&received.recipient_home_id).ok_or_else(unproven)?;
    let outcome = received.outcome.as_ref().ok_or_else(unproven)?;
    let statement = OutcomeStatement::decode(&outcome.statement[..]).map_err(|_| unproven())?;
    let [about] = &statement.outcomes[..] else { return Err(unproven()) };
    let hash = ContentHash::from_bytes(&about.statement_sha256).ok_or_else(unproven)?;
    let (outcome, reason) = match check_message(outcome, hash, home, own_home) {
        Ok((OutcomeKind::Queued, _)) => return Err(unproven()),
        Ok((kind, _)) => (name(kind), None),
        Err(failure) if about.kind() == OutcomeKind::Rejected => ("rejected", Some(failure.reason)),
        Err(failure) => return Err(failure),
    };
    let to = format!("{}@{home}", UserName::parse(&received.recipient).map_err(|_| unproven())?);
    let id = MessageId::parse(&received.message_id).ok_or_else(unproven)?.to_string();
    Ok(Event::Settled { to, id, outcome, reason })
}

/// How an outcome is told.
pub fn name(kind: OutcomeKind) -> &'static str {
    match kind {
        OutcomeKind::Stored => "stored",
        OutcomeKind::Queued => "queued",
        OutcomeKind::Expired => "expired",
        OutcomeKind::HandedOver | OutcomeKind::Rejected | OutcomeKind::Unspecified => "handed_over",
    }
}

/// Whom a post reached.
#[derive(Debug, PartialEq, Eq)]
pub struct Reached {
    /// Users, as their homes tell.
    pub recipients: u32,
    /// Homes that handed it to all their members. Of one that handed it to fewer nobody can say which.
    pub whole_homes: Vec<ServerId>,
}

/// Reads what the homes of these members signed of a post. Fails if one has no business with it, or if nobody got it and
/// one says why.
pub fn of_post(outcomes: &[SignedOutcome], hash: ContentHash, members: &[Member]) -> Result<Reached, Failure> {
    let mut answered = Vec::new();
    let mut reached = Reached { recipients: 0, whole_homes: Vec::new() };
    let mut refusal = None;
    for outcome in outcomes {
        let home = home_of(outcome)?;
        let shown = members.iter().filter(|member| member.address.home == home).count();
        // A home counts once, and only if it has members: nobody else can raise the number.
        match check(outcome, hash, |signer| !answered.contains(&signer) && shown > 0) {
            Ok((kind, count)) => {
                reached.recipients = reached.recipients.saturating_add(count);
                if kind == OutcomeKind::HandedOver && usize::try_from(count).is_ok_and(|count| count >= shown) {
                    reached.whole_homes.push(home);
                }
            }
            Err(failure) => refusal = Some(failure),
        }
        answered.push(home);
    }
    match refusal {
        Some(failure) if reached.recipients == 0 => Err(failure),
        _ => Ok(reached),
    }
}

fn home_of(outcome: &SignedOutcome) -> Result<ServerId, Failure> {
    let key: &[u8; 32] = outcome.home_key[..].try_into().map_err(|_| unproven())?;
    Ok(ServerId::of_key(key))
}

fn unproven() -> Failure {
    Failure::refused("OUTCOME_UNPROVEN", "what became of the message is not attested by the recipient's server")
        .hint("a server on the way is at fault; the message may or may not have arrived")
}

/// Checks that a server which may say so signed what became of the bytes with this hash; tells what, and for how many.
pub fn check(
    outcome: &SignedOutcome,
    hash: ContentHash,
    expected: impl Fn(ServerId) -> bool,
) -> Result<(OutcomeKind, u32), Failure> {
    let key: &[u8; 32] = outcome.home_key[..].try_into().map_err(|_| unproven())?;
    let signer = ServerId::of_key(key);
    if !expected(signer) || !public_key::verify_server(key, Label::Outcome, &outcome.statement, &outcome.signature) {
        return Err(unproven());
    }
    let statement = OutcomeStatement::decode(&outcome.statement[..]).map_err(|_| unproven())?;
    let mine = statement.outcomes.iter().find(|outcome| outcome.statement_sha256[..] == hash.as_bytes()[..]);
    let mine = mine.filter(|_| statement.home_id == signer.to_string()).ok_or_else(unproven)?;
    match mine.kind() {
        kind @ (OutcomeKind::HandedOver | OutcomeKind::Stored | OutcomeKind::Queued | OutcomeKind::Expired) => {
            Ok((kind, mine.recipients))
        }
        OutcomeKind::Rejected => {
            let reason = rejection::parse(&mine.reason).unwrap_or(Reason::Unspecified);
            Err(rejection::Rejection::new(reason, "the recipient's server refused the message").into())
        }
        OutcomeKind::Unspecified => Err(unproven()),
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use prost::bytes::Bytes;
    use socp::{id::StatementHash, message::Address, signed::signing_input, v1::Outcome};

    use super::*;

    fn outcome(seed: u8, home: Option<ServerId>, about: &[u8], kind: OutcomeKind) -> (SignedOutcome, ServerId) {
        outcome_for(1, seed, home, about, kind)
    }

    fn outcome_for(
        recipients: u32,
        seed: u8,
        home: Option<ServerId>,
        about: &[u8],
        kind: OutcomeKind,
    ) -> (SignedOutcome, ServerId) {
        let key = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let signer = ServerId::of_key(key.public_key().as_ref().try_into().unwrap());
        let outcome = Outcome {
            statement_sha256: Bytes::copy_from_slice(ContentHash::of(about).as_bytes()),
            kind: kind.into(),
            reason: if kind == OutcomeKind::Rejected { "RECIPIENT_OFFLINE".into() } else { String::new() },
            recipients,
        };
        let statement =
            OutcomeStatement { home_id: home.unwrap_or(signer).to_string(), time_unix_ms: 1, outcomes: vec![outcome] }
                .encode_to_vec();
        let signature = key.sign(&signing_input(Label::Outcome, &statement)).as_ref().to_vec().into();
        let home_key = key.public_key().as_ref().to_vec().into();
        (SignedOutcome { statement: statement.into(), signature, home_key }, signer)
    }

    #[test]
    fn an_outcome_counts_only_from_the_recipients_home_about_the_very_message() {
        let hash = ContentHash::of(b"message");
        let (good, home) = outcome(1, None, b"message", OutcomeKind::HandedOver);
        let check = |outcome: &SignedOutcome| super::check(outcome, hash, |signer| signer == home);
        assert_eq!(check(&good), Ok((OutcomeKind::HandedOver, 1)));
        let reason = |outcome: &SignedOutcome| check(outcome).unwrap_err().reason;
        assert_eq!(reason(&outcome(2, None, b"message", OutcomeKind::HandedOver).0), "OUTCOME_UNPROVEN");
        assert_eq!(reason(&outcome(2, Some(home), b"message", OutcomeKind::HandedOver).0), "OUTCOME_UNPROVEN");
        assert_eq!(reason(&outcome(1, None, b"another", OutcomeKind::HandedOver).0), "OUTCOME_UNPROVEN");
        let forged = SignedOutcome { signature: Bytes::from_static(&[1; 64]), ..good };
        assert_eq!(reason(&forged), "OUTCOME_UNPROVEN");
        assert_eq!(reason(&SignedOutcome::default()), "OUTCOME_UNPROVEN");
        let (refused, _) = outcome(1, None, b"message", OutcomeKind::Rejected);
        assert_eq!(reason(&refused), "RECIPIENT_OFFLINE");
    }

    #[test]
    fn a_wrap_counts_only_where_a_home_handed_the_post_to_all_its_members() {
        let hash = ContentHash::of(b"post");
        let handed = |seed, recipients| outcome_for(recipients, seed, None, b"post", OutcomeKind::HandedOver);
        let (fewer, first) = handed(1, 1);
        let (all, second) = handed(2, 1);
        let (none, third) = handed(3, 0);
        let member = |name: &str, home| Member {
            address: Address { home, user: UserName::parse(name).unwrap() },
            statement: StatementHash::from_bytes(&[1; 32]).unwrap(),
            signed: None,
        };
        let members = [member("bob", first), member("carol", first), member("dave", second), member("eve", third)];
        let reached = of_post(&[fewer, all, none], hash, &members).unwrap();
        assert_eq!(reached, Reached { recipients: 2, whole_homes: vec![second] });
        // One may have come whom the view did not show yet.
        let reached = of_post(&[handed(1, 3).0], hash, &members).unwrap();
        assert_eq!(reached, Reached { recipients: 3, whole_homes: vec![first] });
    }
}
