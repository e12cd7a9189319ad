//! Until when this program's own certificates are valid, so that the log and a metric say it before clients
//! and agents do.
//!
//! The files are read for this alone: a certificate that is in use stays what was last said of it, whatever
//! becomes of its file.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::SignedDuration;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::FromDer;
use x509_parser::prelude::X509Certificate;

use crate::config::Settings;
use crate::telemetry::Metrics;
use crate::words::count;

/// The certificate that clients are shown, by its key in the configuration.
pub(super) const SERVER: &str = "server.cert";

/// The one that agents are shown.
pub(super) const AGENT_TLS: &str = "agent_tls.cert";

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// How long before its end a certificate should have been renewed, at most.
const RENEW_WITHIN: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Or with one part in so many of its life left. Whatever renews certificates by itself does so with a third
/// left: one with less than a quarter was not renewed.
const LEFT: i32 = 4;

/// A certificate of this program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// The key of the configuration that names its file.
    pub key: &'static str,
    /// The file.
    pub file: PathBuf,
    /// Until when it is valid.
    pub not_after: Timestamp,
    not_before: Timestamp,
}

impl Expiry {
    /// Of the first certificate in a file: the others are of authorities.
    fn of(key: &'static str, file: &Path) -> Option<Self> {
        let certificate = CertificateDer::pem_file_iter(file).ok()?.next()?.ok()?;
        let (_, parsed) = X509Certificate::from_der(&certificate).ok()?;
        // What is to last forever ends with the year 9999, after all that can be counted here.
        let time = |seconds| Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
        Some(Self {
            key,
            file: file.to_owned(),
            not_after: time(parsed.validity().not_after.timestamp()),
            not_before: time(parsed.validity().not_before.timestamp()),
        })
    }

    /// When it should have been renewed.
    pub fn renewal(&self) -> Timestamp {
        let life = self.not_after.duration_since(self.not_before);
        self.not_after - RENEW_WITHIN.min(life / LEFT)
    }

    /// What is to be said of it, if anything.
    pub fn warning(&self, now: Timestamp) -> Option<String> {
        let left = self.not_after.duration_since(now);
        if left <= SignedDuration::ZERO {
            return Some("the certificate has expired: renew it".to_owned());
        }
        (self.renewal() <= now).then(|| {
            let days = usize::try_from(left.as_hours() / 24 + 1).unwrap_or_default();
            let days = count(days, "day");
            format!("the certificate expires in less than {days}: renew it")
        })
    }
}

/// All certificates that a configuration names and that can be read.
pub fn expiries(settings: &Settings) -> Vec<Expiry> {
    let server = settings.server.tls.iter().map(|tls| (SERVER, &tls.cert));
    let agents = settings.agents.tls.iter().map(|tls| (AGENT_TLS, &tls.cert));
    server
        .chain(agents)
        .filter_map(|(key, file)| Expiry::of(key, file))
        .collect()
}

/// The certificates in use, and when to speak of them next.
pub(super) struct Reminder {
    held: Vec<Expiry>,
    next: Timestamp,
    metrics: Arc<Metrics>,
}

impl Reminder {
    /// Of the certificates that were just read.
    pub(super) fn new(settings: &Settings, metrics: Arc<Metrics>) -> Self {
        let held = expiries(settings);
        for expiry in &held {
            metrics.certificate(expiry.key, expiry.not_after, expiry.renewal());
        }
        Self {
            held,
            next: Timestamp::MIN,
            metrics,
        }
    }

    /// A certificate was read again.
    pub(super) fn replace(&mut self, key: &'static str, file: &Path) {
        let Some(expiry) = Expiry::of(key, file) else {
            return;
        };
        self.metrics
            .certificate(key, expiry.not_after, expiry.renewal());
        self.held.retain(|held| held.key != key);
        self.held.push(expiry);
        self.next = Timestamp::MIN;
    }

    /// Logs what is to be said: when certificates have been read, and then once a day.
    pub(super) fn remind(&mut self, now: Timestamp) {
        for (expiry, warning) in self.due(now) {
            tracing::warn!(
                certificate = expiry.key,
                file = %expiry.file.display(),
                until = %expiry.not_after,
                "{warning}"
            );
        }
    }

    fn due(&mut self, now: Timestamp) -> Vec<(&Expiry, String)> {
        if now < self.next {
            return Vec::new();
        }
        self.next = now.saturating_add(DAY).unwrap_or(Timestamp::MAX);
        self.held
            .iter()
            .filter_map(|expiry| Some((expiry, expiry.warning(now)?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn expiry(not_before: &str, not_after: &str) -> Expiry {
        Expiry {
            key: SERVER,
            file: "x.pem".into(),
            not_before: time(not_before),
            not_after: time(not_after),
        }
    }

    #[test]
    fn a_certificate_near_its_end_is_spoken_of() {
        let year = expiry("2025-07-01T00:00:00Z", "2026-07-01T00:00:00Z");
        let quarter = expiry("2026-04-02T00:00:00Z", "2026-07-01T00:00:00Z");
        let hour = expiry("2026-07-01T00:00:00Z", "2026-07-01T01:00:00Z");
        for (expiry, now, expected) in [
            (&year, "2026-05-31T23:59:59Z", None),
            (&year, "2026-06-01T00:00:00Z", Some("in less than 31 days")),
            (&year, "2026-06-30T00:00:01Z", Some("in less than 1 day:")),
            (&year, "2026-07-01T00:00:00Z", Some("has expired")),
            (&quarter, "2026-06-08T11:59:59Z", None),
            (
                &quarter,
                "2026-06-08T12:00:00Z",
                Some("in less than 23 days"),
            ),
            (&hour, "2026-07-01T00:44:59Z", None),
            (&hour, "2026-07-01T00:45:00Z", Some("in less than 1 day:")),
        ] {
            let warning = expiry.warning(time(now));
            let is_expected = match (&warning, expected) {
                (Some(warning), Some(expected)) => warning.contains(expected),
                (warning, expected) => warning.is_none() && expected.is_none(),
            };
            assert!(is_expected, "{now}: {warning:?}");
        }
    }

    #[test]
    fn it_is_spoken_of_once_a_day() {
        let mut reminder = Reminder {
            held: vec![expiry("2025-07-01T00:00:00Z", "2026-07-01T00:00:00Z")],
            next: Timestamp::MIN,
            metrics: Arc::new(Metrics::new()),
        };
        for (now, said) in [
            ("2026-06-10T12:00:00Z", 1),
            ("2026-06-10T12:00:01Z", 0),
            ("2026-06-11T11:59:59Z", 0),
            ("2026-06-11T12:00:00Z", 1),
            ("2026-07-11T12:00:00Z", 1),
        ] {
            assert_eq!(reminder.due(time(now)).len(), said, "{now}");
        }
    }

    /// The file of a certificate that is valid until the last day of a year.
    fn file(year: i32) -> tempfile::NamedTempFile {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 12, 31);
        let key = rcgen::KeyPair::generate().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), params.self_signed(&key).unwrap().pem()).unwrap();
        file
    }

    #[test]
    fn one_that_was_read_again_is_spoken_of_at_once() {
        let mut reminder = Reminder {
            held: vec![expiry("2025-07-01T00:00:00Z", "2029-07-01T00:00:00Z")],
            next: Timestamp::MIN,
            metrics: Arc::new(Metrics::new()),
        };
        let now = time("2026-12-30T12:00:00Z");
        assert_eq!(reminder.due(now).len(), 0);
        reminder.replace(SERVER, file(2026).path());
        assert_eq!(reminder.due(now).len(), 1);
        reminder.replace(SERVER, file(2029).path());
        assert_eq!(reminder.due(now).len(), 0);
    }

    #[test]
    fn a_certificate_may_be_for_ever() {
        let file = file(9999);
        let expiry = Expiry::of(SERVER, file.path()).unwrap();
        assert_eq!(expiry.not_after, Timestamp::MAX);
        assert_eq!(expiry.warning(Timestamp::now()), None);
    }
}
