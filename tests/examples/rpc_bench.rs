//! What an answer costs over gRPC, against a server of the same stack that answers a constant:
//!
//!     rpc_bench ADDRESS     (host:port of a running agent)
//!
//! Prints one line a figure; ratios are of the same run. Called by tests/bench/run.sh.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::error::Error;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use sifter_proto::encoded::image_service_server::{ImageService, ImageServiceServer};
use sifter_proto::encoded::{self, WithImages};
use sifter_proto::v1::image_service_client::ImageServiceClient;
use sifter_proto::v1::{
    GetImageRequest, Image, ListImagesRequest, ListImagesResponse, StreamImagesRequest,
    StreamImagesResponse, WatchImagesRequest, WatchImagesResponse,
};
use sifter_tests::process::Process;
use tokio_stream::Stream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

/// Calls a figure is taken from.
const CALLS: usize = 2000;

/// Pages that are asked for when the rate is measured, how many of them at once, and how often.
const PAGES: usize = 4000;
const AT_ONCE: usize = 16;
const RATES: usize = 7;

/// Streams a figure is taken from.
const STREAMS: usize = 7;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &*arguments {
        [address] => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(measure(address)),
        [what, address] if what == "--constant" => serve_constant(address),
        _ => Err("usage: rpc_bench ADDRESS".into()),
    }
}

async fn measure(address: &str) -> Result<()> {
    let mut agent = client(address).await?;
    let first = page(&mut agent, 0).await?;
    let last_skip = first.total_size.saturating_sub(50);
    // A process of its own, as the agent is.
    let log = tempfile::NamedTempFile::new()?;
    let mut server = Process::start(
        Command::new(std::env::current_exe()?).args(["--constant", address]),
        log.path(),
    );
    let constant_address = server.tcp_listener().to_string();
    let mut constant = client(&constant_address).await?;

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
        "one at a time / constant server (p50)",
        middle(&baseline),
        middle(&near),
    );
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..RATES {
        ours.push(many_pages(&agent).await?);
        theirs.push(many_pages(&constant).await?);
    }
    let rate = |times: &[Duration]| PAGES as f64 / middle(times).as_secs_f64();
    println!(
        "pages a second, {AT_ONCE} at once      {:.0}, constant server {:.0}",
        rate(&ours),
        rate(&theirs)
    );
    ratio(
        "request rate / constant server",
        middle(&theirs),
        middle(&ours),
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

/// How long many pages take, of which several are under way at once.
async fn many_pages(client: &ImageServiceClient<Channel>) -> Result<Duration> {
    let start = Instant::now();
    let clients = (0..AT_ONCE).map(|_| {
        let mut client = client.clone();
        async move {
            for _ in 0..PAGES / AT_ONCE {
                page(&mut client, 0).await?;
            }
            Ok(())
        }
    });
    futures_util::future::try_join_all(clients)
        .await
        .map(|_: Vec<()>| start.elapsed())
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

/// The same stack with nothing behind it: what it answers is encoded already.
struct Constant {
    page: encoded::ListImagesResponse,
    batches: Arc<[encoded::StreamImagesResponse]>,
}

/// The message as its own bytes.
fn encoded_once<M: Message + Default>(message: &M) -> WithImages<M> {
    WithImages {
        images: message.encode_to_vec(),
        rest: M::default(),
    }
}

/// Serves what the agent at `address` answers, until it is killed.
fn serve_constant(address: &str) -> Result<()> {
    // As many threads as the agent has.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut agent = client(address).await?;
        let batches = stream(&mut agent).await?.2;
        let constant = Constant {
            page: encoded_once(&page(&mut agent, 0).await?),
            batches: batches.iter().map(encoded_once).collect(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let incoming =
            tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
        tonic::transport::Server::builder()
            .add_service(ImageServiceServer::new(constant))
            .serve_with_incoming(incoming)
            .await?;
        Ok(())
    })
}

#[tonic::async_trait]
impl ImageService for Constant {
    type StreamImagesStream = Pin<
        Box<dyn Stream<Item = std::result::Result<encoded::StreamImagesResponse, Status>> + Send>,
    >;
    type WatchImagesStream =
        Pin<Box<dyn Stream<Item = std::result::Result<WatchImagesResponse, Status>> + Send>>;

    async fn list_images(
        &self,
        _: Request<ListImagesRequest>,
    ) -> std::result::Result<Response<encoded::ListImagesResponse>, Status> {
        Ok(Response::new(self.page.clone()))
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
