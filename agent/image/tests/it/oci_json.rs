//! The JSON of an OCI-SIF, as Go reads it.

use std::path::Path;

use sifter_image::Verdict;
use sifter_image::record::{Image, Status, TimeSource};

use crate::corpus::verdict;
use crate::made::{Object, Sif, digest, hollow_squashfs};

/// The texts of an OCI-SIF's JSON, in which `LAYER`, `CONFIG` and `MANIFEST` stand for digests.
struct Json<'a> {
    config: &'a [u8],
    manifest: &'a str,
    index: &'a str,
}

const USUAL: Json<'_> = Json {
    config: br#"{"architecture":"arm64","created":"2024-01-02T03:04:05Z","config":{"Labels":{"k":"v"}}}"#,
    manifest: r#"{"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"CONFIG"},"layers":[{"mediaType":"x.squashfs","digest":"LAYER"}]}"#,
    index: r#"{"manifests":[{"digest":"MANIFEST","annotations":{"org.opencontainers.image.ref.name":"lab/tool:1"}}]}"#,
};

impl Json<'_> {
    fn image(&self) -> Image {
        image_of(&self.sif().bytes())
    }

    fn sif(&self) -> Sif {
        let layer = hollow_squashfs(4096);
        let manifest = self
            .manifest
            .replace("LAYER", &digest(&layer))
            .replace("CONFIG", &digest(self.config));
        let index = self.index.replace("MANIFEST", &digest(manifest.as_bytes()));
        let mut sif = Sif::new();
        (sif.uuid, sif.launch) = ([0; 16], b"");
        sif.with(Object::blob(0x400B, layer))
            .with(Object::blob(0x400B, self.config))
            .with(Object::blob(0x400B, manifest))
            .with(Object::blob(0x400A, index))
    }
}

fn image_of(bytes: &[u8]) -> Image {
    match verdict(&bytes, Path::new("/images/made.sif")) {
        Verdict::Image(image) => *image,
        Verdict::NotImage(not) => panic!("{not:?}"),
    }
}

/// Beside an image: an artifact that refers to it, and an attestation as `buildx` makes it.
#[test]
fn the_image_is_described_wherever_it_is_listed() {
    let layer = hollow_squashfs(4096);
    let replaced = |text: &str, config: &[u8], layer: &[u8]| {
        text.replace("CONFIG", &digest(config))
            .replace("LAYER", &digest(layer))
    };
    let unknown = br#"{"architecture":"unknown","os":"unknown"}"#;
    let image = replaced(USUAL.manifest, USUAL.config, &layer);
    let artifact = replaced(
        r#"{"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"CONFIG"},"layers":[{"mediaType":"application/spdx+json","digest":"LAYER"}]}"#,
        b"{}",
        b"{}",
    );
    let attestation = replaced(
        r#"{"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"CONFIG"},"layers":[{"mediaType":"application/vnd.in-toto+json","digest":"LAYER"}]}"#,
        unknown,
        b"{}",
    );
    for listed in [
        &[&image][..],
        &[&artifact, &image],
        &[&image, &attestation],
        &[&artifact, &image, &attestation],
        &[&image, &image],
    ] {
        let entries: Vec<_> = listed
            .iter()
            .map(|manifest| format!(r#"{{"digest":"{}"}}"#, digest(manifest.as_bytes())))
            .collect();
        let index = format!(r#"{{"manifests":[{}]}}"#, entries.join(","));
        let blobs = [&layer[..], USUAL.config, unknown, b"{}"].map(|blob: &[u8]| blob.to_vec());
        let manifests = listed.iter().map(|manifest| manifest.as_bytes().to_vec());
        let sif = blobs
            .into_iter()
            .chain(manifests)
            .fold(Sif::new(), |sif, blob| sif.with(Object::blob(0x400B, blob)))
            .with(Object::blob(0x400A, index));
        let found = image_of(&sif.bytes());
        let said = (found.status_message.as_str(), found.labels.get("k"));
        assert_eq!(said, ("", Some("v")), "{}", entries.len());
        assert_eq!(found.arch, "arm64", "{}", entries.len());
        assert_eq!(
            (found.file_system, found.compressor),
            (Some("squashfs"), Some("gzip")),
            "{}",
            entries.len()
        );
    }
}

#[test]
fn null_is_absent_and_the_last_of_repeated_keys_counts() {
    let cases = [
        ("usual", USUAL),
        (
            "nulls in the index",
            Json {
                index: r#"{"mediaType":null,"manifests":[null,{"mediaType":null,"digest":"MANIFEST","platform":null,"annotations":null}],"annotations":null}"#,
                ..USUAL
            },
        ),
        (
            "nulls in the manifest",
            Json {
                manifest: r#"{"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"CONFIG","platform":null,"annotations":null},"layers":[{"mediaType":"x.squashfs","digest":"LAYER","annotations":null}],"subject":null}"#,
                ..USUAL
            },
        ),
        (
            "a null does not take back",
            Json {
                config: br#"{"architecture":"arm64","architecture":null,"created":null,"history":null,"config":{"Labels":{"k":"v"},"Labels":null}}"#,
                ..USUAL
            },
        ),
        (
            "nulls in the configuration",
            Json {
                config: br#"{"architecture":"arm64","history":[null,{"created":null}],"config":{"Env":null,"Labels":{"k":"v"}}}"#,
                ..USUAL
            },
        ),
        (
            "repeated",
            Json {
                config: br#"{"architecture":"s390x","architecture":"arm64","config":{"Labels":{"k":"u"}},"config":{"Labels":{"k":"w","k":"v"}}}"#,
                manifest: r#"{"config":{},"config":{"mediaType":"x","mediaType":"application/vnd.oci.image.config.v1+json","digest":"x","digest":"CONFIG"},"layers":[{"digest":"x"}],"layers":[{"mediaType":"x.squashfs","digest":"LAYER"}]}"#,
                index: r#"{"manifests":[],"manifests":[{"digest":"x","digest":"MANIFEST"}]}"#,
            },
        ),
    ];
    for (what, json) in cases {
        let image = json.image();
        assert_eq!(
            (image.status, image.status_message.as_str()),
            (Status::Ready, ""),
            "{what}"
        );
        assert_eq!(image.arch, "arm64", "{what}");
        assert_eq!(image.labels.get("k"), Some("v"), "{what}");
        assert_eq!(image.file_system, Some("squashfs"), "{what}");
    }
    for (what, json) in [
        (
            "root index",
            Json {
                index: "null",
                ..USUAL
            },
        ),
        (
            "manifests",
            Json {
                index: r#"{"manifests":null}"#,
                ..USUAL
            },
        ),
        (
            "manifest",
            Json {
                manifest: "null",
                ..USUAL
            },
        ),
    ] {
        let image = json.image();
        assert_eq!(
            (image.status, image.status_message.as_str()),
            (Status::Ready, ""),
            "{what}"
        );
        assert!(image.labels.is_empty(), "{what}");
    }
}

#[test]
fn times_are_of_the_configuration_where_the_header_has_none() {
    let of = |created: &str, history: &[&str]| {
        let steps: Vec<_> = history
            .iter()
            .map(|created| format!(r#"{{"created":"{created}"}}"#))
            .collect();
        let config = format!(
            r#"{{"architecture":"arm64","created":"{created}","history":[{}]}}"#,
            steps.join(",")
        );
        Json {
            config: config.as_bytes(),
            ..USUAL
        }
        .sif()
    };
    const HEADER: &str = "2023-11-14T22:13:20Z";
    const STEPS: &[&str] = &[
        "2021-01-01T00:00:00Z",
        "2022-01-01T00:00:00Z",
        "2020-01-01T00:00:00Z",
    ];
    for (created, history, expected) in [
        ("2024-01-02T03:04:05Z", STEPS, Some("2024-01-02T03:04:05Z")),
        ("1970-01-01T00:00:00Z", STEPS, Some("2022-01-01T00:00:00Z")),
        ("0001-01-01T00:00:00Z", STEPS, Some("2022-01-01T00:00:00Z")),
        ("", &["1970-01-01T00:00:00Z"], None),
    ] {
        for has_header in [false, true] {
            let mut sif = of(created, history);
            if !has_header {
                (sif.created, sif.modified) = (0, 0);
            }
            let image = image_of(&sif.bytes());
            let text = |time: Option<jiff::Timestamp>| time.map(|time| time.to_string());
            let expected = if has_header { Some(HEADER) } else { expected };
            assert_eq!(text(image.create_time).as_deref(), expected, "{created}");
            let source = match (has_header, expected) {
                (true, _) => TimeSource::Header,
                (false, Some(_)) => TimeSource::OciConfig,
                (false, None) => TimeSource::Mtime,
            };
            assert_eq!(image.update_time_source, source, "{created}");
        }
    }
}

/// The name of a nested index is that of its manifests, unless they have their own.
#[test]
fn names_of_nested_indexes() {
    let manifest = "{}";
    let digest_of = |text: &str| digest(text.as_bytes());
    let entry = |digest: String, kind: &str, name: &str| {
        let name = match name {
            "" => String::new(),
            name => format!(r#","annotations":{{"org.opencontainers.image.ref.name":"{name}"}}"#),
        };
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.{kind}.v1+json","digest":"{digest}"{name}}}"#
        )
    };
    for (outer, inner, expected) in [
        ("lab/outer:1", "", "lab/outer"),
        ("lab/outer:1", "lab/inner:1", "lab/inner"),
        ("", "lab/inner:1", "lab/inner"),
        ("", "", "made"),
    ] {
        let nested = entry(digest_of(manifest), "manifest", inner);
        let nested = format!(r#"{{"manifests":[{nested}]}}"#);
        let root = entry(digest_of(&nested), "index", outer);
        let sif = Sif::new()
            .with(Object::blob(0x400B, manifest))
            .with(Object::blob(0x400B, nested))
            .with(Object::blob(0x400A, format!(r#"{{"manifests":[{root}]}}"#)));
        let image = image_of(&sif.bytes());
        assert_eq!(image.reference.repository, expected, "{outer} {inner}");
    }
}

/// Only SHA-256 is compared.
#[test]
fn digests_of_another_kind_are_taken_as_they_are() {
    let sha512 = format!("sha512:{}", "ab".repeat(64));
    let mut manifest = Object::blob(0x400B, "{}");
    manifest.extra = sha512.clone().into_bytes();
    let root = format!(
        r#"{{"manifests":[{{"digest":"{sha512}","platform":{{"architecture":"arm64"}}}}]}}"#
    );
    let sif = Sif::new().with(manifest).with(Object::blob(0x400A, root));
    let image = image_of(&sif.bytes());
    assert_eq!(
        (image.status_message.as_str(), image.arch.as_str()),
        ("", "arm64")
    );
}

#[test]
fn odd_labels_cost_no_others() {
    for (odd, expected) in [
        (&br#""\ud800""#[..], "\u{fffd}"),
        (b"\"\xff\"", "\u{fffd}"),
        (b"1.10", "1.10"),
        (b"1e999", "1e999"),
    ] {
        let config = [
            br#"{"architecture":"arm64","config":{"Labels":{"k":"v","odd":"#,
            odd,
            b"}}}",
        ]
        .concat();
        let image = Json {
            config: &config,
            ..USUAL
        }
        .image();
        assert_eq!(
            (image.status, image.status_message.as_str()),
            (Status::Ready, "")
        );
        assert_eq!(image.labels.get("k"), Some("v"));
        assert_eq!(image.labels.get("odd"), Some(expected));
    }
}

#[test]
fn what_go_refuses_is_corrupt() {
    for (what, json) in [
        (
            "root index",
            Json {
                index: "7",
                ..USUAL
            },
        ),
        (
            "root index",
            Json {
                index: r#"{"manifests":{}}"#,
                ..USUAL
            },
        ),
        (
            "root index",
            Json {
                index: r#"{"manifests":[{"digest":1.5}]}"#,
                ..USUAL
            },
        ),
        (
            "root index",
            Json {
                index: r#"{"manifests":["MANIFEST"]}"#,
                ..USUAL
            },
        ),
        (
            "manifest",
            Json {
                manifest: r#"{"layers":"x"}"#,
                ..USUAL
            },
        ),
        (
            "configuration",
            Json {
                config: br#"{"architecture":1}"#,
                ..USUAL
            },
        ),
        (
            "configuration",
            Json {
                config: br#"{"architecture":NaN}"#,
                ..USUAL
            },
        ),
        (
            "configuration",
            Json {
                config: br#"{"created":"2024","#,
                ..USUAL
            },
        ),
    ] {
        let image = json.image();
        assert_eq!(image.status, Status::Failure, "{what}");
        let start = format!("corrupt: OCI {what} at byte ");
        assert!(
            image.status_message.starts_with(&start),
            "{}",
            image.status_message
        );
    }
}
