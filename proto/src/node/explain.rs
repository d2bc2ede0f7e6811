//! Why a user is shown as online, offline or unreachable, for the operator: read from what the node knows, and from the
//! [`History`](super::history::History) for what was before. Nothing is decided by it.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};

use super::{
    Node,
    directory::Known,
    history::{Cause, Past, What},
    reach::Reach as Shown,
    user::not_found,
};
use crate::{
    input::CallId,
    limits::EXPLAINED_CHANGES_MAX,
    message::Address,
    operator::v1::{
        self, ChangeCause, ChangeKind, ExplainResponse, HomeState, OwnSession, Presence, PresenceChange, Reach, Word,
    },
    output::Answer,
    rejection::Rejection,
};

impl Node {
    pub(super) fn explain(&mut self, call: CallId, text: &str) {
        let result = self.resolve_known(text).map(|address| Answer::Explained(self.explained(&address).into()));
        self.answer(call, result);
    }

    /// Which user is meant: of a bare name one registered here, one whom a home calls online even if the home is not shown
    /// at present, or one whose past is remembered. Whether a user of another home exists is not known here.
    fn resolve_known(&self, text: &str) -> Result<Address, Rejection> {
        let remembered = self.history.homes_of(text);
        let address = self.resolve_among(text, |address| {
            let origin = self.origin(&address.home);
            origin.is_some_and(|origin| origin.view(&address.user).is_some()) || remembered.contains(&address.home)
        })?;
        let is_nobody = address.home == self.id && self.accounts.find(&address.user).is_none();
        if is_nobody { Err(not_found(text)) } else { Ok(address) }
    }

    fn explained(&self, address: &Address) -> ExplainResponse {
        let home = &address.home;
        let known = self.origins.get(home);
        let (reach, next_hop) = self.reach(home);
        let (epoch, position, told_position) = self.progress_of(home);
        let (home_state, grace_until_ms, needed_position) = match known.map(|known| (known.has_ended(), known.reach)) {
            None if self.links.admitted_name(home).is_none() => (HomeState::NotAdmitted, None, None),
            None => (HomeState::Unheard, None, None),
            Some((true, _)) if known.is_some_and(Known::is_contradicted) => (HomeState::Contradicted, None, None),
            Some((true, _)) => (HomeState::Ended, None, None),
            Some((false, Shown::Shown)) => (HomeState::Shown, None, None),
            Some((false, Shown::Grace { until_ms })) => (HomeState::Grace, Some(until_ms), None),
            Some((false, Shown::Away { need: None, .. })) if reach == Reach::Unreachable => {
                (HomeState::Away, None, None)
            }
            Some((false, Shown::Away { need, .. })) => (HomeState::Returning, None, need),
        };
        let held_ms = known.and_then(|known| known.held.until_ms(&address.user));
        let (home_state, grace_until_ms) =
            if held_ms.is_some() { (HomeState::Held, held_ms) } else { (home_state, grace_until_ms) };
        let is_shown = known.is_some_and(|known| known.is_shown());
        let presence = match self.directory.entry(address) {
            Some(_) => Presence::Online,
            None if is_shown => Presence::Offline,
            None => Presence::Unreachable,
        };
        let mut removals = self.history.of(address).filter(|past| matches!(past.what, What::Removed | What::Moved));
        let changes = self.history.of(address).take(EXPLAINED_CHANGES_MAX);
        let server = self.name_of(home);
        ExplainResponse {
            user: alloc::format!("{}@{server}", address.user),
            server_id: home.to_string(),
            presence: presence.into(),
            reach: reach.into(),
            next_hop,
            home_state: home_state.into(),
            grace_until_unix_ms: self.unix_at(grace_until_ms),
            needed_position: needed_position.unwrap_or_default(),
            epoch,
            position,
            told_position,
            word: self.word(address),
            sessions: if *home == self.id { self.own_sessions(address) } else { Vec::new() },
            last_removal: removals.next().map(|past| self.change(past)),
            changes: changes.map(|past| self.change(past)).collect(),
            forgotten_unix_ms: self.unix_at(self.history.forgotten_ms()),
            moved_to: self.moved_to(address),
        }
    }

    /// The home's latest word on a user, if it has one, whether the home is shown or not.
    fn word(&self, address: &Address) -> Option<Word> {
        let origin = self.origin(&address.home)?;
        let (batch, is_held) = origin.word(&address.user)?;
        let advert = origin.view(&address.user);
        let heard = self.history.of(address).filter(|past| past.epoch == origin.epoch());
        let mut heard = heard.filter_map(|past| match past.cause {
            Cause::Batch { number, from } if number == batch => Some((from, past.at_ms)),
            Cause::Snapshot { position, from } if position >= batch => Some((from, past.at_ms)),
            _ => None,
        });
        let (from, at_ms) = heard.next().map_or((None, None), |(from, at_ms)| (from, Some(at_ms)));
        Some(Word {
            online: advert.is_some(),
            held: is_held,
            batch,
            online_since: advert.map_or(0, |advert| advert.online_since),
            sessions: advert.map_or(0, |advert| advert.sessions),
            heard_from: from.map_or_else(String::new, |from| self.name_of(&from)),
            heard_unix_ms: self.unix_at(at_ms),
        })
    }

    fn own_sessions(&self, address: &Address) -> Vec<OwnSession> {
        let sessions = self.sessions.of(address.user.as_str()).map(|session| OwnSession {
            session_id: session.id.to_string(),
            created_unix_ms: i64::try_from(session.created_unix_ms).unwrap_or(i64::MAX),
            attached: session.attachment().is_some(),
            grace_until_unix_ms: self.unix_at(session.grace_until_ms()),
        });
        let mut sessions: Vec<_> = sessions.collect();
        sessions.sort_by(|one, other| {
            (one.created_unix_ms, &one.session_id).cmp(&(other.created_unix_ms, &other.session_id))
        });
        sessions
    }

    fn change(&self, past: &Past) -> PresenceChange {
        let (cause, batch, from) = match past.cause {
            Cause::Batch { number, from } => (ChangeCause::Batch, number, from),
            Cause::Snapshot { position, from } => (ChangeCause::Snapshot, position, from),
            Cause::Unreachable => (ChangeCause::Unreachable, 0, None),
            Cause::Goodbye { from } => (ChangeCause::Goodbye, 0, from),
            Cause::NewEpoch => (ChangeCause::NewEpoch, 0, None),
            Cause::NotAdmitted => (ChangeCause::NotAdmitted, 0, None),
            Cause::Reached => (ChangeCause::Reached, 0, None),
            Cause::NotBack => (ChangeCause::NotBack, 0, None),
            Cause::Contradiction { number, from } => (ChangeCause::Contradiction, number, from),
        };
        let kind = match past.what {
            What::Added => ChangeKind::Added,
            What::Updated => ChangeKind::Updated,
            What::Removed => ChangeKind::Removed,
            What::Moved => ChangeKind::Moved,
        };
        v1::PresenceChange {
            time_unix_ms: self.unix_at(Some(past.at_ms)),
            kind: kind.into(),
            cause: cause.into(),
            batch,
            epoch: past.epoch.number,
            from: from.map_or_else(String::new, |from| self.name_of(&from)),
        }
    }
}
