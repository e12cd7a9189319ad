//! `<name>-<tag>`: Singularity 2 (`<name>-<tag>.simg`, `:` made a hyphen; 2.6.1
//! `libexec/cli/pull.exec`), `nf-core pipelines download` (Nextflow's names with the registry cut
//! off; `container_fetcher.py: get_container_filename`), and people.
//!
//! Names are full of hyphens, so a split needs a recognisable tag. Under an ending that tools give
//! to such names (`.simg`, `.img`) a bare number or a word like `dev` is one; under `.sif`, which
//! no tool but Nextflow joins with hyphens, only a clear version: `covid-19.sif` is no version 19.

use super::split::{self, Vocabulary};
use super::{Answer, Ending, Name, registry, shape};

/// `<name>-<tag>`.
pub(super) fn tagged<'a>(name: &Name<'a>) -> Option<Answer<'a>> {
    let vocabulary = match name.ending {
        Ending::Simg | Ending::Img => Vocabulary::Tool,
        Ending::Sif => Vocabulary::People,
        // Without an ending only a Conda build is telling.
        Ending::None if shape::build_start(name.stem).is_some() => Vocabulary::People,
        Ending::None => return None,
    };
    let (image, tag) = split::at_hyphen(name.stem, vocabulary)?;
    match (name.ending, registry::with_namespace(image)) {
        (Ending::Img, Some(repository)) => Answer::named(repository, tag),
        _ => Answer::named(image, tag),
    }
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
