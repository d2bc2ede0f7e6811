//! The loop. Each step takes one input to the node and carries out what comes back.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use socp::{
    directory::Made,
    id::ServerId,
    input::{AttachmentId, CallId, CheckId, Input, LinkId, Now, Request},
    node::Node,
    output::{Answer, Note, Output},
    rejection::Rejection,
    v1,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Duration, sleep_until},
};

use super::{
    DriverError, Event, Gauges, Handle, LinkGauges, OpenLink,
    log::Log,
    tally::{Tallies, Tally, unix_us},
};
use crate::{
    attachment::Registry,
    checks::Checks,
    disk::{Disk, Failed, Read, Reports},
    federation::{Dialler, Outbox},
    files::Files,
    hub::{Age, Home, Hub},
    limits::{INPUTS_PER_WAKE_MAX, LINK_FRAMES_MAX},
    queue::Full,
    status,
    tls::Admitted,
};

/// Where inputs come from.
pub(super) struct Queues {
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) ended: mpsc::Receiver<AttachmentId>,
    pub(super) checked: mpsc::Receiver<(CheckId, bool)>,
    pub(super) reports: Reports,
}

/// By whom outputs are carried out.
pub(super) struct Carriers {
    pub(super) disk: Disk,
    pub(super) files: Files,
    pub(super) hub: Hub,
    pub(super) dialler: Dialler,
    pub(super) admitted: Admitted,
    pub(super) checks: Checks,
}

/// Who waits for an answer.
enum Waiting {
    Caller(oneshot::Sender<Result<Answer, Rejection>>),
    Stream(AttachmentId),
}

/// Whether the loop goes on.
#[derive(PartialEq, Eq)]
enum Step {
    Next,
    Stop,
}

pub(super) struct Driver {
    node: Node,
    /// Before the disk, whose threads are waited for when it is dropped, and may wait for room here.
    queues: Queues,
    shell: Carriers,
    handle: Handle,
    started: Instant,
    calls: u64,
    waiting: BTreeMap<CallId, Waiting>,
    attachments: Registry,
    links: BTreeMap<LinkId, Outbox>,
    /// What carrying out an output led to, for the node before anything else.
    consequences: VecDeque<Input>,
    drains: Vec<oneshot::Sender<()>>,
    log: Log,
    tallies: Tallies,
}

impl Driver {
    pub(super) fn new(node: Node, shell: Carriers, queues: Queues, handle: Handle) -> Self {
        Self {
            node,
            queues,
            shell,
            log: Log::new(handle.counters.clone()),
            tallies: Tallies::default(),
            handle,
            started: Instant::now(),
            calls: 0,
            waiting: BTreeMap::new(),
            attachments: Registry::default(),
            links: BTreeMap::new(),
            consequences: VecDeque::new(),
            drains: Vec::new(),
        }
    }

    /// Lets the node say what it says first.
    pub(super) fn begin(&mut self) -> Result<(), DriverError> {
        self.handle_input(Input::Tick)
    }

    /// Runs until it is stopped or the store fails, unless it did at the beginning.
    pub(super) async fn run(mut self, begun: Result<(), DriverError>) -> Result<(), DriverError> {
        let ended = match begun {
            Ok(()) => self.serve().await,
            Err(error) => Err(error),
        };
        if ended.is_err() {
            self.shell.hub.drain();
            self.attachments.end_all(&status::server_failed());
        }
        ended
    }

    async fn serve(&mut self) -> Result<(), DriverError> {
        let mut events = Vec::with_capacity(INPUTS_PER_WAKE_MAX);
        loop {
            // Before anything queued, so that no flood of inputs holds a timer up.
            let deadline = self.node.next_deadline();
            if deadline.is_some_and(|deadline| deadline <= self.now().monotonic_ms) {
                self.handle_input(Input::Tick)?;
                continue;
            }
            let deadline = deadline.map(|ms| (self.started + Duration::from_millis(ms)).into());
            tokio::select! {
                biased;
                Some(attachment) = self.queues.ended.recv() => self.stream_dropped(attachment)?,
                Some((check, valid)) = self.queues.checked.recv() => self.handle_input(Input::Checked { check, valid })?,
                Some(error) = self.queues.reports.failed.recv() => return Err(DriverError::Storage(error)),
                Ok(()) = self.queues.reports.written.changed() => {
                    let written = *self.queues.reports.written.borrow_and_update();
                    if let Some(write) = written {
                        self.handle_input(Input::Written { write })?;
                    }
                }
                Some(input) = self.queues.reports.pages.recv() => {
                    self.handle_input(input)?;
                }
                _ = self.queues.events.recv_many(&mut events, INPUTS_PER_WAKE_MAX) => {
                    for event in events.drain(..) {
                        if self.handle_event(event)? == Step::Stop {
                            return Ok(());
                        }
                    }
                }
                () = async { sleep_until(deadline.unwrap_or_else(tokio::time::Instant::now)).await }, if deadline.is_some() => {
                    self.handle_input(Input::Tick)?;
                }
            }
        }
    }

    fn now(&self) -> Now {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Now {
            monotonic_ms: ms(self.started.elapsed()),
            // A clock before 1970 is wrong anyway, and shows as such.
            unix_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, ms),
        }
    }

    fn stream_dropped(&mut self, attachment: AttachmentId) -> Result<(), DriverError> {
        if self.attachments.forget(attachment) {
            self.handle_input(Input::AttachmentEnded { attachment })?;
        }
        Ok(())
    }

    fn handle_event(&mut self, event: Event) -> Result<Step, DriverError> {
        let input = match event {
            Event::Call { request, reply } => self.new_call(Waiting::Caller(reply), request),
            Event::Attach { token, attach, attachment, events } => {
                if !self.attachments.insert(attachment, events) {
                    return Ok(Step::Next);
                }
                self.new_call(Waiting::Stream(attachment), Request::Attach { token, attachment, attach })
            }
            Event::LinkUp { link, peer, dialled, outbox } => {
                self.links.insert(link, outbox);
                Input::LinkUp { link, peer, dialled }
            }
            Event::LinkDown { link, peer, parting, unreadable } => {
                self.links.remove(&link);
                let cause = match unreadable {
                    Some(rejection) => {
                        self.log.unreadable(peer, &rejection);
                        rejection.to_string()
                    }
                    None => {
                        self.log.link_ended(peer, &parting);
                        parting.text
                    }
                };
                Input::LinkDown { link, cause }
            }
            Event::Parted { peer, parting } => {
                self.log.link_ended(peer, &parting);
                Input::Parted { peer, cause: parting.text }
            }
            Event::DialFailed { peer, cause } => {
                self.log.dial_failed(peer, &cause);
                Input::DialFailed { peer, cause }
            }
            Event::Frame { link, frame, _room } => {
                if let Some(outbox) = self.links.get(&link) {
                    self.tallies.received(outbox.peer(), &frame, outbox.round_trip());
                }
                Input::Frame { link, frame }
            }
            Event::FileStored(file) => Input::FileStored { file },
            Event::Gauges(reply) => {
                // Who asked may have given up.
                let _ = reply.send(self.gauges());
                return Ok(Step::Next);
            }
            Event::Drain(done) => {
                self.drains.push(done);
                Input::Drain
            }
            Event::Stop => return Ok(Step::Stop),
        };
        let drains = matches!(input, Input::Drain);
        self.handle_input(input)?;
        if drains {
            self.shell.hub.drain();
        }
        if self.links.is_empty() {
            for done in self.drains.drain(..) {
                // Whoever drains may have stopped waiting.
                let _ = done.send(());
            }
        }
        Ok(Step::Next)
    }

    /// How long ago by this side's clock an origin made something.
    fn age(&self, made: Made) -> Age {
        if made.origin == self.node.id() {
            return Age { home: Home::Own, passed: Duration::ZERO };
        }
        let ahead_us = self.tallies.of(&made.origin).and_then(|tally| tally.clock.ahead_us());
        let home = if ahead_us.is_some() { Home::Neighbour } else { Home::Far };
        let made_us = i64::try_from(made.unix_ms.saturating_mul(1_000)).unwrap_or(i64::MAX);
        let passed_us = unix_us().saturating_sub(made_us).saturating_add(ahead_us.unwrap_or_default());
        Age { home, passed: Duration::from_micros(u64::try_from(passed_us).unwrap_or_default()) }
    }

    fn gauges(&self) -> Gauges {
        let node = self.node.gauges();
        let links = node.peers.iter().filter_map(|peer| self.link_gauges(peer.id)).collect();
        Gauges { node, attached: self.attachments.count(), waiting: self.waiting.len(), links }
    }

    fn link_gauges(&self, peer: ServerId) -> Option<LinkGauges> {
        let tally = self.tallies.of(&peer)?;
        let open = self.links.values().rev().find(|outbox| outbox.peer() == peer).map(|outbox| {
            let (queued_frames, queued_bytes) = outbox.depth();
            OpenLink { queued_frames, queued_bytes, round_trip: outbox.round_trip() }
        });
        let Tally { received, sent, clock } = tally;
        Some(LinkGauges { peer, received: *received, sent: *sent, clock_ahead_us: clock.ahead_us(), open })
    }

    fn new_call(&mut self, waiting: Waiting, request: Request) -> Input {
        self.calls += 1;
        let call = CallId(self.calls);
        self.waiting.insert(call, waiting);
        Input::Call { call, request }
    }

    /// Takes an input to the node, carries out what it wants, and then whatever that led to.
    fn handle_input(&mut self, input: Input) -> Result<(), DriverError> {
        let (begun, mut inputs) = (Instant::now(), 0);
        self.consequences.push_back(input);
        let mut done = Ok(());
        while let (Some(input), Ok(())) = (self.consequences.pop_front(), &done) {
            inputs += 1;
            done = self.node.handle(self.now(), input).into_iter().try_for_each(|output| self.carry_out(output));
        }
        self.log.inputs(inputs, begun.elapsed());
        done
    }

    fn carry_out(&mut self, output: Output) -> Result<(), DriverError> {
        match output {
            Output::Store(record) => {
                // Without a report the disk's thread has panicked.
                let cause = |reports: &mut Reports| {
                    reports.failed.try_recv().map_or(DriverError::Panicked, DriverError::Storage)
                };
                self.shell.disk.store(record).map_err(|Failed| cause(&mut self.queues.reports))?;
            }
            Output::Write { write, record } => self.shell.disk.write(write, record),
            Output::Replay { attachment, user, after } => {
                self.read_for(attachment, Read::Entries { attachment, user, after });
            }
            Output::ReplayPosts { attachment, user, positions } => {
                self.read_for(attachment, Read::Posts { attachment, user, positions });
            }
            Output::Check { check, signatures } => self.shell.checks.check(check, signatures),
            Output::Answer { call, result } => self.answer(call, result),
            Output::Deliver { attachment, event } => self.deliver(attachment, event),
            Output::EndAttachment { attachment, rejection } => self.attachments.end(attachment, rejection),
            Output::Publish(delta) => {
                self.log.published(&delta);
                self.shell.hub.publish_aged(&delta, delta.made.map(|made| self.age(made)));
            }
            Output::Send { link, frame } => {
                let Some(outbox) = self.links.get(&link) else { return Ok(()) };
                self.tallies.sent(outbox.peer(), &frame);
                if outbox.send(frame) == Err(Full) {
                    self.log.link_overflowed();
                    let slow = Rejection::new(v1::Reason::TooMany, "too much waits to be sent on this link")
                        .with("limit", LINK_FRAMES_MAX.to_string());
                    outbox.break_off(slow);
                }
            }
            Output::DropFile(file) => self.shell.files.remove(file),
            Output::Admit(admitted) => self.shell.admitted.replace(admitted),
            Output::Dial { peer } => self.shell.dialler.dial(peer, self.handle.clone()),
            Output::CloseLink { link, rejection } => {
                if let Some(outbox) = self.links.get(&link) {
                    self.log.link_closed(outbox.peer(), &rejection);
                    outbox.close(rejection);
                }
            }
            Output::Note(note) => {
                if let Note::Dismissed { server } = note {
                    self.tallies.forget(&server);
                }
                self.log.note(&note);
            }
        }
        Ok(())
    }

    fn answer(&mut self, call: CallId, result: Result<Answer, Rejection>) {
        match (self.waiting.remove(&call), result) {
            // A caller that went away is fine.
            (Some(Waiting::Caller(reply)), result) => drop(reply.send(result)),
            (Some(Waiting::Stream(attachment)), Ok(Answer::Attached(attached))) => {
                let event = Some(v1::attach_response::Event::Attached(attached));
                self.deliver(attachment, v1::AttachResponse { event, ..v1::AttachResponse::default() });
            }
            (Some(Waiting::Stream(attachment)), Err(rejection)) => self.attachments.end(attachment, Some(rejection)),
            (Some(Waiting::Stream(_)), Ok(answer)) => unreachable!("an attach is not answered with {answer:?}"),
            (None, _) => unreachable!("the node answers each call once"),
        }
    }

    /// Has something read once the stream has taken what it was given.
    fn read_for(&self, attachment: AttachmentId, read: Read) {
        let Some(drained) = self.attachments.drained(attachment) else { return };
        let reads = self.shell.disk.reads();
        tokio::spawn(async move {
            drained.await;
            // A reader that is gone has reported why.
            let _ = reads.upgrade().map(|reads| reads.send(read));
        });
    }

    fn deliver(&mut self, attachment: AttachmentId, event: v1::AttachResponse) {
        if !self.attachments.deliver(attachment, event) {
            self.log.attachment_overflowed();
            self.consequences.push_back(Input::AttachmentEnded { attachment });
        }
    }
}
