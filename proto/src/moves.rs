//! Moves: a user's signed word that they are to be found at another home, under the same key.
//!
//! Reading checks form and content. Whether the user said so is a matter of the signature, by the key of the very statement
//! that the move names: a home checks it before it keeps a move, and whoever acts on one checks it anew. No home can invent
//! a move, and no home has a word about another's users.

use alloc::{format, string::ToString, vec::Vec};

use prost::{Message as _, bytes::Bytes};

use crate::{
    id::StatementHash,
    limits::MOVE_BYTES_MAX,
    message::Address,
    rejection::Rejection,
    signed::Label,
    statement::{KeyStatement, RsaCheck, invalid, own, too_large},
    user_key::UserKey,
    v1::{self, Reason, SignedMove},
};

/// A move that was read, with the signed bytes it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Who moved, and from where.
    pub from: Address,
    /// The key statement in force there.
    pub statement: StatementHash,
    /// Where the user is now; never of the same home.
    pub to: Address,
    /// When it was signed, by the user's clock.
    pub time_unix_ms: u64,
    /// The bytes as received.
    pub signed: SignedMove,
}

impl Move {
    /// Encodes the part that is signed, for a client that moves.
    pub fn encode(from: &Address, statement: StatementHash, to: &Address, time_unix_ms: i64) -> Vec<u8> {
        v1::MoveStatement {
            user: from.user.to_string(),
            home_id: from.home.to_string(),
            key_statement_sha256: Bytes::copy_from_slice(statement.as_bytes()),
            new_user: to.user.to_string(),
            new_home_id: to.home.to_string(),
            time_unix_ms,
        }
        .encode_to_vec()
    }

    /// Reads a signed move without checking its signature. Rejects: TOO_LARGE, STATEMENT_INVALID, NAME_INVALID.
    pub fn parse(signed: &SignedMove) -> Result<Self, Rejection> {
        if signed.statement.len() + signed.signature.len() > MOVE_BYTES_MAX {
            return Err(too_large(MOVE_BYTES_MAX));
        }
        let signed = SignedMove { statement: own(&signed.statement), signature: own(&signed.signature) };
        let content = v1::MoveStatement::decode(&signed.statement[..]).map_err(|_| invalid("moved"))?;
        let from = Address::parse(&content.user, &content.home_id, "home_id")?;
        let to = Address::parse(&content.new_user, &content.new_home_id, "new_home_id")?;
        if from.home == to.home {
            return Err(invalid("new_home_id"));
        }
        Ok(Self {
            from,
            statement: StatementHash::from_bytes(&content.key_statement_sha256)
                .ok_or_else(|| invalid("key_statement_sha256"))?,
            to,
            time_unix_ms: u64::try_from(content.time_unix_ms).map_err(|_| invalid("time_unix_ms"))?,
            signed,
        })
    }

    /// The signature to check, by the key of the statement that the move names.
    pub fn check(&self, key: &UserKey) -> RsaCheck {
        RsaCheck::new(key, Label::Move, &self.signed.statement, &self.signed.signature)
    }

    /// Tells whether this is about the user, home and key of this statement, the one in force (signatures apart).
    pub fn is_of(&self, statement: &KeyStatement) -> bool {
        self.from.user == statement.user && self.from.home == statement.home && self.statement == statement.hash()
    }

    /// The rejection of what is asked of a user who moved. `from` and `to` are labels for people.
    pub fn rejection(&self, from: &str, to: &str) -> Rejection {
        let moved_to = format!("{}@{}", self.to.user, self.to.home);
        Rejection::new(Reason::UserMoved, format!("`{from}` moved to `{to}`"))
            .with("user", from)
            .with("moved_to", moved_to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{id::ServerId, name::UserName, user_key::shaped_like_a_key, v1::SignedKeyStatement};

    fn address(user: &str, home: u8) -> Address {
        Address { home: ServerId::of_key(&[home; 32]), user: UserName::parse(user).unwrap() }
    }

    fn statement(of: &Address) -> KeyStatement {
        let key = UserKey::parse(&shaped_like_a_key(5)).unwrap();
        let signed = SignedKeyStatement {
            statement: KeyStatement::encode(&of.user, of.home, &key, 1, None).into(),
            signature: Bytes::from_static(&[7; 512]),
            previous_signature: Bytes::new(),
        };
        KeyStatement::parse(&signed).unwrap()
    }

    fn signed(from: &Address, to: &Address, time_unix_ms: i64) -> SignedMove {
        let statement = Move::encode(from, statement(from).hash(), to, time_unix_ms);
        SignedMove { statement: statement.into(), signature: Bytes::from_static(&[9; 512]) }
    }

    #[test]
    fn a_move_is_read_as_it_was_made() {
        let (from, to) = (address("bob", 1), address("robert", 2));
        let signed = signed(&from, &to, 7);
        let read = Move::parse(&signed).unwrap();
        let hash = statement(&from).hash();
        assert_eq!(read, Move { from: from.clone(), statement: hash, to, time_unix_ms: 7, signed });
        assert!(read.is_of(&statement(&from)));
        for other in [address("alice", 1), address("bob", 2)] {
            assert!(!read.is_of(&statement(&other)), "{other:?}");
        }
    }

    #[test]
    fn a_move_to_the_same_home_is_none() {
        for user in ["bob", "robert"] {
            let refused = Move::parse(&signed(&address("bob", 1), &address(user, 1), 7)).unwrap_err();
            assert_eq!((refused.reason, &*refused.metadata[0].1), (Reason::StatementInvalid, "new_home_id"));
        }
    }

    #[test]
    fn a_move_of_no_time_name_or_home_is_none() {
        let (from, to) = (address("bob", 1), address("bob", 2));
        assert_eq!(Move::parse(&signed(&from, &to, -1)).unwrap_err().reason, Reason::StatementInvalid);
        let edited = |change: fn(&mut v1::MoveStatement)| {
            let mut content = v1::MoveStatement::decode(&signed(&from, &to, 7).statement[..]).unwrap();
            change(&mut content);
            Move::parse(&SignedMove { statement: content.encode_to_vec().into(), signature: Bytes::new() })
        };
        assert_eq!(edited(|content| content.new_user = "Bob".into()).unwrap_err().reason, Reason::NameInvalid);
        for change in [
            |content: &mut v1::MoveStatement| content.home_id.clear(),
            |content: &mut v1::MoveStatement| content.new_home_id.push('0'),
            |content: &mut v1::MoveStatement| content.key_statement_sha256 = Bytes::from_static(&[1; 31]),
        ] {
            assert_eq!(edited(change).unwrap_err().reason, Reason::StatementInvalid);
        }
    }

    #[test]
    fn a_move_at_its_limit_is_read_and_one_past_it_is_too_large() {
        let mut signed = signed(&address("bob", 1), &address("bob", 2), 7);
        let room = MOVE_BYTES_MAX - signed.statement.len();
        signed.signature = alloc::vec![1; room].into();
        assert!(Move::parse(&signed).is_ok());
        signed.signature = alloc::vec![1; room + 1].into();
        assert_eq!(Move::parse(&signed).unwrap_err().reason, Reason::TooLarge);
    }
}
