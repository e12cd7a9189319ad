//! Under which names a server answers that asks nobody who they are.
//!
//! It listens on loopback, where a browser reaches it, too. A page of any site can have its own name
//! resolve to 127.0.0.1 (DNS rebinding), and then read answers as if they were its own. But it cannot
//! make the browser say another host than the page's.

use std::net::IpAddr;

use http::HeaderMap;
use http::Uri;
use http::header;

use crate::config::AuthSettings;
use crate::config::Settings;

/// The names.
#[derive(Debug)]
pub(super) enum Hosts {
    /// Any: requests are signed, and no page can do that.
    Any,
    /// This machine's from its own point of view, and that of `server.public_url`.
    Loopback {
        /// The configured name, in lower case.
        also: Option<String>,
    },
}

impl Hosts {
    pub(super) fn new(settings: &Settings) -> Self {
        match settings.auth {
            AuthSettings::Signatures(_) => Self::Any,
            AuthSettings::None => Self::Loopback {
                also: settings
                    .server
                    .public_url
                    .as_deref()
                    .map(|url| name(url).to_ascii_lowercase()),
            },
        }
    }

    /// Whether a request is for here. One that names no host at all is: every browser names one, and
    /// some probes do not.
    pub(super) fn admit(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let Self::Loopback { also } = self else {
            return true;
        };
        let is_ours = |host: &str| {
            let name = name(host);
            name.eq_ignore_ascii_case("localhost")
                || name
                    .parse::<IpAddr>()
                    .is_ok_and(|address| address.to_canonical().is_loopback())
                || also
                    .as_deref()
                    .is_some_and(|also| name.eq_ignore_ascii_case(also))
        };
        uri.authority()
            .is_none_or(|authority| is_ours(authority.as_str()))
            && headers
                .get_all(header::HOST)
                .iter()
                .all(|host| host.to_str().is_ok_and(is_ours))
    }
}

/// The name or address in a `Host`: without port, without brackets, and without the scheme that some
/// clients write before it.
fn name(host: &str) -> &str {
    let host = host.trim();
    let host = host.split_once("://").map_or(host, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default();
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    host.strip_suffix('.').unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use http::HeaderValue;

    use super::*;

    fn hosts(text: &str) -> Hosts {
        Hosts::new(&Settings::parse(text, Path::new("x")).unwrap())
    }

    #[test]
    fn without_signatures_only_our_own_names_are_answered() {
        let plain = hosts("auth = \"none\"");
        let public =
            hosts("auth = \"none\"\n[server]\npublic_url = \"https://EHPC.example.org:8443\"");
        let signed = hosts("[auth]\nkeys = \"k\"");
        for (host, of_plain, of_public) in [
            ("localhost", true, true),
            ("LocalHost:8080", true, true),
            ("localhost.", true, true),
            ("127.0.0.1", true, true),
            ("127.1.2.3:80", true, true),
            ("[::1]:80", true, true),
            ("[::1]", true, true),
            ("[::ffff:127.0.0.1]:80", true, true),
            ("http://localhost/", true, true),
            ("ehpc.example.org", false, true),
            ("ehpc.example.org:80", false, true),
            ("evil.example", false, false),
            ("evil.example:8080", false, false),
            ("localhost.evil.example", false, false),
            ("127.0.0.1.evil.example", false, false),
            ("192.0.2.1", false, false),
            ("0.0.0.0", false, false),
            ("[::]", false, false),
            ("evil.example@localhost", false, false),
            ("localhost@evil.example", false, false),
            ("", false, false),
            ("\u{e9}", false, false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(
                header::HOST,
                HeaderValue::from_bytes(host.as_bytes()).unwrap(),
            );
            let origin = Uri::from_static("/");
            assert_eq!(plain.admit(&origin, &headers), of_plain, "{host}");
            assert_eq!(public.admit(&origin, &headers), of_public, "{host}");
            assert!(signed.admit(&origin, &headers), "{host}");
            // Each that is named must be one of ours.
            headers.append(header::HOST, HeaderValue::from_static("localhost"));
            assert_eq!(plain.admit(&origin, &headers), of_plain, "{host}");
            let absolute = Uri::from_static("http://evil.example/");
            assert!(!public.admit(&absolute, &headers), "{host}");
        }
        assert!(plain.admit(&Uri::from_static("/"), &HeaderMap::new()));
        let absolute = Uri::from_static("http://127.0.0.1:1/");
        assert!(plain.admit(&absolute, &HeaderMap::new()));
    }
}
