//! Who is at the other end, and whether the way there is encrypted.
//!
//! Policies may depend on both, so a header is believed only if it comes from a configured proxy.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    /// Address.
    pub(super) ip: IpAddr,
    /// Whether the connection is TLS.
    pub(super) tls: bool,
}

impl Peer {
    /// The client behind the connection: the peer, or whom a trusted proxy names. Proxies append,
    /// so the last address that is not a trusted proxy's is the client's; anything before it could
    /// be made up.
    pub(super) fn client(self, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let is_trusted = |ip: IpAddr| trusted.iter().any(|network| network.contains(&ip));
        if !is_trusted(self.ip.to_canonical()) {
            return self;
        }
        let mut client = self;
        let hops = headers
            .get_all("x-forwarded-for")
            .iter()
            // Not only of what is text: a client's bytes must not take the proxy's word with them.
            .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii);
        for hop in hops.rev() {
            let hop = str::from_utf8(hop).ok();
            client.ip = hop.and_then(address).unwrap_or(UNKNOWN);
            if !is_trusted(client.ip) {
                break;
            }
        }
        // Of several the last is the proxy's own word.
        if let Some(proto) = headers.get_all("x-forwarded-proto").iter().next_back() {
            let last = proto
                .to_str()
                .ok()
                .and_then(|value| value.rsplit(',').next());
            client.tls = last.is_some_and(|proto| proto.trim().eq_ignore_ascii_case("https"));
        }
        client
    }
}

/// Nobody's address: of a client that a proxy names in a way that is not understood. It must not pass for the
/// proxy, whose address may be allowed more.
const UNKNOWN: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// The address that a proxy names: `192.0.2.1`, `192.0.2.1:443`, `2001:db8::1`, `[2001:db8::1]:443`, also quoted.
fn address(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim_matches('"');
    let bare = hop
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(hop);
    let ip = bare
        .parse()
        .or_else(|_| hop.parse().map(|socket: SocketAddr| socket.ip()));
    ip.ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let rows = [
            // peer, X-Forwarded-For, X-Forwarded-Proto, expected address and TLS
            (
                "192.0.2.1",
                Some("198.51.100.7"),
                Some("https"),
                "192.0.2.1",
                false,
            ),
            ("10.0.0.1", None, None, "10.0.0.1", false),
            (
                "10.0.0.1",
                Some("198.51.100.7"),
                Some("https"),
                "198.51.100.7",
                true,
            ),
            (
                "10.0.0.1",
                Some("6.6.6.6, 198.51.100.7, 10.0.0.2"),
                None,
                "198.51.100.7",
                false,
            ),
            (
                "10.0.0.1",
                Some("6.6.6.6, nonsense, 10.0.0.2"),
                None,
                "0.0.0.0",
                false,
            ),
            ("10.0.0.1", Some("unknown"), None, "0.0.0.0", false),
            (
                "10.0.0.1",
                Some("1.2.3.4:555, 10.0.0.2:80"),
                None,
                "1.2.3.4",
                false,
            ),
            (
                "10.0.0.1",
                Some("\"[2001:db8::1]:555\""),
                None,
                "2001:db8::1",
                false,
            ),
            ("10.0.0.1", Some("[::ffff:1.2.3.4]"), None, "1.2.3.4", false),
            (
                "10.0.0.1",
                Some("1.2.3.4"),
                Some("https, http"),
                "1.2.3.4",
                false,
            ),
            (
                "10.0.0.1",
                Some("1.2.3.4"),
                Some("http, https"),
                "1.2.3.4",
                true,
            ),
            (
                "::ffff:10.0.0.1",
                Some("2001:db8::1"),
                Some("http"),
                "2001:db8::1",
                false,
            ),
        ];
        for (peer, forwarded, proto, ip, tls) in rows {
            let mut headers = HeaderMap::new();
            if let Some(value) = forwarded {
                headers.insert("x-forwarded-for", HeaderValue::from_static(value));
            }
            if let Some(value) = proto {
                headers.insert("x-forwarded-proto", HeaderValue::from_static(value));
            }
            let peer = Peer {
                ip: peer.parse().unwrap(),
                tls: false,
            };
            let expected = Peer {
                ip: ip.parse().unwrap(),
                tls,
            };
            assert_eq!(
                peer.client(&headers, &trusted),
                expected,
                "{peer:?} {forwarded:?}"
            );
        }
        let mut headers = HeaderMap::new();
        for value in ["https", "http"] {
            headers.append("x-forwarded-proto", HeaderValue::from_static(value));
        }
        let peer = Peer {
            ip: "10.0.0.1".parse().unwrap(),
            tls: false,
        };
        assert!(!peer.client(&headers, &trusted).tls);
        // Of several lines the last is the nearest, as in one.
        for lines in [
            ["6.6.6.6", "198.51.100.7, 10.0.0.2"],
            ["6.6.6.6, 198.51.100.7", "10.0.0.2"],
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", HeaderValue::from_static(line));
            }
            let expected: IpAddr = "198.51.100.7".parse().unwrap();
            assert_eq!(peer.client(&headers, &trusted).ip, expected, "{lines:?}");
        }
        // A client that has a proxy pass on what is no text is not the proxy for that.
        for (forwarded, ip) in [
            (&b"\xff, 198.51.100.7"[..], "198.51.100.7"),
            (b"198.51.100.7, \xff", "0.0.0.0"),
            (b"\xe4\xb8\xad", "0.0.0.0"),
        ] {
            let value = HeaderValue::from_bytes(forwarded).unwrap();
            headers.insert("x-forwarded-for", value);
            let expected: IpAddr = ip.parse().unwrap();
            assert_eq!(
                peer.client(&headers, &trusted).ip,
                expected,
                "{forwarded:?}"
            );
        }
    }
}
