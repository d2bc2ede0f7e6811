//! What was measured: a table for people, an object for programs.

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::{
    clock::ms,
    machine::Share,
    tally::{self, Tally},
};

/// The percentiles that are told, with their names.
pub const PERCENTILES: [(&str, f64); 5] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("max", 100.0)];

/// What was measured in one part of a run.
#[derive(Clone, Debug)]
pub struct Line {
    /// What: `watch`, `floor`.
    pub name: String,
    /// How many changes or messages arrived.
    pub count: u64,
    /// How many of them arrived in a second.
    pub per_second: f64,
    /// Nanoseconds that each took.
    pub times: Histogram<u64>,
    /// Those that never arrived.
    pub missed: u64,
    /// Those that arrived twice, or that nothing explains.
    pub repeated: u64,
    /// Who kept the machine busy.
    pub share: Share,
    /// What else there is to know, by names that say their units.
    pub more: Map<String, Value>,
}

impl Line {
    /// From what watchers were told.
    pub fn of_tally(name: &str, tally: &Tally, per_second: f64, share: Share) -> Self {
        Self {
            name: name.to_owned(),
            count: tally.delivered,
            per_second,
            times: tally.times.clone(),
            missed: tally.missed,
            repeated: tally.repeated + tally.strange,
            share,
            more: Map::new(),
        }
    }

    /// Whether everything arrived once.
    pub fn is_whole(&self) -> bool {
        (self.missed, self.repeated) == (0, 0)
    }

    fn ms(&self) -> [f64; 5] {
        PERCENTILES.map(|(_, percentile)| ms(self.times.value_at_percentile(percentile)))
    }

    fn json(&self) -> Value {
        let mut object = Map::new();
        object.insert("name".into(), json!(self.name));
        object.insert("count".into(), json!(self.count));
        object.insert("per_second".into(), json!(rounded(self.per_second)));
        for ((name, _), ms) in PERCENTILES.iter().zip(self.ms()) {
            object.insert(format!("{}_ms", name.replace('.', "_")), json!(rounded(ms)));
        }
        object.insert("missed".into(), json!(self.missed));
        object.insert("repeated".into(), json!(self.repeated));
        object.insert("tool_cores".into(), json!(rounded(self.share.tool)));
        object.insert("server_cores".into(), json!(self.share.servers.map(rounded)));
        object.insert("machine_cores".into(), json!(rounded(self.share.machine)));
        object.extend(self.more.clone());
        Value::Object(object)
    }
}

/// A whole run. Where it is compared with something, the first line is what was measured and those after it the rest.
#[derive(Clone, Debug)]
pub struct Report {
    /// The workload, as on the command line.
    pub workload: &'static str,
    /// One sentence about what was done.
    pub title: String,
    /// What `count` counts: `changes`, `messages`.
    pub unit: &'static str,
    /// What the times are from and to.
    pub times: &'static str,
    /// What was measured.
    pub lines: Vec<Line>,
    /// Whether the lines after the first are what that is compared with.
    pub compares: bool,
}

impl Report {
    /// Whether everything arrived once.
    pub fn is_whole(&self) -> bool {
        self.lines.iter().all(Line::is_whole)
    }

    fn compared(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().skip(if self.compares { 1 } else { self.lines.len() })
    }

    /// The object for programs.
    pub fn json(&self) -> Value {
        let first = self.lines.first();
        let ratios = self.compared().filter_map(|line| {
            let mut object = Map::new();
            object.insert("to".into(), json!(line.name));
            for ((name, _), ratio) in PERCENTILES.iter().zip(ratios(first?, line)) {
                object.insert(name.replace('.', "_"), json!(ratio.map(rounded)));
            }
            object.insert("per_second".into(), json!(ratio(first?.per_second, line.per_second).map(rounded)));
            Some(Value::Object(object))
        });
        json!({
            "workload": self.workload,
            "title": self.title,
            "unit": self.unit,
            "times": self.times,
            "cores": first.map_or(0, |line| line.share.cores),
            "results": self.lines.iter().map(Line::json).collect::<Vec<_>>(),
            "ratios": ratios.collect::<Vec<_>>(),
        })
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let head = [self.unit, "per second", "p50 ms", "p90", "p99", "p99.9", "max", "missed", "repeated"];
        let mut rows = vec![row("", head.map(str::to_owned), "cores used by")];
        rows.push(row("", Default::default(), "tool  servers  all"));
        for line in &self.lines {
            let shown = |ms: f64| if line.times.is_empty() { "-".to_owned() } else { format!("{ms:.2}") };
            let [p50, p90, p99, p999, max] = line.ms().map(shown);
            let counts = [grouped(line.count), grouped(line.per_second.round() as u64)];
            let [count, per_second] = counts;
            let cells =
                [count, per_second, p50, p90, p99, p999, max, line.missed.to_string(), line.repeated.to_string()];
            let servers = line.share.servers.map_or_else(|| "?".to_owned(), |cores| format!("{cores:.2}"));
            rows.push(row(
                &line.name,
                cells,
                &format!("{:.2}  {servers:>7}  {:.2}", line.share.tool, line.share.machine),
            ));
        }
        let first = self.lines.first();
        for (first, line) in self.compared().filter_map(|line| Some((first?, line))) {
            let shown = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
            let [p50, p90, p99, p999, max] = ratios(first, line).map(shown);
            let per_second = shown(ratio(first.per_second, line.per_second));
            let cells = ["".into(), per_second, p50, p90, p99, p999, max, "".into(), "".into()];
            rows.push(row(&format!("{} / {}", first.name, line.name), cells, ""));
        }
        for line in self.lines.iter().filter(|line| !line.more.is_empty()) {
            let more: Vec<_> =
                line.more.iter().map(|(name, value)| format!("{} {value}", name.replace('_', " "))).collect();
            rows.push(format!("{}: {}", line.name, more.join(", ")));
        }
        let cores = first.map_or(0, |line| line.share.cores);
        format!("{}; {}; {cores} cores\n\n{}", self.title, self.times, rows.join("\n"))
    }
}

fn row(name: &str, cells: [String; 9], rest: &str) -> String {
    let [count, per_second, times @ .., missed, repeated] = &cells;
    let times: String = times.iter().map(|cell| format!(" {cell:>8}")).collect();
    let line = format!("{name:<16}{count:>13} {per_second:>11}{times} {missed:>7} {repeated:>8}   {rest}");
    line.trim_end().to_owned()
}

fn ratios(one: &Line, other: &Line) -> [Option<f64>; 5] {
    let (one, other) = (one.ms(), other.ms());
    std::array::from_fn(|place| ratio(one[place], other[place]))
}

fn ratio(one: f64, other: f64) -> Option<f64> {
    (one > 0.0 && other > 0.0).then(|| one / other)
}

fn rounded(number: f64) -> f64 {
    (number * 1e4).round() / 1e4
}

/// A number with a comma between each three digits.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let parts: Vec<&[u8]> = digits.as_bytes().rchunks(3).rev().collect();
    parts.iter().map(|part| String::from_utf8_lossy(part)).collect::<Vec<_>>().join(",")
}

/// A histogram of times that some parts of a run share.
pub fn times_of(times: impl IntoIterator<Item = u64>) -> Histogram<u64> {
    let mut all = tally::histogram();
    times.into_iter().for_each(|ns| all.saturating_record(ns.max(1)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, ms: u64) -> Line {
        Line {
            name: name.into(),
            count: 1_000,
            per_second: 123_456.7,
            times: times_of((1..=1_000).map(|thousandth| thousandth * ms * 1_000)),
            missed: 0,
            repeated: 0,
            share: Share { tool: 0.5, servers: None, machine: 1.5, cores: 2 },
            more: Map::from_iter([("burst_ms".to_owned(), json!(7))]),
        }
    }

    fn report() -> Report {
        let lines = vec![line("watch", 10), line("floor", 5)];
        Report {
            workload: "watch",
            title: "A title".into(),
            unit: "changes",
            times: "from here to there",
            lines,
            compares: true,
        }
    }

    #[test]
    fn the_percentiles_are_those_of_the_times() {
        let [p50, p90, p99, p999, max] = line("watch", 10).ms();
        for (told, is) in [(p50, 5.0), (p90, 9.0), (p99, 9.9), (p999, 9.99), (max, 10.0)] {
            assert!((told - is).abs() <= is / 500.0, "{told} is not {is}");
        }
    }

    #[test]
    fn the_object_has_each_result_and_the_ratios_to_the_first() {
        let value = report().json();
        assert_eq!(value["workload"], "watch");
        assert_eq!(value["cores"], 2);
        let first = &value["results"][0];
        assert_eq!((&first["name"], &first["count"], &first["missed"]), (&json!("watch"), &json!(1_000), &json!(0)));
        assert_eq!((&first["per_second"], &first["burst_ms"]), (&json!(123_456.7), &json!(7)));
        assert_eq!((&first["server_cores"], &first["machine_cores"]), (&Value::Null, &json!(1.5)));
        for (name, _) in PERCENTILES {
            assert!(first[format!("{}_ms", name.replace('.', "_"))].is_f64(), "{name}: {first}");
        }
        let ratio = &value["ratios"][0];
        assert_eq!((&ratio["to"], &ratio["per_second"]), (&json!("floor"), &json!(1.0)));
        assert!((ratio["p99_9"].as_f64().unwrap() - 2.0).abs() < 0.01, "{ratio}");
    }

    #[test]
    fn the_table_has_a_row_for_each_and_one_for_each_ratio() {
        let table = report().table();
        let rows: Vec<&str> = table.lines().collect();
        assert_eq!(rows.len(), 9, "{table}");
        assert_eq!(rows[7], "watch: burst ms 7");
        assert!(rows[4].starts_with("watch ") && rows[4].contains("1,000") && rows[4].contains("123,457"), "{table}");
        assert!(rows[6].starts_with("watch / floor ") && rows[6].contains(" 2.00"), "{table}");
    }

    #[test]
    fn lines_that_stand_beside_each_other_have_no_ratio() {
        let report = Report { compares: false, ..report() };
        assert_eq!(report.json()["ratios"], json!([]));
        assert!(!report.table().contains(" / "), "{}", report.table());
    }

    #[test]
    fn what_was_missed_or_repeated_is_not_whole() {
        let mut report = report();
        assert!(report.is_whole());
        report.lines[1].repeated = 1;
        assert!(!report.is_whole());
        report.lines[1] = Line { missed: 1, repeated: 0, ..report.lines[0].clone() };
        assert!(!report.is_whole());
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
