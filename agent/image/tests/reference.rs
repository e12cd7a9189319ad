//! Names and definitions of real images: `names.tsv` and `images/truth.json` of the corpus.
//!
//! The corpus is found through `SIFTER_SHARED`, or beside the repository; where it is not there,
//! these tests say so and pass.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sifter_image::definition::Definition;
use sifter_image::record::ReferenceSource;
use sifter_image::reference::{Evidence, Resolution, resolve};

/// Names of the list that must resolve, in percent.
const REQUIRED: usize = 95;

fn corpus(file: &str) -> Option<String> {
    let shared = std::env::var_os("SIFTER_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    let path = shared.join(file);
    match fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) => {
            note(&format!("skipped, no corpus: {}: {error}", path.display()));
            None
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the note of a test that cannot run here"
)]
fn note(text: &str) {
    eprintln!("{text}");
}

fn resolve_name(path: &str) -> Resolution {
    resolve_with(path, None, &BTreeMap::new())
}

fn resolve_with(
    path: &str,
    definition: Option<&str>,
    labels: &BTreeMap<String, String>,
) -> Resolution {
    resolve(
        &Evidence {
            path: Path::new(path),
            naming: &[],
            oci_reference: None,
            definition,
            labels,
        },
        false,
    )
}

#[test]
fn real_names() {
    let Some(text) = corpus("names.tsv") else {
        return;
    };
    let mut named = 0;
    let mut missed = Vec::new();
    let mut made_up = Vec::new();
    for line in text.lines().skip(1) {
        let columns: Vec<_> = line.split('\t').collect();
        let [name, repository, tag, convention, ..] = columns[..] else {
            panic!("a line of less than four columns: {line}");
        };
        let path = if name.starts_with('/') {
            name.to_owned()
        } else {
            format!("/images/{name}")
        };
        let given = resolve_name(&path).reference;
        let (got_repository, got_tag) = (given.repository.as_str(), given.tag.as_str());
        if repository == "-" || tag == "-" {
            let stem = repository == "-" || got_repository == repository;
            if given.source != ReferenceSource::FileStem || got_tag != "latest" || !stem {
                made_up.push(format!(
                    "{convention}: {name} is {got_repository}:{got_tag}"
                ));
            }
            continue;
        }
        named += 1;
        if (got_repository, got_tag) != (repository, tag) {
            missed.push(format!(
                "{convention}: {name} is {got_repository}:{got_tag}, not {repository}:{tag}"
            ));
        }
    }
    note(&format!(
        "{} of {named} names resolve; missed: {missed:#?}",
        named - missed.len()
    ));
    assert!(made_up.is_empty(), "{made_up:#?}");
    assert!(named > 0, "the list is empty");
    assert!(
        (named - missed.len()) * 100 >= named * REQUIRED,
        "{missed:#?}"
    );
}

/// The corpus' facts about each image.
fn truth() -> Vec<Value> {
    corpus("images/truth.json").map_or_else(Vec::new, |text| {
        serde_json::from_str(&text).expect("truth.json is a list")
    })
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key)?.as_str()
}

#[test]
fn headers_of_real_definitions() {
    for image in truth() {
        let Some(definition) = text(&image, "deffile") else {
            continue;
        };
        let expected: BTreeMap<_, _> = image["deffile_last_stage_header"]
            .as_object()
            .map(|header| {
                header
                    .iter()
                    .map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
                    .collect()
            })
            .unwrap_or_default();
        let parsed = Definition::parse(definition);
        let given: BTreeMap<_, _> = parsed.header().collect();
        assert_eq!(given, expected, "{}", image["path"]);
    }
}

/// What the definition says of the origin is the name of a pulled image and the base of a built
/// one; nothing else is.
#[test]
fn origins_of_real_definitions() {
    for image in truth() {
        let Some(definition) = text(&image, "deffile") else {
            continue;
        };
        let file = text(&image, "path").expect("every entry names its file");
        let labels: BTreeMap<String, String> =
            serde_json::from_value(image["labels"].clone()).unwrap_or_default();
        let given = resolve_with(&format!("/images/{file}"), Some(definition), &labels);
        let pulled = given.reference.source == ReferenceSource::Definition;
        let origin = &image["origin"];
        let Some(repository) = text(origin, "repository") else {
            assert!(!pulled && given.base.is_empty(), "{file}: {given:?}");
            continue;
        };
        let repository = familiar(repository, text(origin, "bootstrap"));
        let tag = text(origin, "digest")
            .or(text(origin, "tag"))
            .unwrap_or("latest");
        if Definition::parse(definition).is_generated() {
            assert!(pulled, "{file}: {given:?}");
            assert_eq!(given.reference.repository, repository, "{file}");
            assert_eq!(given.reference.tag, tag, "{file}");
            assert_eq!(given.base, "", "{file}");
        } else {
            assert!(!pulled, "{file}: {given:?}");
            assert_eq!(given.base, format!("{repository}:{tag}"), "{file}");
        }
    }
}

/// Docker Hub's host and `library/` dropped, as a listing does.
fn familiar(repository: &str, agent: Option<&str>) -> String {
    let docker = matches!(agent, Some("docker" | "oras"));
    let name = repository
        .strip_prefix("index.docker.io/")
        .or(repository.strip_prefix("docker.io/"))
        .unwrap_or(repository);
    let official = name
        .strip_prefix("library/")
        .filter(|name| docker && !name.contains('/'));
    official.unwrap_or(name).to_owned()
}

/// A listing resolves every image of a scan: 100,000 of them may not be felt.
#[test]
fn a_hundred_thousand_names_are_quick() {
    let labels = BTreeMap::new();
    let definition = "bootstrap: docker\nfrom: quay.io/biocontainers/bwa:0.7.17--h7132678_9\n\n";
    let start = std::time::Instant::now();
    for n in 0..50_000 {
        let path = format!("/images/{n}/quay.io-biocontainers-bwa-0.7.{n}--h7132678_9.img");
        let by_name = resolve_with(&path, None, &labels);
        assert_eq!(by_name.reference.repository, "quay.io/biocontainers/bwa");
        let by_definition = resolve_with(&path, Some(definition), &labels);
        assert_eq!(by_definition.reference.tag, "0.7.17--h7132678_9");
    }
    let each = start.elapsed() / 100_000;
    note(&format!("{each:?} a name"));
    // A hundred times what an optimised build takes.
    assert!(
        each < std::time::Duration::from_micros(100),
        "{each:?} a name"
    );
}
