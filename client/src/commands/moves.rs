//! `socp move`: registers the same key at another server, and has the old one tell everybody, by a word that the key signs.
//!
//! First all that can be repeated, last the word that is final: the new name is claimed and its profile on disk before the
//! old server is told. Whatever interrupts it, the same line again goes on.

use std::{fs, path::Path, sync::Arc};

use prost::bytes::Bytes;
use serde_json::json;
use socp::{
    moves::Move as Word,
    name::UserName,
    signed::Label,
    v1::{MoveUserRequest, Reason, SignedMove},
};

use super::{
    Context,
    register::{Wanted, claim, settle, target},
};
use crate::{
    cli::Move,
    connection::{self, Connection},
    event::now_unix_ms,
    failure::{Failure, Kind},
    private_file,
    private_key::PrivateKey,
    profile::Profile,
    sending::ask_for,
    session::{Account, Session},
};

pub(super) async fn run(context: &Context, command: Move) -> Result<(), Failure> {
    let user = UserName::parse(&command.name)?;
    let target = target(context, &command.at)?;
    let old = context.account(false)?;
    let key = old.key().await?; // Asks for the passphrase before anything is dialled.
    let session = match old.session().await {
        Ok(session) => Some(session),
        Err(failure) if failure.is(Reason::UserMoved) => {
            check_destination(&failure, &user, &target.server_id.map(|id| id.to_string()))?;
            None
        }
        Err(failure) => return Err(failure),
    };
    let connection = connection::connect(&target).await?;
    let outcome = async {
        if connection.introduction.server_id == old.profile.server_id {
            return Err(Failure::failed("this is the server that the profile is at already")
                .hint("a name at the same server cannot be changed"));
        }
        let new = arrive(context, &command, &connection, &user, &old, &key).await?;
        if let Some(session) = session {
            leave(&session, &old, &new, &key).await?;
        }
        old.forget_token()?;
        context.home.replace_default(&old.profile.name, &new.name)?;
        Ok(new)
    };
    let outcome = outcome.await;
    connection.transport.leave().await;
    tell(context, &old.profile, &outcome?);
    Ok(())
}

/// After an earlier attempt: the old server says where to, and it must be where this one goes. The id may be unknown yet.
fn check_destination(failure: &Failure, user: &UserName, server_id: &Option<String>) -> Result<(), Failure> {
    let told = failure.moved_to.as_deref().and_then(|moved_to| moved_to.split_once('@'));
    let is_it = told
        .is_some_and(|(name, id)| name == user.as_str() && server_id.as_ref().is_none_or(|server_id| server_id == id));
    if is_it { Ok(()) } else { Err(failure.clone().hint("a move is final; see the profile of the new address")) }
}

/// Registers at the new server, and makes the profile for it, unless an earlier attempt did.
async fn arrive(
    context: &Context,
    command: &Move,
    connection: &Connection,
    user: &UserName,
    old: &Account,
    key: &Arc<PrivateKey>,
) -> Result<Profile, Failure> {
    let introduction = &connection.introduction;
    let name = command.into.clone().unwrap_or_else(|| format!("{user}-{}", introduction.name));
    let folder = context.home.folder(&name)?;
    let fingerprint = key.public().fingerprint();
    if Profile::exists(&folder) {
        let there = context.home.open(Some(&name))?;
        let is_it =
            there.user == *user && there.server_id == introduction.server_id && there.key_fingerprint == fingerprint;
        return if is_it {
            Ok(there)
        } else {
            Err(Failure::failed(format!("there is a profile `{name}` already, for something else"))
                .hint("`--into OTHER` makes another"))
        };
    }
    private_file::create_folder(&folder)?;
    copy(&old.profile.key_file(), &folder.join("key.pem"))?;
    for file in ["pins.jsonl", "verified.jsonl"] {
        copy(&old.profile.file(file), &folder.join(file))?;
    }
    let profile = Profile {
        name,
        folder,
        user: user.clone(),
        server: command.at.server.clone(),
        server_id: introduction.server_id,
        server_name: introduction.name.clone(),
        key_fingerprint: fingerprint,
        ca: command.at.ca.as_ref().map(std::path::absolute).transpose().ok().flatten(),
    };
    let wanted = Wanted { invite: command.at.invite.as_deref(), display_name: &command.at.display_name };
    let full_name = match claim(context, &wanted, connection, profile.clone(), key, true).await {
        Ok(full_name) => full_name,
        Err(failure) => {
            // A refusal is final, and a copy of the key is not left lying about.
            if failure.kind == Kind::Refused && !failure.passing {
                ["key.pem", "pins.jsonl", "verified.jsonl"]
                    .iter()
                    .try_for_each(|file| private_file::remove(&profile.file(file)))?;
                let _ = fs::remove_dir(&profile.folder);
            }
            return Err(failure);
        }
    };
    settle(context, connection, profile, &full_name, key).await
}

/// Copies a file of a profile, which may be absent.
fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    match fs::read(from) {
        Ok(content) => private_file::write(to, &content),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::file("read", from, &error)),
    }
}

/// Gives the old server the word that is final.
async fn leave(session: &Session, old: &Account, new: &Profile, key: &Arc<PrivateKey>) -> Result<(), Failure> {
    let from = old.profile.address();
    let (_, answer) = ask_for(session, &format!("{}@{}", from.user, from.home)).await?;
    let statement = old.trust.follow(&from, &answer.key_statements)?;
    if statement.key != *key.public() {
        return Err(Failure::failed("the old server has another key for this user than the profile"));
    }
    let statement: Bytes = Word::encode(&from, statement.hash(), &new.address(), now_unix_ms()).into();
    let moved = SignedMove { signature: key.sign(Label::Move, &statement)?, statement };
    let request = session.request(MoveUserRequest { moved: Some(moved) });
    session.accounts().move_user(request).await.map(drop).map_err(|status| {
        let failure = Failure::from(status);
        if failure.passing {
            failure.hint("it is not known whether the old server heard it: the same line again goes on")
        } else {
            failure
        }
    })
}

fn tell(context: &Context, old: &Profile, new: &Profile) {
    let fingerprint = new.key_fingerprint.to_string();
    let value = json!({
        "user": old.full_name(),
        "moved_to": new.full_name(),
        "profile": new.name,
        "server": new.server,
        "server_id": new.server_id.to_string(),
        "fingerprint": fingerprint,
    });
    let text = format!("moved {} to {}, key fingerprint {fingerprint}", old.full_name(), new.full_name());
    super::print(context.global.json, &value, &text);
    eprintln!(
        "profile `{}` in `{}`; `socp --profile {} chat` goes online. Profile `{}` is of no use any more",
        new.name,
        new.folder.display(),
        new.name,
        old.name
    );
}
