//! Who may take part, as it changes: what peers bring, what this server vouches for itself, what its operator says, and
//! what follows for links and the directory.
//!
//! A server that is admitted becomes an entry beside the pins, which is taken as an origin and as a peer that dials in, and
//! is not dialled. One that is admitted no more is forgotten at once: its users leave in one revision, its links close, and
//! what it signs is ignored.

use alloc::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};

use prost::bytes::Bytes;

use super::{Node, Timer, admission::Way, history::Cause, link::Peer, names::Bound, reach::Reach};
use crate::{
    admission::{Admission, Kept},
    federation::v1::{self as wire, KeepAlive, NewcomerQuery, remove_frame},
    id::ServerId,
    input::{CallId, LinkId},
    limits::{
        ADMISSION_DAYS_MAX, ADMISSION_MS, ADMISSION_RENEW_MS, ADMISSIONS_FRAME_MAX, ADMISSIONS_PER_ISSUER_MAX, DAY_MS,
        IGNORED_ISSUERS_MAX,
    },
    mutation::{Mutation, is_on},
    name::ServerName,
    operator::v1::AdmitResponse,
    output::{Answer, Note, Output, Record, Refusal},
    rejection::Rejection,
    v1::Reason,
};

impl Node {
    /// Takes what a neighbour brings, and passes on what is new.
    pub(super) fn admissions(&mut self, link: LinkId, frame: &wire::Admissions) -> Result<(), Refusal> {
        if frame.admissions.len() > ADMISSIONS_FRAME_MAX {
            return Err(Refusal::TooMany("admissions"));
        }
        let mut rest = frame.admissions.iter().map(Admission::parse).collect::<Result<Vec<_>, _>>()?;
        let mut result = Ok(());
        loop {
            // One of them may admit the issuer of another.
            let (now, later): (Vec<_>, Vec<_>) =
                rest.into_iter().partition(|admission| self.admissions.is_issuer(&admission.issuer));
            rest = later;
            let (mut fresh, mut dropped) = (Vec::new(), Vec::new());
            for admission in now {
                result = result.and(self.take_admission(link, admission, &mut fresh, &mut dropped));
            }
            if fresh.is_empty() {
                break;
            }
            self.admissions_said(fresh, dropped, Some(link));
            self.review_admissions();
        }
        if let Some(state) = self.links.state_mut(link) {
            let most = if is_on(Mutation::IgnoredWithoutLimit) { usize::MAX } else { IGNORED_ISSUERS_MAX };
            let room = most.saturating_sub(state.ignored_issuers.len());
            state.ignored_issuers.extend(rest.iter().map(|admission| admission.issuer).take(room));
        }
        result
    }

    fn take_admission(
        &mut self,
        link: LinkId,
        admission: Admission,
        fresh: &mut Vec<Kept>,
        dropped: &mut Vec<(ServerId, ServerId)>,
    ) -> Result<(), Refusal> {
        if !self.admissions.is_news(&admission) {
            return Ok(());
        }
        admission.check(&*self.identity)?;
        let issuer = admission.issuer;
        // This server's own word comes back if an old copy of its disk is in use; whose wish it was is not known.
        let is_pinned = self.admissions.pin(&admission.subject).is_some();
        let kept = Kept { by_operator: issuer == self.id && (admission.is_revoked || !is_pinned), admission };
        match self.admissions.keep(kept.clone(), self.now.unix_ms) {
            Ok(gone) => {
                fresh.push(kept);
                dropped.extend(gone);
                Ok(())
            }
            Err(refusal) => self.blame(link, issuer, Err(refusal)),
        }
    }

    /// Stores admissions that say something new, and passes them on.
    fn admissions_said(&mut self, fresh: Vec<Kept>, dropped: Vec<(ServerId, ServerId)>, from: Option<LinkId>) {
        let signed: Vec<_> = fresh.iter().map(|kept| kept.admission.signed.clone()).collect();
        self.output(Output::Store(Record::Admissions { kept: fresh, dropped }));
        let links = self.links.all_but(from);
        links.into_iter().for_each(|link| self.send_admissions(link, signed.clone()));
    }

    fn send_admissions(&mut self, link: LinkId, admissions: Vec<wire::SignedAdmission>) {
        for some in admissions.chunks(ADMISSIONS_FRAME_MAX) {
            let kind = remove_frame::Kind::Admissions(wire::Admissions { admissions: some.to_vec() });
            self.send_remove(link, kind);
        }
    }

    /// Answers a neighbour that has begun to admit a server.
    pub(super) fn newcomer_query(&mut self, link: LinkId, query: &NewcomerQuery) -> Result<(), Refusal> {
        let id = ServerId::from_bytes(&query.server_id).ok_or(Refusal::Malformed("server_id"))?;
        if self.links.admitted_name(&id).is_none() {
            return Ok(());
        }
        if query.with_admissions {
            let by = self.admissions.by(&id, self.now.unix_ms);
            let by = by.into_iter().map(|admission| admission.signed.clone()).collect();
            self.send_admissions(link, by);
        }
        let Some(known) = self.origins.get(&id) else { return Ok(()) };
        let (position, epoch) = (known.position(id), known.origin.epoch());
        if let Some(signed) = self.neighbours.signed(&id, epoch, self.now.monotonic_ms) {
            self.send_remove(link, remove_frame::Kind::Neighbours(signed));
        }
        let keep_alive = KeepAlive { positions: Vec::from([position]), time_unix_ms: self.unix_ms() };
        self.send_remove(link, remove_frame::Kind::KeepAlive(keep_alive));
        Ok(())
    }

    /// Looks at who is admitted if that may have changed: at the time that was named, or after the clock was put back.
    pub(super) fn admissions_due(&mut self) {
        let now_unix_ms = self.now.unix_ms;
        let turned = self.admissions.admitted.turns_unix_ms.is_some_and(|turns| turns <= now_unix_ms);
        if turned || self.admissions.reviewed_unix_ms.is_none_or(|reviewed| reviewed > now_unix_ms) {
            self.review_admissions();
        }
    }

    /// Vouches for whom this server has to, finds who is admitted, and does what follows.
    pub(super) fn review_admissions(&mut self) {
        let is_first = self.admissions.reviewed_unix_ms.is_none();
        self.admissions.reviewed_unix_ms = Some(self.now.unix_ms);
        let mut bound = if is_first { self.bind_pins() } else { Vec::new() };
        let renewal = self.vouch_for_pins();
        let mut admitted = self.admissions.find(self.now.unix_ms);
        admitted.turns_unix_ms = admitted.turns_unix_ms.into_iter().chain(renewal).min();
        if let Some(turns) = admitted.turns_unix_ms {
            self.after(turns.saturating_sub(self.now.unix_ms), Timer::Admissions);
        }
        let before: BTreeSet<ServerId> = self.links.peers().collect();
        let gone: Vec<ServerId> = before.iter().filter(|id| !admitted.ways.contains_key(id)).copied().collect();
        let new: Vec<ServerId> =
            admitted.issuers.iter().filter(|id| **id != self.id && !before.contains(id)).copied().collect();
        if is_first || !gone.is_empty() || !new.is_empty() {
            self.output(Output::Admit(Arc::new(admitted.ways.keys().copied().collect())));
        }
        self.admissions.admitted = admitted;
        self.dismiss(&gone);
        for id in new {
            bound.extend(self.welcome(id));
        }
        if !bound.is_empty() {
            self.output(Output::Store(Record::Names(bound)));
        }
    }

    /// Makes the names of this server and of its pins theirs.
    fn bind_pins(&mut self) -> Vec<Bound> {
        let own = (self.id, self.settings.name.clone());
        let pins = self.admissions.pins.iter().map(|pin| (pin.id, pin.name.clone()));
        let pins: Vec<_> = [own].into_iter().chain(pins).collect();
        let mut all = Vec::new();
        for (server, name) in pins {
            let (before, bound) = self.admissions.names.bind(server, &name);
            if let Some(before) = before {
                self.note(Note::NameMoved { name, from: before, to: server });
            }
            all.extend(bound);
        }
        all
    }

    /// Signs admissions of the pins where they are missing or near their end, and takes back those that this server no longer
    /// stands for. Tells when one has to be signed anew.
    fn vouch_for_pins(&mut self) -> Option<u64> {
        let now_unix_ms = self.now.unix_ms;
        let pins: BTreeMap<ServerId, ServerName> = match self.settings.introduces {
            true => self.admissions.pinned().map(|pin| (pin.id, pin.name.clone())).collect(),
            false => BTreeMap::new(),
        };
        let own = self.admissions.by(&self.id, now_unix_ms);
        let standing = own.iter().filter(|said| !said.is_revoked).map(|said| said.subject);
        let is_wanted = |subject: &ServerId| {
            let is_operators = self.admissions.said(&self.id, subject).is_some_and(|kept| kept.by_operator);
            !self.admissions.blocked.contains(subject) && (is_operators || pins.contains_key(subject))
        };
        let unwanted: Vec<ServerId> = standing.clone().filter(|subject| !is_wanted(subject)).collect();
        let mut room = ADMISSIONS_PER_ISSUER_MAX.saturating_sub(standing.count() - unwanted.len());
        let mut fresh = Vec::new();
        for subject in unwanted {
            let Some(said) = self.admissions.said(&self.id, &subject).cloned() else { continue };
            let Admission { name, until_unix_ms, .. } = said.admission;
            fresh.push((subject, name, until_unix_ms, true));
        }
        let mut renewal = None;
        // In the order of the configuration, as many as there may be.
        let pins = self.admissions.pins.iter().filter(|pin| pins.contains_key(&pin.id));
        for pin in pins {
            let said = self.admissions.said(&self.id, &pin.id);
            let standing = said.filter(|said| !said.admission.is_revoked && said.admission.until_unix_ms > now_unix_ms);
            if said.is_some_and(|said| said.by_operator && (standing.is_some() || said.admission.is_revoked)) {
                continue;
            }
            let due = standing.map(|said| said.admission.until_unix_ms.saturating_sub(ADMISSION_RENEW_MS));
            let is_good =
                standing.is_some_and(|said| said.admission.name == pin.name && said.admission.counts(now_unix_ms));
            if let Some(due) = due.filter(|due| is_good && *due > now_unix_ms) {
                renewal = renewal.into_iter().chain([due]).min();
                continue;
            }
            if standing.is_none() {
                if room == 0 {
                    continue;
                }
                room -= 1;
            }
            let until_unix_ms = now_unix_ms.saturating_add(ADMISSION_MS);
            fresh.push((pin.id, pin.name.clone(), until_unix_ms, false));
            renewal = renewal.into_iter().chain([until_unix_ms.saturating_sub(ADMISSION_RENEW_MS)]).min();
        }
        let said = fresh.into_iter().map(|(subject, name, until_unix_ms, is_revoked)| Kept {
            admission: self.sign_admission(subject, name, until_unix_ms, is_revoked),
            by_operator: false,
        });
        let said: Vec<Kept> = said.collect();
        // Without room, as for too many that were taken back lately, it is tried again at the next occasion.
        let _ = self.say_admissions(said);
        renewal
    }

    /// Signs what this server says of another one from now on.
    fn sign_admission(&self, subject: ServerId, name: ServerName, until_unix_ms: u64, is_revoked: bool) -> Admission {
        let before = self.admissions.said(&self.id, &subject).map_or(0, |said| said.admission.serial);
        // By the clock, so that a server that lost its disk says nothing under a number that it used before.
        let serial = self.now.unix_ms.max(before.saturating_add(1));
        Admission::sign(&*self.identity, subject, name, serial, until_unix_ms, is_revoked)
    }

    /// Keeps what this server says itself, and tells it to everybody.
    fn say_admissions(&mut self, said: Vec<Kept>) -> Result<(), Refusal> {
        let (mut fresh, mut dropped, mut result) = (Vec::new(), Vec::new(), Ok(()));
        for kept in said {
            match self.admissions.keep(kept.clone(), self.now.unix_ms) {
                Ok(gone) => {
                    fresh.push(kept);
                    dropped.extend(gone);
                }
                Err(refusal) => result = Err(refusal),
            }
        }
        if !fresh.is_empty() {
            self.admissions_said(fresh, dropped, None);
        }
        result
    }

    /// Takes a server as an origin and a peer from now on.
    fn welcome(&mut self, id: ServerId) -> Option<Bound> {
        let pin = self.admissions.pin(&id).cloned();
        let (name, bound) = match (&pin, self.admissions.admitted.ways.get(&id)) {
            (Some(pin), _) => (pin.name.clone(), None),
            (None, Some(Way::Admitted { by, .. })) => {
                let by = *by;
                let claimed = self.admissions.said(&by, &id).expect("it was found by this").admission.name.clone();
                let (name, bearer, is_new) = self.admissions.names.claim(id, &claimed);
                self.note(Note::Admitted { server: id, name: name.clone(), by });
                if let Some(bearer) = bearer {
                    self.note(Note::NameTaken { name: claimed, server: id, bearer });
                }
                (name.clone(), is_new.then_some((name, id)))
            }
            (None, _) => return None,
        };
        let is_dialled = pin.is_some_and(|pin| pin.is_dialled);
        self.links.peers.insert(id, Peer::new(name, is_dialled));
        self.after(0, Timer::Dial(id));
        // What came of it so far was ignored.
        let links: Vec<LinkId> = self.links.in_use().filter(|link| self.links.peer_of(*link) != Some(id)).collect();
        for link in links {
            let with_admissions = self.links.state_mut(link).is_some_and(|state| state.ignored_issuers.remove(&id));
            let query = NewcomerQuery { server_id: Bytes::copy_from_slice(id.as_bytes()), with_admissions };
            self.send_remove(link, remove_frame::Kind::NewcomerQuery(query));
        }
        bound
    }

    /// Forgets servers that are admitted no more.
    fn dismiss(&mut self, gone: &[ServerId]) {
        if gone.is_empty() {
            return;
        }
        for id in gone {
            self.note(Note::Dismissed { server: *id });
            self.neighbours.forget(id);
            if let Some(known) = self.origins.get_mut(id) {
                known.reach = Reach::Away { need: None, after: 0 };
                self.hold_no_more(*id);
                self.refresh_all(*id, Cause::NotAdmitted);
                self.origins.remove(id);
            }
        }
        let links = self.links.links.iter().filter(|(_, state)| gone.contains(&state.peer));
        let links: Vec<LinkId> = links.map(|(link, _)| *link).collect();
        links.into_iter().for_each(|link| self.close_link(link, not_admitted()));
        for id in gone {
            self.links.peers.remove(id);
        }
        self.links_changed();
    }

    /// The operator vouches for a server. Rejects: NAME_INVALID, NAME_IN_USE, STATEMENT_INVALID, TOO_MANY.
    pub(super) fn admit(&mut self, call: CallId, name: &str, server: &str, days: u32) {
        let result = self.vouch_by_operator(name, server, days);
        self.answer(call, result.map(Answer::AdmissionMade));
    }

    fn vouch_by_operator(&mut self, name: &str, server: &str, days: u32) -> Result<AdmitResponse, Rejection> {
        let name = ServerName::parse(name)?;
        let id = ServerId::parse(server)
            .ok_or_else(|| wrong("server_id", "a server id is 64 digits, as `socp-server id` prints it there"))?;
        if id == self.id {
            return Err(wrong("server_id", "this is the server's own id"));
        }
        if !(1..=ADMISSION_DAYS_MAX).contains(&days) {
            return Err(wrong("days", format!("an admission is for 1 to {ADMISSION_DAYS_MAX} days")));
        }
        if self.admissions.blocked.contains(&id) {
            return Err(wrong("server_id", "this server is blocked here; undo that first"));
        }
        let in_use = |message| Err(Rejection::new(Reason::NameInUse, message).with("name", name.to_string()));
        if let Some(bearer) = self.admissions.names.bearer(name.as_str()).filter(|bearer| *bearer != id) {
            return in_use(format!("`{name}` is the name of server `{bearer}`"));
        }
        if let Some(known) = self.admissions.names.of(&id).filter(|known| **known != name) {
            return in_use(format!("this server is known here as `{known}`"));
        }
        let until_unix_ms = self.now.unix_ms.saturating_add(u64::from(days) * DAY_MS);
        let admission = self.sign_admission(id, name, until_unix_ms, false);
        self.say_admissions(Vec::from([Kept { admission, by_operator: true }])).map_err(|_| {
            let message = "this server vouches for as many servers as it may; take one back first";
            Rejection::new(Reason::TooMany, message).with("limit", ADMISSIONS_PER_ISSUER_MAX.to_string())
        })?;
        self.review_admissions();
        Ok(AdmitResponse { until_unix_ms: i64::try_from(until_unix_ms).unwrap_or(i64::MAX) })
    }

    /// The operator takes an admission back. Rejects: USER_NOT_FOUND.
    pub(super) fn revoke_admission(&mut self, call: CallId, server: &str) {
        let said = ServerId::parse(server).and_then(|id| self.admissions.said(&self.id, &id)).cloned();
        let said = said.map(|said| said.admission);
        let Some(said) = said.filter(|said| !said.is_revoked && said.until_unix_ms > self.now.unix_ms) else {
            let message = format!("this server has admitted no server `{}`", shown(server));
            return self.answer(call, Err(Rejection::new(Reason::UserNotFound, message)));
        };
        let admission = self.sign_admission(said.subject, said.name, said.until_unix_ms, true);
        let result = self.say_admissions(Vec::from([Kept { admission, by_operator: true }]));
        result.expect("what takes a kept admission back has its place");
        self.review_admissions();
        self.answer(call, Ok(Answer::AdmissionRevoked));
    }
}

/// Why a link to a server is closed that is not, or not any more, admitted.
pub(super) fn not_admitted() -> Rejection {
    Rejection::new(Reason::UnknownType, "this server is not admitted here")
}

pub(super) fn wrong(field: &'static str, message: impl Into<Cow<'static, str>>) -> Rejection {
    Rejection::new(Reason::StatementInvalid, message).with("field", field)
}

/// As much of what an operator typed as an answer repeats.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(2 * crate::limits::NAME_BYTES_MAX).collect()
}
