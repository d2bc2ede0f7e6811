//! Profiles: who one is at which server. A folder each, chosen by name, with a default.
//!
//! ```text
//! ~/.config/socp/              SOCP_HOME, --home
//!   default                    name of the profile used when none is said
//!   profiles/alice/
//!     profile.toml             user, server, the pinned server id
//!     key.pem                  private key, encrypted PKCS#8
//!     key-1a2b3c4d5e6f7081.pem the one that renewed it; the profile says which is in force
//!     token                    bearer token of the session
//!     device                   which device of the user this is
//!     inbox                    cursor of the last message that was shown
//!     transport                which of `h3` and `tcp` connected last
//!     pins.jsonl               fingerprints of other users' keys, see `pins`
//!     verified.jsonl           which of them were compared, see `verified`
//!     keys/                    some of those keys, see `known_keys`
//! ```

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use socp::{
    id::{KeyFingerprint, ServerId},
    message::Address,
    name::UserName,
};

use crate::{failure::Failure, private_file};

/// The folder of all profiles.
#[derive(Clone, Debug)]
pub struct Home(PathBuf);

/// Who one is at which server.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The profile's name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// The user's bare name.
    pub user: UserName,
    /// `HOST:PORT` to dial.
    pub server: String,
    /// The pin: the only server that this profile talks to.
    pub server_id: ServerId,
    /// The server's own name, as it said at registration: for people.
    pub server_name: String,
    /// The user's own key, so that it can be told without opening the key file.
    pub key_fingerprint: KeyFingerprint,
    /// A CA in PEM by which the server's certificate is checked as well; `None` trusts the pin alone.
    pub ca: Option<PathBuf>,
}

/// `profile.toml`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    user: String,
    server: String,
    server_id: String,
    server_name: String,
    key_fingerprint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<PathBuf>,
}

impl Home {
    /// The folder said, or `socp` under the user's configuration folder.
    pub fn locate(said: Option<PathBuf>) -> Result<Self, Failure> {
        let config = || env::var_os("XDG_CONFIG_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
        let dot_config = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
        said.or_else(|| config().or_else(dot_config).map(|folder| folder.join("socp"))).map(Self).ok_or_else(|| {
            Failure::failed("cannot tell where profiles are kept").hint("set `SOCP_HOME` or pass `--home DIR`")
        })
    }

    /// The folder of a profile, there or not. Fails if the name could leave the folder of profiles.
    pub fn folder(&self, name: &str) -> Result<PathBuf, Failure> {
        let plain = UserName::parse(name).is_ok() && !name.starts_with('.');
        if !plain {
            return Err(Failure::failed(format!("`{name}` is no name for a profile"))
                .hint("a profile's name is 1 to 64 characters of `a-z 0-9 . _ -` and does not begin with a dot"));
        }
        Ok(self.0.join("profiles").join(name))
    }

    /// The names of all profiles, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.join("profiles")).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries
            .filter(|entry| entry.path().join("profile.toml").is_file())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// Opens the profile said, else the default, else the only one.
    pub fn open(&self, said: Option<&str>) -> Result<Profile, Failure> {
        let default = private_file::read(&self.0.join("default"))?.map(|name| name.trim().to_owned());
        let names = self.names();
        let name = match (said, default, &names[..]) {
            (Some(said), _, _) => said.to_owned(),
            (None, Some(default), _) => default,
            (None, None, [only]) => only.clone(),
            (None, None, []) => {
                return Err(Failure::failed(format!("there is no profile in `{}`", self.0.display())).hint(
                    "`socp register NAME --server HOST:PORT --server-id HEX` makes one; the server prints the line",
                ));
            }
            (None, None, several) => {
                return Err(Failure::failed("there are several profiles and none is the default")
                    .hint(format!("pass `--profile` with one of: {}", several.join(", "))));
            }
        };
        Profile::read(&name, self.folder(&name)?)?.ok_or_else(|| {
            let hint = match &names[..] {
                [] => "`socp register NAME --server HOST:PORT --server-id HEX` makes one".to_owned(),
                names => format!("the profiles in `{}` are: {}", self.0.display(), names.join(", ")),
            };
            Failure::failed(format!("there is no profile `{name}`")).hint(hint)
        })
    }

    /// Makes a profile the default in place of another, if that is it.
    pub fn replace_default(&self, old: &str, new: &str) -> Result<(), Failure> {
        let path = self.0.join("default");
        let is_old = private_file::read(&path)?.is_some_and(|name| name.trim() == old);
        if is_old { private_file::write(&path, new.as_bytes()) } else { Ok(()) }
    }

    /// Makes a profile the default if there is none yet.
    pub fn propose_default(&self, name: &str) -> Result<(), Failure> {
        let path = self.0.join("default");
        if private_file::read(&path)?.is_some() { Ok(()) } else { private_file::write(&path, name.as_bytes()) }
    }
}

impl Profile {
    fn read(name: &str, folder: PathBuf) -> Result<Option<Self>, Failure> {
        let path = folder.join("profile.toml");
        let Some(text) = private_file::read(&path)? else { return Ok(None) };
        let damaged = |why: String| {
            Failure::failed(format!("`{}` is damaged: {why}", path.display()))
                .hint("mend it by hand, or remove the folder and register anew")
        };
        let content: Content = toml::from_str(&text).map_err(|error| damaged(error.message().to_owned()))?;
        Ok(Some(Self {
            name: name.to_owned(),
            user: UserName::parse(&content.user).map_err(|error| damaged(error.to_string()))?,
            server: content.server,
            server_id: ServerId::parse(&content.server_id).ok_or_else(|| damaged("`server_id`".into()))?,
            server_name: content.server_name,
            key_fingerprint: KeyFingerprint::parse(&content.key_fingerprint)
                .ok_or_else(|| damaged("`key_fingerprint`".into()))?,
            ca: content.ca,
            folder,
        }))
    }

    /// Writes `profile.toml`; from then on the profile is there.
    pub fn write(&self) -> Result<(), Failure> {
        let content = Content {
            user: self.user.to_string(),
            server: self.server.clone(),
            server_id: self.server_id.to_string(),
            server_name: self.server_name.clone(),
            key_fingerprint: self.key_fingerprint.to_string(),
            ca: self.ca.clone(),
        };
        let text = toml::to_string(&content).map_err(|error| Failure::failed(error.to_string()))?;
        private_file::write(&self.folder.join("profile.toml"), text.as_bytes())
    }

    /// `name@server-name`.
    pub fn full_name(&self) -> String {
        format!("{}@{}", self.user, self.server_name)
    }

    /// The user and the home, as they stand in headers and pins.
    pub fn address(&self) -> Address {
        Address { home: self.server_id, user: self.user.clone() }
    }

    /// The file of the key in force: the first is `key.pem`, and one that renewed it is named after itself.
    pub fn key_file(&self) -> PathBuf {
        let renewed = self.renewed_key_file(self.key_fingerprint);
        if renewed.exists() { renewed } else { self.file("key.pem") }
    }

    /// The file of a key that renews another.
    pub fn renewed_key_file(&self, key: KeyFingerprint) -> PathBuf {
        self.file(&format!("key-{}.pem", &key.to_string()[..16]))
    }

    /// The files of all other keys of this profile.
    pub fn other_key_files(&self) -> Vec<PathBuf> {
        let in_force = self.key_file();
        let files = fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_key = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name == "key.pem" || name.starts_with("key-") && name.ends_with(".pem")
        };
        let mut files: Vec<_> = files.filter(|path| is_key(path) && *path != in_force).collect();
        files.sort();
        files
    }

    /// Where a file of this profile is.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Whether the folder holds a profile already.
    pub fn exists(folder: &Path) -> bool {
        folder.join("profile.toml").exists()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(home: &Home, name: &str) -> Profile {
        let folder = home.folder(name).unwrap();
        private_file::create_folder(&folder).unwrap();
        let profile = Profile {
            name: name.into(),
            folder,
            user: UserName::parse(name).unwrap(),
            server: "127.0.0.1:7443".into(),
            server_id: ServerId::of_key(&[1; 32]),
            server_name: "server-a".into(),
            key_fingerprint: KeyFingerprint::of_spki(b"key"),
            ca: None,
        };
        profile.write().unwrap();
        profile
    }

    #[test]
    fn the_profile_said_goes_before_the_default_and_the_default_before_the_only_one() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home(folder.path().into());
        assert!(home.open(None).unwrap_err().message.contains("no profile"));
        make(&home, "bob");
        assert_eq!(home.open(None).unwrap().name, "bob");
        make(&home, "alice");
        let several = home.open(None).unwrap_err();
        assert_eq!(several.hint.as_deref(), Some("pass `--profile` with one of: alice, bob"));
        home.propose_default("alice").unwrap();
        home.propose_default("bob").unwrap();
        assert_eq!(home.open(None).unwrap().name, "alice", "the first one proposed stays the default");
        home.replace_default("bob", "alice").unwrap();
        home.replace_default("alice", "bob").unwrap();
        assert_eq!(home.open(None).unwrap().name, "bob", "only the default is replaced");
        assert_eq!(home.open(Some("bob")).unwrap().full_name(), "bob@server-a");
        assert!(home.open(Some("carol")).unwrap_err().hint.unwrap().contains("alice, bob"));
    }

    #[test]
    fn a_name_cannot_leave_the_folder() {
        let home = Home("/nowhere".into());
        for name in ["..", "a/b", "", ".hidden", "A"] {
            assert!(home.folder(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_damaged_profile_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home(folder.path().into());
        let profile = make(&home, "alice");
        private_file::write(&profile.file("profile.toml"), b"user = 3").unwrap();
        assert!(home.open(Some("alice")).unwrap_err().message.contains("profile.toml` is damaged"));
    }
}
