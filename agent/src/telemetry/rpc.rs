//! Every RPC in the log and in the metrics, under the request's ID, which the control plane has
//! in its log, too.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use http::{HeaderMap, Request, Response};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tonic::Code;
use tonic::body::Body;
use tower::Service;
use tracing::{Instrument, Span};

use super::Metrics;
use crate::peer::Peer;

/// Metadata with the request's ID.
const REQUEST_ID: &str = "x-request-id";

/// Longest ID that is taken.
const REQUEST_ID_MAX: usize = 128;

/// A method that the agent has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Method {
    pub service: &'static str,
    pub name: &'static str,
    pub kind: &'static str,
}

const IMAGES: &str = "sifter.v1.ImageService";
const AGENT: &str = "sifter.v1.AgentService";
const HEALTH: &str = "grpc.health.v1.Health";
const REFLECTION: &str = "grpc.reflection.v1.ServerReflection";
const REFLECTION_ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";
const UNARY: &str = "unary";
const STREAM: &str = "server_stream";
const BOTH: &str = "bidi_stream";

/// All methods: what anybody may call otherwise has no series of its own.
const METHODS: [Method; 11] = [
    Method::new(IMAGES, "ListImages", UNARY),
    Method::new(IMAGES, "StreamImages", STREAM),
    Method::new(IMAGES, "GetImage", UNARY),
    Method::new(IMAGES, "WatchImages", STREAM),
    Method::new(AGENT, "GetStatus", UNARY),
    Method::new(AGENT, "Scan", STREAM),
    Method::new(HEALTH, "Check", UNARY),
    Method::new(HEALTH, "List", UNARY),
    Method::new(HEALTH, "Watch", STREAM),
    Method::new(REFLECTION, "ServerReflectionInfo", BOTH),
    Method::new(REFLECTION_ALPHA, "ServerReflectionInfo", BOTH),
];

impl Method {
    const fn new(service: &'static str, name: &'static str, kind: &'static str) -> Self {
        Self {
            service,
            name,
            kind,
        }
    }

    pub(super) fn of(path: &str) -> Self {
        let asked = path.trim_start_matches('/').split_once('/');
        let known = METHODS
            .into_iter()
            .find(|method| asked == Some((method.service, method.name)));
        known.unwrap_or(Self::new("unknown", "unknown", UNARY))
    }

    /// Whether calls are part of every day's noise.
    fn is_noise(self) -> bool {
        self.service.starts_with("grpc.")
    }
}

/// The request's ID, if the client gave one that can be written down.
fn request_id(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(REQUEST_ID)?
        .to_str()
        .ok()
        .filter(|id| !id.is_empty() && id.len() <= REQUEST_ID_MAX)
}

/// A service whose RPCs are logged and counted.
#[derive(Debug, Clone)]
pub struct Rpc<S> {
    /// The service.
    pub inner: S,
    /// Where they are counted.
    pub metrics: Arc<Metrics>,
}

impl<S> Service<Request<Body>> for Rpc<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = Method::of(request.uri().path());
        let peer = request.extensions().get::<Peer>();
        let span = tracing::info_span!(
            "rpc",
            method = method.name,
            service = method.service,
            peer = peer.map(tracing::field::display),
            request_id = request_id(request.headers()),
        );
        let id = request.headers().get(REQUEST_ID).cloned();
        let mut call = Call {
            method,
            metrics: Arc::clone(&self.metrics),
            began: Instant::now(),
            span: span.clone(),
            code: None,
        };
        self.metrics.rpc_started(&method);
        let response = span.in_scope(|| self.inner.call(request));
        Box::pin(
            async move {
                // Dropped before its end, the call was cancelled.
                let mut response = response.await?;
                if let Some(id) = id {
                    response.headers_mut().insert(REQUEST_ID, id);
                }
                call.note(response.headers());
                let (parts, inner) = response.into_parts();
                let body = Body::new(Observed { inner, call });
                Ok(Response::from_parts(parts, body))
            }
            .instrument(span),
        )
    }
}

/// One RPC until its end.
struct Call {
    method: Method,
    metrics: Arc<Metrics>,
    began: Instant,
    span: Span,
    code: Option<Code>,
}

impl Call {
    fn note(&mut self, headers: &HeaderMap) {
        if let Some(status) = headers.get("grpc-status") {
            self.code = Some(Code::from_bytes(status.as_bytes()));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let duration = self.began.elapsed();
        let code = code_name(self.code.unwrap_or(Code::Cancelled));
        self.metrics.rpc_handled(&self.method, code, duration);
        self.span.in_scope(|| {
            let micros = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
            let duration_ms = f64::from(micros) / 1e3;
            if self.method.is_noise() {
                tracing::debug!(code, duration_ms, "rpc");
            } else {
                tracing::info!(code, duration_ms, "rpc");
            }
        });
    }
}

/// The body of an answer; its trailers bear the status.
struct Observed {
    inner: Body,
    call: Call,
}

impl HttpBody for Observed {
    type Data = <Body as HttpBody>::Data;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        let span = this.call.span.clone();
        let polled = span.in_scope(|| Pin::new(&mut this.inner).poll_frame(context));
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(trailers) = frame.trailers_ref()
        {
            this.call.note(trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The code as it is spelt in the metrics of every gRPC library.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::{Method, request_id};

    #[test]
    fn methods_are_those_of_the_contract() {
        assert_eq!(
            Method::of("/sifter.v1.ImageService/ListImages").name,
            "ListImages"
        );
        for path in [
            "",
            "/",
            "/sifter.v1.ImageService",
            "/sifter.v1.ImageService/X",
            "/a/b/c",
        ] {
            assert_eq!(Method::of(path).service, "unknown", "{path}");
        }
        // Every method of the descriptor has its own series.
        let set = String::from_utf8_lossy(sifter_proto::FILE_DESCRIPTOR_SET);
        for Method { service, name, .. } in super::METHODS {
            if let Some(short) = service.strip_prefix("sifter.v1.") {
                assert!(
                    set.contains(short) && set.contains(name),
                    "{service}/{name}"
                );
            }
        }
    }

    #[test]
    fn an_id_that_cannot_be_written_down_is_none() {
        let id = |value: &[u8]| {
            let mut headers = http::HeaderMap::new();
            headers.insert(
                "x-request-id",
                http::HeaderValue::from_bytes(value).unwrap(),
            );
            request_id(&headers).map(str::to_owned)
        };
        assert_eq!(
            id(b"04F0F334-1335-436C-A1D7-6C044FE73368").unwrap().len(),
            36
        );
        assert_eq!(id(b""), None);
        assert_eq!(id(&[b'a'; 129]), None);
        assert_eq!(id(b"\xff"), None);
        assert_eq!(request_id(&http::HeaderMap::new()), None);
    }
}
