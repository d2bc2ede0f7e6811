//! `grpc-timeout`: reading it, and waiting no longer than it says.

use std::future::Future;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

/// The deadline came before the result.
#[derive(Debug)]
pub(crate) struct Late;

impl From<Late> for Status {
    fn from(_: Late) -> Status {
        Status::deadline_exceeded("the call's deadline has passed")
    }
}

/// When the call with these headers must be over. `None` when it has no timeout, an unreadable one, or one beyond the
/// clock's range.
pub fn of(headers: &HeaderMap) -> Option<Instant> {
    let timeout = headers.get("grpc-timeout")?.to_str().ok()?;
    Instant::now().checked_add(parse(timeout)?)
}

/// Awaits `work` until the deadline at most; `work` is dropped before this returns.
///
/// Once the deadline has passed, not even work that is ready is done: a stream that never has to wait would go on for ever.
pub(crate) async fn until<F: Future>(deadline: Option<Instant>, work: F) -> Result<F::Output, Late> {
    match deadline {
        Some(deadline) if Instant::now() >= deadline => Err(Late),
        Some(deadline) => timeout_at(deadline, work).await.map_err(|_| Late),
        None => Ok(work.await),
    }
}

fn parse(timeout: &str) -> Option<Duration> {
    let (unit_at, _) = timeout.char_indices().last()?;
    let (digits, unit) = timeout.split_at(unit_at);
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_of_the_grpc_specification_is_read() {
        for (text, expected) in [
            ("2H", Duration::from_secs(7200)),
            ("2M", Duration::from_secs(120)),
            ("2S", Duration::from_secs(2)),
            ("2m", Duration::from_millis(2)),
            ("2u", Duration::from_micros(2)),
            ("99999999n", Duration::from_nanos(99_999_999)),
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_the_specification_does_not_allow_is_no_timeout() {
        for text in ["", "S", "5", "5s", "+5S", "-5S", " 5S", "100000000S", "5Sx", "5é"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    /// Guard: the look at the clock in `until`.
    #[tokio::test]
    async fn once_the_deadline_has_passed_not_even_ready_work_is_done() {
        assert!(until(Some(Instant::now()), std::future::ready(())).await.is_err());
        assert!(until(None, std::future::ready(())).await.is_ok());
    }
}
