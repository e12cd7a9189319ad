//! From when until when a certificate is valid, and when it should have been renewed.

use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long before its end a certificate should have been renewed, at most.
const RENEW_WITHIN: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Or with one part in so many of its life left. Whatever renews certificates by itself does so with a third
/// left: one with less than a quarter was not renewed.
const LEFT: i32 = 4;

/// The life of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
}

impl From<&x509_parser::certificate::Validity> for Validity {
    fn from(parsed: &x509_parser::certificate::Validity) -> Self {
        // What is to last forever ends with the year 9999, after all that can be counted here.
        let time = |seconds| Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
        Self {
            not_before: time(parsed.not_before.timestamp()),
            not_after: time(parsed.not_after.timestamp()),
        }
    }
}

impl Validity {
    /// Of a certificate; `None` if it is not one.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        Some(parsed.validity().into())
    }

    /// When it should have been renewed.
    #[must_use]
    pub fn renewal(&self) -> Timestamp {
        let life = self.not_after.duration_since(self.not_before);
        self.not_after - RENEW_WITHIN.min(life / LEFT)
    }

    /// What is to be said of its end, if anything: that it `has expired` or `expires in less than 9 days`.
    #[must_use]
    pub fn warning(&self, now: Timestamp) -> Option<String> {
        let left = self.not_after.duration_since(now);
        if left <= SignedDuration::ZERO {
            return Some("has expired".to_owned());
        }
        (self.renewal() <= now).then(|| {
            let days = left.as_hours() / 24 + 1;
            let plural = if days == 1 { "" } else { "s" };
            format!("expires in less than {days} day{plural}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_its_end_is_spoken_of() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let life = |not_before, not_after| Validity {
            not_before: time(not_before),
            not_after: time(not_after),
        };
        let year = life("2025-07-01T00:00:00Z", "2026-07-01T00:00:00Z");
        let quarter = life("2026-04-02T00:00:00Z", "2026-07-01T00:00:00Z");
        let hour = life("2026-07-01T00:00:00Z", "2026-07-01T01:00:00Z");
        for (life, now, expected) in [
            (year, "2026-05-31T23:59:59Z", None),
            (
                year,
                "2026-06-01T00:00:00Z",
                Some("expires in less than 31 days"),
            ),
            (
                year,
                "2026-06-30T00:00:01Z",
                Some("expires in less than 1 day"),
            ),
            (year, "2026-07-01T00:00:00Z", Some("has expired")),
            (quarter, "2026-06-08T11:59:59Z", None),
            (
                quarter,
                "2026-06-08T12:00:00Z",
                Some("expires in less than 23 days"),
            ),
            (hour, "2026-07-01T00:44:59Z", None),
            (
                hour,
                "2026-07-01T00:45:00Z",
                Some("expires in less than 1 day"),
            ),
        ] {
            assert_eq!(life.warning(time(now)).as_deref(), expected, "{now}");
        }
    }

    #[test]
    fn a_certificate_may_be_for_ever() {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.not_after = rcgen::date_time_ymd(9999, 12, 31);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let validity = Validity::of(certificate.der()).unwrap();
        assert_eq!(validity.not_after, Timestamp::MAX);
        assert_eq!(validity.warning(Timestamp::now()), None);
        assert_eq!(Validity::of(&vec![0x30, 0x03, 1, 2, 3].into()), None);
    }
}
