//! Another program where an agent should be: a gRPC server that knows none of the methods.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// Starts the server on a port of its own; it runs until the test's process ends.
pub fn grpc_server() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener
        .set_nonblocking(true)
        .expect("a non-blocking listener");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        crate::agent::runtime().block_on(async {
            let listener = TcpListener::from_std(listener).expect("a listener of the runtime");
            let served = Server::builder()
                .add_routes(Routes::default())
                .serve_with_incoming(TcpIncoming::from(listener));
            served.await.expect("the server runs");
        });
    });
    address
}
