//! A listener: accepts connections, no more at a time than allowed, until it is told to stop.

use std::net::IpAddr;
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

/// What one host can be given of IPv6: it chooses its addresses in there as it likes.
const HOST_PREFIX: u8 = 64;

/// The connections of all listeners of a kind: how many there may be, and how many one client may have of
/// them, so that nobody alone keeps the others out.
#[derive(Debug)]
pub(super) struct Slots {
    all: Arc<Semaphore>,
    of_client: usize,
    /// Whose connections are many clients' and not counted: proxies.
    proxies: Vec<IpNet>,
    held: Tally<IpNet>,
}

impl Slots {
    /// A quarter of all for each client, but a handful at least.
    pub(super) fn new(all: usize, proxies: Vec<IpNet>) -> Arc<Self> {
        Arc::new(Self {
            all: Arc::new(Semaphore::new(all)),
            of_client: (all / 4).max(8),
            proxies,
            held: Tally::new(),
        })
    }

    /// Counts a connection from an address, until what is given is dropped; `None` if its client has enough.
    fn hold(&self, address: IpAddr) -> Option<Held<IpNet>> {
        let address = address.to_canonical();
        let is_proxy = self.proxies.iter().any(|proxy| proxy.contains(&address));
        if is_proxy {
            self.held.take(address.into(), usize::MAX)
        } else {
            self.held.take(client(address), self.of_client)
        }
    }
}

/// Whom an address counts for: itself, and of IPv6 the network of its host.
fn client(address: IpAddr) -> IpNet {
    let network = IpNet::from(address);
    let of_host = network.prefix_len().min(HOST_PREFIX);
    IpNet::new(address, of_host).map_or(network, |network| network.trunc())
}

/// When something was said last that would be said of each connection.
#[derive(Default)]
struct Told(Option<Instant>);

impl Told {
    /// Whether to say it now.
    fn is_due(&mut self) -> bool {
        let is_due = self.0.is_none_or(|told| told.elapsed() >= TELL_EVERY);
        if is_due {
            self.0 = Some(Instant::now());
        }
        is_due
    }
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
    let (mut refused, mut failed) = (Told::default(), Told::default());
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
                    context.app.metrics.connections_refused.inc();
                    if refused.is_due() {
                        tracing::warn!(
                            client = %address.ip(),
                            limit = slots.of_client,
                            "connections of one address, or of one /64 of IPv6, are refused: name it \
                             in server.trusted_proxies if it is a proxy of yours, or raise \
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
                if failed.is_due() {
                    tracing::warn!(
                        %error,
                        "cannot accept a connection: if descriptors are short, raise LimitNOFILE of the \
                         unit or lower limits.max_connections"
                    );
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{Slots, TELL_EVERY, Told};

    #[test]
    fn what_is_said_of_each_connection_is_said_once_in_a_while() {
        let mut told = Told::default();
        assert_eq!([told.is_due(), told.is_due()], [true, false]);
        told.0 = Instant::now().checked_sub(TELL_EVERY);
        assert!(told.is_due());
    }

    #[test]
    fn one_client_has_a_quarter_and_proxies_have_what_they_need() {
        // All from one address, and then one more connection from another.
        for (address, other, is_let_in) in [
            ("192.0.2.1", "192.0.2.1", false),
            ("192.0.2.1", "::ffff:192.0.2.1", false),
            ("192.0.2.1", "192.0.2.2", true),
            // A host has all addresses of its network.
            ("2001:db8::1", "2001:db8::2", false),
            ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", false),
            ("2001:db8::1", "2001:db8:0:1::1", true),
            ("2001:db8::1", "192.0.2.1", true),
            ("192.0.2.1", "::1", true),
            ("10.0.0.1", "10.0.0.1", true),
            // Only what is named is a proxy, not its network.
            ("2001:db8:1::1", "2001:db8:1::1", true),
            ("2001:db8:1::2", "2001:db8:1::3", false),
            ("2001:db8:1::2", "2001:db8:1::1", true),
            // What a proxy has is not counted for the hosts beside it.
            ("2001:db8:1::1", "2001:db8:1::2", true),
        ] {
            let proxies = ["10.0.0.0/8", "2001:db8:1::1/128"];
            let slots = Slots::new(100, proxies.map(|proxy| proxy.parse().unwrap()).to_vec());
            let hold = |address: &str| slots.hold(address.parse().unwrap());
            let held: Vec<_> = (0..25).map(|_| hold(address).unwrap()).collect();
            assert_eq!(hold(other).is_some(), is_let_in, "{address} {other}");
            drop(held);
            assert!(hold(other).is_some(), "{address} {other}");
            assert!(slots.held.is_empty());
        }
        let few = Slots::new(2, Vec::new());
        let held: Vec<_> = (0..8).map(|_| few.hold([192, 0, 2, 1].into())).collect();
        assert!(held.iter().all(Option::is_some));
    }
}
