//! A larger corpus of real images, where there is one beside the work tree (`SIFTER_SHARED`, or
//! `../shared`): every SIF in it is listed as its `truth.json` says.

use std::collections::BTreeMap;

use serde_json::Value;
use sifter_proto::v1::Encryption;
use sifter_proto::v1::Image;
use sifter_tests::images;
use sifter_tests::leave_out;

use crate::differences::Differences;
use crate::differences::epoch;
use crate::differences::listing;

#[test]
fn the_larger_corpus_agrees() {
    let Some(corpus) = images::corpus() else {
        return leave_out(
            "the_larger_corpus_agrees",
            "no corpus beside the work tree (SIFTER_SHARED)",
        );
    };
    let listing = listing(&corpus);
    let mut differences = Differences::default();
    let mut compared = 0;
    for entry in images::corpus_truth(&corpus) {
        let path = entry["path"].as_str().expect("path");
        if !matches!(entry["format"].as_str(), Some("sif" | "oci-sif")) {
            continue;
        }
        let Some(image) = listing.get(path) else {
            differences.0.push(format!("{path}: is not listed"));
            continue;
        };
        compared += 1;
        check_corpus_entry(&mut differences, path, image, &entry);
    }
    assert!(compared > 0, "no SIF was compared");
    differences.assert_none();
}

fn check_corpus_entry(differences: &mut Differences, path: &str, image: &Image, entry: &Value) {
    let field = |name: &str| entry[name].as_str().unwrap_or_default();
    differences.check(
        path,
        "format_version",
        image.format_version.as_str(),
        field("sif_version"),
    );
    let uuid = field("uuid");
    let nil = uuid.chars().all(|digit| matches!(digit, '0' | '-'));
    differences.check(
        path,
        "uuid",
        image.uuid.as_str(),
        if nil { "" } else { uuid },
    );
    let created = stated(&entry["created_epoch"]);
    let modified = stated(&entry["modified_epoch"]);
    if created != 0 {
        differences.check(
            path,
            "create_time",
            epoch(image.create_time.as_ref()),
            created,
        );
    }
    if modified != 0 {
        differences.check(
            path,
            "update_time",
            epoch(image.update_time.as_ref()),
            modified,
        );
    }
    if field("format") == "sif" {
        differences.check(path, "arch", image.arch.as_str(), field("arch"));
    }
    differences.check(
        path,
        "definition",
        image.definition.as_str(),
        field("deffile"),
    );
    let labels: BTreeMap<String, String> = entry["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect();
    differences.check(
        path,
        "labels",
        image.labels.clone().into_iter().collect(),
        labels,
    );
    check_corpus_objects(differences, path, image, &entry["objects"]);
    let signatures = entry["signature_count"].as_u64().unwrap_or(0);
    differences.check(
        path,
        "signatures",
        image.signatures.len() as u64,
        signatures,
    );
    let encrypted = image.encryption() != Encryption::None;
    differences.check(
        path,
        "encrypted",
        Some(encrypted),
        entry["encrypted"].as_bool(),
    );
    check_corpus_origin(differences, path, image, &entry["origin"]);
}

/// `origin` is repository and tag of an image that was pulled, and the base of one that was built.
fn check_corpus_origin(differences: &mut Differences, path: &str, image: &Image, origin: &Value) {
    let Some(repository) = origin["repository"].as_str() else {
        return;
    };
    let familiar = ["docker.io/", "index.docker.io/"]
        .into_iter()
        .find_map(|host| repository.strip_prefix(host))
        .unwrap_or(repository);
    let familiar = familiar
        .strip_prefix("library/")
        .filter(|_| origin["bootstrap"] != "library")
        .unwrap_or(familiar);
    let tag = origin["digest"]
        .as_str()
        .or(origin["tag"].as_str())
        .unwrap_or("latest");
    if image.base.is_empty() {
        differences.check(path, "repository", image.repository.as_str(), familiar);
        differences.check(path, "tag", image.tag.as_str(), tag);
    } else {
        let separator = if tag.starts_with("sha256:") { '@' } else { ':' };
        differences.check(
            path,
            "base",
            image.base.clone(),
            format!("{familiar}{separator}{tag}"),
        );
    }
}

fn check_corpus_objects(differences: &mut Differences, path: &str, image: &Image, objects: &Value) {
    let objects = objects.as_array().map_or(&[][..], Vec::as_slice);
    differences.check(path, "objects", image.objects.len(), objects.len());
    for (ours, theirs) in image.objects.iter().zip(objects) {
        let what = |name: &str| format!("object {}: {name}", ours.id);
        let number = |name: &str| theirs[name].as_i64().unwrap_or(0);
        let text = |name: &str| theirs[name].as_str().unwrap_or_default();
        differences.check(path, &what("id"), i64::from(ours.id), number("id"));
        differences.check(path, &what("slot"), i64::from(ours.slot), number("slot"));
        differences.check(
            path,
            &what("group_id"),
            i64::from(ours.group_id),
            number("group"),
        );
        let link = if theirs["link_is_group"] == true {
            ours.linked_group_id
        } else {
            ours.linked_id
        };
        differences.check(path, &what("link"), i64::from(link), number("link"));
        differences.check(
            path,
            &what("offset"),
            ours.offset.cast_signed(),
            number("offset"),
        );
        differences.check(
            path,
            &what("size"),
            ours.size_bytes.cast_signed(),
            number("size"),
        );
        differences.check(
            path,
            &what("create_time"),
            epoch(ours.create_time.as_ref()),
            stated(&theirs["created_epoch"]),
        );
        differences.check(
            path,
            &what("update_time"),
            epoch(ours.update_time.as_ref()),
            stated(&theirs["modified_epoch"]),
        );
        differences.check(path, &what("name"), ours.name.as_str(), text("name"));
        let kind = ours
            .data_type()
            .as_str_name()
            .trim_start_matches("DATA_TYPE_");
        let kind = kind.replace('_', "").to_lowercase();
        differences.check(path, &what("data_type"), kind, text("type").to_lowercase());
        differences.check(
            path,
            &what("file_system"),
            ours.file_system.as_str(),
            text("fstype"),
        );
        let role = match text("parttype") {
            "primsys" => "primary-system",
            other => other,
        };
        differences.check(
            path,
            &what("partition_type"),
            ours.partition_type.as_str(),
            role,
        );
        differences.check(path, &what("arch"), ours.arch.as_str(), text("arch"));
        differences.check(path, &what("digest"), ours.digest.as_str(), text("digest"));
        differences.check(
            path,
            &what("hash_type"),
            ours.hash_type.as_str(),
            text("hash"),
        );
        differences.check(
            path,
            &what("fingerprint"),
            ours.fingerprint.as_str(),
            text("entity"),
        );
    }
}

/// A time as the file states it: zero, and the first second of the year 1 (a Go program's time that
/// was never set), state none.
fn stated(epoch: &Value) -> i64 {
    const UNSET_IN_GO: i64 = -62_135_596_800;
    epoch
        .as_i64()
        .filter(|&time| time != UNSET_IN_GO)
        .unwrap_or(0)
}
