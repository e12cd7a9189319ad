//! One login node: its channel, its circuit breaker, and one call.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use sifter_proto::v1::ListImagesRequest;
use sifter_proto::v1::ListImagesResponse;
use sifter_proto::v1::image_service_client::ImageServiceClient;
use tonic::transport::Channel;
use tonic::transport::ClientTlsConfig;

use super::Breaker;
use super::Failure;
use super::breaker::BreakerSettings;
use super::breaker::BreakerState;
use super::channel;
use super::channel::Observed;
use super::failure::Connection;
use crate::config::AgentSettings;
use crate::config::NodeAddress;

/// Name under which an agent is told the request's ID.
pub const REQUEST_ID_METADATA: &str = "x-request-id";

/// A page of 50 images without labels and definitions has some 50 KiB; this is room for long paths
/// and a limit for what a broken agent can make us hold.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// A login node.
#[derive(Debug)]
pub struct Node {
    /// The address as logs and metrics show it.
    name: Arc<str>,
    channel: Channel,
    breaker: Arc<Breaker>,
}

impl Node {
    /// A login node; nothing is connected yet.
    pub fn new(
        address: &NodeAddress,
        settings: &AgentSettings,
        tls: Option<&ClientTlsConfig>,
    ) -> Result<Self, tonic::transport::Error> {
        Ok(Self {
            channel: channel::connect(address, settings, tls)?,
            breaker: Breaker::new(BreakerSettings {
                failures: settings.breaker_failures,
                open: settings.breaker_open,
                open_max: settings.breaker_open_max,
            }),
            name: address.to_string().into(),
        })
    }

    /// The node's address as logs and metrics show it.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether the node is to be asked.
    pub fn breaker(&self) -> &Arc<Breaker> {
        &self.breaker
    }

    /// Whether it has answered when last asked, as far as its breaker knows.
    pub(super) fn answers(&self) -> bool {
        self.breaker.state() == BreakerState::Closed
    }

    /// Asks the node for a page, within `budget`.
    pub async fn list_images(
        &self,
        request: &ListImagesRequest,
        request_id: &str,
        budget: Duration,
    ) -> Result<ListImagesResponse, Failure> {
        let started = Instant::now();
        let call = async {
            match self.call(request, request_id, budget).await {
                // The agent was restarted, and may be there again.
                Err((Failure::Transport(_), Connection::Broken)) => {
                    let rest = budget.saturating_sub(started.elapsed());
                    self.call(request, request_id, rest).await
                }
                other => other,
            }
            .map_err(|(failure, _)| failure)
        };
        tokio::time::timeout(budget, call)
            .await
            .unwrap_or(Err(Failure::Timeout))
    }

    async fn call(
        &self,
        message: &ListImagesRequest,
        request_id: &str,
        budget: Duration,
    ) -> Result<ListImagesResponse, (Failure, Connection)> {
        let mut request = tonic::Request::new(message.clone());
        // Tells the agent how long an answer is of use.
        request.set_timeout(budget);
        if let Ok(value) = request_id.parse() {
            request.metadata_mut().insert(REQUEST_ID_METADATA, value);
        }
        let observed = Observed::new(self.channel.clone());
        let refused = observed.refused();
        ImageServiceClient::new(observed)
            .max_decoding_message_size(MAX_ANSWER_BYTES)
            .list_images(request)
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| {
                let failure = Failure::from_status(&status, refused.load(Ordering::Relaxed));
                (failure, Connection::of(&status))
            })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::AtomicUsize;

    use tokio::net::TcpListener;

    use super::*;
    use crate::config::Settings;

    /// What comes of a node whose port accepts and hangs up at once, and how often it was connected to.
    async fn hung_up_on(scheme: &str, tls: Option<&ClientTlsConfig>) -> (Failure, usize) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("{scheme}{}", listener.local_addr().unwrap());
        let connected = Arc::new(AtomicUsize::new(0));
        let hang_up = tokio::spawn({
            let connected = Arc::clone(&connected);
            async move {
                while let Ok(connection) = listener.accept().await {
                    connected.fetch_add(1, Ordering::Relaxed);
                    drop(connection);
                }
            }
        });
        let address = NodeAddress::parse(&address, false).unwrap();
        let settings = Settings::parse("auth = \"none\"", Path::new("x")).unwrap();
        let node = Node::new(&address, &settings.agents, tls).unwrap();
        let request = ListImagesRequest::default();
        let budget = Duration::from_secs(10);
        let failure = node.list_images(&request, "R", budget).await.unwrap_err();
        hang_up.abort();
        (failure, connected.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn who_is_hung_up_on_is_told_where_to_look() {
        let (failure, _) = hung_up_on("http://", None).await;
        assert!(matches!(failure, Failure::Transport(_)), "{failure}");
        assert!(failure.line().contains("says why in its log"), "{failure}");
    }

    /// Where none can be made, another try would change nothing and take as long.
    #[tokio::test]
    async fn only_a_connection_that_was_there_is_worth_a_second_try() {
        let (_, connected) = hung_up_on("http://", None).await;
        assert_eq!(connected, 2);
        let tls = ClientTlsConfig::new();
        let (failure, connected) = hung_up_on("https://", Some(&tls)).await;
        assert!(matches!(failure, Failure::Transport(_)), "{failure}");
        assert_eq!(connected, 1);
    }
}
