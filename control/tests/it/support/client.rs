//! A plain HTTP client: what is sent is exactly what a test says.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// Parses what came until the connection was closed.
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).expect("an answer in UTF-8");
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("not an answer: {text:?}"));
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let headers = lines
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap();
                (name.to_ascii_lowercase(), value.trim().to_owned())
            })
            .collect();
        Self {
            status: status.parse().unwrap(),
            headers,
            body: body.to_owned(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }

    pub fn code(&self) -> String {
        self.json()["Code"].as_str().unwrap_or("OK").to_owned()
    }

    /// Whether it is an error of the documented shape.
    pub fn assert_error(&self, status: u16, code: &str) {
        let json = self.json();
        assert_eq!(
            (self.status, json["Code"].as_str()),
            (status, Some(code)),
            "{json}"
        );
        assert_eq!(self.header("content-type"), Some("application/json"));
        for key in ["RequestId", "HostId", "Message", "Recommend"] {
            assert!(json[key].is_string(), "{key} of {json}");
        }
        assert_eq!(self.header("x-acs-request-id"), json["RequestId"].as_str());
        let id = json["RequestId"].as_str().unwrap();
        assert_eq!(id.len(), 36, "{id}");
        assert_eq!(id, id.to_uppercase());
    }
}

/// Sends bytes over a stream and reads until the server closes.
pub async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> Answer {
    // The server may answer and close before it has read all.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    Answer::parse(&answer)
}

/// Sends bytes as they are.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> Answer {
    exchange(TcpStream::connect(address).await.unwrap(), bytes).await
}

/// The bytes of a GET.
pub fn get_bytes(target: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!("GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += "\r\n";
    text.into_bytes()
}

pub async fn get(address: SocketAddr, target: &str) -> Answer {
    raw(address, &get_bytes(target, &[])).await
}

pub async fn post(address: SocketAddr, target: &str, content_type: &str, body: &[u8]) -> Answer {
    let mut bytes = format!(
        "POST {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend(body);
    raw(address, &bytes).await
}

/// Target of `ListContainerImages` with more parameters.
pub fn list_target(parameters: &str) -> String {
    format!("/?Action=ListContainerImages&Version=2018-04-12&Format=JSON&{parameters}")
}

pub async fn list(address: SocketAddr, parameters: &str) -> Answer {
    get(address, &list_target(parameters)).await
}
