//! `socp chat`: goes online and talks.

use std::io::{IsTerminal as _, stdout};

use socp::v1::{DirectoryFilter, KeyDetail, ReceiptKind};

use super::Context;
use crate::{
    chat::Chat,
    cli, download,
    failure::Failure,
    inbox::{self, Log},
    input,
    live::{Live, Options},
    printer::Printer,
    signals::Signals,
};

pub(super) async fn run(context: &Context, command: cli::Chat) -> Result<(), Failure> {
    if let Some(folder) = &command.files {
        download::check_folder(folder)?;
    }
    // A session of its own: others see it come, and send it the channel keys that this process lacks.
    let account = context.account(true)?;
    let key = account.key().await?; // Asked for now, not when the first message comes.
    let signals = Signals::listen()?;
    let [cursor, channel_cursor] = [Log::Inbox, Log::Channel].map(|log| log.cursor(&account.profile));
    let device_id = inbox::device_id(&account.profile)?;
    let (attach, keys) = (Some(command.status), KeyDetail::Statement);
    let filter = DirectoryFilter::default();
    let options = Options { attach, cursor: cursor?, channel_cursor: channel_cursor?, device_id, filter, keys };
    let live = Live::new(account.clone(), options);
    let input = input::open(context.global.json)?;
    let printer = Printer::new(context.global.json).above(input.above);
    let saves = command.files.map(|folder| (folder, command.max_bytes));
    let receipts = receipts(command.receipts, !context.global.json && stdout().is_terminal());
    let chat = Chat::new(account, key, live, printer)?.saving_files(saves).giving_receipts(receipts);
    let outcome = chat.run(input.lines, signals).await;
    drop(input.terminal);
    outcome
}

/// What is told to senders who ask. Only at a terminal is what comes shown to a person for certain.
fn receipts(asked: Option<cli::Receipts>, shows: bool) -> Option<ReceiptKind> {
    match asked {
        Some(cli::Receipts::None) => None,
        Some(cli::Receipts::Delivered) => Some(ReceiptKind::Delivered),
        Some(cli::Receipts::Read) => Some(ReceiptKind::Read),
        None => shows.then_some(ReceiptKind::Read),
    }
}
