//! `sifter-control call` against a server.

use std::process::Command;

use crate::support::agent::Act;
use crate::support::agent::Agent;
use crate::support::server::CLUSTER;
use crate::support::server::Control;

#[tokio::test]
async fn json_is_shown_in_the_order_in_which_it_is_served() {
    let agent = Agent::tcp("mycluster", Act::List(1)).await;
    let control = Control::over(&[agent.address()]).await;
    let mut call = Command::new(env!("CARGO_BIN_EXE_sifter-control"));
    call.args([
        "call",
        "ListContainerImages",
        "--cluster",
        CLUSTER,
        "-o",
        "json",
    ])
    .args(["--endpoint", &format!("http://{}", control.address)])
    .env("ALIBABA_CLOUD_ACCESS_KEY_ID", "any")
    .env("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "any");
    let output = tokio::task::spawn_blocking(move || call.output().unwrap());
    let output = output.await.unwrap();
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
