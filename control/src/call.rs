//! A signed client of the API, for `sifter-control call`: nobody needs an SDK to try.
//!
//! One request, one connection, one deadline over everything. Speaks HTTP/1.1 with or without
//! TLS; follows no redirect, since the server sends none.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http::StatusCode;
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::Limited;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls::CertificateError;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls_pki_types::ServerName;
use sifter_tls::TlsError;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::auth::sign::Signed;

/// Largest answer that is read: 50 rows of the longest names are far below.
const MAX_ANSWER: usize = 8 << 20;

/// Where distributions keep the certificates of public authorities.
const SYSTEM_AUTHORITIES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// Where the API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host without brackets.
    host: String,
    port: u16,
    tls: bool,
    /// As the header `host` has it.
    authority: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The endpoint is no address.
    #[error("{0:?} is no endpoint: write http://host:port or https://host:port")]
    Endpoint(String),
    /// No connection.
    #[error("cannot connect to {0}")]
    Connect(String, #[source] io::Error),
    /// The certificates of authorities cannot be used.
    #[error(transparent)]
    Authorities(#[from] TlsError),
    /// None of the certificates in a file is of an authority that can be understood.
    #[error("{} {}: holds no certificate that can be used", .0, .1.display())]
    Unusable(&'static str, PathBuf),
    /// No file with certificates of authorities.
    #[error("no certificates of authorities on this system: name a file")]
    NoAuthorities,
    /// The certificate of the server is not trusted, or no TLS is spoken there.
    #[error("TLS with {0} failed{hint}", hint = tls_hint(.1))]
    Tls(String, #[source] io::Error),
    /// The connection broke, or something other than HTTP came.
    #[error("the exchange with {0} failed{hint}", hint = http_hint(.1))]
    Http(String, #[source] hyper::Error),
    /// The answer is too large or broke off.
    #[error("the answer could not be read")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The request cannot be written as HTTP.
    #[error("the request cannot be written as HTTP")]
    Request(#[source] http::Error),
    /// No answer within the time given.
    #[error("no answer from {0} within {1:?}")]
    Timeout(String, Duration),
}

/// What to do about a failure of TLS, where there is something to do.
fn tls_hint(error: &io::Error) -> &'static str {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    match cause {
        Some(rustls::Error::InvalidMessage(_)) => ", write http:// if it speaks none",
        Some(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => ", name a file with its authority (--ca)",
        _ => "",
    }
}

fn http_hint(error: &hyper::Error) -> &'static str {
    if error.is_parse() {
        ", write https:// if it speaks TLS"
    } else {
        ""
    }
}

impl Endpoint {
    /// Reads `http://host[:port]`, `https://host[:port]`, or `host[:port]` (http, as the
    /// clients of the vendor take it).
    pub fn parse(text: &str) -> Result<Self, CallError> {
        let bad = || CallError::Endpoint(text.to_owned());
        let (tls, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) => return Err(bad()),
            None => (false, text),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let authority: http::uri::Authority = rest.parse().map_err(|_| bad())?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(bad());
        }
        let has_port = authority.as_str().len() > authority.host().len();
        let port = match authority.port_u16() {
            Some(port) => port,
            None if has_port => return Err(bad()),
            None if tls => 443,
            None => 80,
        };
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port,
            tls,
            authority: authority.as_str().to_owned(),
        })
    }

    /// The value of the header `host`, which is signed.
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

/// Sends a signed request and returns status and body of the answer.
pub async fn send(
    endpoint: &Endpoint,
    authorities: Option<&PathBuf>,
    signed: &Signed,
    timeout: Duration,
) -> Result<(StatusCode, Bytes), CallError> {
    tokio::time::timeout(timeout, exchange(endpoint, authorities, signed))
        .await
        .unwrap_or_else(|_| Err(CallError::Timeout(endpoint.authority.clone(), timeout)))
}

async fn exchange(
    endpoint: &Endpoint,
    authorities: Option<&PathBuf>,
    signed: &Signed,
) -> Result<(StatusCode, Bytes), CallError> {
    let name = endpoint.authority.clone();
    let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port))
        .await
        .map_err(|e| CallError::Connect(name.clone(), e))?;
    if !endpoint.tls {
        return speak(stream, name, signed).await;
    }
    let server = ServerName::try_from(endpoint.host.clone())
        .map_err(|_| CallError::Endpoint(endpoint.authority.clone()))?;
    let config = ClientConfig::builder()
        .with_root_certificates(roots(authorities)?)
        .with_no_client_auth();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(server, stream)
        .await
        .map_err(|e| CallError::Tls(name.clone(), e))?;
    speak(stream, name, signed).await
}

fn roots(authorities: Option<&PathBuf>) -> Result<RootCertStore, CallError> {
    let (what, file) = match authorities {
        Some(file) => ("--ca", file.clone()),
        None => SYSTEM_AUTHORITIES
            .iter()
            .map(PathBuf::from)
            .find(|file| file.exists())
            .map(|file| ("the authorities of this system,", file))
            .ok_or(CallError::NoAuthorities)?,
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(sifter_tls::certificates(what, &file)?);
    if roots.is_empty() {
        return Err(CallError::Unusable(what, file));
    }
    Ok(roots)
}

async fn speak<S>(
    stream: S,
    name: String,
    signed: &Signed,
) -> Result<(StatusCode, Bytes), CallError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |e| CallError::Http(name.clone(), e);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    // Ends with the sender; its error is also the sender's.
    let connection = tokio::spawn(connection);
    let mut request = Request::builder()
        .method(signed.method.clone())
        .uri(signed.target())
        .body(Full::new(Bytes::from(signed.body.clone())))
        .map_err(CallError::Request)?;
    *request.headers_mut() = signed.headers.clone();
    let response = sender.send_request(request).await.map_err(failed)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(CallError::Body)?
        .to_bytes();
    connection.abort();
    Ok((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for (text, expected) in [
            (
                "http://a.example:8080",
                Some(("a.example", 8080, false, "a.example:8080")),
            ),
            (
                "https://a.example",
                Some(("a.example", 443, true, "a.example")),
            ),
            (
                "https://a.example:8443/",
                Some(("a.example", 8443, true, "a.example:8443")),
            ),
            (
                "127.0.0.1:80",
                Some(("127.0.0.1", 80, false, "127.0.0.1:80")),
            ),
            ("http://[::1]:9", Some(("::1", 9, false, "[::1]:9"))),
            ("a.example", Some(("a.example", 80, false, "a.example"))),
            ("", None),
            ("http://", None),
            ("ftp://a.example", None),
            ("http://a.example/path", None),
            ("http://user@a.example", None),
            ("http://a.example:99999", None),
            ("a b", None),
        ] {
            let got = Endpoint::parse(text).ok();
            let got = got
                .as_ref()
                .map(|e| (e.host.as_str(), e.port, e.tls, e.authority.as_str()));
            assert_eq!(got, expected, "{text}");
        }
    }
}
