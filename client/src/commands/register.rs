//! `socp register`: makes a key, claims a name with it, and keeps both in a profile.
//!
//! The key is on disk before the name is claimed, and stays there when it is not known whether the claim arrived: the
//! same line again then goes on with the same key.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use prost::bytes::Bytes;
use serde_json::json;
use socp::{
    id::{KeyFingerprint, ServerId},
    name::UserName,
    signed::Label,
    statement::KeyStatement,
    v1::{Reason, RegisterRequest, SignedKeyStatement, account_service_client::AccountServiceClient},
};

use super::Context;
use crate::{
    cli::{At, Register},
    connection::{self, Connection, Target},
    failure::{Failure, Kind},
    keystore, private_file,
    private_key::PrivateKey,
    profile::Profile,
    sending::blocking,
    session::{Account, timed},
    transport::TransportKind,
};

pub(super) async fn run(context: &Context, command: Register) -> Result<(), Failure> {
    let user = UserName::parse(&command.name)?;
    let name = context.global.profile.clone().unwrap_or_else(|| user.to_string());
    let folder = context.home.folder(&name)?;
    if Profile::exists(&folder) {
        return Err(Failure::failed(format!("there is a profile `{name}` already"))
            .hint(format!("`--profile OTHER` makes another; `{}` is the old one's folder", folder.display())));
    }
    let target = target(context, &command.at)?;
    let connection = connection::connect(&target).await?;
    let outcome = register(context, command, &connection, Place { name, folder, user, ca: target.ca }).await;
    connection.transport.leave().await;
    outcome
}

/// Where a server that has no profile yet is, and whom to expect there.
pub(super) fn target(context: &Context, at: &At) -> Result<Target, Failure> {
    let server_id = match &at.server_id {
        None => None,
        Some(text) => Some(ServerId::parse(&text.to_ascii_lowercase()).ok_or_else(|| {
            Failure::failed(format!("`{text}` is not a server id"))
                .hint("it is 64 hexadecimal digits; the server prints it when it starts")
        })?),
    };
    let ca = at.ca.as_ref().map(std::path::absolute).transpose();
    let ca = ca.map_err(|error| Failure::failed(format!("the path of `--ca` cannot be used: {error}")))?;
    let choice = context.global.transport;
    Ok(Target { server: at.server.clone(), server_id, ca, choice, first: TransportKind::H3 })
}

/// Where the new profile is to be, and whose.
struct Place {
    name: String,
    folder: PathBuf,
    user: UserName,
    ca: Option<PathBuf>,
}

async fn register(
    context: &Context,
    command: Register,
    connection: &Connection,
    Place { name, folder, user, ca }: Place,
) -> Result<(), Failure> {
    private_file::create_folder(&folder)?;
    let path = folder.join("key.pem");
    let left_over = path.exists();
    let key = if left_over {
        eprintln!("going on with the key in `{}`", path.display());
        let (path, source) = (path.clone(), context.passphrase());
        blocking(move || keystore::read(&path, &source)).await?
    } else {
        make_key(context, &command, &path).await?
    };
    let key = Arc::new(key);

    let profile = Profile {
        name: name.clone(),
        folder,
        user,
        server: command.at.server.clone(),
        server_id: connection.introduction.server_id,
        server_name: connection.introduction.name.clone(),
        key_fingerprint: key.public().fingerprint(),
        ca,
    };
    let brought = left_over || command.key.is_some();
    let wanted = Wanted { invite: command.at.invite.as_deref(), display_name: &command.at.display_name };
    let full_name = match claim(context, &wanted, connection, profile.clone(), &key, brought).await {
        Ok(full_name) => full_name,
        Err(failure) => {
            // A refusal is final, and a key that was made for this name alone is worth nothing.
            if failure.kind == Kind::Refused && !failure.passing && !left_over {
                private_file::remove(&path)?;
                let _ = std::fs::remove_dir(&profile.folder);
            }
            return Err(failure);
        }
    };
    let profile = settle(context, connection, profile, &full_name, &key).await?;
    tell(context, &profile, &full_name);
    Ok(())
}

/// Writes the profile of a name that is claimed, and logs in.
pub(super) async fn settle(
    context: &Context,
    connection: &Connection,
    profile: Profile,
    full_name: &str,
    key: &Arc<PrivateKey>,
) -> Result<Profile, Failure> {
    let server_name = full_name.split_once('@').map_or(full_name, |(_, server)| server).to_owned();
    let profile = Profile { server_name, ..profile };
    profile.write()?;
    context.home.propose_default(&profile.name)?;
    log_in(context, connection, profile.clone(), key).await?;
    Ok(profile)
}

/// What a claim to a name says besides the name and the key.
pub(super) struct Wanted<'a> {
    pub(super) invite: Option<&'a str>,
    pub(super) display_name: &'a str,
}

async fn make_key(context: &Context, command: &Register, path: &Path) -> Result<PrivateKey, Failure> {
    let source = context.passphrase();
    let brought = match command.key.clone() {
        None => None,
        Some(file) => {
            let source = source.clone();
            Some(blocking(move || keystore::read(&file, &source)).await?)
        }
    };
    let passphrase = if command.no_passphrase { None } else { Some(blocking(move || source.choose_new()).await?) };
    let path = path.to_owned();
    if brought.is_none() {
        eprintln!("making an RSA key of 4096 bits, which takes a moment");
    }
    blocking(move || {
        let key = brought.map_or_else(PrivateKey::generate, Ok)?;
        keystore::write(&path, &key, passphrase.as_ref().map(|passphrase| passphrase.as_str()))?;
        Ok(key)
    })
    .await
}

/// Claims the name. One that is registered with this very key already is ours: logging in proves it.
pub(super) async fn claim(
    context: &Context,
    wanted: &Wanted<'_>,
    connection: &Connection,
    profile: Profile,
    key: &Arc<PrivateKey>,
    brought: bool,
) -> Result<String, Failure> {
    let statement: Bytes = KeyStatement::encode(&profile.user, profile.server_id, key.public(), 1, None).into();
    let signature = key.sign(Label::KeyStatement, &statement)?;
    let request = RegisterRequest {
        key_statement: Some(SignedKeyStatement { statement, signature, previous_signature: Bytes::new() }),
        invite: wanted.invite.unwrap_or_default().to_owned(),
        display_name: wanted.display_name.to_owned(),
    };
    let mut accounts = AccountServiceClient::new(connection.transport.clone());
    match accounts.register(timed(request)).await {
        Ok(answer) => {
            let answer = answer.into_inner();
            let fingerprint = KeyFingerprint::parse(&answer.key_fingerprint);
            if fingerprint != Some(key.public().fingerprint()) {
                return Err(Failure::failed("the server registered another key than the one it was sent"));
            }
            Ok(answer.user)
        }
        Err(status) => {
            let failure = Failure::from(status);
            if brought && failure.is(Reason::NameInUse) {
                let full_name = profile.full_name();
                return log_in(context, connection, profile, key).await.map(|()| full_name).map_err(|_| failure);
            }
            Err(failure)
        }
    }
}

async fn log_in(
    context: &Context,
    connection: &Connection,
    profile: Profile,
    key: &Arc<PrivateKey>,
) -> Result<(), Failure> {
    let account = Account::open(profile, context.global.transport, context.passphrase(), false)?;
    account.set_key(key.clone());
    account.log_in(&connection.transport).await.map(drop)
}

fn tell(context: &Context, profile: &Profile, full_name: &str) {
    let fingerprint = profile.key_fingerprint.to_string();
    let value = json!({
        "user": full_name,
        "profile": profile.name,
        "server": profile.server,
        "server_id": profile.server_id.to_string(),
        "fingerprint": fingerprint,
    });
    super::print(context.global.json, &value, &format!("registered {full_name}, key fingerprint {fingerprint}"));
    eprintln!(
        "profile `{}` in `{}`; `socp --profile {} chat` goes online",
        profile.name,
        profile.folder.display(),
        profile.name
    );
}
