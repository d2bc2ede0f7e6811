//! Looking up one user by what a person typed, at home or at another server, online or not.

use alloc::{
    boxed::Box,
    collections::BTreeMap,
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};

use prost::{Message as _, bytes::Bytes};

use super::{Node, Timer};
use crate::{
    federation::v1::{UserQuery, UserReply, UserReplyStatement, advertise_frame},
    id::{ServerId, TokenHash},
    identity::{signature, verified_key},
    input::{CallId, LinkId},
    limits::{HOPS_MAX, QUERIES_MAX, QUERY_MS},
    message::Address,
    moves::Move,
    name::UserName,
    output::{Answer, Refusal},
    rejection::Rejection,
    signed::Label,
    statement::KeyStatement,
    v1::{GetUserResponse, KeyDetail, Reason, SignedKeyStatement},
};

/// Queries to other homes that wait for a reply.
#[derive(Debug, Default)]
pub(super) struct Queries {
    begun: u64,
    waiting: BTreeMap<u64, (CallId, Address)>,
}

impl Queries {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes all calls that wait for a reply, to answer them otherwise.
    pub(super) fn take_calls(&mut self) -> Vec<CallId> {
        core::mem::take(&mut self.waiting).into_values().map(|(call, _)| call).collect()
    }
}

impl Node {
    pub(super) fn find_user(&mut self, call: CallId, token: TokenHash, text: &str) {
        let address = self.authorize(token).and_then(|_| self.resolve(text));
        let address = match address {
            Ok(address) => address,
            Err(rejection) => return self.answer(call, Err(rejection)),
        };
        if address.home == self.id {
            let account = self.accounts.find(&address.user).map(Arc::clone);
            let result = account.ok_or_else(|| not_found(text)).map(|account| {
                let statements = account.statements.iter().map(|statement| statement.signed.clone());
                self.user(&address, statements.collect(), account.moved.as_deref())
            });
            return self.answer(call, result);
        }
        let Some(link) = self.way_to(&address.home) else {
            return self.answer(call, Err(self.unreachable(address.home, text)));
        };
        if self.queries.waiting.len() >= QUERIES_MAX {
            let rejection = Rejection::new(Reason::TooMany, "too many queries wait for other servers; try again");
            return self.answer(call, Err(rejection.with("limit", QUERIES_MAX.to_string())));
        }
        self.queries.begun += 1;
        let query = self.queries.begun;
        let asked = UserQuery {
            query,
            user: address.user.to_string(),
            home_id: Bytes::copy_from_slice(address.home.as_bytes()),
            asker_id: Bytes::copy_from_slice(self.id.as_bytes()),
            hops_left: HOPS_MAX,
        };
        self.queries.waiting.insert(query, (call, address));
        self.after(QUERY_MS, Timer::Query(query));
        self.send_advertise(link, advertise_frame::Kind::UserQuery(asked));
    }

    /// Which user `name`, `name@server-name` or `name@server-id` means. Rejects: NAME_INVALID, USER_NOT_FOUND, USER_AMBIGUOUS.
    fn resolve(&self, text: &str) -> Result<Address, Rejection> {
        self.resolve_among(text, |address| self.directory.entry(address).is_some())
    }

    /// The same, where a bare name may be that of any user of another home who is known by this measure.
    pub(super) fn resolve_among(&self, text: &str, is_known: impl Fn(&Address) -> bool) -> Result<Address, Rejection> {
        if let Some((name, server)) = text.split_once('@') {
            let user = UserName::parse(name)?;
            let is_own = server == self.settings.name.as_str() || server == self.id.to_string();
            let home = if is_own {
                Some(self.id)
            } else {
                self.links.find(server).or_else(|| self.admissions.names.bearer(server))
            };
            return Ok(Address { home: home.ok_or_else(|| not_found(text))?, user });
        }
        let user = UserName::parse(text)?;
        let own = self.accounts.find(&user).map(|_| self.id);
        // By home, not through the whole directory: any client may ask this as often as it likes.
        let knows = |home: &ServerId| is_known(&Address { home: *home, user: user.clone() });
        let known = self.links.peers().filter(knows);
        let homes: Vec<ServerId> = own.into_iter().chain(known).collect();
        match homes[..] {
            [] => Err(not_found(text)),
            [home] => Ok(Address { home, user }),
            _ => {
                let names = homes.iter().filter_map(|home| self.server_name(home));
                let candidates: Vec<String> = names.map(|name| format!("{user}@{name}")).collect();
                let message = format!("`{text}` is the name of users of several servers");
                Err(Rejection::new(Reason::UserAmbiguous, message)
                    .with("user", text)
                    .with("candidates", candidates.join(",")))
            }
        }
    }

    fn user(&self, address: &Address, key_statements: Vec<SignedKeyStatement>, moved: Option<&Move>) -> Answer {
        let entry = self.directory.entry(address);
        Answer::User(Box::new(GetUserResponse {
            entry: entry.map(|entry| entry.to_contract(KeyDetail::Fingerprint)),
            online: entry.is_some(),
            key_statements,
            user: self.label_of(address),
            server_id: address.home.to_string(),
            moved: moved.map(|moved| moved.signed.clone()),
            moved_to: moved.map_or_else(String::new, |moved| self.label_of(&moved.to)),
        }))
    }

    /// Why nothing can be asked of a user's home to which there is no way.
    pub(super) fn unreachable(&self, home: ServerId, user: &str) -> Rejection {
        if self.links.admitted_name(&home).is_none() {
            return not_found(user);
        }
        let message = format!("the home of `{user}` cannot be reached at the moment");
        Rejection::new(Reason::HomeUnreachable, message).with("server_id", home.to_string())
    }

    /// Answers a query for an own user, or passes it on.
    pub(super) fn user_query(&mut self, asked: UserQuery) -> Result<(), Refusal> {
        let home = ServerId::from_bytes(&asked.home_id).ok_or(Refusal::Malformed("home_id"))?;
        let asker = ServerId::from_bytes(&asked.asker_id).ok_or(Refusal::Malformed("asker_id"))?;
        if home != self.id {
            if let Some((link, hops_left)) = self.onward(&home, asked.hops_left) {
                self.send_advertise(link, advertise_frame::Kind::UserQuery(UserQuery { hops_left, ..asked }));
            }
            return Ok(());
        }
        let Some(link) = self.way_to(&asker) else { return Ok(()) };
        let account = UserName::parse(&asked.user).ok().and_then(|user| self.accounts.find(&user));
        let moved = account.and_then(|account| account.moved.as_ref()).map(|moved| moved.signed.clone());
        let statements = account.map(|account| account.statements.iter().map(|known| known.signed.clone()).collect());
        let statement = UserReplyStatement {
            query: asked.query,
            asker_id: asked.asker_id.clone(),
            user: asked.user,
            statements: statements.unwrap_or_default(),
            moved,
        }
        .encode_to_vec();
        let reply = UserReply {
            signature: signature(&*self.identity, Label::UserReply, &statement),
            statement: statement.into(),
            home_key: Bytes::copy_from_slice(&self.identity.public_key()),
            asker_id: asked.asker_id,
            hops_left: HOPS_MAX,
        };
        self.send_advertise(link, advertise_frame::Kind::UserReply(reply));
        Ok(())
    }

    /// Takes the reply to an own query, or passes it on.
    pub(super) fn user_reply(&mut self, link: LinkId, reply: UserReply) -> Result<(), Refusal> {
        let malformed = || Refusal::Malformed("user_reply");
        let asker = ServerId::from_bytes(&reply.asker_id).ok_or_else(malformed)?;
        let key = verified_key(&*self.identity, Label::UserReply, &reply.home_key, &reply.statement, &reply.signature)?;
        if asker != self.id {
            if let Some((link, hops_left)) = self.onward(&asker, reply.hops_left) {
                self.send_advertise(link, advertise_frame::Kind::UserReply(UserReply { hops_left, ..reply }));
            }
            return Ok(());
        }
        let home = ServerId::of_key(&key);
        let result = self.reply_of(home, &reply);
        self.blame(link, home, result)
    }

    /// Takes what a home signed in reply to an own query.
    fn reply_of(&mut self, home: ServerId, reply: &UserReply) -> Result<(), Refusal> {
        let malformed = || Refusal::Malformed("user_reply");
        let content = UserReplyStatement::decode(&reply.statement[..]).map_err(|_| malformed())?;
        let Some((_, address)) = self.queries.waiting.get(&content.query) else { return Ok(()) };
        if address.home != home {
            return Err(Refusal::ForeignOrigin);
        }
        let parsed = content.statements.iter().map(KeyStatement::parse).collect::<Result<Vec<_>, _>>();
        let chain = parsed.map_err(|_| malformed())?;
        let is_theirs = |statement: &KeyStatement| statement.home == home && statement.user == address.user;
        let is_chain = chain.windows(2).all(|pair| pair[1].follows(&pair[0]));
        let is_ours = content.asker_id[..] == self.id.as_bytes()[..] && content.user == address.user.as_str();
        let starts_at_one = chain.first().is_none_or(|first| first.number == 1);
        let moved = content.moved.as_ref().map(Move::parse).transpose().map_err(|_| malformed())?;
        if moved.as_ref().is_some_and(|moved| !chain.last().is_some_and(|last| moved.is_of(last))) {
            return Err(malformed());
        }
        if !is_ours || !chain.iter().all(is_theirs) || !is_chain || !starts_at_one {
            return Err(malformed());
        }
        let (call, address) = self.queries.waiting.remove(&content.query).expect("it was just there");
        let result = if chain.is_empty() {
            Err(not_found(address.user.as_str()))
        } else {
            Ok(self.user(&address, content.statements, moved.as_ref()))
        };
        self.answer(call, result);
        Ok(())
    }

    pub(super) fn query_overdue(&mut self, query: u64) {
        let Some((call, address)) = self.queries.waiting.remove(&query) else { return };
        let message = format!("the home of `{}` did not answer in time", address.user);
        self.answer(call, Err(Rejection::new(Reason::Timeout, message).with("user", address.user.to_string())));
    }
}

pub(super) fn not_found(user: &str) -> Rejection {
    let shown: String = user.chars().take(2 * crate::limits::NAME_BYTES_MAX).collect();
    Rejection::new(Reason::UserNotFound, format!("no user `{shown}` is known here")).with("user", shown)
}
