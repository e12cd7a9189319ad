//! Whether the certificates can be used, and for how long.

use std::os::unix::fs::PermissionsExt;

use jiff::Timestamp;

use super::Finding;
use crate::config::TlsSettings;
use crate::net::Loaded;

pub(super) fn examine(tls: &TlsSettings) -> Vec<Finding> {
    let subject = "tls";
    let loaded = match Loaded::read(tls) {
        Ok(loaded) => loaded,
        Err(error) => {
            return vec![Finding::failed(
                subject,
                error.to_string(),
                "make certificates with enroll.sh of sifter-control, and let the agent's user read them",
            )];
        }
    };
    let now = Timestamp::now();
    let own = &loaded.own;
    let validity = own.validity;
    let until = validity.not_after;
    let mut findings = vec![if validity.not_before > now {
        Finding::failed(
            subject,
            format!("the certificate is valid only from {}", validity.not_before),
            "is this host's clock right? If so, make a new certificate",
        )
    } else if let Some(warning) = validity.warning(now) {
        let message = format!("the certificate {warning}: {until}");
        let advice = "make a new one with enroll.sh of sifter-control; the agent takes it by itself within 10 s";
        if until <= now {
            Finding::failed(subject, message, advice)
        } else {
            Finding::warning(subject, message, advice)
        }
    } else {
        Finding::ok(
            subject,
            format!(
                "{}, valid until {until}, clients: {}",
                own.names.join(" "),
                tls.allow.join(" ")
            ),
        )
    }];
    if !own.names.iter().any(|name| name.starts_with("dns:")) {
        findings.push(Finding::warning(
            subject,
            "the certificate names no host",
            "clients compare its DNS names with the address: make one with enroll.sh of sifter-control",
        ));
    }
    if let Ok(facts) = std::fs::metadata(&tls.key)
        && facts.permissions().mode() & 0o007 != 0
    {
        findings.push(Finding::warning(
            subject,
            format!(
                "every user may read the key {}",
                crate::escape::path(&tls.key)
            ),
            format!("chmod o= {}", crate::escape::path(&tls.key)),
        ));
    }
    findings
}
