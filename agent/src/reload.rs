//! SIGHUP: configuration and certificates are read again, without losing a connection or a request.
//!
//! Taken at once: roots and their settings, `listen`, `socket_mode`, `metrics`, `[tls]` (certificate,
//! key, authorities, `allow`), `admin_group`, `plain_tcp` and `log`. What needs a restart is named in
//! the log, and stays as it was; so does everything if the configuration has a mistake or an address
//! cannot be bound.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sifter_proto::v1::Confinement;
use tokio::signal::unix::Signal;

use crate::config::{RootSettings, Settings};
use crate::confine::Confined;
use crate::engine::{Engines, KeepsRoots};
use crate::escape;
use crate::lock::lock;
use crate::net::{self, Doors, Tls};
use crate::service::Sights;
use crate::telemetry::{self, Metrics, Pages};

/// Time between two looks at the certificates' files: a change is taken when two looks agree, within 10 s.
const LOOK: Duration = Duration::from_secs(5);

/// Time between two looks whether the roots can be changed that could not be when they were told.
const LOOK_FOR_DATABASE: Duration = Duration::from_secs(1);

/// Reads the configuration again.
pub type Read = Box<dyn Fn() -> anyhow::Result<Settings> + Send + Sync>;

/// What can be changed while the agent runs.
pub struct Changeable {
    /// The certificates, if there were any at start.
    pub tls: Option<Arc<Tls>>,
    /// Who sees what.
    pub sights: Arc<Sights>,
    /// The listeners.
    pub doors: Arc<Doors>,
    /// Where the metrics are served.
    pub pages: Pages,
    /// Roots and their scans.
    pub engines: Arc<Engines>,
    /// What cannot be changed: where the agent may read.
    pub confined: Confined,
}

/// Takes a changed configuration.
pub struct Reloader {
    read: Arc<Read>,
    /// What needs a restart, as it was at start.
    fixed: Vec<(&'static str, String)>,
    /// The roots in use, as they are compared.
    roots: Mutex<String>,
    /// Those of the last configuration, where they could not be taken because the database failed.
    waiting: Mutex<Option<Vec<RootSettings>>>,
    at: Changeable,
    metrics: Arc<Metrics>,
}

impl Reloader {
    /// For an agent that was started with `settings`.
    #[must_use]
    pub fn new(read: Read, settings: Settings, at: Changeable, metrics: Arc<Metrics>) -> Self {
        Self {
            read: Arc::new(read),
            fixed: fixed(&settings),
            roots: Mutex::new(format!("{:?}", settings.roots)),
            waiting: Mutex::default(),
            at,
            metrics,
        }
    }

    /// Follows the certificates' files, and SIGHUP; never ends.
    pub async fn run(self, mut hangup: Signal) {
        let follow = async {
            match &self.at.tls {
                None => std::future::pending().await,
                Some(tls) => {
                    net::follow(Arc::clone(tls), LOOK, |result| {
                        self.metrics.reloaded("certificates", result.is_ok());
                        match result {
                            Ok(()) => {
                                tracing::info!("certificates have changed: in use from now on")
                            }
                            Err(error) => tracing::error!(
                                %error,
                                "certificates have changed, and cannot be used: the old ones stay"
                            ),
                        }
                    })
                    .await;
                }
            }
        };
        let told = async {
            loop {
                tokio::select! {
                    told = hangup.recv() => match told {
                        Some(()) => self.reload().await,
                        None => std::future::pending().await,
                    },
                    roots = self.waited() => {
                        if let Err(error) = self.apply_roots(roots).await {
                            tracing::error!("roots not taken, the old ones stay: {error}");
                        }
                    }
                }
            }
        };
        tokio::join!(follow, told);
    }

    async fn reload(&self) {
        let mut states = vec![sd_notify::NotifyState::Reloading];
        if let Ok(now) = sd_notify::NotifyState::monotonic_usec_now() {
            states.push(now);
        }
        let _ = sd_notify::notify(&states);
        tracing::info!("SIGHUP: reading the configuration again");
        let read = Arc::clone(&self.read);
        let settings = tokio::task::spawn_blocking(move || read()).await;
        let result = match settings {
            Ok(Ok(settings)) => self.apply(settings).await,
            Ok(Err(error)) => Err(format!("{error:#}")),
            Err(error) => Err(error.to_string()),
        };
        self.metrics.reloaded("configuration", result.is_ok());
        match result {
            Ok(()) => tracing::info!("configuration in use"),
            Err(error) => {
                let hint = hint(self.at.confined.state, &error);
                tracing::error!("configuration not taken, the old one stays: {error}{hint}");
            }
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    }

    async fn apply(&self, settings: Settings) -> Result<(), String> {
        let mut restart: Vec<&str> = fixed(&settings)
            .into_iter()
            .zip(&self.fixed)
            .filter(|((_, new), (_, old))| new != old)
            .map(|((key, _), _)| key)
            .collect();

        // First what may fail, …
        let takes_listen = !restart.contains(&"tls");
        let bound = if takes_listen {
            let mode = settings.socket_mode;
            let bound = self.at.doors.bind_new(&settings.listen, mode).await;
            bound.map_err(|error| error.to_string())?
        } else {
            restart.push("listen");
            Vec::new()
        };
        let metrics = settings.metrics.as_ref();
        let moves_metrics = !self.at.pages.are_at(metrics);
        let scrapes = match metrics.filter(|_| moves_metrics) {
            None => None,
            Some(address) => Some(
                net::bind_metrics(address)
                    .await
                    .map_err(|error| error.to_string())?,
            ),
        };
        if let (Some(tls), Some(new)) = (&self.at.tls, settings.tls) {
            let tls = Arc::clone(tls);
            tokio::task::spawn_blocking(move || tls.reload(new))
                .await
                .map_err(|error| error.to_string())?
                .map_err(|error| error.to_string())?;
        }
        telemetry::change_filter(&settings.log)?;

        // … then what cannot.
        self.at.sights.change(settings.access);
        if takes_listen {
            let mode = settings.socket_mode;
            self.at.doors.change(&settings.listen, bound, mode);
        }
        if moves_metrics {
            self.at.pages.serve(metrics, scrapes);
        }
        self.apply_roots(settings.roots).await?;
        if !restart.is_empty() {
            tracing::warn!(
                keys = restart.join(", "),
                "changed, and taken only at a restart"
            );
        }
        Ok(())
    }

    /// The roots that waited until they could be changed; never ends where none do.
    async fn waited(&self) -> Vec<RootSettings> {
        let waiting = || lock(&self.waiting);
        while waiting().is_some() {
            tokio::time::sleep(LOOK_FOR_DATABASE).await;
            if self.at.engines.keeps_roots().is_none()
                && let Some(roots) = waiting().take()
            {
                return roots;
            }
        }
        std::future::pending().await
    }

    async fn apply_roots(&self, mut roots: Vec<RootSettings>) -> Result<(), String> {
        roots.retain(|root| {
            let may = self.at.confined.lets_in(&root.path);
            if !may {
                tracing::warn!(
                    root = escape::path(&root.path),
                    "added, and taken only at a restart: Landlock confines this process to the \
                     roots that it was started with"
                );
            }
            may
        });
        // Whatever waited, these are newer.
        *lock(&self.waiting) = None;
        let new = format!("{roots:?}");
        if *lock(&self.roots) == new {
            return Ok(());
        }
        if roots.is_empty() {
            tracing::warn!("no root would be left: the old ones stay until a restart");
            return Ok(());
        }
        if let Some(why) = self.at.engines.keeps_roots() {
            tracing::warn!("roots changed, and are not taken: {why}");
            if why == KeepsRoots::DatabaseFails {
                *lock(&self.waiting) = Some(roots);
            }
            return Ok(());
        }
        let count = roots.len();
        let engines = Arc::clone(&self.at.engines);
        // If that fails, any reload tries it again: it may have left nobody who scans.
        lock(&self.roots).clear();
        tokio::task::spawn_blocking(move || engines.replace(roots))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| format!("{error:#}"))?;
        *lock(&self.roots) = new;
        tracing::info!(roots = count, "roots in use");
        Ok(())
    }
}

/// What Landlock has to do with an error of a reload, if that can be. It denies as permissions do,
/// and in those words alone: `EACCES`.
fn hint(state: Confinement, error: &str) -> &'static str {
    let denied = std::io::Error::from_raw_os_error(nix::libc::EACCES).to_string();
    match state {
        // It denies files: what no path is in is a port.
        Confinement::Full | Confinement::Partial
            if error.contains(&denied) && error.contains('/') =>
        {
            " (Landlock confines this process to what its configuration named at start: \
             directories that are new there need a restart)"
        }
        _ => "",
    }
}

/// What needs a restart, in a form that can be compared.
fn fixed(settings: &Settings) -> Vec<(&'static str, String)> {
    vec![
        ("system", settings.system.clone()),
        ("state_directory", format!("{:?}", settings.state_directory)),
        ("landlock", settings.landlock.to_string()),
        ("log_format", settings.log.json.to_string()),
        ("tls", settings.tls.is_some().to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::{Confinement, hint};

    #[test]
    fn landlock_is_named_only_where_it_may_be_the_reason() {
        let denied = std::io::Error::from(nix::errno::Errno::EACCES);
        let denied = format!("listen on unix:/new/agent.sock: {denied}");
        for (state, error, expected) in [
            (Confinement::Full, denied.as_str(), true),
            (Confinement::Partial, &denied, true),
            (Confinement::Off, &denied, false),
            (
                Confinement::Full,
                "listen on 127.0.0.1:80: Permission denied (os error 13)",
                false,
            ),
            (Confinement::Full, "configuration: system: is empty", false),
            (
                Confinement::Full,
                "listen on 127.0.0.1:1: Address already in use (os error 98)",
                false,
            ),
        ] {
            let hint = hint(state, error);
            assert_eq!(hint.contains("Landlock"), expected, "{error}: {hint}");
        }
    }
}
