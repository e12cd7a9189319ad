//! Says in the log and in the metrics until when the certificates in use are valid, before clients and agents do,
//! and in the log which files others can read or replace.

use std::sync::Arc;

use jiff::Timestamp;
use sifter_tls::Held;

use crate::telemetry::Metrics;

/// Certificates and keys in use, and when to speak of them next.
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

    /// Files were read.
    pub(super) fn replace(&mut self, new: Vec<Held>) {
        for held in &new {
            if let Some(validity) = held.validity {
                self.metrics
                    .certificate(held.setting, validity.not_after, validity.renewal());
            }
        }
        self.certificates.replace(new);
    }

    /// Logs what is to be said: when files have been read, and then once a day.
    pub(super) fn remind(&mut self, now: Timestamp) {
        for held in self.certificates.due(now) {
            let (setting, file) = (held.setting, held.file.display());
            if let Some((warning, until)) = held.ending(now) {
                tracing::warn!(certificate = setting, %file, %until, "{warning}");
            }
            if let Some(problem) = &held.problem {
                tracing::warn!(%file, "{setting} is not safe: {problem}");
            }
        }
    }
}
