//! A listener: accepts connections, no more at a time than allowed, until it is told to stop.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::connection;
use super::connection::Context;
use super::tally::{Held, Tally};

/// How long to wait when there are no descriptors left: accepting again at once would only spin.
const PAUSE: Duration = Duration::from_millis(100);

/// The log has one line in so long of connections that are refused, however many there are.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// The connections of all listeners of a kind: how many there may be, and how many one address may have of
/// them, so that nobody alone keeps the others out.
#[derive(Debug)]
pub(super) struct Slots {
    all: Arc<Semaphore>,
    of_address: usize,
    /// Whose connections are many clients' and not counted: proxies.
    proxies: Vec<IpNet>,
    held: Tally<IpAddr>,
}

impl Slots {
    /// A quarter of all for each address, but a handful at least.
    pub(super) fn new(all: usize, proxies: Vec<IpNet>) -> Arc<Self> {
        Arc::new(Self {
            all: Arc::new(Semaphore::new(all)),
            of_address: (all / 4).max(8),
            proxies,
            held: Tally::new(),
        })
    }

    /// Counts a connection of an address, until what is given is dropped; `None` if it has enough.
    fn hold(&self, address: IpAddr) -> Option<Held<IpAddr>> {
        let address = address.to_canonical();
        let is_proxy = self.proxies.iter().any(|proxy| proxy.contains(&address));
        let limit = if is_proxy {
            usize::MAX
        } else {
            self.of_address
        };
        self.held.take(address, limit)
    }
}

/// Binds an address, telling which one if that fails.
pub(super) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Accepts connections until `context.closing` turns true.
pub(super) async fn accept(
    listener: TcpListener,
    context: Context,
    slots: Arc<Slots>,
    tasks: TaskTracker,
) {
    let mut closing = context.closing.clone();
    let stop = closing.wait_for(|closing| *closing);
    tokio::pin!(stop);
    let mut told: Option<Instant> = None;
    loop {
        let next = async {
            // Whoever has no slot waits in the kernel's queue.
            let slot = Arc::clone(&slots.all).acquire_owned().await;
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
                let Some(held) = slots.hold(address.ip()) else {
                    if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                        told = Some(Instant::now());
                        tracing::warn!(
                            client = %address.ip(),
                            limit = slots.of_address,
                            "connections of one address are refused: name it in \
                             server.trusted_proxies if it is a proxy of yours, or raise \
                             limits.max_connections"
                        );
                    }
                    continue;
                };
                // Answers are one small write; waiting for more of it helps nobody.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "cannot set TCP_NODELAY");
                }
                let context = context.clone();
                tasks.spawn(async move {
                    connection::serve(context, stream, address).await;
                    drop((slot, held));
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Slots;

    #[test]
    fn one_address_has_a_quarter_and_proxies_have_what_they_need() {
        let slots = Slots::new(100, vec!["10.0.0.0/8".parse().unwrap()]);
        let hold = |address: &str| slots.hold(address.parse().unwrap());
        let held: Vec<_> = (0..25).map(|_| hold("192.0.2.1").unwrap()).collect();
        assert!(hold("192.0.2.1").is_none() && hold("::ffff:192.0.2.1").is_none());
        let other = hold("192.0.2.2");
        let proxy: Vec<_> = (0..60).map(|_| hold("10.0.0.1").unwrap()).collect();
        drop((held, other, proxy));
        assert!(hold("192.0.2.1").is_some());
        assert!(slots.held.is_empty());
        let few = Slots::new(2, Vec::new());
        let held: Vec<_> = (0..8).map(|_| few.hold([192, 0, 2, 1].into())).collect();
        assert!(held.iter().all(Option::is_some));
    }
}
