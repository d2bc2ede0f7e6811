//! The chat: one loop over what is typed, what happens, what is being sent and what is being opened.
//!
//! Commands are carried out one after the other, and arrivals are opened one after the other, so that both keep
//! their order; neither waits for the other. All state is here and in [`Live`].

mod command;
mod receipts;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use socp::{
    message::Address,
    v1::{Attached, ReceiptKind},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use self::receipts::Giving;
use crate::{
    channel_key::{OthersKeys, OwnKey},
    command_line::Line,
    directory::Notice,
    event::{Event, Sent, now_unix_ns},
    failure::Failure,
    inbox::{self, Arrival, Log, Opened, Opener, Seen, known_channel_key},
    live::{Happening, Live},
    moves,
    printer::Printer,
    private_key::PrivateKey,
    sending::{self, Member, Posted},
    session::{Account, Session},
    sighting::Sightings,
    signals::Signals,
    transfers::Transfers,
    trust,
};

/// The reason given when one's own key is another one by now.
pub const OWN_KEY_RENEWED: &str = "OWN_KEY_RENEWED";

/// Commands read and not yet carried out.
const COMMANDS_MAX: usize = 64;

/// Arrivals read and not yet opened; beyond it they stay with the server.
const ARRIVALS_MAX: usize = 256;

/// How long commands that were piped in may still take after the end of input.
const FINISH_TIME_MAX: Duration = Duration::from_secs(30);

type Job = Pin<Box<dyn Future<Output = Done> + Send>>;
type Opening = Pin<Box<dyn Future<Output = Vec<Opened>> + Send>>;

/// What arrived and is not opened yet.
struct Waiting {
    arrival: Arrival,
    /// Its place.
    cursor: String,
    unix_ns: u64,
    /// Whether it came while this device was away.
    unread: bool,
}

/// What came of a command.
enum Done {
    Told(Result<(Address, Sent), Failure>),
    Posted(Result<Box<Posted>, Failure>),
    Looked(Result<Vec<Event>, Failure>),
}

/// One chat.
pub struct Chat {
    account: Arc<Account>,
    key: Arc<PrivateKey>,
    live: Live,
    printer: Printer,
    own_key: OwnKey,
    others_keys: OthersKeys,
    seen: Seen,
    /// Of whom it was told that their key is not the one that was compared.
    lapsed: BTreeSet<Address>,
    sightings: Sightings,
    moves: moves::Checks,
    transfers: Transfers,
    receipts: Giving,
    /// Where files are saved that come, and how large each may be.
    saves: Option<(PathBuf, u64)>,
    /// The user told last.
    selected: Option<(Address, String)>,
    lines: VecDeque<String>,
    /// The command under way, as it was typed.
    job: Option<(String, Job)>,
    arrivals: VecDeque<Waiting>,
    /// Up to here the inbox holds what came while this device was away.
    unread_up_to: Option<String>,
    opening: Option<Opening>,
    /// Where that stands which is being opened.
    opening_place: Option<(Log, String)>,
    /// Where that stands which was shown last, until it is in the profile.
    shown: BTreeMap<Log, String>,
    /// When to end at the latest, once there is no more input.
    finish_by: Option<Instant>,
    quits: bool,
}

enum Turn {
    Line(Option<String>),
    Happened(Box<Result<Happening, Failure>>),
    Done(Done),
    Opened(Vec<Opened>),
    Contradiction(Address, Failure),
    Moved(Event),
    Transferred(Event),
    ReceiptsDue,
    Stop,
}

impl Chat {
    /// Makes a chat that begins when it is run.
    pub fn new(account: Arc<Account>, key: Arc<PrivateKey>, live: Live, printer: Printer) -> Result<Self, Failure> {
        Ok(Self {
            sightings: Sightings::start(account.clone())?,
            moves: moves::Checks::default(),
            transfers: Transfers::default(),
            receipts: Giving::default(),
            saves: None,
            account,
            key,
            live,
            printer,
            own_key: OwnKey::new()?,
            others_keys: OthersKeys::default(),
            seen: Seen::default(),
            lapsed: BTreeSet::new(),
            selected: None,
            lines: VecDeque::new(),
            job: None,
            arrivals: VecDeque::new(),
            unread_up_to: None,
            opening: None,
            opening_place: None,
            shown: BTreeMap::new(),
            finish_by: None,
            quits: false,
        })
    }

    /// Saves files that come, in this folder and up to this size each.
    #[must_use]
    pub fn saving_files(mut self, saves: Option<(PathBuf, u64)>) -> Self {
        self.saves = saves;
        self
    }

    /// Gives receipts of this kind to senders who ask, and asks for some; `None` for neither.
    #[must_use]
    pub fn giving_receipts(mut self, kind: Option<ReceiptKind>) -> Self {
        self.receipts = Giving::new(kind);
        self
    }

    /// Runs until the user quits, the input ends, a signal comes, or nothing can be done any more.
    pub async fn run(mut self, mut input: mpsc::Receiver<String>, mut signals: Signals) -> Result<(), Failure> {
        let outcome = loop {
            self.start_next();
            let idle = self.job.is_none() && self.lines.is_empty() && self.transfers.is_empty();
            let overdue = self.finish_by.is_some_and(|deadline| deadline <= Instant::now());
            if self.quits && self.job.is_none() || self.finish_by.is_some() && idle || overdue {
                break Ok(());
            }
            match self.turn(&mut input, &mut signals).await {
                Turn::Line(Some(line)) => {
                    // Before the view is complete commands wait, but nobody need wait to leave.
                    self.quits |= !self.live.view().is_synced() && Line::parse(&line) == Ok(Line::Quit);
                    self.lines.push_back(line);
                }
                Turn::Line(None) => self.finish_by = Some(Instant::now() + FINISH_TIME_MAX),
                Turn::Happened(happened) => match *happened {
                    Ok(happening) => {
                        let renewed = match &happening {
                            Happening::Directory(notice, _) => self.check_own_key(notice),
                            _ => Ok(()),
                        };
                        self.happened(happening);
                        if let Err(failure) = renewed {
                            break Err(failure);
                        }
                    }
                    Err(failure) => break Err(failure),
                },
                Turn::Done(done) => self.done(done),
                Turn::Opened(opened) => self.opened(opened),
                Turn::Contradiction(user, failure) => self.printer.print(&sending::refusal_event(&user, failure)),
                Turn::ReceiptsDue => self.send_receipts(),
                Turn::Moved(event) | Turn::Transferred(event) => self.printer.print(&event),
                Turn::Stop => break Ok(()),
            }
        };
        if let Err(failure) = &outcome {
            self.printer.print_json(&Event::error(failure.clone(), None));
        }
        self.keep_cursors();
        self.send_last_receipts().await;
        let asked_unix_ns = now_unix_ns();
        self.live.leave().await;
        self.printer.print(&Event::Detached { asked_unix_ns });
        outcome
    }

    async fn turn(&mut self, input: &mut mpsc::Receiver<String>, signals: &mut Signals) -> Turn {
        let reads = self.finish_by.is_none() && !self.quits && self.lines.len() < COMMANDS_MAX;
        let deadline = self.finish_by;
        let job = async {
            match &mut self.job {
                Some((_, job)) => job.await,
                None => future::pending().await,
            }
        };
        let opening = async {
            match &mut self.opening {
                Some(opening) => opening.await,
                None => future::pending().await,
            }
        };
        let overdue = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => future::pending().await,
            }
        };
        tokio::select! {
            () = signals.stop() => Turn::Stop,
            () = overdue => Turn::Stop,
            opened = opening => Turn::Opened(opened),
            done = job => Turn::Done(done),
            happened = self.live.next(self.arrivals.len() < ARRIVALS_MAX) => Turn::Happened(Box::new(happened)),
            Some((user, failure)) = self.sightings.next() => Turn::Contradiction(user, failure),
            event = self.moves.next() => Turn::Moved(event),
            event = self.transfers.next() => Turn::Transferred(event),
            () = self.receipts.due() => Turn::ReceiptsDue,
            line = input.recv(), if reads => Turn::Line(line),
        }
    }

    /// Starts what can be started: the next command once the view is complete, the next arrival once there is a session.
    fn start_next(&mut self) {
        while self.job.is_none() && self.live.view().is_synced() {
            let Some(line) = self.lines.pop_front() else { break };
            if let Err(failure) = self.start(&line) {
                self.printer.print(&Event::error(failure, Some(line)));
            }
        }
        if self.opening.is_none()
            && let Some(session) = self.live.session()
            && let Some(waiting) = self.arrivals.pop_front()
        {
            self.open(session, waiting);
        }
        if self.opening.is_none() && self.arrivals.is_empty() {
            self.keep_cursors();
        }
    }

    /// Puts the cursors of what was shown into the profile. What cannot be noted is shown again in the next run.
    fn keep_cursors(&mut self) {
        for (log, cursor) in std::mem::take(&mut self.shown) {
            if let Err(failure) = log.keep_cursor(&self.account.profile, &cursor) {
                self.printer.print(&Event::error(failure, None));
            } else if log == Log::Inbox
                && let Some(session) = self.live.session()
            {
                tokio::spawn(inbox::acknowledge(session, cursor));
            }
        }
    }

    /// What was opened last, or needed no opening, was shown.
    fn was_shown(&mut self) {
        self.shown.extend(self.opening_place.take());
    }

    fn happened(&mut self, happening: Happening) {
        match happening {
            Happening::Attached(attached, transport, asked_unix_ns) => {
                let server_id = self.account.profile.server_id.to_string();
                let Attached { user, session_id, newest_cursor, unread, .. } = attached;
                let transport = transport.to_string();
                self.printer.print(&Event::Attached { user, session_id, transport, server_id, asked_unix_ns });
                if unread > 0 {
                    self.printer.print(&Event::Unread { messages: unread });
                    self.unread_up_to = Some(newest_cursor);
                }
            }
            Happening::Watching(_) => {}
            Happening::Directory(notice, unix_ns) => self.noticed(&notice, unix_ns),
            Happening::Arrived(arrival, cursor, unix_ns) => {
                let unread = arrival.log() == Log::Inbox && self.unread_up_to.is_some();
                if unread && self.unread_up_to.as_ref() == Some(&cursor) {
                    self.unread_up_to = None;
                }
                self.arrivals.push_back(Waiting { arrival, cursor, unix_ns, unread });
            }
            Happening::Missed(missed) => self.printer.print(&Event::Gap { missed }),
            Happening::PostsMissed(missed) => self.printer.print(&Event::ChannelGap { missed }),
            Happening::Reloading(failure) => self.printer.print(&Event::Reloading { reason: failure.reason }),
            Happening::Lost(failure, retry) => {
                let retry_ms = u64::try_from(retry.as_millis()).unwrap_or(u64::MAX);
                let (reason, message) = (failure.reason, failure.message);
                self.printer.print(&Event::Disconnected { reason, message, retry_ms });
            }
        }
    }

    /// Fails if the directory shows another key of one's own: what comes is sealed to that, and what is sent would be refused.
    fn check_own_key(&self, notice: &Notice) -> Result<(), Failure> {
        let (Notice::Added { entry, .. } | Notice::Updated { entry, .. }) = notice else { return Ok(()) };
        let profile = &self.account.profile;
        if entry.address != profile.address() || entry.wire.key_fingerprint == profile.key_fingerprint.to_string() {
            return Ok(());
        }
        let message = format!("YOUR KEY WAS RENEWED: now shown {}", entry.wire.key_fingerprint);
        Err(Failure::refused(OWN_KEY_RENEWED, message).hint(
            "if that was you on this device, start again; if on another, `socp export` it there and `socp import` it here, with \
             `--profile OTHER`; if it was not you, somebody has your key: tell your server's operator",
        ))
    }

    fn noticed(&mut self, notice: &Notice, unix_ns: u64) {
        self.printer.print_at(&notice.into(), unix_ns);
        match notice {
            Notice::Added { entry, .. } | Notice::Updated { entry, .. } => {
                self.own_key.member_changed(&entry.address);
                self.sightings.note(entry);
            }
            Notice::Removed { entry, destination, .. } => {
                match destination {
                    Some(_) => self.own_key.member_left(&entry.address),
                    None => self.own_key.member_changed(&entry.address),
                }
                if let (Some(destination), Some(session)) = (destination, self.live.session()) {
                    self.moves.begin(session, self.account.clone(), entry.clone(), destination.clone());
                }
                if let Some((_, user)) = self.selected.take_if(|(address, _)| *address == entry.address) {
                    self.printer.print_at(&Event::RecipientOffline { user }, unix_ns);
                }
            }
            Notice::Synced { .. } | Notice::Bookmark { .. } => {}
        }
    }

    fn open(&mut self, session: Session, waiting: Waiting) {
        let Waiting { arrival, cursor, unix_ns, unread } = waiting;
        self.opening_place = Some((arrival.log(), cursor));
        let authorship = arrival.authorship();
        if authorship.as_ref().is_some_and(|authorship| self.seen.contains(authorship)) {
            return self.was_shown();
        }
        let shown = authorship.and_then(|authorship| {
            let entry = self.live.view().find(&authorship.sender)?;
            Some((entry.wire.user.clone(), Member::from(&**entry)))
        });
        let opener = Opener {
            session,
            account: self.account.clone(),
            key: self.key.clone(),
            shown,
            channel_key: known_channel_key(&arrival, &self.others_keys),
            unread,
        };
        self.opening = Some(Box::pin(opener.open(arrival, unix_ns)));
    }

    fn opened(&mut self, opened: Vec<Opened>) {
        self.opening = None;
        for opened in opened {
            if let Some((sender, id)) = opened.seen {
                if opened.wants_receipt {
                    self.give_receipt(sender.clone(), id);
                }
                self.seen.insert((sender, id));
            }
            if let Some((sender, signer, id, key)) = opened.channel_key {
                self.others_keys.keep(&sender, signer, id, key);
            }
            if let Some(user) = opened.lapsed
                && self.lapsed.insert(user.clone())
            {
                let (user, message) = (format!("{}@{}", user.user, user.home), trust::lapsed(&user));
                self.printer.print(&Event::VerificationLapsed { user, message });
            }
            self.printer.print_at(&opened.event, opened.unix_ns);
            if let (Some(offer), Some((folder, bytes_max))) = (opened.file, self.saves.clone()) {
                let begun = self.transfers.receive(self.account.clone(), *offer, folder, bytes_max);
                if let Err(failure) = begun {
                    self.printer.print(&Event::error(failure, None));
                }
            }
        }
        self.was_shown();
    }
}
