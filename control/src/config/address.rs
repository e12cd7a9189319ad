//! Addresses of agents, as a configuration file spells them.

use std::fmt;
use std::path::Path;
use std::path::PathBuf;

/// Where an agent listens.
///
/// Spelled `host:port` or `http://host:port` (plain gRPC), `https://host:port` (TLS, with
/// `[agent_tls]`), or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NodeAddress {
    /// Plain gRPC over TCP.
    Tcp(String),
    /// gRPC over TLS.
    Tls(String),
    /// A unix socket.
    Unix(PathBuf),
}

/// Why an address is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is empty.
    #[error("it is empty")]
    Empty,
    /// The scheme is not known.
    #[error("the scheme {0:?} is not known")]
    Scheme(String),
    /// There is no port, or it is none.
    #[error("it has no port from 1 to 65535, as in node1.example.org:7430")]
    Port,
    /// The host is empty or has characters that no host has.
    #[error("{0:?} is not a host")]
    Host(String),
    /// The path of the socket is relative.
    #[error("the path of the socket is not absolute")]
    RelativePath,
    /// Something follows the port.
    #[error("something follows the port")]
    Trailing,
}

impl NodeAddress {
    /// Parses an address; one without a scheme is TLS if `tls_by_default`.
    pub fn parse(text: &str, tls_by_default: bool) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if !Path::new(path).is_absolute() {
                return Err(AddressError::RelativePath);
            }
            return Ok(Self::Unix(path.into()));
        }
        let (tls, rest) = match text.split_once("://") {
            None => (tls_by_default, text),
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some((scheme, _)) => return Err(AddressError::Scheme(scheme.to_owned())),
        };
        let authority = authority(rest)?;
        Ok(if tls {
            Self::Tls(authority)
        } else {
            Self::Tcp(authority)
        })
    }

    /// Whether traffic could be read on the way: plain TCP to another host.
    pub fn is_exposed(&self) -> bool {
        let Self::Tcp(authority) = self else {
            return false;
        };
        let host = authority.rsplit_once(':').map_or("", |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let loopback = host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback());
        host != "localhost" && !loopback
    }
}

/// Checks `host:port`.
fn authority(text: &str) -> Result<String, AddressError> {
    let text = text.strip_suffix('/').unwrap_or(text);
    if text.contains(['/', '?', '#', '@']) {
        return Err(AddressError::Trailing);
    }
    let (host, port) = text.rsplit_once(':').ok_or(AddressError::Port)?;
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    if !digits || !port.parse::<u16>().is_ok_and(|port| port != 0) {
        return Err(AddressError::Port);
    }
    let name = match host.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .filter(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok()),
        None => Some(host).filter(|host| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
            !host.is_empty() && host.bytes().all(allowed)
        }),
    };
    match name {
        Some(_) => Ok(text.to_owned()),
        None => Err(AddressError::Host(host.to_owned())),
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => write!(f, "http://{authority}"),
            Self::Tls(authority) => write!(f, "https://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        let rows: [(&str, bool, Result<&str, AddressError>); 18] = [
            ("node1:7430", false, Ok("http://node1:7430")),
            ("node1:7430", true, Ok("https://node1:7430")),
            ("http://node1:7430", true, Ok("http://node1:7430")),
            ("http://node1:7430/", false, Ok("http://node1:7430")),
            (
                "https://n.example.org:1",
                false,
                Ok("https://n.example.org:1"),
            ),
            ("[::1]:7430", false, Ok("http://[::1]:7430")),
            (
                "unix:/run/sifter/a.sock",
                false,
                Ok("unix:/run/sifter/a.sock"),
            ),
            ("unix:///run/a.sock", true, Ok("unix:/run/a.sock")),
            ("", false, Err(AddressError::Empty)),
            ("node1", false, Err(AddressError::Port)),
            ("node1:0", false, Err(AddressError::Port)),
            ("node1:99999", false, Err(AddressError::Port)),
            ("node1:+1", false, Err(AddressError::Port)),
            ("unix:a.sock", false, Err(AddressError::RelativePath)),
            (
                "ftp://node1:1",
                false,
                Err(AddressError::Scheme("ftp".into())),
            ),
            ("a b:1", false, Err(AddressError::Host("a b".into()))),
            (":1", false, Err(AddressError::Host(String::new()))),
            ("u@node1:1", false, Err(AddressError::Trailing)),
        ];
        for (text, tls, expected) in rows {
            let parsed = NodeAddress::parse(text, tls).map(|address| address.to_string());
            assert_eq!(parsed, expected.map(str::to_owned), "{text}");
        }
    }

    #[test]
    fn exposed_is_plain_tcp_to_another_host() {
        let rows = [
            ("127.0.0.1:1", false),
            ("[::1]:1", false),
            ("localhost:1", false),
            ("unix:/a", false),
            ("https://node1:1", false),
            ("node1:1", true),
            ("10.0.0.1:1", true),
        ];
        for (text, exposed) in rows {
            let address = NodeAddress::parse(text, false).unwrap();
            assert_eq!(address.is_exposed(), exposed, "{text}");
        }
    }
}
