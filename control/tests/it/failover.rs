//! Several login nodes, some of them slow, silent or gone.

use std::time::Duration;

use sifter_proto::reason;
use sifter_proto::v1;
use tonic::Code;

use crate::support::agent::Act;
use crate::support::agent::Agent;
use crate::support::agent::image;
use crate::support::agent::nowhere;
use crate::support::agent::refusal;
use crate::support::agent::unreachable;
use crate::support::client;
use crate::support::server::Control;
use crate::support::until;

fn system(answer: &client::Answer) -> String {
    answer.json()["Images"]["Images"][0]["System"]
        .as_str()
        .unwrap_or_else(|| panic!("{answer:?}"))
        .to_owned()
}

/// Silence is taken for an answer no sooner than anybody here gives up.
const PATIENT: &str = "[agents]\nhedge_after_ms = 19999\n[limits]\nanswer_within_ms = 60000\n";

/// The line of the metrics that counts what became of the requests to a node. What has reached the node itself when
/// the next one is asked depends on how busy this machine is.
fn rpcs(node: &Agent, outcome: &str, count: usize) -> String {
    format!(
        "sifter_control_agent_rpcs_total{{node=\"http://{}\",outcome=\"{outcome}\"}} {count}\n",
        node.address()
    )
}

/// The line of the metrics that tells what the breaker of a node does.
fn breaker(node: &Agent, state: usize) -> String {
    format!(
        "sifter_control_agent_breaker_state{{node=\"http://{}\"}} {state}\n",
        node.address()
    )
}

#[tokio::test]
async fn the_first_one_answers_if_it_can() {
    let first = Agent::tcp("first", Act::List(1)).await;
    let second = Agent::tcp("second", Act::List(1)).await;
    let control = Control::with(PATIENT, &[first.address(), second.address()]).await;
    for _ in 0..3 {
        assert_eq!(system(&control.list("").await), "first");
    }
    assert!(second.asked().is_empty());
}

#[tokio::test]
async fn whatever_is_wrong_with_the_first_the_second_answers_in_time() {
    let second = Agent::tcp("second", Act::List(1)).await;
    let not_ready = refusal(Code::Unavailable, reason::NOT_READY, &[]);
    let scan_failed = refusal(Code::FailedPrecondition, reason::SCAN_FAILED, &[]);
    let catalog_failed = refusal(Code::Internal, reason::CATALOG_FAILED, &[]);
    for (what, act) in [
        ("hanging", Some(Act::Hang)),
        ("gone", None),
        ("not ready", Some(not_ready)),
        ("scan failed", Some(scan_failed)),
        ("catalogue failed", Some(catalog_failed)),
    ] {
        let first = match act {
            Some(act) => Some(Agent::tcp("first", act).await),
            None => None,
        };
        let address = match &first {
            Some(first) => first.address(),
            None => nowhere(),
        };
        let control = Control::over(&[address, second.address()]).await;
        // When its time is up the control plane answers by itself: who answers has done so in time.
        assert_eq!(system(&control.list("").await), "second", "{what}");
    }
}

/// A listing of one image by who cannot read so many of its roots now.
fn stale(name: &str, roots: usize) -> Act {
    Act::Answer(Box::new(v1::ListImagesResponse {
        images: vec![image(0)],
        total_size: 1,
        system: name.into(),
        unavailable_roots: (0..roots).map(|root| format!("/root-{root}")).collect(),
        ..Default::default()
    }))
}

#[tokio::test]
async fn who_cannot_read_its_roots_answers_only_if_nobody_else_does_better() {
    let first = Agent::tcp("", stale("first", 2)).await;
    let lacks_a_root = Act::Answer(Box::new(v1::ListImagesResponse {
        unlisted_roots: vec![v1::UnlistedRoot::default()],
        ..Default::default()
    }));
    for (what, others, expected) in [
        ("alone", vec![], "first"),
        ("the second is whole", vec![Act::List(1)], "second"),
        (
            "the third is whole",
            vec![stale("second", 1), Act::List(1)],
            "third",
        ),
        (
            "the third is whole, the second silent",
            vec![Act::Hang, Act::List(1)],
            "third",
        ),
        ("as bad", vec![stale("second", 2)], "first"),
        ("less bad", vec![stale("second", 1)], "second"),
        ("worse", vec![stale("second", 3)], "first"),
        ("without a root", vec![lacks_a_root], "first"),
        (
            "not ready",
            vec![refusal(Code::Unavailable, reason::NOT_READY, &[])],
            "first",
        ),
    ] {
        let mut agents = Vec::new();
        for (name, act) in ["second", "third"].into_iter().zip(others) {
            agents.push(Agent::tcp(name, act).await);
        }
        let mut nodes = vec![first.address()];
        nodes.extend(agents.iter().map(Agent::address));
        let control = Control::with(PATIENT, &nodes).await;
        let answer = tokio::time::timeout(Duration::from_secs(15), control.list("")).await;
        assert_eq!(system(&answer.expect(what)), expected, "{what}");
    }
}

#[tokio::test]
async fn who_is_silent_is_not_waited_for_long_where_there_is_an_answer() {
    let first = Agent::tcp("", stale("first", 1)).await;
    let silent = Agent::tcp("silent", Act::Hang).await;
    let tables = "[agents]\nhedge_after_ms = 1000\nbreaker_failures = 1\n\
                  breaker_open_ms = 60000\nbreaker_open_max_ms = 60000\n\
                  [limits]\nanswer_within_ms = 60000";
    let control = Control::with(tables, &[first.address(), silent.address()]).await;
    until("silence is counted", async || {
        let answer = tokio::time::timeout(Duration::from_secs(15), control.list("")).await;
        assert_eq!(system(&answer.expect("an answer")), "first");
        control.shows(&rpcs(&silent, "overtaken", 1)).await
    })
    .await;
    // And then not at all.
    assert_eq!(system(&control.list("").await), "first");
    assert!(control.shows(&rpcs(&silent, "overtaken", 1)).await);
    let stale = format!("{{node=\"http://{}\",outcome=\"stale\"}} ", first.address());
    assert!(control.shows(&stale).await);
}

/// Breakers that open at the first failure, for longer than anybody waits here; so long is silence, too.
const LEFT_ALONE: &str = "[agents]\nhedge_after_ms = 19999\nbreaker_failures = 1\n\
                          breaker_open_ms = 60000\nbreaker_open_max_ms = 60000\n\
                          [limits]\nanswer_within_ms = 60000";

/// What counts against a login node at once.
fn malformed() -> Act {
    Act::Answer(Box::new(v1::ListImagesResponse {
        images: vec![image(0)],
        total_size: 0,
        ..Default::default()
    }))
}

#[tokio::test]
async fn who_is_left_alone_is_asked_where_the_others_have_no_listing() {
    let not_ready = refusal(Code::Unavailable, reason::NOT_READY, &[]);
    for (what, act, hedge_after) in [
        ("malformed", malformed(), 19999),
        ("not ready", not_ready, 19999),
        ("hanging", Act::Hang, 50),
    ] {
        let first = Agent::tcp("first", malformed()).await;
        let second = Agent::tcp("second", Act::List(1)).await;
        let tables = LEFT_ALONE.replace("19999", &hedge_after.to_string());
        let control = Control::with(&tables, &[first.address(), second.address()]).await;
        assert_eq!(system(&control.list("").await), "second", "{what}");
        // The first is back, and the second fails, before the time of the first has come.
        first.act(Act::List(1));
        second.act(act);
        let answer = tokio::time::timeout(Duration::from_secs(15), control.list("")).await;
        assert_eq!(system(&answer.expect(what)), "first", "{what}");
    }
}

#[tokio::test]
async fn who_finds_out_about_one_keeps_nobody_from_the_next() {
    let first = Agent::tcp("first", malformed()).await;
    let second = Agent::tcp("second", malformed()).await;
    let control = Control::with(LEFT_ALONE, &[first.address(), second.address()]).await;
    control.list("").await.assert_error(406, "AgentError");
    first.act(Act::Hang);
    second.act(Act::List(1));
    let (asked, others) = (first.asked().len(), async {
        until("the first is asked", async || first.asked().len() == 2).await;
        // Another page, since the same one would be told together.
        control.list("&PageSize=20").await
    });
    assert_eq!(asked, 1);
    tokio::select! {
        biased;
        answer = control.list("") => panic!("the first has answered: {answer:?}"),
        answer = others => assert_eq!(system(&answer), "second"),
    }
}

#[tokio::test]
async fn who_waits_for_a_silent_one_takes_what_another_has_found_out() {
    let release = std::sync::Arc::new(tokio::sync::Notify::new());
    let first = Agent::tcp("first", malformed()).await;
    let second = Agent::tcp("second", Act::List(1)).await;
    let tables = LEFT_ALONE.replace("19999", "50");
    let control = Control::with(&tables, &[first.address(), second.address()]).await;
    assert_eq!(system(&control.list("").await), "second");
    first.act(Act::Hold(release.clone()));
    second.act(Act::Hang);
    // One finds out about the first, and the other cannot ask it meanwhile.
    let (one, other, ()) = tokio::join!(control.list(""), control.list("&PageSize=20"), async {
        until("both have asked", async || {
            first.asked().len() == 2 && second.asked().len() == 3
        })
        .await;
        first.act(Act::List(1));
        release.notify_one();
    });
    assert_eq!([system(&one), system(&other)], ["first", "first"]);
}

#[tokio::test]
async fn who_is_left_alone_is_found_again_where_a_root_cannot_be_read() {
    let first = Agent::tcp("", stale("first", 1)).await;
    let second = Agent::tcp("second", malformed()).await;
    let control = Control::with(LEFT_ALONE, &[first.address(), second.address()]).await;
    assert_eq!(system(&control.list("").await), "first");
    second.act(Act::List(1));
    until("the second answers again", async || {
        system(&control.list("").await) == "second"
    })
    .await;
}

#[tokio::test]
async fn silence_everywhere_is_answered_in_time() {
    let nodes = [
        Agent::tcp("first", Act::Hang).await,
        Agent::tcp("second", Act::Hang).await,
        Agent::tcp("third", Act::Hang).await,
    ];
    let control = Control::over(&nodes.each_ref().map(Agent::address)).await;
    // They are silent for as long as they live, which is longer than anybody waits here.
    let answer = tokio::time::timeout(Duration::from_secs(30), control.list("")).await;
    let answer = answer.expect("an answer although the login nodes give none");
    answer.assert_error(406, "AgentError");
    for node in &nodes {
        assert_eq!(node.asked().len(), 1, "each was asked");
    }
}

#[tokio::test]
async fn a_machine_that_is_off_is_given_up_before_the_time_is_up() {
    let (off, _queue) = unreachable().await;
    let second = Agent::tcp("second", Act::List(1)).await;
    // Longer than anybody waits here, for the answer and before the second is asked.
    let tables = "[agents]\nconnect_timeout_ms = 100\nhedge_after_ms = 59999\n\
                  [limits]\nanswer_within_ms = 60000";
    for (nodes, code) in [
        (vec![off.clone()], "AgentError"),
        (vec![off.clone(), second.address()], "OK"),
    ] {
        let control = Control::with(tables, &nodes).await;
        let answer = tokio::time::timeout(Duration::from_secs(15), control.list("")).await;
        assert_eq!(answer.expect("an answer").code(), code);
        let metrics = client::get(control.address, "/metrics").await.body;
        let failed = format!(
            "sifter_control_agent_rpcs_total{{node=\"http://{off}\",outcome=\"transport\"}} 1\n"
        );
        assert!(metrics.contains(&failed), "{metrics}");
    }
}

#[tokio::test]
async fn of_two_silent_ones_the_third_answers() {
    let first = Agent::tcp("first", Act::Hang).await;
    let second = Agent::tcp("second", Act::Hang).await;
    let third = Agent::tcp("third", Act::List(1)).await;
    let nodes = [first.address(), second.address(), third.address()];
    let tables = "[agents]\nhedge_after_ms = 50\n[limits]\nanswer_within_ms = 60000";
    let control = Control::with(tables, &nodes).await;
    assert_eq!(system(&control.list("").await), "third");
}

#[tokio::test]
async fn a_slow_answer_is_still_taken() {
    // The second is asked because the first is slow, fails, and the first answers after all.
    let release = std::sync::Arc::new(tokio::sync::Notify::new());
    let first = Agent::tcp("first", Act::Hold(release.clone())).await;
    let second = Agent::tcp("second", refusal(Code::Unavailable, reason::NOT_READY, &[])).await;
    let tables = "[agents]\nhedge_after_ms = 50";
    let control = Control::with(tables, &[first.address(), second.address()]).await;
    let (answer, ()) = tokio::join!(control.list(""), async {
        until("the second is asked", async || !second.asked().is_empty()).await;
        release.notify_one();
    });
    assert_eq!(system(&answer), "first");
}

#[tokio::test]
async fn a_node_that_keeps_failing_is_left_alone() {
    let first = Agent::tcp("first", Act::Hang).await;
    let second = Agent::tcp("second", Act::List(1)).await;
    let tables = "[agents]\nhedge_after_ms = 1000\nbreaker_failures = 2\nbreaker_open_ms = 60000\n\
                  breaker_open_max_ms = 60000\n[limits]\nanswer_within_ms = 60000";
    let control = Control::with(tables, &[first.address(), second.address()]).await;
    until("the breaker opens", async || {
        assert_eq!(system(&control.list("").await), "second");
        control.shows(&breaker(&first, 2)).await
    })
    .await;
    // After two in a row, and from then on nobody waits for the first any more, or asks whether it is back.
    assert_eq!(system(&control.list("").await), "second");
    assert!(control.shows(&rpcs(&first, "overtaken", 2)).await);
    assert!(control.shows(&breaker(&first, 2)).await);
}

#[tokio::test]
async fn a_node_that_is_back_is_found_again() {
    let first = Agent::tcp("first", Act::Hang).await;
    let second = Agent::tcp("second", Act::List(1)).await;
    let tables = "[agents]\nhedge_after_ms = 100\nbreaker_failures = 1\nbreaker_open_ms = 1\n\
                  breaker_open_max_ms = 1\n[limits]\nanswer_within_ms = 60000";
    let control = Control::with(tables, &[first.address(), second.address()]).await;
    until("the breaker opens", async || {
        assert_eq!(system(&control.list("").await), "second");
        control.shows(&breaker(&first, 2)).await
    })
    .await;
    // By a probe, while the second goes on answering.
    first.act(Act::List(1));
    until("the first answers again", async || {
        system(&control.list("").await) == "first"
    })
    .await;
    assert!(control.shows(&breaker(&first, 0)).await);
}

#[tokio::test]
async fn a_node_that_is_back_is_known_to_be_though_nobody_asks() {
    let first = Agent::tcp("first", malformed()).await;
    let second = Agent::tcp("second", Act::List(1)).await;
    let tables = "[agents]\nbreaker_failures = 1\nbreaker_open_ms = 50\nbreaker_open_max_ms = 50";
    let control = Control::with(tables, &[first.address(), second.address()]).await;
    assert_eq!(system(&control.list("").await), "second");
    first.act(Act::List(1));
    let closed = format!(
        "sifter_control_agent_breaker_state{{node=\"http://{}\"}} 0\n",
        first.address()
    );
    until("the first is known to be back", async || {
        let metrics = client::get(control.address, "/metrics").await.body;
        metrics.contains(&closed)
    })
    .await;
}

#[tokio::test]
async fn the_only_node_is_asked_again_as_soon_as_it_is_back() {
    // Taken, so that no other test gets the port, but nobody listens.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    let tables = "[agents]\nbreaker_open_ms = 60000\nbreaker_open_max_ms = 60000";
    let control = Control::with(tables, &[address.to_string()]).await;
    for _ in 0..10 {
        control.list("").await.assert_error(406, "AgentError");
    }
    let listener = socket.listen(16).unwrap();
    let _agent = Agent::on(listener, "back", Act::List(1));
    assert_eq!(system(&control.list("").await), "back");
}

#[tokio::test]
async fn while_one_request_finds_out_the_others_do_not_wait() {
    let agent = Agent::tcp("hanging", Act::Hang).await;
    let tables = "[agents]\nbreaker_failures = 1\n[limits]\nanswer_within_ms = 1000";
    let control = Control::with(tables, &[agent.address()]).await;
    control.list("").await.assert_error(406, "AgentError");
    let (probe, ()) = tokio::join!(control.list(""), async {
        until("the agent is asked again", async || {
            agent.asked().len() == 2
        })
        .await;
        control.list("").await.assert_error(406, "AgentError");
        control.list("").await.assert_error(406, "AgentError");
        assert_eq!(agent.asked().len(), 2);
    });
    probe.assert_error(406, "AgentError");
}

#[tokio::test]
async fn a_restarted_agent_costs_no_request() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let agent = Agent::unix(&path, "before", Act::List(1));
    let control = Control::over(&[agent.address()]).await;
    assert_eq!(system(&control.list("").await), "before");
    drop(agent);
    std::fs::remove_file(&path).unwrap();
    let _agent = Agent::unix(&path, "after", Act::List(1));
    // The old connection may outlive the old listener, never the old agent for long.
    until("the new agent answers", async || {
        let answer = control.list("").await;
        assert_eq!(answer.code(), "OK");
        system(&answer) == "after"
    })
    .await;
}

/// However long it was under way: a first scan, or a crowd, makes an answer slow.
#[tokio::test]
async fn a_request_that_the_old_agent_took_along_is_answered_by_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let agent = Agent::unix(&path, "before", Act::Hang);
    let control = Control::over(&[agent.address()]).await;
    let (answer, _agent) = tokio::join!(control.list(""), async {
        until("the old agent is asked", async || agent.asked().len() == 1).await;
        // No condition is waited for: a second try that is made only shortly after the first would be too late.
        tokio::time::sleep(Duration::from_millis(300)).await;
        std::fs::remove_file(&path).unwrap();
        let new = Agent::unix(&path, "after", Act::List(1));
        drop(agent);
        new
    });
    assert_eq!(system(&answer), "after");
}
