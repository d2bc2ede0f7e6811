//! Files that a chat sends and receives beside everything else: a few at once, the others after them.

use std::{collections::VecDeque, future, path::PathBuf, pin::Pin, sync::Arc};

use futures_util::stream::{FuturesUnordered, StreamExt as _};

use crate::{
    download,
    event::Event,
    failure::Failure,
    inbox::Offer,
    moves,
    sending::{self, Member},
    session::{Account, Session},
    transfer::Progress,
    upload::{self, Source},
};

/// Files under way at once: more share the same line. Each has a connection of its own.
const AT_ONCE_MAX: usize = 4;

/// Files that wait for their turn: more than a person sends, and an end to what others can make this program hold.
const WAITING_MAX: usize = 1_024;

type Transfer = Pin<Box<dyn Future<Output = Event> + Send>>;

/// The files of a chat.
#[derive(Default)]
pub struct Transfers {
    waiting: VecDeque<Transfer>,
    under_way: FuturesUnordered<Transfer>,
}

/// To whom a file goes.
pub enum Recipient {
    /// One whom the directory shows, with the label.
    Shown(String, Member),
    /// One who is to be asked for.
    Named(String),
}

impl Transfers {
    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty() && self.waiting.is_empty()
    }

    /// The next one that ended; never, while none is under way.
    pub async fn next(&mut self) -> Event {
        match self.under_way.next().await {
            Some(event) => {
                self.begin_more();
                event
            }
            None => future::pending().await,
        }
    }

    fn add(&mut self, transfer: Transfer) -> Result<(), Failure> {
        if self.waiting.len() >= WAITING_MAX {
            return Err(Failure::refused("TOO_MANY", format!("{WAITING_MAX} files wait already")));
        }
        self.waiting.push_back(transfer);
        self.begin_more();
        Ok(())
    }

    fn begin_more(&mut self) {
        while self.under_way.len() < AT_ONCE_MAX
            && let Some(transfer) = self.waiting.pop_front()
        {
            self.under_way.push(transfer);
        }
    }

    /// Sends a file; `line` is the command, for an error.
    pub fn send(
        &mut self,
        session: Session,
        account: Arc<Account>,
        to: Recipient,
        source: Source,
        line: String,
    ) -> Result<(), Failure> {
        let sent = async move {
            let user = match to {
                Recipient::Shown(label, member) => {
                    sending::key_of(&session, &account, &member).await?;
                    let found = format!("{}@{}", member.address.user, member.address.home);
                    sending::Correspondent { label, ..sending::look_up(&session, &account, &found).await? }
                }
                Recipient::Named(user) => {
                    let found = sending::look_up(&session, &account, &user).await?;
                    moves::refuse(&session, &account, &found).await?;
                    found
                }
            };
            upload::send(account, user, source, Progress::default()).await
        };
        self.add(Box::pin(async { sent.await.map_or_else(|failure| Event::error(failure, Some(line)), Event::Sent) }))
    }

    /// Receives a file into a folder.
    pub fn receive(
        &mut self,
        account: Arc<Account>,
        offer: Offer,
        folder: PathBuf,
        bytes_max: u64,
    ) -> Result<(), Failure> {
        let Offer { from, id, manifest } = offer;
        self.add(Box::pin(async move {
            let bytes = manifest.bytes;
            match download::receive(account, manifest, folder, bytes_max, Progress::default()).await {
                Ok(path) => Event::FileSaved { from, id, path: path.display().to_string(), bytes },
                Err(failure) => Event::error(failure, None),
            }
        }))
    }
}
