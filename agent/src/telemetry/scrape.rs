//! The metrics over HTTP, for Prometheus: one page, of a few kilobytes, to whoever reaches it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use super::Metrics;
use crate::config::Listen;
use crate::lock::lock;
use crate::socket::UnixSocket;

/// How the text is called.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Connections at a time; more wait.
const CONNECTIONS: usize = 16;

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time before accepting is tried again where it failed.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Brings the figures up to date before they are shown.
pub type Refresh = Arc<dyn Fn() + Send + Sync>;

/// A listener for scrapes.
#[derive(Debug)]
pub enum Scrapes {
    /// A unix socket, and how it is called.
    Unix(UnixSocket, String),
    /// A TCP port, and how it is called.
    Tcp(TcpListener, String),
}

impl Scrapes {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &str {
        match self {
            Self::Unix(_, address) | Self::Tcp(_, address) => address,
        }
    }
}

/// Where the metrics are served.
pub struct Pages {
    metrics: Arc<Metrics>,
    refresh: Refresh,
    /// The listener of the configuration, which may be another one tomorrow.
    current: Mutex<Option<Serving>>,
}

impl Pages {
    /// Nowhere yet.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, refresh: Refresh) -> Self {
        Self {
            metrics,
            refresh,
            current: Mutex::default(),
        }
    }

    /// Serves there until the process ends.
    pub fn serve_for_good(&self, scrapes: Scrapes) {
        tracing::info!(address = scrapes.address(), "metrics");
        self.spawn(scrapes);
    }

    /// Whether they are served where the configuration says.
    #[must_use]
    pub fn are_at(&self, address: Option<&Listen>) -> bool {
        lock(&self.current).as_ref().map(|serving| &serving.at) == address
    }

    /// Serves there, as the configuration asks, and nowhere else any more. Answers under way outlive
    /// it.
    pub fn serve(&self, address: Option<&Listen>, scrapes: Option<Scrapes>) {
        let new = address.cloned().zip(scrapes).map(|(at, scrapes)| {
            tracing::info!(address = scrapes.address(), "metrics");
            let task = self.spawn(scrapes);
            Serving { at, task }
        });
        *lock(&self.current) = new;
    }

    fn spawn(&self, scrapes: Scrapes) -> AbortHandle {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        let (metrics, refresh) = (Arc::clone(&self.metrics), Arc::clone(&self.refresh));
        let task = tokio::spawn(async move {
            while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
                let (metrics, refresh) = (Arc::clone(&metrics), Arc::clone(&refresh));
                let accepted = match &scrapes {
                    Scrapes::Unix(socket, _) => socket.accept().await.map(|stream| {
                        tokio::spawn(answer(stream, metrics, refresh, slot));
                    }),
                    Scrapes::Tcp(listener, _) => listener.accept().await.map(|(stream, _)| {
                        tokio::spawn(answer(stream, metrics, refresh, slot));
                    }),
                };
                if accepted.is_err() {
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        });
        task.abort_handle()
    }
}

/// Serves, until dropped.
#[derive(Debug)]
struct Serving {
    at: Listen,
    task: AbortHandle,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers one connection, which has its slot until then.
async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    metrics: Arc<Metrics>,
    refresh: Refresh,
    _slot: OwnedSemaphorePermit,
) {
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (metrics, refresh) = (Arc::clone(&metrics), Arc::clone(&refresh));
        async move { Ok::<_, Infallible>(page(&request, metrics, refresh).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let _ = tokio::time::timeout(PATIENCE, connection).await;
}

async fn page(
    request: &http::Request<Incoming>,
    metrics: Arc<Metrics>,
    refresh: Refresh,
) -> Response<Full<Bytes>> {
    let (status, kind, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            // Counting a million images takes its time.
            let text = tokio::task::spawn_blocking(move || metrics.render(|| refresh())).await;
            match text {
                Ok(text) => (StatusCode::OK, OPEN_METRICS, text),
                Err(_) => (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "text/plain",
                    String::new(),
                ),
            }
        }
        (&Method::GET | &Method::HEAD, "/") => (
            StatusCode::OK,
            "text/plain",
            "sifter agent: the metrics are at /metrics\n".to_owned(),
        ),
        _ => (
            StatusCode::NOT_FOUND,
            "text/plain",
            "not found\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
