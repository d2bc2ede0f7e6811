//! The configuration: one TOML file, flags over it, defaults under it; read once, checked whole before anything is touched.
//!
//! No key takes effect on a reload yet: each wants a restart. Relative paths in the file are relative to the file's folder,
//! those in flags to the working folder.

use std::{
    collections::BTreeSet,
    env, fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use socp::{
    id::ServerId,
    node::{Pin, Settings},
    v1::RegistrationPolicy,
};

use crate::{certificate::OwnFiles, web::Origin};

mod check;
mod metrics;
mod show;

pub use metrics::MetricsListen;

/// The configuration cannot be used. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration `{}`: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no TOML, or has a key or a type that is not known.
    #[error("cannot use the configuration `{}`, line {line}: {reason}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser said.
        reason: String,
    },
    /// A value is out of range or does not fit another one.
    #[error("`{key}` in {place}: {reason}")]
    Value {
        /// The key as it stands in the file.
        key: String,
        /// Where the value came from, in backticks if it is a file.
        place: String,
        /// What is wrong.
        reason: String,
        /// What to do.
        hint: String,
    },
}

impl ConfigError {
    /// What the operator can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Read { .. } => "name the file with `--config FILE`, or leave it out for the defaults".into(),
            Self::Syntax { .. } => {
                "`socp-server --help` names the keys; `--check-config` checks without starting".into()
            }
            Self::Value { hint, .. } => hint.clone(),
        }
    }
}

/// The file as written. Every key may be left out; an unknown one is an error.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The server's name, as in `alice@NAME`: 1 to 64 of `a-z 0-9 . _ -`. Default `localhost` while it listens on loopback
    /// only; otherwise it must be set. Changing it changes how users are shown, not who they are. Restart.
    pub name: Option<String>,
    /// The data folder, with the keys and the database. Default `socp-server` in `$XDG_DATA_HOME`, or in
    /// `~/.local/share`. Restart.
    pub data: Option<PathBuf>,
    /// Address and port for clients, for TCP and UDP alike. Default `127.0.0.1:7443`; port 0 takes a free one. Restart.
    pub listen: Option<SocketAddr>,
    /// Address and UDP port for other servers. Default `127.0.0.1:7444`; port 0 takes a free one. Restart.
    pub federation_listen: Option<SocketAddr>,
    /// Address and TCP port for metrics, in the text format of Prometheus at `/metrics`, or `off`. There is no password, so leave
    /// it on loopback unless something stands before it. Default `127.0.0.1:7480` if that is free; port 0 takes a free one.
    /// Restart.
    pub metrics_listen: Option<MetricsListen>,
    /// DNS names and addresses by which clients reach this server, the one to advertise first. They go into a self-made
    /// certificate, beside `localhost`, `127.0.0.1` and `::1`. Default none. Restart.
    #[serde(default)]
    pub public_names: Vec<String>,
    /// Origins of the pages that may call this server from a browser, by gRPC-Web: `https://app.example.org`, with a port
    /// unless it is the scheme's own. Default none: no page may. Restart.
    #[serde(default)]
    pub web_origins: Vec<String>,
    /// Who may register: `open`, `invite` or `closed`. Default `open` while the server listens on loopback only, otherwise
    /// `invite`. Restart.
    pub registration: Option<Registration>,
    /// Whether this server vouches for its peers, so that whoever pins it takes them, too. Default true; 64 of them at most, in
    /// the order of the file. Restart.
    pub introduce: Option<bool>,
    /// What is logged, as `tracing` filters: `info`, `debug`, `warn,socp_server=debug`. Default `info`. Restart.
    pub log: Option<String>,
    /// A certificate of the operator's own. Default: one made by the server. Restart.
    pub tls: Option<Tls>,
    /// Times. Restart.
    #[serde(default)]
    pub timing: Timing,
    /// How much the inbox of a user holds. Restart.
    #[serde(default)]
    pub inbox: InboxLimits,
    /// How much is kept of files. Restart.
    #[serde(default)]
    pub files: FileLimits,
    /// The servers to federate with. Restart.
    #[serde(default)]
    pub peer: Vec<PeerEntry>,
}

/// `[tls]`: files of the operator's own. They are read at the start; a renewed certificate wants a restart.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file: the certificate for clients, then those between it and its CA.
    pub certificate: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
}

/// `[timing]`: all in milliseconds; what is left out has the default of [`Settings`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// How long a broken attached stream keeps its user online. Default 2000: more hides longer blips and shows the dead for
    /// longer. 0 to 60000.
    pub attach_grace_ms: Option<u64>,
    /// How long a broken link keeps the peer's users shown. Default 500; 0 to 60000.
    pub link_grace_ms: Option<u64>,
    /// How often each link is told that this server lives. Default 500; 50 to 10000.
    pub keep_alive_ms: Option<u64>,
    /// A link without a keep-alive for so long is dead. Default 2500; at least twice `keep_alive_ms`, at most 60000.
    pub link_dead_ms: Option<u64>,
    /// How long this server's goodbye asks the others to hold its users when it stops, so that nobody sees a restart. Default 0:
    /// they leave at once. 0 to 10000.
    pub goodbye_hold_ms: Option<u64>,
    /// The longest delay between dials of a peer that is away. Default 1000; 50 to 60000.
    pub redial_ms_max: Option<u64>,
}

/// `[inbox]`: for each user; what is left out has the default of [`socp::node::InboxRoom`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InboxLimits {
    /// Messages in one inbox, an eighth of them unread ones from one sender. Default 10000: months of a busy person's. The oldest
    /// that all devices have make room for more, or else one more is refused to its sender. Each costs 100 bytes of memory. 8 to
    /// 1000000.
    pub messages_max: Option<u64>,
    /// Bytes of them, likewise. Default 67108864 (64 MiB); 1048576 to 1099511627776.
    pub bytes_max: Option<u64>,
    /// After how many days a message goes. Default 30: a device that was away for less reads everything. 1 to 3650.
    pub days: Option<u64>,
}

/// `[files]`: encrypted files of this server's users, which it keeps in the data folder; what is left out has the default of
/// [`socp::node::FileRoom`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileLimits {
    /// Bytes of one file before encryption, which adds 16 to each 65536. Default 2147483648 (2 GiB); 1 to 1099511627776.
    pub file_bytes_max: Option<u64>,
    /// Bytes of all files that one user has sent and that are kept. Default 4294967296 (4 GiB), or
    /// twice `file_bytes_max` where that is more; at least that, at most 1125899906842624.
    pub user_bytes_max: Option<u64>,
    /// Bytes of all files. Default 34359738368 (32 GiB), or eight times `user_bytes_max` where that is more: leave the disk room for
    /// messages. At least `user_bytes_max`, at most 1125899906842624.
    pub bytes_max: Option<u64>,
    /// After how many days a file goes, fetched or not. Default 7: a recipient who is away for a week. 1 to 365.
    pub days: Option<u64>,
}

/// `[[peer]]`: a server that may federate with this one. Of two that are to be linked both sides need an entry for the other,
/// or somebody's word on it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerEntry {
    /// The name under which it is shown, and must introduce itself by.
    pub name: String,
    /// `host:port` of its federation listener; a DNS name is looked up anew at each dial. Left out for a server that dials
    /// this one, or is reached through others.
    pub address: Option<String>,
    /// Its server id: 64 hexadecimal digits, as its start prints them. Nothing else is believed.
    pub fingerprint: String,
}

/// Who may register, as written in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    /// Anybody who reaches the server.
    Open,
    /// Whoever holds an unused invite.
    Invite,
    /// Nobody.
    Closed,
}

impl From<Registration> for RegistrationPolicy {
    fn from(registration: Registration) -> Self {
        match registration {
            Registration::Open => Self::Open,
            Registration::Invite => Self::Invite,
            Registration::Closed => Self::Closed,
        }
    }
}

/// What the command line says; wins over the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Over `name`.
    pub name: Option<String>,
    /// Over `data`.
    pub data: Option<PathBuf>,
    /// Over `listen`.
    pub listen: Option<SocketAddr>,
    /// Over `federation_listen`.
    pub federation_listen: Option<SocketAddr>,
    /// Over `metrics_listen`.
    pub metrics_listen: Option<MetricsListen>,
    /// Over `public_names`, if any is given.
    pub public_names: Vec<String>,
    /// Over `registration`.
    pub registration: Option<Registration>,
    /// Over `log`.
    pub log: Option<String>,
}

/// A peer to federate with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Id and name.
    pub pin: Pin,
    /// `host:port`, looked up at each dial.
    pub address: Option<String>,
}

/// What is in force.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from, if any.
    pub file: Option<PathBuf>,
    /// The data folder.
    pub data: PathBuf,
    /// Where clients connect, TCP and UDP.
    pub listen: SocketAddr,
    /// Where peers connect, UDP.
    pub federation_listen: SocketAddr,
    /// Where metrics can be read.
    pub metrics_listen: MetricsListen,
    /// Names for the certificate; the first one is advertised.
    pub public_names: Vec<String>,
    /// Pages of these may call from browsers.
    pub web_origins: Vec<Origin>,
    /// Filter of the log.
    pub log: String,
    /// The operator's own certificate, if any.
    pub tls: Option<OwnFiles>,
    /// The pinned peers.
    pub peers: Vec<Peer>,
    /// Name, policy, times and pins, as the node takes them.
    pub settings: Settings,
}

impl File {
    /// Reads a file. Paths in it become relative to the working folder.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut file = Self::parse(&text, path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        file.data = file.data.map(|data| folder.join(data));
        if let Some(tls) = &mut file.tls {
            tls.certificate = folder.join(&tls.certificate);
            tls.key = folder.join(&tls.key);
        }
        Ok(file)
    }

    /// Reads the text of a file; `path` is for errors only.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let before = error.span().map_or("", |span| text.get(..span.start).unwrap_or(text));
            let line = 1 + before.matches('\n').count();
            ConfigError::Syntax { path: path.to_owned(), line, reason: error.message().trim_end().to_owned() }
        })
    }
}

impl Config {
    /// Reads the file, if one is named, puts the flags over it, and checks the whole.
    pub fn load(path: Option<&Path>, flags: Flags) -> Result<Self, ConfigError> {
        let file = path.map(File::read).transpose()?.unwrap_or_default();
        Self::resolve(path, file, flags)
    }

    /// Tells which data folder is meant, for commands that need nothing else.
    pub fn data_folder(path: Option<&Path>, data: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
        match data {
            Some(data) => Ok(data),
            None => path.map(File::read).transpose()?.unwrap_or_default().data.map_or_else(default_data_folder, Ok),
        }
    }

    /// Puts flags over a file, and checks the whole.
    pub fn resolve(path: Option<&Path>, file: File, flags: Flags) -> Result<Self, ConfigError> {
        let check = check::Check::new(path);
        let data = flags.data.or(file.data).map_or_else(default_data_folder, Ok)?;
        let listen = flags.listen.or(file.listen).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 7443)));
        let federation_listen = flags
            .federation_listen
            .or(file.federation_listen)
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 7444)));
        let metrics_listen = flags.metrics_listen.or(file.metrics_listen).unwrap_or_default();
        check.ports(listen, federation_listen)?;
        check.metrics_port(listen, metrics_listen)?;
        let local = listen.ip().is_loopback() && federation_listen.ip().is_loopback();
        let name = check.name(flags.name.or(file.name), local)?;
        let public_names = if flags.public_names.is_empty() { file.public_names } else { flags.public_names };
        check.public_names(&public_names)?;
        let web_origins = check.web_origins(&file.web_origins)?;
        let peers = file.peer.iter().map(|entry| check.peer(entry)).collect::<Result<Vec<_>, _>>()?;
        check.peers_differ(&peers, &name)?;
        let registration = flags.registration.or(file.registration);
        let registration = registration.unwrap_or(if local { Registration::Open } else { Registration::Invite });
        let mut settings = Settings::new(name);
        settings.registration = registration.into();
        settings.introduces = file.introduce.unwrap_or(settings.introduces);
        settings.peers = peers.iter().map(|peer| peer.pin.clone()).collect();
        check.timing(&file.timing, &mut settings)?;
        check.inbox(&file.inbox, &mut settings.inbox)?;
        check.files(&file.files, &mut settings.files)?;
        let log = check.log(flags.log.or(file.log))?;
        let tls = file.tls.map(|Tls { certificate, key }| OwnFiles { certificate, key });
        let file = path.map(Path::to_owned);
        Ok(Self {
            file,
            data,
            listen,
            federation_listen,
            metrics_listen,
            public_names,
            web_origins,
            log,
            tls,
            peers,
            settings,
        })
    }

    /// Refuses peers that have this server's own id; to be asked once the identity is known.
    pub fn check_identity(&self, own: ServerId) -> Result<(), ConfigError> {
        check::Check::new(self.file.as_deref()).not_itself(&self.peers, own)
    }

    /// `host:port` at which clients reach a listener bound to this address: by the first public name, if there is one.
    pub fn client_reached(&self, bound: SocketAddr) -> String {
        match self.public_names.first() {
            Some(name) => host_and_port(name, bound.port()),
            None if bound.ip().is_unspecified() => host_and_port("localhost", bound.port()),
            None => bound.to_string(),
        }
    }

    /// `host:port` at which other servers reach a listener bound to this address. On loopback no public name leads there.
    pub fn federation_reached(&self, bound: SocketAddr) -> String {
        if bound.ip().is_loopback() { bound.to_string() } else { self.client_reached(bound) }
    }

    /// The names for a self-made certificate: the public ones and the address listened on.
    pub fn certificate_names(&self) -> Vec<String> {
        let address = self.listen.ip();
        let address = (!address.is_unspecified()).then(|| address.to_string());
        self.public_names.iter().cloned().chain(address).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// `host` and `port` as they stand in an address; an IPv6 address gets its brackets.
fn host_and_port(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(address) => SocketAddr::new(address, port).to_string(),
        Err(_) => format!("{host}:{port}"),
    }
}

fn default_data_folder() -> Result<PathBuf, ConfigError> {
    let set = |key| env::var_os(key).map(PathBuf::from).filter(|path| path.is_absolute());
    let share = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")));
    share.map(|share| share.join("socp-server")).ok_or_else(|| ConfigError::Value {
        key: "data".into(),
        place: "the environment".into(),
        reason: "neither `XDG_DATA_HOME` nor `HOME` says where data folders go".into(),
        hint: "name the data folder with `--data DIR`".into(),
    })
}

#[cfg(test)]
mod tests;
