//! The block list: servers that the operator shuts out, pinned or not. What follows is found as for any other change of who
//! is admitted (see [`super::admit`]).

use alloc::{
    format,
    string::{String, ToString},
};

use super::{
    Node,
    admit::{shown, wrong},
};
use crate::{
    id::ServerId,
    input::CallId,
    limits::BLOCKED_MAX,
    operator::v1::SetBlockedResponse,
    output::{Answer, Output, Record},
    rejection::Rejection,
    v1::Reason,
};

impl Node {
    /// The operator blocks a server, or undoes that. Rejects: USER_NOT_FOUND, STATEMENT_INVALID, TOO_MANY.
    pub(super) fn set_blocked(&mut self, call: CallId, server: &str, is_blocked: bool) {
        let result = self.block(server, is_blocked).map(Answer::BlockedSet);
        self.answer(call, result);
    }

    fn block(&mut self, server: &str, is_blocked: bool) -> Result<SetBlockedResponse, Rejection> {
        let id = ServerId::parse(server).or_else(|| self.admissions.names.bearer(server)).ok_or_else(|| {
            let message = format!("no server `{}` is known here; an id is taken of any", shown(server));
            Rejection::new(Reason::UserNotFound, message)
        })?;
        if id == self.id {
            return Err(wrong("server", "this is the server itself"));
        }
        let blocked = &mut self.admissions.blocked;
        if is_blocked && blocked.len() >= BLOCKED_MAX && !blocked.contains(&id) {
            let message = "as many servers are blocked as may be";
            return Err(Rejection::new(Reason::TooMany, message).with("limit", BLOCKED_MAX.to_string()));
        }
        let is_new = if is_blocked { blocked.insert(id) } else { blocked.remove(&id) };
        if is_new {
            self.output(Output::Store(Record::Blocked { server: id, is_blocked }));
            self.review_admissions();
        }
        Ok(SetBlockedResponse { name: self.bound_name(&id), server_id: id.to_string() })
    }

    /// The name of a server that may not be admitted; empty if it has none.
    pub(super) fn bound_name(&self, id: &ServerId) -> String {
        self.admissions.names.of(id).map_or_else(Default::default, ToString::to_string)
    }
}
