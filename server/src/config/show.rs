//! What is in force, as `--check-config` prints it: in the file's own form for people, as one object for programs.

use std::fmt;

use serde_json::{Value, json};

use super::{Config, MetricsListen};
use crate::{
    banner::{peer_entry, policy},
    web::Origin,
};

impl Config {
    /// One object with the keys of the file.
    pub fn to_json(&self) -> Value {
        let settings = &self.settings;
        let peers: Vec<Value> = self
            .peers
            .iter()
            .map(|peer| {
                let (name, fingerprint) = (peer.pin.name.as_str(), peer.pin.id.to_string());
                json!({ "name": name, "address": peer.address, "fingerprint": fingerprint })
            })
            .collect();
        json!({
            "name": settings.name.as_str(),
            "data": self.data,
            "listen": self.listen.to_string(),
            "federation_listen": self.federation_listen.to_string(),
            "metrics_listen": self.metrics_listen.to_string(),
            "public_names": self.public_names,
            "web_origins": self.web_origins.iter().map(Origin::as_str).collect::<Vec<_>>(),
            "registration": policy(settings.registration),
            "introduce": settings.introduces,
            "log": self.log,
            "tls": self.tls.as_ref().map(|tls| json!({ "certificate": tls.certificate, "key": tls.key })),
            "timing": {
                "attach_grace_ms": settings.attach_grace_ms,
                "link_grace_ms": settings.link_grace_ms,
                "keep_alive_ms": settings.keep_alive_ms,
                "link_dead_ms": settings.link_dead_ms,
                "goodbye_hold_ms": settings.goodbye_hold_ms,
                "redial_ms_max": settings.redial_ms_max,
            },
            "inbox": {
                "messages_max": settings.inbox.entries_max,
                "bytes_max": settings.inbox.bytes_max,
                "days": settings.inbox.days,
            },
            "files": {
                "file_bytes_max": settings.files.file_bytes_max,
                "user_bytes_max": settings.files.user_bytes_max,
                "bytes_max": settings.files.bytes_max,
                "days": settings.files.days,
            },
            "peer": peers,
        })
    }
}

impl fmt::Display for Config {
    /// As a file that would come to the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.settings;
        // Debug of a text is TOML's basic string for all that can stand in these values.
        writeln!(f, "name = \"{}\"", settings.name)?;
        writeln!(f, "data = {:?}", self.data.display().to_string())?;
        writeln!(f, "listen = \"{}\"", self.listen)?;
        writeln!(f, "federation_listen = \"{}\"", self.federation_listen)?;
        match self.metrics_listen {
            // Left out, since to write it would be to insist on it.
            MetricsListen::IfFree(address) => writeln!(f, "# metrics_listen = \"{address}\", if it is free")?,
            named => writeln!(f, "metrics_listen = \"{named}\"")?,
        }
        writeln!(f, "public_names = {:?}", self.public_names)?;
        writeln!(f, "web_origins = {:?}", self.web_origins.iter().map(Origin::as_str).collect::<Vec<_>>())?;
        writeln!(f, "registration = \"{}\"", policy(settings.registration))?;
        writeln!(f, "introduce = {}", settings.introduces)?;
        writeln!(f, "log = {:?}", self.log)?;
        if let Some(tls) = &self.tls {
            writeln!(f, "\n[tls]")?;
            writeln!(f, "certificate = {:?}", tls.certificate.display().to_string())?;
            writeln!(f, "key = {:?}", tls.key.display().to_string())?;
        }
        writeln!(f, "\n[timing]")?;
        writeln!(f, "attach_grace_ms = {}", settings.attach_grace_ms)?;
        writeln!(f, "link_grace_ms = {}", settings.link_grace_ms)?;
        writeln!(f, "keep_alive_ms = {}", settings.keep_alive_ms)?;
        writeln!(f, "link_dead_ms = {}", settings.link_dead_ms)?;
        writeln!(f, "goodbye_hold_ms = {}", settings.goodbye_hold_ms)?;
        writeln!(f, "redial_ms_max = {}", settings.redial_ms_max)?;
        writeln!(f, "\n[inbox]")?;
        writeln!(f, "messages_max = {}", settings.inbox.entries_max)?;
        writeln!(f, "bytes_max = {}", settings.inbox.bytes_max)?;
        writeln!(f, "days = {}", settings.inbox.days)?;
        writeln!(f, "\n[files]")?;
        writeln!(f, "file_bytes_max = {}", settings.files.file_bytes_max)?;
        writeln!(f, "user_bytes_max = {}", settings.files.user_bytes_max)?;
        writeln!(f, "bytes_max = {}", settings.files.bytes_max)?;
        writeln!(f, "days = {}", settings.files.days)?;
        self.peers
            .iter()
            .try_for_each(|peer| write!(f, "\n{}", peer_entry(&peer.pin.name, peer.address.as_deref(), peer.pin.id)))
    }
}
