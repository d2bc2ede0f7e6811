//! Admissions: the signed word of one server that another one may take part, with a name and an end date.
//!
//! Of one issuer and subject the higher serial replaces the lower, so an admission that was taken back does not return by
//! being said again. Who is admitted by them is in [`crate::node`]; here is only what one says.

use alloc::string::ToString;

use prost::{Message as _, bytes::Bytes};

use crate::{
    federation::v1::{AdmissionStatement, SignedAdmission},
    id::ServerId,
    identity::{Identity, signature, verified_key},
    limits::{ADMISSION_AHEAD_MS_MAX, ADMISSION_BYTES_MAX},
    mutation::{Mutation, is_on},
    name::ServerName,
    output::Refusal,
    signed::Label,
    statement::own,
};

/// An admission as a server keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What was signed.
    pub admission: Admission,
    /// Of this server's own: whether it was the operator's wish, and not what follows from the configuration.
    pub by_operator: bool,
}

/// An admission that was read, with the bytes it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Who vouches.
    pub issuer: ServerId,
    /// For whom.
    pub subject: ServerId,
    /// Under which name.
    pub name: ServerName,
    /// Higher replaces lower.
    pub serial: u64,
    /// Until when it counts, Unix milliseconds.
    pub until_unix_ms: u64,
    /// Whether the issuer takes its word back.
    pub is_revoked: bool,
    /// As signed, to be passed on unchanged.
    pub signed: SignedAdmission,
}

impl Admission {
    /// Makes and signs an admission of `subject` by this server, or takes one back.
    pub fn sign(
        identity: &dyn Identity,
        subject: ServerId,
        name: ServerName,
        serial: u64,
        until_unix_ms: u64,
        is_revoked: bool,
    ) -> Self {
        let issuer_key = identity.public_key();
        let statement = AdmissionStatement {
            issuer_key: Bytes::copy_from_slice(&issuer_key),
            subject_id: Bytes::copy_from_slice(subject.as_bytes()),
            name: name.to_string(),
            serial,
            until_unix_ms: i64::try_from(until_unix_ms).unwrap_or(i64::MAX),
            revoked: is_revoked,
        }
        .encode_to_vec();
        let signature = signature(identity, Label::Admission, &statement);
        let signed = SignedAdmission { statement: statement.into(), signature };
        Self { issuer: ServerId::of_key(&issuer_key), subject, name, serial, until_unix_ms, is_revoked, signed }
    }

    /// Reads an admission without checking its signature, for which see [`Self::check`]: one that is of no use costs no more.
    pub fn parse(signed: &SignedAdmission) -> Result<Self, Refusal> {
        let malformed = || Refusal::Malformed("admission");
        if signed.statement.len() > ADMISSION_BYTES_MAX {
            return Err(Refusal::TooMany("admission bytes"));
        }
        let statement = AdmissionStatement::decode(&signed.statement[..]).map_err(|_| malformed())?;
        let key: [u8; 32] = statement.issuer_key[..].try_into().map_err(|_| malformed())?;
        let issuer = ServerId::of_key(&key);
        let subject = ServerId::from_bytes(&statement.subject_id).ok_or_else(malformed)?;
        // Nothing could replace the last serial.
        if subject == issuer || !(1..u64::MAX).contains(&statement.serial) {
            return Err(malformed());
        }
        Ok(Self {
            issuer,
            subject,
            name: ServerName::parse(&statement.name).map_err(|_| Refusal::Malformed("admission.name"))?,
            serial: statement.serial,
            until_unix_ms: u64::try_from(statement.until_unix_ms).map_err(|_| malformed())?,
            is_revoked: statement.revoked,
            signed: SignedAdmission { statement: own(&signed.statement), signature: own(&signed.signature) },
        })
    }

    /// Checks the issuer's signature.
    pub fn check(&self, identity: &dyn Identity) -> Result<(), Refusal> {
        let SignedAdmission { statement, signature } = &self.signed;
        let decoded = AdmissionStatement::decode(&statement[..]).map_err(|_| Refusal::Malformed("admission"))?;
        verified_key(identity, Label::Admission, &decoded.issuer_key, statement, signature).map(drop)
    }

    /// Whether it replaces another one of the same issuer and subject. Of two with one serial the one that takes the word
    /// back does, in whichever order they come.
    pub fn replaces(&self, other: &Self) -> bool {
        (self.serial, self.is_revoked) > (other.serial, other.is_revoked)
    }

    /// Whether it counts at this time.
    pub fn counts(&self, now_unix_ms: u64) -> bool {
        let latest = now_unix_ms.saturating_add(ADMISSION_AHEAD_MS_MAX);
        (!self.is_revoked || is_on(Mutation::RevokedCounts))
            && (self.until_unix_ms > now_unix_ms || is_on(Mutation::EndedCounts))
            && self.until_unix_ms <= latest
    }

    /// When it next begins or ceases to count by itself, if it does after this time.
    pub fn turns(&self, now_unix_ms: u64) -> Option<u64> {
        let begins = self.until_unix_ms.saturating_sub(ADMISSION_AHEAD_MS_MAX);
        let turns = [begins, self.until_unix_ms].into_iter().find(|turn| *turn > now_unix_ms);
        turns.filter(|_| !self.is_revoked)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    /// Signs with a hash: what is looked at here is what is read and compared.
    struct Plain([u8; 32]);

    impl Identity for Plain {
        fn public_key(&self) -> [u8; 32] {
            self.0
        }

        fn sign(&self, message: &[u8]) -> [u8; 64] {
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&crate::id::sha256(&[&self.0, message]));
            signature
        }

        fn verify(&self, key: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
            signature == Plain(*key).sign(message)
        }
    }

    const ISSUER: Plain = Plain([1; 32]);

    fn subject() -> ServerId {
        ServerId::of_key(&[2; 32])
    }

    fn admission(serial: u64, until_unix_ms: u64, is_revoked: bool) -> Admission {
        let name = ServerName::parse("server-b").unwrap();
        Admission::sign(&ISSUER, subject(), name, serial, until_unix_ms, is_revoked)
    }

    fn altered(change: impl FnOnce(&mut AdmissionStatement)) -> SignedAdmission {
        let mut statement = AdmissionStatement::decode(&admission(1, 5, false).signed.statement[..]).unwrap();
        change(&mut statement);
        let statement: Bytes = statement.encode_to_vec().into();
        SignedAdmission { signature: signature(&ISSUER, Label::Admission, &statement), statement }
    }

    #[test]
    fn an_admission_is_read_as_it_was_signed() {
        let signed = admission(7, 9, true);
        let read = Admission::parse(&signed.signed).unwrap();
        assert_eq!(read, signed);
        assert_eq!(read.check(&ISSUER), Ok(()));
        assert_eq!((read.issuer, read.subject), (ServerId::of_key(&ISSUER.0), subject()));
    }

    #[test]
    fn an_altered_admission_is_refused() {
        let mut forged = altered(|_| {});
        forged.signature = Vec::from([0; 64]).into();
        assert_eq!(Admission::parse(&forged).unwrap().check(&ISSUER), Err(Refusal::BadSignature));
        let mut longer = admission(1, 5, false).signed;
        longer.statement = altered(|statement| statement.until_unix_ms = 6).statement;
        assert_eq!(Admission::parse(&longer).unwrap().check(&ISSUER), Err(Refusal::BadSignature));
        for bad in [
            altered(|statement| statement.issuer_key = Bytes::from_static(&[1; 31])),
            altered(|statement| statement.subject_id = Bytes::from_static(&[1; 33])),
            altered(|statement| statement.subject_id = Bytes::copy_from_slice(ServerId::of_key(&ISSUER.0).as_bytes())),
            altered(|statement| statement.serial = 0),
            altered(|statement| statement.serial = u64::MAX),
            altered(|statement| statement.until_unix_ms = -1),
        ] {
            assert_eq!(Admission::parse(&bad), Err(Refusal::Malformed("admission")));
        }
        let named = altered(|statement| statement.name = "server-b#00112233".into());
        assert_eq!(Admission::parse(&named), Err(Refusal::Malformed("admission.name")));
        assert!(Admission::parse(&altered(|statement| statement.serial = u64::MAX - 1)).is_ok());
    }

    #[test]
    fn an_admission_is_read_up_to_its_size_and_not_one_byte_past_it() {
        let longest = || altered(|statement| statement.name = "x".repeat(64));
        assert!(longest().statement.len() <= ADMISSION_BYTES_MAX);
        // An unknown field, as a later version may have one, fills it up.
        let filled = |bytes: usize| {
            let mut statement = longest().statement.to_vec();
            let content = bytes - statement.len() - 2;
            statement.extend([0x3a, u8::try_from(content).unwrap()]);
            statement.extend(core::iter::repeat_n(0, content));
            SignedAdmission { signature: Bytes::new(), statement: statement.into() }
        };
        assert!(Admission::parse(&filled(ADMISSION_BYTES_MAX)).is_ok());
        assert_eq!(Admission::parse(&filled(ADMISSION_BYTES_MAX + 1)), Err(Refusal::TooMany("admission bytes")));
    }

    #[test]
    fn a_higher_serial_replaces_and_taking_back_wins_a_tie() {
        let (first, second, taken_back) = (admission(1, 9, false), admission(2, 3, false), admission(1, 9, true));
        assert!(second.replaces(&first) && !first.replaces(&second));
        assert!(taken_back.replaces(&first) && !first.replaces(&taken_back));
        assert!(!taken_back.replaces(&second) && !first.replaces(&first));
    }

    #[test]
    fn an_admission_counts_until_its_end_and_not_from_too_far_ahead() {
        let end = ADMISSION_AHEAD_MS_MAX + 10;
        let admission_until = admission(1, end, false);
        assert_eq!((admission_until.counts(9), admission_until.turns(9)), (false, Some(10)));
        assert_eq!((admission_until.counts(10), admission_until.turns(10)), (true, Some(end)));
        assert!(admission_until.counts(end - 1));
        assert_eq!((admission_until.counts(end), admission_until.turns(end)), (false, None));
        let revoked = admission(2, end, true);
        assert_eq!((revoked.counts(10), revoked.turns(10)), (false, None));
    }
}
