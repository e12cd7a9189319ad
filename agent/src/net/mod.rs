//! Listeners: unix sockets, TCP and TLS, as one stream of connections for tonic. A connection is
//! handed over when its client has said something and, over TLS, has proved who it is; what
//! happens before concerns nobody else.

mod activation;
mod connection;
mod door;
mod doors;
mod identity;
mod ledger;
mod owner;
mod tls;

use std::io;

use nix::errno::Errno;
use tokio::net::TcpListener;

use crate::config::Listen;
use crate::socket::UnixSocket;
use crate::telemetry::Scrapes;

pub use self::activation::{METRICS, Passed, Socket, TLS, passed};
pub use self::connection::Connection;
pub use self::door::Doorkeeper;
use self::door::Stranger;
pub use self::doors::Doors;
pub use self::tls::{Loaded, Tls, follow};

/// A listener that is bound and not yet accepting.
#[derive(Debug)]
pub struct Bound {
    listener: Listener,
    /// The address; the port is known now where 0 was asked for.
    pub address: Listen,
}

#[derive(Debug)]
enum Listener {
    Unix(UnixSocket),
    Tcp(TcpListener),
}

/// An address that cannot be listened on, why, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{purpose} {address}: {error}{}", advice(address, error))]
pub struct BindError {
    purpose: &'static str,
    address: Listen,
    error: io::Error,
}

fn advice(address: &Listen, error: &io::Error) -> &'static str {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, NotFound, PermissionDenied};
    match (address, error.kind()) {
        (Listen::Unix(_), NotFound) => ": make its directory, or name another path",
        (Listen::Unix(_), PermissionDenied) => {
            ": let this user write its directory, or name another path"
        }
        (Listen::Tcp(address) | Listen::Tls(address), PermissionDenied)
            if address.port() < 1024 =>
        {
            ": ports below 1024 are root's: name a higher one"
        }
        (_, AddrInUse) => ": end what listens there, or name another address",
        (_, AddrNotAvailable) => ": this host does not have it: name one that it has",
        _ if error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32) => {
            ": this host has no IPv6: name an address of IPv4"
        }
        _ => "",
    }
}

/// Who may read the metrics by a unix socket: its user and group.
const METRICS_MODE: u32 = 0o660;

/// Binds the address at which metrics are served.
///
/// # Errors
///
/// As for [`bind`].
pub async fn bind_metrics(address: &Listen) -> Result<Scrapes, BindError> {
    let bound = try_bind_metrics(address).await;
    bound.map_err(|error| BindError {
        purpose: "serve the metrics at",
        address: address.clone(),
        error,
    })
}

async fn try_bind_metrics(address: &Listen) -> io::Result<Scrapes> {
    match address {
        Listen::Unix(path) => Ok(Scrapes::Unix(
            UnixSocket::bind(path, METRICS_MODE)?,
            address.to_string(),
        )),
        Listen::Tcp(wanted) | Listen::Tls(wanted) => {
            let listener = TcpListener::bind(wanted).await?;
            let bound = listener.local_addr()?.to_string();
            Ok(Scrapes::Tcp(listener, bound))
        }
    }
}

/// Binds an address.
///
/// # Errors
///
/// What the operating system says, or that another process answers on the unix socket.
pub async fn bind(address: &Listen, socket_mode: u32) -> Result<Bound, BindError> {
    let bound = try_bind(address, socket_mode).await;
    bound.map_err(|error| BindError {
        purpose: "listen on",
        address: address.clone(),
        error,
    })
}

async fn try_bind(address: &Listen, socket_mode: u32) -> io::Result<Bound> {
    match address {
        Listen::Unix(path) => Ok(Bound {
            listener: Listener::Unix(UnixSocket::bind(path, socket_mode)?),
            address: address.clone(),
        }),
        Listen::Tcp(wanted) | Listen::Tls(wanted) => {
            let listener = TcpListener::bind(wanted).await?;
            let bound = listener.local_addr()?;
            Ok(Bound {
                listener: Listener::Tcp(listener),
                address: match address {
                    Listen::Tls(_) => Listen::Tls(bound),
                    _ => Listen::Tcp(bound),
                },
            })
        }
    }
}

/// Takes a socket that another process (systemd) has bound, and that it keeps.
///
/// # Errors
///
/// What the operating system says.
pub fn adopt(socket: Socket, address: Listen) -> io::Result<Bound> {
    let listener = match socket {
        Socket::Unix(listener, _) => Listener::Unix(UnixSocket::adopt(listener)?),
        Socket::Tcp(listener, _) => Listener::Tcp(TcpListener::from_std(listener)?),
    };
    Ok(Bound { listener, address })
}

async fn accept_one(listener: &Listener) -> io::Result<Stranger> {
    match listener {
        Listener::Unix(socket) => Ok(Stranger::Unix(socket.accept().await?)),
        Listener::Tcp(listener) => {
            let (stream, address) = listener.accept().await?;
            // Without, the last segment of a page waits for the client's delayed acknowledgement:
            // 45 ms instead of 0.2 ms.
            stream.set_nodelay(true)?;
            Ok(Stranger::Tcp(stream, address))
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::BindError;

    #[test]
    fn what_to_do_is_said_of_an_address_that_cannot_be_listened_on() {
        for (address, error, expected) in [
            (
                "unix:/run/sifter/a.sock",
                Errno::ENOENT,
                "make its directory",
            ),
            (
                "unix:/run/sifter/a.sock",
                Errno::EACCES,
                "let this user write its directory",
            ),
            ("127.0.0.1:80", Errno::EACCES, "name a higher one"),
            (
                "tls:127.0.0.1:7430",
                Errno::EADDRINUSE,
                "end what listens there",
            ),
            (
                "192.0.2.1:7430",
                Errno::EADDRNOTAVAIL,
                "name one that it has",
            ),
            ("[::]:7430", Errno::EAFNOSUPPORT, "name an address of IPv4"),
        ] {
            let error = BindError {
                purpose: "listen on",
                address: address.parse().unwrap(),
                error: error.into(),
            };
            let said = error.to_string();
            let place = format!("listen on {address}: ");
            assert!(
                said.starts_with(&place) && said.contains(expected),
                "{said}"
            );
        }
    }
}
