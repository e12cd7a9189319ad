//! Servers where an agent should be: another program that speaks gRPC, and an agent that refuses every
//! listing with a status of the test's choice.

use std::net::SocketAddr;
use std::pin::Pin;

use sifter_proto::ERROR_DOMAIN;
use sifter_proto::v1::GetImageRequest;
use sifter_proto::v1::Image;
use sifter_proto::v1::ListImagesRequest;
use sifter_proto::v1::ListImagesResponse;
use sifter_proto::v1::StreamImagesRequest;
use sifter_proto::v1::StreamImagesResponse;
use sifter_proto::v1::WatchImagesRequest;
use sifter_proto::v1::WatchImagesResponse;
use sifter_proto::v1::image_service_server::ImageService;
use sifter_proto::v1::image_service_server::ImageServiceServer;
use tokio::net::TcpListener;
use tokio_stream::Stream;
use tonic::Code;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_types::ErrorDetails;
use tonic_types::StatusExt;

/// A gRPC server that knows none of the methods.
pub fn grpc_server() -> SocketAddr {
    serve(Routes::default())
}

/// An agent that refuses every listing.
pub fn refusing_agent(code: Code, reason: &str) -> SocketAddr {
    let details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, []);
    let status = Status::with_error_details(code, "refused by the test", details);
    serve(Routes::new(ImageServiceServer::new(Refusing(status))))
}

/// Serves on a port of its own until the test's process ends.
fn serve(routes: Routes) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener
        .set_nonblocking(true)
        .expect("a non-blocking listener");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        crate::agent::runtime().block_on(async {
            let listener = TcpListener::from_std(listener).expect("a listener of the runtime");
            let served = Server::builder()
                .add_routes(routes)
                .serve_with_incoming(TcpIncoming::from(listener));
            served.await.expect("the server runs");
        });
    });
    address
}

struct Refusing(Status);

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ImageService for Refusing {
    type StreamImagesStream = Messages<StreamImagesResponse>;
    type WatchImagesStream = Messages<WatchImagesResponse>;

    async fn list_images(
        &self,
        _: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        Err(self.0.clone())
    }

    async fn stream_images(
        &self,
        _: Request<StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        Err(self.0.clone())
    }

    async fn get_image(&self, _: Request<GetImageRequest>) -> Result<Response<Image>, Status> {
        Err(self.0.clone())
    }

    async fn watch_images(
        &self,
        _: Request<WatchImagesRequest>,
    ) -> Result<Response<Self::WatchImagesStream>, Status> {
        Err(self.0.clone())
    }
}
