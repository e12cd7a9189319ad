//! Who is at the other end of a connection.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;

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
            Self::Certified(certified) => write!(
                f,
                "{} {}",
                certified.names.first().map_or("nameless", String::as_str),
                certified.address
            ),
            Self::Unknown(Some(address)) => write!(f, "{address}"),
            Self::Unknown(None) => write!(f, "unknown"),
        }
    }
}
