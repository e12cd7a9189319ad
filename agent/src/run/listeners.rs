//! The listeners that the agent starts with.

use anyhow::Context;
use tokio::net::TcpListener;

use crate::config::{Listen, Settings};
use crate::net::{self, Bound, Passed, Socket};
use crate::socket::UnixSocket;
use crate::telemetry::Scrapes;

/// A listener, and how it came about.
pub(super) struct Listener {
    pub(super) bound: Bound,
    /// The address in the words of the configuration.
    pub(super) asked: Listen,
    /// Whether the service manager has passed it.
    pub(super) passed: bool,
}

/// The listeners, and those for the metrics: first what the service manager passes, then those
/// addresses of the configuration for which there is nothing yet.
pub(super) async fn bind(
    settings: &Settings,
    passed: Vec<Passed>,
) -> anyhow::Result<(Vec<Listener>, Vec<Scrapes>)> {
    let mut listeners: Vec<Listener> = Vec::new();
    let mut scrapes = Vec::new();
    for passed in passed {
        let place = passed.to_string();
        let name = passed.name;
        tracing::info!(address = place, name, "socket of the service manager");
        let wrong = || format!("socket {name} ({place}) of the service manager");
        if name == net::METRICS {
            scrapes.push(match passed.socket {
                Socket::Unix(listener, _) => {
                    Scrapes::Unix(UnixSocket::adopt(listener).with_context(wrong)?, place)
                }
                Socket::Tcp(listener, _) => {
                    Scrapes::Tcp(TcpListener::from_std(listener).with_context(wrong)?, place)
                }
            });
            continue;
        }
        let address = match &passed.socket {
            Socket::Unix(_, path) => Listen::Unix(path.clone()),
            Socket::Tcp(_, address) => settings
                .listen_for(*address, name == net::TLS)
                .map_err(anyhow::Error::msg)
                .with_context(wrong)?,
        };
        listeners.push(Listener {
            bound: net::adopt(passed.socket, address.clone()).with_context(wrong)?,
            asked: address,
            passed: true,
        });
    }
    for address in &settings.listen {
        if !listeners.iter().any(|listener| listener.asked == *address) {
            listeners.push(Listener {
                bound: net::bind(address, settings.socket_mode).await?,
                asked: address.clone(),
                passed: false,
            });
        }
    }
    Ok((listeners, scrapes))
}
