//! A listener: accepts connections, no more at a time than allowed, until it is told to stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::connection;
use super::connection::Context;

/// How long to wait when there are no descriptors left: accepting again at once would only spin.
const PAUSE: Duration = Duration::from_millis(100);

/// Binds an address, telling which one if that fails.
pub(super) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Accepts connections until `context.closing` turns true.
pub(super) async fn accept(
    listener: TcpListener,
    context: Context,
    slots: Arc<Semaphore>,
    tasks: TaskTracker,
) {
    let mut closing = context.closing.clone();
    let stop = closing.wait_for(|closing| *closing);
    tokio::pin!(stop);
    loop {
        let next = async {
            // Whoever has no slot waits in the kernel's queue.
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            biased;
            _ = &mut stop => return,
            next = next => next,
        };
        let Ok(slot) = slot else { return };
        match accepted {
            Ok((stream, address)) => {
                // Answers are one small write; waiting for more of it helps nobody.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "cannot set TCP_NODELAY");
                }
                let context = context.clone();
                tasks.spawn(async move {
                    connection::serve(context, stream, address).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
