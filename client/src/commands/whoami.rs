//! `socp whoami`: the profile in use; asks nobody.

use serde_json::json;

use super::Context;
use crate::failure::Failure;

pub(super) fn run(context: &Context) -> Result<(), Failure> {
    let profile = context.profile()?;
    let value = json!({
        "user": profile.full_name(),
        "profile": profile.name,
        "server": profile.server,
        "server_id": profile.server_id.to_string(),
        "fingerprint": profile.key_fingerprint.to_string(),
    });
    let text = format!(
        "{}\nprofile      {}\nserver       {}\nserver id    {}\nfingerprint  {}",
        profile.full_name(),
        profile.name,
        profile.server,
        profile.server_id,
        profile.key_fingerprint
    );
    super::print(context.global.json, &value, &text);
    Ok(())
}
