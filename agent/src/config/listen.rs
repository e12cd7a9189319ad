//! Addresses to listen on, as they are written.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Longest path of a unix socket, in bytes: `sun_path` has 108, one of them for the NUL at its end.
const SOCKET_PATH_MAX: usize = 107;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Listen {
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP port.
    Tcp(SocketAddr),
    /// A TCP port with TLS.
    Tls(SocketAddr),
}

impl std::str::FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if !path.starts_with('/') {
                Err(format!("`{text}`: the path of a socket must be absolute"))
            } else if path.contains('\0') {
                Err(format!("`{text}`: there is a NUL in the path"))
            } else if path.len() > SOCKET_PATH_MAX {
                Err(format!(
                    "`{text}`: the path of a socket has at most {SOCKET_PATH_MAX} bytes, and this \
                     one has {}",
                    path.len()
                ))
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let (kind, address): (fn(SocketAddr) -> Self, &str) = match text.strip_prefix("tls:") {
            Some(address) => (Self::Tls, address),
            None => (Self::Tcp, text.strip_prefix("tcp:").unwrap_or(text)),
        };
        let address = address.replace("localhost:", "127.0.0.1:");
        address.parse().map(kind).map_err(|_| {
            format!("`{text}` is neither unix:/path nor tls:address:port nor address:port")
        })
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Tls(address) => write!(f, "tls:{address}"),
        }
    }
}
