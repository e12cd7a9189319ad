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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use http_body_util::StreamBody;
    use hyper::body::{Body as _, Bytes, Frame};
    use tokio::sync::watch;
    use tonic::Status;
    use tonic::body::Body;
    use tower::Service;

    use super::{Ending, Request, Response};

    /// The body of a call's answer: one piece, or nothing yet, and no end.
    async fn body(method: &str, has_piece: bool, stopping: watch::Receiver<bool>) -> Body {
        let answer = move |_| async move {
            let piece = Ok::<_, Status>(Frame::data(Bytes::from_static(b"piece")));
            let pieces = tokio_stream::iter(has_piece.then_some(piece));
            let endless = tokio_stream::StreamExt::chain(pieces, tokio_stream::pending());
            Ok::<_, Infallible>(Response::new(Body::new(StreamBody::new(endless))))
        };
        let mut ending = Ending {
            inner: tower::service_fn(answer),
            stopping,
        };
        let path = format!("/sifter.v1.ImageService/{method}");
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        ending.call(request).await.unwrap().into_body()
    }

    #[tokio::test]
    async fn answers_without_an_end_end_with_the_agent_and_others_are_finished() {
        for (method, has_piece, is_stopping, expected) in [
            ("WatchImages", false, false, ["waits", "waits"]),
            ("WatchImages", false, true, ["cut", "end"]),
            // What is there is told.
            ("WatchImages", true, true, ["piece", "cut"]),
            ("ListImages", false, true, ["waits", "waits"]),
            ("StreamImages", true, true, ["piece", "waits"]),
        ] {
            let (_stop, stopping) = watch::channel(is_stopping);
            let mut body = body(method, has_piece, stopping).await;
            let told = expected.map(|_| {
                match Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())) {
                    Poll::Pending => "waits",
                    Poll::Ready(None) => "end",
                    Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => "cut",
                    Poll::Ready(Some(Ok(_))) => "piece",
                    Poll::Ready(Some(Err(status))) => panic!("{status}"),
                }
            });
            assert_eq!(told, expected, "{method} {has_piece} {is_stopping}");
        }
    }
}
