//! The access log: one line a request, without anything secret.
//!
//! Query strings are left out, since they carry signatures and tokens; names from the request are
//! fields, so that a log reader can tell them from the program's own words.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::api::error::clean;
use crate::telemetry::Answered;
use crate::telemetry::Metrics;

/// Longest name from a request, in characters, in a line of the log.
const MAX_NAME: usize = 128;

/// What is known of a request when it has been answered.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) access_key_id: Option<String>,
    pub(super) cluster_id: Option<String>,
    pub(super) page_number: u32,
    pub(super) page_size: u32,
    /// The ID that the login nodes know the request by, if it shared another one's call.
    pub(super) asked_as: Option<Arc<str>>,
}

/// Writes the line, and counts the request.
pub(super) fn log(
    request_id: &str,
    method: &Method,
    client: IpAddr,
    record: &Record,
    (code, status): (&'static str, u16),
    duration: Duration,
    metrics: &Metrics,
) {
    metrics.request(code, status, duration);
    let cluster = record.cluster_id.as_deref();
    let cluster = cluster.map(|name| clean(name, MAX_NAME));
    Answered {
        request_id,
        client,
        method: named(method),
        access_key_id: record.access_key_id.as_deref(),
        cluster: cluster.as_deref(),
        page_number: record.page_number,
        page_size: record.page_size,
        asked_as: record.asked_as.as_deref(),
        status,
        code,
        duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
    }
    .log();
}

/// A method may be any word, and as long as the headers may be; it is of ASCII.
fn named(method: &Method) -> &str {
    let name = method.as_str();
    name.get(..MAX_NAME).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_not_longer_than_other_names() {
        for (method, expected) in [
            ("GET", 3),
            (&*"X".repeat(128), 128),
            (&*"X".repeat(60_000), 128),
        ] {
            let method: Method = method.parse().unwrap();
            assert_eq!(named(&method).len(), expected);
        }
    }
}
