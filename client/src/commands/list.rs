//! `socp list`: who is online, page by page.

use socp::v1::{DirectoryEntry, DirectoryFilter, KeyDetail, ListUsersRequest};

use super::Context;
use crate::{
    cli::Filter,
    event::{Event, Shown},
    failure::Failure,
    printer::Printer,
    session::Session,
};

/// Pages taken: a server that never ends its list is left.
const PAGES_MAX: usize = 1_000;

pub(super) async fn run(context: &Context, command: Filter) -> Result<(), Failure> {
    let session = context.account(false)?.session().await?;
    let users = users(&session, command.to_wire(), KeyDetail::Fingerprint).await?;
    let mut printer = Printer::new(context.global.json);
    for user in &users {
        printer.print(&Event::User(Shown::from(user)));
    }
    printer.print(&Event::Listed { entries: users.len() });
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
