//! `socp history`: what was received before.

use super::Context;
use crate::{
    cli::History,
    failure::Failure,
    history::{self, MESSAGES, MESSAGES_MAX, Wanted},
    printer::Printer,
};

pub(super) async fn run(context: &Context, command: History) -> Result<(), Failure> {
    let account = context.account(false)?;
    account.key().await?; // Asks for the passphrase before anything is dialled.
    let session = account.session().await?;
    let sender = match &command.user {
        Some(user) => Some(history::sender_named(&session, &account, user).await?),
        None => None,
    };
    let messages = command.messages.map(usize::from);
    let messages = messages.unwrap_or(if command.unread { MESSAGES_MAX } else { MESSAGES });
    let events = history::read(&session, &account, &Wanted { sender, messages, unread: command.unread }).await?;
    let mut printer = Printer::new(context.global.json);
    events.iter().for_each(|event| printer.print(event));
    Ok(())
}
