//! The connection to a running agent.

use std::time::Duration;

use anyhow::Context;
use sifter_proto::v1::agent_service_client::AgentServiceClient;
use sifter_proto::v1::image_service_client::ImageServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt;

use super::{Exit, WithExit};

/// Longest message that is accepted: batches of a stream are far smaller.
const MESSAGE_MAX: usize = 64 << 20;

/// An agent that takes so long to say that it is there is not: stopped, or stuck.
const ALIVE: Duration = Duration::from_secs(10);

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
            None if is_host_and_port(&self.address) => format!("http://{}", self.address),
            None => {
                let message = format!(
                    "address {:?}: write unix:/path/of/the/socket or host:port",
                    self.address
                );
                return Err(WithExit::error(Exit::Usage, message));
            }
        };
        let endpoint = Endpoint::from_shared(uri)
            .map_err(|error| {
                WithExit::error(Exit::Usage, format!("address {}: {error}", self.address))
            })?
            .connect_timeout(Duration::from_secs(self.connect_timeout))
            .http2_keep_alive_interval(ALIVE)
            .keep_alive_timeout(ALIVE);
        endpoint.connect().await.map_err(|error| {
            WithExit::error(
                Exit::Unreachable,
                format!(
                    "no agent answers at {}: {} (is it running? `systemctl status \
                     sifter-agent`; another address: --address or SIFTER_ADDRESS; without an \
                     agent: `sifter scan DIRECTORY`)",
                    self.address,
                    cause(&error)
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

/// Whether an address is a name or a number, and a port. Not `tls:…`, as it may stand in `listen`.
fn is_host_and_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| {
        let is_host = match host.strip_prefix('[') {
            Some(number) => number.ends_with(']'),
            None => !host.is_empty() && !host.contains([':', '/']),
        };
        is_host && port.parse::<u16>().is_ok()
    })
}

/// What is at the bottom of an error.
fn cause<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> &'e (dyn std::error::Error + 'static) {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause
}

/// Runs a client's calls.
///
/// # Errors
///
/// Those of the calls.
pub fn block_on<T>(calls: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot prepare a connection")?
        .block_on(calls)
}

/// What an agent's error means for the command.
pub fn refused(status: &tonic::Status) -> anyhow::Error {
    let reason = status
        .get_details_error_info()
        .map(|info| info.reason)
        .unwrap_or_default();
    // What the agent says has no cause on this side.
    if reason.is_empty()
        && let Some(error) = std::error::Error::source(status)
    {
        let message = format!(
            "the connection to the agent ended: {} (is it still running? `systemctl status sifter-agent`)",
            cause(error)
        );
        return WithExit::error(Exit::Unreachable, message);
    }
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
    let hint = match status.code() {
        tonic::Code::Unimplemented => ": does an agent of this version listen there?",
        _ => "",
    };
    WithExit::error(exit, format!("{} ({reason}){hint}", status.message()))
}

#[cfg(test)]
mod tests {
    use super::is_host_and_port;

    #[test]
    fn what_is_no_address_is_told_from_one() {
        for (address, expected) in [
            ("login1:7430", true),
            ("127.0.0.1:7430", true),
            ("[::1]:7430", true),
            ("", false),
            ("login1", false),
            (":7430", false),
            ("login1:port", false),
            ("/run/sifter/agent.sock", false),
            ("run/agent.sock", false),
            ("http://login1:7430", false),
            ("tls:127.0.0.1:7430", false),
            ("tcp:[::1]:7430", false),
            ("::1:7430", false),
            ("[::1:7430", false),
        ] {
            assert_eq!(is_host_and_port(address), expected, "{address}");
        }
    }
}
