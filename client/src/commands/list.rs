//! `socp list`: who is online, page by page.

use socp::v1::{DirectoryEntry, DirectoryFilter, KeyDetail, ListUsersRequest};

use super::Context;
use crate::{
    cli::Filter,
    event::{Event, Shown},
    failure::Failure,
    moves,
    printer::Printer,
    sending,
    session::Session,
};

/// Pages taken: a server that never ends its list is left.
const PAGES_MAX: usize = 1_000;

pub(super) async fn run(context: &Context, command: Filter) -> Result<(), Failure> {
    let account = context.account(false)?;
    let session = account.session().await?;
    let named = command.users.clone();
    let users = users(&session, command.to_wire(), KeyDetail::Fingerprint).await?;
    let mut printer = Printer::new(context.global.json);
    for user in &users {
        printer.print(&Event::User(Shown::from(user)));
    }
    printer.print(&Event::Listed { entries: users.len() });
    // Of those asked for by their whole names, and not online, some may be elsewhere now.
    let is_away = |name: &&String| name.contains('@') && !users.iter().any(|user| user.user == **name);
    for name in named.iter().filter(is_away) {
        if let Ok(found) = sending::look_up(&session, &account, name).await
            && let Some(event) = moves::event(&session, &account, &found).await
        {
            printer.print(&event);
        }
    }
    Ok(())
}

/// Everybody who is online.
pub(super) async fn users(
    session: &Session,
    filter: DirectoryFilter,
    keys: KeyDetail,
) -> Result<Vec<DirectoryEntry>, Failure> {
    let mut users = Vec::new();
    let mut page_token = String::new();
    for _ in 0..PAGES_MAX {
        let request = ListUsersRequest { filter: Some(filter.clone()), keys: keys.into(), page_size: 0, page_token };
        let page = session.directory().list_users(session.request(request)).await?.into_inner();
        users.extend(page.users);
        if page.next_page_token.is_empty() {
            return Ok(users);
        }
        page_token = page.next_page_token;
    }
    Err(Failure::failed("the server's list has no end"))
}
