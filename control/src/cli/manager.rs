//! What the service manager is told: that the program is ready, that it is alive, and in one line,
//! what it does. Where no service manager listens, nothing happens.
//!
//! Alive means: connections are accepted, the runtime runs tasks, and a request is answered in time.
//! Login nodes that do not answer are no reason to restart: the status line counts them.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::server::Running;

/// Time between two looks where no watchdog asks for a shorter one.
const EVERY: Duration = Duration::from_secs(5);

/// Tells the service manager of states.
pub(super) fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}

/// Tells it that files are being read again.
pub(super) fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "cannot tell the service manager"),
    }
}

/// Gives signs of life, until dropped.
pub(super) async fn inform(running: Arc<Running>) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let watchdog = sd_notify::watchdog_enabled();
    // Twice within the watchdog's time, as its manual asks, and once more for a slow look.
    let every = watchdog.map_or(EVERY, |watchdog| EVERY.min(watchdog / 3));
    let mut told = String::new();
    loop {
        match tokio::time::timeout(every, running.check_alive()).await {
            Ok(Ok(())) => {
                if watchdog.is_some() {
                    notify(&[NotifyState::Watchdog]);
                }
                let summary = running.summary();
                if summary != told {
                    notify(&[NotifyState::Status(&summary)]);
                    told = summary;
                }
            }
            Ok(Err(error)) => tracing::error!(
                error = %crate::words::chain(&error),
                "requests are not answered: no sign of life is given"
            ),
            Err(_) => tracing::error!("no answer in time: no sign of life is given"),
        }
        tokio::time::sleep(every).await;
    }
}
