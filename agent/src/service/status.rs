//! Errors as `google.rpc.Status` with `ErrorInfo`: clients decide by the reason, never by text.

use std::collections::HashMap;

use sifter_proto::{ERROR_DOMAIN, reason};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

fn status(
    code: Code,
    reason: &str,
    message: impl Into<String>,
    metadata: impl IntoIterator<Item = (&'static str, String)>,
) -> Status {
    let metadata: HashMap<String, String> = metadata
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    let details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, metadata);
    Status::with_error_details(code, message, details)
}

/// The first scan has not finished.
pub fn not_ready() -> Status {
    status(
        Code::Unavailable,
        reason::NOT_READY,
        "the first scan has not finished: try again later; GetStatus (`sifter status`) tells how far it is",
        [],
    )
}

/// No root can be read, and nothing is known of any.
pub fn scan_failed(command: String, error: String) -> Status {
    status(
        Code::FailedPrecondition,
        reason::SCAN_FAILED,
        format!("{command}: {error}"),
        [("command", command), ("error", error)],
    )
}

/// The catalogue cannot answer.
pub fn catalog_failed(error: &dyn std::fmt::Display) -> Status {
    status(
        Code::Internal,
        reason::CATALOG_FAILED,
        error.to_string(),
        [("error", error.to_string())],
    )
}

/// A field of the request is out of range.
pub fn invalid(field: &'static str, message: impl Into<String>) -> Status {
    status(
        Code::InvalidArgument,
        reason::INVALID_ARGUMENT,
        format!("{field}: {}", message.into()),
        [("field", field.to_owned())],
    )
}

/// The page token is not one of ours, or of another listing.
pub fn invalid_page_token(message: &str) -> Status {
    status(
        Code::InvalidArgument,
        reason::INVALID_PAGE_TOKEN,
        format!("page_token: {message}"),
        [],
    )
}

/// The generation is not held any more.
pub fn generation_expired(generation: u64) -> Status {
    status(
        Code::Aborted,
        reason::GENERATION_EXPIRED,
        format!("generation {generation} is not held any more: begin again without it"),
        [("generation", generation.to_string())],
    )
}

/// No image is listed under this path.
pub fn image_not_found(path: &str) -> Status {
    status(
        Code::NotFound,
        reason::IMAGE_NOT_FOUND,
        format!("no image is listed under {path}"),
        [],
    )
}

/// No such root is configured.
pub fn root_not_found(root: &str) -> Status {
    status(
        Code::NotFound,
        reason::ROOT_NOT_FOUND,
        format!("{root} is not a configured root"),
        [("root", root.to_owned())],
    )
}

/// A watcher fell behind.
pub fn overloaded(message: &str) -> Status {
    status(Code::ResourceExhausted, reason::OVERLOADED, message, [])
}

/// The host does not say who is who.
pub fn host_is_silent() -> Status {
    status(
        Code::Unavailable,
        reason::OVERLOADED,
        "the host of the agent does not say in time who its users and groups are (a directory service behind NSS, \
         such as LDAP, may hang: `getent group` there shows it): try again later",
        [],
    )
}

/// The caller may not do this.
pub fn permission_denied(message: &str) -> Status {
    status(
        Code::PermissionDenied,
        reason::PERMISSION_DENIED,
        message,
        [],
    )
}

/// The client's certificate has ended, or its name was taken off the list.
pub fn not_allowed_any_more() -> Status {
    status(
        Code::Unauthenticated,
        reason::PERMISSION_DENIED,
        "the client's certificate has expired, or is not in tls.allow any more",
        [],
    )
}
