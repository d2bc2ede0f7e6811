//! Users' RSA keys: slow to make, so made once for all runs and kept in the target folder.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use socp_client::{keystore, passphrase, private_key::PrivateKey};

use super::binaries;

/// The file with the key of this owner, in unencrypted PKCS#8.
pub fn file(owner: &str) -> PathBuf {
    key(owner);
    path(owner)
}

/// The key of this owner. Any name has one; the same name always the same.
pub fn key(owner: &str) -> Arc<PrivateKey> {
    static KEYS: OnceLock<Mutex<BTreeMap<String, Arc<PrivateKey>>>> = OnceLock::new();
    let mut keys = KEYS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(keys.entry(owner.to_owned()).or_insert_with(|| Arc::new(read_or_make(&path(owner)))))
}

fn path(owner: &str) -> PathBuf {
    let folder = binaries::scratch_folder();
    fs::create_dir_all(&folder).expect("the target folder can be written to");
    folder.join(format!("e2e-{owner}.pem"))
}

fn read_or_make(path: &Path) -> PrivateKey {
    if let Ok(key) = keystore::read(path, &passphrase::Source::Nowhere) {
        return key;
    }
    let key = PrivateKey::generate().expect("a key can be made");
    keystore::write(path, &key, None).expect("the target folder can be written to");
    key
}
