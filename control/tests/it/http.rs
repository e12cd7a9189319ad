//! What the HTTP layer refuses, and how: always as JSON.

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::agent::Act;
use crate::support::agent::Agent;
use crate::support::client;
use crate::support::client::Answer;
use crate::support::client::raw;
use crate::support::server::Control;

#[tokio::test]
async fn refusals_are_json() {
    let tables = "[limits]\nmax_body_bytes = 1024\nmax_header_bytes = 8192";
    let control = Control::with(tables, &[]).await;
    let long = "a".repeat(9000);
    let rows: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("garbage", b"GARBAGE\r\n\r\n".to_vec(), 400, "BadRequest"),
        (
            "a bad header",
            b"GET / HTTP/1.1\r\nho st: x\r\n\r\n".to_vec(),
            400,
            "BadRequest",
        ),
        (
            "large headers",
            format!("GET / HTTP/1.1\r\nx: {long}\r\n\r\n").into_bytes(),
            431,
            "HeadersTooLarge",
        ),
        (
            "a long target",
            format!("GET /?{long} HTTP/1.1\r\n\r\n").into_bytes(),
            431,
            "HeadersTooLarge",
        ),
        (
            "many headers",
            format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(300)).into_bytes(),
            431,
            "HeadersTooLarge",
        ),
        (
            "another path",
            b"GET /nope HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_vec(),
            404,
            "InvalidAction.NotFound",
        ),
        (
            "another method",
            b"DELETE / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_vec(),
            405,
            "UnsupportedHTTPMethod",
        ),
        (
            "another method elsewhere",
            b"POST /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_vec(),
            405,
            "UnsupportedHTTPMethod",
        ),
        (
            "a large body, announced",
            b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1025\r\n\r\n".to_vec(),
            413,
            "RequestTooLarge",
        ),
        (
            "a body larger than can be written down",
            b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999999999999999\r\n\r\n"
                .to_vec(),
            400,
            "BadRequest",
        ),
        (
            "another host",
            b"GET / HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n".to_vec(),
            421,
            "MisdirectedRequest",
        ),
        (
            "another host's page",
            b"GET /metrics HTTP/1.1\r\nhost: evil.example:80\r\nconnection: close\r\n\r\n".to_vec(),
            421,
            "MisdirectedRequest",
        ),
        (
            "a large body, in chunks",
            format!(
                "POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n\
                 401\r\n{}\r\n0\r\n\r\n",
                "a".repeat(1025)
            )
            .into_bytes(),
            413,
            "RequestTooLarge",
        ),
        (
            "two ways to frame a body",
            b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"
                .to_vec(),
            400,
            "BadRequest",
        ),
        (
            "HTTP/2",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00".to_vec(),
            400,
            "BadRequest",
        ),
        (
            "broken chunks",
            b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_vec(),
            400,
            "BadRequest",
        ),
        (
            "a form that is not UTF-8",
            b"POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 3\r\n\
              content-type: application/x-www-form-urlencoded\r\n\r\n\xff=1"
                .to_vec(),
            400,
            "BadRequest",
        ),
    ];
    for (what, bytes, status, code) in rows {
        let answer = raw(control.address, &bytes).await;
        assert_eq!(answer.code(), code, "{what}: {answer:?}");
        answer.assert_error(status, code);
    }
    // And the server is none the worse.
    assert_eq!(client::get(control.address, "/healthz").await.status, 200);
}

#[tokio::test]
async fn a_request_that_ends_early_is_answered() {
    let control = Control::over(&[]).await;
    let ended = async |text: &str| {
        let mut stream = TcpStream::connect(control.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    for text in [
        "G",
        "GET / HTTP/1.1\r\nhost: local",
        "GET / HTTP/1.1\r\nhost: localhost\r\n",
        "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n3\r\nab",
    ] {
        let answer = ended(text).await;
        assert!(!answer.is_empty(), "{text:?}");
        Answer::parse(answer.as_bytes()).assert_error(400, "BadRequest");
    }
    let second = ended("GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\nGET / HT").await;
    let (_, second) = second.split_once('}').unwrap();
    Answer::parse(second.as_bytes()).assert_error(400, "BadRequest");
    // Where no request began, none is answered.
    for text in ["", "\r\n"] {
        assert_eq!(ended(text).await, "", "{text:?}");
    }
}

#[tokio::test]
async fn head_and_options_are_other_methods() {
    let control = Control::over(&[]).await;
    for method in ["HEAD", "OPTIONS"] {
        let bytes = format!("{method} / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let answer = raw(control.address, bytes.as_bytes()).await;
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("allow"), Some("GET, POST"), "{method}");
    }
    for page in ["/healthz", "/readyz", "/metrics", "/errors"] {
        let bytes = format!("POST {page} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let answer = raw(control.address, bytes.as_bytes()).await;
        answer.assert_error(405, "UnsupportedHTTPMethod");
        assert_eq!(answer.header("allow"), Some("GET, HEAD"), "{page}");
        assert_eq!(
            answer.json()["Message"],
            "This HTTP method is not supported: use GET or HEAD.",
            "{page}"
        );
        let bytes = bytes.replace("POST", "HEAD");
        let mut stream = TcpStream::connect(control.address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut head = String::new();
        stream.read_to_string(&mut head).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{page}: {head}");
    }
}

#[tokio::test]
async fn garbage_behind_another_request_is_answered_as_any() {
    let control = Control::over(&[]).await;
    for first in [
        "GET /healthz HTTP/1.1\r\n\r\n".to_owned(),
        "GET /healthz HTTP/1.0\r\nconnection: keep-alive\r\n\r\n".to_owned(),
        "POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\nbody".to_owned(),
    ] {
        let mut stream = TcpStream::connect(control.address).await.unwrap();
        let bytes = format!("{first}GARBAGE\r\n\r\n");
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (_, second) = text.split_once('}').unwrap();
        let answer = Answer::parse(second.as_bytes());
        assert_eq!(answer.code(), "BadRequest", "{first:?}");
        answer.assert_error(400, "BadRequest");
    }
}

#[tokio::test]
async fn pages_for_machines() {
    let agent = Agent::tcp("mycluster", Act::List(1)).await;
    let control = Control::over(&[agent.address()]).await;
    assert_eq!(control.list("").await.code(), "OK");
    assert_eq!(control.list("PageSize=0").await.code(), "InvalidParams");
    let health = client::get(control.address, "/healthz").await;
    assert_eq!(health.json()["status"], "ok");
    for page in ["/openapi.json", "/explorer", "/errors", "/healthz"] {
        let answer = client::get(control.address, page).await;
        let is_id =
            |(name, value): &(String, String)| name == "x-acs-request-id" && value.len() == 36;
        assert_eq!(answer.status, 200, "{page}");
        assert_eq!(
            answer.headers.iter().filter(|header| is_id(header)).count(),
            1,
            "{page}"
        );
    }
    let metrics = client::get(control.address, "/metrics").await.body;
    let node = format!("http://{}", agent.address());
    for line in [
        "sifter_control_http_requests_total{code=\"OK\",status=\"200\"} 1".to_owned(),
        "sifter_control_http_requests_total{code=\"InvalidParams\",status=\"400\"} 1".to_owned(),
        format!("sifter_control_agent_rpcs_total{{node=\"{node}\",outcome=\"ok\"}} 1"),
        format!("sifter_control_agent_rpc_duration_seconds_count{{node=\"{node}\"}} 1"),
        format!("sifter_control_agent_breaker_state{{node=\"{node}\"}} 0"),
        "sifter_control_clusters 1".to_owned(),
        "# EOF".to_owned(),
    ] {
        assert!(metrics.contains(&line), "no {line} in {metrics}");
    }
}

#[tokio::test]
async fn the_admin_listener_has_metrics_and_no_api() {
    let tables = "[admin]\nlisten = \"127.0.0.1:0\"";
    let control = Control::with(tables, &[]).await;
    let admin = control.running.admin_address.unwrap();
    assert_eq!(client::get(admin, "/metrics").await.status, 200);
    let answer: Answer = client::list(admin, "ClusterId=ehpc-test").await;
    answer.assert_error(404, "InvalidAction.NotFound");
}

#[tokio::test]
async fn tls_may_be_required_of_a_proxy() {
    let agent = Agent::tcp("mycluster", Act::List(1)).await;
    let tables = "[server]\nlisten = [\"127.0.0.1:0\"]\nrequire_tls = true\n\
                  trusted_proxies = [\"127.0.0.1\"]";
    let control = Control::with(tables, &[agent.address()]).await;
    let target = client::list_target("ClusterId=ehpc-test");
    for (proto, code) in [("http", "InvalidProtocol.NeedSsl"), ("https", "OK")] {
        let headers = [("x-forwarded-proto", proto)];
        let bytes = client::get_bytes(&target, &headers);
        assert_eq!(raw(control.address, &bytes).await.code(), code);
    }
}

/// A small generator that always says the same.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

#[tokio::test]
async fn whatever_is_sent_the_answer_is_documented() {
    let agent = Agent::tcp("mycluster", Act::List(3)).await;
    let control = Control::over(&[agent.address()]).await;
    let codes: Vec<&str> = include_str!("../../../docs/errors.md")
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let names = [
        "Action",
        "Version",
        "ClusterId",
        "PageNumber",
        "PageSize",
        "ContainerType",
        "Format",
        "Signature",
        "action",
        "%41ction",
        "",
        "%",
        "%ff",
        "x",
        "Images.1.Id",
        "+",
        "\u{4e2d}",
    ];
    let values = [
        "ListContainerImages",
        "2018-04-12",
        "ehpc-test",
        "singularity",
        "1",
        "50",
        "-1",
        "",
        "%",
        "%00",
        "%zz",
        "%ed%a0%80",
        "+",
        "JSON",
        "XML",
        "None",
        "99999999999999999999",
        "a=b",
        "<script>",
        "%0d%0a",
        "\u{1f980}",
        "1;2",
    ];
    let base = "Action=ListContainerImages&Version=2018-04-12&ClusterId=ehpc-test";
    for round in 0..2000 {
        let mut query = if dice.below(2) == 0 {
            base.to_owned()
        } else {
            String::new()
        };
        for _ in 0..dice.below(4) {
            query += dice.pick(&["&", "&&", ";", "&"]);
            query += dice.pick(&names);
            query += dice.pick(&["=", "", "=="]);
            query += dice.pick(&values);
        }
        let method = dice.pick(&["GET", "POST", "GET", "POST", "PUT", "get", "G T"]);
        let path = dice.pick(&["/", "/", "/", "/", "", "//", "/%2f", "/healthz/..", "*"]);
        let mut text = format!("{method} {path}?{query} HTTP/1.1\r\nconnection: close\r\n");
        for _ in 0..dice.below(3) {
            text += dice.pick(&[
                "host: x\r\n",
                "host: localhost\r\n",
                "host: \u{4e2d}\r\n",
                "content-type: application/x-www-form-urlencoded\r\n",
                "content-type: \u{7f}\r\n",
                "x-acs-action: Other\r\n",
                "authorization: ACS3-HMAC-SHA256 Credential=\r\n",
                "content-length: 3\r\n",
                "transfer-encoding: chunked\r\n",
                "expect: 100-continue\r\n",
                ": x\r\n",
                "x\r\n",
            ]);
        }
        text += "\r\n";
        text += dice.pick(&["", "abc", "3\r\na=b\r\n0\r\n\r\n", "A=1&A=2"]);
        let mut stream = TcpStream::connect(control.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        // What never comes is not waited for.
        stream.shutdown().await.unwrap();
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        assert!(!bytes.is_empty(), "{round}: {text:?} got no answer");
        let bytes = bytes
            .strip_prefix(b"HTTP/1.1 100 Continue\r\n\r\n")
            .unwrap_or(&bytes);
        let answer = Answer::parse(bytes);
        let code = answer.code();
        assert!(
            answer.status == 200 || codes.contains(&code.as_str()),
            "{round}: {text:?} gave {answer:?}"
        );
        assert!(answer.status < 500, "{round}: {text:?} gave {answer:?}");
    }
}
