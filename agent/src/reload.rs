//! SIGHUP: configuration and certificates are read again, without losing a connection or a request.
//!
//! Taken at once: `[tls]` (certificate, key, authorities, `allow`), `admin_group`, `plain_tcp` and
//! `log`. What needs a restart (roots, addresses, the state directory) is named in the log, and
//! stays as it was; so does everything if the configuration has a mistake.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;

use crate::config::Settings;
use crate::net::{self, Tls};
use crate::service::Sights;
use crate::telemetry::{self, Metrics};

/// Time between two looks at the certificates' files.
const LOOK: Duration = Duration::from_secs(10);

/// Reads the configuration again.
pub type Read = Box<dyn Fn() -> anyhow::Result<Settings> + Send + Sync>;

/// What can be changed while the agent runs.
pub struct Reloader {
    read: Arc<Read>,
    /// What needs a restart, as it was at start.
    fixed: Vec<(&'static str, String)>,
    tls: Option<Arc<Tls>>,
    sights: Arc<Sights>,
    metrics: Arc<Metrics>,
}

impl Reloader {
    /// For an agent that was started with `settings`.
    #[must_use]
    pub fn new(
        read: Read,
        settings: &Settings,
        tls: Option<Arc<Tls>>,
        sights: Arc<Sights>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            read: Arc::new(read),
            fixed: fixed(settings),
            tls,
            sights,
            metrics,
        }
    }

    /// Follows the certificates' files, and SIGHUP; never ends.
    pub async fn run(self, mut hangup: Signal) {
        let follow = async {
            match &self.tls {
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
            while hangup.recv().await.is_some() {
                self.reload().await;
            }
            std::future::pending::<()>().await;
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
            Err(error) => tracing::error!("configuration not taken, the old one stays: {error}"),
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    }

    async fn apply(&self, settings: Settings) -> Result<(), String> {
        let restart: Vec<&str> = fixed(&settings)
            .into_iter()
            .zip(&self.fixed)
            .filter(|((_, new), (_, old))| new != old)
            .map(|((key, _), _)| key)
            .collect();
        if let (Some(tls), Some(new)) = (&self.tls, settings.tls) {
            let tls = Arc::clone(tls);
            tokio::task::spawn_blocking(move || tls.reload(new))
                .await
                .map_err(|error| error.to_string())?
                .map_err(|error| error.to_string())?;
        }
        telemetry::change_filter(&settings.log)?;
        self.sights.change(settings.access);
        if !restart.is_empty() {
            tracing::warn!(
                keys = restart.join(", "),
                "changed, and taken only at a restart"
            );
        }
        Ok(())
    }
}

/// What needs a restart, in a form that can be compared.
fn fixed(settings: &Settings) -> Vec<(&'static str, String)> {
    vec![
        ("system", settings.system.clone()),
        ("state_directory", format!("{:?}", settings.state_directory)),
        ("listen", format!("{:?}", settings.listen)),
        ("socket_mode", settings.socket_mode.to_string()),
        ("metrics", format!("{:?}", settings.metrics)),
        ("log_format", settings.log.json.to_string()),
        ("tls", settings.tls.is_some().to_string()),
        ("root", format!("{:?}", settings.roots)),
    ]
}
