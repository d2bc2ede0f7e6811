//! What a value of the configuration must be. Each refusal names the key, the file and what to write instead.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::Path,
};

use rustls::pki_types::DnsName;
use socp::{
    id::ServerId,
    name::ServerName,
    node::{FileRoom, InboxRoom, Pin, Settings},
};
use tracing_subscriber::EnvFilter;

use super::{ConfigError, FileLimits, InboxLimits, MetricsListen, Peer, PeerEntry, Timing};
use crate::{limits::WEB_ORIGINS_MAX, web::Origin};

/// Checks values that came from one place.
pub(super) struct Check {
    place: String,
}

impl Check {
    /// For a file with flags over it, or for flags alone.
    pub(super) fn new(path: Option<&Path>) -> Self {
        let place = path.map_or_else(|| "the flags".to_owned(), |path| format!("`{}`", path.display()));
        Self { place }
    }

    fn refuse(&self, key: &str, reason: impl Into<String>, hint: impl Into<String>) -> ConfigError {
        ConfigError::Value { key: key.into(), place: self.place.clone(), reason: reason.into(), hint: hint.into() }
    }

    pub(super) fn ports(&self, listen: SocketAddr, federation_listen: SocketAddr) -> Result<(), ConfigError> {
        let (one, other) = (listen.ip(), federation_listen.ip());
        let overlap = one == other || one.is_unspecified() || other.is_unspecified();
        if overlap && listen.port() == federation_listen.port() && listen.port() != 0 {
            let reason = format!("{federation_listen} is taken by `listen` already");
            return Err(self.refuse("federation_listen", reason, "use two ports, e.g. 7443 and 7444"));
        }
        Ok(())
    }

    pub(super) fn metrics_port(&self, listen: SocketAddr, metrics: MetricsListen) -> Result<(), ConfigError> {
        let MetricsListen::At(at) = metrics else { return Ok(()) };
        let overlap = listen.ip() == at.ip() || listen.ip().is_unspecified() || at.ip().is_unspecified();
        if overlap && listen.port() == at.port() && at.port() != 0 {
            let reason = format!("{at} is taken by `listen` already");
            return Err(self.refuse("metrics_listen", reason, "use another port, e.g. 7480, or `off`"));
        }
        Ok(())
    }

    pub(super) fn name(&self, name: Option<String>, local: bool) -> Result<ServerName, ConfigError> {
        let name = match name {
            Some(name) => name,
            None if local => "localhost".to_owned(),
            None => {
                let reason = "is not set, and the server listens beyond this machine";
                return Err(self.refuse(
                    "name",
                    reason,
                    "set it to what users are to have behind the `@`, e.g. `chat.example.org`",
                ));
            }
        };
        ServerName::parse(&name).map_err(|rejection| {
            self.refuse(
                "name",
                format!("`{name}` cannot be used: {}", rejection.message),
                "e.g. `chat.example.org` or `server-a`",
            )
        })
    }

    pub(super) fn public_names(&self, names: &[String]) -> Result<(), ConfigError> {
        match names.iter().find(|name| !is_host(name)) {
            None => Ok(()),
            Some(name) => {
                let reason = format!("`{name}` is neither a DNS name nor an address");
                Err(self.refuse(
                    "public_names",
                    reason,
                    "write names without a port, e.g. `[\"chat.example.org\", \"192.0.2.1\"]`",
                ))
            }
        }
    }

    pub(super) fn web_origins(&self, origins: &[String]) -> Result<Vec<Origin>, ConfigError> {
        if origins.len() > WEB_ORIGINS_MAX {
            let reason = format!("{} are more than {WEB_ORIGINS_MAX}", origins.len());
            return Err(self.refuse("web_origins", reason, "serve the pages from fewer origins"));
        }
        let parse = |text: &String| {
            Origin::parse(text).map_err(|reason| {
                let hint = "write it as browsers send it, e.g. `https://app.example.org` or `http://localhost:8080`";
                self.refuse("web_origins", format!("`{text}` {reason}"), hint)
            })
        };
        origins.iter().map(parse).collect()
    }

    pub(super) fn peer(&self, entry: &PeerEntry) -> Result<Peer, ConfigError> {
        let name = ServerName::parse(&entry.name).map_err(|rejection| {
            let reason = format!("`{}` cannot be used: {}", entry.name, rejection.message);
            self.refuse("peer.name", reason, "write the name that the other server has in its own configuration")
        })?;
        let id = ServerId::parse(&entry.fingerprint).ok_or_else(|| {
            let reason = format!("`{}` of peer `{name}` is no server id", entry.fingerprint);
            self.refuse("peer.fingerprint", reason, "copy the 64 digits that the other server prints at its start")
        })?;
        let is_usable = |address: &String| {
            let in_parts = address.rsplit_once(':');
            in_parts.is_some_and(|(host, port)| {
                let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
                is_host(host) && port.parse::<u16>().is_ok_and(|port| port != 0)
            })
        };
        if let Some(address) = entry.address.as_ref().filter(|address| !is_usable(address)) {
            let reason = format!("`{address}` of peer `{name}` is not `host:port`");
            return Err(self.refuse("peer.address", reason, "e.g. `chat.example.org:7444` or `[2001:db8::1]:7444`"));
        }
        let is_dialled = entry.address.is_some();
        Ok(Peer { pin: Pin { id, name, is_dialled }, address: entry.address.clone() })
    }

    pub(super) fn peers_differ(&self, peers: &[Peer], own: &ServerName) -> Result<(), ConfigError> {
        for (index, peer) in peers.iter().enumerate() {
            let Pin { id, name, .. } = &peer.pin;
            if name == own {
                let reason = format!("`{name}` is this server's own name");
                return Err(self.refuse(
                    "peer.name",
                    reason,
                    "leave this server out of its peers, or give one of the two another name",
                ));
            }
            let before = &peers[..index];
            if before.iter().any(|other| other.pin.name == *name) {
                return Err(self.refuse(
                    "peer.name",
                    format!("`{name}` stands there twice"),
                    "give each peer a name of its own",
                ));
            }
            if before.iter().any(|other| other.pin.id == *id) {
                return Err(self.refuse(
                    "peer.fingerprint",
                    format!("`{id}` stands there twice"),
                    "keep one `[[peer]]` for each server",
                ));
            }
        }
        Ok(())
    }

    /// Refuses this server's own id among the peers, which is known only once the identity is.
    pub(super) fn not_itself(&self, peers: &[Peer], own: ServerId) -> Result<(), ConfigError> {
        match peers.iter().find(|peer| peer.pin.id == own) {
            None => Ok(()),
            Some(peer) => {
                let reason = format!("peer `{}` has this server's own id", peer.pin.name);
                Err(self.refuse("peer.fingerprint", reason, "copy the id that the other server prints at its start"))
            }
        }
    }

    pub(super) fn timing(&self, timing: &Timing, settings: &mut Settings) -> Result<(), ConfigError> {
        let take = |key: &str, given: Option<u64>, into: &mut u64, range: RangeInclusive<u64>| match given {
            Some(ms) if range.contains(&ms) => {
                *into = ms;
                Ok(())
            }
            Some(ms) => {
                let key = format!("timing.{key}");
                let hint = format!("it takes {} to {} milliseconds", range.start(), range.end());
                Err(self.refuse(&key, format!("{ms} is out of range"), hint))
            }
            None => Ok(()),
        };
        take("attach_grace_ms", timing.attach_grace_ms, &mut settings.attach_grace_ms, 0..=60_000)?;
        take("link_grace_ms", timing.link_grace_ms, &mut settings.link_grace_ms, 0..=60_000)?;
        take("keep_alive_ms", timing.keep_alive_ms, &mut settings.keep_alive_ms, 50..=10_000)?;
        take("link_dead_ms", timing.link_dead_ms, &mut settings.link_dead_ms, 100..=60_000)?;
        let hold = 0..=socp::limits::GOODBYE_HOLD_MS_MAX;
        take("goodbye_hold_ms", timing.goodbye_hold_ms, &mut settings.goodbye_hold_ms, hold)?;
        take("redial_ms_max", timing.redial_ms_max, &mut settings.redial_ms_max, 50..=60_000)?;
        let (dead, alive) = (settings.link_dead_ms, settings.keep_alive_ms);
        if dead < 2 * alive {
            let reason = format!("{dead} is less than twice `timing.keep_alive_ms`, {alive}");
            let hint = "five times the keep-alive lets some get lost without harm";
            return Err(self.refuse("timing.link_dead_ms", reason, hint));
        }
        Ok(())
    }

    pub(super) fn inbox(&self, limits: &InboxLimits, room: &mut InboxRoom) -> Result<(), ConfigError> {
        let take = |key: &str, given: Option<u64>, default: u64, range: RangeInclusive<u64>| match given {
            Some(number) if !range.contains(&number) => {
                let hint = format!("it takes {} to {}", range.start(), range.end());
                Err(self.refuse(&format!("inbox.{key}"), format!("{number} is out of range"), hint))
            }
            given => Ok(given.unwrap_or(default)),
        };
        let messages_max = take("messages_max", limits.messages_max, room.entries_max as u64, 8..=1_000_000)?;
        room.entries_max = usize::try_from(messages_max).expect("it is in range");
        room.bytes_max = take("bytes_max", limits.bytes_max, room.bytes_max, 1 << 20..=1 << 40)?;
        room.days = u32::try_from(take("days", limits.days, room.days.into(), 1..=3_650)?).expect("it is in range");
        Ok(())
    }

    pub(super) fn files(&self, limits: &FileLimits, room: &mut FileRoom) -> Result<(), ConfigError> {
        let take =
            |key: &str, given: Option<u64>, default: u64, range: RangeInclusive<u64>| match given.unwrap_or(default) {
                number if range.contains(&number) => Ok(number),
                number => {
                    let hint = format!("it takes {} to {}", range.start(), range.end());
                    Err(self.refuse(&format!("files.{key}"), format!("{number} is out of range"), hint))
                }
            };
        let most = 1 << 50;
        room.file_bytes_max = take("file_bytes_max", limits.file_bytes_max, room.file_bytes_max, 1..=1 << 40)?;
        // Who raises one raises those above it, unless they say otherwise.
        let user_bytes_max = room.user_bytes_max.max(2 * room.file_bytes_max);
        room.user_bytes_max =
            take("user_bytes_max", limits.user_bytes_max, user_bytes_max, room.file_bytes_max..=most)?;
        let bytes_max = room.bytes_max.max(8 * room.user_bytes_max).min(most);
        room.bytes_max = take("bytes_max", limits.bytes_max, bytes_max, room.user_bytes_max..=most)?;
        room.days = u32::try_from(take("days", limits.days, room.days.into(), 1..=365)?).expect("it is in range");
        Ok(())
    }

    pub(super) fn log(&self, filter: Option<String>) -> Result<String, ConfigError> {
        let filter = filter.unwrap_or_else(|| "info".to_owned());
        match EnvFilter::builder().parse(&filter) {
            Ok(_) => Ok(filter),
            Err(error) => {
                let reason = format!("`{filter}` is no filter: {error}");
                Err(self.refuse("log", reason, "e.g. `info`, `debug` or `warn,socp_server=debug`"))
            }
        }
    }
}

fn is_host(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || DnsName::try_from(text).is_ok()
}
