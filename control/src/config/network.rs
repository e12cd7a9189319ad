//! Networks as configurations and policies write them.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

/// Bits before the IPv4 address in an IPv6 address that stands for one (`::ffff:192.0.2.1`).
const MAPPED: u8 = 96;

/// A network (`10.0.0.0/8`) or a single address. IPv4 in the form of IPv6 is IPv4, since that is what clients'
/// addresses are made as well: otherwise no client would ever be in it.
pub fn parse_network(text: &str) -> Option<IpNet> {
    let network = text
        .parse()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    let IpNet::V6(mapped) = network else {
        return Some(network);
    };
    let address = mapped.addr().to_ipv4_mapped();
    match (address, mapped.prefix_len().checked_sub(MAPPED)) {
        (Some(address), Some(prefix)) => Ipv4Net::new(address, prefix).ok().map(IpNet::V4),
        // It would hold all of IPv4, and more: nobody can mean that.
        _ if mapped.contains(&Ipv6Addr::from(0xffff_0000_0000_u128)) && mapped.prefix_len() > 0 => {
            None
        }
        _ => Some(network),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_network;

    #[test]
    fn mapped_addresses_are_those_that_they_stand_for() {
        for (text, expected) in [
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("127.0.0.1", Some("127.0.0.1/32")),
            ("2001:db8::/32", Some("2001:db8::/32")),
            ("::1", Some("::1/128")),
            ("::/0", Some("::/0")),
            ("::ffff:127.0.0.1", Some("127.0.0.1/32")),
            ("::ffff:127.0.0.0/104", Some("127.0.0.0/8")),
            ("::ffff:0:0/96", Some("0.0.0.0/0")),
            ("::ffff:0:0/90", None),
            ("::/8", None),
            ("nonsense", None),
            ("10.0.0.0/33", None),
        ] {
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(parse_network(text), expected, "{text}");
        }
    }
}
