//! What the service manager is told while the agent runs: that it is alive, and in one line, what it
//! does. Where no service manager listens, nothing happens.
//!
//! Alive means: the runtime runs tasks, its blocking threads are free, and catalogue and supervisor
//! answer in time. A hung file system is no reason to restart: its root is reported, all else answers.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::engine::Engines;
use crate::scan::RootStatus;
use crate::words;

/// Time between two looks where no watchdog asks for a shorter one.
const EVERY: Duration = Duration::from_secs(5);

/// The same while a scan runs: people look at the line after a start, and see soon what has come of it.
const EVERY_SCANNING: Duration = Duration::from_secs(1);

/// Tells the service manager, until dropped.
pub async fn inform(engines: Arc<Engines>) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let watchdog = sd_notify::watchdog_enabled();
    // Twice within the watchdog's time, as its manual asks, and once more for a slow look.
    let every = watchdog.map_or(EVERY, |watchdog| EVERY.min(watchdog / 3));
    let mut told = String::new();
    loop {
        let engine = engines.current();
        let look = tokio::task::spawn_blocking(move || {
            let roots = engine.supervisor.status();
            let images = engine.catalog.snapshot().rows.len();
            (summary(&roots, images), pause(&roots, every))
        });
        let mut next = every;
        match tokio::time::timeout(every, look).await {
            Ok(Ok((summary, pause))) => {
                next = pause;
                if watchdog.is_some() {
                    let _ = sd_notify::notify(&[NotifyState::Watchdog]);
                }
                if summary != told {
                    let _ = sd_notify::notify(&[NotifyState::Status(&summary)]);
                    told = summary;
                }
            }
            Ok(Err(error)) => tracing::error!(%error, "catalogue and scans cannot be looked at"),
            Err(_) => {
                tracing::error!("catalogue and scans do not answer: no sign of life is given")
            }
        }
        tokio::time::sleep(next).await;
    }
}

/// How long the next look is waited for, where it is `every` while nothing happens.
fn pause(roots: &[RootStatus], every: Duration) -> Duration {
    if roots.iter().any(|root| root.progress.is_some()) {
        every.min(EVERY_SCANNING)
    } else {
        every
    }
}

/// Asks the service manager to wait so much longer for a start.
pub fn extend_start(time: Duration) {
    let microseconds = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    let _ = sd_notify::notify(&[NotifyState::ExtendTimeoutUsec(microseconds)]);
}

/// One line for `systemctl status`.
fn summary(roots: &[RootStatus], images: usize) -> String {
    let count = |is: &dyn Fn(&RootStatus) -> bool| roots.iter().filter(|root| is(root)).count();
    let scanning = count(&|root| root.progress.is_some());
    let unavailable = count(&|root| root.root_state.is_unavailable());
    let mut line = format!(
        "{} in {}",
        words::count(images as u64, "image"),
        words::count(roots.len() as u64, "root")
    );
    if unavailable > 0 {
        line.push_str(&format!(", {unavailable} cannot be read"));
    }
    if scanning > 0 {
        line.push_str(&format!(", {scanning} being scanned"));
    }
    line
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{EVERY, pause, summary};
    use crate::catalog::FileTime;
    use crate::scan::{HintState, Progress, RootState, RootStatus};

    fn root(root_state: RootState, is_scanning: bool) -> RootStatus {
        RootStatus {
            path: "/images".into(),
            root_state,
            unknown: false,
            file_system: None,
            last: None,
            progress: is_scanning.then(|| (Arc::new(Progress::default()), FileTime::now())),
            next: None,
            hint: HintState::Interval,
        }
    }

    #[test]
    fn one_line_says_what_the_agent_does() {
        let gone = || RootState::Unavailable("stale".to_owned());
        for (roots, images, expected) in [
            (vec![root(RootState::Ok, false)], 1, "1 image in 1 root"),
            (
                vec![root(RootState::Ok, false), root(gone(), false)],
                36,
                "36 images in 2 roots, 1 cannot be read",
            ),
            (
                vec![root(gone(), true), root(RootState::Pending, true)],
                0,
                "0 images in 2 roots, 1 cannot be read, 2 being scanned",
            ),
        ] {
            assert_eq!(summary(&roots, images), expected);
            let soon = pause(&roots, EVERY) < EVERY;
            assert_eq!(soon, expected.contains("being scanned"), "{expected}");
        }
    }
}
