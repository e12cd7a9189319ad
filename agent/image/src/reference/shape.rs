//! What names, tags, versions and hashes look like. Everything here is a scan over a short text,
//! without allocation.

/// The longest repository: registries take 255 bytes.
const MAX_REPOSITORY: usize = 255;

/// The longest tag, by the OCI distribution specification.
const MAX_TAG: usize = 128;

/// One component of a repository, in the wider sense that also takes capitals (Singularity Hub).
pub(crate) fn is_component(text: &str) -> bool {
    text.len() <= MAX_REPOSITORY
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// A repository: components with `/` between.
pub(crate) fn is_repository(text: &str) -> bool {
    text.len() <= MAX_REPOSITORY && text.split('/').all(is_component)
}

/// A tag.
pub(crate) fn is_tag(text: &str) -> bool {
    (1..=MAX_TAG).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// A version in a label, which may also have semantic versioning's `+build`.
pub(crate) fn is_label_version(text: &str) -> bool {
    text.split('+').all(is_tag)
}

/// `22.04`, `24.10`, `22.04.3`: Ubuntu's way to number.
pub(crate) fn is_ubuntu_release(text: &str) -> bool {
    let mut parts = text.split('.');
    let year = parts.next().unwrap_or_default();
    let month = parts.next().unwrap_or_default();
    year.len() == 2 && is_number(year) && matches!(month, "04" | "10") && parts.all(is_number)
}

/// Digits only.
pub(crate) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Lower-case hexadecimal only.
pub(crate) fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A hash of at least an MD5's length, with or without the name of its algorithm in front.
pub(crate) fn is_hash(text: &str) -> bool {
    let digits = ["sha256", "sha512", "sha1", "md5"]
        .iter()
        .find_map(|name| text.strip_prefix(name)?.strip_prefix([':', '.', '-', '_']))
        .unwrap_or(text);
    (32..=128).contains(&digits.len()) && is_hex(digits)
}

/// A commit or content hash used as a tag: 7 to 15 hexadecimal digits with letters *and* digits
/// among them (so that no word and no date is one), or 16 and more (Wave) with a digit. `sha` may
/// stand in front, as Oxford Nanopore's workflows and GitHub's actions write it.
pub(crate) fn is_hash_tag(text: &str) -> bool {
    let text = match text.strip_prefix("sha") {
        Some(rest) if rest.len() >= 7 => rest.strip_prefix('-').unwrap_or(rest),
        _ => text,
    };
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    is_hex(text)
        && digits > 0
        && match text.len() {
            7..16 => digits < text.len(),
            16..=64 => true,
            _ => false,
        }
}

/// How much the beginning of a text looks like a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    /// Not at all.
    No,
    /// A bare number, whole: `9`, `20230101`.
    Number,
    /// A digit with something else behind it: `23Jun2022`, `2-0`, `2r1`.
    Digit,
    /// `1.2…`, `v2…`: nothing else looks like this.
    Clear,
}

/// Judges the beginning of a text.
pub(crate) fn version(text: &str) -> Version {
    let (text, v) = match text.strip_prefix(['v', 'V']) {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let mut rest = text[digits..].bytes();
    let next = rest.next();
    let dotted = next == Some(b'.') && rest.next().is_some_and(|b| b.is_ascii_alphanumeric());
    match digits {
        0 => Version::No,
        _ if v || dotted => Version::Clear,
        _ if next.is_none() => Version::Number,
        _ if is_dimension(text) => Version::No,
        _ => Version::Digit,
    }
}

/// `3d`, `64bit`: a digit that counts something else than versions.
fn is_dimension(text: &str) -> bool {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    matches!(unit, "d" | "D" | "bit" | "gb" | "GB" | "th" | "nd" | "mer")
}

/// A platform in front of a dotted version, as tags begin with: `py3.13`, `cu12.1`, `R-4.3` not.
pub(crate) fn is_platform_version(text: &str) -> bool {
    [
        "py", "python", "cu", "cuda", "rocm", "jdk", "jre", "el", "r", "R", "torch", "tf",
    ]
    .iter()
    .filter_map(|platform| text.strip_prefix(platform))
    .any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()) && version(rest) == Version::Clear)
}

/// Words that are tags and hardly anything else: the usual names of a moving version, and the code
/// names that Debian and Ubuntu tag their images with.
pub(crate) fn is_tag_word(text: &str) -> bool {
    matches!(
        text,
        "latest"
            | "stable"
            | "master"
            | "main"
            | "dev"
            | "devel"
            | "develop"
            | "nightly"
            | "edge"
            | "rolling"
            | "buster"
            | "bullseye"
            | "bookworm"
            | "trixie"
            | "stretch"
            | "jessie"
            | "trusty"
            | "xenial"
            | "bionic"
            | "focal"
            | "jammy"
            | "noble"
    )
}

/// A word that belongs to the version behind it: `release_110.1`, `version-2`.
pub(crate) fn is_version_word(text: &str) -> bool {
    matches!(text, "release" | "version" | "rel")
}

/// A build as Bioconda (`h91753b0_8`, `py36_0`, `0`) and Wave (a hash) put it behind `--`.
pub(crate) fn is_build(text: &str) -> bool {
    if text.len() >= 16 && is_hex(text) {
        return true;
    }
    let (hash, number) = match text.rsplit_once('_') {
        Some((hash, number)) => (hash, number),
        None => ("", text),
    };
    is_number(number)
        && hash
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'))
}

/// Where the build of `…--<build>` begins (at the two hyphens), if the text ends with one. Neither
/// a version nor a build of Conda's can hold a hyphen.
pub(crate) fn build_start(text: &str) -> Option<usize> {
    let at = text.rfind("--")?;
    (at > 0 && is_build(&text[at + 2..])).then_some(at)
}

/// Where the tag of a mulled image begins whose `:` became a hyphen, if this is one, with or
/// without more in front: `mulled-v2-<sha1>-<sha1>-<n>`, `mulled-v2-<sha1>-<n>` (galaxy
/// `tool_util/deps/mulled/util.py: v2_image_name`).
pub(crate) fn mulled_tag_start(text: &str) -> Option<usize> {
    let start = text.find("mulled-v")?;
    let prefix = start + "mulled-v2-".len();
    let end = prefix + 40;
    let bytes = text.as_bytes();
    (matches!(start.checked_sub(1).map(|at| bytes[at]), None | Some(b'-'))
        && matches!(text.get(prefix - 2..prefix), Some("1-" | "2-"))
        && text.get(prefix..end).is_some_and(is_hex)
        && bytes.get(end) == Some(&b'-')
        && text.get(end + 1..).is_some_and(is_tag))
    .then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (text, expected) in [
            ("1.2", Version::Clear),
            ("v2", Version::Clear),
            ("6.a5d", Version::Clear),
            ("2.", Version::Digit),
            ("9", Version::Number),
            ("23Jun2022", Version::Digit),
            ("2-0", Version::Digit),
            ("3d", Version::No),
            ("64bit", Version::No),
            ("vim", Version::No),
            ("a1.2", Version::No),
            ("", Version::No),
        ] {
            assert_eq!(version(text), expected, "{text}");
        }
    }

    #[test]
    fn hashes() {
        for (text, hash, tag) in [
            ("d41d8cd98f00b204e9800998ecf8427e", true, true),
            ("sha256:d41d8cd98f00b204e9800998ecf8427e", true, false),
            ("sha256.d41d8cd98f00b204e9800998ecf8427e", true, false),
            ("c539733016e15bbc", false, true),
            ("a1b2c3d", false, true),
            ("20240131", false, false),
            ("effaced", false, false),
            ("sha338caea0a2532dc0ea8f46638ccc322bb8f9af48", false, true),
            ("sha-a1b2c3d", false, true),
            ("shaa1b2c3d", false, true),
            ("shared", false, false),
            ("abc12", false, false),
            ("D41D8CD98F00B204E9800998ECF8427E", false, false),
        ] {
            assert_eq!(is_hash(text), hash, "{text}");
            assert_eq!(is_hash_tag(text), tag, "{text}");
        }
    }

    #[test]
    fn builds() {
        for (text, build) in [
            ("h91753b0_8", true),
            ("py36_0", true),
            ("0", true),
            ("469416be288311d1", true),
            ("pl5.22.0_1", true),
            ("beta", false),
            ("x_y", false),
            ("", false),
        ] {
            assert_eq!(is_build(text), build, "{text}");
        }
        assert_eq!(build_start("a-1--0"), Some(3));
        assert_eq!(build_start("a--b"), None);
    }

    #[test]
    fn names_and_tags() {
        assert!(is_repository("host.example/Org/tool_x"));
        for text in ["", "/a", "a/", "a//b", "a b", "a:b", "é", ".a"] {
            assert!(!is_repository(text), "{text}");
        }
        for length in [MAX_REPOSITORY, MAX_REPOSITORY + 1] {
            let name = "x".repeat(length);
            assert_eq!(is_component(&name), length == MAX_REPOSITORY);
            assert_eq!(
                is_repository(&["a/", &name[2..]].concat()),
                length == MAX_REPOSITORY
            );
        }
        assert!(is_tag(&"x".repeat(MAX_TAG)));
        assert!(is_hash(&"a".repeat(128)) && !is_hash(&"a".repeat(129)));
        assert!(is_hash_tag(&"1".repeat(64)) && !is_hash_tag(&"1".repeat(65)));
        assert!(is_tag("_x.1-2"));
        for text in ["", ".1", "-1", "a:b", &"x".repeat(129)] {
            assert!(!is_tag(text), "{text}");
        }
        assert!(is_label_version("1.0+b2") && !is_label_version("1+"));
        assert!(is_ubuntu_release("22.04") && is_ubuntu_release("22.04.3"));
        assert!(!is_ubuntu_release("22.04.x"));
        assert!(!is_ubuntu_release("22.05") && !is_ubuntu_release("1.04"));
        assert!(is_platform_version("py3.13") && !is_platform_version("plink1.9"));
    }

    #[test]
    fn mulled() {
        let sha1 = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(
            mulled_tag_start(&format!("mulled-v2-{sha1}-{sha1}-0")),
            Some(51)
        );
        assert_eq!(mulled_tag_start(&format!("mulled-v2-{sha1}-1")), Some(51));
        assert_eq!(mulled_tag_start(&format!("mulled-v2-{sha1}")), None);
        assert_eq!(
            mulled_tag_start(&format!("host-mulled-v1-{sha1}-1")),
            Some(56)
        );
        assert_eq!(mulled_tag_start(&format!("xmulled-v2-{sha1}-1")), None);
        assert_eq!(mulled_tag_start("mulled-v2-tool-1"), None);
        assert_eq!(mulled_tag_start("mulled-v"), None);
    }
}
