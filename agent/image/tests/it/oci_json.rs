//! The JSON of an OCI-SIF, as Go reads it.

use std::path::Path;

use sifter_image::Verdict;
use sifter_image::record::{Image, Status};

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
        let layer = hollow_squashfs(4096);
        let manifest = self
            .manifest
            .replace("LAYER", &digest(&layer))
            .replace("CONFIG", &digest(self.config));
        let index = self.index.replace("MANIFEST", &digest(manifest.as_bytes()));
        let mut sif = Sif::new();
        (sif.uuid, sif.launch) = ([0; 16], b"");
        let bytes = sif
            .with(Object::blob(0x400B, layer))
            .with(Object::blob(0x400B, self.config))
            .with(Object::blob(0x400B, manifest))
            .with(Object::blob(0x400A, index))
            .bytes();
        image_of(&bytes)
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
