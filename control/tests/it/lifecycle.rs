//! Reload and drain.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use sifter_control::api::ApiError;
use sifter_control::api::ListContainerImages;
use sifter_control::config::Settings;
use sifter_control::fleet::CallContext;
use sifter_control::fleet::FileRegistry;
use sifter_control::fleet::Fleet;
use sifter_control::fleet::Registry;
use sifter_control::server::Stuck;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::support::agent::Act;
use crate::support::agent::Agent;
use crate::support::agent::nowhere;
use crate::support::client;
use crate::support::server::CLUSTER;
use crate::support::server::Control;
use crate::support::server::config;
use crate::support::until;

#[tokio::test]
async fn clusters_are_taken_over_without_dropping_a_request() {
    let release = Arc::new(Notify::new());
    let old = Agent::tcp("old", Act::Hold(release.clone())).await;
    let new = Agent::tcp("new", Act::List(1)).await;
    let control = Control::over(&[old.address()]).await;
    let (held, ()) = tokio::join!(control.list(""), async {
        until("the old agent is asked", async || !old.asked().is_empty()).await;
        let text = config(
            "",
            &[(CLUSTER, &[new.address()]), ("more", &[new.address()])],
        );
        fs::write(&control.config, text).unwrap();
        control.running.reload();
        // New requests go to the new agent while the old one is still held.
        let answer = control.list("").await;
        assert_eq!(answer.json()["Images"]["Images"][0]["System"], "new");
        let more = client::list(control.address, "ClusterId=more").await;
        assert_eq!(more.code(), "OK");
        release.notify_one();
    });
    assert_eq!(held.json()["Images"]["Images"][0]["System"], "old");
    // What came of that request is known of no node any more.
    let metrics = client::get(control.address, "/metrics").await.body;
    assert!(metrics.contains(&new.address()), "{metrics}");
    assert!(!metrics.contains(&old.address()), "{metrics}");
}

/// A request that waits for its turn finds its login nodes after they have been taken away.
#[tokio::test]
async fn a_node_that_was_taken_away_is_not_told_of_for_good() {
    let settings = Settings::parse(&config("", &[("c", &[nowhere()])]), Path::new("x"));
    let settings = settings.unwrap();
    let registry = Arc::new(FileRegistry::new(settings.clusters.clone()));
    let fleet = Fleet::new(registry.clone(), settings.agents, Arc::default());
    let cluster = registry.cluster("c").unwrap();
    registry.replace(Vec::new());
    fleet.registry_changed();
    let request = ListContainerImages {
        cluster_id: "c".to_owned(),
        page_number: 1,
        page_size: 1,
    };
    let context = CallContext {
        request_id: "R",
        deadline: Instant::now() + Duration::from_secs(10),
    };
    let listing = fleet.list(&cluster, &request, context).await;
    assert_eq!(listing.result.unwrap_err(), ApiError::AgentError);
    assert_eq!(fleet.breaker_states(), []);
}

#[tokio::test]
async fn a_changed_file_is_noticed_and_a_wrong_one_changes_nothing() {
    let agent = Agent::tcp("mycluster", Act::List(1)).await;
    let control = Control::over(&[agent.address()]).await;
    let look_twice = || {
        control.running.reload_changed();
        control.running.reload_changed();
    };
    for wrong in [
        "auth = \"none\"\n[[clusters]]\nid = 7",
        "",
        "auth = \"none\"\nx = 1",
    ] {
        fs::write(&control.config, wrong).unwrap();
        look_twice();
        assert_eq!(control.list("").await.code(), "OK", "{wrong:?}");
    }
    let metrics = client::get(control.address, "/metrics").await.body;
    let line = "sifter_control_reloads_total{what=\"config\",result=\"failed\"} 3";
    assert!(metrics.contains(line), "{metrics}");

    fs::write(
        &control.config,
        config("", &[("other", &[agent.address()])]),
    )
    .unwrap();
    look_twice();
    control.list("").await.assert_error(404, "LoginNotFound");
    let other = client::list(control.address, "ClusterId=other").await;
    assert_eq!(other.code(), "OK");

    let more = async |code| {
        look_twice();
        let more = client::list(control.address, "ClusterId=more").await;
        assert_eq!(more.code(), code);
    };
    let drop_ins = control.dir().join("config.toml.d");
    fs::create_dir(&drop_ins).unwrap();
    more("LoginNotFound").await;
    let file = drop_ins.join("10-more.toml");
    let cluster = format!(
        "[[clusters]]\nid = \"more\"\nlogin_nodes = [{:?}]",
        agent.address()
    );
    fs::write(&file, &cluster).unwrap();
    more("OK").await;
    // In place, which leaves the directory as it was.
    fs::write(&file, cluster.replace("more", "changed")).unwrap();
    more("LoginNotFound").await;
    fs::write(&file, cluster).unwrap();
    more("OK").await;
    fs::remove_file(&file).unwrap();
    more("LoginNotFound").await;

    // Where it is asked for, it is read at once, and not again at the next look.
    fs::write(&control.config, "wrong").unwrap();
    control.running.reload();
    look_twice();
    let metrics = client::get(control.address, "/metrics").await.body;
    let line = "sifter_control_reloads_total{what=\"config\",result=\"failed\"} 4";
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test]
async fn requests_under_way_finish_when_the_server_stops() {
    let release = Arc::new(Notify::new());
    let agent = Agent::tcp("mycluster", Act::Hold(release.clone())).await;
    let control = Control::over(&[agent.address()]).await;
    // A connection without a request must not hold the server up.
    let _idle = TcpStream::connect(control.address).await.unwrap();
    let (held, finished) = tokio::join!(control.list(""), async {
        until("the agent is asked", async || !agent.asked().is_empty()).await;
        let (finished, ()) = tokio::join!(control.running.stop(), async {
            until("nobody is let in", async || {
                TcpStream::connect(control.address).await.is_err()
            })
            .await;
            release.notify_one();
        });
        finished
    });
    assert_eq!(held.code(), "OK");
    assert!(finished);
}

#[tokio::test]
async fn a_request_that_does_not_finish_is_cut_off() {
    let agent = Agent::tcp("mycluster", Act::Hang).await;
    let tables = "[server]\nlisten = [\"127.0.0.1:0\"]\ndrain_timeout_seconds = 1\n\
                  [limits]\nanswer_within_ms = 60000";
    let control = Control::with(tables, &[agent.address()]).await;
    let address = control.address;
    let asking = tokio::spawn(async move {
        let stream = TcpStream::connect(address).await.unwrap();
        let target = client::list_target("ClusterId=ehpc-test");
        stream.writable().await.unwrap();
        let mut stream = stream;
        use tokio::io::AsyncWriteExt;
        stream
            .write_all(&client::get_bytes(&target, &[]))
            .await
            .unwrap();
        stream
    });
    let _stream = asking.await.unwrap();
    until("the agent is asked", async || !agent.asked().is_empty()).await;
    assert!(!control.running.stop().await);
}

#[tokio::test]
async fn balancers_are_told_before_the_listeners_close() {
    let agent = Agent::tcp("mycluster", Act::List(1)).await;
    let tables = "[server]\nlisten = [\"127.0.0.1:0\"]\ndrain_delay_seconds = 2";
    let control = Control::with(tables, &[agent.address()]).await;
    let (finished, ()) = tokio::join!(control.running.stop(), async {
        until("it says no", async || {
            let ready = client::get(control.address, "/readyz").await;
            ready.status == 503 && ready.json()["status"] == "draining"
        })
        .await;
        // And goes on answering meanwhile.
        assert_eq!(control.list("").await.code(), "OK");
    });
    assert!(finished);
}

#[tokio::test]
async fn alive_is_who_lets_in_and_answers() {
    let agent = Agent::tcp("mycluster", Act::Hang).await;
    let tables = "[server]\nlisten = [\"127.0.0.1:0\"]\n[limits]\nmax_connections = 1\n\
                  max_concurrent_requests = 1";
    let control = Control::with(tables, &[agent.address()]).await;
    control.running.check_alive().await.unwrap();
    // Busy to the last connection and request is not stuck.
    let (held, ()) = tokio::join!(control.list(""), async {
        until("the agent is asked", async || !agent.asked().is_empty()).await;
        control.running.check_alive().await.unwrap();
    });
    held.assert_error(406, "AgentError");
    // Nobody is let in.
    control.running.stop().await;
    let error = control.running.check_alive().await.unwrap_err();
    assert!(matches!(error, Stuck::Listener), "{error}");
}
