//! What an answer over HTTP costs: signed requests to a running control plane with a running agent
//! behind it, against the same stack that answers a constant.
//!
//!     control_bench constant                       serves a constant page; prints its address
//!     control_bench measure CONTROL PID CONSTANT PID AGENT PID REQUESTS
//!
//! Requests are signed before the clock starts, the addresses are `host:port`, and the processes
//! are asked for what they used. Called by tests/bench/control.sh, which starts them.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;
use std::time::Instant;

use axum::Router;
use axum::routing::any;
use http::Method;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use jiff::Timestamp;
use sifter_control::auth::Generation;
use sifter_control::auth::keys::Secret;
use sifter_control::auth::sign::Call;
use sifter_control::auth::sign::Credentials;
use sifter_control::auth::sign::sign;
use sifter_proto::v1::ListImagesRequest;
use sifter_proto::v1::image_service_client::ImageServiceClient;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tonic::transport::Channel;

/// Connections that ask at once.
const CONNECTIONS: usize = 32;

/// Requests of one round of one server; rounds take turns.
const ROUND: usize = 4_000;

/// Rounds of each server, for the rates.
const ROUNDS: usize = 5;

/// Requests one after the other, for the times.
const ALONE: usize = 4_000;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["constant"] => tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?
            .block_on(constant()),
        ["measure", control, cp, constant, np, agent, ap, requests] => {
            let control = Server::new(control, cp);
            let constant = Server::new(constant, np);
            let agent = Server::new(agent, ap);
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(measure(&control, &constant, &agent, requests.parse()?))
        }
        _ => Err("usage: see the head of control_bench.rs".into()),
    }
}

/// A process under load.
struct Server {
    address: String,
    pid: String,
}

impl Server {
    fn new(address: &str, pid: &str) -> Self {
        Self {
            address: address.to_owned(),
            pid: pid.to_owned(),
        }
    }

    /// Processor time used so far, in ticks of 10 ms.
    fn ticks(&self) -> Result<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        // Behind the name, which is in parentheses.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split(' ').collect();
        Ok(fields[12].parse::<u64>()? + fields[13].parse::<u64>()?)
    }

    /// Resident memory in KiB.
    fn resident(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let field = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(field.ok_or("no VmRSS")?.parse()?)
    }
}

async fn measure(
    control: &Server,
    constant: &Server,
    agent: &Server,
    requests: usize,
) -> Result<()> {
    // The answer that the constant server is told to give.
    let mut first = Connection::open(&control.address).await?;
    let page = first
        .ask(&signed(Generation::Acs3, &control.address)?)
        .await?;
    if !page.starts_with(b"HTTP/1.1 200") {
        return Err(String::from_utf8_lossy(&page).into_owned().into());
    }
    let body = page.split(|&b| b == b'{').skip(1).collect::<Vec<_>>();
    let body = format!("{{{}", String::from_utf8(body.join(&b'{'))?);
    println!("body of the answer            {} bytes", body.len());
    let mut told = Connection::open(&constant.address).await?;
    let teach = format!(
        "PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    told.ask(teach.as_bytes()).await?;

    alone(control, constant, agent).await?;
    rates(control, constant, agent).await?;
    memory(control, agent, requests).await
}

/// Times of requests one after the other, in turn, so that the machine's moods meet all alike.
async fn alone(control: &Server, constant: &Server, agent: &Server) -> Result<()> {
    let mut agent = ImageServiceClient::new(
        Channel::from_shared(format!("http://{}", agent.address))?
            .connect()
            .await?,
    );
    let mut ours = Connection::open(&control.address).await?;
    let mut floor = Connection::open(&constant.address).await?;
    let (mut v1, mut acs3, mut plain, mut rpc) = (vec![], vec![], vec![], vec![]);
    let (mut added_v1, mut added_acs3) = (vec![], vec![]);
    for turn in 0..ALONE + 200 {
        let start = Instant::now();
        let message = ListImagesRequest {
            page_size: 10,
            ..Default::default()
        };
        agent.list_images(message).await?;
        let behind = start.elapsed();
        let v1_request = signed(Generation::V1, &control.address)?;
        let acs3_request = signed(Generation::Acs3, &control.address)?;
        let first = ours.timed(&v1_request).await?;
        let second = ours.timed(&acs3_request).await?;
        let third = floor.timed(&v1_request).await?;
        // Connections and caches are warm by then.
        if turn >= 200 {
            rpc.push(behind);
            v1.push(first);
            acs3.push(second);
            plain.push(third);
            added_v1.push(first.saturating_sub(behind));
            added_acs3.push(second.saturating_sub(behind));
        }
    }
    report("agent alone, over gRPC", &mut rpc);
    report("constant server", &mut plain);
    report("control plane, V1", &mut v1);
    report("control plane, ACS3", &mut acs3);
    report("added to the agent's, V1", &mut added_v1);
    report("added to the agent's, ACS3", &mut added_acs3);
    Ok(())
}

/// Requests a second with many connections, and what each process spends on one.
async fn rates(control: &Server, constant: &Server, agent: &Server) -> Result<()> {
    let mut v1 = Rate::default();
    let mut acs3 = Rate::default();
    let mut plain = Rate::default();
    for _ in 0..ROUNDS {
        v1.round(control, Generation::V1, &[control, agent]).await?;
        plain.round(constant, Generation::V1, &[constant]).await?;
        acs3.round(control, Generation::Acs3, &[control, agent])
            .await?;
        plain.round(constant, Generation::Acs3, &[constant]).await?;
    }
    for (name, rate) in [("constant server", &plain), ("V1", &v1), ("ACS3", &acs3)] {
        println!(
            "{name:<29} {:>7.0} requests/s, CPU a request: {}",
            rate.per_second(),
            rate.used()
        );
    }
    for (name, rate) in [("V1", &v1), ("ACS3", &acs3)] {
        println!(
            "{:<29} {:.2} of its rate, {:.2} of it by the CPU time of the control plane alone",
            format!("{name} / constant server"),
            rate.per_second() / plain.per_second(),
            plain.microseconds(0) / rate.microseconds(0),
        );
    }
    Ok(())
}

/// Resident memory over many requests.
async fn memory(control: &Server, agent: &Server, requests: usize) -> Result<()> {
    let mut asked = 0;
    for part in 0..=10 {
        while asked < requests * part / 10 {
            let generation = [Generation::V1, Generation::Acs3][asked / ROUND % 2];
            load(control, generation).await?;
            asked += ROUND;
        }
        println!(
            "after {asked:>7} more requests    control plane {:>6} KiB, agent {:>6} KiB",
            control.resident()?,
            agent.resident()?
        );
    }
    Ok(())
}

/// What rounds of requests took together.
#[derive(Default)]
struct Rate {
    requests: usize,
    time: Duration,
    ticks: Vec<u64>,
}

impl Rate {
    async fn round(
        &mut self,
        server: &Server,
        generation: Generation,
        processes: &[&Server],
    ) -> Result<()> {
        let before = processes
            .iter()
            .map(|p| p.ticks())
            .collect::<Result<Vec<_>>>()?;
        self.time += load(server, generation).await?;
        self.requests += ROUND;
        self.ticks.resize(processes.len(), 0);
        for (index, process) in processes.iter().enumerate() {
            self.ticks[index] += process.ticks()? - before[index];
        }
        Ok(())
    }

    fn per_second(&self) -> f64 {
        self.requests as f64 / self.time.as_secs_f64()
    }

    fn microseconds(&self, process: usize) -> f64 {
        self.ticks[process] as f64 * 10_000.0 / self.requests as f64
    }

    fn used(&self) -> String {
        let mut text = String::new();
        for (index, name) in ["itself", "agent"]
            .iter()
            .take(self.ticks.len())
            .enumerate()
        {
            let _ = write!(text, "{name} {:.0} µs ", self.microseconds(index));
        }
        text
    }
}

/// A round of requests, spread over connections; how long it took.
async fn load(server: &Server, generation: Generation) -> Result<Duration> {
    let mut tasks = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = Connection::open(&server.address).await?;
        let requests = (0..ROUND / CONNECTIONS)
            .map(|_| signed(generation, &server.address))
            .collect::<Result<Vec<_>>>()?;
        tasks.push(async move {
            for request in requests {
                let answer = connection.ask(&request).await?;
                if !answer.starts_with(b"HTTP/1.1 200") {
                    return Err(String::from_utf8_lossy(&answer).into_owned().into());
                }
            }
            Result::Ok(())
        });
    }
    let start = Instant::now();
    let tasks: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
    for task in tasks {
        task.await??;
    }
    Ok(start.elapsed())
}

/// A connection that is kept.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(64 << 10),
        })
    }

    async fn timed(&mut self, request: &[u8]) -> Result<Duration> {
        let start = Instant::now();
        self.ask(request).await?;
        Ok(start.elapsed())
    }

    /// Sends a request and reads the answer, which has a Content-Length.
    async fn ask(&mut self, request: &[u8]) -> Result<Vec<u8>> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the connection was closed".into());
            }
            if let Some(length) = whole(&self.buffer)
                && self.buffer.len() >= length
            {
                return Ok(self.buffer[..length].to_vec());
            }
        }
    }
}

/// Length of the answer whose head is at the start of these bytes, if all of the head is there.
fn whole(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    })?;
    Some(end + length)
}

/// A signed request for the first page of ten.
fn signed(generation: Generation, host: &str) -> Result<Vec<u8>> {
    let credentials = Credentials {
        access_key_id: "bench".to_owned(),
        secret: Secret::new("bench-secret".to_owned()),
        security_token: None,
    };
    let parameters = [
        ("ClusterId", "bench"),
        ("PageNumber", "1"),
        ("PageSize", "10"),
    ];
    let call = Call {
        method: Method::GET,
        host,
        parameters: parameters
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        now: Timestamp::now(),
        nonce: uuid::Uuid::new_v4().simple().to_string(),
    };
    let signed = sign(generation, &credentials, call).ok_or("cannot be signed")?;
    let mut text = format!("{} {} HTTP/1.1\r\n", signed.method, signed.target());
    for (name, value) in &signed.headers {
        let _ = write!(text, "{name}: {}\r\n", value.to_str()?);
    }
    text += "\r\n";
    Ok(text.into_bytes())
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    println!("{what:<29} p50 {:>9.3?}  p99 {:>9.3?}", at(50), at(99));
}

/// The same stack with nothing behind it: answers with the body that it was last given by PUT.
async fn constant() -> Result<()> {
    let body = std::sync::Arc::new(std::sync::RwLock::new(hyper::body::Bytes::new()));
    let answer = any(move |request: axum::extract::Request| {
        let body = std::sync::Arc::clone(&body);
        async move {
            if request.method() == Method::PUT {
                let given = axum::body::to_bytes(request.into_body(), 1 << 20).await;
                *body.write().expect("no panic with the lock") = given.unwrap_or_default();
            }
            let body = body.read().expect("no panic with the lock").clone();
            ([("content-type", "application/json")], body)
        }
    });
    let routes = Router::new().route("/", answer);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let routes = routes.clone();
        tokio::spawn(async move {
            let service = TowerToHyperService::new(routes);
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // A client that goes away is no matter here.
            let _ = connection.await;
        });
    }
}
