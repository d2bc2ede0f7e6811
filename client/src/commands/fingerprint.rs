//! `socp fingerprint`: keys, to be compared over another way.

use serde_json::json;

use super::Context;
use crate::{cli::Fingerprint, failure::Failure, moves, printer::Printer, sending};

pub(super) async fn run(context: &Context, command: Fingerprint) -> Result<(), Failure> {
    let Some(user) = command.user else {
        let profile = context.profile()?;
        let (user, fingerprint) = (profile.full_name(), profile.key_fingerprint.to_string());
        let value = json!({ "user": user, "fingerprint": fingerprint });
        super::print(context.global.json, &value, &format!("{fingerprint}  {user}"));
        return Ok(());
    };
    let account = context.account(false)?;
    let session = account.session().await?;
    let found = sending::look_up(&session, &account, &user).await?;
    let moved = found.moved.clone().transpose()?;
    let fingerprint = found.key.fingerprint().to_string();
    let value = json!({
        "user": found.label,
        "server_id": found.address.home.to_string(),
        "fingerprint": fingerprint,
        "online": found.online,
        "statements": found.statements,
        "moved_to": moved.as_ref().map(|moved| &moved.label),
    });
    super::print(context.global.json, &value, &format!("{fingerprint}  {}", found.label));
    if let Some(event) = moves::event(&session, &account, &found).await {
        Printer::new(context.global.json).print(&event);
    }
    Ok(())
}
