//! Servers that know each other, before any of them runs: ids are made first, so each start may come in any order.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    ops::Index,
    path::PathBuf,
    process,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustix::process::Signal;
use serde_json::Value;
use socp::id::ServerId;
use tempfile::TempDir;

use super::{binaries, server::Server};

/// Where one server lives, whether it runs or not.
pub struct Site {
    /// `server-a`, `server-b`, ...
    pub name: String,
    /// Its id.
    pub id: ServerId,
    /// Where clients reach it, TCP and UDP.
    pub client: SocketAddr,
    /// Where servers reach it, UDP.
    pub federation: SocketAddr,
    folder: TempDir,
}

/// Ports that one run may use.
const PORTS_MAX: usize = 2_000;

/// Ports that were free for TCP and UDP when the run began, below those that the system gives to anybody, so that nobody
/// takes one between two starts of a server.
///
/// All are tried before the first program is started: a program that is being started shares every open socket with
/// this process for a moment, and a port tried then would seem free and be taken.
pub fn free_ports() -> &'static [u16] {
    static PORTS: OnceLock<Vec<u16>> = OnceLock::new();
    PORTS.get_or_init(|| {
        let first = (process::id() as u16).wrapping_mul(61);
        let is_free = |port: &u16| {
            UdpSocket::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
                && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
        };
        let all = (0..18_000).map(|step| 12_000 + first.wrapping_add(step) % 18_000);
        all.filter(is_free).take(PORTS_MAX).collect()
    })
}

fn port() -> u16 {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    *free_ports().get(NEXT.fetch_add(1, Ordering::Relaxed)).expect("a run uses fewer ports")
}

/// A port of this machine that is free for TCP and UDP.
pub fn address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port()).into()
}

impl Site {
    /// Makes a data folder with an identity in it, which asks the server for its id.
    pub fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut command = binaries::server();
        command.args(["--json", "id", "--data"]).arg(folder.path().join("data"));
        let output = command.output().expect("socp-server runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let line: Value = serde_json::from_slice(&output.stdout).expect("`id --json` prints one object");
        let id = line["server_id"].as_str().and_then(ServerId::parse).expect("it has an id");
        Self { name: name.into(), id, client: address(), federation: address(), folder }
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("server.toml")
    }

    /// The `[[peer]]` entry by which others know this server.
    pub fn entry(&self) -> String {
        entry(&self.name, self.federation, self.id)
    }

    /// The `[[peer]]` entry by which others know this server without dialling it.
    pub fn known(&self) -> String {
        known(&self.name, self.id)
    }

    /// Writes the configuration: who it is, and `more`.
    pub fn configure(&self, more: &str) {
        let Self { name, client, federation, .. } = self;
        let text = format!(
            "name = \"{name}\"\ndata = \"data\"\nlisten = \"{client}\"\nfederation_listen = \"{federation}\"\nlog = \"debug\"\n{more}\n"
        );
        fs::write(self.config(), text).expect("the folder can be written to");
    }

    /// Starts the server; it listens on return.
    pub fn start(&self) -> Server {
        Server::start(self)
    }
}

/// A `[[peer]]` entry.
pub fn entry(name: &str, address: SocketAddr, id: ServerId) -> String {
    format!("[[peer]]\nname = \"{name}\"\naddress = \"{address}\"\nfingerprint = \"{id}\"\n")
}

/// A `[[peer]]` entry of a server that is not dialled.
pub fn known(name: &str, id: ServerId) -> String {
    format!("[[peer]]\nname = \"{name}\"\nfingerprint = \"{id}\"\n")
}

/// One server with no peers, running.
pub fn alone() -> (Site, Server) {
    let site = Site::new("server-a");
    site.configure("");
    let server = site.start();
    (site, server)
}

/// Several servers, each of which knows all others.
pub struct Mesh {
    sites: Vec<Site>,
    servers: Vec<Option<Server>>,
}

impl Mesh {
    /// Makes `server-a`, `server-b` and so on; none of them runs.
    pub fn new(size: usize) -> Self {
        let sites: Vec<Site> = ('a'..).take(size).map(|letter| Site::new(&format!("server-{letter}"))).collect();
        for site in &sites {
            let peers = sites.iter().filter(|other| other.id != site.id).map(Site::entry);
            site.configure(&peers.collect::<String>());
        }
        let servers = sites.iter().map(|_| None).collect();
        Self { sites, servers }
    }

    /// Makes servers each of which dials the one before it only; none of them runs. All know all by their ids.
    pub fn chain(size: usize) -> Self {
        let mesh = Self::new(size);
        for (index, site) in mesh.sites.iter().enumerate() {
            let others = mesh.sites.iter().enumerate().filter(|(other, _)| *other != index);
            let peers = others.map(|(other, peer)| if other + 1 == index { peer.entry() } else { peer.known() });
            site.configure(&peers.collect::<String>());
        }
        mesh
    }

    /// Makes them and starts them in this order, linked on return.
    pub fn started(order: &[usize]) -> Self {
        let mut mesh = Self::new(order.len());
        order.iter().for_each(|&index| mesh.start(index));
        mesh
    }

    /// Starts one.
    pub fn start(&mut self, index: usize) {
        self.servers[index] = Some(self.sites[index].start());
    }

    /// Waits until this server has a link to the other.
    #[track_caller]
    pub fn expect_link(&self, server: usize, other: usize) {
        self[server].log(&["peer joined", &self.sites[other].id.to_string()]);
    }

    /// Stops one as an operator does, and waits for its end.
    #[track_caller]
    pub fn stop(&mut self, index: usize) {
        self[index].program.signal(Signal::TERM);
        self.ends_well(index);
    }

    /// Waits for the end of one that was sent a signal.
    #[track_caller]
    pub fn ends_well(&mut self, index: usize) {
        self.servers[index].take().expect("it runs").ends_well();
    }

    /// Stops all at once, and waits for their ends.
    #[track_caller]
    pub fn stop_all(&mut self) {
        let running: Vec<Server> = self.servers.iter_mut().filter_map(Option::take).collect();
        running.iter().for_each(|server| server.program.signal(Signal::TERM));
        running.into_iter().for_each(Server::ends_well);
    }

    /// Kills one.
    pub fn kill(&mut self, index: usize) {
        self.servers[index].take().expect("it runs").program.kill();
    }

    /// Where one lives.
    pub fn site(&self, index: usize) -> &Site {
        &self.sites[index]
    }
}

impl Index<usize> for Mesh {
    type Output = Server;

    fn index(&self, index: usize) -> &Server {
        self.servers[index].as_ref().expect("it runs")
    }
}
