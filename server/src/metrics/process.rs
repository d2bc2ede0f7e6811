//! What the system knows of this process: memory, processor time, descriptors.
//!
//! A number that cannot be had is left out. Counting descriptors takes some milliseconds where there are many, so this is
//! not for a task that others wait for.

use std::{fs, sync::OnceLock, time::Duration};

use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

use super::{
    families::{CPU, DESCRIPTORS, DESCRIPTORS_MAX, RESIDENT, STARTED},
    text::Text,
};

/// Adds the numbers of this process.
pub fn put(text: &mut Text) {
    let mut resident = text.family(&RESIDENT);
    if let Some(bytes) = resident_bytes() {
        resident.number(&[], bytes);
    }
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    text.one(&CPU, cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9);
    let mut descriptors = text.family(&DESCRIPTORS);
    if let Some(count) = open_descriptors() {
        descriptors.number(&[], count);
    }
    let mut most = text.family(&DESCRIPTORS_MAX);
    if let Some(limit) = getrlimit(Resource::Nofile).current {
        most.number(&[], limit);
    }
    text.one(&STARTED, started().as_secs_f64());
}

/// `VmRSS` of `/proc/self/status`, which is in KiB.
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// All but the one by which they are counted.
fn open_descriptors() -> Option<usize> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1))
}

/// When this was asked for the first time, which the start of the server does.
pub fn started() -> Duration {
    static STARTED: OnceLock<Duration> = OnceLock::new();
    *STARTED.get_or_init(|| {
        let now = clock_gettime(ClockId::Realtime);
        Duration::new(now.tv_sec.try_into().unwrap_or_default(), now.tv_nsec.try_into().unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_tells_of_this_process() {
        assert!(resident_bytes().unwrap() > 1024 * 1024);
        let before = open_descriptors().unwrap();
        let more: Vec<_> = (0..64).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        assert!(open_descriptors().unwrap() >= more.len(), "{before} were open before");
        assert!(started() <= started());
    }
}
