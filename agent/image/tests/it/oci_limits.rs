//! An OCI-SIF with as much as is read of one is read to its end, and one with a bit more is not.

use std::path::Path;

use sifter_image::Verdict;
use sifter_image::limits::{
    ARCH_MAX, METADATA_OBJECT_MAX, OCI_DEPTH_MAX, OCI_JSON_MAX, OCI_JSON_MIN, OCI_LIST_MAX,
    OCI_MANIFESTS_MAX,
};
use sifter_image::record::{Image, Status};

use crate::corpus::verdict;
use crate::made::{Object, Sif, digest};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The blobs of an OCI-SIF.
#[derive(Default)]
struct Blobs(Vec<String>);

impl Blobs {
    /// Adds a blob, filled up with blanks to `length`; returns its digest.
    fn add(&mut self, mut json: String, length: usize) -> String {
        json.push_str(&" ".repeat(length.saturating_sub(json.len())));
        let digest = digest(json.as_bytes());
        self.0.push(json);
        digest
    }

    /// An image of this architecture, made in this year.
    fn manifest(&mut self, arch: &str, year: u32, length: usize) -> String {
        let config = format!(
            r#"{{"architecture":"{arch}","created":"{year}-01-01T00:00:00Z","config":{{"Labels":{{"k":"v"}}}}}}"#
        );
        let config = self.add(config, 0);
        let manifest = format!(
            r#"{{"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}"}}}}"#
        );
        self.add(manifest, length)
    }

    /// The image with a root index of these entries, by their digests.
    fn image(mut self, kind: &str, entries: &[String], length: usize) -> Image {
        self.add(index(kind, entries), length);
        let root = self.0.pop().expect("it was added");
        let mut sif = Sif::new();
        (sif.uuid, sif.created, sif.modified, sif.launch) = ([0; 16], 0, 0, b"");
        let sif = self
            .0
            .into_iter()
            .fold(sif, |sif, blob| sif.with(Object::blob(0x400B, blob)));
        let bytes = sif.with(Object::blob(0x400A, root)).bytes();
        match verdict(&bytes, Path::new("/images/made.sif")) {
            Verdict::Image(image) => *image,
            Verdict::NotImage(not) => panic!("{not:?}"),
        }
    }
}

fn index(kind: &str, entries: &[String]) -> String {
    let entries: Vec<_> = entries
        .iter()
        .map(|digest| format!(r#"{{"mediaType":"{kind}","digest":"{digest}"}}"#))
        .collect();
    format!(r#"{{"manifests":[{}]}}"#, entries.join(","))
}

#[test]
fn the_largest_object() {
    for (length, message) in [
        (METADATA_OBJECT_MAX, ""),
        (
            METADATA_OBJECT_MAX + 1,
            "has 4194305 bytes, more than the limit of 4194304",
        ),
    ] {
        let mut blobs = Blobs::default();
        let manifest = blobs.manifest("arm64", 2024, 0);
        let image = blobs.image(MANIFEST, &[manifest], length);
        let said = image.status_message;
        assert_eq!(image.status == Status::Ready, message.is_empty(), "{said}");
        assert!(said.ends_with(message), "{said}");
        assert_eq!(image.labels.len(), usize::from(message.is_empty()));
    }
}

/// The configuration counts as the least that an object counts as.
#[test]
fn the_most_json() {
    let rest = OCI_JSON_MAX - METADATA_OBJECT_MAX as u64 - OCI_JSON_MIN;
    let rest = usize::try_from(rest).expect("small");
    for (length, message) in [
        (rest, ""),
        (
            rest + 1,
            " is not read: an image may have 8388608 bytes of JSON",
        ),
    ] {
        let mut blobs = Blobs::default();
        let manifest = blobs.manifest("arm64", 2024, length);
        let image = blobs.image(MANIFEST, &[manifest], METADATA_OBJECT_MAX);
        let said = image.status_message;
        assert_eq!(said.is_empty(), message.is_empty(), "{said}");
        assert!(said.ends_with(message), "{said}");
        assert_eq!(image.labels.len(), usize::from(message.is_empty()));
    }
}

/// What counts is whether the last of the entries is seen.
#[test]
fn the_longest_lists() {
    for (others, is_real, is_seen) in [
        (OCI_LIST_MAX - 1, false, true),
        (OCI_LIST_MAX, false, false),
        (OCI_MANIFESTS_MAX - 1, true, true),
        (OCI_MANIFESTS_MAX, true, false),
    ] {
        let mut blobs = Blobs::default();
        let other = match is_real {
            true => blobs.manifest("arm64", 2023, 0),
            false => digest(b"of a platform that was not kept"),
        };
        let mut entries = vec![other; others];
        entries.push(blobs.manifest("arm64", 2024, 0));
        let image = blobs.image(MANIFEST, &entries, 0);
        assert_eq!(image.status_message, "", "{others}");
        let made = image.create_time.map(|time| time.to_string());
        let is_found = made.is_some_and(|time| time.starts_with("2024"));
        assert_eq!(is_found, is_seen, "{others}");
    }
}

#[test]
fn the_deepest_index() {
    for (depth, is_seen) in [(OCI_DEPTH_MAX, true), (OCI_DEPTH_MAX + 1, false)] {
        let mut blobs = Blobs::default();
        let mut entry = blobs.manifest("arm64", 2024, 0);
        let mut kind = MANIFEST;
        for _ in 1..depth {
            entry = blobs.add(index(kind, &[entry]), 0);
            kind = INDEX;
        }
        let image = blobs.image(kind, &[entry], 0);
        assert_eq!(image.status_message, "", "{depth}");
        assert_eq!(!image.labels.is_empty(), is_seen, "{depth}");
    }
}

#[test]
fn the_longest_architecture() {
    for (length, is_listed) in [(ARCH_MAX, true), (ARCH_MAX + 1, false)] {
        let arch = "a".repeat(length);
        let mut blobs = Blobs::default();
        let manifest = blobs.manifest(&arch, 2024, 0);
        let image = blobs.image(MANIFEST, &[manifest], 0);
        assert_eq!(image.arch == arch, is_listed, "{length}");
    }
}
