//! `socp logout`: ends a session.

use socp::v1::{LogOutRequest, Reason, account_service_client::AccountServiceClient};

use super::Context;
use crate::{cli::Logout, failure::Failure, session::timed};

pub(super) async fn run(context: &Context, command: Logout) -> Result<(), Failure> {
    let account = context.account(false)?;
    if let Some(session_id) = command.session {
        let session = account.session().await?;
        session.accounts().log_out(session.request(LogOutRequest { session_id })).await?;
        eprintln!("the session is ended");
        return Ok(());
    }
    // Without a token there is nothing to end, and no reason to log in for it.
    let Some(token) = account.token() else {
        eprintln!("there is no session");
        return Ok(());
    };
    let transport = account.connect().await?.transport;
    let mut request = timed(LogOutRequest::default());
    let bearer = format!("Bearer {}", *token).parse();
    let bearer =
        bearer.map_err(|_| Failure::failed("the cached token is damaged").hint("remove the profile's file `token`"))?;
    request.metadata_mut().insert("authorization", bearer);
    match AccountServiceClient::new(transport).log_out(request).await.map_err(Failure::from) {
        Ok(_) => {}
        Err(failure) if failure.is(Reason::TokenInvalid) => {}
        Err(failure) => return Err(failure),
    }
    account.forget_token()?;
    eprintln!("logged out {}", account.profile.full_name());
    Ok(())
}
