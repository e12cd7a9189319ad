//! Agents that do as they are told.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use sifter_control::fleet::REQUEST_ID_METADATA;
use sifter_proto::ERROR_DOMAIN;
use sifter_proto::v1;
use sifter_proto::v1::image_service_server::ImageService;
use sifter_proto::v1::image_service_server::ImageServiceServer;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::Code;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::transport::Server;
use tonic::transport::ServerTlsConfig;
use tonic_types::ErrorDetails;
use tonic_types::StatusExt;

/// What an agent does when it is asked.
#[derive(Clone)]
pub enum Act {
    /// Lists so many images, page by page.
    List(u64),
    /// The same, and promises that for so long; the name of the system is how often it was asked.
    Promise(u64, Duration),
    /// Answers exactly this.
    Answer(Box<v1::ListImagesResponse>),
    /// Answers this status.
    Refuse(Status),
    /// Answers nothing until it is released, and then one image.
    Hold(Arc<Notify>),
    /// Answers nothing.
    Hang,
}

/// A status with a reason, as agents send it.
pub fn refusal(code: Code, reason: &str, metadata: &[(&str, &str)]) -> Act {
    let metadata: HashMap<String, String> = metadata
        .iter()
        .map(|&(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, metadata);
    Act::Refuse(Status::with_error_details(code, "text for people", details))
}

/// An image as agents list it.
pub fn image(number: u64) -> v1::Image {
    v1::Image {
        path: format!("/images/tool-{number}.sif"),
        repository: format!("lab/tool-{number}"),
        tag: "1.0".into(),
        image_id: format!("sha256:{number:064x}"),
        status: v1::Status::Ready.into(),
        update_time: Some(sifter_proto::Timestamp {
            seconds: 1_533_240_696,
            nanos: 5,
        }),
        ..Default::default()
    }
}

/// What an agent has been asked.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    pub page_size: u32,
    pub skip: u64,
    pub request_id: String,
}

#[derive(Clone)]
struct Fake {
    name: String,
    act: Arc<Mutex<Act>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// A running agent, in a runtime of its own: gone with all its connections when dropped.
pub struct Agent {
    fake: Fake,
    address: String,
    runtime: Option<Runtime>,
}

impl Agent {
    /// An agent on a TCP port.
    pub async fn tcp(name: &str, act: Act) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, name, act)
    }

    /// An agent on a TCP socket that is already there.
    pub fn on(listener: TcpListener, name: &str, act: Act) -> Self {
        let address = listener.local_addr().unwrap().to_string();
        Self::on_tcp(listener, address, name, act, Server::builder())
    }

    /// An agent on a TCP port that wants mutual TLS.
    pub async fn tls(name: &str, act: Act, tls: ServerTlsConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::tls_on(listener, name, act, tls)
    }

    /// The same on a TCP socket that is already there.
    pub fn tls_on(listener: TcpListener, name: &str, act: Act, tls: ServerTlsConfig) -> Self {
        let address = listener.local_addr().unwrap();
        let address = format!("https://localhost:{}", address.port());
        let server = Server::builder().tls_config(tls).unwrap();
        Self::on_tcp(listener, address, name, act, server)
    }

    fn on_tcp(
        listener: TcpListener,
        address: String,
        name: &str,
        act: Act,
        mut server: Server,
    ) -> Self {
        let listener = listener.into_std().unwrap();
        Self::serve(address, name, act, async move |service| {
            let listener = TcpListener::from_std(listener).unwrap();
            let server = server.add_service(service);
            let incoming = TcpListenerStream::new(listener);
            server.serve_with_incoming(incoming).await.unwrap();
        })
    }

    /// An agent on a unix socket.
    pub fn unix(path: &Path, name: &str, act: Act) -> Self {
        let address = format!("unix:{}", path.display());
        let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self::serve(address, name, act, async move |service| {
            let listener = UnixListener::from_std(listener).unwrap();
            let server = Server::builder().add_service(service);
            let incoming = UnixListenerStream::new(listener);
            server.serve_with_incoming(incoming).await.unwrap();
        })
    }

    fn serve<F, R>(address: String, name: &str, act: Act, serve: F) -> Self
    where
        F: FnOnce(ImageServiceServer<Fake>) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let fake = Fake::new(name, act);
        let service = ImageServiceServer::new(fake.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(async move { serve(service).await });
        Self {
            fake,
            address,
            runtime: Some(runtime),
        }
    }

    /// As a configuration names it.
    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// From now on it does something else.
    pub fn act(&self, act: Act) {
        *self.fake.act.lock().unwrap() = act;
    }

    /// What it has been asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.fake.asked.lock().unwrap().clone()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Fake {
    fn new(name: &str, act: Act) -> Self {
        Self {
            name: name.to_owned(),
            act: Arc::new(Mutex::new(act)),
            asked: Arc::default(),
        }
    }

    fn response(&self, images: Vec<v1::Image>, total_size: u64) -> v1::ListImagesResponse {
        v1::ListImagesResponse {
            images,
            total_size,
            system: self.name.clone(),
            catalog_uri: "sqlite:///var/lib/sifter/catalog.db".into(),
            ..Default::default()
        }
    }
}

impl Fake {
    fn page(&self, total: u64, request: &v1::ListImagesRequest) -> v1::ListImagesResponse {
        let last = total.min(request.skip.saturating_add(u64::from(request.page_size)));
        let images = (request.skip.min(total)..last).map(image).collect();
        self.response(images, total)
    }
}

type Answers<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ImageService for Fake {
    async fn list_images(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        let request_id = request
            .metadata()
            .get(REQUEST_ID_METADATA)
            .map(|id| id.to_str().unwrap().to_owned())
            .unwrap_or_default();
        let message = request.into_inner();
        let (page_size, skip) = (message.page_size, message.skip);
        let number = {
            let mut asked = self.asked.lock().unwrap();
            asked.push(Asked {
                page_size,
                skip,
                request_id,
            });
            asked.len()
        };
        let act = self.act.lock().unwrap().clone();
        match act {
            Act::List(total) => Ok(Response::new(self.page(total, &message))),
            Act::Promise(total, lease) => Ok(Response::new(v1::ListImagesResponse {
                // Nobody is promised what he did not ask for.
                lease: message.max_lease.is_some().then(|| lease.into()),
                system: number.to_string(),
                ..self.page(total, &message)
            })),
            Act::Answer(response) => Ok(Response::new(*response)),
            Act::Refuse(status) => Err(status),
            Act::Hold(release) => {
                release.notified().await;
                Ok(Response::new(self.response(vec![image(0)], 1)))
            }
            Act::Hang => std::future::pending().await,
        }
    }

    type StreamImagesStream = Answers<v1::StreamImagesResponse>;

    async fn stream_images(
        &self,
        _: Request<v1::StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_image(
        &self,
        _: Request<v1::GetImageRequest>,
    ) -> Result<Response<v1::Image>, Status> {
        Err(Status::unimplemented(""))
    }

    type WatchImagesStream = Answers<v1::WatchImagesResponse>;

    async fn watch_images(
        &self,
        _: Request<v1::WatchImagesRequest>,
    ) -> Result<Response<Self::WatchImagesStream>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// A server that sends the same bytes to whoever connects, and then nothing more.
pub async fn babbler(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(bytes).await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    address.to_string()
}

/// A way to an agent that breaks after so many bytes of its answers.
pub async fn breaking_way(to: &str, after: usize) -> String {
    let to: SocketAddr = to.parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let server = TcpStream::connect(to).await.unwrap();
                let (mut from_client, mut to_client) = client.into_split();
                let (from_server, mut to_server) = server.into_split();
                let up = tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
                });
                let mut limited = from_server.take(after as u64);
                let _ = tokio::io::copy(&mut limited, &mut to_client).await;
                up.abort();
            });
        }
    });
    address.to_string()
}

/// An address on which nothing listens, and nothing will: it is taken for as long as the tests run.
pub fn nowhere() -> String {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    std::mem::forget(socket);
    address
}

/// An address on which connections are asked for in vain, as if of a machine that is switched off: nobody
/// accepts those that fill the queue. It is so for as long as what is given lives.
pub async fn unreachable() -> (String, impl Sized) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    let brief = Duration::from_millis(200);
    while let Ok(stream) = tokio::time::timeout(brief, TcpStream::connect(address)).await {
        queued.push(stream.unwrap());
        assert!(queued.len() < 100, "the queue never fills");
    }
    (address.to_string(), (listener, queued))
}
