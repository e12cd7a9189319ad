//! Agents that are down, hang or die in mid-answer, and roots that cannot be read.

use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;

use nix::sys::signal::Signal;
use serde_json::Value;
use sifter_proto::v1::ListImagesRequest;
use sifter_proto::v1::RootState;
use sifter_proto::v1::StreamImagesRequest;
use sifter_proto::v1::image_service_client::ImageServiceClient;
use sifter_tests::agent::Agent;
use sifter_tests::agent::Options;
use sifter_tests::agent::runtime;
use sifter_tests::control::Control;
use sifter_tests::images;
use sifter_tests::relay;
use sifter_tests::sif::Tiny;
use sifter_tests::wait;
use tempfile::TempDir;
use tonic::transport::Endpoint;

use crate::errors::assert_documented;
use crate::errors::expect_exec_fail;

const LIST: &str = "ClusterId=ehpc-test&PageSize=50";

fn control_over(nodes: &[String]) -> Control {
    Control::start(&[("ehpc-test", nodes)])
}

fn real_images() -> Agent {
    Agent::ready(Options::roots([images::dir()]))
}

fn total(json: &Value) -> Option<u64> {
    json["TotalCount"].as_u64()
}

#[test]
fn an_agent_that_goes_and_comes_back_is_noticed() {
    let root = images::dir();
    let mut agent = real_images();
    let address = agent.unix_address();
    let control = control_over(&[address]);
    assert_eq!(control.list(LIST).status, 200);
    agent.process.kill();
    assert_documented(&control.list(LIST), "AgentError");

    // Another one in its place, on the same socket.
    let mut command = std::process::Command::new(sifter_tests::process::binary("sifter"));
    command
        .args(["agent", "--root"])
        .arg(&root)
        .arg("--listen")
        .arg(agent.unix_address());
    command.arg("--state-dir").arg(agent.dir().join("state"));
    let log = agent.dir().join("second.log");
    let mut second = sifter_tests::process::Process::start(&mut command, &log);
    wait::until("a listing of the second agent", || {
        second.expect_running();
        let answer = control.list(LIST);
        if answer.status == 200 {
            Ok(())
        } else {
            Err(answer.json())
        }
    });
}

#[test]
fn a_hanging_agent_is_an_agent_error_while_it_hangs() {
    let agent = real_images();
    let control = control_over(&[agent.unix_address()]);
    assert_eq!(control.list(LIST).status, 200);
    agent.process.signal(Signal::SIGSTOP);
    let answer = control.list(LIST);
    agent.process.signal(Signal::SIGCONT);
    assert_documented(&answer, "AgentError");
    wait::until("a listing after SIGCONT", || {
        let answer = control.list(LIST);
        if answer.status == 200 {
            Ok(())
        } else {
            Err(answer.json())
        }
    });
}

#[test]
fn the_other_login_node_answers_for_one_that_is_down_or_hangs() {
    let dead = format!("unix:{}", images::dir().join("no.sock").display());
    let (hanging, good) = (real_images(), real_images());
    let control = control_over(&[dead, hanging.unix_address(), good.unix_address()]);
    hanging.process.signal(Signal::SIGSTOP);
    let answer = control.list(LIST);
    hanging.process.signal(Signal::SIGCONT);
    let json = answer.json();
    assert_eq!(total(&json), Some(images::truth().len() as u64), "{json}");
}

#[test]
fn an_agent_killed_while_it_answers_is_an_agent_error() {
    let mut agent = real_images();
    let control = control_over(&[agent.unix_address()]);
    assert_eq!(control.list(LIST).status, 200);
    // Stopped, it has accepted the request and not answered; then it is gone.
    agent.process.signal(Signal::SIGSTOP);
    let answer = thread::scope(|scope| {
        let asked = scope.spawn(|| control.list(LIST));
        wait::until_true("the request to be under way", || {
            asked.is_finished() || has_unread_bytes(&agent.socket)
        });
        agent.process.kill();
        asked.join().expect("an answer")
    });
    assert_documented(&answer, "AgentError");
}

/// Whether a connection to a unix socket exists; the stopped agent reads nothing from it.
fn has_unread_bytes(socket: &Path) -> bool {
    fs::read_to_string("/proc/net/unix")
        .is_ok_and(|table| table.matches(socket.to_str().expect("UTF-8")).count() > 1)
}

#[test]
fn an_answer_cut_anywhere_is_an_agent_error() {
    let agent = real_images();
    // Behind the connection's preface, in the headers, and in the message at several places.
    for limit in [0, 1, 20, 60, 100, 200, 400, 800, 1_600, 3_200] {
        let address = relay::cutting(agent.tcp, limit);
        let control = control_over(&[format!("http://{address}")]);
        assert_documented(&control.list(LIST), "AgentError");
    }
    let address = relay::cutting(agent.tcp, usize::MAX);
    let control = control_over(&[format!("http://{address}")]);
    assert_eq!(control.list(LIST).status, 200);
}

#[test]
fn a_stream_whose_agent_is_killed_does_not_end_as_complete() {
    let root = TempDir::new().unwrap();
    for number in 0..2_000 {
        let from = format!("registry.example.org/some/long/repository/name/tool{number}:1.0");
        Tiny::numbered(number, &from).write(&root.path().join(format!("{number}.sif")));
    }
    let mut agent = Agent::ready(Options::roots([root.path()]));
    runtime().block_on(async {
        // A small window, so that the agent cannot have sent all before it dies.
        let channel = Endpoint::from_shared(format!("http://{}", agent.tcp))
            .unwrap()
            .initial_stream_window_size(65_535)
            .initial_connection_window_size(65_535)
            .connect()
            .await
            .unwrap();
        let mut stream = ImageServiceClient::new(channel)
            .stream_images(StreamImagesRequest::default())
            .await
            .unwrap()
            .into_inner();
        let first = stream.message().await.unwrap().expect("a first batch");
        assert!(
            first.images.len() < 2_000,
            "the listing fits into one batch: nothing to cut"
        );
        agent.process.kill();
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended as if it were complete"),
                Err(_) => break,
            }
        }
    });
}

#[test]
fn an_empty_root_is_an_empty_listing() {
    let root = TempDir::new().unwrap();
    let agent = Agent::ready(Options::roots([root.path()]));
    let control = control_over(&[agent.unix_address()]);
    let json = control.list(LIST).json();
    assert_eq!(json["Images"], serde_json::json!({"Images": []}), "{json}");
    assert_eq!(
        (total(&json), json["PageSize"].as_u64()),
        (Some(0), Some(0))
    );
}

#[test]
fn an_unreadable_root_is_exec_fail_with_the_systems_words() {
    let root = TempDir::new().unwrap();
    Tiny::numbered(1, "lab/tool:1").write(&root.path().join("tool.sif"));
    fs::set_permissions(root.path(), Permissions::from_mode(0o000)).unwrap();
    let agent = Agent::start(Options::roots([root.path()]).unprivileged());
    let control = control_over(&[agent.unix_address()]);
    let command = wait::until("ExecFail", || expect_exec_fail(&control));
    assert!(command.contains(root.path().to_str().unwrap()), "{command}");
    assert!(command.contains("Permission denied"), "{command}");
}

#[test]
fn a_root_that_goes_away_keeps_its_images_as_unavailable() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("depot");
    fs::create_dir(&root).unwrap();
    Tiny::numbered(1, "lab/tool:1").write(&root.join("tool.sif"));
    let agent = Agent::ready(Options::roots([&root]));
    let control = control_over(&[agent.unix_address()]);
    let status = |json: &Value| {
        json["Images"]["Images"][0]["Status"]
            .as_str()
            .map(str::to_owned)
    };
    assert_eq!(status(&control.list(LIST).json()).as_deref(), Some("READY"));

    fs::rename(&root, dir.path().join("elsewhere")).unwrap();
    agent.scan();
    let json = control.list(LIST).json();
    assert_eq!(status(&json).as_deref(), Some("UNAVAILABLE"), "{json}");
    let state = runtime().block_on(agent.status()).unwrap();
    assert_eq!(state.roots[0].state(), RootState::Unavailable);

    fs::rename(dir.path().join("elsewhere"), &root).unwrap();
    agent.scan();
    assert_eq!(status(&control.list(LIST).json()).as_deref(), Some("READY"));
}

#[test]
fn a_missing_root_does_not_hide_another() {
    let dir = TempDir::new().unwrap();
    let missing = dir.path().join("missing");
    let agent = Agent::ready(Options::roots([images::dir(), missing]));
    let request = ListImagesRequest {
        max_lease: Some(sifter_proto::Duration {
            seconds: 1,
            nanos: 0,
        }),
        ..ListImagesRequest::default()
    };
    let page = runtime().block_on(agent.list(request)).unwrap();
    assert_eq!(page.total_size, images::truth().len() as u64);
    assert_eq!(page.lease, None, "it may be found at any time");
}

#[test]
fn a_login_node_that_has_lost_its_mount_does_not_answer_for_one_that_has_it() {
    let dir = TempDir::new().unwrap();
    let (lost, held) = (dir.path().join("lost"), dir.path().join("held"));
    for root in [&lost, &held] {
        fs::create_dir(root).unwrap();
        Tiny::numbered(1, "lab/tool:1").write(&root.join("tool.sif"));
    }
    let (first, second) = (
        Agent::ready(Options::roots([&lost])),
        Agent::ready(Options::roots([&held])),
    );
    let control = control_over(&[first.unix_address(), second.unix_address()]);
    let statuses = |json: &Value| {
        let images = json["Images"]["Images"].as_array().unwrap();
        let status = |image: &Value| image["Status"].as_str().map(str::to_owned).unwrap();
        images.iter().map(status).collect::<Vec<_>>()
    };
    Tiny::numbered(2, "lab/tool:2").write(&held.join("new.sif"));
    second.scan();
    assert_eq!(statuses(&control.list(LIST).json()), ["READY"]);

    fs::rename(&lost, dir.path().join("elsewhere")).unwrap();
    first.scan();
    assert_eq!(statuses(&control.list(LIST).json()), ["READY", "READY"]);

    // What the first one knew is still better than nothing.
    drop(second);
    assert_eq!(statuses(&control.list(LIST).json()), ["UNAVAILABLE"]);
}

#[test]
fn a_listing_names_the_roots_that_cannot_be_read() {
    let dir = TempDir::new().unwrap();
    // Nothing is in it: the listing has the same images as before when it is gone.
    let root = dir.path().join("depot");
    fs::create_dir(&root).unwrap();
    let agent = Agent::ready(Options::roots([root.as_path(), &images::dir()]));
    let named = || {
        let page = runtime().block_on(agent.list(ListImagesRequest::default()));
        page.unwrap().unavailable_roots
    };
    assert!(named().is_empty());
    fs::rename(&root, dir.path().join("elsewhere")).unwrap();
    agent.scan();
    assert_eq!(named(), [root.to_str().unwrap()]);
    fs::rename(dir.path().join("elsewhere"), &root).unwrap();
    agent.scan();
    assert!(named().is_empty());
}
