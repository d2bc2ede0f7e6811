//! The operator's socket: a Unix socket in the data folder, and the commands that ask through it.
//!
//! Whoever may open the folder is the operator; there is no token. The service itself is [`crate::rpc::operator_routes`].

mod admission;
mod explain;
mod peers;
mod text;

use std::{
    fs,
    future::Future,
    io::{self, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::stream;
use serde_json::json;
use socp::operator::v1::{
    Account, AdmitRequest, CreateInviteRequest, ExplainRequest, ListAccountsRequest, ListPeersRequest,
    RevokeAdmissionRequest, SetBlockedRequest, SetDisabledRequest, operator_service_client::OperatorServiceClient,
};
use time::OffsetDateTime;
use tokio::net::UnixListener;
use tonic::{
    Status,
    service::Routes,
    transport::{Channel, Endpoint, Server},
};
use tonic_types::StatusExt as _;

/// How long the running server may take to answer a command.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// A command could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The socket cannot be made.
    #[error("cannot make the operator's socket `{}`: {source}", .path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nobody answers on the socket.
    #[error("no socp-server answers on `{}`: {reason}", .path.display())]
    Nobody {
        /// The socket.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The running server refused; nothing was changed.
    #[error("{}", told(.0))]
    Refused(Box<Status>),
    /// The answer cannot be printed.
    #[error("cannot print the answer: {0}")]
    Print(#[from] io::Error),
}

impl OperatorError {
    /// What the operator can do about it, if anything.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Bind { .. } => {
                Some("a socket's path has at most 107 bytes: choose a data folder with a shorter path".into())
            }
            Self::Nobody { .. } => Some(
                "start the server, or name its data folder with `--data DIR` or `--config FILE`, as its own user"
                    .into(),
            ),
            Self::Refused(status) if status.code() == tonic::Code::NotFound => {
                Some("`socp-server users` lists the users of this server, `socp-server peers` the other servers".into())
            }
            Self::Refused(status) => {
                let details = status.get_error_details();
                let info = details.error_info()?;
                if let Some(candidates) = info.metadata.get("candidates") {
                    return Some(format!("name one of them: {}", candidates.replace(',', ", ")));
                }
                (info.reason == "TOO_MANY").then(|| "`socp-server peers` lists them".into())
            }
            Self::Print(_) => None,
        }
    }
}

/// Makes the socket, for the owner only. One left by a server that was killed makes way: the folder is this process's.
pub fn bind(path: &Path) -> Result<UnixListener, OperatorError> {
    let made = || -> io::Result<UnixListener> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    made().map_err(|source| OperatorError::Bind { path: path.to_owned(), source })
}

/// Serves the operator until `shutdown`, and removes the socket.
pub async fn serve(listener: UnixListener, routes: Routes, shutdown: impl Future<Output = ()>) {
    let path = listener.local_addr().ok().and_then(|address| address.as_pathname().map(Path::to_owned));
    let incoming = stream::unfold(listener, |listener| async {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    });
    let served = Server::builder().add_routes(routes).serve_with_incoming_shutdown(incoming, shutdown).await;
    if let Err(error) = served {
        tracing::error!(%error, "the operator's socket failed");
    }
    // One that stays behind does no harm: the next start replaces it.
    let _ = path.map(fs::remove_file);
}

/// What the operator asks of the running server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Make an invite.
    Invite,
    /// List the users.
    Users,
    /// Disable or enable a user.
    SetDisabled {
        /// The bare name.
        name: String,
        /// Which of the two.
        disabled: bool,
    },
    /// List the other servers.
    Peers,
    /// Tell why a user is shown as online, offline or unreachable.
    Explain {
        /// As typed: `name` or `name@server`.
        user: String,
    },
    /// Vouch for another server.
    Admit {
        /// Its name.
        name: String,
        /// Its id.
        server_id: String,
        /// For how many days.
        days: u32,
    },
    /// Take an admission back.
    Revoke {
        /// The server's id.
        server_id: String,
    },
    /// Block a server, or undo that.
    SetBlocked {
        /// Its name here, or its id.
        server: String,
        /// Which of the two.
        blocked: bool,
    },
}

/// Asks, and prints the answer to `out`: for people, or one JSON object per line.
pub async fn ask(socket: &Path, ask: Ask, json: bool, out: &mut impl Write) -> Result<(), OperatorError> {
    let mut client = connect(socket).await?;
    let refused = |status| OperatorError::Refused(Box::new(status));
    match ask {
        Ask::Invite => {
            let invite = client.create_invite(CreateInviteRequest {}).await.map_err(refused)?.into_inner().invite;
            if json { writeln!(out, "{}", json!({ "invite": invite }))? } else { writeln!(out, "{invite}")? }
        }
        Ask::Users => {
            let accounts = client.list_accounts(ListAccountsRequest {}).await.map_err(refused)?.into_inner().accounts;
            if json { print_json(&accounts, out)? } else { print_table(&accounts, out)? }
        }
        Ask::SetDisabled { name, disabled } => {
            let request = SetDisabledRequest { name: name.clone(), disabled };
            client.set_disabled(request).await.map_err(refused)?;
            let done = if disabled { "disabled" } else { "enabled" };
            if json {
                writeln!(out, "{}", json!({ "name": name, "disabled": disabled }))?
            } else {
                writeln!(out, "{done} `{name}`")?
            }
        }
        Ask::Peers => {
            let peers = client.list_peers(ListPeersRequest {}).await.map_err(refused)?.into_inner().peers;
            if json { peers::print_json(&peers, out)? } else { peers::print_table(&peers, out)? }
        }
        Ask::Explain { user } => {
            let explained = client.explain(ExplainRequest { user }).await.map_err(refused)?.into_inner();
            if json { explain::print_json(&explained, out)? } else { explain::print_text(&explained, out)? }
        }
        Ask::Admit { name, server_id, days } => {
            let request = AdmitRequest { name: name.clone(), server_id: server_id.clone(), days };
            let until_unix_ms = client.admit(request).await.map_err(refused)?.into_inner().until_unix_ms;
            admission::print_admitted(&name, &server_id, until_unix_ms, json, out)?;
        }
        Ask::Revoke { server_id } => {
            let request = RevokeAdmissionRequest { server_id: server_id.clone() };
            client.revoke_admission(request).await.map_err(refused)?;
            admission::print_revoked(&server_id, json, out)?;
        }
        Ask::SetBlocked { server, blocked } => {
            let response =
                client.set_blocked(SetBlockedRequest { server, blocked }).await.map_err(refused)?.into_inner();
            admission::print_blocked(&response, blocked, json, out)?;
        }
    }
    Ok(())
}

async fn connect(socket: &Path) -> Result<OperatorServiceClient<Channel>, OperatorError> {
    let nobody = |reason: String| OperatorError::Nobody { path: socket.to_owned(), reason };
    let path = socket.to_str().ok_or_else(|| nobody("the path is not UTF-8".into()))?;
    let endpoint = Endpoint::from_shared(format!("unix:{path}")).map_err(|error| nobody(error.to_string()))?;
    let channel = endpoint.timeout(ANSWER_TIME_MAX).connect().await.map_err(|error| nobody(innermost(&error)))?;
    Ok(OperatorServiceClient::new(channel))
}

fn told(status: &Status) -> &str {
    if status.message().is_empty() { status.code().description() } else { status.message() }
}

fn innermost(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}

fn print_json(accounts: &[Account], out: &mut impl Write) -> io::Result<()> {
    accounts.iter().try_for_each(|account| {
        let line = json!({
            "name": account.name,
            "display_name": account.display_name,
            "key_fingerprint": account.key_fingerprint,
            "created_unix_ms": account.created_unix_ms,
            "disabled": account.disabled,
            "online": account.online,
            "sessions": account.sessions,
            "moved_to": (!account.moved_to.is_empty()).then_some(&account.moved_to),
        });
        writeln!(out, "{line}")
    })
}

fn print_table(accounts: &[Account], out: &mut impl Write) -> io::Result<()> {
    let width = accounts.iter().map(|account| account.name.len()).max().unwrap_or(0).max(4);
    writeln!(out, "{:width$}  {:8}  {:8}  {:10}  KEY", "NAME", "STATE", "SESSIONS", "REGISTERED")?;
    accounts.iter().try_for_each(|account| {
        let state = match account {
            Account { disabled: true, .. } => "disabled",
            Account { moved_to, .. } if !moved_to.is_empty() => "moved",
            Account { online: true, .. } => "online",
            _ => "offline",
        };
        let created = OffsetDateTime::from_unix_timestamp(account.created_unix_ms / 1_000);
        let created = created.map_or_else(|_| "?".to_owned(), |time| time.date().to_string());
        let Account { name, sessions, key_fingerprint, .. } = account;
        writeln!(out, "{name:width$}  {state:8}  {sessions:8}  {created:10}  {key_fingerprint}")
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn account() -> Account {
        Account {
            name: "alice".into(),
            key_fingerprint: "00ff".into(),
            display_name: String::new(),
            created_unix_ms: 1_700_000_000_000,
            disabled: false,
            online: true,
            sessions: 2,
            moved_to: String::new(),
        }
    }

    #[tokio::test]
    async fn the_socket_is_the_owners_and_replaces_one_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("operator.sock");
        drop(bind(&path).unwrap());
        let _listener = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn without_a_server_the_error_names_the_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("operator.sock");
        let error = ask(&path, Ask::Users, false, &mut Vec::new()).await.unwrap_err();
        assert!(matches!(error, OperatorError::Nobody { .. }), "{error}");
        assert!(error.to_string().contains("operator.sock"), "{error}");
        assert!(error.hint().unwrap().contains("--data"));
    }

    #[test]
    fn users_are_printed_one_to_a_line() {
        let mut table = Vec::new();
        print_table(&[account()], &mut table).unwrap();
        let table = String::from_utf8(table).unwrap();
        assert_eq!(table.lines().nth(1).unwrap(), "alice  online           2  2023-11-14  00ff");
        let mut table = Vec::new();
        let moved = Account { moved_to: "alice@server-b".into(), online: false, ..account() };
        print_table(&[moved], &mut table).unwrap();
        assert!(String::from_utf8(table).unwrap().contains("alice  moved "));
        let mut lines = Vec::new();
        print_json(&[account(), account()], &mut lines).unwrap();
        let lines = String::from_utf8(lines).unwrap();
        assert_eq!(lines.lines().count(), 2);
        let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
        assert_eq!(first["sessions"], 2);
    }
}
