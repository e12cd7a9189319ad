//! The end of the agent for calls that have none of their own: whoever watches would keep the agent
//! until its patience is over.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderMap, Request, Response};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

/// What a client is told whose call is ended.
const MESSAGE: &str = "the agent is stopping: call again when it is back";

/// Calls that end by themselves, and are given the time for it. All others may go on for ever.
const FINITE: [&str; 2] = ["StreamImages", "ListImages"];

/// A service whose endless answers end with the agent.
#[derive(Debug, Clone)]
pub(super) struct Ending<S> {
    pub(super) inner: S,
    /// Turns true when the agent stops.
    pub(super) stopping: watch::Receiver<bool>,
}

impl<S> Service<Request<Body>> for Ending<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let is_finite = FINITE
            .iter()
            .any(|method| path.rsplit('/').next() == Some(method));
        let mut stopping = self.stopping.clone();
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await?;
            if is_finite {
                return Ok(response);
            }
            let stopped = Box::pin(async move {
                // Whoever would tell is gone, and so will be the agent.
                let _ = stopping.wait_for(|stopping| *stopping).await;
            });
            Ok(response.map(|inner| {
                Body::new(Cut {
                    inner: Some(inner),
                    stopped,
                })
            }))
        })
    }
}

/// A body that ends when the agent stops, with a status that says so.
struct Cut {
    /// Dropped at the end, so that whoever makes it stops, too.
    inner: Option<Body>,
    stopped: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl HttpBody for Cut {
    type Data = <Body as HttpBody>::Data;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        // What is there goes first: an answer that has ended is not cut.
        if let Poll::Ready(frame) = Pin::new(inner).poll_frame(context) {
            return Poll::Ready(frame);
        }
        std::task::ready!(this.stopped.as_mut().poll(context));
        this.inner = None;
        let mut trailers = HeaderMap::new();
        let written = Status::unavailable(MESSAGE).add_header(&mut trailers);
        Poll::Ready(written.ok().map(|()| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}
