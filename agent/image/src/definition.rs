//! Definition files: the header of the last stage, and whether a tool or a person wrote them.
//!
//! Follows `pkg/build/types/parser/deffile.go` of Apptainer (`All`, `doHeader`,
//! `scanDefinitionFile`): a stage begins at a line that begins with `bootstrap:`, whatever its
//! case; its header ends at the first line whose first word begins with `%`; keys are
//! case-insensitive, blanks around the colon do not count, `#` begins a comment, a backslash at
//! the end of a line continues the value. Quotes are kept, as the tools keep them. Nothing is
//! refused: a line that no tool would accept is skipped. But nothing is read from a text that was
//! cut for its length: its last stage may be in what is missing.

use std::borrow::Cow;

use memchr::memchr;

use crate::limits;

/// Header keys that are kept of a stage; the tools know about thirty.
const MAX_KEYS: usize = 64;

/// Keys that a pull or a direct build writes (`definition.go`: `NewDefinitionFromURI`), and
/// those that complete its reference.
const REFERENCE_KEYS: [&str; 4] = ["bootstrap", "from", "registry", "namespace"];

/// A definition file, read as far as its last stage's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition<'a> {
    /// Keys as they are written.
    header: Vec<(&'a str, Cow<'a, str>)>,
    body: &'a str,
    generated: bool,
    stages: usize,
    cut: bool,
}

/// Stands at the end of a cut definition. Longer than a character, so that cutting within one still
/// leaves more than [`limits::DEFINITION_MAX`] bytes.
const CUT: &str = "\n…\n";

/// A definition as it is kept: whole, or so much of it as is allowed and a mark. Only one that was cut
/// is longer than [`limits::DEFINITION_MAX`].
pub(crate) fn cut(mut text: String) -> String {
    if text.len() > limits::DEFINITION_MAX {
        text.truncate(bounded(&text, limits::DEFINITION_MAX).len());
        text.push_str(CUT);
    }
    text
}

/// Whether a definition was [cut].
pub(crate) fn is_cut(text: &str) -> bool {
    text.len() > limits::DEFINITION_MAX
}

impl<'a> Definition<'a> {
    /// Reads a definition. Any text is one, if an empty one.
    #[must_use]
    pub fn parse(text: &'a str) -> Self {
        let cut = is_cut(text);
        let text = if cut { "" } else { text };
        let (stage, stages) = last_stage(text);
        let end = header_end(stage);
        let mut header = Vec::with_capacity(REFERENCE_KEYS.len());
        let plain = read_header(&stage[..end], &mut header);
        let body = &stage[end..];
        let generated = plain
            && stages <= 1
            && body.is_empty()
            && header.iter().any(|(key, _)| is_key(key, "bootstrap"))
            && header
                .iter()
                .all(|(key, _)| REFERENCE_KEYS.iter().any(|known| is_key(key, known)));
        Self {
            header,
            body,
            generated,
            stages,
            cut,
        }
    }

    /// Whether this is the beginning of a longer definition, of which nothing is read.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// The header of the last stage, in order of appearance: keys in whatever case they are written, each
    /// once.
    pub fn header(&self) -> impl Iterator<Item = (&str, &str)> {
        self.header
            .iter()
            .map(|(key, value)| (*key, value.as_ref()))
    }

    /// The value of one header key of the last stage, in whatever case it is written, unless empty.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.header()
            .find(|(name, value)| is_key(name, key) && !value.is_empty())
            .map(|(_, value)| value)
    }

    /// Whether this is only the header lines that name a source (`bootstrap`, `from`, `registry`,
    /// `namespace`), as a pull or a direct build generates them: no section, no comment, no
    /// further key, one stage. The image is then its source and nothing else.
    #[must_use]
    pub fn is_generated(&self) -> bool {
        self.generated
    }

    /// How many stages there are.
    #[must_use]
    pub fn stages(&self) -> usize {
        self.stages
    }

    /// What `%labels` of the last stage sets.
    pub fn labels(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mut inside = false;
        self.body
            .lines()
            .filter_map(move |line| {
                let line = line.trim();
                if let Some(section) = line.strip_prefix('%') {
                    let name = section.split_whitespace().next().unwrap_or_default();
                    inside = name.eq_ignore_ascii_case("labels");
                    return None;
                }
                (inside && !line.is_empty() && !line.starts_with('#')).then_some(line)
            })
            .map(|line| {
                line.split_once(char::is_whitespace)
                    .map_or((line, ""), |(key, value)| (key, value.trim()))
            })
    }
}

/// Lines with their ends.
fn lines(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let length = memchr(b'\n', text.as_bytes()).map_or(text.len(), |at| at + 1);
        let (line, rest) = text.split_at(length);
        text = rest;
        (!line.is_empty()).then_some(line)
    })
}

/// What stands before and behind the first of an ASCII character.
fn split_at_first(text: &str, character: u8) -> Option<(&str, &str)> {
    let at = memchr(character, text.as_bytes())?;
    Some((&text[..at], &text[at + 1..]))
}

/// Whether two names are the same key.
fn is_key(name: &str, key: &str) -> bool {
    name.eq_ignore_ascii_case(key)
}

/// The text of the last stage, and how many stages there are. What stands before the first
/// `bootstrap:` belongs to the first stage: 2.x takes the header keys in any order.
fn last_stage(text: &str) -> (&str, usize) {
    let mut at = 0;
    let mut last = 0;
    let mut stages = 0;
    for line in lines(text) {
        if starts_stage(line) {
            stages += 1;
            if stages > 1 {
                last = at;
            }
        }
        at += line.len();
    }
    (&text[last..], stages)
}

fn starts_stage(line: &str) -> bool {
    const KEY: &[u8] = b"bootstrap:";
    line.as_bytes()
        .get(..KEY.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(KEY))
}

/// Where the header of a stage ends: at its first section.
fn header_end(stage: &str) -> usize {
    let mut at = 0;
    for line in lines(stage) {
        if line.trim_start().starts_with('%') {
            return at;
        }
        at += line.len();
    }
    at
}

/// Reads header lines; says whether there was nothing beside keys with values.
fn read_header<'a>(text: &'a str, header: &mut Vec<(&'a str, Cow<'a, str>)>) -> bool {
    let mut plain = true;
    let mut continued: Option<(&str, String)> = None;
    for line in lines(text) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            plain &= line.is_empty();
            if let Some((key, value)) = continued.take() {
                set(header, key, Cow::Owned(value));
            }
            continue;
        }
        let code = match split_at_first(line, b'#') {
            Some((code, _)) => {
                plain = false;
                code.trim()
            }
            None => line,
        };
        let (key, value) = match continued.take() {
            Some((key, start)) => (key, Cow::Owned(start + code)),
            None => match split_at_first(code, b':') {
                Some((key, value)) => (key.trim(), Cow::Borrowed(value.trim())),
                None => {
                    plain = false;
                    continue;
                }
            },
        };
        if value.ends_with('\\') {
            plain = false;
            let mut start = value.into_owned();
            start.pop();
            continued = Some((key, start));
        } else {
            set(header, key, value);
        }
    }
    if let Some((key, value)) = continued {
        set(header, key, Cow::Owned(value));
    }
    plain
}

/// Sets a key; the last value wins, as in the map that the tools keep.
fn set<'a>(header: &mut Vec<(&'a str, Cow<'a, str>)>, key: &'a str, value: Cow<'a, str>) {
    if let Some(entry) = header.iter_mut().find(|(name, _)| is_key(name, key)) {
        entry.1 = value;
    } else if header.len() < MAX_KEYS && !key.is_empty() {
        header.push((key, value));
    }
}

/// The first `limit` bytes of a text, or fewer, so as not to cut a character.
pub(crate) fn bounded(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> Vec<(String, String)> {
        Definition::parse(text)
            .header()
            .map(|(key, value)| (key.to_ascii_lowercase(), value.to_owned()))
            .collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn headers() {
        let cases: &[(&str, &[(&str, &str)])] = &[
            ("", &[]),
            ("no colon at all", &[]),
            (
                "bootstrap: docker\nfrom: rockylinux:9\n\n",
                &[("bootstrap", "docker"), ("from", "rockylinux:9")],
            ),
            (
                "BootStrap :docker\r\nFROM:\tfedora:40\r\n%post\r\n  x: y\r\n",
                &[("bootstrap", "docker"), ("from", "fedora:40")],
            ),
            (
                "#!/usr/bin/env -S apptainer build\n# a comment: here\nBootstrap: docker # hub\nFrom: a:1\n",
                &[("bootstrap", "docker"), ("from", "a:1")],
            ),
            (
                "From: a:1\nBootstrap: docker\n",
                &[("from", "a:1"), ("bootstrap", "docker")],
            ),
            (
                "Bootstrap: docker\nFrom: golang:1.22\nStage: build\n%post\n  make\n# final\nBOOTSTRAP: docker\nFrom: debian:12\nStage: final\n%files from build\n  /a /b\n",
                &[
                    ("bootstrap", "docker"),
                    ("from", "debian:12"),
                    ("stage", "final"),
                ],
            ),
            // The first word of the line begins a section.
            (
                "Bootstrap: docker\nFrom: a:1\n  %post\n  From: b\n",
                &[("bootstrap", "docker"), ("from", "a:1")],
            ),
            // A recipe within a section splits at the start of a line only, as in the tools.
            (
                "Bootstrap: docker\nFrom: a:1\n%post\n  Bootstrap: yum\n  From: b\n",
                &[("bootstrap", "docker"), ("from", "a:1")],
            ),
            (
                "Bootstrap: yum\nInclude: vim \\\n  git\nOSVersion: 9\n",
                &[
                    ("bootstrap", "yum"),
                    ("include", "vim git"),
                    ("osversion", "9"),
                ],
            ),
            // Nothing continues the line.
            (
                "Bootstrap: yum\nInclude: vim \\\n\nOSVersion: 9\n",
                &[
                    ("bootstrap", "yum"),
                    ("include", "vim "),
                    ("osversion", "9"),
                ],
            ),
            (
                "Bootstrap: yum\nInclude: vim \\",
                &[("bootstrap", "yum"), ("include", "vim ")],
            ),
            (": no key\nFrom: a:1\n", &[("from", "a:1")]),
            (
                "Bootstrap: docker\nFrom: \"a:1\"\nFrom: b:2\nNamespace: \n",
                &[("bootstrap", "docker"), ("from", "b:2"), ("namespace", "")],
            ),
            (
                "Bootstrap: docker\nFrom: alpine:{{ TAG }}\n",
                &[("bootstrap", "docker"), ("from", "alpine:{{ TAG }}")],
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(header(text), pairs(expected), "{text:?}");
        }
    }

    #[test]
    fn generated_or_written() {
        for text in [
            "bootstrap: docker\nfrom: ubuntu:22.04\n\n",
            "bootstrap: library\nfrom: a/b/c:1",
            "Bootstrap: docker\nRegistry: quay.io\nNamespace: biocontainers\nFrom: a:1\n",
        ] {
            assert!(Definition::parse(text).is_generated(), "{text:?}");
        }
        for text in [
            "",
            "from: ubuntu\n",
            "bootstrap: docker\nfrom: ubuntu\n%post\n",
            "bootstrap: docker\nfrom: ubuntu\n\n  %environment\n",
            "# mine\nbootstrap: docker\nfrom: ubuntu\n",
            "bootstrap: docker\nfrom: ubuntu # mine\n",
            "bootstrap: docker\nfrom: ubuntu\\\n:22.04\n",
            "bootstrap: docker\nfrom: ubuntu\nstage: one\n",
            "bootstrap: docker\nfrom: ubuntu\nhello\n",
            "bootstrap: docker\nfrom: a\nbootstrap: docker\nfrom: b\n",
            "bootstrap: docker\nfrom: ubuntu\n\n%labels\n",
        ] {
            assert!(!Definition::parse(text).is_generated(), "{text:?}");
        }
    }

    #[test]
    fn labels_of_the_last_stage() {
        let text = "Bootstrap: docker\nFrom: a\n%labels\n  old 1\nBootstrap: docker\nFrom: b\n\
                    %post\n  not a label\n%Labels\n  # none\n  Version   2.0 beta\n\tflag\n%help\n  x y\n";
        let labels: Vec<_> = Definition::parse(text).labels().collect();
        assert_eq!(labels, [("Version", "2.0 beta"), ("flag", "")]);
        assert_eq!(Definition::parse(text).stages(), 2);
    }

    #[test]
    fn huge_and_odd_texts_are_bounded() {
        let many = (0..10_000).fold(String::new(), |text, n| text + &format!("k{n}: v\n"));
        assert_eq!(Definition::parse(&many).header().count(), MAX_KEYS);
    }

    #[test]
    fn nothing_is_read_from_a_definition_that_was_cut() {
        const MAX: usize = limits::DEFINITION_MAX;
        let start = "bootstrap: docker\nfrom: a\n";
        for (end, is_cut) in [
            (" ".repeat(MAX - start.len()), false),
            (" ".repeat(MAX - start.len() + 1), true),
            (format!("{}é", " ".repeat(MAX - start.len() - 1)), true),
            (
                format!("%post\n{}\nbootstrap: docker\nfrom: b\n", "#".repeat(MAX)),
                true,
            ),
        ] {
            let whole = format!("{start}{end}");
            let kept = cut(whole.clone());
            let definition = Definition::parse(&kept);
            assert_eq!(definition.is_cut(), is_cut);
            assert_eq!(definition.is_generated(), !is_cut);
            assert_eq!(definition.get("from"), (!is_cut).then_some("a"));
            assert_eq!(kept == whole, !is_cut);
            assert_eq!(kept.ends_with(CUT), is_cut);
            assert!(kept.starts_with(&whole[..MAX - 2]));
            assert!(kept.len() <= MAX + CUT.len());
        }
    }
}
