//! Whole references with their separators replaced.
//!
//! Nextflow makes `/` and `:` hyphens and appends `.img`, or keeps a `.sif`
//! (`SingularityCache.groovy: simpleName`); nf-core links such names for each registry
//! (`singularity.py: symlink_registries`); cwltool makes `/` an underscore. This cannot be undone
//! in general. It can where the name begins with a host: a registry's reference has, nearly
//! always, one namespace and a name. GitLab's registries nest deeper, which a flat name does not
//! show.

use super::split::{self, Vocabulary};
use super::{Answer, Ending, Name, registry};

/// `<host>-<namespace>-<name>-<tag>`.
pub(super) fn workflow<'a>(name: &Name<'a>) -> Option<Answer<'a>> {
    if name.ending == Ending::None {
        return None;
    }
    let (host, path) = registry::host(name.stem, '-')?;
    if let Some((image, tag)) = split::at_hyphen(path, Vocabulary::Tool)
        && split::at_underscore(image).is_none()
    {
        return Answer::named(registry::assemble(&host, image, '-'), tag);
    }
    // A pulled file that got the registry in front of its name: what a pull's name gives.
    if let Some((image, tag)) = split::at_underscore(path) {
        return Answer::named(registry::without_namespace(image), tag);
    }
    // Two parts are namespace and name, and the tag is implied; in more, one may be a tag.
    (path.split('-').count() == 2)
        .then(|| Answer::named(registry::assemble(&host, path, '-'), "latest"))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;

    #[test]
    fn names_of_workflow_managers() {
        const SHA1: &str = "0123456789abcdef0123456789abcdef01234567";
        check(
            workflow,
            &[
                (
                    "/w/quay.io-biocontainers-bwa-0.7.17--h7132678_9.img",
                    Some(("quay.io/biocontainers/bwa", "0.7.17--h7132678_9")),
                ),
                (
                    "/w/ghcr.io-org-my-tool-v2.img",
                    Some(("ghcr.io/org/my-tool", "v2")),
                ),
                (
                    "/w/ghcr.io-org-my-tool-py3.12-cu12-1.0-.img",
                    Some(("ghcr.io/org/my-tool", "py3.12-cu12-1.0-")),
                ),
                (
                    "/w/quay.io-nf-core-ubuntu-20.04.img",
                    Some(("quay.io/nf-core/ubuntu", "20.04")),
                ),
                (
                    "/w/nvcr.io-nvidia-pytorch-24.01-py3.sif",
                    Some(("nvcr.io/nvidia/pytorch", "24.01-py3")),
                ),
                (
                    "/w/gitlab-registry.cern.ch-group-tool-1.0.img",
                    Some(("gitlab-registry.cern.ch/group/tool", "1.0")),
                ),
                ("/w/docker.io-library-debian-12.img", Some(("debian", "12"))),
                ("/w/docker.io-org-tool-12.img", Some(("org/tool", "12"))),
                (
                    "/w/localhost-5000-org-tool-1.0.img",
                    Some(("localhost:5000/org/tool", "1.0")),
                ),
                (
                    "/w/localhost-50000-org-tool-1.0.img",
                    Some(("localhost:50000/org/tool", "1.0")),
                ),
                (
                    "/w/a-b-c-d.example.org-org-tool-1.0.img",
                    Some(("a-b-c-d.example.org/org/tool", "1.0")),
                ),
                (
                    "/w/10.0.0.7-5000-org-tool-1.0.img",
                    Some(("10.0.0.7:5000/org/tool", "1.0")),
                ),
                (
                    "/w/registry.example.org-5000-org-tool-latest.img",
                    Some(("registry.example.org:5000/org/tool", "latest")),
                ),
                (
                    "/w/community.wave.seqera.io-library-a_b-0a1b2c3d4e5f6071.img",
                    Some(("community.wave.seqera.io/library/a_b", "0a1b2c3d4e5f6071")),
                ),
                (
                    "/w/ghcr.io-org-tool.img",
                    Some(("ghcr.io/org/tool", "latest")),
                ),
                (
                    "/w/quay.io-biocontainers-bwa_0.7.17--h7132678_9.img",
                    Some(("bwa", "0.7.17--h7132678_9")),
                ),
                ("/w/ghcr.io-org-tool-something.img", None),
                ("/w/org-tool-1.0.img", None),
                ("/w/python-3.8.dev-1.img", None),
                ("/w/ghcr.io-.img", None),
                ("/w/ghcr.io-org-tool-1.0", None),
            ],
        );
        check(
            workflow,
            &[(
                &format!("/w/depot.galaxyproject.org-singularity-mulled-v2-{SHA1}-{SHA1}-0.img"),
                Some((
                    &format!("depot.galaxyproject.org/singularity/mulled-v2-{SHA1}"),
                    &format!("{SHA1}-0"),
                )),
            )],
        );
    }
}
