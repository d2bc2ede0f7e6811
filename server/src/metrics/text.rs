//! The text format of Prometheus, version 0.0.4: each metric once, with its help, its kind and all its numbers.
//!
//! Absent on purpose: a registry. Most numbers are kept elsewhere anyway, and are read when they are asked for.

use std::fmt::{Display, Write as _};

use super::{
    families::{Family, Kind},
    histogram::Histogram,
};

/// The media type of what [`Text::finish`] gives.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics as text, one after the other.
#[derive(Debug, Default)]
pub struct Text {
    text: String,
}

impl Text {
    /// Begins a metric. It stands there even if it has no numbers.
    pub fn family(&mut self, family: &'static Family) -> Samples<'_> {
        let Family { name, kind, help, .. } = family;
        self.put(format_args!("# HELP {name} {help}\n# TYPE {name} {}\n", kind.name()));
        Samples { text: self, family }
    }

    /// A metric that has one number and no labels.
    pub fn one(&mut self, family: &'static Family, value: impl Display) {
        self.family(family).number(&[], value);
    }

    /// All that was written.
    pub fn finish(self) -> String {
        self.text
    }

    fn put(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.text.write_fmt(arguments).expect("a text takes everything");
    }
}

/// The numbers of one metric.
pub struct Samples<'a> {
    text: &'a mut Text,
    family: &'static Family,
}

impl Samples<'_> {
    /// Adds a number, with a value for each label of the metric.
    pub fn number(&mut self, labels: &[&str], value: impl Display) {
        assert!(self.family.kind != Kind::Histogram, "`{}` has buckets", self.family.name);
        let labels = self.labels(labels, None);
        self.text.put(format_args!("{}{labels} {value}\n", self.family.name));
    }

    /// Adds the numbers of a histogram, with a value for each label of the metric.
    pub fn histogram(&mut self, labels: &[&str], histogram: &Histogram) {
        assert!(self.family.kind == Kind::Histogram, "`{}` has no buckets", self.family.name);
        let name = self.family.name;
        let (counts, sum_seconds) = histogram.read();
        let mut total = 0;
        for (bound, count) in counts {
            total += count;
            let le = bound.map_or_else(|| "+Inf".to_owned(), |seconds| seconds.to_string());
            let labels = self.labels(labels, Some(&le));
            self.text.put(format_args!("{name}_bucket{labels} {total}\n"));
        }
        let labels = self.labels(labels, None);
        self.text.put(format_args!("{name}_sum{labels} {sum_seconds}\n{name}_count{labels} {total}\n"));
    }

    fn labels(&self, values: &[&str], le: Option<&str>) -> String {
        assert_eq!(values.len(), self.family.labels.len(), "`{}` has these labels", self.family.name);
        let pairs = self.family.labels.iter().copied().zip(values.iter().copied()).chain(le.map(|le| ("le", le)));
        let pairs: Vec<String> = pairs.map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PLAIN: Family = Family { name: "socp_plain", kind: Kind::Gauge, labels: &[], help: "Plain." };
    const MARKED: Family = Family { name: "socp_marked", kind: Kind::Gauge, labels: &["server"], help: "Marked." };
    const TIMES: Family =
        Family { name: "socp_times_seconds", kind: Kind::Histogram, labels: &["kind"], help: "Times." };

    #[test]
    fn numbers_labels_and_buckets_are_written_as_prometheus_reads_them() {
        let mut text = Text::default();
        text.one(&PLAIN, 7);
        let mut marked = text.family(&MARKED);
        marked.number(&["a\"b\\c\nd"], 1.5);
        let times = Histogram::new(&[1_000, 20_000]);
        times.record(Duration::from_millis(1), 1);
        times.record(Duration::from_millis(30), 2);
        text.family(&TIMES).histogram(&["x"], &times);
        let expected = r#"# HELP socp_plain Plain.
# TYPE socp_plain gauge
socp_plain 7
# HELP socp_marked Marked.
# TYPE socp_marked gauge
socp_marked{server="a\"b\\c\nd"} 1.5
# HELP socp_times_seconds Times.
# TYPE socp_times_seconds histogram
socp_times_seconds_bucket{kind="x",le="0.001"} 1
socp_times_seconds_bucket{kind="x",le="0.02"} 1
socp_times_seconds_bucket{kind="x",le="+Inf"} 3
socp_times_seconds_sum{kind="x"} 0.061
socp_times_seconds_count{kind="x"} 3
"#;
        assert_eq!(text.finish(), expected);
    }
}
