//! What a certificate says: its names, which of them may connect, and how long it is valid.

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::catalog::FileTime;
use crate::words::count;

/// Nanoseconds of a day.
pub(super) const DAY: i64 = 86_400_000_000_000;

/// How long before its end a certificate should have been renewed, at most.
const RENEW_WITHIN: i64 = 30 * DAY;

/// Or with one part in so many of its life left. Whatever renews certificates by itself does so with a third
/// left: one with less than a quarter was not renewed.
const LEFT: i64 = 4;

/// Names that one certificate may have. Real ones have a few.
const NAMES_MAX: usize = 64;

/// What is read from a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// `dns:…`, `uri:…` and `cn:…`, in this order.
    pub names: Vec<String>,
    /// From when it is valid.
    pub not_before: FileTime,
    /// Until when it is valid.
    pub not_after: FileTime,
}

impl Names {
    /// Reads a certificate; `None` if it is not one.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let mut names = Vec::new();
        if let Ok(Some(extension)) = parsed.subject_alternative_name() {
            for name in &extension.value.general_names {
                match name {
                    GeneralName::DNSName(name) => {
                        names.push(format!("dns:{}", name.to_ascii_lowercase()));
                    }
                    GeneralName::URI(name) => names.push(format!("uri:{name}")),
                    _ => {}
                }
            }
        }
        for attribute in parsed.subject().iter_common_name() {
            if let Ok(name) = attribute.as_str() {
                names.push(format!("cn:{name}"));
            }
        }
        names.truncate(NAMES_MAX);
        let time = |seconds: i64| FileTime::new(seconds, 0);
        Some(Self {
            names,
            not_before: time(parsed.validity().not_before.timestamp()),
            not_after: time(parsed.validity().not_after.timestamp()),
        })
    }

    /// When it should have been renewed.
    #[must_use]
    pub fn renewal(&self) -> FileTime {
        let life = self.not_after.0.saturating_sub(self.not_before.0);
        FileTime(self.not_after.0 - RENEW_WITHIN.min(life / LEFT))
    }

    /// What is to be said of its end, if anything.
    #[must_use]
    pub fn warning(&self, now: FileTime) -> Option<String> {
        if self.not_after <= now {
            return Some("the certificate has expired".to_owned());
        }
        (self.renewal() <= now).then(|| {
            let days = (self.not_after.0 - now.0).unsigned_abs() / DAY.unsigned_abs() + 1;
            format!(
                "the certificate expires in less than {}",
                count(days, "day")
            )
        })
    }
}

/// The clients that may connect, of all those whose certificate the authority has signed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allow(Vec<String>);

impl Allow {
    /// A list: `dns:NAME`, `uri:URI`, `cn:NAME`, a bare name for either of the first and the last,
    /// or `*` for every client.
    #[must_use]
    pub fn new(names: &[String]) -> Self {
        Self(
            names
                .iter()
                .map(|name| match name.strip_prefix("dns:") {
                    Some(name) => format!("dns:{}", name.to_ascii_lowercase()),
                    None => name.clone(),
                })
                .collect(),
        )
    }

    /// Whether one of the names is on the list.
    #[must_use]
    pub fn allows(&self, names: &[String]) -> bool {
        self.0.iter().any(|allowed| {
            allowed == "*"
                || names.iter().any(|name| {
                    name == allowed
                        || name
                            .strip_prefix("dns:")
                            .is_some_and(|name| name.eq_ignore_ascii_case(allowed))
                        || name.strip_prefix("cn:") == Some(allowed)
                })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Allow, Names};
    use crate::catalog::FileTime;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_client_is_allowed_by_any_of_its_names_and_by_no_part_of_one() {
        let names = list(&[
            "dns:control.example.org",
            "uri:spiffe://site/control",
            "cn:control",
        ]);
        for (allowed, expected) in [
            ("dns:control.example.org", true),
            ("dns:Control.Example.ORG", true),
            ("CONTROL.example.org", true),
            ("uri:spiffe://site/control", true),
            ("cn:control", true),
            ("control", true),
            ("*", true),
            ("spiffe://site/control", false),
            ("example.org", false),
            ("dns:control", false),
            ("cn:CONTROL", false),
            ("uri:spiffe://site/control/x", false),
            ("", false),
        ] {
            assert_eq!(
                Allow::new(&list(&[allowed])).allows(&names),
                expected,
                "{allowed}"
            );
        }
        assert!(!Allow::default().allows(&names));
        assert!(!Allow::new(&list(&["", "cn:", "dns:"])).allows(&[]));
    }

    #[test]
    fn a_certificate_near_its_end_is_spoken_of() {
        let time = |text: &str| FileTime::from(text.parse::<jiff::Timestamp>().unwrap());
        let certificate = |not_before, not_after| Names {
            names: Vec::new(),
            not_before: time(not_before),
            not_after: time(not_after),
        };
        let year = certificate("2025-07-01T00:00:00Z", "2026-07-01T00:00:00Z");
        let quarter = certificate("2026-04-02T00:00:00Z", "2026-07-01T00:00:00Z");
        let hour = certificate("2026-07-01T00:00:00Z", "2026-07-01T01:00:00Z");
        for (certificate, now, expected) in [
            (&year, "2026-05-31T23:59:59Z", None),
            (&year, "2026-06-01T00:00:00Z", Some("in less than 31 days")),
            (&year, "2026-06-30T00:00:01Z", Some("in less than 1 day")),
            (&year, "2026-07-01T00:00:00Z", Some("has expired")),
            (&quarter, "2026-06-08T11:59:59Z", None),
            (
                &quarter,
                "2026-06-08T12:00:00Z",
                Some("in less than 23 days"),
            ),
            (&hour, "2026-07-01T00:44:59Z", None),
            (&hour, "2026-07-01T00:45:00Z", Some("in less than 1 day")),
        ] {
            let warning = certificate.warning(time(now));
            let is_expected = match (&warning, expected) {
                (Some(warning), Some(expected)) => warning.ends_with(expected),
                (warning, expected) => warning.is_none() && expected.is_none(),
            };
            assert!(is_expected, "{now}: {warning:?}");
        }
    }

    #[test]
    fn names_are_read_from_a_certificate() {
        let mut params = rcgen::CertificateParams::new(list(&["Control.example.org"])).unwrap();
        params.subject_alt_names.push(rcgen::SanType::URI(
            "spiffe://site/control".try_into().unwrap(),
        ));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "control");
        params.not_after = rcgen::date_time_ymd(2040, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let names = Names::of(certificate.der()).unwrap();
        assert_eq!(
            names.names,
            [
                "dns:control.example.org",
                "uri:spiffe://site/control",
                "cn:control"
            ]
        );
        assert_eq!(
            names.not_after.timestamp().to_string(),
            "2040-01-01T00:00:00Z"
        );
        assert_eq!(Names::of(&vec![0x30, 0x03, 1, 2, 3].into()), None);
    }
}
