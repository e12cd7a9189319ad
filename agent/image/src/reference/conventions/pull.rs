//! `pull` of Apptainer, SingularityCE and Singularity 3: `<last path part>_<tag>.sif`, `.oci.sif`
//! with `--oci` (apptainer `internal/pkg/util/uri/uri.go: GetName`). Host and namespace are lost.
//!
//! Names and tags may themselves hold underscores, so the right one must be found; it is the one
//! behind which a tag is recognisable. A name without one (`my_container.sif`) has no tag.

use super::split::{self, Vocabulary};
use super::{Answer, Ending, Name, registry, shape};

/// `<name>@sha256_<hex>`: the `:` of a digest becomes an underscore, or in workflow managers' names
/// a hyphen.
pub(super) fn by_digest<'a>(name: &Name<'a>) -> Option<Answer<'a>> {
    let (image, digest) = name.stem.rsplit_once('@')?;
    let hex = digest
        .strip_prefix("sha256")?
        .strip_prefix(['_', '-', ':'])?;
    if hex.len() != 64 || !shape::is_hex(hex) {
        return None;
    }
    let tag = format!("sha256:{hex}");
    match registry::with_host(image, '-').or_else(|| registry::with_host(image, '_')) {
        Some(repository) => Answer::named(repository, tag),
        None => Answer::named(image, tag),
    }
}

/// `<name>_<tag>`.
pub(super) fn tagged<'a>(name: &Name<'a>) -> Option<Answer<'a>> {
    let stem = name.stem;
    // Without an ending only a Conda build is telling.
    if name.ending == Ending::None && shape::build_start(stem).is_none() {
        return None;
    }
    // Other tools' endings go with hyphens, unless an underscore stands before a version.
    if matches!(name.ending, Ending::Img | Ending::Simg)
        && split::at_hyphen(stem, Vocabulary::Tool)
            .is_some_and(|(image, _)| split::at_underscore(image).is_none())
    {
        return None;
    }
    let (image, tag) = split::at_underscore(stem)?;
    match registry::with_host(image, '_') {
        // cwltool: `/` becomes an underscore as well (`singularity.py: _normalize_sif_id`).
        Some(repository) => Answer::named(repository, tag),
        None => Answer::named(image, tag),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;

    #[test]
    fn pulls() {
        const SHA1: &str = "0123456789abcdef0123456789abcdef01234567";
        const SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        check(
            tagged,
            &[
                ("/i/fedora_40.sif", Some(("fedora", "40"))),
                ("/i/fedora_latest.sif", Some(("fedora", "latest"))),
                ("/i/fedora_40.oci.sif", Some(("fedora", "40"))),
                ("/i/my_tool_v2.sif", Some(("my_tool", "v2"))),
                ("/i/my_tool_2.1_rc1.sif", Some(("my_tool", "2.1_rc1"))),
                (
                    "/i/fastx_toolkit_0.0.14--hdbdd923_11.sif",
                    Some(("fastx_toolkit", "0.0.14--hdbdd923_11")),
                ),
                (
                    "/i/trinity_date.2011_11_26--0.sif",
                    Some(("trinity", "date.2011_11_26--0")),
                ),
                (
                    "/i/kraken_0.10.6_eaf8fb68--0.sif",
                    Some(("kraken", "0.10.6_eaf8fb68--0")),
                ),
                (
                    "/i/a_b_main--469416be288311d1.sif",
                    Some(("a_b", "main--469416be288311d1")),
                ),
                (
                    "/i/numpy_python_0a1b2c3d4e5f6071.sif",
                    Some(("numpy_python", "0a1b2c3d4e5f6071")),
                ),
                ("/i/pipe_a1b2c3d.sif", Some(("pipe", "a1b2c3d"))),
                (
                    "/i/cmssw_5_3_32_latest.sif",
                    Some(("cmssw_5_3_32", "latest")),
                ),
                (
                    "/i/lammps_sw0_23Jun2022.sif",
                    Some(("lammps_sw0", "23Jun2022")),
                ),
                ("/i/pytorch_24.01-py3.sif", Some(("pytorch", "24.01-py3"))),
                ("/i/debian_stable-slim.sif", Some(("debian", "stable-slim"))),
                (
                    "/i/debian_bookworm-slim.sif",
                    Some(("debian", "bookworm-slim")),
                ),
                ("/i/vep_release_110.1.sif", Some(("vep", "release_110.1"))),
                (
                    "/i/wf_sha338caea0a2532dc0ea8f46638ccc322bb8f9af48.sif",
                    Some(("wf", "sha338caea0a2532dc0ea8f46638ccc322bb8f9af48")),
                ),
                ("/i/tool_py3.11.sif", Some(("tool", "py3.11"))),
                (
                    "/i/omics-integrator-2_v2.sif",
                    Some(("omics-integrator-2", "v2")),
                ),
            ],
        );
        check(
            tagged,
            &[
                (
                    &format!("/i/mulled-v2-{SHA1}_{SHA1}-0.sif"),
                    Some((&format!("mulled-v2-{SHA1}"), &format!("{SHA1}-0"))),
                ),
                (
                    &format!("/i/lolcow_sha256.{SHA256}.sif"),
                    Some(("lolcow", &format!("sha256.{SHA256}"))),
                ),
            ],
        );
    }

    #[test]
    fn other_names() {
        check(
            tagged,
            &[
                (
                    "/i/quay.io_org_tool_1.0.sif",
                    Some(("quay.io/org/tool", "1.0")),
                ),
                (
                    "/i/bwa_0.7.17--h7132678_9",
                    Some(("bwa", "0.7.17--h7132678_9")),
                ),
                ("/i/fedora_40.simg", Some(("fedora", "40"))),
                ("/i/fedora_40", None),
                ("/i/rna_tools.sif", None),
                ("/i/tool-x86_64.sif", None),
                ("/i/tool-1.2_3.sif", None),
                ("/i/cuda-12.2_devel.sif", None),
                ("/i/das_tool-1.1.7--r44hdfd78af_1.img", None),
                ("/i/das_tool-1.1.7--r44hdfd78af_1.sif", None),
                ("/i/_latest.sif", None),
                ("/i/a_.sif", None),
            ],
        );
    }

    #[test]
    fn digests() {
        const SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let tag = format!("sha256:{SHA256}");
        check(
            by_digest,
            &[
                (
                    &format!("/i/fedora@sha256_{SHA256}.sif"),
                    Some(("fedora", &tag)),
                ),
                (
                    &format!("/i/quay.io-org-my-tool@sha256-{SHA256}.img"),
                    Some(("quay.io/org/my-tool", &tag)),
                ),
                ("/i/fedora@sha256_12.sif", None),
                ("/i/fedora_40.sif", None),
                ("/i/me@home.sif", None),
            ],
        );
    }
}
