//! Metrics as a stranger reads them: over a socket of its own, by a parser that shares nothing with the server.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Instant,
};

use super::{DEADLINE, server::Server};

/// One scrape, read as the documentation of the text format says, version 0.0.4.
#[derive(Debug, Default)]
pub struct Scrape {
    /// Kind and help of each metric.
    pub families: BTreeMap<String, (String, String)>,
    /// Each number by its name and its labels, those sorted.
    pub numbers: BTreeMap<(String, Vec<(String, String)>), f64>,
}

/// What a request is answered with: the head, and the body.
pub fn ask(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("it listens for metrics");
    stream.set_read_timeout(Some(DEADLINE)).expect("a time can be set");
    stream.write_all(request.as_bytes()).expect("it takes a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers in time, with text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    (head.to_owned(), body.to_owned())
}

impl Scrape {
    /// What a server tells now.
    #[track_caller]
    pub fn of(server: &Server) -> Self {
        Self::parse(&Self::text(server))
    }

    /// The same as it came.
    #[track_caller]
    pub fn text(server: &Server) -> String {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\nAccept: text/plain\r\n\r\n", server.metrics);
        let (head, body) = ask(server.metrics, &request);
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        body
    }

    /// Scrapes until all of these have come true, as they must.
    #[track_caller]
    pub fn until(server: &Server, what: &str, is_so: impl Fn(&Self) -> bool) -> Self {
        let begun = Instant::now();
        loop {
            let scrape = Self::of(server);
            if is_so(&scrape) {
                return scrape;
            }
            assert!(begun.elapsed() < DEADLINE, "{what} does not show in {scrape:#?}");
        }
    }

    /// The number with this name and these labels.
    #[track_caller]
    pub fn number(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).unwrap_or_else(|| panic!("`{name}` {labels:?} in {:#?}", self.numbers))
    }

    /// The same, if it is there.
    pub fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut labels: Vec<_> =
            labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect();
        labels.sort();
        self.numbers.get(&(name.to_owned(), labels)).copied()
    }

    /// The sum of the numbers with this name that have all of these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |all: &[(String, String)]| {
            labels.iter().all(|(label, value)| all.iter().any(|(own, of)| own == label && of == value))
        };
        self.numbers.iter().filter(|((own, all), _)| own == name && has(all)).map(|(_, number)| number).sum()
    }

    /// Reads a text, and refuses what Prometheus would: a number of an unknown metric, twice the same number, a metric in two
    /// places, a histogram whose buckets fall or do not end with all.
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line ends");
        let mut scrape = Self::default();
        let mut present = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
                let before = scrape.families.insert(name.to_owned(), (String::new(), help.to_owned()));
                assert!(before.is_none(), "twice: {line}");
                name.clone_into(&mut present);
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(name, present, "{line}");
                scrape.families.get_mut(name).expect("it has a help").0 = kind.to_owned();
            } else {
                let (name, labels, number) = read_line(line);
                let (kind, _) = &scrape.families[&present];
                let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
                assert!(suffixes.iter().any(|suffix| name == format!("{present}{suffix}")), "under {present}: {line}");
                assert!(kind != "counter" || number >= 0.0, "{line}");
                assert!(scrape.numbers.insert((name, labels), number).is_none(), "twice: {line}");
            }
        }
        scrape.check_histograms();
        scrape
    }

    #[track_caller]
    fn check_histograms(&self) {
        for (name, _) in self.families.iter().filter(|(_, (kind, _))| kind == "histogram") {
            let counts = self.numbers.iter().filter(|((own, _), _)| *own == format!("{name}_count"));
            for ((_, labels), count) in counts {
                let mut buckets: Vec<(f64, f64)> = Vec::new();
                for ((_, all), number) in self.numbers.iter().filter(|((own, _), _)| *own == format!("{name}_bucket")) {
                    let (le, others): (Vec<_>, Vec<_>) = all.iter().cloned().partition(|(label, _)| label == "le");
                    if others == *labels {
                        let bound = if le[0].1 == "+Inf" { f64::INFINITY } else { le[0].1.parse().expect("a bound") };
                        buckets.push((bound, *number));
                    }
                }
                buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
                assert!(buckets.is_sorted_by(|one, other| one.1 <= other.1), "{name} {labels:?}: {buckets:?}");
                assert_eq!(buckets.last(), Some(&(f64::INFINITY, *count)), "{name} {labels:?}");
            }
        }
    }
}

/// `name{label="value",...} number`.
fn read_line(line: &str) -> (String, Vec<(String, String)>, f64) {
    let (before, number) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
    let number = number.parse().unwrap_or_else(|_| panic!("no number: {line}"));
    let Some((name, mut rest)) = before.split_once('{') else { return (before.to_owned(), Vec::new(), number) };
    let mut labels = Vec::new();
    while rest != "}" {
        let (label, value) = rest.trim_start_matches(',').split_once("=\"").unwrap_or_else(|| panic!("{line}"));
        let mut text = String::new();
        let mut letters = value.char_indices();
        let end = loop {
            match letters.next().unwrap_or_else(|| panic!("{line}")) {
                (end, '"') => break end,
                (_, '\\') => match letters.next().unwrap_or_else(|| panic!("{line}")).1 {
                    'n' => text.push('\n'),
                    other => text.push(other),
                },
                (_, letter) => text.push(letter),
            }
        };
        labels.push((label.to_owned(), text));
        rest = &value[end + 1..];
    }
    labels.sort();
    (name.to_owned(), labels, number)
}
