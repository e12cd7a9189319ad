//! Says in the log and in the metrics until when the certificates in use are valid, before clients and agents do.

use std::sync::Arc;

use jiff::Timestamp;
use sifter_tls::Held;

use crate::telemetry::Metrics;

/// The certificates in use, and when to speak of them next.
pub(super) struct Reminder {
    certificates: sifter_tls::Reminder,
    metrics: Arc<Metrics>,
}

impl Reminder {
    /// Of none yet.
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            certificates: sifter_tls::Reminder::default(),
            metrics,
        }
    }

    /// Certificates were read.
    pub(super) fn replace(&mut self, new: Vec<Held>) {
        for held in &new {
            let validity = held.validity;
            self.metrics
                .certificate(held.setting, validity.not_after, validity.renewal());
        }
        self.certificates.replace(new);
    }

    /// Logs what is to be said: when certificates have been read, and then once a day.
    pub(super) fn remind(&mut self, now: Timestamp) {
        for held in self.certificates.due(now) {
            if let Some(warning) = held.warning(now) {
                tracing::warn!(
                    certificate = held.setting,
                    file = %held.file.display(),
                    until = %held.validity.not_after,
                    "{warning}: renew it"
                );
            }
        }
    }
}
