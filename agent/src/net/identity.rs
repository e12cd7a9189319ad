//! What a certificate says: its names, and which of them may connect.

use rustls_pki_types::CertificateDer;
use sifter_tls::Validity;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Names that one certificate may have. Real ones have a few.
const NAMES_MAX: usize = 64;

/// What is read from a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// `dns:…`, `uri:…` and `cn:…`, in this order.
    pub names: Vec<String>,
    /// From when until when it is valid.
    pub validity: Validity,
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
        Some(Self {
            names,
            validity: parsed.validity().into(),
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
        assert_eq!(names.validity.not_after.to_string(), "2040-01-01T00:00:00Z");
        assert_eq!(Names::of(&vec![0x30, 0x03, 1, 2, 3].into()), None);
    }
}
