//! The connection to a running agent.

use std::time::Duration;

use sifter_proto::v1::agent_service_client::AgentServiceClient;
use sifter_proto::v1::image_service_client::ImageServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt;

use super::{Exit, WithExit};

/// Longest message that is accepted: batches of a stream are far smaller.
const MESSAGE_MAX: usize = 64 << 20;

/// Where the agent is.
#[derive(Debug, clap::Args)]
pub struct Address {
    /// The agent's address: `unix:/path` or `host:port`
    #[arg(
        long,
        short,
        env = "SIFTER_ADDRESS",
        default_value = crate::config::DEFAULT_SOCKET,
        value_name = "ADDRESS"
    )]
    address: String,

    /// Seconds to wait for the connection
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    connect_timeout: u64,
}

impl Address {
    /// An address to try, without much patience.
    pub fn new(address: String) -> Self {
        Self {
            address,
            connect_timeout: 3,
        }
    }

    /// Whether the agent is on this machine, so that its paths are ours.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.address.starts_with("unix:")
    }

    async fn channel(&self) -> anyhow::Result<Channel> {
        let uri = match self.address.strip_prefix("unix:") {
            Some(path) => format!("unix://{}", path.trim_start_matches("//")),
            None => format!("http://{}", self.address),
        };
        let endpoint = Endpoint::from_shared(uri)
            .map_err(|error| {
                WithExit::error(Exit::Usage, format!("address {}: {error}", self.address))
            })?
            .connect_timeout(Duration::from_secs(self.connect_timeout));
        endpoint.connect().await.map_err(|error| {
            let mut cause: &dyn std::error::Error = &error;
            while let Some(source) = cause.source() {
                cause = source;
            }
            WithExit::error(
                Exit::Unreachable,
                format!(
                    "no agent answers at {}: {cause} (is it running? `systemctl status \
                     sifter-agent`; another address: --address or SIFTER_ADDRESS; without an \
                     agent: `sifter scan DIRECTORY`)",
                    self.address
                ),
            )
        })
    }

    /// A client of the image service.
    ///
    /// # Errors
    ///
    /// No agent answers.
    pub async fn images(&self) -> anyhow::Result<ImageServiceClient<Channel>> {
        Ok(ImageServiceClient::new(self.channel().await?).max_decoding_message_size(MESSAGE_MAX))
    }

    /// A client of the agent service.
    ///
    /// # Errors
    ///
    /// No agent answers.
    pub async fn agent(&self) -> anyhow::Result<AgentServiceClient<Channel>> {
        Ok(AgentServiceClient::new(self.channel().await?).max_decoding_message_size(MESSAGE_MAX))
    }
}

/// Runs a client's calls.
///
/// # Errors
///
/// Those of the calls.
pub fn block_on<T>(calls: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(calls)
}

/// What an agent's error means for the command.
pub fn refused(status: &tonic::Status) -> anyhow::Error {
    let reason = status
        .get_details_error_info()
        .map(|info| info.reason)
        .unwrap_or_default();
    let exit = match status.code() {
        tonic::Code::Unavailable if reason.is_empty() => Exit::Unreachable,
        tonic::Code::InvalidArgument => Exit::Usage,
        _ => Exit::Failure,
    };
    let reason = if reason.is_empty() {
        format!("{:?}", status.code())
    } else {
        reason
    };
    WithExit::error(exit, format!("{} ({reason})", status.message()))
}
