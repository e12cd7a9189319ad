//! References as people and tools write them (`host:port/namespace/name:tag@digest`), and their
//! familiar form.

use memchr::{memchr, memrchr};

/// Bytes of a reference that are looked at; the longest a registry takes is 255 + 128 + 71.
const MAX_REFERENCE: usize = 1024;

/// Splits a reference into repository and tag.
///
/// A missing tag is `latest`; a digest is the tag, whatever other tag there is; the tag is behind
/// the last `:` after the last `/`, so that a host's port is none. `familiar` drops Docker Hub's
/// host and `library/`, which only Docker and OCI references have. `None` for what is no
/// reference: empty, with blanks or control characters, an unfilled `{{ }}`, or far too long.
pub(crate) fn split(reference: &str, familiar: bool) -> Option<(String, String)> {
    let reference = without_scheme(reference.trim());
    if reference.is_empty() || reference.len() > MAX_REFERENCE || !is_one_word(reference) {
        return None;
    }
    let (name, digest) = match memchr(b'@', reference.as_bytes()) {
        Some(at) => (&reference[..at], Some(&reference[at + 1..])),
        None => (reference, None),
    };
    let start = memrchr(b'/', name.as_bytes()).map_or(0, |at| at + 1);
    let (repository, tag) = match memrchr(b':', &name.as_bytes()[start..]) {
        Some(at) => (&name[..start + at], Some(&name[start + at + 1..])),
        None => (name, None),
    };
    let repository = repository.trim_end_matches('/');
    let tag = digest.or(tag).filter(|tag| !tag.is_empty());
    let repository = if familiar {
        familiarize(repository)
    } else {
        repository
    };
    (!repository.is_empty()).then(|| (repository.to_owned(), tag.unwrap_or("latest").to_owned()))
}

/// Whether there are no blanks, control characters and braces.
fn is_one_word(text: &str) -> bool {
    if text.is_ascii() {
        let is_allowed = |byte: u8| byte > b' ' && !matches!(byte, b'{' | b'}' | 0x7f);
        return text.bytes().all(is_allowed);
    }
    !text
        .chars()
        .any(|c| c.is_whitespace() || c.is_control() || matches!(c, '{' | '}'))
}

/// A repository and tag in one piece.
pub(crate) fn join(repository: &str, tag: &str) -> String {
    let digest = tag.contains(':');
    format!("{repository}{}{tag}", if digest { '@' } else { ':' })
}

/// Drops Docker Hub's host and its `library/`; leaves every other host and namespace alone.
pub(crate) fn familiarize(repository: &str) -> &str {
    let name = ["docker.io/", "index.docker.io/"]
        .iter()
        .find_map(|host| repository.strip_prefix(host))
        .unwrap_or(repository);
    match name.strip_prefix("library/") {
        // `library/` is Hub's namespace only directly before a name.
        Some(official) if !official.contains('/') => official,
        _ => name,
    }
}

fn without_scheme(reference: &str) -> &str {
    let is_of_scheme = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let scheme = reference.bytes().take_while(|byte| is_of_scheme(*byte));
    let rest = &reference[scheme.count()..];
    let rest = rest.strip_prefix("://").unwrap_or(reference);
    rest.trim_start_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitting() {
        for (reference, repository, tag) in [
            ("fedora", "fedora", "latest"),
            ("fedora:40", "fedora", "40"),
            ("quay.io/org/tool:1.0--0", "quay.io/org/tool", "1.0--0"),
            ("localhost:5000/a/b", "localhost:5000/a/b", "latest"),
            ("localhost:5000/a/b:c", "localhost:5000/a/b", "c"),
            ("debian@sha256:ab", "debian", "sha256:ab"),
            ("h:1/debian:12@sha256:ab", "h:1/debian", "sha256:ab"),
            ("docker://fedora:40", "fedora", "40"),
            ("//fedora:40", "fedora", "40"),
            ("docker.io/library/fedora", "fedora", "latest"),
            ("index.docker.io/library/fedora:1", "fedora", "1"),
            ("docker.io/org/tool:1", "org/tool", "1"),
            ("library/fedora:1", "fedora", "1"),
            ("library/default/tool:1", "library/default/tool", "1"),
            (
                "docker.io.example/library/x:1",
                "docker.io.example/library/x",
                "1",
            ),
            ("ghcr.io/library/x:1", "ghcr.io/library/x", "1"),
            ("tool:", "tool", "latest"),
            ("tool/", "tool", "latest"),
            ("h/a:1/b", "h/a:1/b", "latest"),
        ] {
            assert_eq!(
                split(reference, true),
                Some((repository.to_owned(), tag.to_owned())),
                "{reference}"
            );
        }
        assert_eq!(
            split("library/lolcow:1", false),
            Some(("library/lolcow".to_owned(), "1".to_owned()))
        );
    }

    #[test]
    fn no_references() {
        let long = "a".repeat(MAX_REFERENCE + 1);
        assert!(split(&long[1..], true).is_some());
        for text in [
            "",
            "  ",
            ":1",
            "@sha256:ab",
            "a b",
            "alpine:{{ TAG }}",
            "a\u{1b}[31m",
            "a\u{7f}",
            "a}",
            // The same where not all is ASCII.
            "\u{e9} b",
            "\u{e9}{b",
            "\u{e9}\u{7f}",
            "a\u{9b}",
            "a\u{a0}b",
            "/",
            &long,
        ] {
            assert_eq!(split(text, true), None, "{text:?}");
        }
    }

    #[test]
    fn joining() {
        assert_eq!(join("a", "1"), "a:1");
        assert_eq!(join("a", "sha256:ab"), "a@sha256:ab");
    }
}
