//! A thousand clusters, a third of them in trouble: the others notice nothing.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::support::agent::Act;
use crate::support::agent::Agent;
use crate::support::agent::nowhere;
use crate::support::allow_descriptors;
use crate::support::client;
use crate::support::server::Control;
use crate::support::server::config;

const CLUSTERS: usize = 1000;

/// One socket is reachable under every address of 127.0.0.0/8, each of which is a login node of
/// its own to the control plane.
fn address(index: usize, port: &str) -> String {
    format!("127.{}.{}.1:{port}", 1 + index / 250, 1 + index % 250)
}

async fn everywhere(name: &str, act: Act) -> (Agent, String) {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    (Agent::on(listener, name, act), port)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble_stays_where_it_is() {
    allow_descriptors();
    let (_good, good) = everywhere("good", Act::List(20)).await;
    let (_hanging, hanging) = everywhere("hanging", Act::Hang).await;
    let dead = nowhere();
    let dead = dead.rsplit_once(':').unwrap().1;

    // Of six clusters: three are well, one has lost its first login node, one's first hangs,
    // one has lost its only one.
    let nodes: Vec<(String, Vec<String>, &str)> = (0..CLUSTERS)
        .map(|index| {
            let at = |port: &str| address(index, port);
            let (nodes, expected) = match index % 6 {
                0..=2 => (vec![at(&good)], "OK"),
                3 => (vec![at(dead), at(&good)], "OK"),
                4 => (vec![at(&hanging), at(&good)], "OK"),
                _ => (vec![at(dead)], "AgentError"),
            };
            (format!("cluster-{index}"), nodes, expected)
        })
        .collect();
    let clusters: Vec<(&str, &[String])> = nodes
        .iter()
        .map(|(id, nodes, _)| (id.as_str(), nodes.as_slice()))
        .collect();
    let tables = "[agents]\nhedge_after_ms = 100\n[limits]\nanswer_within_ms = 9000\n";
    let control = Control::start(tempfile::tempdir().unwrap(), &config(tables, &clusters)).await;

    let nodes = Arc::new(nodes);
    let turn = Arc::new(Semaphore::new(32));
    let mut asking = tokio::task::JoinSet::new();
    for round in 0..3 {
        for index in 0..CLUSTERS {
            let (nodes, turn, address) = (nodes.clone(), turn.clone(), control.address);
            asking.spawn(async move {
                let _turn = turn.acquire().await.unwrap();
                let (id, _, expected) = &nodes[index];
                // Whoever waited for a node that hangs would be told at last that there is no answer.
                let answer = client::list(address, &format!("ClusterId={id}")).await;
                assert_eq!(
                    answer.code(),
                    *expected,
                    "{id} in round {round}: {answer:?}"
                );
            });
        }
    }
    while let Some(result) = asking.join_next().await {
        result.unwrap();
    }
}
