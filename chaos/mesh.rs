//! Five servers in a partial mesh, each in a namespace of its own: `server-a` to `server-e`.

use std::collections::{BTreeMap, BTreeSet};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    harness::{mesh::Site, server, server::Server},
    network::{self, SERVERS},
};

/// Who is linked with whom: a ring, and one more across it, so that any one server may go and the others stay connected.
/// The first of each dials; so does the second, unless it is one of `ONE_DIALS`.
pub const LINKS: [(usize, usize); 6] = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (1, 3)];

/// Links that one side only dials.
const ONE_DIALS: [(usize, usize); 2] = [(4, 0), (1, 3)];

/// Times of all servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settings {
    /// As they come.
    Default,
    /// As README.md says for operators whose network is good.
    Tight,
}

impl Settings {
    /// What they are called in the table of figures.
    pub fn text(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Tight => "tight",
        }
    }

    fn lines(self) -> &'static str {
        match self {
            Self::Default => "",
            Self::Tight => "[timing]\nkeep_alive_ms = 100\nlink_dead_ms = 500\nlink_grace_ms = 100\n",
        }
    }
}

/// All servers, running or not.
pub struct Mesh {
    sites: Vec<Site>,
    servers: Vec<Option<Server>>,
}

impl Mesh {
    /// Makes and starts them.
    pub fn start(settings: Settings) -> Self {
        let sites: Vec<Site> = (0..SERVERS).map(site).collect();
        for (index, site) in sites.iter().enumerate() {
            let others = (0..SERVERS).filter(|&other| other != index);
            let peers =
                others.map(|other| if dials(index, other) { sites[other].entry() } else { sites[other].known() });
            let peers: String = peers.collect();
            site.configure(&format!("registration = \"open\"\n{}{peers}", settings.lines()));
        }
        let mut mesh = Self { sites, servers: (0..SERVERS).map(|_| None).collect() };
        (0..SERVERS).for_each(|index| mesh.start_one(index));
        mesh
    }

    /// Starts one; it listens on return.
    pub fn start_one(&mut self, index: usize) {
        let site = &self.sites[index];
        let command = network::inside(index, &server::command(site));
        self.servers[index] = Some(Server::start_by(site, command));
    }

    /// Kills one without a word.
    pub fn kill(&mut self, index: usize) {
        self.servers[index].take().expect("it runs").program.kill();
    }

    /// Sends a signal to one.
    pub fn signal(&self, index: usize, signal: Signal) {
        self.server(index).program.signal(signal);
    }

    /// Waits for the end of one that was told to end.
    pub fn ends_well(&mut self, index: usize) {
        self.servers[index].take().expect("it runs").ends_well();
    }

    /// One that runs.
    pub fn server(&self, index: usize) -> &Server {
        self.servers[index].as_ref().expect("it runs")
    }

    /// Where one lives.
    pub fn site(&self, index: usize) -> &Site {
        &self.sites[index]
    }

    /// Since when each link stands, Unix milliseconds, by the word of both ends; the pairs have the smaller number first.
    /// A link of which only one end knows is not there. Servers that do not answer have none.
    pub fn links(&self, of: &[usize]) -> BTreeMap<(usize, usize), u64> {
        let mut told: BTreeMap<(usize, usize), Vec<u64>> = BTreeMap::new();
        for &index in of {
            for peer in self.server(index).asked(&["peers"]) {
                let other = self.sites.iter().position(|site| peer["name"] == *site.name);
                let other = other.expect("only these are pinned");
                if let (Some("linked"), Some(since)) = (peer["reach"].as_str(), peer["linked_unix_ms"].as_u64()) {
                    told.entry((index.min(other), index.max(other))).or_default().push(since);
                }
            }
        }
        let both = told.into_iter().filter(|(_, since)| since.len() == 2);
        both.map(|(pair, since)| (pair, since.into_iter().max().expect("there are two"))).collect()
    }

    /// What one server says of another to its operator.
    pub fn seen(&self, index: usize, other: usize) -> Value {
        let peers = self.server(index).asked(&["peers"]).into_iter();
        let mut found = peers.filter(|peer| peer["name"] == *self.sites[other].name);
        found.next().expect("every pinned server is listed")
    }

    /// The log of each server that runs, for people who read a failure.
    pub fn logs(&self) -> impl Iterator<Item = (&str, String)> {
        let running = self.sites.iter().zip(&self.servers);
        running.filter_map(|(site, server)| Some((&*site.name, server.as_ref()?.program.log())))
    }
}

/// All links, as pairs with the smaller number first.
pub fn pairs() -> BTreeSet<(usize, usize)> {
    LINKS.iter().map(|&(a, b)| (a.min(b), a.max(b))).collect()
}

/// Whether one is linked with the other.
pub fn are_linked(one: usize, other: usize) -> bool {
    pairs().contains(&(one.min(other), one.max(other)))
}

fn dials(one: usize, other: usize) -> bool {
    LINKS.contains(&(one, other)) || (LINKS.contains(&(other, one)) && !ONE_DIALS.contains(&(other, one)))
}

fn site(index: usize) -> Site {
    let mut site = Site::new(&format!("server-{}", network::letter(index)));
    (site.client, site.federation) = (network::client(index), network::federation(index));
    site
}
