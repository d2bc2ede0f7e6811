//! `socp tell`: one message to one user.

use super::Context;
use crate::{
    cli::Tell,
    event::Event,
    failure::Failure,
    moves,
    printer::Printer,
    sending::{self, Content},
};

pub(super) async fn run(context: &Context, command: Tell) -> Result<(), Failure> {
    let account = context.account(false)?;
    account.key().await?; // Asks for the passphrase before anything is dialled.
    let session = account.session().await?;
    let found = sending::look_up(&session, &account, &command.user).await?;
    moves::refuse(&session, &account, &found).await?;
    let content = Content::text(command.text.join(" "), command.receipts);
    let sent = sending::send(session, account, found.label, found.address, found.key, content).await?;
    Printer::new(context.global.json).print(&Event::Sent(sent));
    Ok(())
}
