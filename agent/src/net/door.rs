//! From a connection of which nothing is known to one that the server may have.

use std::fmt::Display;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use nix::sys::socket::{MsgFlags, recv};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, oneshot};

use super::connection::{Connection, Io};
use super::ledger::{Ledger, Limits, Source, Ticket};
use super::tls::{Failure, Tls};
use super::{Bound, Listener, accept_one, owner};
use crate::peer::{Credentials, Peer};
use crate::telemetry::{Metrics, Quiet};

/// How long a client may be silent, and a handshake take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time before accepting is tried again where it failed, for want of descriptors mostly.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Decides who comes in.
#[derive(Debug)]
pub struct Doorkeeper {
    tls: Option<Arc<Tls>>,
    metrics: Arc<Metrics>,
    ledger: Arc<Ledger>,
    quiet: Quiet,
}

impl Doorkeeper {
    /// A doorkeeper with the usual limits.
    #[must_use]
    pub fn new(tls: Option<Arc<Tls>>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            tls,
            metrics,
            ledger: Ledger::new(Limits::default()),
            quiet: Quiet::default(),
        })
    }

    /// Connections held.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.ledger.len()
    }

    fn refuse(&self, address: &dyn Display, kind: &'static str, message: &str) {
        self.metrics.connection_refused(kind);
        // Whoever only looks whether the port is open.
        if kind == "gone" {
            tracing::debug!(%address, kind, "{message}");
            return;
        }
        if let Some(left_out) = self.quiet.may_speak(kind) {
            tracing::warn!(%address, kind, left_out, "connection refused: {message}");
        }
    }
}

/// One listener's way to the server.
#[derive(Debug, Clone)]
pub(super) struct Door {
    pub(super) keeper: Arc<Doorkeeper>,
    pub(super) tls: bool,
    pub(super) sender: mpsc::Sender<io::Result<Connection>>,
}

/// A connection of which nothing is known yet.
#[derive(Debug)]
pub(super) enum Stranger {
    /// Over a unix socket.
    Unix(UnixStream),
    /// Over TCP.
    Tcp(TcpStream, SocketAddr),
}

impl Door {
    /// Accepts until it is told to close, or the server is gone.
    pub(super) async fn accept(self, mut bound: Bound, close: oneshot::Receiver<()>) {
        let mut close = std::pin::pin!(close);
        loop {
            let accepted = tokio::select! {
                accepted = accept_one(&bound.listener) => accepted,
                () = self.sender.closed() => return,
                _ = &mut close => break,
            };
            match accepted {
                Ok(stranger) => self.admit(stranger),
                // Out of descriptors, or the peer was gone already: the listener lives on.
                Err(error) => {
                    if let Some(left_out) = self.keeper.quiet.may_speak("accept") {
                        tracing::warn!(
                            %error,
                            address = %bound.address,
                            left_out,
                            "cannot accept: if descriptors are short, raise LimitNOFILE= of the service"
                        );
                    }
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
        // Nobody new finds the socket, and those who came before are let in.
        if let Listener::Unix(socket) = &mut bound.listener {
            socket.remove_file();
        }
        while let Some(Ok(stranger)) = accept_one(&bound.listener).now_or_never() {
            self.admit(stranger);
        }
    }

    /// Gives the connection a place, and looks after it apart from all others.
    fn admit(&self, stranger: Stranger) {
        let (source, name) = match &stranger {
            Stranger::Unix(stream) => match stream.peer_cred() {
                Ok(user) => (Source::User(user.uid()), format!("uid:{}", user.uid())),
                Err(_) => (Source::Unknown, "unix".to_owned()),
            },
            Stranger::Tcp(_, address) => (Source::at(address.ip()), address.to_string()),
        };
        let Some(admitted) = self.keeper.ledger.admit(source) else {
            let message = "too many connections of this client, or of all together";
            self.keeper.refuse(&name, "too_many", message);
            return;
        };
        if admitted.evicted {
            let message = "too many silent connections: the oldest is closed";
            self.keeper.refuse(&name, "evicted", message);
        }
        let door = self.clone();
        tokio::spawn(async move {
            let evicted = async {
                // An error: the connection has spoken, and is not asked to leave any more.
                if admitted.ended.await.is_err() {
                    pending::<()>().await;
                }
            };
            tokio::select! {
                () = evicted => {}
                () = door.sender.closed() => {}
                welcome = tokio::time::timeout(PATIENCE, door.welcome(stranger, admitted.ticket)) => {
                    match welcome {
                        Ok(Ok(connection)) => drop(door.sender.send(Ok(connection)).await),
                        Ok(Err(failure)) => {
                            door.keeper.refuse(&name, failure.kind, &failure.message);
                        }
                        Err(_) if door.tls => {
                            let message = "the TLS handshake took too long";
                            door.keeper.refuse(&name, "handshake_timeout", message);
                        }
                        Err(_) => {
                            door.keeper.refuse(&name, "silent", "the client said nothing");
                        }
                    }
                }
            }
        });
    }

    /// Waits until the client has spoken, and finds out who it is.
    async fn welcome(&self, stranger: Stranger, ticket: Ticket) -> Result<Connection, Failure> {
        let gone = |_| Failure::new("gone", "the client went away");
        let (io, peer, source): (Box<dyn Io>, _, _) = match (stranger, &self.keeper.tls) {
            (Stranger::Tcp(stream, address), Some(tls)) if self.tls => {
                let (stream, certified) = tls.handshake(stream, address).await?;
                let source = Source::at(address.ip());
                let peer = Peer::Certified(Arc::new(certified));
                (Box::new(stream), peer, source)
            }
            (Stranger::Tcp(stream, address), _) => {
                let spoken = stream.async_io(Interest::READABLE, || peek(&stream));
                spoken.await.map_err(gone)?;
                let local = stream.local_addr().map_err(gone)?;
                let uid = tokio::task::spawn_blocking(move || owner::of(local, address))
                    .await
                    .unwrap_or(None);
                match uid {
                    Some(uid) => {
                        let peer = Peer::Local(Credentials {
                            uid,
                            gid: None,
                            pid: None,
                        });
                        (Box::new(stream), peer, Source::User(uid))
                    }
                    None => {
                        let source = Source::at(address.ip());
                        (Box::new(stream), Peer::Unknown(Some(address)), source)
                    }
                }
            }
            (Stranger::Unix(stream), _) => {
                let spoken = stream.async_io(Interest::READABLE, || peek(&stream));
                spoken.await.map_err(gone)?;
                match stream.peer_cred() {
                    Ok(user) => {
                        let peer = Peer::Local(Credentials {
                            uid: user.uid(),
                            gid: Some(user.gid()),
                            pid: user.pid(),
                        });
                        (Box::new(stream), peer, Source::User(user.uid()))
                    }
                    Err(_) => (Box::new(stream), Peer::Unknown(None), Source::Unknown),
                }
            }
        };
        if !ticket.spoke(source) {
            let message = "too many connections of this client";
            return Err(Failure::new("too_many", message));
        }
        Ok(Connection::new(io, peer, ticket))
    }
}

/// Looks for a client's first byte, and leaves it where it is. That a socket is said to be readable does not mean that
/// there is anything.
fn peek(socket: &impl AsRawFd) -> io::Result<()> {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    match recv(socket.as_raw_fd(), &mut [0], flags)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}
