//! What protects the server from its clients, and them from each other: times, sizes, numbers.

use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::support::agent::Act;
use crate::support::agent::Agent;
use crate::support::client;
use crate::support::client::Answer;
use crate::support::client::raw;
use crate::support::server::Control;
use crate::support::server::config;
use crate::support::until;

#[tokio::test]
async fn a_slow_body_is_not_waited_for() {
    let control = Control::with("[limits]\nbody_timeout_seconds = 1", &[]).await;
    let bytes = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nabc";
    let answer = raw(control.address, bytes).await;
    answer.assert_error(408, "RequestTimeout");
    assert_eq!(answer.header("connection"), Some("close"));
}

#[tokio::test]
async fn who_sends_too_much_is_let_finish() {
    // Many clients look for the answer only when they have written all: a connection that is reset before
    // would be all they see.
    let control = Control::over(&[]).await;
    let much = vec![b'a'; 16 << 20];
    let length = format!("content-length: {}\r\n", much.len());
    for (before, code) in [
        (
            format!("POST / HTTP/1.1\r\n{length}\r\n"),
            "RequestTooLarge",
        ),
        (
            format!(
                "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n",
                much.len()
            ),
            "RequestTooLarge",
        ),
        (
            format!("PUT / HTTP/1.1\r\n{length}\r\n"),
            "UnsupportedHTTPMethod",
        ),
        (
            format!("POST /nope HTTP/1.1\r\n{length}\r\n"),
            "InvalidAction.NotFound",
        ),
        (
            format!("POST / HTTP/1.1\r\nhost: evil.example\r\n{length}\r\n"),
            "MisdirectedRequest",
        ),
        ("GET /?a=".to_owned(), "HeadersTooLarge"),
        ("GET / HTTP/1.1\r\na: ".to_owned(), "HeadersTooLarge"),
    ] {
        let mut stream = TcpStream::connect(control.address).await.unwrap();
        stream.write_all(before.as_bytes()).await.unwrap();
        if let Err(error) = stream.write_all(&much).await {
            panic!("{before:?}: {error}");
        }
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = Answer::parse(&answer);
        assert_eq!(answer.code(), code, "{before:?}");
        // Nobody is to ask on a connection that ends.
        assert_eq!(answer.header("connection"), Some("close"), "{before:?}");
    }
}

#[tokio::test]
async fn headers_that_do_not_come_are_not_waited_for() {
    let control = Control::with("[limits]\nheader_timeout_seconds = 1", &[]).await;
    let exchange = async |sent: &str| {
        let mut stream = TcpStream::connect(control.address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    let whole = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let half = "GET / HTTP/1.1\r\nhost: local";
    let behind = format!("{whole}{half}");
    let ended = format!("{whole}\r\n");
    let (nothing, answered, and_ended, late, late_again) = tokio::join!(
        exchange(""),
        exchange(whole),
        exchange(&ended),
        exchange(half),
        exchange(&behind)
    );
    // Who asks for nothing is told nothing.
    assert_eq!(nothing, "");
    for answer in [answered, and_ended] {
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        assert!(answer.ends_with('}'), "{answer}");
    }
    Answer::parse(late.as_bytes()).assert_error(408, "RequestTimeout");
    let (_, second) = late_again.split_once('}').unwrap();
    Answer::parse(second.as_bytes()).assert_error(408, "RequestTimeout");
}

#[tokio::test]
async fn too_much_at_a_time_is_refused_at_once() {
    let release = Arc::new(Notify::new());
    let agent = Agent::tcp("mycluster", Act::Hold(release.clone())).await;
    let tables = "[limits]\nmax_concurrent_requests = 1";
    let control = Control::with(tables, &[agent.address()]).await;
    let ((), held) = tokio::join!(
        async {
            until("the agent is asked", async || !agent.asked().is_empty()).await;
            control
                .list("")
                .await
                .assert_error(503, "ServiceUnavailable");
            // What looks after the server still gets in.
            assert_eq!(client::get(control.address, "/readyz").await.status, 200);
            release.notify_one();
        },
        control.list("")
    );
    assert_eq!(held.code(), "OK");
}

#[tokio::test]
async fn a_hung_cluster_leaves_room_for_others() {
    const ASKED: usize = 40;
    let hung = Agent::tcp("hung", Act::Hang).await;
    let well = Agent::tcp("well", Act::List(1)).await;
    let nodes = [[hung.address()], [well.address()]];
    let text = config(
        "[limits]\nmax_concurrent_requests = 12\nanswer_within_ms = 30000\n",
        &[("hung", &nodes[0][..]), ("well", &nodes[1][..])],
    );
    let control = Control::start(tempfile::tempdir().unwrap(), &text).await;
    let address = control.address;
    let mut requests = tokio::task::JoinSet::new();
    for page in 1..=ASKED {
        // Each page is a call of its own.
        requests.spawn(async move {
            client::list(address, &format!("ClusterId=hung&PageNumber={page}")).await
        });
    }
    let mut refused = 0;
    until("the others were refused", async || {
        while let Some(answer) = requests.try_join_next() {
            answer.unwrap().assert_error(503, "ServiceUnavailable");
            refused += 1;
        }
        refused + hung.asked().len() == ASKED
    })
    .await;
    assert!(
        (1..=9).contains(&hung.asked().len()),
        "{}",
        hung.asked().len()
    );
    let answer = client::list(address, "ClusterId=well").await;
    assert_eq!(answer.code(), "OK", "{}", answer.body);
}

#[tokio::test]
async fn one_address_leaves_connections_for_others() {
    let control = Control::with("[limits]\nmax_connections = 32\n", &[]).await;
    let from = async |ip: [u8; 4]| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((ip, 0).into()).unwrap();
        socket.connect(control.address).await.unwrap()
    };
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(from([127, 0, 0, 1]).await);
    }
    let request = client::get_bytes("/healthz", &[]);
    let answered = async || {
        let mut stream = from([127, 0, 0, 1]).await;
        let mut bytes = Vec::new();
        // It may be closed before all is sent.
        let _ = stream.write_all(&request).await;
        let _ = stream.read_to_end(&mut bytes).await;
        bytes.starts_with(b"HTTP/1.1 200")
    };
    assert!(!answered().await);
    let other = client::exchange(from([127, 0, 0, 2]).await, &request).await;
    assert_eq!(other.status, 200);
    let request = client::get_bytes("/metrics", &[]);
    let metrics = client::exchange(from([127, 0, 0, 2]).await, &request).await;
    let refused = "sifter_control_http_connections_refused_total 1\n";
    assert!(metrics.body.contains(refused), "{}", metrics.body);
    drop(silent);
    until("there is room again", answered).await;
}
