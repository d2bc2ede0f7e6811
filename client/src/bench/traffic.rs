//! A file that is sent from one server to another all the while, beside which something else is measured.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::task::JoinSet;

use super::{
    file,
    folder::Folder,
    users::{self, Place, User},
};
use crate::{failure::Failure, private_key::PrivateKey, sending::blocking, transfer::Progress, upload::Source};

/// The file, and between whom it is sent.
pub(super) struct Traffic {
    sender: User,
    recipient: User,
    folder: Folder,
    moved: Arc<Moved>,
}

/// What was moved so far.
#[derive(Default)]
struct Moved {
    /// To the sender's home, and to the recipient.
    progress: Mutex<[Vec<Progress>; 2]>,
    failure: Mutex<Option<Failure>>,
}

/// A file on its way. Dropped, it stays where it is.
pub(super) struct UnderWay(JoinSet<()>);

impl Traffic {
    /// Makes a file of so many MiB, and logs in those who are to send and receive it.
    pub(super) async fn prepare(
        home: &Place,
        other: &Place,
        key: &Arc<PrivateKey>,
        mib: usize,
    ) -> Result<Self, Failure> {
        let sender = users::log_in(home, home.connect().await?, "bench-file-sender", key).await?;
        let recipient = users::log_in(other, other.connect().await?, "bench-file-recipient", key).await?;
        let folder = Folder::make(None)?;
        let path = folder.file("sent");
        blocking(move || file::make(&path, (mib as u64) << 20)).await?;
        Ok(Self { sender, recipient, folder, moved: Arc::default() })
    }

    /// Begins: the file is brought to the sender's home, and then fetched again and again.
    pub(super) fn begin(&self) -> UnderWay {
        let (sender, recipient, moved) = (self.sender.clone(), self.recipient.clone(), Arc::clone(&self.moved));
        let (from, to) = (self.folder.file("sent"), self.folder.file("received"));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            if let Err(failure) = carry(&sender, &recipient, &from, &to, &moved).await {
                moved.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
            }
        });
        UnderWay(tasks)
    }

    /// Why it cannot be sent, if so.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.moved.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// MiB that were brought to the sender's home so far, and that the recipient has got.
    pub(super) fn mib(&self) -> [u64; 2] {
        let progress = self.moved.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.each_ref().map(|all| all.iter().map(Progress::bytes).sum::<u64>() >> 20)
    }
}

impl UnderWay {
    /// Leaves it where it is, and waits until nothing more is done for it here.
    pub(super) async fn leave(mut self) {
        self.0.shutdown().await;
    }
}

async fn carry(sender: &User, recipient: &User, from: &Path, to: &Path, moved: &Moved) -> Result<(), Failure> {
    let path = from.to_owned();
    let source = blocking(move || Source::open(&path)).await?;
    let manifest = file::upload(sender, recipient, source, &moved.begin(0)).await?;
    loop {
        // Of the time before, whole or not.
        let _ = fs::remove_file(to);
        file::download(recipient, manifest.clone(), to, &moved.begin(1)).await?;
    }
}

impl Moved {
    fn begin(&self, way: usize) -> Progress {
        let progress = Progress::default();
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)[way].push(progress.clone());
        progress
    }
}
