//! Whose the other end of a connection within this machine is. The kernel lists all sockets with
//! their owners, to everybody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Tables of the sockets of this process's network. Below `self`, so that they are there also
/// where a unit hides the rest of `/proc`.
const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];

/// State of a socket in those tables: both ends open. In any later state the kernel may have
/// forgotten the owner, and shows the superuser.
const ESTABLISHED: &str = "01";

/// The user who has the socket at `peer` that is connected to `local`; `None` if that is not a
/// socket of this machine, or not open any more.
#[must_use]
pub fn of(local: SocketAddr, peer: SocketAddr) -> Option<u32> {
    let (local, peer) = (canonical(local), canonical(peer));
    if !peer.ip().is_loopback() && peer.ip() != local.ip() {
        return None;
    }
    TABLES.iter().find_map(|table| {
        let text = std::fs::read_to_string(table).ok()?;
        find(&text, local, peer)
    })
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn find(table: &str, local: SocketAddr, peer: SocketAddr) -> Option<u32> {
    // Seen from the other end: its own address is our peer's.
    let port = format!("{:04X}", peer.port());
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let own = words.next()?;
        if !own.ends_with(&port) || address(own)? != peer {
            return None;
        }
        let other = address(words.next()?)?;
        let state = words.next()?;
        let uid = words.nth(3)?.parse().ok()?;
        let inode: u64 = words.nth(1)?.parse().ok()?;
        (other == local && state == ESTABLISHED && inode != 0).then_some(uid)
    })
}

/// `0100007F:1F90`: words of four bytes in the machine's order.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |index: usize| {
        let digits = ip.get(index * 8..index * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip: IpAddr = match ip.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut bytes = [0; 16];
            for (index, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(index)?);
            }
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::{address, find, of};

    #[test]
    fn the_owner_of_the_other_end_is_found() {
        for listen in ["127.0.0.1:0", "[::1]:0", "[::]:0", "0.0.0.0:0"] {
            let Ok(listener) = TcpListener::bind(listen) else {
                continue; // no IPv6 here
            };
            let port = listener.local_addr().unwrap().port();
            let host = if listen.starts_with("[::1]") {
                "::1"
            } else {
                "127.0.0.1"
            };
            let client = TcpStream::connect((host, port)).unwrap();
            let (server, peer) = listener.accept().unwrap();
            let local = server.local_addr().unwrap();
            assert_eq!(
                of(local, peer),
                Some(nix::unistd::geteuid().as_raw()),
                "{listen}"
            );
            drop(client);
            assert_eq!(
                of(local, peer),
                None,
                "{listen}: closed, its owner is not known any more"
            );
        }
    }

    #[test]
    fn only_an_open_socket_between_the_two_addresses_counts() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     7        0 11 1\n\
             1: 0100007F:8000 0100007F:1F90 06 00000000:00000000 00:00000000 00000000     0        0 0 1\n\
             2: 0100007F:8001 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 12 1\n\
             3: 0100007F:8002 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 0 1\n";
        let local = "127.0.0.1:8080".parse().unwrap();
        let at = |port: u16| find(table, local, ([127, 0, 0, 1], port).into());
        assert_eq!(at(0x8001), Some(1000));
        assert_eq!(at(0x8000), None, "TIME_WAIT shows the superuser");
        assert_eq!(at(0x8002), None, "no inode: nobody has it");
        assert_eq!(at(0x1F90), None, "listening");
        assert_eq!(at(1), None);
        assert_eq!(
            address("0000000000000000FFFF00000100007F:0001"),
            Some("127.0.0.1:1".parse().unwrap())
        );
        for wrong in [
            "",
            ":",
            "0100007F:",
            "0100007:1",
            "0100007F:12345",
            "é100007:1",
        ] {
            assert_eq!(address(wrong), None, "{wrong}");
        }
    }
}
