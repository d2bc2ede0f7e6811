//! `socp rotate-key`: a new key, which the old one vouches for.
//!
//! The new key is on disk before the server hears of it, and the profile names it only once the server has it. What was
//! interrupted between is found out by asking the server, and the same line again goes on.

use std::sync::Arc;

use prost::bytes::Bytes;
use serde_json::json;
use socp::{
    signed::Label,
    statement::KeyStatement,
    v1::{Reason, RotateKeyRequest, SignedKeyStatement},
};
use zeroize::Zeroizing;

use super::Context;
use crate::{
    failure::{Failure, Kind},
    keystore, passphrase, private_file,
    private_key::PrivateKey,
    profile::Profile,
    sending::{ask_for, blocking},
    session::{Account, Session},
};

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let profile = context.profile()?;
    let passphrase = passphrase_of(context, &profile).await?;
    let source = passphrase.clone().map_or(passphrase::Source::Nowhere, passphrase::Source::Given);
    let account = context.account_of(profile.clone(), source.clone(), false)?;
    let old = account.key().await?;
    let session = match account.session().await {
        // The answer to an earlier attempt may have been lost, and the token since: then the new key alone logs in.
        Err(failure) if failure.is(Reason::InvalidSig) => {
            for key in account.other_keys() {
                let renewed = Profile { key_fingerprint: key.public().fingerprint(), ..profile.clone() };
                let account = context.account_of(renewed, source.clone(), false)?;
                account.set_key(key.clone());
                if account.session().await.is_ok() {
                    return settle(context, profile, &key);
                }
            }
            return Err(failure);
        }
        other => other?,
    };
    let chain = own_chain(&session, &account).await?;
    let in_force = chain.last().expect("a chain that was followed is not empty");
    if in_force.key != *old.public() {
        let new = account.own_key(in_force.key.fingerprint()).ok_or_else(|| {
            Failure::failed("the server has another key for this user than the profile")
                .hint("it was renewed on another device: `socp export` it there and `socp import` it here")
        })?;
        return settle(context, profile, &new);
    }
    let is_new = |key: &Arc<PrivateKey>| !chain.iter().any(|statement| statement.key == *key.public());
    let new = match account.other_keys().into_iter().find(is_new) {
        Some(made) => made,
        None => make(&profile, passphrase).await?,
    };
    claim(&session, &profile, in_force, &old, &new).await?;
    settle(context, profile, &new)
}

/// The passphrase of the key in force, which the new one gets too; none if it is kept without.
async fn passphrase_of(context: &Context, profile: &Profile) -> Result<Option<Zeroizing<String>>, Failure> {
    let (path, source) = (profile.key_file(), context.passphrase());
    blocking(move || {
        let prompt = format!("Passphrase of `{}`: ", path.display());
        if keystore::is_encrypted(&keystore::text(&path)?) { source.read(&prompt).map(Some) } else { Ok(None) }
    })
    .await
}

async fn make(profile: &Profile, passphrase: Option<Zeroizing<String>>) -> Result<Arc<PrivateKey>, Failure> {
    let profile = profile.clone();
    eprintln!("making an RSA key of 4096 bits, which takes a moment");
    blocking(move || {
        let key = PrivateKey::generate()?;
        let path = profile.renewed_key_file(key.public().fingerprint());
        keystore::write(&path, &key, passphrase.as_ref().map(|passphrase| passphrase.as_str()))?;
        Ok(Arc::new(key))
    })
    .await
}

/// All own key statements, as the server shows them and the pin allows.
async fn own_chain(session: &Session, account: &Account) -> Result<Vec<KeyStatement>, Failure> {
    let me = account.profile.address();
    let (_, answer) = ask_for(session, &format!("{}@{}", me.user, me.home)).await?;
    account.trust.follow(&me, &answer.key_statements)?;
    Ok(answer.key_statements.iter().map(KeyStatement::parse).collect::<Result<_, _>>()?)
}

/// Has the server put the new key in force.
async fn claim(
    session: &Session,
    profile: &Profile,
    before: &KeyStatement,
    old: &PrivateKey,
    new: &PrivateKey,
) -> Result<(), Failure> {
    let number = before.number + 1;
    let statement: Bytes =
        KeyStatement::encode(&profile.user, profile.server_id, new.public(), number, Some(before.hash())).into();
    let signature = new.sign(Label::KeyStatement, &statement)?;
    let previous_signature = old.sign(Label::KeyStatement, &statement)?;
    let key_statement = Some(SignedKeyStatement { statement, signature, previous_signature });
    match session.accounts().rotate_key(session.request(RotateKeyRequest { key_statement })).await {
        Ok(_) => Ok(()),
        Err(status) => {
            let failure = Failure::from(status);
            // A refusal is final, and a key that is not in force is worth nothing.
            if failure.kind == Kind::Refused && !failure.passing {
                private_file::remove(&profile.renewed_key_file(new.public().fingerprint()))?;
                return Err(failure);
            }
            Err(failure.hint("it is not known whether the server heard it: the same line again goes on"))
        }
    }
}

/// Has the profile name the new key, which is in force.
fn settle(context: &Context, profile: Profile, new: &PrivateKey) -> Result<(), Failure> {
    let fingerprint = new.public().fingerprint();
    let profile = Profile { key_fingerprint: fingerprint, ..profile };
    profile.write()?;
    let value = json!({ "user": profile.full_name(), "fingerprint": fingerprint.to_string() });
    let text = format!("renewed the key of {}, key fingerprint {fingerprint}", profile.full_name());
    super::print(context.global.json, &value, &text);
    Ok(())
}
