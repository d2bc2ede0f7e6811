//! What a server tells of itself at the address where it is asked for metrics: numbers without labels, by their names.

use std::{collections::BTreeMap, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::failure::Failure;

/// How long an answer may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// Bytes of an answer: some dozens of lines for each server that is known.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The numbers of one moment.
#[derive(Clone, Debug, Default)]
pub struct Numbers(BTreeMap<String, f64>);

impl Numbers {
    /// Asks for them.
    pub async fn ask(address: &str) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::unreachable(format!("no metrics can be read at `{address}`: {error}"))
                .hint("a server tells at its start where they are: `metrics_listen`")
        };
        let asked = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
            let mut answer = String::new();
            stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = timeout(ANSWER_TIME_MAX, asked).await.map_err(|error| failed(&error))?;
        Self::of(&answer.map_err(|error| failed(&error))?).ok_or_else(|| failed(&"that is something else"))
    }

    /// Reads an answer; `None` if it is none.
    fn of(answer: &str) -> Option<Self> {
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.1 200 ").then_some(())?;
        let numbers = body.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (name, number) = line.split_once(' ')?;
            Some((name.to_owned(), number.parse().ok()?))
        });
        Some(Self(numbers.collect()))
    }

    /// The number of this name.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_by_their_names_and_anything_else_is_no_answer() {
        let body = "# HELP a b\n# TYPE a gauge\nprocess_resident_memory_bytes 1048576\nb{server=\"x y\"} 2\n";
        let numbers = Numbers::of(&format!("HTTP/1.1 200 OK\r\na: b\r\n\r\n{body}")).unwrap();
        assert_eq!(numbers.number("process_resident_memory_bytes"), Some(1_048_576.0));
        assert_eq!(numbers.number("b"), None, "it has labels");
        for other in ["", "HTTP/1.1 403 Forbidden\r\n\r\n", "SSH-2.0-x\r\n"] {
            assert!(Numbers::of(other).is_none(), "{other}");
        }
    }
}
