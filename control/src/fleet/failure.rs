//! Why a login node gave no listing, and what the API says then.
//!
//! Decided by the `reason` of `google.rpc.ErrorInfo` and by whether the agent said anything at
//! all, never by the text of a message.

use sifter_proto::ERROR_DOMAIN;
use sifter_proto::reason;
use tonic::Code;
use tonic::ConnectError;
use tonic::Status;
use tonic::TimeoutExpired;
use tonic_types::StatusExt;

use crate::api::ApiError;
use crate::api::Malformed;
use crate::api::error::clean;

/// Longest text of a failure, in characters, in the log.
const MAX_LINE: usize = 1024;

/// What a login node cannot do for an ordinary user.
const RESTRICTED: &str = "list all images: the agent shows only those that the control plane's user may \
    read; add that user to the agent's admin_group, or connect with [agent_tls]";

/// Why a login node gave no listing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No connection, a broken one, or something that is not this protocol.
    #[error("no sensible answer: {0}")]
    Transport(String),
    /// No answer within the time there was.
    #[error("no answer in time")]
    Timeout,
    /// An answer that breaks the contract.
    #[error("malformed answer: {0}")]
    Malformed(#[from] Malformed),
    /// The agent cannot answer yet, or no longer, or has too much to do.
    #[error("not ready: {0}")]
    NotReady(String),
    /// The agent could not carry out what the listing needs.
    #[error("failed to execute {0}")]
    ScanFailed(String),
    /// The agent shows only what this program's own user may see.
    #[error("failed to execute {RESTRICTED}")]
    Restricted,
    /// The agent's catalogue cannot be used.
    #[error("catalogue failed: {0}")]
    CatalogFailed(String),
    /// Anything else that an agent says.
    #[error("unexpected answer {code}: {message}")]
    Other {
        /// The gRPC code, and the reason if there was one.
        code: String,
        /// What the agent said.
        message: String,
    },
}

impl Failure {
    /// Reads a status. `from_agent`: whether it came over the wire; otherwise this side made it up
    /// because there was no answer, or none that could be read.
    pub fn from_status(status: &Status, from_agent: bool) -> Self {
        let message = status.message().to_owned();
        if !from_agent {
            return if has_timed_out(status) {
                Self::Timeout
            } else {
                Self::Transport(error_chain(status))
            };
        }
        let info = status
            .get_details_error_info()
            .filter(|info| info.domain == ERROR_DOMAIN);
        let meta = |key: &str| info.as_ref().and_then(|info| info.metadata.get(key));
        match (
            info.as_ref().map(|info| info.reason.as_str()),
            status.code(),
        ) {
            (Some(reason::SCAN_FAILED), _) => {
                Self::ScanFailed(match (meta("command"), meta("error")) {
                    (Some(command), Some(error)) => format!("{command}: {error}"),
                    (Some(command), None) => command.clone(),
                    (None, _) => message,
                })
            }
            (Some(reason::CATALOG_FAILED), _) => Self::CatalogFailed(message),
            (Some(reason::NOT_READY | reason::OVERLOADED), _)
            | (None, Code::Unavailable | Code::ResourceExhausted) => Self::NotReady(message),
            // The agent gave up since our own time was up.
            (None, Code::DeadlineExceeded | Code::Cancelled) => Self::Timeout,
            // A certificate that ended or was struck off while the connection was open: the next one is refused.
            (_, Code::Unauthenticated) => Self::Transport(message),
            (reason, code) => Self::Other {
                code: match reason {
                    Some(reason) => format!("{code:?}, {reason}"),
                    None => format!("{code:?}"),
                },
                message,
            },
        }
    }

    /// What the API answers.
    pub fn api_error(&self) -> ApiError {
        match self {
            Self::Transport(_) | Self::Timeout | Self::Malformed(_) => ApiError::AgentError,
            Self::NotReady(_) => ApiError::ServiceUnavailable,
            Self::ScanFailed(command) => ApiError::exec_fail(command),
            Self::Restricted => ApiError::exec_fail(RESTRICTED),
            Self::CatalogFailed(_) => ApiError::DbError,
            Self::Other { .. } => ApiError::UnknownError,
        }
    }

    /// Of the failures of several login nodes, the one that says most is answered: an agent that
    /// knows what is wrong before one that is merely not ready, any agent before silence.
    pub fn weight(&self) -> u8 {
        match self {
            Self::ScanFailed(_) => 6,
            Self::Restricted => 5,
            Self::CatalogFailed(_) => 4,
            Self::NotReady(_) => 3,
            Self::Other { .. } => 2,
            Self::Malformed(_) => 1,
            Self::Transport(_) | Self::Timeout => 0,
        }
    }

    /// Whether it counts against the login node: a node that says what is wrong is alive.
    pub fn trips_breaker(&self) -> bool {
        matches!(
            self,
            Self::Transport(_) | Self::Timeout | Self::Malformed(_)
        )
    }

    /// For the log, on one line: what an agent says has any characters.
    pub fn line(&self) -> String {
        clean(&self.to_string(), MAX_LINE)
    }

    /// A short name for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Transport(_) => "transport",
            Self::Timeout => "timeout",
            Self::Malformed(_) => "malformed",
            Self::NotReady(_) => "not_ready",
            Self::ScanFailed(_) => "scan_failed",
            Self::Restricted => "restricted",
            Self::CatalogFailed(_) => "catalog_failed",
            Self::Other { .. } => "other",
        }
    }
}

/// What a call that failed had of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connection {
    /// None could be made.
    None,
    /// There was one. If nothing came over it, it broke.
    Broken,
}

impl Connection {
    /// Reads a status.
    pub(super) fn of(status: &Status) -> Self {
        if causes(status).any(|error| error.is::<ConnectError>()) {
            Self::None
        } else {
            Self::Broken
        }
    }
}

/// Whether the call was given up on this side: the channel looks at the clock, too.
fn has_timed_out(status: &Status) -> bool {
    causes(status).any(|error| error.is::<TimeoutExpired>())
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(status), |error| error.source())
}

/// A status with the errors that caused it, but for the channel's own, which says no more than "transport error".
fn error_chain(status: &Status) -> String {
    let mut text = status.message().to_owned();
    for error in causes(status).filter(|error| !error.is::<tonic::transport::Error>()) {
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
    }
    // An agent that refuses a certificate, or wants one, closes the connection when this side thinks it open.
    let is_canceled = |error: &hyper::Error| error.is_canceled();
    if causes(status).any(|error| error.downcast_ref().is_some_and(is_canceled)) {
        text.push_str("; an agent that refuses a connection says why in its log");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use sifter_proto::v1::GetStatusRequest;
    use sifter_proto::v1::agent_service_client::AgentServiceClient;
    use tonic::transport::Channel;
    use tonic_types::ErrorDetails;

    use super::*;

    fn status(code: Code, domain: &str, reason: &str, metadata: &[(&str, &str)]) -> Status {
        let metadata: HashMap<String, String> = metadata
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let details = ErrorDetails::with_error_info(reason, domain, metadata);
        Status::with_error_details(code, "text", details)
    }

    #[test]
    fn reasons_decide() {
        let known = |code, reason| status(code, ERROR_DOMAIN, reason, &[]);
        let scan = status(
            Code::FailedPrecondition,
            ERROR_DOMAIN,
            reason::SCAN_FAILED,
            &[
                ("command", "scan /images"),
                ("error", "Permission denied (os error 13)"),
            ],
        );
        let rows = [
            (
                scan,
                ApiError::exec_fail("scan /images: Permission denied (os error 13)"),
            ),
            (
                known(Code::FailedPrecondition, reason::SCAN_FAILED),
                ApiError::exec_fail("text"),
            ),
            (
                known(Code::Internal, reason::CATALOG_FAILED),
                ApiError::DbError,
            ),
            (
                known(Code::Unavailable, reason::NOT_READY),
                ApiError::ServiceUnavailable,
            ),
            (
                known(Code::ResourceExhausted, reason::OVERLOADED),
                ApiError::ServiceUnavailable,
            ),
            (
                known(Code::InvalidArgument, reason::INVALID_ARGUMENT),
                ApiError::UnknownError,
            ),
            (
                known(Code::PermissionDenied, reason::PERMISSION_DENIED),
                ApiError::UnknownError,
            ),
            // The certificate of an open connection, as of one that is refused.
            (
                known(Code::Unauthenticated, reason::PERMISSION_DENIED),
                ApiError::AgentError,
            ),
            (
                known(Code::Internal, "SOMETHING_NEW"),
                ApiError::UnknownError,
            ),
            // Somebody else's reasons are not ours.
            (
                status(Code::Internal, "example.org", reason::CATALOG_FAILED, &[]),
                ApiError::UnknownError,
            ),
            (
                Status::new(Code::Unavailable, ""),
                ApiError::ServiceUnavailable,
            ),
            (
                Status::new(Code::ResourceExhausted, ""),
                ApiError::ServiceUnavailable,
            ),
            (
                Status::new(Code::DeadlineExceeded, ""),
                ApiError::AgentError,
            ),
            (Status::new(Code::Cancelled, ""), ApiError::AgentError),
            (Status::new(Code::Unimplemented, ""), ApiError::UnknownError),
            (Status::new(Code::Internal, ""), ApiError::UnknownError),
            (Status::new(Code::Unknown, ""), ApiError::UnknownError),
        ];
        for (status, expected) in rows {
            let failure = Failure::from_status(&status, true);
            assert_eq!(failure.api_error(), expected, "{status:?}");
        }
    }

    #[test]
    fn what_no_agent_said_is_transport() {
        for code in [Code::Unavailable, Code::Internal, Code::OutOfRange] {
            let failure = Failure::from_status(&Status::new(code, "x"), false);
            assert_eq!(failure.api_error(), ApiError::AgentError, "{code:?}");
            assert!(failure.trips_breaker());
        }
    }

    #[test]
    fn who_says_what_is_wrong_is_alive() {
        let malformed = Malformed::System(256);
        for (failure, trips) in [
            (Failure::Transport(String::new()), true),
            (Failure::Timeout, true),
            (Failure::Malformed(malformed), true),
            (Failure::NotReady(String::new()), false),
            (Failure::ScanFailed(String::new()), false),
            (Failure::Restricted, false),
            (Failure::CatalogFailed(String::new()), false),
            (
                Failure::Other {
                    code: String::new(),
                    message: String::new(),
                },
                false,
            ),
        ] {
            assert_eq!(failure.trips_breaker(), trips, "{failure:?}");
        }
    }

    #[test]
    fn a_call_that_this_side_gave_up_is_a_timeout() {
        let status = Status::from_error(Box::new(TimeoutExpired(())));
        assert_eq!(Failure::from_status(&status, false), Failure::Timeout);
    }

    #[tokio::test]
    async fn an_agent_that_is_not_there_is_told_of_by_what_the_system_says() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let channel = Channel::from_shared(address).unwrap().connect_lazy();
        let mut client = AgentServiceClient::new(channel);
        let status = client.get_status(GetStatusRequest {}).await.unwrap_err();
        let line = Failure::from_status(&status, false).line();
        let expected = "no sensible answer: tcp connect error: Connection refused (os error 111)";
        assert_eq!(line, expected);
    }

    #[test]
    fn a_failure_is_one_line_of_the_log() {
        let said = "away\n2026-01-02T03:04:05Z  INFO forged\u{1b}[2J";
        let status = Status::new(Code::Unavailable, said);
        let line = Failure::from_status(&status, true).line();
        assert!(line.starts_with("not ready: away"), "{line}");
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}
