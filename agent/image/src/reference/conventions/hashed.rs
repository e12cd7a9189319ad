//! Names that are hashes, and names of unfinished downloads: nothing to be told from them.

use super::{Answer, Name, shape};

/// Nextflow pulls to `<name>.pulling.<milliseconds>` (`SingularityCache.groovy:
/// getTempImagePath`); what it leaves there may be cut short, and carries no name of its own.
pub(super) fn unfinished<'a>(name: &Name<'a>) -> Option<Answer<'a>> {
    is_unfinished(name.file).then_some(Answer::Nameless)
}

/// Whether a file name ends in `.pulling.<milliseconds>`.
pub(super) fn is_unfinished(file: &str) -> bool {
    file.rsplit_once('.')
        .is_some_and(|(start, number)| shape::is_number(number) && start.ends_with(".pulling"))
}

/// Files that are called by a hash:
///
/// - runtime caches: `oci-tmp/<hex>`, `oci-sif/<hash>`, `library/sha256.<hex>`,
///   `oras/sha256:<hex>`, `shub/<hash>` (apptainer `internal/pkg/cache/cache.go`);
/// - Snakemake: `<MD5 of the URL>.simg` (`deployment/singularity.py: hash, path`);
/// - Singularity 2 with `SINGULARITY_SHUB_NAMEBYCOMMIT` or `…BYHASH` (`shub/api.py`);
/// - CVMFS: `.flat/<2>/<digest>` (DUCC), `.images/<2>/<hash>` (Open Science Grid);
/// - blobs of a registry, downloaded by address and flattened: `…-blobs-sha256-<2>-<hex>-data`.
pub(super) fn hash<'a>(name: &Name<'a>) -> Option<Answer<'a>> {
    (shape::is_hash(name.stem) || is_blob(name.stem)).then_some(Answer::Nameless)
}

/// A blob's address with `/` and `:` made hyphens.
fn is_blob(stem: &str) -> bool {
    stem.split_once("-sha256-").is_some_and(|(_, rest)| {
        rest.split('-')
            .take(2)
            .any(|part| part.len() == 64 && shape::is_hex(part))
    })
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;

    const SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn hashes() {
        let none = Some(("-", "-"));
        for path in [
            format!("/h/.apptainer/cache/oci-tmp/{SHA256}"),
            format!("/h/.apptainer/cache/library/sha256.{SHA256}"),
            format!("/h/.apptainer/cache/oras/sha256:{SHA256}"),
            format!("/cvmfs/unpacked.example.org/.flat/e3/{}", &SHA256[2..]),
            "/w/.snakemake/singularity/d41d8cd98f00b204e9800998ecf8427e.simg".to_owned(),
            format!("/w/cr.example.org-v2-blobs-sha256-e3-{SHA256}-data.img"),
        ] {
            check(hash, &[(&path, none)]);
        }
        check(
            hash,
            &[
                ("/w/tool_c539733016e15bbc.sif", None),
                ("/w/facade.sif", None),
                ("/w/a-sha256-b.img", None),
                (&format!("/w/tool@sha256_{SHA256}.sif"), None),
                (&format!("/w/tool-1-sha256:{SHA256}.sif"), None),
            ],
        );
    }

    #[test]
    fn unfinished_downloads() {
        check(
            unfinished,
            &[
                (
                    "/w/ghcr.io-a-b-1.0.img.pulling.1700000000000",
                    Some(("-", "-")),
                ),
                ("/w/ghcr.io-a-b-1.0.img", None),
                ("/w/pulling.1", None),
                ("/w/a.pulling.x", None),
            ],
        );
    }
}
