//! What a start prints once it listens: how clients, other servers and grpcurl reach it, ready to paste.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_json::json;
use socp::{id::ServerId, name::ServerName, v1::RegistrationPolicy};

use crate::metrics::Place;

/// A server that listens. Displayed, it is the text for people; [`Banner::json`] is the line for programs.
#[derive(Clone, Debug)]
pub struct Banner {
    /// Its name.
    pub name: ServerName,
    /// Its id.
    pub server_id: ServerId,
    /// Where clients connect, as bound.
    pub client: SocketAddr,
    /// Where peers connect, as bound.
    pub federation: SocketAddr,
    /// Where metrics can be read.
    pub metrics: Place,
    /// `host:port` at which clients reach it.
    pub client_reached: String,
    /// `host:port` at which peers reach it.
    pub federation_reached: String,
    /// The data folder.
    pub data: PathBuf,
    /// The CA's certificate, if the server made its own.
    pub ca: Option<PathBuf>,
    /// The operator's socket.
    pub operator: PathBuf,
    /// Who may register.
    pub registration: RegistrationPolicy,
    /// The first invite, if one was made at this start. Secret: printed, never logged.
    pub invite: Option<String>,
    /// Whether this start made the identity.
    pub first_start: bool,
}

impl Banner {
    /// One line: the event `listening`, with the ports that were taken.
    pub fn json(&self) -> String {
        json!({
            "event": "listening",
            "name": self.name.as_str(),
            "server_id": self.server_id.to_string(),
            "client": self.client.to_string(),
            "federation": self.federation.to_string(),
            "metrics": if let Place::At(address) = self.metrics { Some(address.to_string()) } else { None },
            "data": self.data,
            "ca": self.ca,
            "operator": self.operator,
            "registration": policy(self.registration),
            "invite": self.invite,
        })
        .to_string()
    }

    fn register_line(&self) -> String {
        let invite = match (&self.invite, self.registration) {
            (Some(invite), _) => format!(" --invite {invite}"),
            (None, RegistrationPolicy::Invite) => " --invite CODE".to_owned(),
            (None, _) => String::new(),
        };
        format!("socp register NAME --server {} --server-id {}{invite}", self.client_reached, self.server_id)
    }
}

/// The word for a policy, as the configuration has it.
pub fn policy(policy: RegistrationPolicy) -> &'static str {
    match policy {
        RegistrationPolicy::Open => "open",
        RegistrationPolicy::Invite => "invite",
        RegistrationPolicy::Closed => "closed",
        RegistrationPolicy::Unspecified => "unspecified",
    }
}

/// A `[[peer]]` entry for the configuration of another server.
pub fn peer_entry(name: &ServerName, address: Option<&str>, id: ServerId) -> String {
    let address = address.map(|address| format!("address = \"{address}\"\n")).unwrap_or_default();
    format!("[[peer]]\nname = \"{name}\"\n{address}fingerprint = \"{id}\"\n")
}

impl fmt::Display for Banner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let client = &self.client_reached;
        let verb = if self.first_start { "is new, and listens" } else { "listens" };
        writeln!(f, "socp-server {}: `{}` {verb}\n", env!("CARGO_PKG_VERSION"), self.name)?;
        writeln!(f, "  server id     {}", self.server_id)?;
        writeln!(f, "  clients       {} (TCP and UDP)", self.client)?;
        writeln!(f, "  servers       {} (UDP)", self.federation)?;
        match self.metrics {
            Place::At(address) => writeln!(f, "  metrics       http://{address}/metrics")?,
            Place::Off => writeln!(f, "  metrics       off")?,
            Place::Taken(address) => {
                writeln!(f, "  metrics       off, since {address} cannot be had; name another with `metrics_listen`")?;
            }
        }
        writeln!(f, "  registration  {}", policy(self.registration))?;
        writeln!(f, "  data folder   {}", self.data.display())?;
        match self.registration {
            RegistrationPolicy::Closed => {}
            RegistrationPolicy::Invite if self.invite.is_none() => {
                writeln!(
                    f,
                    "\nTo register a user, with an invite from `socp-server invite --data {}`:",
                    shell(&self.data)
                )?;
                writeln!(f, "  {}", self.register_line())?;
            }
            _ => {
                writeln!(f, "\nTo register a user:")?;
                writeln!(f, "  {}", self.register_line())?;
            }
        }
        writeln!(f, "\nTo federate, in the configuration of the other server:")?;
        let entry = peer_entry(&self.name, Some(&self.federation_reached), self.server_id);
        entry.lines().try_for_each(|line| writeln!(f, "  {line}"))?;
        writeln!(f, "\nTo look at it with grpcurl:")?;
        let trust = self.ca.as_ref().map_or_else(String::new, |ca| format!("-cacert {} ", shell(ca)));
        let call = |flags: &str, rest: &str| format!("  grpcurl {trust}{flags}{client} {rest}");
        writeln!(f, "{}", call("", "list"))?;
        writeln!(f, "{}", call("", "describe socp.v1.DirectoryService"))?;
        writeln!(f, "{}", call("", "socp.v1.AccountService/GetServerInfo"))?;
        writeln!(f, "{}", call("", "grpc.health.v1.Health/Check"))?;
        let list = "-H \"authorization: Bearer $(socp token)\" -d '{\"keys\": \"KEY_DETAIL_FINGERPRINT\"}' ";
        writeln!(f, "{}", call(list, "socp.v1.DirectoryService/ListUsers"))
    }
}

/// A path as it can be pasted into a shell.
fn shell(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |character: char| character.is_ascii_alphanumeric() || "/._-+:@%".contains(character);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn banner() -> Banner {
        Banner {
            name: "server-a".parse().unwrap(),
            server_id: ServerId::of_key(&[1; 32]),
            client: "127.0.0.1:7443".parse().unwrap(),
            federation: "127.0.0.1:7444".parse().unwrap(),
            metrics: Place::At("127.0.0.1:7480".parse().unwrap()),
            client_reached: "127.0.0.1:7443".into(),
            federation_reached: "127.0.0.1:7444".into(),
            data: "/tmp/a b".into(),
            ca: Some("/tmp/a b/ca.pem".into()),
            operator: "/tmp/a b/operator.sock".into(),
            registration: RegistrationPolicy::Open,
            invite: None,
            first_start: false,
        }
    }

    #[test]
    fn the_register_line_can_be_pasted() {
        let open = banner();
        let line = format!("  socp register NAME --server 127.0.0.1:7443 --server-id {}\n", open.server_id);
        assert!(open.to_string().contains(&line));
        let invited = Banner { registration: RegistrationPolicy::Invite, invite: Some("abcd".into()), ..banner() };
        assert!(invited.to_string().contains(" --invite abcd\n"));
        let closed = Banner { registration: RegistrationPolicy::Closed, ..banner() };
        assert!(!closed.to_string().contains("socp register"));
    }

    #[test]
    fn a_start_says_where_metrics_are_or_why_not() {
        let at = |metrics| Banner { metrics, ..banner() }.to_string();
        let address = "127.0.0.1:7480".parse().unwrap();
        assert!(at(Place::At(address)).contains("  metrics       http://127.0.0.1:7480/metrics\n"));
        assert!(at(Place::Off).contains("  metrics       off\n"));
        let taken = at(Place::Taken(address));
        assert!(taken.contains("127.0.0.1:7480 cannot be had") && taken.contains("`metrics_listen`"), "{taken}");
    }

    #[test]
    fn paths_are_quoted_where_a_shell_needs_it() {
        assert!(banner().to_string().contains("grpcurl -cacert '/tmp/a b/ca.pem' 127.0.0.1:7443 list"));
        assert_eq!(shell(Path::new("/tmp/it's")), r"'/tmp/it'\''s'");
    }

    #[test]
    fn what_is_printed_is_how_others_reach_it() {
        let public = Banner {
            client_reached: "chat.example.org:7443".into(),
            federation_reached: "chat.example.org:7444".into(),
            ca: None,
            ..banner()
        };
        let text = public.to_string();
        assert!(text.contains("--server chat.example.org:7443"));
        assert!(text.contains("address = \"chat.example.org:7444\""));
        assert!(text.contains("grpcurl chat.example.org:7443 list"));
    }

    #[test]
    fn the_peer_entry_is_what_a_configuration_takes() {
        let entry = peer_entry(&"server-a".parse().unwrap(), Some("127.0.0.1:7444"), ServerId::of_key(&[1; 32]));
        let file = crate::config::File::parse(&entry, Path::new("server.toml")).unwrap();
        assert_eq!(file.peer[0].name, "server-a");
    }

    #[test]
    fn the_line_for_programs_has_the_ports() {
        let line: serde_json::Value = serde_json::from_str(&banner().json()).unwrap();
        assert_eq!(line["event"], "listening");
        assert_eq!(line["client"], "127.0.0.1:7443");
        assert_eq!(line["federation"], "127.0.0.1:7444");
        assert_eq!(line["metrics"], "127.0.0.1:7480");
        assert!(!banner().json().contains('\n'));
    }
}
