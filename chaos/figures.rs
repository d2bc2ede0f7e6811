//! The table that `chaos/run` prints at its end, a line for each thing that was measured or counted.

use std::{env, fs::OpenOptions, io::Write as _, time::Duration};

use crate::form::{Bound, Form};

fn print(line: &str) {
    println!("  {line}");
    let path = env::var_os("SOCP_CHAOS_FIGURES").expect("`chaos/run` says where the figures go");
    let mut file = OpenOptions::new().append(true).open(path).expect("the file of figures is there");
    writeln!(file, "{line}").expect("the file of figures can be written to");
}

/// Of these times, the one that so many per cent do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
}

/// Prints the spread of some times, and holds it against the bound.
#[track_caller]
pub fn times(what: &str, mut times: Vec<Duration>, bound: Option<Bound>) {
    assert!(!times.is_empty(), "{what}: nothing was measured");
    times.sort_unstable();
    let [p50, p99, max] = [50, 99, 100].map(|percent| percentile(&times, percent).as_millis());
    let form = Form::asked();
    let limit = bound.map(|bound| form.bound(bound));
    let judged = limit.map_or("not judged".into(), |limit| format!("p99 at most {} ms", limit.as_millis()));
    print(&format!("{what:<87} n {:>3}  p50 {p50:>5}  p99 {p99:>5}  max {max:>5} ms  {judged}", times.len()));
    if let Some(limit) = limit {
        assert!(percentile(&times, 99) <= limit, "{what}: {p99} ms is more than {} ms", limit.as_millis());
    }
}

/// Prints a count and what it has to be.
pub fn count(what: &str, count: u64, judged: &str) {
    print(&format!("{what:<87} {count:>5}  {judged}"));
}

/// Prints a line as it is.
pub fn line(text: &str) {
    print(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_times() {
        let times: Vec<Duration> = (1..=10).map(Duration::from_secs).collect();
        let at = |percent| percentile(&times, percent).as_secs();
        assert_eq!((at(0), at(50), at(91), at(99), at(100)), (1, 5, 10, 10, 10));
    }
}
