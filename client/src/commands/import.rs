//! `socp import`: a profile that another device exported. Asks nobody: the first command that does logs in.

use std::{fs, io::Read as _, path::Path};

use serde_json::json;

use super::Context;
use crate::{
    cli::Import,
    export::{self, EXPORT_BYTES_MAX, Imported},
    failure::Failure,
    private_file,
    profile::Profile,
    sending::blocking,
};

pub(super) async fn run(context: &Context, command: Import) -> Result<(), Failure> {
    let text = read(&command.file)?;
    let (what, source) = (command.file.display().to_string(), context.passphrase());
    let imported = blocking(move || export::open(&text, &what, &source)).await?;
    let name = context.global.profile.clone().unwrap_or_else(|| imported.user.to_string());
    let folder = context.home.folder(&name)?;
    if folder.exists() {
        return Err(Failure::failed(format!("there is a profile `{name}` already"))
            .hint(format!("`--profile OTHER` makes another; `{}` is the old one's folder", folder.display())));
    }
    private_file::create_folder(&folder)?;
    let profile = match keep(name, &folder, imported) {
        Ok(profile) => profile,
        Err(failure) => {
            // A copy of the key is not left lying about.
            let _ = fs::remove_dir_all(&folder);
            return Err(failure);
        }
    };
    context.home.propose_default(&profile.name)?;
    let value = json!({
        "user": profile.full_name(),
        "profile": profile.name,
        "server": profile.server,
        "server_id": profile.server_id.to_string(),
        "fingerprint": profile.key_fingerprint.to_string(),
    });
    let text = format!("imported {}, key fingerprint {}", profile.full_name(), profile.key_fingerprint);
    super::print(context.global.json, &value, &text);
    eprintln!("profile `{0}` in `{1}`; `socp --profile {0} chat` goes online", profile.name, profile.folder.display());
    Ok(())
}

/// Writes all files of the profile; with the last of them it is there.
fn keep(name: String, folder: &Path, imported: Imported) -> Result<Profile, Failure> {
    let Imported { key_pem, contents, user, server_id, key_fingerprint } = imported;
    let ca = contents.ca_pem.as_ref().map(|_| folder.join("ca.pem"));
    let files = [
        ("key.pem", Some(key_pem.as_str())),
        ("ca.pem", contents.ca_pem.as_deref()),
        ("pins.jsonl", Some(contents.pins.as_str())),
        ("verified.jsonl", Some(contents.verified.as_str())),
    ];
    for (file, content) in files.into_iter().filter_map(|(file, content)| Some((file, content?))) {
        private_file::write(&folder.join(file), content.as_bytes())?;
    }
    let ca = ca.map(std::path::absolute).transpose();
    let ca = ca.map_err(|error| Failure::failed(format!("the path of the profile cannot be used: {error}")))?;
    let (server, server_name) = (contents.server, contents.server_name);
    let profile = Profile { name, folder: folder.into(), user, server, server_id, server_name, key_fingerprint, ca };
    profile.write()?;
    Ok(profile)
}

fn read(path: &Path) -> Result<String, Failure> {
    let failed = |error| Failure::file("read", path, &error);
    let mut text = String::new();
    fs::File::open(path).and_then(|file| file.take(EXPORT_BYTES_MAX).read_to_string(&mut text)).map_err(failed)?;
    Ok(text)
}
