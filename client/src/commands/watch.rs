//! `socp watch`: who comes and goes, without going online.

use socp::v1::KeyDetail;

use super::Context;
use crate::{
    cli::Filter,
    directory::Notice,
    event::Event,
    failure::Failure,
    live::{Happening, Live, Options},
    moves,
    printer::Printer,
    signals::Signals,
};

pub(super) async fn run(context: &Context, command: Filter) -> Result<(), Failure> {
    let account = context.account(false)?;
    let server_id = account.profile.server_id.to_string();
    let mut signals = Signals::listen()?;
    let mut printer = Printer::new(context.global.json);
    let filter = command.to_wire();
    let options = Options { filter, keys: KeyDetail::Fingerprint, ..Options::default() };
    let mut live = Live::new(account.clone(), options);
    let mut moves = moves::Checks::default();
    let outcome = loop {
        let happening = tokio::select! {
            () = signals.stop() => break Ok(()),
            event = moves.next() => {
                printer.print(&event);
                continue;
            }
            happening = live.next(false) => happening,
        };
        match happening {
            Err(failure) => break Err(failure),
            Ok(Happening::Watching(transport)) => {
                let event = Event::Watching { transport: transport.to_string(), server_id: server_id.clone() };
                printer.print(&event);
            }
            Ok(Happening::Directory(notice, unix_ns)) => {
                printer.print_at(&(&notice).into(), unix_ns);
                if let (Notice::Removed { entry, destination: Some(to), .. }, Some(session)) = (notice, live.session())
                {
                    moves.begin(session, account.clone(), entry, to);
                }
            }
            Ok(Happening::Reloading(failure)) => printer.print(&Event::Reloading { reason: failure.reason }),
            Ok(Happening::Lost(failure, retry)) => {
                let retry_ms = u64::try_from(retry.as_millis()).unwrap_or(u64::MAX);
                printer.print(&Event::Disconnected { reason: failure.reason, message: failure.message, retry_ms });
            }
            Ok(Happening::Attached(..) | Happening::Arrived(..) | Happening::Missed(_) | Happening::PostsMissed(_)) => {
            }
        }
    };
    live.leave().await;
    outcome
}
