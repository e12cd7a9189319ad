//! Every image of the corpus, field by field against what the real tools say of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use serde_json::Value;
use sifter_image::record::{
    Encryption, Format, Image, Link, Object, ObjectData, SignatureForm, Status, TimeSource,
};
use sifter_image::{NotImage, Verdict};

use crate::corpus::{directory_verdict, shared, skipped, verdict};
use crate::refused::REFUSED;

#[test]
fn every_image_of_the_corpus_agrees() {
    let Some(shared) = shared() else {
        return skipped("truth");
    };
    let images = shared.join("images");
    let truth = fs::read(images.join("truth.json")).expect("truth.json");
    let entries: Vec<Value> = serde_json::from_slice(&truth).expect("truth.json is JSON");
    assert!(
        entries.len() > 50,
        "the corpus has {} entries",
        entries.len()
    );
    let mut wrong = Vec::new();
    for entry in &entries {
        let name = entry["path"].as_str().expect("a path");
        let differences = compare(entry, &images.join(name));
        wrong.extend(
            differences
                .into_iter()
                .map(|difference| format!("{name}: {difference}")),
        );
    }
    assert!(
        wrong.is_empty(),
        "{} differences:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// The images that are kept beside the end-to-end tests, against what apptainer says of them.
#[test]
fn the_images_of_the_repository_agree() {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/images");
    let truth = fs::read(images.join("truth.json")).expect("truth.json");
    let truth: Value = serde_json::from_slice(&truth).expect("truth.json is JSON");
    let entries = truth["images"].as_object().expect("entries by path");
    assert!(entries.len() > 20);
    let mut wrong = Vec::new();
    for (name, entry) in entries {
        let path = images.join(name);
        let verdict = if path.is_dir() {
            directory_verdict(&path)
        } else {
            verdict(&fs::read(&path).expect("a readable image"), &path)
        };
        let Verdict::Image(image) = verdict else {
            wrong.push(format!("{name}: {verdict:?}"));
            continue;
        };
        let mut comparison = Comparison(Vec::new());
        comparison.equal("status", image.status_message.as_str(), "");
        if let Ok(labels) =
            serde_json::from_value::<BTreeMap<String, String>>(entry["labels"].clone())
        {
            comparison.equal("labels", &image.labels, &labels.into_iter().collect());
        }
        if let Some(definition) = entry["definition"].as_str() {
            let found = image.definition.as_deref().unwrap_or_default();
            comparison.equal("definition", found.trim_end(), definition.trim_end());
        }
        if let Some(header) = entry["header"].as_object() {
            let uuid = image.uuid.unwrap_or_default().to_string();
            comparison.equal("uuid", Some(uuid.as_str()), header["id"].as_str());
            let arch = header.get("primary_architecture").and_then(Value::as_str);
            comparison.equal("arch", image.arch.as_str(), arch.unwrap_or("unknown"));
            let objects = entry["objects"].as_array().map_or(0, Vec::len);
            comparison.equal("objects", image.objects.len(), objects);
        }
        wrong.extend(
            comparison
                .0
                .into_iter()
                .map(|difference| format!("{name}: {difference}")),
        );
    }
    assert!(
        wrong.is_empty(),
        "{} differences:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// The images of the repository and, where it is, of the corpus: `inspect` says what a listing says.
#[test]
fn an_explanation_adds_rules_and_changes_nothing_else() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/images");
    let mut directories = vec![own.join("built"), own.join("pulled"), own.join("formats")];
    match shared() {
        Some(shared) => directories.push(shared.join("images/apptainer")),
        None => skipped("explanations of the corpus"),
    }
    let mut histories = BTreeMap::new();
    for directory in directories {
        for entry in fs::read_dir(directory).expect("images") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                continue;
            }
            let bytes = fs::read(&path).expect("an image");
            let subject = crate::corpus::subject(&path, 86_400);
            let options = sifter_image::Options::default();
            let explained = sifter_image::explain(&bytes, &subject, &options).expect("memory");
            let plain = sifter_image::probe(&bytes, &subject, &options).expect("memory");
            assert_eq!(explained.verdict, plain, "{}", path.display());
            if let Verdict::Image(image) = plain {
                assert_eq!(explained.rules.len(), 6, "{}", path.display());
                let name = path
                    .file_name()
                    .expect("a name")
                    .to_string_lossy()
                    .into_owned();
                histories.insert(name, image.bootstrap_history);
            }
        }
    }
    let mut expected = vec![
        ("tools.sif", ""),
        ("ubuntu_22.04.sif", ""),
        ("from-sandbox.sif", "alpine:3.20"),
        (
            "localimage.sif",
            "quay.io/biocontainers/bwa:0.7.18--he4a0461_1",
        ),
        (
            "library.sif",
            "quay.io/biocontainers/bwa:0.7.18--he4a0461_1",
        ),
    ];
    if shared().is_some() {
        let samtools = "quay.io/biocontainers/samtools:1.9--h91753b0_8";
        expected.extend(
            [
                "local_of_sif.sif",
                "shub_def.sif",
                "lib_direct.sif",
                "oras_rebuild.sif",
            ]
            .map(|name| (name, samtools)),
        );
    }
    for (name, history) in expected {
        assert_eq!(histories[name].concat(), history, "{name}");
    }
}

/// Collects differences between what is expected and what was found.
struct Comparison(Vec<String>);

impl Comparison {
    fn equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, found: T, expected: T) {
        if found != expected {
            self.0
                .push(format!("{what}: expected {expected:?}, found {found:?}"));
        }
    }
}

fn compare(entry: &Value, path: &Path) -> Vec<String> {
    let format = entry["format"].as_str().expect("a format");
    let verdict = if format == "sandbox" {
        directory_verdict(path)
    } else {
        verdict(&fs::read(path).expect("a readable image"), path)
    };
    let mut comparison = Comparison(Vec::new());
    let image = match (format, verdict) {
        ("plain-squashfs" | "plain-ext3", Verdict::NotImage(NotImage::PlainFileSystem))
        | ("not-an-image", Verdict::NotImage(_)) => return Vec::new(),
        (
            "sif" | "oci-sif" | "legacy-squashfs" | "legacy-ext3" | "sandbox",
            Verdict::Image(image),
        ) => *image,
        (_, verdict) => return vec![format!("expected {format}, found {verdict:?}")],
    };
    common(entry, format, &image, &mut comparison);
    match format {
        "sif" | "oci-sif" => sif(entry, &image, &mut comparison),
        "legacy-squashfs" => {
            comparison.equal(
                "compressor",
                image.compressor,
                entry["squashfs_compression"].as_str().map(leak),
            );
            comparison.equal(
                "update",
                image.update_time,
                time(&entry["squashfs_mkfs_epoch"]),
            );
        }
        "legacy-ext3" => {
            comparison.equal("file system", image.file_system, Some("ext3"));
            comparison.equal("update", image.update_time, time(&entry["ext_wtime_epoch"]));
        }
        _ => comparison.equal("update source", image.update_time_source, TimeSource::Mtime),
    }
    if format == "oci-sif" {
        oci(entry, &image, &mut comparison);
    }
    comparison.0
}

fn common(entry: &Value, format: &str, image: &Image, comparison: &mut Comparison) {
    let expected = match format {
        "sif" => Format::Sif,
        "oci-sif" => Format::OciSif,
        "legacy-squashfs" => Format::Squashfs,
        "legacy-ext3" => Format::Ext3,
        _ => Format::Sandbox,
    };
    comparison.equal("format", image.format, expected);
    // Two files of a test of the sif library, which no runtime accepts.
    let hollow = entry["objects"].as_array().and_then(|objects| {
        objects.iter().find(|object| {
            (&object["parttype"], &object["fstype"]) == (&"primsys".into(), &"squashfs".into())
                && object["size"].as_u64() < Some(96)
        })
    });
    let (status, message) = match hollow {
        Some(object) => (
            Status::Failure,
            format!(
                "corrupt: object {} (partition): expected a squashfs of 96 bytes or more at byte {}, found {}",
                object["id"], object["offset"], object["size"]
            ),
        ),
        None if entry["sif_version"] == "00" => (
            Status::Ready,
            format!(
                "{REFUSED}SIF version 00 is that of the alphas of Singularity 3.0: build it again"
            ),
        ),
        None => (Status::Ready, String::new()),
    };
    comparison.equal(
        "status",
        (image.status, image.status_message.as_str()),
        (status, message.as_str()),
    );
    let labels: BTreeMap<String, String> =
        serde_json::from_value(entry["labels"].clone()).unwrap_or_default();
    comparison.equal("labels", &image.labels, &labels.into_iter().collect());
    comparison.equal(
        "definition",
        image.definition.as_deref(),
        entry["deffile"].as_str(),
    );
    comparison.equal("identity", image.image_id.is_some(), true);
}

fn sif(entry: &Value, image: &Image, comparison: &mut Comparison) {
    let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    comparison.equal(
        "version",
        image.format_version.to_string(),
        text("sif_version"),
    );
    let uuid = image.uuid.unwrap_or_default().to_string();
    comparison.equal("uuid", uuid, text("uuid"));
    if image.format == Format::Sif {
        comparison.equal("arch", image.arch.to_string(), text("arch"));
        comparison.equal("created", image.create_time, time(&entry["created_epoch"]));
        let modified = time(&entry["modified_epoch"]);
        let source = if modified.is_some() {
            TimeSource::Header
        } else {
            TimeSource::Mtime
        };
        comparison.equal("update source", image.update_time_source, source);
        if modified.is_some() {
            comparison.equal("modified", image.update_time, modified);
        }
    }
    let objects = entry["objects"].as_array().cloned().unwrap_or_default();
    comparison.equal("objects", image.objects.len(), objects.len());
    for (found, expected) in image.objects.iter().zip(&objects) {
        object(found, expected, comparison);
    }
    let signed = entry["signed"].as_bool().unwrap_or_default();
    comparison.equal("signed", !image.signatures.is_empty(), signed);
    let count = entry["signature_count"].as_u64().unwrap_or_default();
    comparison.equal("signatures", image.signatures.len() as u64, count);
    let forms = objects
        .iter()
        .filter_map(|object| object["signature_form"].as_str());
    for (found, expected) in image.signatures.iter().zip(forms) {
        let form = match found.form {
            SignatureForm::Pgp | SignatureForm::PgpLegacy => "pgp-clearsign",
            SignatureForm::Dsse => "dsse",
            SignatureForm::Unknown => "unknown",
        };
        comparison.equal("signature form", form, expected);
    }
    let encrypted = entry["encrypted"].as_bool().unwrap_or_default();
    comparison.equal("encrypted", image.encryption != Encryption::None, encrypted);
    let sbom = objects.iter().any(|object| object["type"] == "SBOM");
    comparison.equal("sbom", image.sbom.is_some(), sbom);
    let primary = objects
        .iter()
        .find(|object| object["parttype"] == "primsys");
    if let Some(primary) = primary {
        let expected = primary["fstype"].as_str().map(leak);
        comparison.equal("file system", image.file_system, expected);
        let expected = primary["squashfs_compression"].as_str().map(leak);
        comparison.equal("compressor", image.compressor, expected);
    }
}

fn object(found: &Object, expected: &Value, comparison: &mut Comparison) {
    let number = |key: &str| expected[key].as_u64();
    let text = |key: &str| expected[key].as_str().unwrap_or_default();
    let at = |what: &str| format!("object {} {what}", found.id);
    comparison.equal(&at("slot"), Some(u64::from(found.slot)), number("slot"));
    comparison.equal(&at("id"), Some(u64::from(found.id)), number("id"));
    comparison.equal(&at("group"), found.group_id.map(u64::from), number("group"));
    let link = match found.link {
        None => (None, false),
        Some(Link::Object(id)) => (Some(u64::from(id)), false),
        Some(Link::Group(id)) => (Some(u64::from(id)), true),
    };
    comparison.equal(
        &at("link"),
        link,
        (
            number("link"),
            expected["link_is_group"].as_bool().unwrap_or_default(),
        ),
    );
    comparison.equal(&at("offset"), Some(found.offset), number("offset"));
    comparison.equal(&at("size"), Some(found.size), number("size"));
    comparison.equal(
        &at("padded size"),
        Some(found.padded_size),
        number("size_with_padding"),
    );
    comparison.equal(
        &at("created"),
        found.create_time,
        time(&expected["created_epoch"]),
    );
    comparison.equal(
        &at("modified"),
        found.update_time,
        time(&expected["modified_epoch"]),
    );
    comparison.equal(&at("name"), found.name.as_str(), text("name"));
    let data: (&str, Vec<&str>) = match &found.data {
        ObjectData::Deffile => ("Deffile", vec![]),
        ObjectData::EnvVar => ("EnvVar", vec![]),
        ObjectData::Labels => ("Labels", vec![]),
        ObjectData::Partition {
            file_system,
            partition_type,
            arch,
            compressor,
        } => {
            let role = match *partition_type {
                "primary-system" => "primsys",
                other => other,
            };
            (
                "Partition",
                vec![file_system, role, arch, compressor.unwrap_or_default()],
            )
        }
        ObjectData::Signature {
            hash_type,
            fingerprint,
        } => ("Signature", vec![hash_type, fingerprint]),
        ObjectData::GenericJson => ("GenericJSON", vec![]),
        ObjectData::Generic => ("Generic", vec![]),
        ObjectData::CryptoMessage {
            format,
            message_type,
        } => ("CryptoMessage", vec![format, message_type]),
        ObjectData::Sbom { format } => ("SBOM", vec![format]),
        ObjectData::OciRootIndex { digest } => ("OCIRootIndex", vec![digest]),
        ObjectData::OciBlob { digest } => ("OCIBlob", vec![digest]),
        ObjectData::Unknown(_) => ("unknown", vec![]),
    };
    let extra = match text("type") {
        "Partition" => vec![
            text("fstype"),
            text("parttype"),
            text("arch"),
            text("squashfs_compression"),
        ],
        "Signature" => vec![text("hash"), text("entity")],
        "CryptoMessage" => vec![text("format"), text("message")],
        "SBOM" => vec![if expected["sbom_format"] == 1 {
            "cyclonedx-json"
        } else {
            "?"
        }],
        "OCIRootIndex" | "OCIBlob" => vec![text("digest")],
        _ => vec![],
    };
    comparison.equal(&at("data"), data, (text("type"), extra));
}

/// The images of an OCI-SIF: platform, time, identity.
fn oci(entry: &Value, image: &Image, comparison: &mut Comparison) {
    let images = entry["oci"]["images"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let present: Vec<_> = images
        .iter()
        .filter(|image| image["config_digest"].is_string())
        .collect();
    if let [only] = present.as_slice() {
        comparison.equal(
            "identity",
            image.image_id.map(|id| id.to_string()),
            only["digest"].as_str().map(str::to_owned),
        );
        let created = only["created"]
            .as_str()
            .and_then(|text| text.parse::<Timestamp>().ok())
            .filter(|time| time.as_second() > 0);
        comparison.equal("created", image.create_time, created);
        let source = if created.is_some() {
            TimeSource::OciConfig
        } else {
            TimeSource::Mtime
        };
        comparison.equal("update source", image.update_time_source, source);
        if created.is_some() {
            comparison.equal("update", image.update_time, created);
        }
        let arch = only["architecture"].as_str().unwrap_or_default();
        let arch = if arch.is_empty() { "unknown" } else { arch };
        comparison.equal("arch", image.arch.as_str(), arch);
    }
}

fn time(seconds: &Value) -> Option<Timestamp> {
    let seconds = seconds
        .as_i64()
        .filter(|seconds| *seconds != 0 && *seconds != -62_135_596_800)?;
    Timestamp::from_second(seconds).ok()
}

/// Test data lives as long as the test.
fn leak(text: &str) -> &'static str {
    text.to_owned().leak()
}
