//! Probing without details: whoever lists names and sizes is told the same names and sizes.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::Index;
use sifter_image::record::{Image, ReferenceSource};
use sifter_image::{Options, Verdict, explain, probe};

use crate::corpus::{shared, skipped, subject};
use crate::made::{Object, Sif};

fn probed(bytes: &[u8], path: &Path, details: bool) -> Option<Image> {
    let options = Options {
        details,
        ..Options::default()
    };
    match probe(&bytes, &subject(path, 60), &options) {
        Ok(Verdict::Image(image)) => Some(*image),
        Ok(Verdict::NotImage(_)) => None,
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

/// The image without its details, after both ways of probing said the same of everything else.
fn brief(bytes: &[u8], path: &Path) -> Option<Image> {
    let strip = |image: Option<Image>| {
        image.map(|image| Image {
            labels: Default::default(),
            bootstrap_history: Vec::new(),
            ..image
        })
    };
    let brief = probed(bytes, path, false);
    let whole = strip(probed(bytes, path, true));
    assert_eq!(strip(brief.clone()), whole, "{}", path.display());
    brief
}

/// The files of a corpus, however deep.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let entry = entry.expect("an entry");
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            files.extend(self::files(&entry.path()));
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    files
}

#[test]
fn real_images_are_the_same_without_their_details() {
    let mut corpora = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/images")];
    match shared() {
        Some(shared) => corpora.push(shared.join("images")),
        None => skipped("brief"),
    }
    let (mut images, mut without) = (0, 0);
    for path in corpora.iter().flat_map(|corpus| files(corpus)) {
        let bytes = fs::read(&path).expect("a readable file");
        if let Some(image) = brief(&bytes, &path) {
            images += 1;
            without += usize::from(image.labels.is_empty());
        }
    }
    assert!(images > 20 && without > 5, "{without} of {images}");
}

/// What a pull writes, and with it a label, as a JSON text, that names what was pulled.
fn pulled(agent: &str, from: &str, label: &str) -> Sif {
    let labels = format!(
        r#"{{"org.label-schema.usage.apptainer.version":"1.5.0","other":"2\u003e\u00261",{label}:"ghcr.io/lab/tool:2"}}"#
    );
    let document = format!(r#"{{"data":{{"attributes":{{"labels":{labels}}}}}}}"#);
    Sif::new()
        .with(Object::new(
            0x4001,
            "deffile",
            format!("bootstrap: {agent}\nfrom: {from}\n"),
        ))
        .with(Object::new(0x4006, "inspect-metadata.json", document))
}

#[test]
fn labels_that_decide_the_name_are_read() {
    let path = Path::new("/images/unnamed.sif");
    let mut escaped = vec![
        r#""org.opencontainers.image.base.name""#.to_owned(),
        r#""\u006frg.opencontainers.image.base.name""#.to_owned(),
        r#""org.opencontainers.image.bas\u0065.name""#.to_owned(),
        r#""o\u0072g.opencontainers.image.base.name""#.to_owned(),
        r#""org.opencontainers\u002eimage.base.name""#.to_owned(),
        r#""org.opencontainers\u002Eimage.base.name""#.to_owned(),
    ];
    // All of it.
    let name = "org.opencontainers.image.base.name";
    let all: String = name.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    escaped.push(format!("\"{all}\""));
    for label in escaped {
        let image = brief(&pulled("docker", "lab/tool:1", &label).bytes(), path).expect("an image");
        assert_eq!(
            image.reference.source,
            ReferenceSource::OciReference,
            "{label}"
        );
        assert_eq!(image.reference.repository, "ghcr.io/lab/tool", "{label}");
        assert_eq!(image.reference.tag, "2", "{label}");
    }
    // Labels that are a text within the document.
    let document = serde_json::json!({"data": {"attributes": {"labels":
        r#"{"org.label-schema.usage.apptainer.version":"1.5.0","org.opencontainers.image.bas\u0065.name":"a/b:3"}"#
    }}})
    .to_string();
    let escapes = [
        r"\\u0065",
        r"\u005cu0065",
        // Its digits and letters, too.
        r"\\\u00750065",
        r"\\u\u0030065",
        r"\\u006\u0035",
    ];
    let mut documents: Vec<String> = escapes
        .iter()
        .map(|escape| document.replace(r"\\u0065", escape))
        .collect();
    documents.push(document.replace(".opencontainers", r"\\u002\u0045opencontainers"));
    for document in documents {
        let mut sif = pulled("docker", "lab/tool:1", r#""x""#);
        sif.objects.pop();
        let sif = sif.with(Object::new(
            0x4006,
            "inspect-metadata.json",
            document.clone(),
        ));
        let image = brief(&sif.bytes(), path).expect("an image");
        assert_eq!(image.reference.repository, "a/b", "{document}");
    }
}

/// Others are left out, which is said.
#[test]
fn too_many_labels_are_told() {
    let path = Path::new("/images/unnamed.sif");
    let labels: Vec<String> = (0..5000).map(|n| format!(r#""{n}":1"#)).collect();
    let label = format!(r#"{},"x""#, labels.join(","));
    let image = brief(&pulled("docker", "lab/tool:1", &label).bytes(), path).expect("an image");
    let said = image.status_message.as_str();
    assert!(said.starts_with("labels beyond the limit"), "{said}");
}

#[test]
fn labels_that_decide_nothing_are_not_read() {
    let path = Path::new("/images/unnamed.sif");
    for (agent, from, is_decided) in [
        ("docker", "lab/tool:1", true),
        ("library", "lab/tool:1", true),
        ("oras", "ghcr.io/lab/tool:1", true),
        // These do not say what the image is called.
        ("docker", "", false),
        ("localimage", "base.sif", false),
        ("oci-archive", "tool.tar", false),
        ("docker", "lab/tool:1\n%post\n  make", false),
    ] {
        let bytes = pulled(agent, from, r#""org.opencontainers.image.title""#).bytes();
        let image = brief(&bytes, path).expect("an image");
        assert_eq!(image.labels.is_empty(), is_decided, "{agent}: {from}");
        let whole = probed(&bytes, path, true).expect("an image");
        assert_eq!(whole.labels.len(), 3);
    }
}

/// Nobody asked for the history, which is in the file system.
#[test]
fn no_file_system_is_looked_into_for_the_history() {
    let squashfs = include_bytes!("data/box-gzip.squashfs");
    let sif = pulled("library", "lab/tool:1", r#""x""#)
        .with(Object::partition(1, 2, b"02", *squashfs))
        .bytes();
    let path = Path::new("/images/x.sif");
    let history = |details| {
        let image = probed(&sif, path, details).expect("an image");
        image.bootstrap_history.len()
    };
    assert!(history(true) > 0);
    assert_eq!(history(false), 0);
}

/// A text as a JSON string, with some characters escaped where there is no need as well.
fn quoted(text: &str, some: &[Index]) -> String {
    let mut quoted = String::from("\"");
    for (at, character) in text.char_indices() {
        match character {
            _ if some.iter().any(|index| index.index(text.len()) == at) => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            '"' | '\\' => quoted.extend(['\\', character]),
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

/// Some characters of any text.
fn some() -> impl Strategy<Value = Vec<Index>> {
    prop::collection::vec(any::<Index>(), 0..3)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn however_a_label_is_written(
        name in some(),
        texts in prop::collection::vec(some(), 0..4),
        wrong in prop_oneof![Just(None), (any::<Index>(), any::<u8>()).prop_map(Some)],
    ) {
        let name = quoted("org.opencontainers.image.base.name", &name);
        let version = r#""org.label-schema.usage.apptainer.version":"1.5.0""#;
        let mut value = format!(r#"{{{version},{name}:"ghcr.io/lab/tool:2"}}"#);
        for (level, key) in ["labels", "attributes", "data"].iter().enumerate() {
            if let Some(choice) = texts.get(level) {
                value = quoted(&value, choice);
            }
            value = format!(r#"{{"{key}":{value}}}"#);
        }
        let mut document = value.into_bytes();
        if let Some((at, byte)) = wrong {
            let at = at.index(document.len());
            document[at] = byte;
        }
        let sif = Sif::new()
            .with(Object::new(0x4001, "deffile", "bootstrap: docker\nfrom: lab/tool:1\n"))
            .with(Object::new(0x4006, "inspect-metadata.json", document));
        brief(&sif.bytes(), Path::new("/images/unnamed.sif"));
    }
}

/// What is looked into for its history names nothing that the header does.
#[test]
fn a_file_system_that_is_looked_into_for_the_history_names_no_image() {
    let path = Path::new("/images/x.sif");
    let squashfs = include_bytes!("data/box-gzip.squashfs");
    let sif = |objects: Vec<Object>| {
        let sif = objects.into_iter().fold(Sif::new(), Sif::with);
        sif.with(Object::partition(1, 2, b"02", *squashfs)).bytes()
    };
    let metadata = |labels: &str| {
        let document = format!(r#"{{"data":{{"attributes":{{"labels":{labels}}}}}}}"#);
        Object::new(0x4006, "inspect-metadata.json", document)
    };
    // The header knows of no label.
    let pull = Object::new(0x4001, "deffile", "bootstrap: library\nfrom: lab/tool:1\n");
    let bytes = sif(vec![pull, metadata("{}")]);
    brief(&bytes, path);
    let whole = probed(&bytes, path, true).expect("an image");
    assert!(whole.labels.is_empty() && !whole.bootstrap_history.is_empty());
    // It has labels, and the definition is inside alone, which all are told.
    let label = |agent| {
        let name = "org.label-schema.usage.singularity.deffile.bootstrap";
        metadata(&format!(r#"{{"{name}":"{agent}"}}"#))
    };
    for agent in ["localimage", "docker"] {
        let bytes = sif(vec![label(agent)]);
        let image = brief(&bytes, path).expect("an image");
        assert_eq!(image.base, "alpine:3.9", "{agent}");
        let explained = explain(&bytes.as_slice(), &subject(path, 60), &Options::default());
        let Verdict::Image(explained) = explained.expect("memory does not fail").verdict else {
            panic!("an image");
        };
        assert_eq!(explained.base, image.base, "{agent}");
    }
}
