//! `socp all`: one post to everybody who is online, under a channel key of its own.

use socp::{
    rejection,
    v1::{DirectoryFilter, KeyDetail, Reason},
};

use super::{Context, list};
use crate::{
    channel_key::OwnKey,
    cli::All,
    directory::Entry,
    event::Event,
    failure::Failure,
    printer::Printer,
    sending::{self, Member},
};

pub(super) async fn run(context: &Context, command: All) -> Result<(), Failure> {
    let account = context.account(false)?;
    account.key().await?; // Asks for the passphrase before anything is dialled.
    let session = account.session().await?;
    let me = account.profile.address();
    let mut members = Vec::new();
    for user in list::users(&session, DirectoryFilter::default(), KeyDetail::Statement).await? {
        let member = Member::from(&Entry::parse(user)?);
        if member.address != me {
            members.push(member);
        }
    }
    if members.is_empty() {
        return Err(Failure::refused(rejection::name(Reason::NobodyOnline), "nobody else is online"));
    }
    let (key, _) = OwnKey::new()?.take(members.iter().map(|member| (&member.address, member.statement)))?;
    let lacking = members.clone();
    let posted = sending::post_to_all(session, account, members, lacking, key, command.text.join(" ")).await?;
    let mut printer = Printer::new(context.global.json);
    for (member, failure) in posted.refused {
        printer.print(&sending::refusal_event(&member, failure));
    }
    printer.print(&Event::Sent(posted.sent));
    Ok(())
}
