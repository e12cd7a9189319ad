//! All listeners of the agent: opened at start, and opened and closed while it runs. Connections
//! outlive the listener that they came through.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use super::connection::Connection;
use super::door::{Door, Doorkeeper};
use super::{BindError, Bound, bind};
use crate::config::Listen;
use crate::lock::lock;

/// Connections ready and not yet taken by the server.
const BACKLOG: usize = 64;

/// The listeners in use.
#[derive(Debug)]
pub struct Doors {
    keeper: Arc<Doorkeeper>,
    sender: mpsc::Sender<io::Result<Connection>>,
    open: Mutex<Vec<Open>>,
}

/// A listener in use.
#[derive(Debug)]
struct Open {
    /// As it was asked for; the port may be 0.
    asked: Listen,
    /// Whether it came from the service manager, and stays whatever the configuration says.
    passed: bool,
    /// Dropped: it closes.
    _close: oneshot::Sender<()>,
}

impl Doors {
    /// No listener yet, and the stream of what will come through them.
    #[must_use]
    pub fn new(keeper: Arc<Doorkeeper>) -> (Self, ReceiverStream<io::Result<Connection>>) {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let doors = Self {
            keeper,
            sender,
            open: Mutex::default(),
        };
        (doors, ReceiverStream::new(receiver))
    }

    /// Accepts through a listener from now on, which was `asked` for in these words, or was passed by
    /// the service manager.
    pub fn open(&self, bound: Bound, asked: Listen, passed: bool) {
        let door = Door {
            keeper: Arc::clone(&self.keeper),
            tls: matches!(bound.address, Listen::Tls(_)),
            sender: self.sender.clone(),
        };
        let (close, closed) = oneshot::channel();
        tokio::spawn(door.accept(bound, closed));
        lock(&self.open).push(Open {
            asked,
            passed,
            _close: close,
        });
    }

    /// Binds those addresses that are wanted and not there yet. Nothing is changed so far.
    ///
    /// # Errors
    ///
    /// As for [`bind`].
    pub async fn bind_new(
        &self,
        wanted: &[Listen],
        socket_mode: u32,
    ) -> Result<Vec<(Listen, Bound)>, BindError> {
        let mut have: Vec<Listen> = lock(&self.open)
            .iter()
            .map(|open| open.asked.clone())
            .collect();
        let mut new = Vec::new();
        for address in wanted {
            if have.contains(address) {
                continue;
            }
            have.push(address.clone());
            new.push((address.clone(), bind(address, socket_mode).await?));
        }
        Ok(new)
    }

    /// Opens what [`Doors::bind_new`] has bound, closes what is not wanted any more, and gives unix
    /// sockets their mode. Connections stay.
    pub fn change(&self, wanted: &[Listen], new: Vec<(Listen, Bound)>, socket_mode: u32) {
        lock(&self.open).retain(|open| {
            let stays = open.passed || wanted.contains(&open.asked);
            if !stays {
                tracing::info!(address = %open.asked, "does not listen there any more");
            }
            if let (true, false, Listen::Unix(path)) = (stays, open.passed, &open.asked) {
                let mode = std::fs::Permissions::from_mode(socket_mode);
                if let Err(error) = std::fs::set_permissions(path, mode) {
                    tracing::warn!(%error, address = %open.asked, "cannot change the socket's mode");
                }
            }
            stays
        });
        for (asked, bound) in new {
            tracing::info!(address = %bound.address, "listening");
            self.open(bound, asked, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_named_twice_is_bound_once() {
        let directory = tempfile::tempdir().unwrap();
        let (doors, _connections) = Doors::new(Doorkeeper::new(None, Arc::default()));
        let unix = Listen::Unix(directory.path().join("agent.sock"));
        let tcp = Listen::Tcp(([127, 0, 0, 1], 0).into());
        let wanted = [unix.clone(), tcp.clone(), unix.clone(), tcp.clone()];
        let bound = doors.bind_new(&wanted, 0o666).await.unwrap();
        let asked: Vec<_> = bound.into_iter().map(|(asked, _)| asked).collect();
        assert_eq!(asked, [unix, tcp]);
    }
}
