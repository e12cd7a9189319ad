//! Who is at the other end, and whether the way there is encrypted.
//!
//! Policies may depend on both, so a header is believed only if it comes from a configured proxy.

use std::net::IpAddr;

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
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim);
        for hop in hops.rev_collected() {
            let Ok(ip) = hop.parse::<IpAddr>() else { break };
            client.ip = ip.to_canonical();
            if !is_trusted(client.ip) {
                break;
            }
        }
        if let Some(proto) = headers
            .get("x-forwarded-proto")
            .and_then(|value| value.to_str().ok())
        {
            client.tls = proto.trim().eq_ignore_ascii_case("https");
        }
        client
    }
}

/// Reversal of an iterator that can only go forward.
trait RevCollected: Iterator + Sized {
    fn rev_collected(self) -> std::iter::Rev<std::vec::IntoIter<Self::Item>> {
        self.collect::<Vec<_>>().into_iter().rev()
    }
}

impl<I: Iterator> RevCollected for I {}

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
                "10.0.0.2",
                false,
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
            assert_eq!(peer.client(&headers, &trusted), expected, "{peer:?}");
        }
    }
}
