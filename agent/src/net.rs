//! Listeners: unix sockets and TCP, as one stream of connections for tonic.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::UCred;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use crate::config::Listen;

/// Connections accepted and not yet taken by the server.
const BACKLOG: usize = 64;

/// A listener that is bound and not yet accepting.
#[derive(Debug)]
pub struct Bound {
    listener: Listener,
    /// The address; the port is known now where 0 was asked for.
    pub address: Listen,
}

#[derive(Debug)]
enum Listener {
    Unix {
        listener: UnixListener,
        /// Held for its end.
        _file: SocketFile,
    },
    Tcp(TcpListener),
}

/// Removes the socket's file at the end.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A connection.
#[derive(Debug)]
pub enum Connection {
    /// Over a unix socket.
    Unix(UnixStream),
    /// Over TCP.
    Tcp(TcpStream),
}

/// Who is at the other end.
#[derive(Debug, Clone)]
pub enum Peer {
    /// A process of this machine.
    Unix(Option<UCred>),
    /// Whoever reaches the port.
    Tcp(Option<std::net::SocketAddr>),
}

/// Binds an address.
///
/// # Errors
///
/// What the operating system says; `AddrInUse` if another process answers on the unix socket.
pub async fn bind(address: &Listen, socket_mode: u32) -> io::Result<Bound> {
    match address {
        Listen::Unix(path) => {
            // A socket left by a process that was killed answers nobody; one that answers is in
            // use.
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    "another process answers on this socket",
                ));
            }
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(path)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(socket_mode))?;
            Ok(Bound {
                listener: Listener::Unix {
                    listener,
                    _file: SocketFile(path.clone()),
                },
                address: address.clone(),
            })
        }
        Listen::Tcp(wanted) => {
            let listener = TcpListener::bind(wanted).await?;
            let address = Listen::Tcp(listener.local_addr()?);
            Ok(Bound {
                listener: Listener::Tcp(listener),
                address,
            })
        }
    }
}

/// Accepts on all listeners until the stream is dropped.
#[must_use]
pub fn accept(bound: Vec<Bound>) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    for bound in bound {
        let sender = sender.clone();
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = accept_one(&bound.listener) => accepted,
                    () = sender.closed() => return,
                };
                match accepted {
                    Ok(connection) => {
                        if sender.send(Ok(connection)).await.is_err() {
                            return;
                        }
                    }
                    // Out of descriptors, or the peer was gone already: the listener lives on.
                    Err(error) => {
                        tracing::warn!(%error, address = %bound.address, "cannot accept");
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    }
                }
            }
        });
    }
    ReceiverStream::new(receiver)
}

async fn accept_one(listener: &Listener) -> io::Result<Connection> {
    match listener {
        Listener::Unix { listener, .. } => Ok(Connection::Unix(listener.accept().await?.0)),
        Listener::Tcp(listener) => {
            let (stream, _) = listener.accept().await?;
            // Without, the last segment of a page waits for the client's delayed acknowledgement:
            // 45 ms instead of 0.2 ms.
            stream.set_nodelay(true)?;
            Ok(Connection::Tcp(stream))
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        match self {
            Self::Unix(stream) => Peer::Unix(stream.peer_cred().ok()),
            Self::Tcp(stream) => Peer::Tcp(stream.peer_addr().ok()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buf),
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(context, buf),
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, bufs),
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
