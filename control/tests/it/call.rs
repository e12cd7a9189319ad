//! `sifter-control call` against a server.

use std::fs;
use std::process::Command;
use std::process::Output;

use tokio::net::TcpListener;

use crate::support::agent::Act;
use crate::support::agent::Agent;
use crate::support::server::CLUSTER;
use crate::support::server::Control;
use crate::support::server::config;
use crate::tls::Authority;

/// A call for the cluster's images at an endpoint.
fn call(endpoint: &str, more: &[&str]) -> Command {
    let mut call = Command::new(env!("CARGO_BIN_EXE_sifter-control"));
    call.args(["call", "ListContainerImages", "--cluster", CLUSTER])
        .args(["--endpoint", endpoint])
        .args(more)
        .env("ALIBABA_CLOUD_ACCESS_KEY_ID", "any")
        .env("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "any")
        .env_remove("ALIBABA_CLOUD_SECURITY_TOKEN");
    call
}

async fn output(mut call: Command) -> Output {
    let output = tokio::task::spawn_blocking(move || call.output().unwrap());
    output.await.unwrap()
}

#[tokio::test]
async fn json_is_shown_in_the_order_in_which_it_is_served() {
    let agent = Agent::tcp("mycluster", Act::List(1)).await;
    let control = Control::over(&[agent.address()]).await;
    let endpoint = format!("http://{}", control.address);
    let output = output(call(&endpoint, &["-o", "json"])).await;
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let keys: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix('"')?.split('"').next())
        .collect();
    let served = control.list("").await.body;
    let places = keys
        .iter()
        .map(|key| served.find(&format!("\"{key}\":")).unwrap());
    assert!(places.is_sorted() && keys.len() == 14, "{text}");
}

#[tokio::test]
async fn a_failure_says_what_to_do() {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    authority.write(dir.path(), "server");
    let tables =
        "[server]\nlisten = [\"127.0.0.1:0\"]\ncert = \"server.pem\"\nkey = \"server.key\"";
    let with_tls = Control::start(dir, &config(tables, &[])).await;
    let without = Control::over(&[]).await;
    let other = with_tls.dir().join("other.pem");
    fs::write(&other, Authority::new().pem()).unwrap();
    let ca = other.to_str().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().unwrap();
    let no_key = {
        let mut call = call("http://127.0.0.1:1", &[]);
        call.env("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "");
        call
    };
    for (call, code, says) in [
        (
            call(&format!("http://{}", with_tls.address), &[]),
            4,
            "write https:// if it speaks TLS",
        ),
        (
            call(&format!("https://{}", without.address), &["--ca", ca]),
            4,
            "write http:// if it speaks none",
        ),
        (
            call(
                &format!("https://localhost:{}", with_tls.address.port()),
                &["--ca", ca],
            ),
            4,
            "name a file with its authority (--ca)",
        ),
        (
            call(&format!("http://{silent}"), &["--timeout", "1"]),
            4,
            &format!("no answer from {silent} within 1s"),
        ),
        (
            call("http://127.0.0.1:1", &["--timeout", "0"]),
            2,
            "0 is not in 1..",
        ),
        (no_key, 78, "ALIBABA_CLOUD_ACCESS_KEY_SECRET is not set"),
    ] {
        let output = output(call).await;
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{says}: {text}");
        assert!(text.contains(says), "{says}: {text}");
    }
}
