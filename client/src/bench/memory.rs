//! How much memory a server has: by its own metrics, or else by the system's word on its process.

use super::{machine, metrics::Numbers};
use crate::failure::Failure;

/// Where the memory of a server can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Memory {
    /// The address of its metrics.
    Metrics(String),
    /// Its process on this machine.
    Process(u32),
}

impl Memory {
    /// Whose word it is.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Metrics(_) => "the server's own metrics",
            Self::Process(_) => "the system",
        }
    }

    /// Resident memory now, in KiB.
    pub async fn resident_kib(&self) -> Result<u64, Failure> {
        let unknown = |what: String| Failure::failed(format!("the memory of {what} cannot be read"));
        match self {
            Self::Metrics(address) => {
                let bytes = Numbers::ask(address).await?.number("process_resident_memory_bytes");
                bytes.map(|bytes| bytes as u64 / 1024).ok_or_else(|| unknown(format!("the server at `{address}`")))
            }
            Self::Process(process) => {
                machine::resident_kib(*process).ok_or_else(|| unknown(format!("process {process}")))
            }
        }
    }
}

/// Resident memory of some servers together, in KiB; `None` if there is none to look at.
pub async fn resident_kib(servers: &[Memory]) -> Result<Option<u64>, Failure> {
    let mut all = None;
    for server in servers {
        *all.get_or_insert(0) += server.resident_kib().await?;
    }
    Ok(all)
}
