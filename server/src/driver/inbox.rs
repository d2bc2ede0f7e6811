//! Pages of inboxes for calls: the node says which part, the disk's reader gives it, and the driver waits for neither.

use std::sync::{
    Arc, Weak,
    mpsc::{self, Sender},
};

use socp::{
    inbox::Stored,
    output,
    rejection::Rejection,
    v1::{AttachResponse, ReadInboxResponse},
};
use tokio::sync::{Semaphore, oneshot};

use crate::{
    disk::{Page, Reader},
    status,
};

/// The way to the disk's reader.
#[derive(Clone)]
pub(super) struct Inboxes {
    /// Gone with the driver.
    pub(super) reads: Weak<Sender<Page>>,
    /// As many permits as calls may read at once.
    pub(super) readers: Arc<Semaphore>,
}

impl Inboxes {
    /// Reads a page; what was dropped since the node named it is not in it.
    pub(super) async fn read(&self, page: output::Page) -> Result<ReadInboxResponse, Rejection> {
        let output::Page { user, mut after, up_to, has_older } = page;
        let mut entries: Vec<AttachResponse> = Vec::new();
        while after < up_to {
            let (reply, read) = oneshot::channel();
            let reads = self.reads.upgrade().ok_or_else(status::server_failed)?;
            let asked = reads.send(Page { reader: Reader::Call(reply), user: user.clone(), after });
            drop(reads); // Or the reader would wait for this call before it ends.
            asked.map_err(|mpsc::SendError(_)| status::server_failed())?;
            // A reader that is gone has reported why.
            let stored = read.await.map_err(|_| status::server_failed())?;
            let Some(last) = stored.last().map(|stored| stored.position) else { break };
            let wanted = stored.into_iter().filter(|stored| stored.position <= up_to);
            entries.extend(wanted.map(Stored::response));
            after = last;
        }
        Ok(ReadInboxResponse { entries, has_older })
    }
}
