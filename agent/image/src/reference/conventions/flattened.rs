//! Whole references with their separators replaced.
//!
//! Nextflow makes `/` and `:` hyphens and appends `.img`, or keeps a `.sif`
//! (`SingularityCache.groovy: simpleName`); nf-core links such names for each registry
//! (`singularity.py: symlink_registries`); cwltool makes `/` an underscore. This cannot be undone
//! in general. It can where the name begins with a host: a registry's reference has, nearly
//! always, one namespace and a name. GitLab's registries nest deeper, which a flat name does not
//! show.

use std::net::Ipv4Addr;

use super::super::oci;
use super::{Answer, Ending, Name, dashed, pull, shape};

/// Top-level domains of registries. A short list is enough to tell a host from a version.
const TOP_LEVEL: [&str; 42] = [
    "io", "org", "com", "net", "edu", "gov", "mil", "int", "dev", "aws", "ai", "app", "cloud",
    "science", "local", "internal", "lan", "ch", "de", "eu", "uk", "fr", "nl", "se", "no", "dk",
    "fi", "es", "it", "pl", "cz", "at", "be", "pt", "ca", "us", "au", "jp", "cn", "kr", "in", "br",
];

/// Namespaces of workflow collections that have a hyphen of their own.
const HYPHENATED: [&str; 3] = ["nf-core", "broad-gatk", "epi2me-labs"];

/// Namespaces that begin a name whose registry was cut off.
const NAMESPACES: [&str; 3] = ["nf-core", "nfcore", "biocontainers"];

/// `<host>-<namespace>-<name>-<tag>`.
pub(super) fn workflow<'a>(name: &Name<'a>) -> Option<Answer<'a>> {
    if name.ending == Ending::None {
        return None;
    }
    let (host, path) = host(name.stem, '-')?;
    if let Some((image, tag)) = dashed::split(path, dashed::Vocabulary::Tool)
        && pull::split(image).is_none()
    {
        return Answer::named(assemble(&host, image, '-'), tag);
    }
    // A pulled file that got the registry in front of its name: what a pull's name gives.
    if let Some((image, tag)) = pull::split(path) {
        return Answer::named(without_namespace(image), tag);
    }
    // Two parts are namespace and name, and the tag is implied; in more, one may be a tag.
    (path.split('-').count() == 2)
        .then(|| Answer::named(assemble(&host, path, '-'), "latest"))
        .flatten()
}

/// The repository of a flat name without tag that begins with a host.
pub(super) fn with_host(name: &str, separator: char) -> Option<String> {
    let (host, path) = host(name, separator)?;
    Some(assemble(&host, path, separator))
}

/// The repository of a flat name that begins with a known namespace.
pub(super) fn with_namespace(name: &str) -> Option<String> {
    NAMESPACES.iter().find_map(|namespace| {
        let rest = name.strip_prefix(namespace)?.strip_prefix('-')?;
        (!rest.is_empty()).then(|| format!("{namespace}/{rest}"))
    })
}

/// The host that a flat name begins with, its port included, and what follows it.
fn host(name: &str, separator: char) -> Option<(String, &str)> {
    let (at, _) = name
        .match_indices(separator)
        .take(4)
        .find(|(at, _)| is_host(&name[..*at]))?;
    let (host, path) = (&name[..at], &name[at + 1..]);
    if let Some((port, rest)) = path.split_once(separator)
        && (4..=5).contains(&port.len())
        && shape::is_number(port)
        && !rest.is_empty()
    {
        return Some((format!("{host}:{port}"), rest));
    }
    (!path.is_empty()).then(|| (host.to_owned(), path))
}

/// Whether a text is a host as registries have: a domain name, an address, or `localhost`.
pub(super) fn is_host(text: &str) -> bool {
    if text == "localhost" || text.parse::<Ipv4Addr>().is_ok() {
        return true;
    }
    let Some((labels, top)) = text.rsplit_once('.') else {
        return false;
    };
    TOP_LEVEL.contains(&top)
        && labels.split('.').all(|label| {
            !label.is_empty()
                && !shape::is_number(label)
                && label
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        })
}

/// Host, namespace and name with `/` between, in the familiar form.
fn assemble(host: &str, path: &str, separator: char) -> String {
    let (namespace, name) = divide(path, separator);
    let mut repository = format!("{host}/");
    if !namespace.is_empty() {
        repository.push_str(namespace);
        repository.push('/');
    }
    repository.push_str(name);
    let familiar = oci::familiarize(&repository).len();
    repository.split_off(repository.len() - familiar)
}

fn without_namespace(path: &str) -> &str {
    divide(path, '-').1
}

/// Namespace and name; no namespace if there is but one part.
fn divide(path: &str, separator: char) -> (&str, &str) {
    HYPHENATED
        .iter()
        .find_map(|namespace| {
            let name = path.strip_prefix(namespace)?.strip_prefix(separator)?;
            Some((*namespace, name))
        })
        .or_else(|| path.split_once(separator))
        .filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty())
        .unwrap_or(("", path))
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

    #[test]
    fn hosts() {
        for (text, is) in [
            ("quay.io", true),
            ("a-b.example.org", true),
            ("localhost", true),
            ("127.0.0.1", true),
            ("plink1.9", false),
            ("3.8.dev", false),
            (".io", false),
            ("io", false),
            ("Quay.io", false),
        ] {
            assert_eq!(is_host(text), is, "{text}");
        }
    }
}
