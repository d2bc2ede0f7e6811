//! Commands of the chat: how each is begun, and what its end changes.

use std::{path::Path, sync::Arc};

use socp::{rejection, v1::Reason};

use super::{Chat, Done};
use crate::{
    command_line::{HELP, Line},
    directory::Entry,
    event::{Event, Shown},
    failure::Failure,
    history::{self, Wanted},
    moves,
    sending::{self, Content, Member},
    session::Session,
    transfers::Recipient,
    upload::Source,
    verified::Standing,
};

impl Chat {
    pub(super) fn start(&mut self, line: &str) -> Result<(), Failure> {
        let wrong = |message| Failure { reason: "USAGE".into(), ..Failure::failed(message) };
        match Line::parse(line).map_err(wrong)? {
            Line::Empty => {}
            Line::Help => self.printer.talk(HELP),
            Line::Quit => {
                self.quits = true;
                self.lines.clear();
            }
            Line::List => self.list(),
            Line::Say { text } => {
                let nobody = || {
                    wrong("nobody is selected".into()).hint("`/tell USER TEXT` selects, `/all TEXT` posts to everybody")
                };
                let (_, user) = self.selected.clone().ok_or_else(nobody)?;
                self.tell(line, user, text)?;
            }
            Line::Tell { user, text } => self.tell(line, user, text)?,
            Line::All { text } => self.post(line, text)?,
            Line::File { user, path } => self.send_file(line, user, Path::new(&path))?,
            Line::Who { user } => self.who(line, &user)?,
            Line::History { user, messages } => self.history(line, user, messages)?,
        }
        Ok(())
    }

    pub(super) fn session(&self) -> Result<Session, Failure> {
        let waiting = || {
            Failure::unreachable("there is no connection to the server").hint("it is being made again; try in a moment")
        };
        self.live.session().ok_or_else(waiting)
    }

    fn list(&mut self) {
        let mut users: Vec<Shown> = self.live.view().users().map(|entry| (&**entry).into()).collect();
        users.sort_by(|one, other| (&one.name, &one.server).cmp(&(&other.name, &other.server)));
        let entries = users.len();
        for user in users {
            self.printer.print(&Event::User(user));
        }
        self.printer.print(&Event::Listed { entries });
    }

    fn tell(&mut self, line: &str, user: String, text: String) -> Result<(), Failure> {
        let (session, account) = (self.session()?, self.account.clone());
        let entry = self.live.view().resolve(&user)?.cloned();
        // One who just left is still meant by the bare name, and the answer is then that they are offline.
        let user = self.live.view().resolve_departed(&user).map_or(user.clone(), str::to_owned);
        self.selected = entry.as_ref().map(|entry| (entry.address.clone(), entry.wire.user.clone()));
        let content = Content::text(text, self.receipts.are_wanted());
        let job = async move {
            let (label, address, key) = match entry {
                Some(entry) => {
                    let key = sending::key_of(&session, &account, &Member::from(&*entry)).await?;
                    (entry.wire.user.clone(), entry.address.clone(), key)
                }
                None => {
                    let found = sending::look_up(&session, &account, &user).await?;
                    moves::refuse(&session, &account, &found).await?;
                    (found.label, found.address, found.key)
                }
            };
            let sent = sending::send(session, account, label, address.clone(), key, content).await?;
            Ok((address, sent))
        };
        self.job = Some((line.to_owned(), Box::pin(async { Done::Told(job.await) })));
        Ok(())
    }

    fn send_file(&mut self, line: &str, user: String, path: &Path) -> Result<(), Failure> {
        let (session, account) = (self.session()?, self.account.clone());
        let to = match self.live.view().resolve(&user)? {
            Some(entry) => Recipient::Shown(entry.wire.user.clone(), Member::from(&**entry)),
            None => Recipient::Named(self.live.view().resolve_departed(&user).map_or(user.clone(), str::to_owned)),
        };
        self.transfers.send(session, account, to, Source::open(path)?, line.to_owned())
    }

    fn post(&mut self, line: &str, text: String) -> Result<(), Failure> {
        let (session, account) = (self.session()?, self.account.clone());
        let me = account.profile.address();
        let others: Vec<&Arc<Entry>> = self.live.view().users().filter(|entry| entry.address != me).collect();
        if others.is_empty() {
            return Err(Failure::refused(rejection::name(Reason::NobodyOnline), "nobody else is online"));
        }
        let members: Vec<Member> = others.iter().map(|entry| Member::from(&***entry)).collect();
        let (key, lacking) = self.own_key.take(members.iter().map(|member| (&member.address, member.statement)))?;
        let lacking = members.iter().filter(|member| lacking.contains(&&member.address)).cloned().collect();
        let job = sending::post_to_all(session, account, members, lacking, key, text);
        self.job = Some((line.to_owned(), Box::pin(async { Done::Posted(job.await.map(Box::new)) })));
        Ok(())
    }

    fn who(&mut self, line: &str, user: &str) -> Result<(), Failure> {
        let (session, account, view) = (self.session()?, self.account.clone(), self.live.view());
        let shown = view.resolve(user)?.map(|entry| entry.wire.user.as_str());
        let user = shown.or_else(|| view.resolve_departed(user)).unwrap_or(user).to_owned();
        let job = async move {
            let found = sending::look_up(&session, &account, &user).await?;
            let moved = moves::event(&session, &account, &found).await;
            let who = Event::Who {
                server_id: found.address.home.to_string(),
                online: found.online,
                fingerprint: found.key.fingerprint().to_string(),
                statements: found.statements,
                verified: account.trust.standing(&found.address, &found.key)? == Standing::Verified,
                user: found.label,
            };
            Ok([Some(who), moved].into_iter().flatten().collect())
        };
        self.job = Some((line.to_owned(), Box::pin(async { Done::Looked(job.await) })));
        Ok(())
    }

    fn history(&mut self, line: &str, user: Option<String>, messages: Option<usize>) -> Result<(), Failure> {
        let (session, account) = (self.session()?, self.account.clone());
        let sender = match &user {
            Some(user) => self.live.view().resolve(user)?.map(|entry| entry.address.clone()),
            None => None,
        };
        let job = async move {
            let sender = match (sender, user) {
                (None, Some(user)) => Some(history::sender_named(&session, &account, &user).await?),
                (sender, _) => sender,
            };
            let messages = messages.unwrap_or(history::MESSAGES);
            history::read(&session, &account, &Wanted { sender, messages, unread: false }).await
        };
        self.job = Some((line.to_owned(), Box::pin(async { Done::Looked(job.await) })));
        Ok(())
    }

    pub(super) fn done(&mut self, done: Done) {
        let line = self.job.take().map(|(line, _)| line);
        match done {
            Done::Told(Ok((address, sent))) => {
                // The home knows it before the directory here does.
                if sent.outcome == "stored"
                    && let Some((_, user)) = self.selected.take()
                {
                    self.printer.print(&Event::RecipientOffline { user });
                } else if self.live.view().find(&address).is_some() {
                    self.selected = Some((address, sent.to.clone()));
                }
                self.printer.print(&Event::Sent(sent));
            }
            Done::Posted(Ok(posted)) => {
                for (member, statement) in &posted.wrapped {
                    self.own_key.handed_over(&posted.key, member, *statement);
                }
                for (member, failure) in posted.refused {
                    self.printer.print(&sending::refusal_event(&member, failure));
                }
                self.printer.print(&Event::Sent(posted.sent));
            }
            Done::Looked(Ok(events)) => events.iter().for_each(|event| self.printer.print(event)),
            Done::Told(Err(failure)) | Done::Posted(Err(failure)) | Done::Looked(Err(failure)) => {
                // The home knows it before the directory here does.
                if failure.is(Reason::RecipientOffline)
                    && let Some((_, user)) = self.selected.take()
                {
                    self.printer.print(&Event::RecipientOffline { user });
                }
                self.printer.print(&Event::error(failure, line));
            }
        }
    }
}
