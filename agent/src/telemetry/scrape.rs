//! The metrics over HTTP, for Prometheus: one page, of a few kilobytes, to whoever reaches it.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

use super::Metrics;
use crate::config::Listen;

/// How the text is called.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Connections at a time; more wait.
const CONNECTIONS: usize = 16;

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Brings the figures up to date before they are shown.
pub type Refresh = Arc<dyn Fn() + Send + Sync>;

/// Binds the address, and serves from a task until the process ends. Says where it listens.
///
/// # Errors
///
/// What the operating system says.
pub async fn serve(
    address: &Listen,
    metrics: Arc<Metrics>,
    refresh: Refresh,
) -> io::Result<String> {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    match address {
        Listen::Unix(path) => {
            if std::os::unix::net::UnixStream::connect(path).is_err() {
                let _ = std::fs::remove_file(path);
            }
            let listener = UnixListener::bind(path)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
            tokio::spawn(async move {
                while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
                    match listener.accept().await {
                        Ok((stream, _)) => {
                            let answer = answer(stream, Arc::clone(&metrics), Arc::clone(&refresh));
                            tokio::spawn(async move { (answer.await, slot).1 });
                        }
                        Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                    }
                }
            });
            Ok(address.to_string())
        }
        Listen::Tcp(wanted) | Listen::Tls(wanted) => {
            let listener = TcpListener::bind(wanted).await?;
            let bound = listener.local_addr()?.to_string();
            tokio::spawn(async move {
                while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
                    match listener.accept().await {
                        Ok((stream, _)) => {
                            let answer = answer(stream, Arc::clone(&metrics), Arc::clone(&refresh));
                            tokio::spawn(async move { (answer.await, slot).1 });
                        }
                        Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                    }
                }
            });
            Ok(bound)
        }
    }
}

async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    metrics: Arc<Metrics>,
    refresh: Refresh,
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
            let text = tokio::task::spawn_blocking(move || {
                refresh();
                metrics.render()
            })
            .await;
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
