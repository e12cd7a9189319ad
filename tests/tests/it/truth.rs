//! The listing equals what apptainer says of the real images of `tests/images`, field by field.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;
use sifter_proto::v1::DataType;
use sifter_proto::v1::Encryption;
use sifter_proto::v1::Image;
use sifter_proto::v1::Object;
use sifter_proto::v1::Status;
use sifter_tests::images;

use crate::differences::Differences;
use crate::differences::epoch;
use crate::differences::listing;

/// Repository, tag and base of each image of `tests/images`.
const REFERENCES: [(&str, &str, &str, &str); 36] = [
    ("archive/oci.sif", "oci", "latest", ""),
    ("built/apps.sif", "apps", "latest", "alpine:3.20"),
    ("built/arguments.sif", "arguments", "latest", "alpine:3.20"),
    ("built/from-sandbox.sif", "from-sandbox", "latest", ""),
    (
        "built/library.sif",
        "library",
        "latest",
        "sifter/tests/tools:2.1",
    ),
    ("built/localimage.sif", "localimage", "latest", ""),
    (
        "built/multistage.sif",
        "multistage",
        "latest",
        "alpine:3.20",
    ),
    (
        "built/registry-namespace.sif",
        "registry-namespace",
        "latest",
        MULTIQC,
    ),
    ("built/scratch.sif", "scratch", "latest", ""),
    ("built/tools.sif", "tools", "latest", BWA),
    (CACHED, "busybox", BUSYBOX_DIGEST, ""),
    (
        "depot/multiqc:1.25--pyhdfd78af_0",
        "quay.io/biocontainers/multiqc",
        "1.25--pyhdfd78af_0",
        "",
    ),
    ("encrypted/passphrase.sif", "alpine", "3.20", ""),
    ("encrypted/rsa.sif", "rsa", "latest", BWA),
    // Nothing but a partition, which holds the root of pulled/alpine_latest.sif.
    ("formats/arm64.sif", "alpine", "latest", ""),
    ("formats/deleted-object.sif", "rocker/r-ver", "4.4.1", ""),
    ("formats/new.sif", "new", "latest", ""),
    ("formats/overlay.sif", "ubuntu", "22.04", ""),
    ("formats/sandbox", "alpine", "3.20", ""),
    ("formats/xz.sif", "alpine", "3.20", ""),
    ("formats/zstd.sif", "alpine", "3.20", ""),
    ("my-favourite.simg", "alpine", "3.20", ""),
    (
        "nextflow/quay.io-biocontainers-bwa-0.7.18--he4a0461_1.img",
        "quay.io/biocontainers/bwa",
        "0.7.18--he4a0461_1",
        "",
    ),
    ("pulled/alpine_latest.sif", "alpine", "latest", ""),
    (DIGEST_NAMED, "busybox", BUSYBOX_DIGEST, ""),
    // The file came out of apptainer's cache and keeps the reference it was first pulled by.
    ("pulled/cached-second-name.sif", "alpine", "3.20", ""),
    (
        "pulled/fastqc_0.12.1--hdfd78af_0.sif",
        "quay.io/biocontainers/fastqc",
        "0.12.1--hdfd78af_0",
        "",
    ),
    (
        "pulled/pytorch_24.05-py3.sif",
        "nvcr.io/nvidia/pytorch",
        "24.05-py3",
        "",
    ),
    ("pulled/r-ver_4.4.1.sif", "rocker/r-ver", "4.4.1", ""),
    (
        "pulled/site-tool_1.2.sif",
        "127.0.0.1:5000/team/tools/site-tool",
        "1.2",
        "",
    ),
    // Pulls from a library and over oras copy someone's build: only the name tells.
    ("pulled/tools-sif_2.1.sif", "tools-sif", "2.1", BWA),
    ("pulled/tools_2.1.sif", "tools", "2.1", BWA),
    ("pulled/ubuntu_22.04.sif", "ubuntu", "22.04", ""),
    ("signed/key.sif", "alpine", "latest", ""),
    ("signed/pgp.sif", "alpine", "latest", ""),
    ("signed/twice.sif", "alpine", "latest", ""),
];
const BWA: &str = "quay.io/biocontainers/bwa:0.7.18--he4a0461_1";
const MULTIQC: &str = "quay.io/biocontainers/multiqc:1.25--pyhdfd78af_0";
const BUSYBOX_DIGEST: &str =
    "sha256:065336e9e8dbaa63845bb0f76600fa8631b1e44b575974de34e85f4b96ded0e0";
const DIGEST_NAMED: &str =
    "pulled/busybox@sha256_065336e9e8dbaa63845bb0f76600fa8631b1e44b575974de34e85f4b96ded0e0.sif";
const CACHED: &str =
    "cache/oci-tmp/3b68ae7c23ad8de786ea1fda9bde4014dbde0613a893387a9e40d43dad22c766";

#[test]
fn the_listing_is_what_apptainer_says() {
    let truth = images::truth();
    let listing = listing(&images::dir());
    let mut differences = Differences::default();
    let names = |keys: Vec<&String>| keys.into_iter().cloned().collect::<BTreeSet<_>>();
    assert_eq!(
        names(listing.keys().collect()),
        names(truth.keys().collect())
    );

    for (path, entry) in &truth {
        let image = &listing[path];
        differences.check(path, "status", image.status(), Status::Ready);
        if let Some(size) = entry["size"].as_u64() {
            differences.check(path, "size_bytes", image.size_bytes, size);
        }
        check_header(&mut differences, path, image, &entry["header"]);
        let objects = entry["objects"].as_array().map_or(&[][..], Vec::as_slice);
        differences.check(path, "objects", image.objects.len(), objects.len());
        for (ours, theirs) in image.objects.iter().zip(objects) {
            check_object(&mut differences, path, ours, theirs);
        }
        if let Some(labels) = entry["labels"].as_object() {
            let theirs: BTreeMap<_, _> = labels
                .iter()
                .map(|(name, value)| (name.clone(), value.as_str().expect("a string").to_owned()))
                .collect();
            differences.check(
                path,
                "labels",
                image.labels.clone().into_iter().collect(),
                theirs,
            );
        }
        // Absent where the tool shows none (no object, and `inspect` refuses the image).
        if let Some(definition) = entry["definition"].as_str() {
            differences.check(
                path,
                "definition",
                image.definition.trim_end(),
                definition.trim_end(),
            );
            if !objects.is_empty() {
                differences.check(
                    path,
                    "definition, all of it",
                    image.definition.as_str(),
                    definition,
                );
            }
        }
    }
    differences.assert_none();
}

#[test]
fn references_are_what_was_pulled() {
    let listing = listing(&images::dir());
    let mut differences = Differences::default();
    assert_eq!(listing.len(), REFERENCES.len());
    for (path, repository, tag, base) in REFERENCES {
        let image = &listing[path];
        differences.check(path, "repository", image.repository.as_str(), repository);
        differences.check(path, "tag", image.tag.as_str(), tag);
        differences.check(path, "base", image.base.as_str(), base);
    }
    differences.assert_none();
}

#[test]
fn signatures_and_encryption_are_seen() {
    let listing = listing(&images::dir());
    for (path, image) in &listing {
        let signatures = match path.as_str() {
            "signed/pgp.sif" | "signed/key.sif" => 1,
            "signed/twice.sif" => 2,
            _ => 0,
        };
        assert_eq!(image.signatures.len(), signatures, "{path}");
        let encryption = if path.starts_with("encrypted/") {
            Encryption::Gocryptfs
        } else {
            Encryption::None
        };
        assert_eq!(image.encryption(), encryption, "{path}");
    }
}

fn check_header(differences: &mut Differences, path: &str, image: &Image, header: &Value) {
    let field = |name: &str| header[name].as_str();
    let Some(version) = field("version") else {
        return;
    };
    differences.check(
        path,
        "format_version",
        image.format_version.as_str(),
        version,
    );
    differences.check(
        path,
        "uuid",
        image.uuid.as_str(),
        field("id").unwrap_or_default(),
    );
    let arch = field("primary_architecture").unwrap_or("unknown");
    differences.check(path, "arch", image.arch.as_str(), arch);
    let times = [
        ("create_time", "created_at", &image.create_time),
        ("update_time", "modified_at", &image.update_time),
    ];
    for (name, key, ours) in times {
        let theirs = field(key).map_or(0, apptainer_time);
        differences.check(path, name, epoch(ours.as_ref()), theirs);
    }
}

fn check_object(differences: &mut Differences, path: &str, ours: &Object, theirs: &Value) {
    let field = |name: &str| theirs[name].as_str().unwrap_or_default();
    let what = |name: &str| format!("object {}: {name}", ours.id);
    let number = |name: &str| field(name).parse::<u64>().unwrap_or(0);
    let kind = match field("data_type") {
        "Def.FILE" => DataType::Deffile,
        "FS" => DataType::Partition,
        "Signature" => DataType::Signature,
        "JSON.Generic" => DataType::GenericJson,
        "Cryptographic Message" => DataType::CryptoMessage,
        other => panic!("{path}: a data type the test does not know: {other}"),
    };
    differences.check(path, &what("data_type"), ours.data_type(), kind);
    differences.check(path, &what("id"), u64::from(ours.id), number("id"));
    differences.check(
        path,
        &what("group_id"),
        u64::from(ours.group_id),
        number("group_id"),
    );
    let (linked, group) = match field("linked_id").strip_suffix(" (G)") {
        Some(group) => (0, group.parse().expect("a number")),
        None => (number("linked_id"), 0),
    };
    differences.check(path, &what("linked_id"), u64::from(ours.linked_id), linked);
    differences.check(
        path,
        &what("linked_group_id"),
        u64::from(ours.linked_group_id),
        group,
    );
    differences.check(path, &what("offset"), ours.offset, number("offset"));
    differences.check(path, &what("size_bytes"), ours.size_bytes, number("size"));
    differences.check(path, &what("name"), ours.name.as_str(), field("name"));
    let times = [
        ("created_at", &ours.create_time),
        ("modified_at", &ours.update_time),
    ];
    for (key, time) in times {
        differences.check(
            path,
            &what(key),
            epoch(time.as_ref()),
            apptainer_time(field(key)),
        );
    }
    let file_system = field("filesystem_type").to_lowercase().replace(' ', "-");
    differences.check(
        path,
        &what("file_system"),
        ours.file_system.clone(),
        file_system,
    );
    let partition_type = match field("partition_type") {
        "*System" => "primary-system",
        "Overlay" => "overlay",
        other => other,
    };
    differences.check(
        path,
        &what("partition_type"),
        ours.partition_type.as_str(),
        partition_type,
    );
    differences.check(
        path,
        &what("arch"),
        ours.arch.as_str(),
        field("architecture"),
    );
    let hash = field("hash_type").to_lowercase().replace('-', "");
    differences.check(path, &what("hash_type"), ours.hash_type.clone(), hash);
    differences.check(
        path,
        &what("fingerprint"),
        ours.fingerprint.as_str(),
        field("entity"),
    );
    let lower = |name: &str| field(name).to_lowercase();
    differences.check(
        path,
        &what("message_format"),
        ours.message_format.clone(),
        lower("format_type"),
    );
    differences.check(
        path,
        &what("message_type"),
        ours.message_type.clone(),
        lower("message_type"),
    );
}

/// `2026-11-24 03:45:20 +0000 UTC` as seconds since the epoch.
fn apptainer_time(text: &str) -> i64 {
    let text = text.trim_end_matches(" UTC");
    Timestamp::strptime("%Y-%m-%d %H:%M:%S %z", text)
        .unwrap_or_else(|error| panic!("{text}: {error}"))
        .as_second()
}
