//! `<name>-<tag>`: Singularity 2 (`<name>-<tag>.simg`, `:` made a hyphen; 2.6.1
//! `libexec/cli/pull.exec`), `nf-core pipelines download` (Nextflow's names with the registry cut
//! off; `container_fetcher.py: get_container_filename`), and people.
//!
//! Names are full of hyphens, so a split needs a recognisable tag. Under an ending that tools give
//! to such names (`.simg`, `.img`) a bare number or a word like `dev` is one; under `.sif`, which
//! no tool but Nextflow joins with hyphens, only a clear version: `covid-19.sif` is no version 19.

use super::{Answer, Ending, Name, flattened, shape};
use shape::Version;

/// How much counts as a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vocabulary {
    /// Names that tools made.
    Tool,
    /// Names that people made: clear versions, dates and `latest` only.
    People,
}

/// `<name>-<tag>`.
pub(super) fn tagged<'a>(name: &Name<'a>) -> Option<Answer<'a>> {
    let vocabulary = match name.ending {
        Ending::Simg | Ending::Img => Vocabulary::Tool,
        Ending::Sif => Vocabulary::People,
        // Without an ending only a Conda build is telling.
        Ending::None if shape::build_start(name.stem).is_some() => Vocabulary::People,
        Ending::None => return None,
    };
    let (image, tag) = split(name.stem, vocabulary)?;
    match (name.ending, flattened::with_namespace(image)) {
        (Ending::Img, Some(repository)) => Answer::named(repository, tag),
        _ => Answer::named(image, tag),
    }
}

/// Splits at the hyphen behind which there is a tag.
pub(super) fn split(text: &str, vocabulary: Vocabulary) -> Option<(&str, &str)> {
    if let Some(at) = shape::mulled_tag_start(text) {
        return Some((&text[..at - 1], &text[at..]));
    }
    if let Some(build) = shape::build_start(text) {
        return with_build(text, build);
    }
    if let Some(image) = text.strip_suffix("-latest") {
        return (!image.is_empty()).then_some((image, "latest"));
    }
    let tool = vocabulary == Vocabulary::Tool;
    let (before, last) = text.rsplit_once('-')?;
    if last.len() >= 16 && shape::is_hash_tag(last) {
        return (!before.is_empty()).then_some((before, last));
    }
    let places = || {
        text.match_indices('-')
            .filter(|(at, _)| *at > 0)
            .map(|(at, _)| (&text[..at], &text[at + 1..]))
    };
    let clear = |rest: &str| shape::version(part(rest)) == Version::Clear;
    for (image, rest) in places() {
        let part = part(rest);
        let is_tag = match shape::version(part) {
            Version::Clear => true,
            // `omics-integrator-2-v2`: a small number before a version is the name's.
            Version::Number if tool && part.len() <= 2 => {
                !places().any(|(other, rest)| other.len() > image.len() && clear(rest))
            }
            Version::Number => tool || part.len() == 8,
            Version::Digit => tool,
            Version::No => {
                part == "latest" || (tool && (shape::is_platform_version(part) || is_worded(part)))
            }
        };
        if is_tag {
            return Some(with_word(text, image).unwrap_or((image, rest)));
        }
    }
    if !tool {
        return None;
    }
    let word = places().find(|(_, rest)| shape::is_tag_word(part(rest)));
    word.or_else(|| (!before.is_empty() && shape::is_hash_tag(last)).then_some((before, last)))
}

/// The split before a word that belongs to the version: `vep-release_110.1`, `tool-version-2`.
fn with_word<'a>(text: &'a str, image: &str) -> Option<(&'a str, &'a str)> {
    let (name, word) = image.rsplit_once('-')?;
    (shape::is_version_word(word) && !name.is_empty())
        .then(|| (&text[..name.len()], &text[name.len() + 1..]))
}

/// A version with its word in front: `release_110.1`.
fn is_worded(part: &str) -> bool {
    part.split_once('_').is_some_and(|(word, rest)| {
        shape::is_version_word(word) && shape::version(rest) != Version::No
    })
}

/// The text up to the next hyphen.
fn part(text: &str) -> &str {
    text.split('-').next().unwrap_or_default()
}

/// Splits `<name>-<version>--<build>`, whose version holds no hyphen.
fn with_build(text: &str, build: usize) -> Option<(&str, &str)> {
    let at = text[..build].rfind('-')?;
    let version = &text[at + 1..build];
    // `name-part_1.0--0` is split at the underscore.
    let underscored = version
        .match_indices('_')
        .any(|(at, _)| shape::version(&version[at + 1..]) == Version::Clear);
    let is_version = shape::version(version) != Version::No
        || (version.bytes().any(|b| b.is_ascii_digit()) && !underscored);
    (at > 0 && is_version).then(|| (&text[..at], &text[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;

    #[test]
    fn names_that_tools_made() {
        const SHA1: &str = "0123456789abcdef0123456789abcdef01234567";
        check(
            tagged,
            &[
                ("/i/fedora-40.simg", Some(("fedora", "40"))),
                ("/i/anaconda3-5.3.0.simg", Some(("anaconda3", "5.3.0"))),
                ("/i/lolcow-latest.simg", Some(("lolcow", "latest"))),
                (
                    "/i/multiqc-1.25--pyhdfd78af_0.img",
                    Some(("multiqc", "1.25--pyhdfd78af_0")),
                ),
                (
                    "/i/das_tool-1.1.7--r44hdfd78af_1.img",
                    Some(("das_tool", "1.1.7--r44hdfd78af_1")),
                ),
                (
                    "/i/t-coffee-13.46.0.919e8c6b--hfc96bf3_0.img",
                    Some(("t-coffee", "13.46.0.919e8c6b--hfc96bf3_0")),
                ),
                (
                    "/i/trinity-date.2011_11_26--0.img",
                    Some(("trinity", "date.2011_11_26--0")),
                ),
                (
                    "/i/fastp-1.3.6--469416be288311d1.img",
                    Some(("fastp", "1.3.6--469416be288311d1")),
                ),
                (
                    "/i/a_b-469416be288311d1.img",
                    Some(("a_b", "469416be288311d1")),
                ),
                (
                    "/i/a_b-a69416be288311d1.img",
                    Some(("a_b", "a69416be288311d1")),
                ),
                ("/i/org-tool-2-v2.img", Some(("org-tool-2", "v2"))),
                ("/i/org-tool-12-v2.img", Some(("org-tool-12", "v2"))),
                (
                    "/i/tool-v1.90b6.6-181012-1-deb_cv1.img",
                    Some(("tool", "v1.90b6.6-181012-1-deb_cv1")),
                ),
                ("/i/ubuntu-20180112-1.img", Some(("ubuntu", "20180112-1"))),
                ("/i/tool-dev.img", Some(("tool", "dev"))),
                (
                    "/i/tensorflow-latest-gpu.simg",
                    Some(("tensorflow", "latest-gpu")),
                ),
                (
                    "/i/debian-bookworm-slim.simg",
                    Some(("debian", "bookworm-slim")),
                ),
                ("/i/tool-release_110.1.img", Some(("tool", "release_110.1"))),
                ("/i/tool-release-110.1.img", Some(("tool", "release-110.1"))),
                (
                    "/i/wf-sha338caea0a2532dc0ea8f46638ccc322bb8f9af48.img",
                    Some(("wf", "sha338caea0a2532dc0ea8f46638ccc322bb8f9af48")),
                ),
                ("/i/tool-a1b2c3d.img", Some(("tool", "a1b2c3d"))),
                ("/i/scvi-py3.11-cu12.img", Some(("scvi", "py3.11-cu12"))),
                (
                    "/i/nf-core-gatk-4.4.0.0.img",
                    Some(("nf-core/gatk", "4.4.0.0")),
                ),
                (
                    "/i/biocontainers-bwa-v0.7.17_cv1.img",
                    Some(("biocontainers/bwa", "v0.7.17_cv1")),
                ),
                ("/i/fedora.simg", None),
                ("/i/my-tool.img", None),
            ],
        );
        check(
            tagged,
            &[(
                &format!("/i/mulled-v2-{SHA1}-{SHA1}-0.img"),
                Some((&format!("mulled-v2-{SHA1}"), &format!("{SHA1}-0"))),
            )],
        );
    }

    #[test]
    fn names_that_people_made() {
        check(
            tagged,
            &[
                ("/i/fmriprep-24.1.1.sif", Some(("fmriprep", "24.1.1"))),
                (
                    "/i/fmriprep-20.2.7-LTS.sif",
                    Some(("fmriprep", "20.2.7-LTS")),
                ),
                ("/i/my-tool-v3.sif", Some(("my-tool", "v3"))),
                ("/i/tool-1.2_3.sif", Some(("tool", "1.2_3"))),
                ("/i/my-tool-20240131.sif", Some(("my-tool", "20240131"))),
                (
                    "/i/bwa-0.7.17--h7132678_9",
                    Some(("bwa", "0.7.17--h7132678_9")),
                ),
                ("/i/covid-19.sif", None),
                ("/i/my-tool-dev.sif", None),
                ("/i/bwa-0.7.17", None),
                ("/i/-1.0.sif", None),
                ("/i/a--1.sif", None),
            ],
        );
    }
}
