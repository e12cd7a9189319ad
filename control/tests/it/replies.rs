//! The reply on the wire, and what agents are asked.

use std::collections::BTreeSet;
use std::collections::HashSet;
use std::time::Duration;

use serde_json::json;

use crate::support::agent::Act;
use crate::support::agent::Agent;
use crate::support::client;
use crate::support::client::get_bytes;
use crate::support::client::list_target;
use crate::support::server::CLUSTER;
use crate::support::server::Control;
use crate::support::until;

#[tokio::test]
async fn golden_reply() {
    let agent = Agent::tcp("mycluster", Act::List(3)).await;
    let control = Control::over(&[agent.address()]).await;
    let answer = control.list("PageSize=2&PageNumber=2").await;
    assert_eq!(answer.status, 200);
    let mut body = answer.json();
    let id = body["RequestId"].take();
    assert_eq!(
        body,
        json!({
            "RequestId": null,
            "PageSize": 1,
            "PageNumber": 2,
            "TotalCount": 3,
            "DBInfo": "sqlite:///var/lib/sifter/catalog.db",
            "Images": {"Images": [{
                "Type": "singularity",
                "Status": "READY",
                "UpdateDateTime": "2018-08-02T20:11:36",
                "Repository": "lab/tool-2",
                "Tag": "1.0",
                "System": "mycluster",
                "ImageId": format!("sha256:{:064x}", 2),
            }]},
        })
    );
    // The agent was asked for this page, under the same ID.
    let asked = agent.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].page_size, asked[0].skip), (2, 2));
    assert_eq!(id, asked[0].request_id.as_str());
    assert_eq!(answer.header("x-acs-request-id"), id.as_str());
}

#[tokio::test]
async fn pages() {
    let agent = Agent::tcp("mycluster", Act::List(53)).await;
    let control = Control::over(&[agent.address()]).await;
    let rows = [
        ("", 1, 10),
        ("PageNumber=6", 6, 3),
        ("PageNumber=7", 7, 0),
        ("PageNumber=2147483647&PageSize=50", 2_147_483_647, 0),
        ("PageSize=50", 1, 50),
        ("PageSize=50&PageNumber=2", 2, 3),
        ("PageSize=1&PageNumber=53", 53, 1),
    ];
    for (parameters, number, size) in rows {
        let body = control.list(parameters).await.json();
        assert_eq!(body["PageNumber"], number, "{parameters}: {body}");
        assert_eq!(body["PageSize"], size, "{parameters}: {body}");
        assert_eq!(body["TotalCount"], 53, "{parameters}");
        let images = body["Images"]["Images"].as_array().unwrap();
        assert_eq!(images.len(), size, "{parameters}");
    }
}

#[tokio::test]
async fn every_way_to_ask() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::unix(&dir.path().join("agent.sock"), "mycluster", Act::List(3));
    let control = Control::over(&[agent.address()]).await;
    let address = control.address;
    let all = "Action=ListContainerImages&Version=2018-04-12&ClusterId=ehpc-test&PageSize=2";
    let form = "application/x-www-form-urlencoded";
    let own = "/?ClusterId=ehpc-test&PageSize=2";
    let headers = [
        ("x-acs-action", "ListContainerImages"),
        ("x-acs-version", "2018-04-12"),
        ("accept", "application/json"),
        ("accept-encoding", "gzip, deflate, br"),
    ];
    let answers = [
        ("query", client::get(address, &format!("/?{all}")).await),
        (
            "query, everything escaped",
            client::get(address, &format!("/?{}", all.replace('-', "%2D"))).await,
        ),
        (
            "form",
            client::post(address, "/", form, all.as_bytes()).await,
        ),
        (
            "query and form",
            client::post(
                address,
                "/?Action=ListContainerImages&Version=2018-04-12",
                form,
                b"ClusterId=ehpc-test&PageSize=2",
            )
            .await,
        ),
        (
            "headers and query",
            client::raw(address, &get_bytes(own, &headers)).await,
        ),
        (
            "POST without a body",
            client::raw(
                address,
                format!("POST /?{all} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                    .as_bytes(),
            )
            .await,
        ),
        (
            "GET with an empty body of another type",
            client::raw(
                address,
                &get_bytes(
                    &format!("/?{all}"),
                    &[
                        ("content-type", "application/octet-stream"),
                        ("content-length", "0"),
                    ],
                ),
            )
            .await,
        ),
        (
            "through an HTTP proxy",
            client::get(address, &format!("http://localhost/?{all}")).await,
        ),
        (
            "any Host",
            client::raw(
                address,
                format!(
                    "GET /?{all} HTTP/1.1\r\nhost: http://localhost/\r\nconnection: close\r\n\r\n"
                )
                .as_bytes(),
            )
            .await,
        ),
    ];
    for (what, answer) in answers {
        assert_eq!(answer.status, 200, "{what}: {answer:?}");
        let body = answer.json();
        assert_eq!(body["PageSize"], 2, "{what}");
        assert!(body.get("Code").is_none(), "{what}");
        assert_eq!(answer.header("content-encoding"), None, "{what}");
        let length = answer.header("content-length").map(str::to_owned);
        assert_eq!(length, Some(answer.body.len().to_string()), "{what}");
    }
}

#[tokio::test]
async fn names_go_through_unchanged() {
    let mut image = crate::support::agent::image(1);
    image.repository = "lab/\u{1b}[31m\"q\"\u{4e2d}\n".into();
    image.tag = "</script>&".into();
    let (repository, tag) = (image.repository.clone(), image.tag.clone());
    let answer = sifter_proto::v1::ListImagesResponse {
        images: vec![image],
        total_size: 1,
        ..Default::default()
    };
    let agent = Agent::tcp("", Act::Answer(Box::new(answer))).await;
    let control = Control::over(&[agent.address()]).await;
    let body = control.list("").await.json();
    let entry = &body["Images"]["Images"][0];
    assert_eq!(entry["Repository"], repository.as_str());
    assert_eq!(entry["Tag"], tag.as_str());
}

#[tokio::test]
async fn one_connection_for_many_requests() {
    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;

    let agent = Agent::tcp("mycluster", Act::List(1)).await;
    let control = Control::over(&[agent.address()]).await;
    let target = list_target("ClusterId=ehpc-test");
    let request = format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let mut stream = tokio::net::TcpStream::connect(control.address)
        .await
        .unwrap();
    // Pipelined, the last one closes.
    let last = request.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
    let all = format!("{request}{request}{last}");
    stream.write_all(all.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 3, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_agent_promises_a_crowd_is_asked_for_once() {
    // Whatever is promised, it counts for no longer than was asked for.
    let promise = |images| Act::Promise(images, Duration::from_secs(3600));
    let agent = Agent::tcp("mycluster", promise(1)).await;
    let control = Control::over(&[agent.address()]).await;
    let address = control.address;
    let parameters = || format!("ClusterId={CLUSTER}");
    // Some that ask ten times each: how often the agent is asked, whether somebody was told what was known
    // already, and what they are told.
    let crowd = async |size: usize| {
        let before = agent.asked().len();
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..size {
            asking.spawn(async move {
                let mut told = Vec::new();
                for _ in 0..10 {
                    told.push(client::list(address, &parameters()).await.json());
                }
                told
            });
        }
        let told = asking.join_all().await;
        // Each promise of the agent names another system.
        let system = |json: &serde_json::Value| json["Images"]["Images"][0]["System"].clone();
        let knew = told.iter().any(|of_one| {
            of_one
                .windows(2)
                .any(|pair| system(&pair[0]) == system(&pair[1]))
        });
        let told = told.concat();
        let ids: HashSet<_> = told.iter().map(|json| json["RequestId"].clone()).collect();
        assert_eq!(ids.len(), 10 * size, "each has its own ID");
        let totals: BTreeSet<_> = told
            .iter()
            .map(|json| json["TotalCount"].as_u64())
            .collect();
        (agent.asked().len() - before, knew, totals)
    };
    // Who asks one after the other is always told what the agent says then.
    assert_eq!(crowd(1).await.0, 10);
    until("a crowd is told what is promised", async || {
        let (_, knew, totals) = crowd(8).await;
        assert_eq!(totals, BTreeSet::from([Some(1)]));
        knew
    })
    .await;
    agent.act(promise(2));
    until("the promise has ended", async || {
        crowd(8).await.2 == BTreeSet::from([Some(2)])
    })
    .await;
    // Nobody who makes no promise has one kept for him.
    agent.act(Act::List(3));
    until("the promise has ended", async || {
        crowd(8).await.2 == BTreeSet::from([Some(3)])
    })
    .await;
    assert!(crowd(8).await.0 >= 10);
}
