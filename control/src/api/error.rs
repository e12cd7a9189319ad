//! Every error the HTTP API answers, as one closed enum.
//!
//! Three families share the shape of the reply: the ten errors that `ListContainerImages`
//! documents, the codes that the vendor's gateway answers before an action is reached, and the few
//! that belong to the HTTP layer itself. A variant fixes code, HTTP status and message; what goes
//! into a `%s` is a field. Nothing else may become an answer, so an error that is none of these is
//! [`ApiError::UnknownError`], and its cause goes to the log under the request's ID.
//!
//! Invariants: `code` is stable and never empty; `message` is the documented text word for word;
//! text from outside (names, commands) is shortened and freed of control characters here, once.

use std::fmt;
use std::time::Duration;

use http::StatusCode;

/// Longest text, in characters, that a request's own words may take in a message.
const MAX_ECHO: usize = 128;

/// Longest command, in characters, in the message of [`ApiError::ExecFail`].
const MAX_COMMAND: usize = 512;

/// An answer other than a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiError {
    // The documented errors of ListContainerImages.
    /// A parameter is missing, malformed, out of range or given twice.
    InvalidParams {
        /// Name of the parameter.
        parameter: String,
    },
    /// A container type other than `singularity` was asked for.
    InvalidContainerType {
        /// What was asked for.
        container_type: String,
    },
    /// The cluster is not known, or has no login node.
    LoginNotFound,
    /// Credentials or policies cannot be used (unreadable, unparsable).
    AliyunError,
    /// The catalogue of the agent cannot be read or written.
    DbError,
    /// The agent could not carry out the command that the listing needs.
    ExecFail {
        /// The command and the operating system's error.
        command: String,
    },
    /// No login node answered in time, or the answer was malformed.
    AgentError,
    /// The signature is right, the policy does not allow the request.
    NotAuthorized,
    /// Anything that has no code of its own, caught panics included.
    UnknownError,
    /// The first scan has not finished, or agent or control plane are draining or overloaded.
    ServiceUnavailable,

    // The gateway's errors: who is asking, and for what.
    /// The access key is not known.
    InvalidAccessKeyIdNotFound,
    /// The access key is disabled.
    InvalidAccessKeyIdInactive,
    /// The signature differs from the one computed here.
    SignatureDoesNotMatch {
        /// What was signed here. Clients look for it behind the colon of the message.
        string_to_sign: String,
    },
    /// A part of the signature is missing, or a required header is not signed.
    IncompleteSignature,
    /// The signature method, type or version is not supported.
    InvalidSignatureMethod,
    /// The time stamp is not `YYYY-MM-DDThh:mm:ssZ`.
    InvalidTimeStampFormat,
    /// The time stamp is outside of the accepted window.
    InvalidTimeStampExpired,
    /// The nonce was used before.
    SignatureNonceUsed,
    /// The security token has expired.
    InvalidSecurityTokenExpired,
    /// The security token is not one.
    InvalidSecurityTokenMalformed,
    /// The security token belongs to another access key.
    InvalidSecurityTokenMismatch,
    /// The access key is a temporary one and needs its security token.
    MissingSecurityToken,
    /// A parameter of the gateway (not of the action) is missing.
    MissingParameter {
        /// Name of the parameter.
        parameter: &'static str,
    },
    /// `Format` asks for something other than JSON.
    InvalidParameterFormat,
    /// The API version is not served.
    InvalidVersion,
    /// No such action, or no such path.
    InvalidActionNotFound,
    /// A method that the path does not have.
    UnsupportedHttpMethod {
        /// Those that it has, as the header `Allow` spells them.
        allowed: &'static str,
    },
    /// The request must come over TLS.
    InvalidProtocolNeedSsl,
    /// The access key has asked too often.
    ThrottlingUser {
        /// When to try again.
        retry_after: Duration,
    },

    // The HTTP layer.
    /// The request line, the headers or the body cannot be read as HTTP, UTF-8 or form data.
    BadRequest,
    /// The request names a host for which an open server does not answer.
    MisdirectedRequest,
    /// The request did not arrive in time.
    RequestTimeout,
    /// The body is too large.
    RequestTooLarge,
    /// The request target is too long.
    UriTooLong,
    /// The headers are too large.
    HeadersTooLarge,
}

impl ApiError {
    /// [`ApiError::InvalidParams`] for the named parameter.
    pub fn invalid_parameter(name: &str) -> Self {
        Self::InvalidParams {
            parameter: clean(name, MAX_ECHO),
        }
    }

    /// [`ApiError::InvalidContainerType`] for the given type.
    pub fn invalid_container_type(container_type: &str) -> Self {
        Self::InvalidContainerType {
            container_type: clean(container_type, MAX_ECHO),
        }
    }

    /// [`ApiError::ExecFail`] for the given command.
    pub fn exec_fail(command: &str) -> Self {
        Self::ExecFail {
            command: clean(command, MAX_COMMAND),
        }
    }

    /// The machine code (`Code` of the answer).
    pub fn code(&self) -> &'static str {
        self.row().0
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.row().1
    }

    /// Code and status, side by side so that they can be read as a table.
    fn row(&self) -> (&'static str, StatusCode) {
        // 406 and 407 are what the action documents, odd as they are; the vendor's own clients
        // pass both through as ordinary answers.
        match self {
            Self::InvalidParams { .. } => ("InvalidParams", StatusCode::BAD_REQUEST),
            Self::InvalidContainerType { .. } => ("InvalidContainerType", StatusCode::BAD_REQUEST),
            Self::LoginNotFound => ("LoginNotFound", StatusCode::NOT_FOUND),
            Self::AliyunError => ("AliyunError", StatusCode::NOT_ACCEPTABLE),
            Self::DbError => ("DbError", StatusCode::NOT_ACCEPTABLE),
            Self::ExecFail { .. } => ("ExecFail", StatusCode::NOT_ACCEPTABLE),
            Self::AgentError => ("AgentError", StatusCode::NOT_ACCEPTABLE),
            Self::NotAuthorized => ("NotAuthorized", StatusCode::PROXY_AUTHENTICATION_REQUIRED),
            Self::UnknownError => ("UnknownError", StatusCode::INTERNAL_SERVER_ERROR),
            Self::ServiceUnavailable => ("ServiceUnavailable", StatusCode::SERVICE_UNAVAILABLE),

            Self::InvalidAccessKeyIdNotFound => {
                ("InvalidAccessKeyId.NotFound", StatusCode::NOT_FOUND)
            }
            Self::InvalidAccessKeyIdInactive => {
                ("InvalidAccessKeyId.Inactive", StatusCode::BAD_REQUEST)
            }
            Self::SignatureDoesNotMatch { .. } => {
                ("SignatureDoesNotMatch", StatusCode::BAD_REQUEST)
            }
            Self::IncompleteSignature => ("IncompleteSignature", StatusCode::BAD_REQUEST),
            Self::InvalidSignatureMethod => ("InvalidSignatureMethod", StatusCode::BAD_REQUEST),
            Self::InvalidTimeStampFormat => ("InvalidTimeStamp.Format", StatusCode::BAD_REQUEST),
            Self::InvalidTimeStampExpired => ("InvalidTimeStamp.Expired", StatusCode::BAD_REQUEST),
            Self::SignatureNonceUsed => ("SignatureNonceUsed", StatusCode::BAD_REQUEST),
            Self::InvalidSecurityTokenExpired => {
                ("InvalidSecurityToken.Expired", StatusCode::BAD_REQUEST)
            }
            Self::InvalidSecurityTokenMalformed => {
                ("InvalidSecurityToken.Malformed", StatusCode::BAD_REQUEST)
            }
            Self::InvalidSecurityTokenMismatch => (
                "InvalidSecurityToken.MismatchWithAccessKey",
                StatusCode::BAD_REQUEST,
            ),
            Self::MissingSecurityToken => ("MissingSecurityToken", StatusCode::BAD_REQUEST),
            Self::MissingParameter { .. } => ("MissingParameter", StatusCode::BAD_REQUEST),
            Self::InvalidParameterFormat => ("InvalidParameter.Format", StatusCode::BAD_REQUEST),
            Self::InvalidVersion => ("InvalidVersion", StatusCode::BAD_REQUEST),
            Self::InvalidActionNotFound => ("InvalidAction.NotFound", StatusCode::NOT_FOUND),
            Self::UnsupportedHttpMethod { .. } => {
                ("UnsupportedHTTPMethod", StatusCode::METHOD_NOT_ALLOWED)
            }
            Self::InvalidProtocolNeedSsl => ("InvalidProtocol.NeedSsl", StatusCode::NOT_FOUND),
            Self::ThrottlingUser { .. } => ("Throttling.User", StatusCode::BAD_REQUEST),

            Self::BadRequest => ("BadRequest", StatusCode::BAD_REQUEST),
            Self::MisdirectedRequest => ("MisdirectedRequest", StatusCode::MISDIRECTED_REQUEST),
            Self::RequestTimeout => ("RequestTimeout", StatusCode::REQUEST_TIMEOUT),
            Self::RequestTooLarge => ("RequestTooLarge", StatusCode::PAYLOAD_TOO_LARGE),
            Self::UriTooLong => ("UriTooLong", StatusCode::URI_TOO_LONG),
            Self::HeadersTooLarge => (
                "HeadersTooLarge",
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            ),
        }
    }

    /// The sentence for people (`Message` of the answer).
    pub fn message(&self) -> String {
        match self {
            Self::InvalidParams { parameter } => {
                format!("The specified parameter {parameter} is invalid.")
            }
            Self::InvalidContainerType { container_type } => {
                format!("Unsupported container type: {container_type}.")
            }
            Self::LoginNotFound => "The specified login node does not exist.".into(),
            Self::AliyunError => "An Alibaba Cloud product error occurred.".into(),
            Self::DbError => "A database service error occurred.".into(),
            Self::ExecFail { command } => format!("Failed to execute the command: {command}."),
            Self::AgentError => "The agent service request failed.".into(),
            Self::NotAuthorized => "You are not authorized by RAM for this request.".into(),
            Self::UnknownError => "An unknown error occurred.".into(),
            // Without a full stop, as documented.
            Self::ServiceUnavailable => {
                "The request has failed due to a temporary failure of the server".into()
            }

            Self::InvalidAccessKeyIdNotFound => "Specified access key is not found.".into(),
            Self::InvalidAccessKeyIdInactive => "Specified access key is disabled.".into(),
            // One client splits this message at its first colon and fails without one.
            Self::SignatureDoesNotMatch { string_to_sign } => format!(
                "Specified signature is not matched with our calculation. \
                 server string to sign is:{string_to_sign}"
            ),
            Self::IncompleteSignature => {
                "The request signature does not conform to Aliyun standards.".into()
            }
            Self::InvalidSignatureMethod => "Specified signature method is not valid.".into(),
            Self::InvalidTimeStampFormat => {
                "Specified time stamp or date value is not well formatted.".into()
            }
            Self::InvalidTimeStampExpired => {
                "Specified time stamp or date value is expired.".into()
            }
            Self::SignatureNonceUsed => "Specified signature nonce was used already.".into(),
            Self::InvalidSecurityTokenExpired => "Specified SecurityToken is expired.".into(),
            Self::InvalidSecurityTokenMalformed => "Specified SecurityToken is malformed.".into(),
            Self::InvalidSecurityTokenMismatch => {
                "Specified SecurityToken mismatch with the AccessKey.".into()
            }
            Self::MissingSecurityToken => "SecurityToken is mandatory for this action.".into(),
            Self::MissingParameter { parameter } => format!(
                "The input parameter \"{parameter}\" that is mandatory for processing this \
                 request is not supplied."
            ),
            Self::InvalidParameterFormat => {
                "Specified parameter Format is not valid: only JSON is served.".into()
            }
            Self::InvalidVersion => "Specified parameter Version is not valid.".into(),
            Self::InvalidActionNotFound => {
                "Specified api is not found, please check your url and method.".into()
            }
            Self::UnsupportedHttpMethod { allowed } => format!(
                "This HTTP method is not supported: use {}.",
                allowed.replace(", ", " or ")
            ),
            Self::InvalidProtocolNeedSsl => "Your request is denied as lack of ssl protect.".into(),
            Self::ThrottlingUser { .. } => "Request was denied due to user flow control.".into(),

            Self::BadRequest => {
                "The request cannot be read: send plain HTTP/1.1 with UTF-8 parameters, as a \
                 query or as a form body."
                    .into()
            }
            Self::MisdirectedRequest => {
                "This server does not answer for the host that the request names.".into()
            }
            Self::RequestTimeout => "The request did not arrive in time.".into(),
            Self::RequestTooLarge => "The body of the request is too large.".into(),
            Self::UriTooLong => "The request target is too long.".into(),
            Self::HeadersTooLarge => "The headers of the request are too large.".into(),
        }
    }

    /// When to try again, for the answers that say so (`x-acs-retry-after`, milliseconds).
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::ThrottlingUser { retry_after } => Some(*retry_after),
            _ => None,
        }
    }

    /// Where the code is explained (`Recommend` of the answer): the page of errors under `base`,
    /// the address of this server, or a relative address where that is not known.
    pub fn recommend(&self, base: &str) -> String {
        format!("{base}/errors#{}", self.code())
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code(), self.message())
    }
}

impl std::error::Error for ApiError {}

/// Shortens text from outside and replaces its control characters, so that a message is one line
/// wherever it is shown.
pub(crate) fn clean(text: &str, max_chars: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max_chars));
    for (count, c) in text.chars().enumerate() {
        if count == max_chars {
            out.push('…');
            break;
        }
        out.push(if c.is_control() { '\u{fffd}' } else { c });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_errors_word_for_word() {
        // Code, HTTP status and message of API.md.
        let rows: [(ApiError, u16, &str, &str); 10] = [
            (
                ApiError::invalid_parameter("PageSize"),
                400,
                "InvalidParams",
                "The specified parameter PageSize is invalid.",
            ),
            (
                ApiError::invalid_container_type("docker"),
                400,
                "InvalidContainerType",
                "Unsupported container type: docker.",
            ),
            (
                ApiError::LoginNotFound,
                404,
                "LoginNotFound",
                "The specified login node does not exist.",
            ),
            (
                ApiError::AliyunError,
                406,
                "AliyunError",
                "An Alibaba Cloud product error occurred.",
            ),
            (
                ApiError::DbError,
                406,
                "DbError",
                "A database service error occurred.",
            ),
            (
                ApiError::exec_fail("scan /images: Permission denied (os error 13)"),
                406,
                "ExecFail",
                "Failed to execute the command: scan /images: Permission denied (os error 13).",
            ),
            (
                ApiError::AgentError,
                406,
                "AgentError",
                "The agent service request failed.",
            ),
            (
                ApiError::NotAuthorized,
                407,
                "NotAuthorized",
                "You are not authorized by RAM for this request.",
            ),
            (
                ApiError::UnknownError,
                500,
                "UnknownError",
                "An unknown error occurred.",
            ),
            (
                ApiError::ServiceUnavailable,
                503,
                "ServiceUnavailable",
                "The request has failed due to a temporary failure of the server",
            ),
        ];
        for (error, status, code, message) in rows {
            assert_eq!(error.status().as_u16(), status, "{code}");
            assert_eq!(error.code(), code);
            assert_eq!(error.message(), message, "{code}");
        }
    }

    #[test]
    fn signature_message_has_the_colon_that_clients_split_at() {
        let error = ApiError::SignatureDoesNotMatch {
            string_to_sign: "GET&%2F&A%3D1".into(),
        };
        let message = error.message();
        assert_eq!(message.split(':').nth(1), Some("GET&%2F&A%3D1"));
    }

    #[test]
    fn echoed_text_is_short_and_on_one_line() {
        type Echo = fn(&str) -> ApiError;
        let rows: [(Echo, usize); 3] = [
            (ApiError::invalid_parameter, MAX_ECHO),
            (ApiError::invalid_container_type, MAX_ECHO),
            (ApiError::exec_fail, MAX_COMMAND),
        ];
        for (error, most) in rows {
            // Characters, not bytes.
            let whole = "中".repeat(most);
            assert!(error(&whole).message().contains(&whole));
            let message = error(&format!("{whole}x")).message();
            assert!(message.contains(&format!("{whole}…")), "{message}");
            let message = error("a\n\u{1b}b").message();
            assert!(message.contains("a\u{fffd}\u{fffd}b"), "{message}");
        }
    }
}
