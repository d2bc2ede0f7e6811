//! Where a page comes from.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

use http::HeaderValue;
use rustls::pki_types::DnsName;

/// An origin (RFC 6454) as browsers write it: scheme, host, and the port unless it is the scheme's own.
///
/// What a browser would write otherwise is refused, since it would never be equal to what one sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// Reads an origin; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, authority) = text.split_once("://").ok_or("has no scheme")?;
        let usual_port = match scheme {
            "https" => 443,
            "http" => 80,
            _ => return Err("is neither of `https` nor of `http`"),
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !authority.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        if !is_host(host) {
            return Err("has more or less than a host after its scheme");
        }
        if let Some(port) = port {
            match port.parse::<u16>() {
                Ok(number) if number == usual_port => return Err("has the port that browsers leave out"),
                Ok(number) if number != 0 && number.to_string() == port => {}
                _ => return Err("has more or less than a port after its host"),
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// As it stands in the configuration, and in a request.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As the header of a request.
    pub(super) fn header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("hosts and ports are visible ASCII")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether browsers would write this host so.
fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok_and(|parsed| parsed.to_string() == address),
        None if host.parse::<Ipv4Addr>().is_ok() => true,
        None => DnsName::try_from(host).is_ok() && !host.bytes().any(|byte| byte.is_ascii_uppercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_a_browser_sends() {
        for text in [
            "https://app.example.org",
            "https://app.example.org:8443",
            "http://localhost:5173",
            "http://127.0.0.1",
            "http://[::1]:8080",
            "https://xn--bcher-kva.example",
        ] {
            assert_eq!(Origin::parse(text).map(|origin| origin.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn what_no_browser_sends_is_no_origin() {
        for text in [
            "",
            "*",
            "null",
            "app.example.org",
            "ftp://app.example.org",
            "HTTPS://app.example.org",
            "https://",
            "https://*",
            "https://*.example.org",
            "https://App.example.org",
            "https://bücher.example",
            "https://app.example.org/",
            "https://app.example.org/app",
            "https://app.example.org?q",
            "https://user@app.example.org",
            "https://app.example.org:",
            "https://app.example.org:0",
            "https://app.example.org:08443",
            "https://app.example.org:+8443",
            "https://app.example.org:65536",
            "https://app.example.org:443",
            "http://app.example.org:80",
            "http://::1",
            "http://[0:0:0:0:0:0:0:1]",
            "https://app.example.org, https://other.example.org",
        ] {
            assert!(Origin::parse(text).is_err(), "{text}");
        }
    }
}
