//! `socp token`: a good session token for other programs.

use super::{Context, print_line};
use crate::failure::Failure;

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let account = context.account(false)?;
    account.session().await?;
    let token = account.token().ok_or_else(|| Failure::failed("there is no token"))?;
    print_line(&token);
    Ok(())
}
