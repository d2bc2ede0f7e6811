//! Which servers a run drives, which of them have the users who act and which those who are told, and how they are looked at.

use std::path::PathBuf;

use clap::Args;
use socp::id::ServerId;

use super::{memory::Memory, users::Place};
use crate::failure::Failure;

/// The servers that are driven, and how they are looked at.
#[derive(Args, Clone, Debug)]
pub struct Servers {
    /// Where a server is; once for each, and after each its id.
    #[arg(long = "server", value_name = "HOST:PORT", required = true)]
    pub servers: Vec<String>,
    /// The id of a server, its pin: 64 hexadecimal digits. In the order of `--server`.
    #[arg(long = "server-id", value_name = "HEX", required = true)]
    pub ids: Vec<String>,
    /// Which servers have the users who act, counted from 1; the first if not said.
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    pub users_at: Vec<usize>,
    /// Which servers have those who are told; all others if not said, or the same if there are no others.
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    pub watchers_at: Vec<usize>,
    /// The process of a server on this machine, to tell how busy it was; once for each.
    #[arg(long = "server-pid", value_name = "PID")]
    pub pids: Vec<u32>,
    /// Where a server tells its metrics, to read its memory there; once for each.
    #[arg(long = "server-metrics", value_name = "HOST:PORT")]
    pub metrics: Vec<String>,
    /// Writes the percentiles of the times as a picture.
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
}

impl Servers {
    /// Connects to each, and checks who is there.
    pub async fn find(&self) -> Result<Vec<Place>, Failure> {
        let mut places = Vec::new();
        for (server, id) in self.pinned()? {
            places.push(Place::find(server, id).await?);
        }
        Ok(places)
    }

    /// Where the memory of a server can be read, counted from 0: in its metrics, if it was said where they are, or by its process.
    pub fn memory(&self, server: usize) -> Option<Memory> {
        let metrics = self.metrics.get(server).map(|address| Memory::Metrics(address.clone()));
        metrics.or_else(|| self.pids.get(server).map(|process| Memory::Process(*process)))
    }

    fn pinned(&self) -> Result<Vec<(&str, ServerId)>, Failure> {
        if self.servers.len() != self.ids.len() {
            return Err(Failure::failed(format!("{} servers have {} ids", self.servers.len(), self.ids.len()))
                .hint("say `--server HOST:PORT --server-id HEX` for each; a server prints its id when it starts"));
        }
        let pinned = self.servers.iter().zip(&self.ids).map(|(server, id)| {
            let parsed = ServerId::parse(&id.to_ascii_lowercase());
            let parsed = parsed.ok_or_else(|| Failure::failed(format!("`{id}` is not a server id")))?;
            Ok((&**server, parsed))
        });
        pinned.collect()
    }

    /// Those that have the users who act, and those that have the ones who are told.
    pub fn roles<'a, T>(&self, places: &'a [T]) -> Result<(Vec<&'a T>, Vec<&'a T>), Failure> {
        let pick = |numbers: &[usize]| {
            let pick = |number: &usize| {
                number.checked_sub(1).and_then(|place| places.get(place)).ok_or_else(|| {
                    Failure::failed(format!("there is no server {number}"))
                        .hint(format!("servers are counted from 1 to {} in the order of `--server`", places.len()))
                })
            };
            numbers.iter().map(pick).collect::<Result<Vec<_>, _>>()
        };
        let acting = if self.users_at.is_empty() { vec![1] } else { self.users_at.clone() };
        let mut told = self.watchers_at.clone();
        if told.is_empty() {
            told = (1..=places.len()).filter(|number| !acting.contains(number)).collect();
        }
        if told.is_empty() {
            told.clone_from(&acting);
        }
        Ok((pick(&acting)?, pick(&told)?))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::cli::tests::parse, *};

    #[test]
    fn each_server_wants_an_id() {
        let mut servers = parse("").unwrap().servers;
        assert_eq!(servers.pinned().unwrap().len(), 1);
        servers.servers.push("b:1".into());
        assert_eq!(servers.pinned().unwrap_err().message, "2 servers have 1 ids");
        servers.ids.push("f0".into());
        assert!(servers.pinned().unwrap_err().message.contains("`f0` is not a server id"));
    }

    #[test]
    fn the_memory_of_a_server_is_read_in_its_metrics_rather_than_by_its_process() {
        let servers = parse("--server-pid 7 --server-pid 8 --server-metrics m:1").unwrap().servers;
        let memory = [0, 1, 2].map(|server| servers.memory(server));
        assert_eq!(memory, [Some(Memory::Metrics("m:1".into())), Some(Memory::Process(8)), None]);
    }

    #[test]
    fn the_first_server_has_the_users_and_the_others_the_watchers_unless_said() {
        let roles = |arguments: &str, places: &[usize]| {
            let (acting, told) = parse(arguments).unwrap().servers.roles(places).map_err(|failure| failure.message)?;
            Ok::<_, String>((acting.into_iter().copied().collect(), told.into_iter().copied().collect()))
        };
        assert_eq!(roles("", &[1]), Ok((vec![1], vec![1])));
        assert_eq!(roles("", &[1, 2, 3]), Ok((vec![1], vec![2, 3])));
        assert_eq!(roles("--users-at 3", &[1, 2, 3]), Ok((vec![3], vec![1, 2])));
        assert_eq!(roles("--users-at 1,2 --watchers-at 2", &[1, 2]), Ok((vec![1, 2], vec![2])));
        assert_eq!(roles("--users-at 0", &[1]), Err("there is no server 0".into()));
        assert_eq!(roles("--watchers-at 2", &[1]), Err("there is no server 2".into()));
    }
}
