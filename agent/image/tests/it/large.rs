//! Metadata larger than any real one: what is left out is said, and nothing is concluded from the rest.

use std::path::Path;

use sifter_image::limits::{
    DEFINITION_MAX, LABELS_BYTES_MAX, LABELS_FILE_MAX, LABELS_MAX, METADATA_OBJECT_MAX,
};
use sifter_image::record::{Image, ReferenceSource, Status};
use sifter_image::{Options, ReadTree, Verdict, probe_directory};

use crate::corpus::{subject, verdict};
use crate::made::{Object, Sif, hollow_squashfs};

const PATH: &str = "/images/made.sif";

fn image(bytes: &[u8]) -> Image {
    match verdict(&bytes, Path::new(PATH)) {
        Verdict::Image(image) => *image,
        Verdict::NotImage(not) => panic!("{not:?}"),
    }
}

fn sif(objects: Vec<Object>) -> Vec<u8> {
    let mut sif = objects.into_iter().fold(Sif::new(), Sif::with);
    sif.arch = b"02";
    sif.with(Object::partition(1, 2, b"02", hollow_squashfs(4192)))
        .bytes()
}

/// A definition of this length whose last stage, at its end, is not the first.
fn stages(length: usize) -> String {
    let (first, last) = (
        "Bootstrap: docker\nFrom: golang:1.22\n%post\n#",
        "\nBootstrap: docker\nFrom: debian:12\n%post\n  true\n",
    );
    let between = "x".repeat(length - first.len() - last.len());
    format!("{first}{between}{last}")
}

#[test]
fn long_definitions() {
    let inspect = |definition: &str| {
        let labels = r#"{"k":"v","org.opencontainers.image.title":"base","org.opencontainers.image.version":"1.0"}"#;
        let definition = definition.replace('\n', "\\n");
        format!(r#"{{"data":{{"attributes":{{"labels":{labels},"deffile":"{definition}"}}}}}}"#)
    };
    let pulled = format!(
        "bootstrap: docker\nfrom: alpine:3.19\n{}",
        " ".repeat(300_000)
    );
    for (what, definition) in [
        ("at the limit", stages(DEFINITION_MAX)),
        ("a byte more", stages(DEFINITION_MAX + 1)),
        ("as a pull begins", pulled),
        ("half of what is read", stages(METADATA_OBJECT_MAX / 2)),
        ("more than what is read", stages(METADATA_OBJECT_MAX + 1)),
    ] {
        let is_whole = definition.len() <= DEFINITION_MAX;
        let object = Object::new(0x4001, "", definition.as_str());
        let mut kinds = vec![
            ("object", sif(vec![object.clone()])),
            (
                "object beside labels",
                sif(vec![
                    object,
                    Object::new(0x4006, "inspect-metadata.json", inspect("")),
                ]),
            ),
        ];
        if definition.len() < METADATA_OBJECT_MAX {
            let inspect = Object::new(0x4006, "inspect-metadata.json", inspect(&definition));
            kinds.push(("in JSON", sif(vec![inspect])));
        }
        for (kind, bytes) in kinds {
            let image = image(&bytes);
            let what = format!("{what}, {kind}");
            assert_eq!(image.status, Status::Ready, "{what}");
            let kept = image.definition.as_deref().expect("a definition");
            if is_whole {
                assert_eq!(kept, definition, "{what}");
                assert_eq!(image.base, "debian:12", "{what}");
                assert_eq!(image.status_message, "", "{what}");
            } else {
                assert!(kept.starts_with(&definition[..DEFINITION_MAX]), "{what}");
                assert_eq!(&kept[DEFINITION_MAX..], "\n…\n", "{what}");
                assert_eq!(image.base, "", "{what}");
                assert_eq!(
                    image.status_message,
                    "the definition is longer than the limit of 262144 bytes: it is cut there, and repository, tag \
                     and base are not taken from it",
                    "{what}"
                );
            }
            assert_eq!(image.reference.source, ReferenceSource::FileStem, "{what}");
            assert_eq!(image.reference.repository, "made", "{what}");
        }
    }
}

#[test]
fn labels_say_what_a_cut_definition_was_built_on() {
    const PREFIX: &str = "org.label-schema.usage.singularity.deffile";
    let labels = format!(
        r#"{{"data":{{"attributes":{{"labels":{{"{PREFIX}.bootstrap":"docker","{PREFIX}.from":"debian:12"}}}}}}}}"#
    );
    let image = image(&sif(vec![
        Object::new(0x4001, "", stages(DEFINITION_MAX + 1)),
        Object::new(0x4006, "inspect-metadata.json", labels),
    ]));
    assert_eq!(image.base, "debian:12");
    assert_eq!(image.reference.source, ReferenceSource::FileStem);
}

#[test]
fn objects_that_are_not_read_are_named() {
    for (kind, name, shown) in [
        (0x4006, "inspect-metadata.json", "generic JSON"),
        (0x4003, "", "labels"),
    ] {
        // As much as is read, with text of which two differ in the identity.
        let id_of = |last: &str| {
            let text = r#"{"labels":{"k":"v"}}"#.to_owned();
            let blanks = " ".repeat(METADATA_OBJECT_MAX - text.len() - 1);
            let text = text + &blanks + last;
            assert_eq!(text.len(), METADATA_OBJECT_MAX);
            let object = Object::new(kind, name, text);
            let mut sif = Sif::new().with(object);
            sif.uuid = [0; 16];
            let image = image(&sif.bytes());
            assert_eq!(image.status_message, "");
            assert_eq!(image.labels.get("k"), Some("v"));
            image.image_id
        };
        assert_ne!(id_of(" "), id_of("\n"));
        let text = format!("{{\"k\":\"{}\"}}", "v".repeat(METADATA_OBJECT_MAX));
        let size = text.len();
        let image = image(&sif(vec![Object::new(kind, name, text)]));
        assert_eq!(image.status, Status::Ready);
        assert_eq!(
            image.status_message,
            format!(
                "object 1 ({shown}) at byte 32176 has {size} bytes, more than the limit of 4194304: not read"
            )
        );
        assert!(image.labels.is_empty());
    }
}

#[test]
fn labels_that_are_left_out_are_told_of() {
    let of = |count: usize, size: usize| {
        let label = |n| format!("\"{n:04}\":\"{}\"", "v".repeat(size - 4));
        let labels: Vec<_> = (0..count).map(label).collect();
        format!("{{{}}}", labels.join(","))
    };
    let room = LABELS_BYTES_MAX / 64;
    for (what, labels, kept, is_whole) in [
        ("as many as are kept", of(LABELS_MAX, 5), LABELS_MAX, true),
        ("one more", of(LABELS_MAX + 1, 5), LABELS_MAX, false),
        ("as long as are kept", of(room, 64), room, true),
        ("a byte more", of(room, 65), LABELS_BYTES_MAX / 65, false),
        (
            "one that is too long",
            of(1, LABELS_BYTES_MAX + 1),
            0,
            false,
        ),
    ] {
        for (kind, labels) in [
            ("flat", labels.clone()),
            ("by partition", format!("{{\"system-partition\":{labels}}}")),
            ("in a text", serde_json::Value::from(labels).to_string()),
        ] {
            let image = image(&sif(vec![Object::new(0x4003, "", labels)]));
            assert_eq!(image.status, Status::Ready);
            assert_eq!(image.labels.len(), kept, "{what}, {kind}");
            let message = "labels beyond the limit of 4096, or of 262144 bytes, are left out";
            assert_eq!(
                image.status_message,
                if is_whole { "" } else { message },
                "{what}, {kind}"
            );
        }
    }
}

/// A sandbox with one file in `.singularity.d`.
struct Sandbox(&'static str, String);

impl Sandbox {
    fn image(self) -> Image {
        let subject = subject(Path::new("/images/box"), 60);
        match probe_directory(&self, &subject, &Options::default()) {
            Ok(Verdict::Image(image)) => *image,
            other => panic!("{other:?}"),
        }
    }
}

impl ReadTree for Sandbox {
    fn read(&self, path: &str, limit: usize) -> std::io::Result<Option<Vec<u8>>> {
        let bytes = self.1.as_bytes();
        let found = path.strip_prefix(".singularity.d/") == Some(self.0);
        Ok(found.then(|| bytes[..bytes.len().min(limit)].to_vec()))
    }

    fn list(&self, path: &str, _: usize) -> std::io::Result<Option<Vec<String>>> {
        let file = format!(".singularity.d/{}", self.0);
        let rest = file
            .strip_prefix(path)
            .and_then(|rest| rest.strip_prefix('/'));
        let name = rest.and_then(|rest| rest.split('/').next());
        Ok(name.map(|name| vec![name.to_owned()]))
    }
}

#[test]
fn long_definitions_in_a_root() {
    for (length, is_whole) in [(DEFINITION_MAX, true), (DEFINITION_MAX + 1, false)] {
        let image = Sandbox("Singularity", stages(length)).image();
        assert_eq!(image.status_message.is_empty(), is_whole, "{length}");
        assert_eq!(image.base.is_empty(), !is_whole, "{length}");
        let kept = image.definition.expect("a definition");
        assert_eq!(kept.ends_with("\n…\n"), !is_whole, "{length}");
    }
}

#[test]
fn what_an_image_was_rebuilt_from_is_no_longer_than_a_path() {
    let text = format!("Bootstrap: localimage\nFrom: {}\n", "é".repeat(4000));
    let image = Sandbox("bootstrap_history/Apptainer0", text).image();
    assert_eq!(image.bootstrap_history, ["é".repeat(512)]);
}

#[test]
fn labels_in_a_root_that_are_not_read_are_named() {
    for (length, is_read) in [(LABELS_FILE_MAX, true), (LABELS_FILE_MAX + 1, false)] {
        let mut text = r#"{"k":"v"}"#.to_owned();
        text.push_str(&" ".repeat(length - text.len()));
        let image = Sandbox("labels.json", text).image();
        assert_eq!(image.status, Status::Ready);
        assert_eq!(image.labels.len(), usize::from(is_read), "{length}");
        let message =
            ".singularity.d/labels.json has more bytes than the limit of 1048576: not read";
        assert_eq!(
            image.status_message,
            if is_read { "" } else { message },
            "{length}"
        );
    }
}
