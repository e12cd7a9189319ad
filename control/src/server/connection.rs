//! One connection: TLS if there is any, then HTTP/1.1 until the client or the server has enough.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Extension;
use axum::extract::State;
use axum::response::Response;
use futures_util::FutureExt;
use futures_util::TryFutureExt;
use futures_util::future::Either;
use http::HeaderValue;
use http::Method;
use http::header;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::App;
use super::handler;
use super::io::Guarded;
use super::peer::Peer;
use super::tls::Certificate;
use super::unread::Unread;
use crate::api::ApiError;

/// What a listener gives to each of its connections.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) app: Arc<App>,
    pub(super) routes: Router,
    /// Whether the API is among them, at `/`.
    pub(super) serves_api: bool,
    pub(super) certificate: Option<Arc<Certificate>>,
    /// Turns true when connections shall end after the request at hand.
    pub(super) closing: watch::Receiver<bool>,
}

/// Serves a connection to its end.
pub(super) async fn serve(context: Context, stream: TcpStream, address: SocketAddr) {
    context.app.metrics.connections.inc();
    let result = match &context.certificate {
        None => http(&context, stream, address, false).await,
        Some(certificate) => {
            let acceptor = TlsAcceptor::from(certificate.config());
            // A handshake is part of what must arrive before the headers do.
            let limit = context.app.settings.limits.header_timeout;
            match tokio::time::timeout(limit, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => http(&context, stream, address, true).await,
                Ok(Err(error)) => {
                    context.app.metrics.tls_failures.inc();
                    Err(error.into())
                }
                Err(elapsed) => {
                    context.app.metrics.tls_failures.inc();
                    Err(io::Error::from(elapsed).into())
                }
            }
        }
    };
    if let Err(error) = result {
        // Clients go away and speak nonsense all the time.
        tracing::debug!(client = %address, error, "connection ended");
    }
    context.app.metrics.connections.dec();
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Asks over a connection in memory whether the server is alive, on the way that every request goes once it
/// has been accepted. Not through a listener: while clients hold every connection that there may be, the
/// server is busy and not stuck.
pub(super) async fn probe(context: &Context) -> io::Result<bool> {
    let (mut client, server) = tokio::io::duplex(4096);
    let serve = http(context, server, SocketAddr::from(([127, 0, 0, 1], 0)), true);
    let ask = async {
        client.write_all(PROBE).await?;
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await?;
        Ok(answer.starts_with(b"HTTP/1.1 200 "))
    };
    let (served, answered) = tokio::join!(serve, ask);
    served.map_err(io::Error::other)?;
    answered
}

const PROBE: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

async fn http<S>(
    context: &Context,
    stream: S,
    address: SocketAddr,
    tls: bool,
) -> Result<(), BoxError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = &context.app.settings.limits;
    let peer = Peer {
        ip: address.ip().to_canonical(),
        tls,
    };
    let (app, routes) = (Arc::clone(&context.app), context.routes.clone());
    let serves_api = context.serves_api;
    let unread = Unread::default();
    let bodies = unread.clone();
    let answer = move |request: http::Request<hyper::body::Incoming>| {
        let mut request = request.map(|body| Body::new(bodies.watch(body)));
        if !app.hosts.admit(request.uri(), request.headers()) {
            let answer = handler::misdirected(&app, peer, request);
            return Either::Left(Either::Left(std::future::ready(Ok(answer))));
        }
        let method = request.method();
        // What nearly every request asks for needs no looking for.
        if serves_api
            && request.uri().path() == "/"
            && (method == Method::GET || method == Method::POST)
        {
            let answer = handler::api(State(Arc::clone(&app)), Extension(peer), request);
            return Either::Left(Either::Right(answer.map(Ok)));
        }
        request.extensions_mut().insert(peer);
        Either::Right(routes.clone().oneshot(request))
    };
    let rest = unread.clone();
    let service = service_fn(move |request| {
        let rest = rest.clone();
        let announced = move |mut response: Response| {
            // hyper closes a connection on which something is left, and does not say so beforehand.
            if rest.get() {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            response
        };
        answer(request).map_ok(announced)
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_header_size(limits.max_header_bytes)
        .max_buf_size(limits.max_header_bytes.max(limits.max_body_bytes) + 8192)
        // The answer to a half-closed connection still has a reader.
        .half_close(true)
        .serve_connection(
            TokioIo::new(Guarded::new(
                stream,
                limits,
                peer.ip,
                Arc::clone(&context.app.metrics),
                unread,
            )),
            service,
        );
    let mut closing = context.closing.clone();
    let ended = tokio::select! {
        biased;
        ended = &mut connection => Some(ended),
        _ = closing.wait_for(|closing| *closing) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    let Err(error) = ended else { return Ok(()) };
    // hyper gives these up without a word.
    let unanswered = if error.is_parse_version_h2() || error.is_incomplete_message() {
        Some(ApiError::BadRequest)
    } else if error.is_timeout() {
        Some(ApiError::RequestTimeout)
    } else {
        None
    };
    if let Some(answer) = unanswered {
        let parts = connection.into_parts();
        // Who has not begun a request waits for no answer, and would take one for that of the next. The ends of
        // line that some clients send behind a body begin none.
        if parts.read_buf.iter().any(|byte| !b"\r\n".contains(byte)) {
            parts.io.into_inner().refuse(&answer).await?;
        }
    }
    Err(error.into())
}
