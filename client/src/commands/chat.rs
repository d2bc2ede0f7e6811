//! `socp chat`: goes online and talks.

use socp::v1::KeyDetail;

use super::Context;
use crate::{
    chat::Chat,
    cli, download,
    failure::Failure,
    inbox, input,
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
    let cursor = inbox::cursor(&account.profile)?;
    let device_id = inbox::device_id(&account.profile)?;
    let (attach, keys) = (Some(command.status), KeyDetail::Statement);
    let options = Options { attach, cursor, device_id, keys, ..Options::default() };
    let live = Live::new(account.clone(), options);
    let input = input::open(context.global.json)?;
    let printer = Printer::new(context.global.json).above(input.above);
    let saves = command.files.map(|folder| (folder, command.max_bytes));
    let chat = Chat::new(account, key, live, printer)?.saving_files(saves);
    let outcome = chat.run(input.lines, signals).await;
    drop(input.terminal);
    outcome
}
