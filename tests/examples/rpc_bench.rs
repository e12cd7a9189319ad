//! What an answer costs over gRPC, against a server of the same stack that answers a constant:
//!
//!     rpc_bench ADDRESS     (host:port of a running agent)
//!
//! Prints one line a figure; ratios are of the same run. Called by tests/bench/run.sh.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sifter_proto::v1::image_service_client::ImageServiceClient;
use sifter_proto::v1::image_service_server::{ImageService, ImageServiceServer};
use sifter_proto::v1::{
    GetImageRequest, Image, ListImagesRequest, ListImagesResponse, StreamImagesRequest,
    StreamImagesResponse, WatchImagesRequest, WatchImagesResponse,
};
use tokio_stream::Stream;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};

/// Calls a figure is taken from.
const CALLS: usize = 2000;

/// Streams a figure is taken from.
const STREAMS: usize = 7;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let address = std::env::args().nth(1).ok_or("usage: rpc_bench ADDRESS")?;
    let mut agent = client(&address).await?;
    let first = page(&mut agent, 0).await?;
    let last_skip = first.total_size.saturating_sub(50);
    let batches = stream(&mut agent).await?.2;

    let constant = Constant {
        page: Arc::new(first.clone()),
        batches: Arc::new(batches),
    };
    let mut constant = client(&constant.serve()?).await?;

    let mut near = Vec::new();
    let mut far = Vec::new();
    let mut baseline = Vec::new();
    // In turn, so that the machine's moods meet all three alike.
    for _ in 0..CALLS {
        near.push(timed_page(&mut agent, 0).await?);
        far.push(timed_page(&mut agent, last_skip).await?);
        baseline.push(timed_page(&mut constant, 0).await?);
    }
    println!("images listed                 {}", first.total_size);
    report("page of 50, first", &mut near);
    report("page of 50, last", &mut far);
    report("page of 50, constant server", &mut baseline);
    ratio("last page / first page (p50)", middle(&far), middle(&near));
    ratio(
        "request rate / constant server (p50)",
        middle(&baseline),
        middle(&near),
    );

    let (mut whole, mut heads, mut constant_whole) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STREAMS {
        let (head, all, _) = stream(&mut agent).await?;
        heads.push(head);
        whole.push(all);
        constant_whole.push(stream(&mut constant).await?.1);
    }
    report("stream, first batch", &mut heads);
    report("stream, whole", &mut whole);
    report("stream, constant server", &mut constant_whole);
    ratio(
        "stream / constant stream (p50)",
        middle(&whole),
        middle(&constant_whole),
    );
    Ok(())
}

async fn client(address: &str) -> Result<ImageServiceClient<Channel>> {
    let channel = Channel::from_shared(format!("http://{address}"))?
        .connect()
        .await?;
    Ok(ImageServiceClient::new(channel).max_decoding_message_size(64 << 20))
}

async fn page(client: &mut ImageServiceClient<Channel>, skip: u64) -> Result<ListImagesResponse> {
    let request = ListImagesRequest {
        page_size: 50,
        skip,
        ..ListImagesRequest::default()
    };
    Ok(client.list_images(request).await?.into_inner())
}

async fn timed_page(client: &mut ImageServiceClient<Channel>, skip: u64) -> Result<Duration> {
    let start = Instant::now();
    page(client, skip).await?;
    Ok(start.elapsed())
}

async fn stream(
    client: &mut ImageServiceClient<Channel>,
) -> Result<(Duration, Duration, Vec<StreamImagesResponse>)> {
    let start = Instant::now();
    let mut stream = client
        .stream_images(StreamImagesRequest::default())
        .await?
        .into_inner();
    let mut head = None;
    let mut batches = Vec::new();
    while let Some(batch) = stream.message().await? {
        head.get_or_insert_with(|| start.elapsed());
        batches.push(batch);
    }
    Ok((head.unwrap_or_default(), start.elapsed(), batches))
}

fn middle(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() / 2]
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    println!("{what:<29} p50 {:>9.3?}  p99 {:>9.3?}", at(50), at(99));
}

fn ratio(what: &str, of: Duration, to: Duration) {
    println!("{what:<40} {:.2}", of.as_secs_f64() / to.as_secs_f64());
}

/// The same stack with nothing behind it.
#[derive(Clone)]
struct Constant {
    page: Arc<ListImagesResponse>,
    batches: Arc<Vec<StreamImagesResponse>>,
}

impl Constant {
    fn serve(self) -> Result<String> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?.to_string();
        // A thread of its own: the agent is a process of its own.
        std::thread::spawn(move || -> std::io::Result<()> {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?;
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                let incoming =
                    tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
                Server::builder()
                    .add_service(ImageServiceServer::new(self))
                    .serve_with_incoming(incoming)
                    .await
                    .map_err(std::io::Error::other)
            })
        });
        Ok(address)
    }
}

#[tonic::async_trait]
impl ImageService for Constant {
    type StreamImagesStream =
        Pin<Box<dyn Stream<Item = std::result::Result<StreamImagesResponse, Status>> + Send>>;
    type WatchImagesStream =
        Pin<Box<dyn Stream<Item = std::result::Result<WatchImagesResponse, Status>> + Send>>;

    async fn list_images(
        &self,
        _: Request<ListImagesRequest>,
    ) -> std::result::Result<Response<ListImagesResponse>, Status> {
        Ok(Response::new((*self.page).clone()))
    }

    async fn stream_images(
        &self,
        _: Request<StreamImagesRequest>,
    ) -> std::result::Result<Response<Self::StreamImagesStream>, Status> {
        let batches = Arc::clone(&self.batches);
        let items = (0..batches.len()).map(move |index| Ok(batches[index].clone()));
        Ok(Response::new(Box::pin(tokio_stream::iter(items))))
    }

    async fn get_image(
        &self,
        _: Request<GetImageRequest>,
    ) -> std::result::Result<Response<Image>, Status> {
        Err(Status::unimplemented("a constant"))
    }

    async fn watch_images(
        &self,
        _: Request<WatchImagesRequest>,
    ) -> std::result::Result<Response<Self::WatchImagesStream>, Status> {
        Err(Status::unimplemented("a constant"))
    }
}
