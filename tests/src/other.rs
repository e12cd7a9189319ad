//! Servers where an agent should be: another program that speaks gRPC, and an agent that refuses every
//! listing with a status of the test's choice.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use prost::bytes::Buf;
use prost::bytes::BufMut;
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
use tonic::body::Body;
use tonic::codec::Codec;
use tonic::codec::DecodeBuf;
use tonic::codec::Decoder;
use tonic::codec::EncodeBuf;
use tonic::codec::Encoder;
use tonic::codegen::Service;
use tonic::codegen::http;
use tonic::server::NamedService;
use tonic::server::ServerStreamingService;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_types::ErrorDetails;
use tonic_types::StatusExt;

/// A gRPC server that knows none of the methods.
pub fn grpc_server() -> SocketAddr {
    serve(Routes::default())
}

/// A message as its bytes: for what this version's types cannot express.
#[derive(Debug, Clone, Copy, Default)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}

/// A field that no version has, to be put behind a message: a text under number 500.
pub fn unknown_field() -> Vec<u8> {
    let mut field = vec![0xa2, 0x1f, 6];
    field.extend_from_slice(b"future");
    field
}

/// An agent of another version: it gives the same bytes to every call of a method, by its path
/// (`/sifter.v1.ImageService/ListImages`), as the only message of its answer.
pub fn agent_of_another_version(answers: &[(&'static str, Vec<u8>)]) -> SocketAddr {
    let answers: Arc<HashMap<&str, Vec<u8>>> = Arc::new(answers.iter().cloned().collect());
    serve(
        Routes::new(Fixed(
            Arc::clone(&answers),
            std::marker::PhantomData::<ImagesName>,
        ))
        .add_service(Fixed(answers, std::marker::PhantomData::<AgentName>)),
    )
}

/// A service that knows its answers beforehand.
struct Fixed<N>(
    Arc<HashMap<&'static str, Vec<u8>>>,
    std::marker::PhantomData<N>,
);

impl<N> Clone for Fixed<N> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0), std::marker::PhantomData)
    }
}

struct ImagesName;
struct AgentName;

impl NamedService for Fixed<ImagesName> {
    const NAME: &'static str = "sifter.v1.ImageService";
}

impl NamedService for Fixed<AgentName> {
    const NAME: &'static str = "sifter.v1.AgentService";
}

impl<N> Service<http::Request<Body>> for Fixed<N> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = self.0.get(request.uri().path()).cloned();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Raw);
            Ok(grpc.server_streaming(Once(answer), request).await)
        })
    }
}

/// One answer.
struct Once(Option<Vec<u8>>);

impl ServerStreamingService<Vec<u8>> for Once {
    type Response = Vec<u8>;
    type ResponseStream = Messages<Vec<u8>>;
    type Future =
        Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, _: Request<Vec<u8>>) -> Self::Future {
        let answer = self.0.take();
        Box::pin(async move {
            let answer =
                answer.ok_or_else(|| Status::unimplemented("not known to this version"))?;
            let messages: Self::ResponseStream = Box::pin(tokio_stream::iter([Ok(answer)]));
            Ok(Response::new(messages))
        })
    }
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
