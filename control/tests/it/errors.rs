//! Every documented error: the state that causes it, and status, code and message word for word.
//!
//! `NotAuthorized` and `AliyunError` come from keys and policies and are tested with those.

use sifter_proto::reason;
use sifter_proto::v1;
use tonic::Code;
use tonic::Status;

use crate::support::agent::Act;
use crate::support::agent::Agent;
use crate::support::agent::babbler;
use crate::support::agent::breaking_way;
use crate::support::agent::image;
use crate::support::agent::nowhere;
use crate::support::agent::refusal;
use crate::support::client;
use crate::support::server::CLUSTER;
use crate::support::server::Control;
use crate::support::server::config;

#[tokio::test]
async fn what_the_caller_asks() {
    let agent = Agent::tcp("mycluster", Act::List(3)).await;
    let none: &[String] = &[];
    let text = config("", &[(CLUSTER, &[agent.address()]), ("no-node", none)]);
    let control = Control::start(tempfile::tempdir().unwrap(), &text).await;
    let invalid = |name: &str| format!("The specified parameter {name} is invalid.");
    let not_found = || "The specified login node does not exist.".to_owned();
    let rows = [
        ("", 400, "InvalidParams", invalid("ClusterId")),
        ("ClusterId=", 400, "InvalidParams", invalid("ClusterId")),
        (
            "ClusterId=ehpc-test&PageNumber=0",
            400,
            "InvalidParams",
            invalid("PageNumber"),
        ),
        (
            "ClusterId=ehpc-test&PageSize=51",
            400,
            "InvalidParams",
            invalid("PageSize"),
        ),
        (
            "ClusterId=ehpc-test&PageSize=1&PageSize=2",
            400,
            "InvalidParams",
            invalid("PageSize"),
        ),
        (
            "ClusterId=ehpc-test&ContainerType=docker",
            400,
            "InvalidContainerType",
            "Unsupported container type: docker.".to_owned(),
        ),
        ("ClusterId=unknown", 404, "LoginNotFound", not_found()),
        ("ClusterId=no-node", 404, "LoginNotFound", not_found()),
    ];
    for (parameters, status, code, message) in rows {
        let answer = client::list(control.address, parameters).await;
        answer.assert_error(status, code);
        assert_eq!(answer.json()["Message"], message.as_str(), "{parameters}");
        assert_eq!(answer.json()["HostId"], "localhost");
        let link = format!("http://localhost/errors#{code}");
        assert_eq!(answer.json()["Recommend"], link.as_str());
    }
    assert!(agent.asked().is_empty(), "no agent is asked in vain");
}

#[tokio::test]
async fn what_the_agent_says() {
    let agent = Agent::tcp("mycluster", Act::Hang).await;
    // One state after the other: no failure may be remembered.
    let control = Control::with("[agents]\nbreaker_failures = 1000", &[agent.address()]).await;
    let scan_failed = refusal(
        Code::FailedPrecondition,
        reason::SCAN_FAILED,
        &[
            ("command", "scan /images"),
            ("error", "Permission denied (os error 13)"),
        ],
    );
    let exec_fail = "Failed to execute the command: scan /images: Permission denied (os error 13).";
    let unavailable = "The request has failed due to a temporary failure of the server";
    let rows = [
        (scan_failed, 406, "ExecFail", exec_fail),
        (
            refusal(Code::Internal, reason::CATALOG_FAILED, &[]),
            406,
            "DbError",
            "A database service error occurred.",
        ),
        (
            refusal(Code::Unavailable, reason::NOT_READY, &[]),
            503,
            "ServiceUnavailable",
            unavailable,
        ),
        (
            refusal(Code::ResourceExhausted, reason::OVERLOADED, &[]),
            503,
            "ServiceUnavailable",
            unavailable,
        ),
        (
            refusal(Code::Internal, "SOMETHING_NEW", &[]),
            500,
            "UnknownError",
            "An unknown error occurred.",
        ),
        (
            Act::Refuse(Status::unknown("panic")),
            500,
            "UnknownError",
            "An unknown error occurred.",
        ),
    ];
    for (act, status, code, message) in rows {
        agent.act(act);
        let answer = control.list("").await;
        answer.assert_error(status, code);
        assert_eq!(answer.json()["Message"], message);
    }
    // And not remembered when it is over.
    agent.act(Act::List(1));
    assert_eq!(control.list("").await.code(), "OK");
}

#[tokio::test]
async fn what_is_no_answer() {
    let good = Agent::tcp("mycluster", Act::List(50)).await;
    let hanging = Agent::tcp("mycluster", Act::Hang).await;
    let rows = [
        ("refused", nowhere()),
        ("no such socket", "unix:/nonexistent/agent.sock".to_owned()),
        (
            "another protocol",
            babbler(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await,
        ),
        ("silent after connecting", babbler(b"").await),
        ("silent after the request", hanging.address()),
        (
            "dies before the answer",
            breaking_way(&good.address(), 40).await,
        ),
        (
            "dies in the answer",
            breaking_way(&good.address(), 2000).await,
        ),
        ("no such host", "no-such-host.invalid:7430".to_owned()),
    ];
    for (what, address) in rows {
        let control = Control::with("[limits]\nanswer_within_ms = 700", &[address]).await;
        let answer = control.list("PageSize=50").await;
        assert_eq!(answer.code(), "AgentError", "{what}");
        answer.assert_error(406, "AgentError");
        let message = answer.json()["Message"].clone();
        assert_eq!(message, "The agent service request failed.", "{what}");
    }
}

#[tokio::test]
async fn what_breaks_the_contract() {
    let agent = Agent::tcp("mycluster", Act::Hang).await;
    let control = Control::with("[agents]\nbreaker_failures = 1000", &[agent.address()]).await;
    let answer = |images: Vec<v1::Image>, total_size| {
        Act::Answer(Box::new(v1::ListImagesResponse {
            images,
            total_size,
            ..Default::default()
        }))
    };
    let mut timeless = image(0);
    timeless.update_time = Some(sifter_proto::Timestamp {
        seconds: i64::MAX,
        nanos: 0,
    });
    let mut large = image(0);
    large.repository = "x".repeat(5 << 20);
    let mut nothing = image(0);
    nothing.status = 77;
    let rows = [
        (
            "more than asked for",
            answer((0..11).map(image).collect(), 11),
        ),
        (
            "less in all than on the page",
            answer((0..5).map(image).collect(), 4),
        ),
        (
            "fewer than there are",
            answer((0..5).map(image).collect(), 6),
        ),
        ("none although there are some", answer(vec![], 6)),
        ("impossible time", answer(vec![timeless], 1)),
        ("impossible status", answer(vec![nothing], 1)),
        ("too large", answer(vec![large], 1)),
    ];
    for (what, act) in rows {
        agent.act(act);
        let answer = control.list("").await;
        assert_eq!(answer.code(), "AgentError", "{what}: {answer:?}");
    }
}

#[tokio::test]
async fn a_listing_that_is_not_whole() {
    let one_image = v1::ListImagesResponse {
        images: vec![image(0)],
        total_size: 1,
        system: "partial".into(),
        ..Default::default()
    };
    let lacks_a_root = v1::ListImagesResponse {
        unlisted_roots: vec![v1::UnlistedRoot {
            path: "/b".into(),
            command: "scan /b".into(),
            error: "Stale file handle (os error 116)".into(),
        }],
        ..one_image.clone()
    };
    let restricted = v1::ListImagesResponse {
        restricted: true,
        ..one_image
    };
    for (partial, message) in [
        (
            lacks_a_root,
            "Failed to execute the command: scan /b: Stale file handle (os error 116).",
        ),
        (
            restricted,
            "Failed to execute the command: list all images: the agent shows only those that the control \
             plane's user may read; add that user to the agent's admin_group, or connect with [agent_tls].",
        ),
    ] {
        let broken = Agent::tcp("", Act::Answer(Box::new(partial))).await;
        let control = Control::over(&[broken.address()]).await;
        let answer = control.list("").await;
        answer.assert_error(406, "ExecFail");
        assert_eq!(answer.json()["Message"], message);

        let serving = "[agents]\npartial_listings = \"serve\"";
        let control = Control::with(serving, &[broken.address()]).await;
        let answer = control.list("").await;
        assert_eq!(answer.json()["TotalCount"], 1, "{answer:?}");

        // Another login node may have all of it.
        let whole = Agent::tcp("whole", Act::List(2)).await;
        for tables in ["", serving] {
            let control = Control::with(tables, &[broken.address(), whole.address()]).await;
            let answer = control.list("").await;
            assert_eq!(answer.json()["TotalCount"], 2, "{answer:?}");
        }
    }
}

#[tokio::test]
async fn what_reaches_no_action() {
    let control = Control::over(&[]).await;
    let rows = [
        ("/", 400, "MissingParameter"),
        ("/?Action=ListContainerImages", 400, "MissingParameter"),
        (
            "/?Action=ListImages&Version=2018-04-12",
            404,
            "InvalidAction.NotFound",
        ),
        (
            "/?Action=ListContainerImages&Version=1",
            400,
            "InvalidVersion",
        ),
        (
            "/?Action=ListContainerImages&Version=2018-04-12&Format=XML",
            400,
            "InvalidParameter.Format",
        ),
        ("/?Action=%ff", 400, "BadRequest"),
    ];
    for (target, status, code) in rows {
        client::get(control.address, target)
            .await
            .assert_error(status, code);
    }
}
