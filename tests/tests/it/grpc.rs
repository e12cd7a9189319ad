//! Debugging with grpcurl: no `.proto` file at hand, everything through reflection.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::Value;
use sifter_proto::ERROR_DOMAIN;
use sifter_proto::reason;
use sifter_proto::v1::GetImageRequest;
use sifter_proto::v1::ListImagesRequest;
use sifter_proto::v1::image_service_client::ImageServiceClient;
use sifter_tests::agent::Agent;
use sifter_tests::agent::Options;
use sifter_tests::agent::runtime;
use sifter_tests::grpcurl::Grpcurl;
use sifter_tests::grpcurl::Transport;
use sifter_tests::images;
use sifter_tests::sif::Tiny;
use sifter_tests::skip;
use sifter_tests::wait;
use tempfile::TempDir;
use tonic::Code;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_types::StatusExt;

use crate::errors::slow_config;

const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Unix];

/// grpcurl and an agent over the real images; nothing where grpcurl cannot be had.
fn tools(test: &str) -> Option<(Grpcurl, Agent)> {
    match Grpcurl::find() {
        Ok(grpcurl) => Some((grpcurl, Agent::ready(Options::roots([images::dir()])))),
        Err(why) => {
            skip(test, &why);
            None
        }
    }
}

#[test]
fn list_names_every_service() {
    let Some((grpcurl, agent)) = tools("list_names_every_service") else {
        return;
    };
    for transport in TRANSPORTS {
        let services = grpcurl.text(&agent, transport, &[], &["list"]);
        for service in [
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
            "sifter.v1.AgentService",
            "sifter.v1.ImageService",
        ] {
            assert!(
                services.lines().any(|line| line == service),
                "{service} not in\n{services}"
            );
        }
        let methods = grpcurl.text(&agent, transport, &[], &["list", "sifter.v1.ImageService"]);
        for method in ["ListImages", "StreamImages", "GetImage", "WatchImages"] {
            let line = format!("sifter.v1.ImageService.{method}");
            assert!(
                methods.lines().any(|found| found == line),
                "{line} not in\n{methods}"
            );
        }
    }
}

#[test]
fn describe_shows_the_comments_of_the_contract() {
    let Some((grpcurl, agent)) = tools("describe_shows_the_comments_of_the_contract") else {
        return;
    };
    for transport in TRANSPORTS {
        let image = grpcurl.text(&agent, transport, &[], &["describe", "sifter.v1.Image"]);
        assert!(image.contains("string repository = 8;"), "{image}");
        assert!(
            image.contains("Repository in the familiar form that people type"),
            "{image}"
        );
        let service = grpcurl.text(
            &agent,
            transport,
            &[],
            &["describe", "sifter.v1.ImageService"],
        );
        assert!(service.contains("rpc ListImages"), "{service}");
    }
}

#[test]
fn list_images_shows_the_fields_as_documented() {
    let Some((grpcurl, agent)) = tools("list_images_shows_the_fields_as_documented") else {
        return;
    };
    for transport in TRANSPORTS {
        let page = grpcurl.call(
            &agent,
            transport,
            "sifter.v1.ImageService/ListImages",
            r#"{"page_size": 50}"#,
        );
        let truth = images::truth();
        assert_eq!(page["totalSize"], truth.len().to_string());
        let path = images::dir().join("pulled/ubuntu_22.04.sif");
        let image = page["images"]
            .as_array()
            .and_then(|images| {
                images
                    .iter()
                    .find(|image| image["path"] == path.to_str().unwrap())
            })
            .unwrap_or_else(|| panic!("no ubuntu in {page}"));
        let entry = &truth["pulled/ubuntu_22.04.sif"];
        let facts = fs::metadata(&path).unwrap();
        for (field, expected) in [
            ("repository", Value::from("ubuntu")),
            ("tag", "22.04".into()),
            ("format", "FORMAT_SIF".into()),
            ("formatVersion", "01".into()),
            ("status", "STATUS_READY".into()),
            ("referenceSource", "REFERENCE_SOURCE_DEFINITION".into()),
            ("updateTimeSource", "TIME_SOURCE_HEADER".into()),
            ("arch", "amd64".into()),
            ("uuid", entry["header"]["id"].clone()),
            ("sizeBytes", facts.size().to_string().into()),
            ("allocatedBytes", (facts.blocks() * 512).to_string().into()),
            ("links", facts.nlink().to_string().into()),
            ("fileSystem", "squashfs".into()),
            ("encryption", "ENCRYPTION_NONE".into()),
        ] {
            assert_eq!(image[field], expected, "{field}");
        }
        let id = image["imageId"].as_str().unwrap();
        let hex = id.strip_prefix("sha256:").expect(id);
        assert!(
            hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()),
            "{id}"
        );
    }
}

#[test]
fn get_image_shows_definition_and_labels() {
    let Some((grpcurl, agent)) = tools("get_image_shows_definition_and_labels") else {
        return;
    };
    let path = images::dir().join("built/tools.sif");
    let data = serde_json::json!({ "path": path.to_str().unwrap() }).to_string();
    let truth = images::truth();
    let entry = &truth["built/tools.sif"];
    for transport in TRANSPORTS {
        let image = grpcurl.call(&agent, transport, "sifter.v1.ImageService/GetImage", &data);
        assert_eq!(image["definition"], entry["definition"]);
        assert_eq!(image["labels"], entry["labels"]);
    }
}

#[test]
fn health_answers_for_the_server_and_each_service() {
    let Some((grpcurl, agent)) = tools("health_answers_for_the_server_and_each_service") else {
        return;
    };
    for transport in TRANSPORTS {
        for service in ["", "sifter.v1.ImageService", "sifter.v1.AgentService"] {
            let data = serde_json::json!({ "service": service }).to_string();
            // Told a moment after the listing is there.
            wait::until("a healthy service", || {
                let method = "grpc.health.v1.Health/Check";
                let answer = grpcurl.call(&agent, transport, method, &data);
                let status = answer["status"].to_string();
                (status == "\"SERVING\"").then_some(()).ok_or(status)
            });
        }
    }
    // Nothing is listed yet of a root that takes its time.
    let root = TempDir::new().unwrap();
    for number in 0..1_000 {
        Tiny::numbered(number, "lab/tool:1").write(&root.path().join(format!("{number}.sif")));
    }
    let slow = Agent::start(Options::config(&slow_config(root.path())));
    for (service, status) in [
        ("", "NOT_SERVING"),
        ("sifter.v1.ImageService", "NOT_SERVING"),
        ("sifter.v1.AgentService", "SERVING"),
    ] {
        let data = serde_json::json!({ "service": service }).to_string();
        let answer = grpcurl.call(&slow, TRANSPORTS[0], "grpc.health.v1.Health/Check", &data);
        assert_eq!(answer["status"], status, "{service:?}");
    }
}

/// grpcurl of today asks for reflection v1, and the pinned one for v1alpha only.
#[test]
fn reflection_v1_is_served_too() {
    let agent = Agent::ready(Options::roots([images::dir()]));
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answer = runtime().block_on(async {
        ServerReflectionClient::new(agent.channel().await)
            .server_reflection_info(tokio_stream::iter([request]))
            .await
            .unwrap()
            .into_inner()
            .message()
            .await
            .unwrap()
            .expect("an answer")
    });
    let Some(MessageResponse::ListServicesResponse(services)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let names: Vec<&str> = services
        .service
        .iter()
        .map(|service| service.name.as_str())
        .collect();
    for name in [
        "sifter.v1.ImageService",
        "sifter.v1.AgentService",
        "grpc.health.v1.Health",
    ] {
        assert!(names.contains(&name), "{name} not in {names:?}");
    }
}

#[test]
fn errors_name_their_reason() {
    let agent = Agent::ready(Options::roots([images::dir()]));
    let list = |page_size, page_token: &str| ListImagesRequest {
        page_size,
        page_token: page_token.to_owned(),
        ..ListImagesRequest::default()
    };
    let refused = |request| runtime().block_on(agent.list(request)).unwrap_err();
    let missing = GetImageRequest {
        path: "/no/such/image.sif".to_owned(),
        ..GetImageRequest::default()
    };
    let not_found = runtime().block_on(async {
        let mut client = ImageServiceClient::new(agent.channel().await);
        client.get_image(missing).await.unwrap_err()
    });
    let nonsense = refused(list(10, "nonsense"));
    assert!(
        nonsense.message().contains("leave page_token out"),
        "{nonsense:?}"
    );
    for (status, code, reason) in [
        (nonsense, Code::InvalidArgument, reason::INVALID_PAGE_TOKEN),
        (
            refused(list(1001, "")),
            Code::InvalidArgument,
            reason::INVALID_ARGUMENT,
        ),
        (not_found, Code::NotFound, reason::IMAGE_NOT_FOUND),
    ] {
        assert_eq!(status.code(), code, "{status:?}");
        let info = status.get_details_error_info().expect("ErrorInfo");
        assert_eq!(
            (info.domain.as_str(), info.reason.as_str()),
            (ERROR_DOMAIN, reason)
        );
    }
}

#[test]
fn grpcurl_shows_what_was_wrong() {
    let Some((grpcurl, agent)) = tools("grpcurl_shows_what_was_wrong") else {
        return;
    };
    let method = "sifter.v1.ImageService/ListImages";
    let output = grpcurl.run(
        &agent,
        Transport::Unix,
        &["-d", r#"{"page_size": 1001}"#],
        &[method],
    );
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        words.contains("Code: InvalidArgument") && words.contains("page_size"),
        "{words}"
    );
}
