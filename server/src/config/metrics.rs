//! Where metrics are wanted.

use std::{fmt, net::SocketAddr, str::FromStr};

use serde::Deserialize;

/// The key `metrics_listen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum MetricsListen {
    /// Nowhere.
    Off,
    /// Here if the port is free; without metrics otherwise, since several servers may run on one machine.
    IfFree(SocketAddr),
    /// Here, or the server does not start.
    At(SocketAddr),
}

impl Default for MetricsListen {
    fn default() -> Self {
        Self::IfFree(SocketAddr::from(([127, 0, 0, 1], 7480)))
    }
}

impl FromStr for MetricsListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(address) => Ok(Self::At(address)),
            Err(_) if text == "off" => Ok(Self::Off),
            Err(_) => Err(format!("`{text}` is neither an address with a port, e.g. `127.0.0.1:7480`, nor `off`")),
        }
    }
}

impl TryFrom<String> for MetricsListen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for MetricsListen {
    /// As it is written in a file; what is there by default is not.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::IfFree(address) | Self::At(address) => address.fmt(f),
        }
    }
}
