//! Takes over what has changed, told to or having noticed by itself.
//!
//! Each part is replaced only by a whole and valid one; what is wrong goes to the log and the old
//! one stays.

use std::path::PathBuf;
use std::sync::MutexGuard;

use jiff::Timestamp;
use sifter_tls::FileWatch;

use super::Running;
use crate::config::Settings;
use crate::fleet;
use crate::lock::lock;
use crate::server::reminder::Reminder;
use crate::words::chain;

/// The files that are followed.
pub(super) struct Watches {
    config: FileWatch,
    certificate: FileWatch,
    agent_tls: FileWatch,
}

impl Watches {
    pub(super) fn new(settings: &Settings, source: Option<&PathBuf>) -> Self {
        let certificate = settings.server.tls.iter();
        let agent_tls = settings.agents.tls.iter();
        Self {
            config: FileWatch::new(
                source
                    .into_iter()
                    .flat_map(|path| [path.clone(), Settings::drop_ins(path)]),
            ),
            certificate: FileWatch::new(
                certificate.flat_map(|tls| [tls.cert.clone(), tls.key.clone()]),
            ),
            agent_tls: FileWatch::new(
                agent_tls.flat_map(|tls| [tls.ca.clone(), tls.cert.clone(), tls.key.clone()]),
            ),
        }
    }
}

impl Running {
    /// Reads every file again.
    pub fn reload(&self) {
        {
            let mut watches = lock(&self.watches);
            // What has been taken over is not taken over once more at the next look.
            watches.config.catch_up();
            watches.certificate.catch_up();
            watches.agent_tls.catch_up();
        }
        self.reload_config();
        self.reload_certificate();
        self.reload_agent_tls();
        if let Some(authenticator) = &self.app.authenticator {
            let is_right = authenticator.keys().reload();
            self.app.metrics.reload("keys", is_right);
        }
        self.reminder().remind(Timestamp::now());
    }

    /// Reads again what has changed since the last look, and says once a day which certificates end soon. Blocks
    /// for as long as `stat` does.
    pub fn reload_changed(&self) {
        let (config, certificate, agent_tls) = {
            let mut watches = lock(&self.watches);
            (
                watches.config.changed(),
                watches.certificate.changed(),
                watches.agent_tls.changed(),
            )
        };
        if config {
            self.reload_config();
        }
        if certificate {
            self.reload_certificate();
        }
        if agent_tls {
            self.reload_agent_tls();
        }
        if let Some(authenticator) = &self.app.authenticator
            && let Some(is_right) = authenticator.keys().poll()
        {
            self.app.metrics.reload("keys", is_right);
        }
        self.reminder().remind(Timestamp::now());
    }

    fn reminder(&self) -> MutexGuard<'_, Reminder> {
        lock(&self.reminder)
    }

    fn reload_config(&self) {
        let Some(source) = &self.source else { return };
        let result = Settings::load(source);
        self.app.metrics.reload("config", result.is_ok());
        match result {
            Ok(settings) => self.take_over(settings),
            Err(error) => tracing::error!(
                error = %chain(&error),
                "the configuration was not taken over: the clusters stay as they were"
            ),
        }
    }

    fn take_over(&self, mut settings: Settings) {
        self.registry
            .replace(std::mem::take(&mut settings.clusters));
        self.app.fleet.registry_changed();
        self.app.metrics.clusters.set(self.registry.len() as i64);
        let mut current = self.app.settings.clone();
        current.clusters.clear();
        // Settings have no secrets, and this is not on any request's way.
        if format!("{current:?}") != format!("{settings:?}") {
            tracing::warn!(
                "only changes to [[clusters]] are taken over while running: restart for the others"
            );
        }
        tracing::info!(clusters = self.registry.len(), "clusters taken over");
    }

    fn reload_certificate(&self) {
        let Some(certificate) = &self.certificate else {
            return;
        };
        let result = certificate.reload();
        self.app.metrics.reload("certificate", result.is_ok());
        match result {
            Ok(held) => {
                tracing::info!("certificate taken over");
                self.reminder().replace(held);
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "the old certificate stays in use");
            }
        }
    }

    fn reload_agent_tls(&self) {
        let Some(files) = &self.app.settings.agents.tls else {
            return;
        };
        let result = fleet::load_agent_tls(files);
        self.app.metrics.reload("agent_tls", result.is_ok());
        match result {
            Ok((tls, held)) => {
                self.app.fleet.set_tls(Some(tls));
                tracing::info!("certificates to the agents taken over");
                self.reminder().replace(held);
            }
            Err(error) => tracing::error!(
                error = %chain(&error),
                "the old certificates to the agents stay in use"
            ),
        }
    }
}
