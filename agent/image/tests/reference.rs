//! Names and definitions of real images: `names.tsv` and `images/truth.json` of the corpus.
//!
//! The corpus is found through `SIFTER_SHARED`, or beside the repository; where it is not there,
//! these tests say so and pass.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use sifter_image::Labels;
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
    resolve_with(path, None, &Labels::default())
}

fn resolve_with(path: &str, definition: Option<&str>, labels: &Labels) -> Resolution {
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
                    .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default()))
                    .collect()
            })
            .unwrap_or_default();
        let parsed = Definition::parse(definition);
        let given: BTreeMap<_, _> = parsed
            .header()
            .map(|(key, value)| (key.to_ascii_lowercase(), value))
            .collect();
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
        let labels = labels.into_iter().collect();
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

/// References as people pull them, none of them in the corpus' list.
const REFERENCES: [&str; 56] = [
    "quay.io/biocontainers/bwa:0.7.17--h7132678_9",
    "quay.io/biocontainers/bwa-mem2:2.2.1--he513fc3_0",
    "quay.io/biocontainers/gatk4:4.3.0.0--py36hdfd78af_0",
    "quay.io/biocontainers/ucsc-bedgraphtobigwig:377--h446ed27_1",
    "quay.io/biocontainers/bioconductor-deseq2:1.34.0--r41hc247a5b_3",
    "quay.io/biocontainers/trim-galore:0.6.7--hdfd78af_0",
    "quay.io/biocontainers/coreutils:8.25--1",
    "quay.io/biocontainers/biopython:1.70--np112py35_1",
    "quay.io/biocontainers/trinity:date.2011_11_26--0",
    "quay.io/biocontainers/star:2.7.10b--h9ee0642_0",
    "quay.io/biocontainers/fastx_toolkit:0.0.14--0",
    "quay.io/biocontainers/ont_vbz_hdf_plugin:1.0.1--hc5ea5a0_7",
    "quay.io/biocontainers/picard:3.0.0--hdfd78af_1",
    "quay.io/biocontainers/perl:5.26.2",
    "quay.io/biocontainers/mulled-v2-1fa26d1ce03c295fe2fdcf85831a92fbcbd7e8c2:afaaa4c6f5b308b4b6aa2dd8e99e1466b2a6b0cd-0",
    "quay.io/qiime2/core:2022.11",
    "quay.io/nf-core/ubuntu:22.04",
    "quay.io/singularity/mksquashfs:v3.11.4-slim",
    "community.wave.seqera.io/library/bwa_htslib_samtools:83b50ff84ead50d0",
    "community.wave.seqera.io/library/bcftools_htslib:0a3fa2654b52006f",
    "community.wave.seqera.io/library/multiqc:1.25.1--dc1968330462e945",
    "community.wave.seqera.io/library/gatk4_gcnvkernel:edb12e4f0bf02cd3",
    "community.wave.seqera.io/library/bedtools_coreutils:a623c13f66d5262b",
    "community.wave.seqera.io/library/3d-dna_python:1234567890123456",
    "ghcr.io/autamus/salmon:1.10.1",
    "ghcr.io/epi2me-labs/wf-common:sha338caea0a2532dc0ea8f46638ccc322bb8f9af48",
    "ghcr.io/deepmodeling/abacus:latest",
    "ghcr.io/nextgenusfs/funannotate:v1.8.15",
    "ghcr.io/scilus/scilus:2.0.2",
    "ghcr.io/nf-core/vep:release_110.1",
    "nvcr.io/nvidia/tensorflow:23.03-tf1-py3",
    "nvcr.io/nvidia/cuda:12.1.1-cudnn8-devel-ubuntu22.04",
    "nvcr.io/hpc/gromacs:2023.2",
    "nvcr.io/hpc/namd:3.0-alpha11",
    "gcr.io/deepvariant/deepvariant:1.4.0-gpu",
    "us.gcr.io/broad-gatk/gatk:4.5.0.0",
    "public.ecr.aws/biocontainers/samtools:v1.9-4-deb_cv1",
    "mcr.microsoft.com/azure/cli:2.50.0",
    "registry.gitlab.com/group/tool:main",
    "gitlab-registry.cern.ch/cms/cmssw-docker:latest",
    "containers.ligo.org/lscsoft/lalsuite:v7.15",
    "docker.io/tensorflow/tensorflow:2.11.0-gpu",
    "docker.io/tensorflow/tensorflow:latest-gpu-jupyter",
    "docker.io/rocker/r-ver:4.3.2",
    "docker.io/rocker/tidyverse:4",
    "docker.io/continuumio/miniconda3:23.10.0-1",
    "docker.io/library/debian:bookworm-slim",
    "docker.io/library/python:3.12.1-slim-bookworm",
    "docker.io/library/rockylinux:9",
    "docker.io/library/julia:1.10",
    "docker.io/broadinstitute/gatk:4.1.3.0",
    "docker.io/nipreps/fmriprep:23.2.0",
    "docker.io/opensciencegrid/osgvo-el8:latest",
    "docker.io/pytorch/pytorch:2.1.2-cuda12.1-cudnn8-runtime",
    "docker.io/google/deepsomatic:1.6.0",
    "docker.io/mambaorg/micromamba:1.5.6-jammy-cuda-12.1.1",
];

/// Each tool's way to make a name of a reference, undone.
#[test]
fn names_that_tools_would_give() {
    let mut wrong = Vec::new();
    for reference in REFERENCES {
        let (repository, tag) = reference.rsplit_once(':').expect("a tag");
        let name = repository.rsplit('/').next().expect("a name");
        let familiar = familiar(repository, Some("docker"));
        let flat = reference.replace(['/', ':'], "-");
        let digest = "0".repeat(63) + "1";
        let uri = repository.strip_prefix("docker.io/").unwrap_or(repository);
        let shpc = format!("{}-{tag}-sha256:{digest}.sif", uri.replace('/', "-"));
        let cases = [
            (format!("/i/{name}_{tag}.sif"), name),
            (format!("/i/{name}_{tag}.oci.sif"), name),
            (format!("/i/{name}-{tag}.simg"), name),
            (format!("/depot/{name}:{tag}"), name),
            (format!("/w/{flat}.img"), familiar.as_str()),
            (format!("/opt/{uri}/{tag}/{shpc}"), uri),
            (format!("/cvmfs/unpacked.cern.ch/{reference}"), repository),
        ];
        for (path, repository) in cases {
            let given = resolve_name(&path).reference;
            let is_right = given.repository == repository
                && given.tag == tag
                && given.source == ReferenceSource::NamingConvention;
            if !is_right {
                wrong.push(format!("{path} is {}:{}", given.repository, given.tag));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A listing resolves every image of a scan: 100,000 of them may not be felt.
#[test]
fn a_hundred_thousand_names_are_quick() {
    let labels = Labels::default();
    let definition = "bootstrap: docker\nfrom: quay.io/biocontainers/bwa:0.7.17--h7132678_9\n\n";
    let start = computed();
    for n in 0..50_000 {
        let path = format!("/images/{n}/quay.io-biocontainers-bwa-0.7.{n}--h7132678_9.img");
        let by_name = resolve_with(&path, None, &labels);
        assert_eq!(by_name.reference.repository, "quay.io/biocontainers/bwa");
        let by_definition = resolve_with(&path, Some(definition), &labels);
        assert_eq!(by_definition.reference.tag, "0.7.17--h7132678_9");
    }
    let each = (computed() - start) / 100_000;
    note(&format!("{each:?} a name"));
    // A hundred times what an optimised build takes.
    assert!(each < Duration::from_micros(100), "{each:?} a name");
}

/// The time for which this thread has computed: what else the machine does is not in it.
fn computed() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(told.split(' ').next().unwrap().parse().unwrap())
}
