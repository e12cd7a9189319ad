//! Where a name ends and its tag begins, if a hyphen or an underscore is between them. Both may hold
//! more of either: the right one is that behind which a tag is recognisable.

use super::shape::{self, Version};

/// How much counts as a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vocabulary {
    /// Names that tools made.
    Tool,
    /// Names that people made: clear versions, dates and `latest` only.
    People,
}

/// Splits at the hyphen behind which there is a tag.
pub(super) fn at_hyphen(text: &str, vocabulary: Vocabulary) -> Option<(&str, &str)> {
    if let Some(at) = shape::mulled_tag_start(text) {
        return Some((&text[..at - 1], &text[at..]));
    }
    if let Some(build) = shape::build_start(text) {
        return hyphenated_build(text, build);
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
            return Some(with_word(text, image, '-').unwrap_or((image, rest)));
        }
    }
    if !tool {
        return None;
    }
    let word = places().find(|(_, rest)| shape::is_tag_word(part(rest)));
    word.or_else(|| (!before.is_empty() && shape::is_hash_tag(last)).then_some((before, last)))
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
fn hyphenated_build(text: &str, build: usize) -> Option<(&str, &str)> {
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

/// Splits at the underscore behind which there is a tag.
pub(super) fn at_underscore(stem: &str) -> Option<(&str, &str)> {
    // The default tag comes first: `cmssw_5_3_32_latest`.
    if let Some(image) = stem.strip_suffix("_latest") {
        return (!image.is_empty()).then_some((image, "latest"));
    }
    let build = shape::build_start(stem);
    let zone = &stem[..build.unwrap_or(stem.len())];
    let places = || {
        zone.match_indices('_')
            .map(|(at, _)| (&stem[..at], &stem[at + 1..]))
            .filter(|(image, rest)| {
                let x86_64 = image.ends_with("x86") && rest.starts_with("64");
                !image.is_empty() && !rest.is_empty() && !x86_64
            })
    };
    let clear = places().find(|(_, rest)| shape::version(rest) == Version::Clear);
    if let Some((image, tag)) = clear {
        return Some(with_word(stem, image, '_').unwrap_or((image, tag)));
    }
    if build.is_some() {
        return underscored_build(zone, places);
    }
    let (image, last) = places().next_back()?;
    if is_hash(last) {
        return Some((image, last));
    }
    // What follows a hyphenated version belongs to it: `tool-1.2_3`, `cuda-12.2_devel`.
    let free = |image: &str| at_hyphen(image, Vocabulary::People).is_none();
    let number = places().find(|(image, rest)| shape::version(rest) != Version::No && free(image));
    if let Some((image, tag)) = number {
        return Some(with_word(stem, image, '_').unwrap_or((image, tag)));
    }
    let word = last.split('-').next().unwrap_or_default();
    let is_tag = shape::is_tag_word(word) || shape::is_platform_version(last);
    (is_tag && free(image)).then_some((image, last))
}

/// Splits a name with a Conda or Wave build: there must be a tag, but its version need not begin
/// with a number (`date.2011_11_26--0`, `main--<hash>`).
fn underscored_build<'a, I>(zone: &str, places: impl Fn() -> I) -> Option<(&'a str, &'a str)>
where
    I: DoubleEndedIterator<Item = (&'a str, &'a str)>,
{
    let worded = |rest: &str| {
        rest.split_once('.').is_some_and(|(word, rest)| {
            word.bytes().all(|b| b.is_ascii_lowercase())
                && rest.starts_with(|c: char| c.is_ascii_digit())
        })
    };
    if let Some(place) = places().find(|(_, rest)| worded(rest)) {
        return Some(place);
    }
    let hyphenated = zone
        .rsplit_once('-')
        .is_some_and(|(_, version)| shape::version(version) != Version::No);
    if hyphenated {
        return None;
    }
    places()
        .find(|(_, rest)| shape::version(rest) != Version::No)
        .or_else(|| places().next_back())
}

/// Hashes as tags: Wave's, commits, the `sha256.<hex>` of the Library, and the second half of a
/// mulled name.
fn is_hash(tag: &str) -> bool {
    let mulled = || {
        tag.split_once('-')
            .is_some_and(|(sha1, n)| sha1.len() == 40 && shape::is_hex(sha1) && shape::is_number(n))
    };
    shape::is_hash_tag(tag) || (tag.starts_with("sha256.") && shape::is_hash(tag)) || mulled()
}

/// The split before a word that belongs to the version: `vep-release_110.1`, `tool-version-2`,
/// `ensembl-vep_release_110.1`.
fn with_word<'a>(text: &'a str, image: &str, separator: char) -> Option<(&'a str, &'a str)> {
    let (name, word) = image.rsplit_once(separator)?;
    (shape::is_version_word(word) && !name.is_empty())
        .then(|| (&text[..name.len()], &text[name.len() + 1..]))
}
