//! `socp send-file` and `socp receive-file`.

use socp::{
    id::MessageId,
    message::Message,
    v1::{ReadInboxRequest, ReceivedMessage, attach_response::Event as Arrived},
};

use super::Context;
use crate::{
    cli::{ReceiveFile, SendFile},
    download,
    event::{Event, now_unix_ns},
    failure::Failure,
    inbox::{Arrival, Offer, Opener},
    moves,
    printer::Printer,
    sending,
    session::{Account, Session},
    transfer::Progress,
    upload::{self, Source},
};

/// Pages of the inbox that are read: a server whose inbox never ends is left.
const PAGES_MAX: usize = 10_000;

pub(super) async fn send(context: &Context, command: SendFile) -> Result<(), Failure> {
    let source = Source::open(&command.path)?;
    let account = context.account(false)?;
    account.key().await?; // Asks for the passphrase before anything is dialled.
    let session = account.session().await?;
    let found = sending::look_up(&session, &account, &command.user).await?;
    moves::refuse(&session, &account, &found).await?;
    session.transport.leave().await;
    let (name, total, progress) = (source.name().to_owned(), source.bytes(), Progress::default());
    let work = upload::send(account, found, source, progress.clone());
    let sent = progress.shown(&name, total, context.global.json, work).await?;
    Printer::new(context.global.json).print(&Event::Sent(sent));
    Ok(())
}

pub(super) async fn receive(context: &Context, command: ReceiveFile) -> Result<(), Failure> {
    download::check_folder(&command.into)?;
    let id = MessageId::parse(&command.id).ok_or_else(|| {
        Failure::failed(format!("`{}` is no id of a message", command.id)).hint("`socp chat` shows it")
    })?;
    let account = context.account(false)?;
    account.key().await?; // Asks for the passphrase before anything is dialled.
    let session = account.session().await?;
    let message = find(&session, id).await?;
    let Offer { from, id, manifest } = open(&session, &account, message).await?;
    session.transport.leave().await;
    let (name, bytes, progress) = (manifest.name.clone(), manifest.bytes, Progress::default());
    let work = download::receive(account, manifest, command.into, command.max_bytes, progress.clone());
    let path = progress.shown(&name, bytes, context.global.json, work).await?;
    let path = path.display().to_string();
    Printer::new(context.global.json).print(&Event::FileSaved { from, id, path, bytes });
    Ok(())
}

/// Looks through the inbox for a message, the newest first.
async fn find(session: &Session, id: MessageId) -> Result<ReceivedMessage, Failure> {
    let is_it = |received: &ReceivedMessage| {
        let message = received.message.as_ref().and_then(|sealed| Message::parse(sealed).ok());
        message.is_some_and(|message| message.authorship.id == id && message.file.is_some())
    };
    let mut before_cursor = String::new();
    for _ in 0..PAGES_MAX {
        let request = session.request(ReadInboxRequest { before_cursor });
        let page = session.messages().read_inbox(request).await?.into_inner();
        let oldest = page.entries.first().map(|entry| entry.cursor.clone());
        for entry in page.entries.into_iter().rev() {
            if let Some(Arrived::Message(received)) = entry.event
                && is_it(&received)
            {
                return Ok(received);
            }
        }
        match oldest {
            Some(oldest) if page.has_older => before_cursor = oldest,
            _ => break,
        }
    }
    let message = format!("there is no message `{id}` with a file in the inbox");
    Err(Failure::failed(message).hint("`socp chat` shows the ids of files"))
}

async fn open(
    session: &Session,
    account: &std::sync::Arc<Account>,
    message: ReceivedMessage,
) -> Result<Offer, Failure> {
    let key = account.key().await?;
    let opener = Opener {
        session: session.clone(),
        account: account.clone(),
        key,
        shown: None,
        channel_key: None,
        unread: false,
    };
    let opened = opener.open(Arrival::Message(message), now_unix_ns()).await;
    for opened in opened {
        match (opened.file, opened.event) {
            (Some(offer), _) => return Ok(*offer),
            (None, Event::KeyChanged { message, .. }) => {
                return Err(Failure::refused(crate::trust::KEY_CHANGED, message));
            }
            _ => {}
        }
    }
    Err(Failure::refused("UNREADABLE", "the message that brings the file could not be opened"))
}
