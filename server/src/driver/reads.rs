//! Reading the disk for calls: the node says what, the disk's reader gives it, and the driver waits for neither.

use std::sync::{
    Arc, Weak,
    mpsc::{self, Sender},
};

use socp::{
    channel::KeyName,
    inbox::Stored,
    name::UserName,
    output::Page,
    rejection::Rejection,
    v1::{AttachResponse, GetChannelKeyResponse, ReadInboxResponse},
};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use crate::{disk::Read, status};

/// The way to the disk's reader.
#[derive(Clone)]
pub(super) struct Reads {
    /// Gone with the driver.
    pub(super) way: Weak<Sender<Read>>,
    /// As many permits as calls may read at once.
    pub(super) readers: Arc<Semaphore>,
}

impl Reads {
    /// Reads a page of an inbox, once there is a place; what was dropped since the node named it is not in it.
    pub(super) async fn inbox(&self, page: Page) -> Result<ReadInboxResponse, Rejection> {
        let _place = self.place().await?;
        let Page { user, mut after, up_to, has_older } = page;
        let mut entries: Vec<AttachResponse> = Vec::new();
        while after < up_to {
            let stored = self.ask(|call| Read::EntriesForCall { call, user: user.clone(), after }).await?;
            let Some(last) = stored.last().map(|stored| stored.position) else { break };
            let wanted = stored.into_iter().filter(|stored| stored.position <= up_to);
            entries.extend(wanted.map(Stored::response));
            after = last;
        }
        Ok(ReadInboxResponse { entries, has_older })
    }

    /// Reads a channel key as it came for a user, once there is a place.
    pub(super) async fn channel_key(&self, user: UserName, key: KeyName) -> Result<GetChannelKeyResponse, Rejection> {
        let _place = self.place().await?;
        let wrapped = self.ask(|call| Read::ChannelKey { call, user, key }).await?;
        Ok(GetChannelKeyResponse { wrapped_channel_key: wrapped.unwrap_or_default().into() })
    }

    async fn place(&self) -> Result<SemaphorePermit<'_>, Rejection> {
        self.readers.acquire().await.map_err(|_| status::server_failed())
    }

    async fn ask<T>(&self, read: impl FnOnce(oneshot::Sender<T>) -> Read) -> Result<T, Rejection> {
        let (reply, answer) = oneshot::channel();
        let way = self.way.upgrade().ok_or_else(status::server_failed)?;
        let asked = way.send(read(reply));
        drop(way); // Or the reader would wait for this call before it ends.
        asked.map_err(|mpsc::SendError(_)| status::server_failed())?;
        // A reader that is gone has reported why.
        answer.await.map_err(|_| status::server_failed())
    }
}
