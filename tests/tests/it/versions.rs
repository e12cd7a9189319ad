//! Agent, control plane and command line one version apart: who knows less leaves out fields, who
//! knows more sends fields and values that the other does not know.

use std::process::Command;
use std::process::Output;

use prost::Message as _;
use sifter_proto::Timestamp;
use sifter_proto::v1::Format;
use sifter_proto::v1::GetStatusResponse;
use sifter_proto::v1::Image;
use sifter_proto::v1::ListImagesRequest;
use sifter_proto::v1::ListImagesResponse;
use sifter_proto::v1::Root;
use sifter_proto::v1::Status;
use sifter_tests::agent::Agent;
use sifter_tests::agent::Options;
use sifter_tests::agent::runtime;
use sifter_tests::control::Control;
use sifter_tests::images;
use sifter_tests::other::Raw;
use sifter_tests::other::agent_of_another_version;
use sifter_tests::other::unknown_field;
use sifter_tests::process::binary;
use tonic::codegen::http::uri::PathAndQuery;

const LIST: &str = "/sifter.v1.ImageService/ListImages";
const STREAM: &str = "/sifter.v1.ImageService/StreamImages";
const STATUS: &str = "/sifter.v1.AgentService/GetStatus";

/// An image with what the very first version had to say of it.
fn image() -> Image {
    Image {
        path: "/opt/images/ubuntu_22.04.sif".to_owned(),
        root: "/opt/images".to_owned(),
        image_id: "sha256:475bcb9b1d51c47e47abbe26363f0eb01946a4fc9ba163fe7cc3161a953ac356"
            .to_owned(),
        format: Format::Sif.into(),
        status: Status::Ready.into(),
        repository: "ubuntu".to_owned(),
        tag: "22.04".to_owned(),
        update_time: Some(Timestamp {
            seconds: 1_767_225_600,
            nanos: 0,
        }),
        ..Image::default()
    }
}

/// Bytes of a message within another one, under its number.
fn nested(number: u8, message: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    prost::encoding::encode_varint(message.len() as u64, &mut field);
    field.extend_from_slice(message);
    field
}

/// A listing as a later version sends it: with fields and values that nobody knows yet.
fn later_listing(image: Image) -> Vec<u8> {
    let image = Image {
        format: 99,
        encryption: 99,
        ..image
    };
    let mut image = image.encode_to_vec();
    image.extend(unknown_field());
    let mut listing = nested(1, &image);
    // In a stream the same numbers stand for other things: 2 is the total there.
    listing.extend(unknown_field());
    listing
}

fn sifter(arguments: &[&str], address: &str) -> Output {
    Command::new(binary("sifter"))
        .args(arguments)
        .args(["--address", address])
        .output()
        .expect("sifter can be run")
}

fn answer_of_a_control_plane(agent: std::net::SocketAddr) -> serde_json::Value {
    let agent = agent.to_string();
    let control = Control::start(&[("c", &[agent.as_str()])]);
    let answer = control.list("ClusterId=c&ContainerType=singularity&PageNumber=1&PageSize=10");
    assert_eq!(
        answer.status,
        200,
        "{}",
        String::from_utf8_lossy(&answer.body)
    );
    answer.json()
}

#[test]
fn a_control_plane_takes_the_listing_of_an_agent_that_knows_less() {
    let listing = ListImagesResponse {
        images: vec![image()],
        total_size: 1,
        system: "older".to_owned(),
        catalog_uri: "sqlite:///var/lib/sifter/catalog.sqlite".to_owned(),
        ..ListImagesResponse::default()
    };
    let agent = agent_of_another_version(&[(LIST, listing.encode_to_vec())]);
    let reply = answer_of_a_control_plane(agent);
    assert_eq!(reply["TotalCount"], 1);
    let listed = &reply["Images"]["Images"][0];
    for (field, expected) in [
        ("Type", "singularity"),
        ("Status", "READY"),
        ("Repository", "ubuntu"),
        ("Tag", "22.04"),
        ("System", "older"),
        ("UpdateDateTime", "2026-01-01T00:00:00"),
        ("ImageId", image().image_id.as_str()),
    ] {
        assert_eq!(listed[field], expected, "{field} in {reply}");
    }
}

#[test]
fn a_control_plane_takes_the_listing_of_an_agent_that_knows_more() {
    let mut listing = later_listing(image());
    let rest = ListImagesResponse {
        total_size: 1,
        system: "newer".to_owned(),
        catalog_uri: "sqlite:///c".to_owned(),
        ..ListImagesResponse::default()
    };
    listing.extend(rest.encode_to_vec());
    let reply = answer_of_a_control_plane(agent_of_another_version(&[(LIST, listing)]));
    assert_eq!(reply["TotalCount"], 1, "{reply}");
    assert_eq!(
        reply["Images"]["Images"][0]["Repository"], "ubuntu",
        "{reply}"
    );
    assert_eq!(reply["Images"]["Images"][0]["System"], "newer", "{reply}");
}

#[test]
fn the_command_line_reads_what_agents_of_other_versions_say() {
    let older = GetStatusResponse {
        version: "0.1.0".to_owned(),
        system: "older".to_owned(),
        ready: true,
        image_count: 7,
        roots: vec![Root {
            path: "/opt/images".to_owned(),
            ..Root::default()
        }],
        ..GetStatusResponse::default()
    };
    let mut newer = GetStatusResponse {
        version: "0.3.0".to_owned(),
        catalog_state: 99,
        confinement: 99,
        ..older.clone()
    }
    .encode_to_vec();
    newer.extend(unknown_field());
    let older = agent_of_another_version(&[(STATUS, older.encode_to_vec())]).to_string();
    let newer = agent_of_another_version(&[
        (STATUS, newer),
        (STREAM, later_listing(image())),
        (LIST, later_listing(image())),
    ])
    .to_string();
    for (address, version) in [(&older, "0.1.0"), (&newer, "0.3.0")] {
        let output = sifter(&["status"], address);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        assert!(
            text.contains(version) && text.contains("/opt/images"),
            "{text}"
        );
        assert!(
            !text.contains("confined"),
            "what was not said is not shown: {text}"
        );
    }
    let output = sifter(&["ls"], &newer);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("ubuntu"),
        "{output:?}"
    );
    // An RPC that an older agent does not have.
    let output = sifter(&["ls"], &older);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("not known to this version"),
        "{said}"
    );
}

#[test]
fn an_agent_takes_the_request_of_a_client_that_knows_more() {
    let agent = Agent::ready(Options::roots([images::dir()]));
    let mut request = ListImagesRequest {
        page_size: 3,
        ..ListImagesRequest::default()
    }
    .encode_to_vec();
    request.extend(unknown_field());
    let answer = runtime().block_on(async {
        let mut client = tonic::client::Grpc::new(agent.channel().await);
        client.ready().await.expect("a channel");
        client
            .unary(
                tonic::Request::new(request),
                PathAndQuery::from_static(LIST),
                Raw,
            )
            .await
            .expect("an answer")
            .into_inner()
    });
    let answer = ListImagesResponse::decode(answer.as_slice()).expect("a listing");
    assert_eq!(answer.images.len(), 3);
    // Whom the agent belongs to is shown everything.
    assert!(!answer.restricted);
}
