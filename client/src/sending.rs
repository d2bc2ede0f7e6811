//! Sending: find the recipient's key, seal, submit, and check what the recipient's home says became of it.

use std::sync::Arc;

use prost::bytes::Bytes;
use socp::{
    id::{ContentHash, KeyFingerprint, ServerId, StatementHash},
    limits::WRAPS_MAX,
    message::Address,
    name::UserName,
    statement::KeyStatement,
    user_key::UserKey,
    v1::{
        ChannelKeyWrap, GetUserRequest, GetUserResponse, PostToChannelRequest, Reason, SendMessageRequest,
        SignedKeyStatement,
    },
};
use uuid::Uuid;

use crate::{
    channel_key::PostKey,
    directory::Entry,
    event::{Event, Sent, now_unix_ms},
    failure::Failure,
    file::Manifest,
    moves::{self, Moved},
    outcome, post, public_key,
    receipt::Receipt,
    seal::{self, Beside},
    session::{Account, Session},
    trust::Verdict,
};

/// A user and their key, verified and pinned.
#[derive(Clone, Debug)]
pub struct Correspondent {
    /// What people read: `name@server-name`.
    pub label: String,
    /// Name and home.
    pub address: Address,
    /// The key.
    pub key: UserKey,
    /// The keys before it, each of which vouched for the next: for what was signed under them.
    pub earlier_keys: Vec<UserKey>,
    /// Whether the user was online when asked.
    pub online: bool,
    /// How many key statements the user has.
    pub statements: usize,
    /// Where the user moved, if the home says that they did; an error if that is not their word.
    pub moved: Option<Result<Moved, Failure>>,
}

impl Correspondent {
    /// The user's key with this fingerprint, in force or before.
    pub fn key_with(&self, fingerprint: KeyFingerprint) -> Option<&UserKey> {
        std::iter::once(&self.key).chain(&self.earlier_keys).find(|key| key.fingerprint() == fingerprint)
    }
}

/// A member of the channel, with the statement by which the directory names the key.
#[derive(Clone, Debug)]
pub struct Member {
    /// Name and home.
    pub address: Address,
    /// Hash of the key statement.
    pub statement: StatementHash,
    /// The statement itself.
    pub signed: Option<SignedKeyStatement>,
}

/// What became of a post, and who holds the channel key from now on.
pub struct Posted {
    /// For the user.
    pub sent: Sent,
    /// The key it was made under.
    pub key: PostKey,
    /// Members to whom a wrap was handed, as far as their homes' words tell.
    pub wrapped: Vec<(Address, StatementHash)>,
    /// Members who get nothing, since their key is not the pinned one or cannot be used.
    pub refused: Vec<(Address, Failure)>,
}

impl From<&Entry> for Member {
    fn from(entry: &Entry) -> Self {
        Self { address: entry.address.clone(), statement: entry.statement, signed: entry.wire.key_statement.clone() }
    }
}

/// Asks the server for a user, online or not, and follows the key chain from the pin on.
///
/// `user` is a bare name, `name@server-name` or `name@server-id`; an answer about another user is refused.
pub async fn look_up(session: &Session, account: &Account, user: &str) -> Result<Correspondent, Failure> {
    let (address, answer) = ask_for(session, user).await?;
    let statement = account.trust.follow(&address, &answer.key_statements)?;
    let moved = answer.moved.as_ref().map(|moved| moves::judge(&statement, moved, &answer.moved_to));
    // They were followed to this one.
    let chain = answer.key_statements.iter().filter_map(|signed| KeyStatement::parse(signed).ok());
    let earlier_keys = chain.map(|before| before.key).filter(|key| *key != statement.key).collect();
    Ok(Correspondent {
        label: answer.user,
        address,
        key: statement.key,
        earlier_keys,
        online: answer.online,
        statements: answer.key_statements.len(),
        moved,
    })
}

/// Asks the server for a user; nothing in the answer is believed but whom it is about.
pub async fn ask_for(session: &Session, user: &str) -> Result<(Address, GetUserResponse), Failure> {
    let request = session.request(GetUserRequest { user: user.to_owned() });
    let answer = session.directory().get_user(request).await?.into_inner();
    Ok((asked_for(user, &answer)?, answer))
}

/// The address in an answer, if it is the one that was asked for.
fn asked_for(user: &str, answer: &GetUserResponse) -> Result<Address, Failure> {
    let wrong = || Failure::failed(format!("the server answered for another user than `{user}`"));
    let (name, server) = user.split_once('@').map_or((user, None), |(name, server)| (name, Some(server)));
    let named = answer.user.split_once('@').ok_or_else(wrong)?;
    let home = ServerId::parse(&answer.server_id).ok_or_else(wrong)?;
    let same_server = server.is_none_or(|server| server == named.1 || server == answer.server_id);
    if named.0 != name || !same_server || answer.user.chars().any(char::is_control) {
        return Err(wrong());
    }
    Ok(Address { home, user: UserName::parse(name).map_err(|_| wrong())? })
}

/// The key of a user whom the directory shows, judged by the pin.
pub async fn key_of(session: &Session, account: &Account, member: &Member) -> Result<UserKey, Failure> {
    if let Some(signed) = &member.signed
        && let Verdict::Trusted(key) = account.trust.judge(&member.address, member.statement, signed)?
    {
        return Ok(key);
    }
    let user = format!("{}@{}", member.address.user, member.address.home);
    Ok(look_up(session, account, &user).await?.key)
}

/// What is sent to one user.
#[derive(Clone, Debug)]
pub struct Content {
    /// The text.
    pub text: String,
    /// What comes with it.
    pub beside: Beside,
    /// Whether receipts are asked for.
    pub wants_receipts: bool,
}

impl Content {
    /// A text alone.
    pub fn text(text: String, wants_receipts: bool) -> Self {
        Self { text, beside: Beside::Nothing, wants_receipts }
    }

    /// A file, whose bytes are at the own home.
    pub fn file(manifest: Manifest) -> Self {
        Self { text: manifest.text(), beside: Beside::File(manifest), wants_receipts: false }
    }

    /// A receipt, of which none is asked for.
    pub fn receipt(receipt: Receipt) -> Self {
        Self { text: String::new(), beside: Beside::Receipt(receipt), wants_receipts: false }
    }

    fn kind(&self) -> &'static str {
        match self.beside {
            Beside::Nothing => "message",
            Beside::File(_) => "file",
            Beside::Receipt(_) => "receipt",
        }
    }
}

/// Seals something to one user, submits it, and checks the outcome.
pub async fn send(
    session: Session,
    account: Arc<Account>,
    label: String,
    recipient: Address,
    recipient_key: UserKey,
    content: Content,
) -> Result<Sent, Failure> {
    let kind = content.kind();
    account.trust.check_standing(&recipient, &recipient_key)?;
    let key = account.key().await?;
    let id = Uuid::now_v7().to_string();
    let (sender, home) = (account.profile.address(), recipient.home);
    let own_home = sender.home;
    let user = format!("{}@{home}", recipient.user);
    let message_id = id.clone();
    let message = blocking(move || {
        let draft = seal::Draft {
            message_id: &message_id,
            sender: &sender,
            recipient: &recipient,
            recipient_key: &recipient_key,
            time_unix_ms: now_unix_ms(),
            wants_receipts: content.wants_receipts,
            text: &content.text,
            beside: &content.beside,
        };
        seal::seal(&key, &draft)
    })
    .await?;
    let hash = ContentHash::of(&message.statement);
    let request = session.request(SendMessageRequest { message: Some(message) });
    let answer = match session.messages().send_message(request).await.map_err(Failure::from) {
        Ok(answer) => answer.into_inner(),
        Err(failure) if failure.is(Reason::UserMoved) => {
            // The home knows it before the directory here does.
            moves::refuse(&session, &account, &look_up(&session, &account, &user).await?).await?;
            return Err(failure);
        }
        Err(failure) => return Err(failure),
    };
    let (became, recipients) = outcome::check_message(&answer.outcome.unwrap_or_default(), hash, home, own_home)?;
    Ok(Sent { kind, to: label, id, outcome: outcome::name(became), recipients, silent: Vec::new() })
}

/// Posts a text to these members, with wraps for those who lack the channel key.
pub async fn post_to_all(
    session: Session,
    account: Arc<Account>,
    members: Vec<Member>,
    lacking: Vec<Member>,
    key: PostKey,
    text: String,
) -> Result<Posted, Failure> {
    let private = account.key().await?;
    let mut keys = Vec::new();
    let mut refused = Vec::new();
    for member in lacking {
        if keys.len() == WRAPS_MAX {
            let failure = Failure::failed(format!("a post carries the channel key to {WRAPS_MAX} users at most"));
            refused.push((member.address, failure.hint("post again: the others get it then")));
            continue;
        }
        let key = key_of(&session, &account, &member).await;
        match key.and_then(|key| account.trust.check_standing(&member.address, &key).map(|()| key)) {
            Ok(key) => keys.push((member, key)),
            Err(failure) => refused.push((member.address, failure)),
        }
    }
    let id = Uuid::now_v7().to_string();
    let (sender, message_id, post_key) = (account.profile.address(), id.clone(), key.clone());
    let (post, wraps, wrapped) = blocking(move || {
        let draft = post::Draft {
            message_id: &message_id,
            sender: &sender,
            key_id: post_key.id,
            channel_key: &post_key.key,
            counter: post_key.counter,
            time_unix_ms: now_unix_ms(),
            text: &text,
        };
        let post = post::seal(&private, &draft)?;
        let mut wraps = Vec::new();
        let mut wrapped = Vec::new();
        for (member, key) in keys {
            let Some(wrapped_key) = public_key::wrap(&key, &post_key.key) else { continue };
            wraps.push(ChannelKeyWrap {
                recipient: member.address.user.to_string(),
                recipient_home_id: member.address.home.to_string(),
                recipient_key_sha256: Bytes::copy_from_slice(key.fingerprint().as_bytes()),
                wrapped_key,
            });
            wrapped.push((member.address, member.statement));
        }
        Ok((post, wraps, wrapped))
    })
    .await?;
    let hash = ContentHash::of(&post.statement);
    let request = session.request(PostToChannelRequest { post: Some(post), wraps });
    let answer = session.messages().post_to_channel(request).await?.into_inner();
    let reached = outcome::of_post(&answer.outcomes, hash, &members)?;
    let wrapped = wrapped.into_iter().filter(|(address, _)| reached.whole_homes.contains(&address.home)).collect();
    let recipients = reached.recipients;
    let silent = answer.silent_home_ids;
    let sent = Sent { kind: "post", to: "all".into(), id, outcome: "handed_over", recipients, silent };
    Ok(Posted { sent, key, wrapped, refused })
}

/// The event that tells of a member who got nothing.
pub fn refusal_event(address: &Address, failure: Failure) -> Event {
    if failure.reason == crate::trust::KEY_CHANGED {
        let user = format!("{}@{}", address.user, address.home);
        Event::KeyChanged { user, message: failure.message }
    } else {
        Event::error(failure, None)
    }
}

/// Runs slow cryptography away from the runtime's threads.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Failure::failed("the work was interrupted"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_about_another_user_is_refused() {
        let home = ServerId::of_key(&[1; 32]).to_string();
        let answer = GetUserResponse { user: "bob@server-b".into(), server_id: home.clone(), ..Default::default() };
        for good in ["bob", "bob@server-b", &format!("bob@{home}")] {
            assert!(asked_for(good, &answer).is_ok(), "{good}");
        }
        for bad in ["alice", "bob@server-a", "alice@server-b"] {
            assert!(asked_for(bad, &answer).is_err(), "{bad}");
        }
    }
}
