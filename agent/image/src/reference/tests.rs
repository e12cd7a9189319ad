//! The rules together: which one wins, and what `explain` says of the others.

use super::*;

struct File<'a> {
    path: &'a str,
    naming: &'a [NamingRule],
    oci_reference: Option<&'a str>,
    definition: Option<&'a str>,
    labels: &'a [(&'a str, &'a str)],
}

const PLAIN: File<'static> = File {
    path: "/images/thing.sif",
    naming: &[],
    oci_reference: None,
    definition: None,
    labels: &[],
};

impl File<'_> {
    fn resolve(&self, explain: bool) -> Resolution {
        let labels = self.labels.iter().copied().collect();
        resolve(
            &Evidence {
                path: Path::new(self.path),
                naming: self.naming,
                oci_reference: self.oci_reference,
                definition: self.definition,
                labels: &labels,
            },
            explain,
        )
    }
}

const PULLED: &str = "bootstrap: docker\nfrom: quay.io/org/tool:1.0\n\n";
const BUILT: &str = "Bootstrap: docker\nFrom: ubuntu:22.04\n\n%post\n  true\n";
const TITLED: [(&str, &str); 2] = [
    ("org.opencontainers.image.title", "titled"),
    ("org.opencontainers.image.version", "9"),
];

#[test]
fn the_first_rule_that_applies_wins() {
    use ReferenceSource as Source;
    let naming =
        [NamingRule::new(r"/(?<repository>thing)(?:_(?<tag>\d+))?\.sif$").expect("a good rule")];
    let cases: &[(File<'_>, &str, &str, Source, &str)] = &[
        (
            File {
                naming: &naming,
                oci_reference: Some("docker.io/library/debian:12"),
                definition: Some(PULLED),
                ..PLAIN
            },
            "thing",
            "latest",
            Source::NamingRule,
            "",
        ),
        (
            File {
                oci_reference: Some("docker.io/library/debian:12"),
                definition: Some(PULLED),
                ..PLAIN
            },
            "debian",
            "12",
            Source::OciReference,
            "",
        ),
        (
            File {
                path: "/images/other_2.0.sif",
                definition: Some(PULLED),
                labels: &TITLED,
                ..PLAIN
            },
            "quay.io/org/tool",
            "1.0",
            Source::Definition,
            "",
        ),
        (
            File {
                path: "/images/other_2.0.sif",
                definition: Some(BUILT),
                labels: &TITLED,
                ..PLAIN
            },
            "other",
            "2.0",
            Source::NamingConvention,
            "ubuntu:22.04",
        ),
        (
            File {
                labels: &TITLED,
                ..PLAIN
            },
            "titled",
            "9",
            Source::Labels,
            "",
        ),
        // The title of a base is not the image's own.
        (
            File {
                definition: Some(BUILT),
                labels: &TITLED,
                ..PLAIN
            },
            "thing",
            "latest",
            Source::FileStem,
            "ubuntu:22.04",
        ),
        (PLAIN, "thing", "latest", Source::FileStem, ""),
        (
            File {
                definition: Some(" \n"),
                ..PLAIN
            },
            "thing",
            "latest",
            Source::FileStem,
            "",
        ),
        (
            File { path: "/", ..PLAIN },
            "image",
            "latest",
            Source::FileStem,
            "",
        ),
        (
            File { path: "", ..PLAIN },
            "image",
            "latest",
            Source::FileStem,
            "",
        ),
        (
            File {
                path: "/images/sandbox_2.6.1/",
                ..PLAIN
            },
            "sandbox_2.6.1",
            "latest",
            Source::FileStem,
            "",
        ),
        (
            File {
                path: "/c/ghcr.io-a-b-1.0.img.pulling.17",
                ..PLAIN
            },
            "ghcr.io-a-b-1.0.img.pulling",
            "latest",
            Source::FileStem,
            "",
        ),
    ];
    for (file, repository, tag, source, base) in cases {
        for explain in [false, true] {
            let given = file.resolve(explain);
            let expected = Reference {
                repository: (*repository).to_owned(),
                tag: (*tag).to_owned(),
                source: *source,
            };
            assert_eq!(given.reference, expected, "{}", file.path);
            assert_eq!(given.base, *base, "{}", file.path);
            assert_eq!(given.rules.is_empty(), !explain);
        }
    }
}

#[test]
fn explained() {
    let file = File {
        path: "/images/cuda_12.2.sif",
        definition: Some("bootstrap: docker\nfrom: localhost:5000/nvidia/cuda:12.2\n"),
        ..PLAIN
    };
    let rules = file.resolve(true).rules;
    assert_eq!(
        rules.iter().map(|rule| rule.rule).collect::<Vec<_>>(),
        RULES
    );
    let because: Vec<_> = rules.iter().map(|rule| rule.because.as_str()).collect();
    assert_eq!(
        because,
        [
            "does not apply: the site has no naming rules here",
            "does not apply: no OCI reference is stored",
            "wins: the image was pulled: the definition is the generated header only",
            "an earlier rule applied; it says localhost:5000/nvidia/cuda:12.2 (here: pull: <name>_<tag>)",
            "does not apply: no label names the image",
            "an earlier rule applied; it says localhost:5000/nvidia/cuda:12.2 (here: every file has a name)",
        ]
    );
    assert_eq!(rules[3].gives, Some(("cuda".to_owned(), "12.2".to_owned())));
    assert!(
        rules[2]
            .saw
            .contains("from: localhost:5000/nvidia/cuda:12.2"),
        "{}",
        rules[2].saw
    );
}

#[test]
fn explained_for_a_build() {
    let rules = File {
        definition: Some(BUILT),
        labels: &TITLED,
        ..PLAIN
    }
    .resolve(true)
    .rules;
    assert_eq!(rules[2].gives, None);
    assert!(
        rules[2].saw.starts_with("written definition"),
        "{}",
        rules[2].saw
    );
    assert!(
        rules[2].because.contains("built, not pulled"),
        "{}",
        rules[2].because
    );
    assert!(rules[4].saw.contains("title=titled"), "{}", rules[4].saw);
    assert!(
        rules[4].because.contains("inherited"),
        "{}",
        rules[4].because
    );
    assert!(rules[5].because.starts_with("wins"), "{}", rules[5].because);
}

#[test]
fn texts_are_bounded() {
    let long = format!("/images/{}é.sif", "x".repeat(MAX_LISTED * 4));
    let given = File {
        path: &long,
        ..PLAIN
    }
    .resolve(true);
    assert_eq!(given.reference.repository.len(), MAX_LISTED);
    assert!(given.rules.iter().all(|rule| rule.saw.len() < 1000));
}

#[test]
fn a_name_that_is_no_text() {
    use std::os::unix::ffi::OsStrExt;
    let path = Path::new(std::ffi::OsStr::from_bytes(b"/images/\xff\xfe_1.0.sif"));
    let labels = Labels::default();
    let given = resolve(
        &Evidence {
            path,
            naming: &[],
            oci_reference: None,
            definition: None,
            labels: &labels,
        },
        true,
    );
    assert_eq!(given.reference.repository, "\u{fffd}\u{fffd}_1.0");
    assert_eq!(given.reference.source, ReferenceSource::FileStem);
}

proptest::proptest! {
    #[test]
    fn nothing_panics(
        path in "(/[a-z.:@é_0-9-]{0,40}){0,4}(\\.sif|\\.img|\\.simg|)",
        definition in "([bB]ootstrap ?: [a-z]{0,8}\n|[fF]rom: [a-z/:@.0-9]{0,20}\\\\?\n|%[a-z]{0,6}\n|#[^\n]{0,9}\n){0,8}",
        title in ".{0,12}",
        version in ".{0,12}",
    ) {
        let labels = [
            ("org.opencontainers.image.title", title.as_str()),
            ("org.opencontainers.image.version", version.as_str()),
            ("org.opencontainers.image.base.name", title.as_str()),
        ];
        let file = File { path: &path, definition: Some(&definition), labels: &labels, ..PLAIN };
        let (listed, explained) = (file.resolve(false), file.resolve(true));
        proptest::prop_assert!(!listed.reference.repository.is_empty());
        proptest::prop_assert!(!listed.reference.tag.is_empty());
        proptest::prop_assert_eq!(&listed.reference, &explained.reference);
        proptest::prop_assert_eq!(explained.rules.len(), RULES.len());
    }
}

/// One of blanks is none, as `inspect-metadata.json` has it of an image without.
#[test]
fn labels_answer_for_an_empty_definition() {
    const LABELS: [(&str, &str); 2] = [
        (
            "org.label-schema.usage.singularity.deffile.bootstrap",
            "docker",
        ),
        (
            "org.label-schema.usage.singularity.deffile.from",
            "quay.io/org/tool:1.0",
        ),
    ];
    for definition in [None, Some(""), Some(" \n")] {
        let file = File {
            definition,
            labels: &LABELS,
            ..PLAIN
        };
        let found = file.resolve(false).reference;
        assert_eq!(found.source, ReferenceSource::Definition, "{definition:?}");
        assert_eq!(
            (found.repository.as_str(), found.tag.as_str()),
            ("quay.io/org/tool", "1.0")
        );
    }
}
