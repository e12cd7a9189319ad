//! Who is at the other end of a connection.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;

use crate::escape;

/// A client, as far as it is known. Every request carries its connection's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A process of this machine: over a unix socket, or over loopback TCP where the kernel says
    /// whose the other end is.
    Local(Credentials),
    /// A client that proved who it is with a certificate.
    Certified(Arc<Certified>),
    /// Whoever reaches a port without TLS.
    Unknown(Option<SocketAddr>),
}

/// A user of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// Effective user when it connected.
    pub uid: u32,
    /// Effective group when it connected; `None` if only the user is known.
    pub gid: Option<u32>,
    /// Process; `None` if not known.
    pub pid: Option<i32>,
}

/// What a client's certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// Where it connects from.
    pub address: SocketAddr,
    /// Its names: `dns:…`, `uri:…`, `cn:…`.
    pub names: Vec<String>,
    /// Until when the certificate is valid.
    pub not_after: Timestamp,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(Credentials {
                uid,
                pid: Some(pid),
                ..
            }) => write!(f, "uid:{uid} pid:{pid}"),
            Self::Local(Credentials { uid, .. }) => write!(f, "uid:{uid}"),
            Self::Certified(certified) => {
                let name = certified.names.first();
                let name = name.map_or("nameless".into(), |name| escape::terminal(name));
                write!(f, "{name} {}", certified.address)
            }
            Self::Unknown(Some(address)) => write!(f, "{address}"),
            Self::Unknown(None) => write!(f, "unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Certified, Peer};

    /// An authority signs what it is asked to, and a line of the log is one line.
    #[test]
    fn a_certified_name_forges_no_line() {
        let certified = Certified {
            address: ([192, 0, 2, 1], 7).into(),
            names: vec!["cn:control\n\u{1b}[2J".to_owned()],
            not_after: jiff::Timestamp::UNIX_EPOCH,
        };
        let peer = Peer::Certified(Arc::new(certified));
        assert_eq!(peer.to_string(), "cn:control\\n\\u{1b}[2J 192.0.2.1:7");
    }
}
