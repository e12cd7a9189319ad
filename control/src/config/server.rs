//! `[server]`: where it listens, and under which name and certificate.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http::Uri;

use super::ServerSettings;
use super::ServerTls;
use super::problem::Problems;
use super::raw::RawServer;

/// Validates `[server]`.
pub(super) fn validate(raw: RawServer, base: &Path, problems: &mut Problems) -> ServerSettings {
    let listen = raw
        .listen
        .unwrap_or_else(|| vec!["127.0.0.1:8080".to_owned()]);
    if listen.is_empty() {
        problems.add(
            "server.listen",
            "server.listen is empty: write at least one IP:PORT",
        );
    }
    let tls = match (raw.cert, raw.key) {
        (Some(cert), Some(key)) => Some(ServerTls {
            cert: base.join(cert),
            key: base.join(key),
        }),
        (None, None) => None,
        (Some(_), None) => {
            problems.add_absent("server.cert", "server.cert needs server.key beside it");
            None
        }
        (None, Some(_)) => {
            problems.add_absent("server.key", "server.key needs server.cert beside it");
            None
        }
    };
    let public_url = raw.public_url.map(|url| {
        if !is_origin(&url) {
            problems.add(
                "server.public_url",
                format!(
                    "server.public_url = {url:?} is not a URL: write https://host or http://host"
                ),
            );
        }
        url.trim_end_matches('/').to_owned()
    });
    let mut trusted_proxies = Vec::new();
    for text in &raw.trusted_proxies {
        match super::parse_network(text) {
            Some(network) => trusted_proxies.push(network),
            None => problems.add(
                "server.trusted_proxies",
                format!(
                    "server.trusted_proxies: {text:?} is not a network: write 10.0.0.0/8 or an \
                     address"
                ),
            ),
        }
    }
    if raw.require_tls && tls.is_none() && trusted_proxies.is_empty() {
        problems.add_absent(
            "server.require_tls",
            "server.require_tls would refuse every request: write server.cert and server.key, or \
             the server.trusted_proxies that speak HTTPS in front",
        );
    }
    ServerSettings {
        require_tls: raw.require_tls,
        listen: listen
            .iter()
            .filter_map(|text| socket("server.listen", text, problems))
            .collect(),
        public_url,
        tls,
        trusted_proxies,
        drain_delay: Duration::from_secs(raw.drain_delay_seconds.into()),
        drain_timeout: problems.seconds(
            "server.drain_timeout_seconds",
            raw.drain_timeout_seconds,
            10,
        ),
    }
}

/// Whether a text is the address of a server, as far as clients have it in common.
fn is_origin(url: &str) -> bool {
    url.parse::<Uri>().is_ok_and(|uri| {
        let authority = uri.authority();
        matches!(uri.scheme_str(), Some("http" | "https"))
            && authority.is_some_and(|name| !name.host().is_empty() && !name.as_str().contains('@'))
            && uri.query().is_none()
    })
}

/// An address to listen on.
pub(super) fn socket(key: &str, text: &str, problems: &mut Problems) -> Option<SocketAddr> {
    // A name would be resolved at some other time than now, and may then be another address.
    text.parse()
        .inspect_err(|_| {
            problems.add(
                key,
                format!("{key}: {text:?} is not an address: write IP:PORT, as in 127.0.0.1:8080"),
            );
        })
        .ok()
}
