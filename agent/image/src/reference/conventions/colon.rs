//! Names that kept the colon: `<name>:<tag>`.

use std::borrow::Cow;

use super::{Answer, Ending, Name, registry};

/// CVMFS of the Open Science Grid: `…/singularity.opensciencegrid.org/<namespace>/<image>:<tag>`,
/// a link to `.images/…`; the registry is dropped, the namespace never
/// (`cvmfs-singularity-sync: parse_image, make_final_symlink`).
pub(super) fn open_science_grid<'a>(name: &Name<'a>) -> Option<Answer<'a>> {
    let namespace = below(name.directory, |part| {
        part == "singularity.opensciencegrid.org"
    })?;
    tree(name, namespace)
}

/// CVMFS `unpacked.*` as DUCC publishes it: `…/unpacked.cern.ch/<registry>/<repository>:<tag>`, a
/// link to `.flat/…` (cvmfs `ducc/lib/image.go: GetPublicSymlinkPath`).
pub(super) fn unpacked<'a>(name: &Name<'a>) -> Option<Answer<'a>> {
    let registry = below(name.directory, |part| {
        part.starts_with("unpacked.") && registry::is_host(part)
    })?;
    tree(name, registry)
}

/// `<name>:<version>--<build>` of the Galaxy depot and its CVMFS tree (`all/`, `<c>/<i>/`), which
/// hold one namespace; `<image>:<tag>.img` of cwltool, which makes `/` an underscore
/// (`cwltool/singularity.py: _normalize_image_id`); and any other file with a name, one colon and
/// a tag. A download may have the colon as `%3A`.
pub(super) fn depot<'a>(name: &Name<'a>) -> Option<Answer<'a>> {
    let (image, tag) = split(name)?;
    match registry::with_host(image, '_').or_else(|| registry::with_host(image, '-')) {
        Some(repository) => Answer::named(repository, tag),
        None => Answer::named(image, tag),
    }
}

/// Repository and tag of a file in a tree whose directories are the beginning of the repository.
fn tree<'a>(name: &Name<'a>, directories: &'a str) -> Option<Answer<'a>> {
    if directories.starts_with('.') {
        return Some(Answer::Nameless);
    }
    if let Some((image, digest)) = name.file.split_once('@') {
        return Answer::named(joined(directories, image), digest);
    }
    let (image, tag) = name.file.split_once(':')?;
    Answer::named(joined(directories, image), tag)
}

fn joined<'a>(directories: &'a str, image: &'a str) -> Cow<'a, str> {
    if directories.is_empty() {
        Cow::Borrowed(image)
    } else {
        Cow::Owned([directories, image].join("/"))
    }
}

/// The directories below the first one that `is_root`; `None` if there is no such.
fn below(directory: &str, is_root: impl Fn(&str) -> bool) -> Option<&str> {
    let mut rest = directory;
    loop {
        let (part, after) = rest.split_once('/').unwrap_or((rest, ""));
        if is_root(part) {
            return Some(after);
        }
        if after.is_empty() {
            return None;
        }
        rest = after;
    }
}

/// Name and tag at the one colon of a file name.
fn split<'a>(name: &Name<'a>) -> Option<(&'a str, &'a str)> {
    // A tag may end like a file, but no tag is known to end like an image.
    let text = match name.ending {
        Ending::None => name.file,
        Ending::Sif | Ending::Simg | Ending::Img => name.stem,
    };
    text.split_once(':')
        .or_else(|| text.split_once("%3A"))
        .or_else(|| text.split_once("%3a"))
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;

    #[test]
    fn depots() {
        check(
            depot,
            &[
                (
                    "/depot/bwa:0.7.17--h7132678_9",
                    Some(("bwa", "0.7.17--h7132678_9")),
                ),
                (
                    "/depot/bwa%3A0.7.17--h7132678_9",
                    Some(("bwa", "0.7.17--h7132678_9")),
                ),
                (
                    "/cvmfs/singularity.galaxyproject.org/b/w/bwa:0.7.17",
                    Some(("bwa", "0.7.17")),
                ),
                (
                    "mulled-v2-0123456789abcdef0123456789abcdef01234567:fedcba98-0",
                    Some((
                        "mulled-v2-0123456789abcdef0123456789abcdef01234567",
                        "fedcba98-0",
                    )),
                ),
                ("/c/debian:stable-slim.sif", Some(("debian", "stable-slim"))),
                (
                    "/c/quay.io_org_my_tool:1.0.img",
                    Some(("quay.io/org/my_tool", "1.0")),
                ),
                (
                    "/c/ghcr.io-org-my-tool%3A1.0.img",
                    Some(("ghcr.io/org/my-tool", "1.0")),
                ),
                ("/c/org_tool:1.0.img", Some(("org_tool", "1.0"))),
                ("/c/bwa", None),
                ("/c/a:b:c", None),
                ("/c/:1.0", None),
                ("/c/bwa:", None),
                ("/c/b wa:1", None),
            ],
        );
    }

    #[test]
    fn trees() {
        check(
            open_science_grid,
            &[
                (
                    "/cvmfs/singularity.opensciencegrid.org/htc/rocky:9",
                    Some(("htc/rocky", "9")),
                ),
                (
                    "/mirror/singularity.opensciencegrid.org/a/b/c_d:23Jun2022",
                    Some(("a/b/c_d", "23Jun2022")),
                ),
                (
                    "/cvmfs/singularity.opensciencegrid.org/.images/ab/cdef",
                    Some(("-", "-")),
                ),
                ("/cvmfs/singularity.opensciencegrid.org/htc/rocky", None),
                ("/cvmfs/other.example.org/htc/rocky:9", None),
            ],
        );
        check(
            unpacked,
            &[
                (
                    "/cvmfs/unpacked.cern.ch/registry.example.org/library/centos:7",
                    Some(("registry.example.org/library/centos", "7")),
                ),
                (
                    "/cvmfs/unpacked.infn.it/harbor.example.org:8443/a/b:1",
                    Some(("harbor.example.org:8443/a/b", "1")),
                ),
                (
                    "/cvmfs/unpacked.cern.ch/ghcr.io/a/b@sha256:d41d8cd98f00b204e9800998ecf8427e",
                    Some(("ghcr.io/a/b", "sha256:d41d8cd98f00b204e9800998ecf8427e")),
                ),
                ("/cvmfs/unpacked.cern.ch/.flat/ab/cdef", Some(("-", "-"))),
                ("/data/ghcr.io/a/b:1", None),
                ("/data/unpacked.images/a/b:1", None),
            ],
        );
    }
}
