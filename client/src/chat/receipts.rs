//! Receipts of the chat: given to who asks, and asked for.

use std::{sync::Arc, time::Duration};

use socp::{id::MessageId, message::Address, v1::ReceiptKind};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::Chat;
use crate::{
    failure::Failure,
    receipt::{Receipt, Receipts},
    sending::{self, Content, Member},
    session::{Account, Session},
};

/// How long the last receipts may take when the chat ends.
const LAST_MAX: Duration = Duration::from_secs(2);

/// What is told of messages that came.
#[derive(Debug, Default)]
pub(super) struct Giving {
    /// `None` if nothing is told.
    kind: Option<ReceiptKind>,
    gathered: Receipts,
    under_way: JoinSet<()>,
}

impl Giving {
    pub(super) fn new(kind: Option<ReceiptKind>) -> Self {
        Self { kind, ..Self::default() }
    }

    /// Whether receipts are asked for: by who gives some.
    pub(super) fn are_wanted(&self) -> bool {
        self.kind.is_some()
    }

    /// Waits until gathered ones are to be sent. Cancelling loses nothing.
    pub(super) async fn due(&mut self) {
        loop {
            let due = self.gathered.due();
            let sleeping = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleeping => return,
                // Done ones are let go.
                Some(_) = self.under_way.join_next() => {}
            }
        }
    }
}

impl Chat {
    /// A message was shown whose sender asks for a receipt.
    pub(super) fn give_receipt(&mut self, sender: Address, id: MessageId) {
        if self.receipts.kind.is_some()
            && let Some((to, ids)) = self.receipts.gathered.note(sender, id, Instant::now())
        {
            self.send_receipt(to, ids);
        }
    }

    /// Sends what was gathered. Without a connection it is left out: senders know from their servers that it arrived.
    pub(super) fn send_receipts(&mut self) {
        for (to, ids) in self.receipts.gathered.take() {
            self.send_receipt(to, ids);
        }
    }

    fn send_receipt(&mut self, to: Address, ids: Vec<MessageId>) {
        let (Some(kind), Some(session)) = (self.receipts.kind, self.live.session()) else { return };
        let account = self.account.clone();
        let shown = self.live.view().find(&to).map(|entry| Member::from(&**entry));
        self.receipts.under_way.spawn(async move {
            if let Err(failure) = send(session, account, to, shown, Receipt { kind, ids }).await {
                tracing::debug!(%failure, "a receipt was not sent");
            }
        });
    }

    /// Sends the last ones, as far as that works within its time.
    pub(super) async fn send_last_receipts(&mut self) {
        self.send_receipts();
        let all = async { while self.receipts.under_way.join_next().await.is_some() {} };
        let _ = timeout(LAST_MAX, all).await;
    }
}

async fn send(
    session: Session,
    account: Arc<Account>,
    to: Address,
    shown: Option<Member>,
    receipt: Receipt,
) -> Result<(), Failure> {
    let user = format!("{}@{}", to.user, to.home);
    let key = match shown {
        Some(member) => sending::key_of(&session, &account, &member).await?,
        None => sending::look_up(&session, &account, &user).await?.key,
    };
    sending::send(session, account, user, to, key, Content::receipt(receipt)).await?;
    Ok(())
}
