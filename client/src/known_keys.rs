//! Public keys of correspondents, kept beside the pins: a pin is a fingerprint, and a signature is checked by the key itself,
//! which the user's home may not be able to tell just then.
//!
//! A file for each key, `keys/FINGERPRINT`. It is believed for what it hashes to and for nothing else, so no pin is made here.

use socp::{id::KeyFingerprint, message::Address, user_key::UserKey};

use crate::{private_file, profile::Profile, session::Account};

/// The folder in a profile.
const FOLDER: &str = "keys";

/// Keeps a key. One that cannot be written is asked for again another time.
pub fn keep(profile: &Profile, key: &UserKey) {
    let folder = profile.file(FOLDER);
    let path = folder.join(key.fingerprint().to_string());
    if path.exists() {
        return;
    }
    let kept = private_file::create_folder(&folder).and_then(|()| private_file::write(&path, key.spki()));
    if let Err(failure) = kept {
        tracing::debug!(%failure, "a key is not kept");
    }
}

/// The key with this fingerprint, if it was kept.
pub fn find(profile: &Profile, fingerprint: KeyFingerprint) -> Option<UserKey> {
    let bytes = std::fs::read(profile.file(FOLDER).join(fingerprint.to_string())).ok()?;
    UserKey::parse(&bytes.into()).ok().filter(|key| key.fingerprint() == fingerprint)
}

/// The key that is pinned for a user, if it was kept.
pub fn pinned(account: &Account, user: &Address) -> Option<UserKey> {
    find(&account.profile, account.trust.pin_of(user)?.fingerprint)
}

#[cfg(test)]
mod tests {
    use socp::{id::ServerId, name::UserName};

    use super::*;
    use crate::private_key::test_keys::*;

    #[test]
    fn a_kept_key_is_found_by_its_fingerprint_and_a_file_that_is_not_it_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let profile = Profile {
            name: "alice".into(),
            folder: folder.path().into(),
            user: UserName::parse("alice").unwrap(),
            server: String::new(),
            server_id: ServerId::of_key(&[9; 32]),
            server_name: "server-a".into(),
            key_fingerprint: ALICE.public().fingerprint(),
            ca: None,
        };
        let bob = BOB.public();
        assert_eq!(find(&profile, bob.fingerprint()), None);
        keep(&profile, bob);
        assert_eq!(find(&profile, bob.fingerprint()).as_ref(), Some(bob));
        let path = profile.file(FOLDER).join(bob.fingerprint().to_string());
        private_file::write(&path, ALICE.public().spki()).unwrap();
        assert_eq!(find(&profile, bob.fingerprint()), None, "another key under its name");
        private_file::write(&path, b"no key").unwrap();
        assert_eq!(find(&profile, bob.fingerprint()), None);
    }
}
