//! Made images: identity, times, cost, and the shapes that the corpus has few of.

use std::io;
use std::path::Path;

use sifter_image::record::{Format, Image, Status, TimeSource};
use sifter_image::{Options, ReadTree, Verdict, probe_directory};

use crate::corpus::{subject, verdict};
use crate::made::{Object, Sif, digest, hollow_squashfs, native};

pub(crate) fn image(bytes: &[u8]) -> Image {
    match verdict(&bytes, Path::new("/images/made.sif")) {
        Verdict::Image(image) => *image,
        Verdict::NotImage(not) => panic!("{not:?}"),
    }
}

/// `google.protobuf.Timestamp` begins with the year 1, which is also Go's way to say that there is no time.
#[test]
fn times_that_cannot_be_are_none() {
    for (seconds, is_time) in [
        (0, false),
        (-62_135_596_801, false),
        (-62_135_596_800, false),
        (-62_135_596_799, true),
        (-1, true),
        (1, true),
        (i64::MIN, false),
        (i64::MAX, false),
    ] {
        let mut sif = native();
        (sif.created, sif.modified) = (seconds, seconds);
        let image = image(&sif.bytes());
        assert_eq!(image.create_time.is_some(), is_time, "{seconds}");
        let source = if is_time {
            TimeSource::Header
        } else {
            TimeSource::Mtime
        };
        assert_eq!(image.update_time_source, source, "{seconds}");
        assert_eq!(image.objects[0].create_time.is_some(), is_time, "{seconds}");
    }
}

#[test]
fn labels_definition_times_and_platform_come_from_the_header() {
    let image = image(&native().bytes());
    assert_eq!((image.format, image.status), (Format::Sif, Status::Ready));
    assert_eq!(image.labels.get("k"), Some("v"));
    assert_eq!(
        image.definition.as_deref(),
        Some("bootstrap: docker\nfrom: alpine:3.19\n")
    );
    assert_eq!(image.arch, "amd64");
    assert_eq!(image.compressor, Some("gzip"));
    assert_eq!(
        image.update_time.map(|time| time.as_second()),
        Some(1_700_000_001)
    );
    assert_eq!(image.update_time_source, TimeSource::Header);
    assert_eq!(
        (
            image.reference.repository.as_str(),
            image.reference.tag.as_str()
        ),
        ("alpine", "3.19")
    );
}

#[test]
fn the_identity_is_in_the_content_alone() {
    let id = |bytes: &[u8]| image(bytes).image_id.expect("an identity");
    let first = native();
    let same = id(&first.bytes());
    assert_eq!(same.to_string().len(), 71);
    let Verdict::Image(moved) = verdict(&first.bytes(), Path::new("/elsewhere/y.sif")) else {
        panic!("not an image")
    };
    assert_eq!(moved.image_id, Some(same));

    let mut other = first.clone();
    other.uuid[0] ^= 1;
    assert_ne!(id(&other.bytes()), same);
    let mut other = first.clone();
    other.modified += 1;
    assert_ne!(id(&other.bytes()), same);
    assert_ne!(
        id(&first.clone().with(Object::new(0x4007, "", "x")).bytes()),
        same
    );

    // Without a UUID, and with times of zero, the metadata objects tell builds apart.
    let mut nil = first.clone();
    (nil.uuid, nil.created, nil.modified) = ([0; 16], 0, 0);
    let mut renamed = nil.clone();
    if let Some(object) = &mut renamed.objects[0] {
        object.data = b"bootstrap: docker\nfrom: alpine:3.18\n".to_vec();
    }
    assert_eq!(nil.bytes()[..32_176], renamed.bytes()[..32_176]);
    assert_ne!(id(&nil.bytes()), id(&renamed.bytes()));
    assert_eq!(image(&nil.bytes()).update_time_source, TimeSource::Mtime);
}

/// The identity is kept in catalogues: it must not change from release to release.
#[test]
fn the_identity_is_as_documented() {
    let bytes = native().bytes();
    let mut identified = bytes[..128].to_vec();
    identified.extend(&bytes[4096..4096 + 3 * 585]);
    assert_eq!(
        image(&bytes).image_id.map(|id| id.to_string()),
        Some(digest(&identified))
    );
    let mut nil = native();
    nil.uuid = [0; 16];
    let bytes = nil.bytes();
    let mut identified = bytes[..128].to_vec();
    identified.extend(&bytes[4096..4096 + 3 * 585]);
    for object in nil.objects.iter().flatten().take(2) {
        identified.extend(&object.data);
    }
    assert_eq!(
        image(&bytes).image_id.map(|id| id.to_string()),
        Some(digest(&identified))
    );
    // Also the configuration, which else is not read beside labels.
    let bytes = nil
        .clone()
        .with(Object::new(0x4006, "oci-config.json", "{}"))
        .bytes();
    let mut identified = bytes[..128].to_vec();
    identified.extend(&bytes[4096..4096 + 4 * 585]);
    for object in nil.objects.iter().flatten().take(2) {
        identified.extend(&object.data);
    }
    identified.extend(b"{}");
    assert_eq!(
        image(&bytes).image_id.map(|id| id.to_string()),
        Some(digest(&identified))
    );
}

/// The objects that tell builds apart go by their IDs, descriptors by their slots.
#[test]
fn the_identity_goes_by_object_ids() {
    let mut nil = native();
    nil.uuid = [0; 16];
    let mut bytes = nil.bytes();
    for (slot, id) in [(0, 2u32), (1, 1)] {
        let at = 4096 + slot * 585 + 5;
        bytes[at..at + 4].copy_from_slice(&id.to_le_bytes());
    }
    let mut identified = bytes[..128].to_vec();
    identified.extend(&bytes[4096..4096 + 3 * 585]);
    for object in nil.objects[..2].iter().rev().flatten() {
        identified.extend(&object.data);
    }
    assert_eq!(
        image(&bytes).image_id.map(|id| id.to_string()),
        Some(digest(&identified))
    );
}

#[test]
fn objects_are_found_behind_holes_and_in_late_slots() {
    let mut sif = Sif::new();
    for _ in 0..20 {
        sif = sif.with_hole();
    }
    sif.objects.extend(native().objects);
    let image = image(&sif.bytes());
    assert_eq!(
        image
            .objects
            .iter()
            .map(|object| object.slot)
            .collect::<Vec<_>>(),
        [20, 21, 22]
    );
    assert_eq!(image.labels.len(), 2);
    assert_eq!(image.status, Status::Ready);
}

/// One wrong count in the header must not hide an object: with "43 of 48 free" only five of the
/// seven objects in the first read would be looked for, and none beyond.
#[test]
fn a_wrong_count_hides_no_object() {
    let sif = (0..9).fold(native(), |sif, n| {
        sif.with(Object::new(0x4007, &n.to_string(), "x"))
    });
    for free in [-1i64, 0, 41, 43, 47, 48, 1 << 40] {
        let mut bytes = sif.bytes();
        bytes[80..88].copy_from_slice(&free.to_le_bytes());
        let image = image(&bytes);
        // A header that counts none makes it an empty one to the tools.
        let status = if free == 48 {
            Status::Failure
        } else {
            Status::Ready
        };
        assert_eq!((image.objects.len(), image.status), (12, status), "{free}");
    }
}

#[test]
fn empty_and_data_only_containers_are_images() {
    assert_eq!(image(&Sif::new().bytes()).status, Status::Ready);
    let data = Sif::new().with(Object::new(0x4007, "data", "x"));
    assert_eq!(image(&data.bytes()).status, Status::Ready);
}

#[test]
fn versions_and_architectures() {
    for (version, status) in [
        (b"00", Status::Ready),
        (b"01", Status::Ready),
        (b"02", Status::Failure),
    ] {
        let mut sif = native();
        sif.version = version;
        assert_eq!(image(&sif.bytes()).status, status);
    }
    for (code, name) in [
        (b"01", "386"),
        (b"13", "loong64"),
        (b"00", "unknown"),
        (b"77", "unknown"),
    ] {
        let mut sif = native();
        sif.arch = code;
        assert_eq!(image(&sif.bytes()).arch, name);
    }
}

/// An OCI-SIF with these manifests: annotation, platform, creation.
fn oci(manifests: &[(&str, &str, &str)]) -> Vec<u8> {
    let mut sif = Sif::new();
    (sif.uuid, sif.created, sif.modified, sif.launch) = ([0; 16], 0, 0, b"");
    sif.slots = sif.slots.max(3 * manifests.len() + 1);
    let mut entries = Vec::new();
    for (name, arch, created) in manifests {
        let layer = hollow_squashfs(4096);
        let config = format!(
            r#"{{"architecture":"{arch}","os":"linux","created":"{created}","config":{{"Labels":{{"of":"{name}"}}}}}}"#
        );
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{{"mediaType":"application/vnd.sylabs.image.layer.v1.squashfs","digest":"{}","size":4096}}]}}"#,
            digest(config.as_bytes()),
            config.len(),
            digest(&layer)
        );
        entries.push(format!(
            r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":{},"digest":"{}","annotations":{{"org.opencontainers.image.ref.name":"{name}"}}}}"#,
            manifest.len(), digest(manifest.as_bytes())
        ));
        sif = sif
            .with(Object::blob(0x400B, layer))
            .with(Object::blob(0x400B, config))
            .with(Object::blob(0x400B, manifest));
    }
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
        entries.join(",")
    );
    sif.with(Object::blob(0x400A, index)).bytes()
}

#[test]
fn an_oci_sif_is_read_through_its_chain() {
    let one = image(&oci(&[(
        "quay.io/lab/tool:1",
        "arm64",
        "2024-01-02T03:04:05Z",
    )]));
    assert_eq!(
        (one.format, one.status_message.as_str()),
        (Format::OciSif, "")
    );
    assert_eq!(one.arch, "arm64");
    assert_eq!(one.labels.get("of"), Some("quay.io/lab/tool:1"));
    assert_eq!(
        one.update_time.map(|time| time.to_string()).as_deref(),
        Some("2024-01-02T03:04:05Z")
    );
    assert_eq!(one.update_time_source, TimeSource::OciConfig);
    assert_eq!(
        (
            one.reference.repository.as_str(),
            one.reference.tag.as_str()
        ),
        ("quay.io/lab/tool", "1")
    );
    assert_eq!(
        (one.file_system, one.compressor),
        (Some("squashfs"), Some("gzip"))
    );

    let signed = image(&oci(&[
        ("_cosign-signature", "", ""),
        ("quay.io/lab/tool:1", "arm64", "2024-01-02T03:04:05Z"),
    ]));
    assert_eq!(
        (signed.image_id, signed.arch.as_str()),
        (one.image_id, "arm64")
    );

    let two = image(&oci(&[
        ("a:1", "arm64", "2024-01-02T03:04:05Z"),
        ("a:1", "amd64", "2025-01-02T03:04:05Z"),
    ]));
    assert_eq!(two.arch, "arm64,amd64");
    assert_eq!(
        two.update_time.map(|time| time.to_string()).as_deref(),
        Some("2025-01-02T03:04:05Z")
    );

    let none = image(&oci(&[]));
    assert_eq!(
        (none.status, none.arch.as_str()),
        (Status::Ready, "unknown")
    );
}

/// Every listing has these texts, whole, of every image.
#[test]
fn what_an_oci_sif_says_of_itself_is_bounded() {
    let long = "a".repeat(1 << 20);
    let named = image(&oci(&[("a:1", &long, "2024-01-02T03:04:05Z")]));
    assert_eq!(
        (named.status, named.arch.as_str()),
        (Status::Ready, "unknown")
    );

    let names: Vec<String> = (0..100).map(|number| format!("arch{number}")).collect();
    let many: Vec<_> = names.iter().map(|name| ("a:1", &**name, "")).collect();
    let many = image(&oci(&many));
    assert_eq!(many.arch.split(',').count(), 32);

    let manifest = format!(
        r#"{{"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:{long}"}}}}"#
    );
    let index = format!(
        r#"{{"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}"}}]}}"#,
        digest(manifest.as_bytes())
    );
    let missing = image(
        &Sif::new()
            .with(Object::blob(0x400B, manifest))
            .with(Object::blob(0x400A, index))
            .bytes(),
    );
    assert_eq!(missing.status, Status::Failure);
    let message = missing.status_message;
    assert!(
        message.starts_with("corrupt: OCI configuration sha256:aaa"),
        "{message}"
    );
    assert!(
        message.ends_with("a…") && message.len() < 1100,
        "{}",
        message.len()
    );
}

#[test]
fn more_signatures_than_anybody_makes_are_not_listed() {
    let mut sif = Sif::new();
    sif.slots = 100;
    let signed = (0..100).fold(sif, |sif, _| sif.with(Object::new(0x4005, "", "-")));
    let signed = image(&signed.bytes());
    assert_eq!((signed.signatures.len(), signed.objects.len()), (64, 100));
}

#[test]
fn damage_in_an_oci_chain_is_said() {
    let bytes = oci(&[("a:1", "arm64", "2024-01-02T03:04:05Z")]);
    let at = |needle: &[u8]| {
        bytes
            .windows(needle.len())
            .position(|window| window == needle)
            .expect("there")
    };
    for (needle, expected) in [
        (&b"\"linux\""[..], "corrupt: OCI configuration at byte"),
        (b"\"layers\"", "corrupt: OCI manifest at byte"),
        (b"\"manifests\"", "corrupt: OCI root index at byte"),
    ] {
        let mut damaged = bytes.clone();
        damaged[at(needle) + 2] ^= 1;
        let image = image(&damaged);
        assert_eq!(image.status, Status::Failure);
        assert!(
            image.status_message.starts_with(expected),
            "{}",
            image.status_message
        );
    }
}

/// A sandbox in memory.
struct Tree(Vec<(&'static str, &'static str)>);

impl ReadTree for Tree {
    fn read(&self, path: &str, limit: usize) -> io::Result<Option<Vec<u8>>> {
        let found = self.0.iter().find(|(name, _)| *name == path);
        Ok(found.map(|(_, text)| text.as_bytes()[..text.len().min(limit)].to_vec()))
    }

    fn list(&self, path: &str, limit: usize) -> io::Result<Option<Vec<String>>> {
        let prefix = format!("{path}/");
        let mut names: Vec<String> = self
            .0
            .iter()
            .filter_map(|(name, _)| {
                name.strip_prefix(&prefix)?
                    .split('/')
                    .next()
                    .map(str::to_owned)
            })
            .collect();
        names.dedup();
        names.truncate(limit);
        Ok(if names.is_empty() { None } else { Some(names) })
    }
}

#[test]
fn sandboxes_of_every_generation() {
    let modern = vec![
        (
            ".singularity.d/labels.json",
            r#"{"org.label-schema.usage.singularity.deffile.bootstrap":"localimage"}"#,
        ),
        (
            ".singularity.d/Singularity",
            "Bootstrap: localimage\nFrom: a.sif\n%post\n true\n",
        ),
        (
            ".singularity.d/bootstrap_history/Apptainer10",
            "bootstrap: localimage\nfrom: c\n",
        ),
        (
            ".singularity.d/bootstrap_history/Apptainer2",
            "bootstrap: docker\nfrom: b:2\n",
        ),
        (
            ".singularity.d/bootstrap_history/Singularity0",
            "Bootstrap: docker\nFrom: a:1\n",
        ),
        (
            ".singularity.d/bootstrap_history/Apptainer3",
            "bootstrap: scratch\n",
        ),
        (".singularity.d/bootstrap_history/notes", "From: x\n"),
    ];
    let ancient = vec![
        (".run", ""),
        (".exec", ""),
        (".shell", ""),
        ("singularity", "#!/bin/sh\nexec ls\n"),
    ];
    let probe = |files: Vec<(&'static str, &'static str)>| {
        let verdict = probe_directory(
            &Tree(files),
            &subject(Path::new("/images/box"), 60),
            &Options::default(),
        );
        match verdict.expect("memory does not fail") {
            Verdict::Image(image) => Some(*image),
            Verdict::NotImage(_) => None,
        }
    };
    let image = probe(modern.clone()).expect("a sandbox");
    assert_eq!(
        (image.format, image.status),
        (Format::Sandbox, Status::Ready)
    );
    assert_eq!(image.bootstrap_history, ["a:1", "b:2", "c"]);
    assert_eq!(image.update_time_source, TimeSource::Mtime);
    let mut other = modern;
    other[1].1 = "Bootstrap: localimage\nFrom: b.sif\n";
    assert_ne!(
        probe(other).and_then(|other| other.image_id),
        image.image_id
    );

    let old = probe(ancient.clone()).expect("a sandbox of 2.2");
    assert!(old.image_id.is_some());
    let mut older = ancient.clone();
    older[3].0 = "environment";
    assert!(probe(older.clone()).is_some());
    older[3].0 = "etc/passwd";
    assert!(probe(older).is_none());
    assert!(probe(vec![("bin/sh", ""), ("environment", "")]).is_none());
    let bare =
        probe(vec![(".singularity.d/actions/run", "")]).expect("a sandbox that says nothing");
    assert_eq!(bare.image_id, None, "nothing to identify it by");
}
