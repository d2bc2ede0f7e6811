//! RSA signatures, checked away from the driver.
//!
//! A few threads take checks from one queue, which the node bounds ([`CHECKS_MAX`] at once); their results have a queue
//! of the same size, so no thread ever waits with a result, and the driver never waits for a thread. What a result
//! means is the node's to decide.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, mpsc as jobs},
    thread,
};

use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
use socp::{input::CheckId, limits::CHECKS_MAX, statement::RsaCheck};
use tokio::sync::mpsc;

/// One check and the signatures that all must match.
type Job = (CheckId, Vec<RsaCheck>);

/// The pool's queue. Dropping it ends the threads.
pub struct Checks {
    jobs: jobs::SyncSender<Job>,
}

/// Starts as many threads as there are cores. Results come in any order.
pub fn start() -> io::Result<(Checks, mpsc::Receiver<(CheckId, bool)>)> {
    let (jobs, queue) = jobs::sync_channel::<Job>(CHECKS_MAX);
    let (results, checked) = mpsc::channel(CHECKS_MAX);
    let queue = Arc::new(Mutex::new(queue));
    for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
        let (queue, results) = (Arc::clone(&queue), results.clone());
        thread::Builder::new().name("checks".to_owned()).spawn(move || work(&queue, &results))?;
    }
    Ok((Checks { jobs }, checked))
}

impl Checks {
    /// Has the signatures checked; the result comes by the receiver that [`start`] gave.
    pub fn check(&self, check: CheckId, signatures: Vec<RsaCheck>) {
        // Waits only if the node gave out more than it says it does, and fails only if all threads have panicked.
        if self.jobs.send((check, signatures)).is_err() {
            tracing::error!("no thread is left that checks signatures");
        }
    }
}

fn work(queue: &Mutex<jobs::Receiver<Job>>, results: &mpsc::Sender<(CheckId, bool)>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((check, signatures)) = job else {
            return;
        };
        let valid = signatures.iter().all(matches);
        if results.blocking_send((check, valid)).is_err() {
            return;
        }
    }
}

/// Tells whether the signature is by the key: RSA-PSS with SHA-256 and a salt of 32 bytes, over the whole message.
fn matches(check: &RsaCheck) -> bool {
    UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, check.key.pkcs1())
        .verify(&check.message, &check.signature)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        encoding::AsDer as _,
        rand::SystemRandom,
        rsa::{KeySize, PrivateDecryptingKey},
        signature::{KeyPair as _, RSA_PSS_SHA256, RsaKeyPair},
    };
    use prost::bytes::Bytes;
    use socp::{signed::Label, user_key::UserKey};

    use super::*;

    fn signed(message: &'static [u8]) -> (RsaCheck, RsaKeyPair) {
        let private = PrivateDecryptingKey::generate(KeySize::Rsa4096).unwrap();
        let pair = RsaKeyPair::from_pkcs8(private.as_der().unwrap().as_ref()).unwrap();
        let spki: aws_lc_rs::encoding::PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let key = UserKey::parse(&Bytes::copy_from_slice(spki.as_ref())).unwrap();
        let mut check = RsaCheck::new(&key, Label::Login, message, &Bytes::new());
        let mut signature = vec![0; 512];
        pair.sign(&RSA_PSS_SHA256, &SystemRandom::new(), &check.message, &mut signature).unwrap();
        check.signature = signature.into();
        (check, pair)
    }

    #[test]
    fn a_signature_matches_its_own_key_and_message_only() {
        let (good, _) = signed(b"one");
        assert!(matches(&good));
        let other_message = RsaCheck { message: Bytes::from_static(b"two"), ..good.clone() };
        assert!(!matches(&other_message));
        let mut bytes = good.signature.to_vec();
        bytes[100] ^= 1;
        assert!(!matches(&RsaCheck { signature: bytes.into(), ..good.clone() }));
        assert!(!matches(&RsaCheck { signature: Bytes::new(), ..good }));
    }
}
