//! The gRPC channel to one login node: connected when first needed, kept alive, and observed, so
//! that what the agent said can be told from what this side made up for want of an answer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::transport::ClientTlsConfig;
use tonic::transport::Endpoint;
use tower::Service;

use crate::config::AgentSettings;
use crate::config::NodeAddress;

/// A dead connection is noticed within the sum of these two, also while nothing is asked.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// A channel that connects when it is first used.
pub(super) fn connect(
    address: &NodeAddress,
    settings: &AgentSettings,
    tls: Option<&ClientTlsConfig>,
) -> Result<Channel, tonic::transport::Error> {
    let uri = match address {
        // The authority of a unix socket is only a name.
        NodeAddress::Unix(_) => "http://localhost".to_owned(),
        address => address.to_string(),
    };
    let mut endpoint = Endpoint::from_shared(uri)?
        .user_agent(concat!("sifter-control/", env!("CARGO_PKG_VERSION")))?
        .connect_timeout(settings.connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    Ok(match address {
        NodeAddress::Tcp(_) => endpoint.connect_lazy(),
        NodeAddress::Tls(_) => {
            if let Some(tls) = tls {
                // Otherwise a handshake that never ends would hold up every later request too.
                let tls = tls.clone().timeout(settings.connect_timeout);
                endpoint = endpoint.tls_config(tls)?;
            }
            endpoint.connect_lazy()
        }
        NodeAddress::Unix(path) => {
            let path = path.clone();
            endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
                let path = path.clone();
                async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
            }))
        }
    })
}

/// A channel for one call, which notes whether an error status came over the wire.
#[derive(Debug, Clone)]
pub(super) struct Observed {
    channel: Channel,
    refused: Arc<AtomicBool>,
}

impl Observed {
    pub(super) fn new(channel: Channel) -> Self {
        Self {
            channel,
            refused: Arc::default(),
        }
    }

    /// The note, to be read when the call has ended.
    pub(super) fn refused(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.refused)
    }
}

impl Service<http::Request<Body>> for Observed {
    type Response = http::Response<ObservedBody>;
    type Error = tonic::transport::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let refused = self.refused();
        let response = self.channel.call(request);
        Box::pin(async move {
            let response = response.await?;
            note(response.headers(), &refused);
            Ok(response.map(|inner| ObservedBody { inner, refused }))
        })
    }
}

/// The body of an observed answer; its trailers bear the status.
#[derive(Debug)]
pub(super) struct ObservedBody {
    inner: Body,
    refused: Arc<AtomicBool>,
}

impl hyper::body::Body for ObservedBody {
    type Data = <Body as hyper::body::Body>::Data;
    type Error = <Body as hyper::body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let poll = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &poll
            && let Some(trailers) = frame.trailers_ref()
        {
            note(trailers, &self.refused);
        }
        poll
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.inner.size_hint()
    }
}

fn note(headers: &http::HeaderMap, refused: &AtomicBool) {
    if headers
        .get("grpc-status")
        .is_some_and(|status| status != "0")
    {
        refused.store(true, Ordering::Relaxed);
    }
}
