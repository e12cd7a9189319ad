//! Whether the certificates can be used, and for how long.

use std::os::unix::fs::PermissionsExt;

use super::Finding;
use crate::catalog::FileTime;
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
    let now = FileTime::now();
    let own = &loaded.own;
    let until = own.not_after.timestamp();
    let mut findings = vec![if own.not_before > now {
        Finding::failed(
            subject,
            format!(
                "the certificate is valid only from {}",
                own.not_before.timestamp()
            ),
            "is this host's clock right? If so, make a new certificate",
        )
    } else if let Some(warning) = own.warning(now) {
        let message = format!("{warning}: {until}");
        let advice = "make a new one with enroll.sh of sifter-control; the agent takes it by itself within 10 s";
        if own.not_after <= now {
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
