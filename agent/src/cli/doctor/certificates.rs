//! Whether the certificates can be used, for how long, and whether others can read the key or replace a file.

use std::io::ErrorKind::PermissionDenied;

use jiff::Timestamp;
use sifter_tls::{Held, Kind, TlsError};

use super::Finding;
use crate::config::TlsSettings;
use crate::net::Loaded;

pub(super) fn examine(tls: &TlsSettings) -> Vec<Finding> {
    let subject = "tls";
    let loaded = match Loaded::read(tls) {
        Ok(loaded) => loaded,
        Err(error) => {
            let is_denied =
                matches!(&error, TlsError::Read { error, .. } if error.kind() == PermissionDenied);
            let advice = if is_denied {
                "if this is not the agent's user, run this as that user"
            } else {
                "make certificates with enroll.sh of sifter-control, and let the agent's user read them"
            };
            return vec![Finding::failed(subject, error.to_string(), advice)];
        }
    };
    let now = Timestamp::now();
    let mut findings: Vec<_> = loaded
        .held
        .iter()
        .filter_map(|held| ending(held, now))
        .collect();
    let [cert, ..] = &loaded.held;
    let is_good = ending(cert, now).is_none();
    if let (true, Some(validity)) = (is_good, cert.validity) {
        findings.push(Finding::ok(
            subject,
            format!(
                "{}, valid until {}, clients: {}",
                loaded.names.join(" "),
                validity.not_after,
                tls.allow.join(" ")
            ),
        ));
    }
    if !loaded.names.iter().any(|name| name.starts_with("dns:")) {
        findings.push(Finding::warning(
            subject,
            "the certificate names no host",
            "clients compare its DNS names with the address: make one with enroll.sh of sifter-control",
        ));
    }
    for held in &loaded.held {
        if let Some(problem) = &held.problem {
            let file = crate::escape::path(&held.file);
            findings.push(Finding::warning(
                subject,
                format!("{} {file} is not safe: {problem}", held.setting),
                match held.kind {
                    Kind::Key => {
                        "who has the key can pose as this agent: make a new one where somebody may have it"
                    }
                    Kind::Certificate | Kind::Authorities => {
                        "who can put another file there decides which clients come in"
                    }
                },
            ));
        }
    }
    findings
}

/// What is to be said of the time in which a certificate is valid.
fn ending(held: &Held, now: Timestamp) -> Option<Finding> {
    let validity = held.validity?;
    if held.kind == Kind::Authorities {
        return Some(Finding::warning(
            "tls",
            format!(
                "the authority {}: {}",
                validity.warning(now)?,
                validity.not_after
            ),
            "renew it with enroll.sh of sifter-control, and put the new ca.pem on every login node and control plane",
        ));
    }
    if validity.not_before > now {
        return Some(Finding::failed(
            "tls",
            format!("the certificate is valid only from {}", validity.not_before),
            "is this host's clock right? If so, make a new certificate",
        ));
    }
    let until = validity.not_after;
    let message = format!("the certificate {}: {until}", validity.warning(now)?);
    let advice =
        "make a new one with enroll.sh of sifter-control; the agent takes it by itself within 10 s";
    Some(if until <= now {
        Finding::failed("tls", message, advice)
    } else {
        Finding::warning("tls", message, advice)
    })
}
