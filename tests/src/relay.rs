//! A TCP relay that cuts the answer after a number of bytes: an agent that dies in mid-answer, at a
//! place the test chooses.

use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::thread;

/// Starts a relay to `target` that lets `limit` bytes of each answer through and then closes both
/// sides. It runs until the test's process ends.
pub fn cutting(target: SocketAddr, limit: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port for the relay");
    let address = listener.local_addr().expect("address of the relay");
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            if let Ok(server) = TcpStream::connect(target) {
                thread::spawn(move || relay(client, server, limit));
            }
        }
    });
    address
}

fn relay(mut client: TcpStream, mut server: TcpStream, limit: usize) {
    if let (Ok(mut from), Ok(mut to)) = (client.try_clone(), server.try_clone()) {
        thread::spawn(move || std::io::copy(&mut from, &mut to));
    }
    let mut left = limit;
    let mut buffer = [0; 4096];
    while left > 0 {
        let wanted = left.min(buffer.len());
        match server.read(&mut buffer[..wanted]) {
            Ok(count) if count > 0 && client.write_all(&buffer[..count]).is_ok() => left -= count,
            _ => break,
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}
