//! `socp export`: the profile in one file, for another device.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
};

use serde_json::json;

use super::Context;
use crate::{
    cli::Export,
    export::{self, Contents},
    failure::Failure,
    keystore, private_file,
    profile::Profile,
    sending::blocking,
};

pub(super) async fn run(context: &Context, command: Export) -> Result<(), Failure> {
    let account = context.account(false)?;
    let path = command.file;
    if path.exists() {
        return Err(exists(&path));
    }
    let key = account.key().await?;
    let profile = account.profile.clone();
    let source = context.passphrase();
    let (text, path) = blocking(move || {
        let stored = keystore::text(&profile.key_file())?;
        // A key that is kept plain is not carried about so.
        let key_pem = if keystore::is_encrypted(&stored) {
            stored
        } else {
            let passphrase = source.choose_new().map_err(|failure| {
                failure.hint("the key is kept without one, and the file wants one: set `SOCP_PASSPHRASE` or pass `--passphrase-file FILE`")
            })?;
            keystore::encode(&key, Some(passphrase.as_str()))?
        };
        Ok((export::seal(&key, &key_pem, &contents(&profile)?)?, path))
    })
    .await?;
    if text.len() as u64 > export::EXPORT_BYTES_MAX {
        return Err(Failure::failed(format!("the profile has too many pins: {} bytes", text.len())));
    }
    write_new(&path, text.as_bytes())?;
    let told = path.display().to_string();
    super::print(context.global.json, &json!({ "file": told }), &told);
    eprintln!(
        "on the other device: `socp import FILE`, with the same passphrase. Whoever has both is you; remove the file then"
    );
    Ok(())
}

fn contents(profile: &Profile) -> Result<Contents, Failure> {
    Ok(Contents {
        user: profile.user.to_string(),
        server: profile.server.clone(),
        server_id: profile.server_id.to_string(),
        server_name: profile.server_name.clone(),
        key_fingerprint: profile.key_fingerprint.to_string(),
        ca_pem: profile.ca.as_deref().map(read).transpose()?,
        pins: read_optional(&profile.file("pins.jsonl"))?,
        verified: read_optional(&profile.file("verified.jsonl"))?,
    })
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| Failure::file("read", path, &error))
}

fn read_optional(path: &Path) -> Result<String, Failure> {
    if path.exists() { read(path) } else { Ok(String::new()) }
}

fn exists(path: &Path) -> Failure {
    Failure::failed(format!("there is a file `{}` already", path.display())).hint("choose another name, or remove it")
}

/// Writes a file that is not there, flushed to disk; for its owner only.
fn write_new(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let mut file: File = private_file::options().write(true).create_new(true).open(path).map_err(|error| {
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            exists(path)
        } else {
            Failure::file("write", path, &error)
        }
    })?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(|error| {
        let _ = fs::remove_file(path);
        Failure::file("write", path, &error)
    })
}
