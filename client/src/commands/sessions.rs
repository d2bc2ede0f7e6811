//! `socp sessions`: the user's own sessions.

use serde_json::json;
use socp::v1::ListSessionsRequest;

use super::Context;
use crate::{failure::Failure, render::clean};

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let session = context.account(false)?.session().await?;
    let request = session.request(ListSessionsRequest {});
    for open in session.accounts().list_sessions(request).await?.into_inner().sessions {
        let value = json!({
            "session_id": open.session_id,
            "device": open.device,
            "created_unix_ms": open.created_unix_ms,
            "attached": open.attached,
            "current": open.current,
        });
        let attached = if open.attached { "online" } else { "idle" };
        let current = if open.current { "  (this one)" } else { "" };
        let text = format!("{}  {}  {attached}{current}", clean(&open.session_id), clean(&open.device));
        super::print(context.global.json, &value, &text);
    }
    Ok(())
}
