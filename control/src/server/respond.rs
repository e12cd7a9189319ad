//! How answers look on the wire.

use axum::body::Body;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::header;
use http::uri::Authority;
use uuid::Uuid;

use crate::api::ApiError;
use crate::api::reply;

/// Name of the header that repeats the request's ID.
pub(super) const REQUEST_ID: &str = "x-acs-request-id";

/// Milliseconds until a throttled client may try again; the vendor's clients read it.
const RETRY_AFTER: &str = "x-acs-retry-after";

/// Content type of every answer of the API.
pub(super) const JSON: &str = "application/json";

/// Longest `Host` that is repeated.
const MAX_HOST: usize = 256;

/// A new request ID: unlike all others, but no secret, so that it is worth no system call.
pub(super) fn new_request_id() -> String {
    uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes())
        .into_uuid()
        .hyphenated()
        .encode_upper(&mut Uuid::encode_buffer())
        .to_owned()
}

/// An answer with a body.
pub(super) fn answer(
    status: StatusCode,
    content_type: &'static str,
    request_id: &str,
    body: impl Into<Body>,
) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    // A listing is true when it is given, not later.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    identify(headers, request_id);
    response
}

fn identify(headers: &mut HeaderMap, request_id: &str) {
    if let Ok(value) = HeaderValue::from_str(request_id) {
        headers.insert(HeaderName::from_static(REQUEST_ID), value);
    }
}

/// An answer that is a file, with an ID like all others.
pub(super) async fn with_request_id(mut response: Response<Body>) -> Response<Body> {
    identify(response.headers_mut(), &new_request_id());
    response
}

/// The answer to a request that fails. The link in it leads to where clients reach this server: to its public
/// address, or else to the host that the request names.
pub(super) fn failure(
    error: &ApiError,
    request_id: &str,
    headers: &HeaderMap,
    tls: bool,
    public_url: Option<&str>,
) -> Response<Body> {
    let host = headers
        .get(header::HOST)
        .and_then(|value| value.to_str().ok())
        .map(|host| crate::api::error::clean(host, MAX_HOST))
        .unwrap_or_default();
    let base = public_url.map_or_else(|| origin(&host, tls), str::to_owned);
    let body = reply::error_json(error, request_id, &host, &base);
    let mut response = answer(error.status(), JSON, request_id, body);
    let headers = response.headers_mut();
    if let Some(wait) = error.retry_after() {
        let millis = wait.as_micros().div_ceil(1000);
        if let Ok(value) = HeaderValue::from_str(&millis.to_string()) {
            headers.insert(RETRY_AFTER, value);
        }
    }
    if let ApiError::UnsupportedHttpMethod { allowed } = error {
        headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
    }
    response
}

/// The address that a `Host` stands for, with or without the scheme and the slash that some clients write with it;
/// empty if it is none.
fn origin(host: &str, tls: bool) -> String {
    let bare = host.split_once("://").map_or(host, |(_, rest)| rest);
    let bare = bare.strip_suffix('/').unwrap_or(bare);
    let scheme = if tls { "https" } else { "http" };
    match bare.parse::<Authority>() {
        Ok(authority) if !authority.host().is_empty() && !bare.contains('@') => {
            format!("{scheme}://{authority}")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderMap;

    use super::RETRY_AFTER;
    use super::failure;
    use super::origin;
    use crate::api::ApiError;

    #[test]
    fn nobody_is_told_to_come_back_too_soon() {
        for (wait, expected) in [
            (Duration::from_nanos(1_001), "1"),
            (Duration::from_millis(1), "1"),
            (Duration::from_micros(1_001), "2"),
            (Duration::from_millis(2_500), "2500"),
        ] {
            let error = ApiError::ThrottlingUser { retry_after: wait };
            let answer = failure(&error, "ID", &HeaderMap::new(), false, None);
            assert_eq!(answer.headers()[RETRY_AFTER], expected, "{wait:?}");
        }
        let other = failure(&ApiError::DbError, "ID", &HeaderMap::new(), false, None);
        assert!(!other.headers().contains_key(RETRY_AFTER));
    }

    #[test]
    fn the_host_of_a_request_as_an_address() {
        for (host, tls, expected) in [
            ("localhost:8080", false, "http://localhost:8080"),
            ("EHPC.example.org", true, "https://EHPC.example.org"),
            ("[::1]:80", false, "http://[::1]:80"),
            ("http://127.0.0.1:1", false, "http://127.0.0.1:1"),
            ("http://127.0.0.1:1/", true, "https://127.0.0.1:1"),
            ("", false, ""),
            (":80", false, ""),
            ("a b", false, ""),
            ("a/b", false, ""),
            ("user@host", false, ""),
            ("\"><script>", false, ""),
            ("\u{fffd}", false, ""),
        ] {
            assert_eq!(origin(host, tls), expected, "{host}");
        }
    }
}
