//! What a flat name begins with where its separators were replaced: a registry's host, and a namespace.

use std::net::Ipv4Addr;

use super::super::oci;
use super::shape;

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
pub(super) fn host(name: &str, separator: char) -> Option<(String, &str)> {
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
pub(super) fn assemble(host: &str, path: &str, separator: char) -> String {
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

/// The name of a path whose separators were made hyphens.
pub(super) fn without_namespace(path: &str) -> &str {
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
    use super::*;

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
