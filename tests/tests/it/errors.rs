//! Every documented error, over real processes: the state that causes it, and status, code and
//! message word for word.

use std::fs;
use std::path::Path;

use serde_json::Value;
use sifter_proto::reason;
use sifter_tests::agent::Agent;
use sifter_tests::agent::Options;
use sifter_tests::control::Control;
use sifter_tests::http;
use sifter_tests::http::Answer;
use sifter_tests::images;
use sifter_tests::other;
use sifter_tests::sif::Tiny;
use sifter_tests::wait;
use tempfile::TempDir;
use tonic::Code;

/// Code, HTTP status and message of the documentation; `%s` is filled in by each row's test.
const DOCUMENTED: [(&str, u16, &str); 10] = [
    (
        "InvalidParams",
        400,
        "The specified parameter %s is invalid.",
    ),
    (
        "InvalidContainerType",
        400,
        "Unsupported container type: %s.",
    ),
    (
        "LoginNotFound",
        404,
        "The specified login node does not exist.",
    ),
    // Credentials or policies that cannot be used: `keys`.
    (
        "AliyunError",
        406,
        "An Alibaba Cloud product error occurred.",
    ),
    ("DbError", 406, "A database service error occurred."),
    ("ExecFail", 406, "Failed to execute the command: %s."),
    ("AgentError", 406, "The agent service request failed."),
    // A right signature without a policy: likewise.
    (
        "NotAuthorized",
        407,
        "You are not authorized by RAM for this request.",
    ),
    ("UnknownError", 500, "An unknown error occurred."),
    (
        "ServiceUnavailable",
        503,
        "The request has failed due to a temporary failure of the server",
    ),
];

/// The cluster all rows ask for.
const CLUSTER: &str = "ehpc-test";

/// Checks an answer against the documentation; returns what stands for `%s`.
pub(crate) fn assert_documented(answer: &Answer, code: &str) -> String {
    let json = answer.json();
    let (_, status, message) = DOCUMENTED
        .iter()
        .find(|(documented, ..)| *documented == code)
        .expect("a documented code");
    assert_eq!(
        (&json["Code"], answer.status),
        (&Value::from(code), *status),
        "{json}"
    );
    let id = json["RequestId"].as_str().expect("RequestId");
    assert!(is_request_id(id), "RequestId {id}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let text = json["Message"].as_str().expect("Message");
    match message.split_once("%s") {
        None => {
            assert_eq!(text, *message);
            String::new()
        }
        Some((before, after)) => text
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(after))
            .unwrap_or_else(|| panic!("{text:?} is not {message:?}"))
            .to_owned(),
    }
}

/// Upper-case UUID.
fn is_request_id(id: &str) -> bool {
    let groups: Vec<usize> = id.split('-').map(str::len).collect();
    groups == [8, 4, 4, 4, 12]
        && id
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F' | b'-'))
}

/// A control plane whose only cluster has the given login node.
fn control_over(node: &str) -> Control {
    Control::start(&[(CLUSTER, &[node])])
}

#[test]
fn invalid_params_names_the_parameter() {
    let agent = Agent::ready(Options::roots([images::dir()]));
    let control = control_over(&agent.unix_address());
    for (parameters, parameter) in [
        ("", "ClusterId"),
        ("ClusterId=", "ClusterId"),
        ("ClusterId=ehpc-test&PageNumber=0", "PageNumber"),
        ("ClusterId=ehpc-test&PageNumber=-1", "PageNumber"),
        ("ClusterId=ehpc-test&PageNumber=abc", "PageNumber"),
        ("ClusterId=ehpc-test&PageNumber=", "PageNumber"),
        ("ClusterId=ehpc-test&PageNumber=2147483648", "PageNumber"),
        ("ClusterId=ehpc-test&PageSize=0", "PageSize"),
        ("ClusterId=ehpc-test&PageSize=51", "PageSize"),
        ("ClusterId=ehpc-test&PageSize=%2B5", "PageSize"),
        ("ClusterId=ehpc-test&PageSize=1.5", "PageSize"),
        ("ClusterId=ehpc-test&ClusterId=ehpc-test", "ClusterId"),
    ] {
        let answer = control.list(parameters);
        assert_eq!(
            assert_documented(&answer, "InvalidParams"),
            parameter,
            "{parameters}"
        );
    }
}

#[test]
fn invalid_container_type_names_the_type() {
    let agent = Agent::ready(Options::roots([images::dir()]));
    let control = control_over(&agent.unix_address());
    for container_type in ["docker", "Singularity"] {
        let answer = control.list(&format!(
            "ClusterId={CLUSTER}&ContainerType={container_type}"
        ));
        assert_eq!(
            assert_documented(&answer, "InvalidContainerType"),
            container_type
        );
    }
}

#[test]
fn login_not_found_for_an_unknown_cluster_and_one_without_login_nodes() {
    let none: &[&str] = &[];
    let control = Control::start(&[(CLUSTER, none)]);
    for cluster in ["no-such-cluster", CLUSTER] {
        assert_documented(
            &control.list(&format!("ClusterId={cluster}")),
            "LoginNotFound",
        );
    }
}

#[test]
fn db_error_when_the_catalogue_cannot_be_used() {
    // An agent whose database fails lists on from memory (below), so the state is played.
    let address = other::refusing_agent(Code::Internal, reason::CATALOG_FAILED);
    let control = control_over(&format!("http://{address}"));
    assert_documented(&control.list(&format!("ClusterId={CLUSTER}")), "DbError");
}

#[test]
fn a_damaged_database_does_not_stop_the_listing() {
    let state = TempDir::new().unwrap();
    let agent = Agent::ready(Options::roots([images::dir()]).state_dir(state.path()));
    drop(agent);
    let files: Vec<_> = fs::read_dir(state.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    assert!(
        !files.is_empty(),
        "the catalogue lies in the state directory"
    );
    for file in files {
        fs::write(file, vec![0x5a; 8192]).unwrap();
    }
    let agent = Agent::ready(Options::roots([images::dir()]).state_dir(state.path()));
    let control = control_over(&agent.unix_address());
    let json = control.list(&format!("ClusterId={CLUSTER}")).json();
    assert_eq!(json["TotalCount"], images::truth().len(), "{json}");
}

#[test]
fn exec_fail_when_the_root_is_missing_and_nothing_is_known_of_it() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("missing");
    let agent = Agent::start(Options::roots([&root]));
    let control = control_over(&agent.unix_address());
    let command = wait::until("ExecFail", || expect_exec_fail(&control));
    let root = root.display();
    let expected = format!("scan {root}: No such file or directory (os error 2)");
    assert_eq!(command, expected);
}

/// The `%s` of `ExecFail`, once the first scan has finished.
pub(crate) fn expect_exec_fail(control: &Control) -> Result<String, Value> {
    let answer = control.list(&format!("ClusterId={CLUSTER}"));
    let json = answer.json();
    if json["Code"] == "ServiceUnavailable" {
        return Err(json);
    }
    Ok(assert_documented(&answer, "ExecFail"))
}

#[test]
fn agent_error_when_nothing_listens() {
    let dir = TempDir::new().unwrap();
    let control = control_over(&format!("unix:{}", dir.path().join("none.sock").display()));
    assert_documented(&control.list(&format!("ClusterId={CLUSTER}")), "AgentError");
}

#[test]
fn unknown_error_when_the_agent_answers_something_unforeseen() {
    // A server that speaks gRPC and has no such method: another program on the agent's port.
    let address = other::grpc_server();
    let control = control_over(&format!("http://{address}"));
    assert_documented(
        &control.list(&format!("ClusterId={CLUSTER}")),
        "UnknownError",
    );
}

#[test]
fn service_unavailable_before_the_first_scan_has_finished() {
    let root = TempDir::new().unwrap();
    // More files than one operation a second gets through before the test is over.
    for number in 0..1_000 {
        Tiny::numbered(number, "lab/tool:1").write(&root.path().join(format!("{number}.sif")));
    }
    let agent = Agent::start(Options::config(&slow_config(root.path())));
    let control = control_over(&agent.unix_address());
    assert_documented(
        &control.list(&format!("ClusterId={CLUSTER}")),
        "ServiceUnavailable",
    );
}

/// A root that is scanned at one operation a second.
pub(crate) fn slow_config(root: &Path) -> String {
    format!(
        "[[root]]\npath = {:?}\noperations_per_second = 1\n",
        root.display().to_string()
    )
}

#[test]
fn the_gateway_answers_what_reaches_no_action() {
    let control = Control::start(&[(CLUSTER, &["unix:/nonexistent.sock"])]);
    for (target, code, status) in [
        ("/?Version=2018-04-12&ClusterId=x", "MissingParameter", 400),
        (
            "/?Action=ListClusters&Version=2018-04-12",
            "InvalidAction.NotFound",
            404,
        ),
        (
            "/?Action=ListContainerImages&Version=2017-01-01",
            "InvalidVersion",
            400,
        ),
    ] {
        let answer = http::get(control.address, target).unwrap();
        let json = answer.json();
        assert_eq!(
            (json["Code"].as_str(), answer.status),
            (Some(code), status),
            "{target}: {json}"
        );
        assert!(is_request_id(json["RequestId"].as_str().unwrap()), "{json}");
    }
}
