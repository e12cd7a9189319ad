//! Sockets that the service manager has bound and passes at start (`sd_listen_fds(3)`): connections
//! wait in them while the agent is started anew, and ports below 1024 need no privilege.
//!
//! The name of a socket (`FileDescriptorName=`) says what it is for: `metrics`, `tls`, or anything
//! else for gRPC. Nothing is decided here about who may listen where: see
//! [`Settings::listen_for`](crate::config::Settings::listen_for).

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use listenfd::ListenFd;
use nix::sys::socket::{getsockopt, sockopt::AcceptConn};

/// The name of sockets for the metrics.
pub const METRICS: &str = "metrics";

/// The name of TCP sockets that speak TLS wherever they are bound.
pub const TLS: &str = "tls";

/// A socket that was passed.
#[derive(Debug)]
pub struct Passed {
    /// Its name, `unknown` if it has none.
    pub name: String,
    /// The socket, non-blocking.
    pub socket: Socket,
}

/// A bound socket.
#[derive(Debug)]
pub enum Socket {
    /// A unix socket and its path.
    Unix(std::os::unix::net::UnixListener, PathBuf),
    /// A TCP port and its address.
    Tcp(std::net::TcpListener, SocketAddr),
}

impl std::fmt::Display for Passed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.socket {
            Socket::Unix(_, path) => write!(f, "unix:{}", crate::escape::path(path)),
            Socket::Tcp(_, address) => write!(f, "{address}"),
        }
    }
}

/// Takes all sockets that were passed to this process. To be called once, before there are threads:
/// it takes what announced them out of the environment.
///
/// # Errors
///
/// One of them is no listening stream socket, and nobody could be served through it.
pub fn passed() -> io::Result<Vec<Passed>> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':').filter(|name| !name.is_empty());
    let mut all = ListenFd::from_env();
    let mut passed = Vec::new();
    for index in 0..all.len() {
        let name = names.next().unwrap_or("unknown").to_owned();
        let socket = take(&mut all, index).map_err(|error| {
            let message = format!(
                "socket {name} (number {}) passed by the service manager: {error}",
                index + 1
            );
            io::Error::new(error.kind(), message)
        })?;
        passed.push(Passed { name, socket });
    }
    Ok(passed)
}

fn take(all: &mut ListenFd, index: usize) -> io::Result<Socket> {
    if let Ok(Some(listener)) = all.take_unix_listener(index) {
        accepts(&listener)?;
        listener.set_nonblocking(true)?;
        let path = listener.local_addr()?.as_pathname().map(PathBuf::from);
        let path = path.ok_or_else(|| wrong("is not in the file system"))?;
        return Ok(Socket::Unix(listener, path));
    }
    let listener = all
        .take_tcp_listener(index)?
        .ok_or_else(|| wrong("was taken already"))?;
    accepts(&listener)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok(Socket::Tcp(listener, address))
}

fn accepts(listener: &impl std::os::fd::AsFd) -> io::Result<()> {
    if getsockopt(listener, AcceptConn)? {
        Ok(())
    } else {
        Err(wrong("does not listen: Accept=no is needed"))
    }
}

fn wrong(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}
