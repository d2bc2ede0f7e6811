//! How busy the machine was, and who kept it so: processor time and memory of processes, from Linux's `/proc`.

use std::{fs, thread};

use rustix::process::{Resource, getrlimit, setrlimit};

use super::clock;
use crate::failure::Failure;

/// Ticks of processor time in a second, as Linux tells them to programs on every machine (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Descriptors that a process needs besides its sockets.
const DESCRIPTORS_BESIDE: u64 = 64;

/// Processes of a run: what more of them could open would not fit into the ports of a machine.
pub const PROCESSES_MAX: usize = 16;

/// Processor time used up to a moment, in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Used {
    at_ns: u64,
    tool: u64,
    servers: Option<u64>,
    machine: u64,
}

/// How much of the machine was used in a time, in cores.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Share {
    /// By the tool itself.
    pub tool: f64,
    /// By the servers, as far as their processes were named.
    pub servers: Option<f64>,
    /// By everything.
    pub machine: f64,
    /// Cores there are.
    pub cores: usize,
}

impl Share {
    /// The mean of some times of about one length.
    pub fn mean(shares: &[Self]) -> Self {
        let mean = |of: &dyn Fn(&Self) -> f64| shares.iter().map(of).sum::<f64>() / shares.len().max(1) as f64;
        Self {
            tool: mean(&|share| share.tool),
            servers: shares
                .first()
                .and_then(|share| share.servers)
                .map(|_| mean(&|share| share.servers.unwrap_or(0.0))),
            machine: mean(&|share| share.machine),
            cores: shares.first().map_or(0, |share| share.cores),
        }
    }
}

impl Used {
    /// Up to now. Zero where the system does not tell.
    pub fn now(servers: &[u32]) -> Self {
        Self::by(&[], servers)
    }

    /// The same, where these other processes are the tool, too.
    pub fn by(tool: &[u32], servers: &[u32]) -> Self {
        let ticks = |process: &str| {
            fs::read_to_string(format!("/proc/{process}/stat")).ok().and_then(|text| process_ticks(&text))
        };
        let others = tool.iter().filter_map(|id| ticks(&id.to_string())).sum::<u64>();
        let servers = (!servers.is_empty()).then(|| servers.iter().filter_map(|id| ticks(&id.to_string())).sum());
        let machine = fs::read_to_string("/proc/stat").ok().and_then(|text| machine_ticks(&text)).unwrap_or(0);
        Self { at_ns: clock::now_ns(), tool: ticks("self").unwrap_or(0) + others, servers, machine }
    }

    /// From then until now.
    pub fn until(self, later: Self) -> Share {
        let seconds = (later.at_ns.saturating_sub(self.at_ns) as f64 / 1e9).max(1e-3);
        let cores = |from: u64, to: u64| to.saturating_sub(from) as f64 / TICKS_PER_SECOND / seconds;
        Share {
            tool: cores(self.tool, later.tool),
            servers: self.servers.zip(later.servers).map(|(from, to)| cores(from, to)),
            machine: cores(self.machine, later.machine),
            cores: thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// User and system time of `/proc/PID/stat`; the name before may hold anything, so it is counted from its end.
fn process_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// All but idle and waiting time of the first line of `/proc/stat`; time of guests is in that of users.
fn machine_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let all: Vec<u64> = line.split_whitespace().take(8).map(|field| field.parse().ok()).collect::<Option<_>>()?;
    Some(all.iter().enumerate().filter(|(place, _)| *place != 3 && *place != 4).map(|(_, ticks)| ticks).sum())
}

/// Resident memory of a process, in KiB.
pub fn resident_kib(process: u32) -> Option<u64> {
    resident(&fs::read_to_string(format!("/proc/{process}/status")).ok()?)
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Raises the limit of open descriptors as far as the system lets it, and sees to it that so many sockets fit.
pub fn need_descriptors(sockets: usize) -> Result<(), Failure> {
    raise();
    enough(sockets as u64, getrlimit(Resource::Nofile).current)
}

/// How many processes it takes to open so many sockets of watchers, where this one has so many besides: as many as were asked for,
/// or as few as the limit of descriptors allows.
pub fn processes(sockets: usize, beside: usize, asked: Option<u8>) -> Result<usize, Failure> {
    raise();
    let limit = getrlimit(Resource::Nofile).current;
    let processes = asked.map_or_else(|| fewest(sockets as u64, beside as u64, limit), usize::from);
    let each = sockets.div_ceil(processes);
    let here = if processes == 1 { sockets + beside } else { beside };
    enough(here.max(each) as u64, limit)?;
    Ok(processes)
}

fn fewest(sockets: u64, beside: u64, limit: Option<u64>) -> usize {
    match limit.map(|limit| limit.saturating_sub(DESCRIPTORS_BESIDE)) {
        Some(room) if room < sockets + beside => {
            usize::try_from(sockets.div_ceil(room.max(1))).unwrap_or(usize::MAX).clamp(2, PROCESSES_MAX)
        }
        _ => 1,
    }
}

fn raise() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        // What cannot be raised is told below, if it matters.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

fn enough(sockets: u64, limit: Option<u64>) -> Result<(), Failure> {
    let needed = sockets + DESCRIPTORS_BESIDE;
    match limit {
        Some(limit) if limit < needed => Err(Failure::failed(format!(
            "{sockets} connections want {needed} descriptors, and a process may have {limit}"
        ))
        .hint(format!(
            "raise the limit with `ulimit -n {needed}`, as root beyond the hard one; the servers need as many; or spread watchers with `--processes`, or let them share connections with `--per-connection`"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read_as_they_are_written() {
        let stat = "42 (socp (x) y) S 1 42 42 0 -1 4194304 900 0 0 0 150 25 0 0 20 0 3 0 100 1000 200 184467";
        assert_eq!(process_ticks(stat), Some(175));
        assert_eq!(machine_ticks("cpu  10 1 5 1000 50 2 3 4 7 0\ncpu0 1 1"), Some(25));
        assert_eq!(resident("Name:\tx\nVmRSS:\t   1234 kB\n"), Some(1234));
        for text in ["", "42 (x) S 1", "cpu  a", "intr 5"] {
            assert_eq!((process_ticks(text), machine_ticks(text), resident(text)), (None, None, None), "{text}");
        }
    }

    #[test]
    fn shares_are_in_cores() {
        let from = Used { at_ns: 0, tool: 100, servers: Some(0), machine: 1_000 };
        let to = Used { at_ns: 2_000_000_000, tool: 200, servers: Some(150), machine: 1_300 };
        let share = from.until(to);
        assert_eq!((share.tool, share.servers, share.machine), (0.5, Some(0.75), 1.5));
        let mean = Share::mean(&[share, Share { tool: 1.5, servers: Some(0.25), machine: 2.5, cores: share.cores }]);
        assert_eq!((mean.tool, mean.servers, mean.machine), (1.0, Some(0.5), 2.0));
        assert_eq!(Share::mean(&[]), Share::default());
    }

    #[test]
    fn there_are_as_few_processes_as_the_limit_of_descriptors_allows() {
        assert_eq!(fewest(936, 0, Some(1_000)), 1);
        assert_eq!(fewest(926, 10, Some(1_000)), 1);
        assert_eq!(fewest(936, 1, Some(1_000)), 2, "what this one has besides does not fit with them");
        assert_eq!(fewest(2 * 936, 10, Some(1_000)), 2);
        assert_eq!(fewest(2 * 936 + 1, 10, Some(1_000)), 3);
        assert_eq!(fewest(u64::MAX / 2, 0, Some(10)), PROCESSES_MAX);
        assert_eq!(fewest(1 << 40, 1 << 40, None), 1, "there is no limit");
    }

    #[test]
    fn too_few_descriptors_are_told_with_what_to_raise() {
        assert!(enough(936, Some(1_000)).is_ok());
        assert!(enough(937, Some(1_000)).unwrap_err().hint.unwrap().contains("ulimit -n 1001"));
        assert!(enough(1 << 40, None).is_ok(), "there is no limit");
    }
}
