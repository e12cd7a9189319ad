//! Rules 2 and 3: what the file says of its origin, by a stored OCI reference or by the
//! definition; and, of an image that was built, what it was built on.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::{Evidence, Found, Outcome, oci};
use crate::definition::Definition;
use crate::labels::Labels;
use crate::limits;

/// Labels that `build` writes from the header of a definition; 2.4 and every later release
/// (`libexec/bootstrap-scripts/post.sh`, `internal/pkg/build/metadata.go: addBuildLabels`).
const HEADER_LABEL: &str = "org.label-schema.usage.singularity.deffile";

/// Labels that only a build from a written definition leaves: the name of its file (2.x), and
/// where its `%help` went.
const BUILT_LABELS: [&str; 3] = [
    HEADER_LABEL,
    "org.label-schema.usage.singularity.runscript.help",
    "org.label-schema.usage.apptainer.runscript.help",
];

/// Label of the reference that Apptainer 1.5 pulled (`metadata.go: addBuildLabels`).
pub(super) const BASE_NAME: &str = "org.opencontainers.image.base.name";

/// Label of the Apptainer release that wrote the labels.
const APPTAINER_VERSION: &str = "org.label-schema.usage.apptainer.version";

/// Where an image comes from, by its definition or the labels that repeat its header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Bootstrap agent, in lower case.
    pub agent: String,
    /// `Registry`/`Namespace`/`From`, where the agent has references and this is one.
    pub reference: Option<(String, String)>,
    /// Whether the image is its source and nothing else.
    pub pulled: bool,
    /// Whether it was read from labels, for want of a definition.
    pub from_labels: bool,
}

impl Origin {
    /// Reads the origin; `None` where nothing is known of it.
    pub(super) fn of(definition: Option<&Definition<'_>>, labels: &Labels) -> Option<Self> {
        // A definition that was cut is too long for a pull's. Labels may repeat its header.
        let cut = definition.is_some_and(Definition::is_cut);
        if let Some(definition) = definition.filter(|_| !cut) {
            let agent = definition.get("bootstrap")?;
            return Some(Self::new(
                agent,
                |key| definition.get(key),
                definition.is_generated(),
                false,
            ));
        }
        // 2.4 and later.
        let label = |key: &str| {
            labels
                .get(&[HEADER_LABEL, key].join("."))
                .filter(|value| !value.is_empty())
        };
        if let Some(agent) = label("bootstrap") {
            let pulled = !cut && !built_by_labels(labels);
            return Some(Self::new(agent, label, pulled, true));
        }
        // 2.3 wrote these, and only from a definition file.
        let label = |key: &str| {
            labels
                .get(&format!("SINGULARITY_DEFFILE_{}", key.to_ascii_uppercase()))
                .filter(|value| !value.is_empty())
        };
        let agent = label("bootstrap")?;
        Some(Self::new(agent, label, false, true))
    }

    fn new<'a>(
        agent: &str,
        get: impl Fn(&str) -> Option<&'a str>,
        pulled: bool,
        from_labels: bool,
    ) -> Self {
        let agent = agent.to_ascii_lowercase();
        Self {
            reference: reference(&agent, get),
            agent,
            pulled,
            from_labels,
        }
    }

    /// What a built image was built on; empty if pulled or not from a registry.
    pub(super) fn base(&self) -> String {
        match &self.reference {
            Some((repository, tag)) if !self.pulled => oci::join(repository, tag),
            _ => String::new(),
        }
    }
}

/// The reference of a header, for the four agents whose `From` is one. Paths (localimage,
/// docker-archive, oci …) and package managers give none.
fn reference<'a>(agent: &str, get: impl Fn(&str) -> Option<&'a str>) -> Option<(String, String)> {
    // The familiar form is for references to OCI registries; `library/` is a user of the Library.
    let familiar = match agent {
        "docker" | "oras" => true,
        "library" | "shub" => false,
        _ => return None,
    };
    let from = get("from")?;
    let (registry, namespace) = (get("registry"), get("namespace"));
    if registry.is_none() && namespace.is_none() {
        return oci::split(from, familiar);
    }
    let mut whole = String::new();
    for part in [registry, namespace].into_iter().flatten() {
        whole.push_str(part.trim_matches('/'));
        whole.push('/');
    }
    let from = from.split_once("://").map_or(from, |(_, rest)| rest);
    whole.push_str(from.trim_start_matches('/'));
    oci::split(&whole, familiar)
}

/// Whether labels alone show that a written definition was built: by its file's name, by its
/// `%help`, or by a header key that no pull writes.
fn built_by_labels(labels: &Labels) -> bool {
    BUILT_LABELS.iter().any(|label| labels.contains_key(label))
        || labels
            .starting_with(HEADER_LABEL)
            .filter_map(|(label, _)| label[HEADER_LABEL.len()..].strip_prefix('.'))
            .any(|key| !matches!(key, "bootstrap" | "from" | "registry" | "namespace"))
}

/// Rule 2: an OCI reference stored as such.
///
/// Apptainer 1.5 labels what it pulled with `…image.base.name`. Docker images carry that label
/// too, there naming what *they* were built on, and older releases keep it: it counts in a pulled
/// image only, and only if Apptainer 1.5 or later wrote the labels or the definition names the
/// same repository.
pub(super) fn stored(evidence: &Evidence<'_>, origin: Option<&Origin>) -> Outcome {
    if let Some(reference) = evidence.oci_reference {
        return match oci::split(reference, true) {
            Some((repository, tag)) => {
                Found::new(repository, tag, "the image carries its OCI reference")
            }
            None => Err("the stored text is no reference"),
        };
    }
    let Some(name) = evidence.labels.get(BASE_NAME) else {
        return Err("no OCI reference is stored");
    };
    let Some(origin) = origin.filter(|origin| origin.pulled && !origin.from_labels) else {
        return Err(
            "the label names what the image was built on, for the definition is not of a pull",
        );
    };
    let Some((repository, tag)) = oci::split(name, true) else {
        return Err("the label holds no reference");
    };
    let same = origin
        .reference
        .as_ref()
        .is_some_and(|(from, _)| *from == repository);
    if same || written_by_apptainer_1_5(evidence.labels) {
        Found::new(repository, tag, "the label names what was pulled")
    } else {
        Err("the label is inherited: it names another repository than the definition does")
    }
}

fn written_by_apptainer_1_5(labels: &Labels) -> bool {
    let Some(version) = labels.get(APPTAINER_VERSION) else {
        return false;
    };
    let mut numbers = version
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse::<u32>().unwrap_or(0));
    let major = numbers.next().unwrap_or(0);
    (major, numbers.next().unwrap_or(0)) >= (1, 5)
}

/// What a definition says by itself: where it is of a pull, and no label that is stored in these metadata
/// objects, which are not parsed for that, can say otherwise, nor can there be too many of them.
pub(crate) fn decided<'b>(
    definition: &str,
    mut stored: impl Iterator<Item = &'b [u8]>,
) -> Option<Origin> {
    let definition = Definition::parse(definition);
    let may_matter = |document: &[u8]| document.len() > FEW_LABELS || may_name_base(document);
    if !definition.is_generated() || stored.any(may_matter) {
        return None;
    }
    Origin::of(Some(&definition), &Labels::default()).filter(|origin| origin.reference.is_some())
}

/// Most bytes of a JSON document in which there cannot be more labels than are kept: each has six of them
/// (`"a":1,`) and more.
const FEW_LABELS: usize = 6 * limits::LABELS_MAX;

/// Whether [`BASE_NAME`] may be in a JSON document: as it is, or with anything in it escaped (`\u002e`). Where
/// strings have strings in them that are escaped themselves, digits and letters of an escape may be escaped as
/// well. What Go escapes (`&`, `<`, `>`) is no part of either.
fn may_name_base(document: &[u8]) -> bool {
    static NAME: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(BASE_NAME));
    static ESCAPE: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("u00"));
    NAME.find(document).is_some()
        || ESCAPE.find_iter(document).any(|at| {
            let code = document.get(at + 3..at + 5);
            !matches!(code, Some(b"26" | b"3c" | b"3e"))
        })
}

/// Rule 3: the definition of a pulled image.
pub(super) fn definition(origin: Option<&Origin>) -> Outcome {
    let Some(origin) = origin else {
        return Err("there is no definition with a `Bootstrap`, and no label that repeats one");
    };
    match (&origin.reference, origin.pulled) {
        (None, _) => Err("its agent gives no repository, or its `From` is no reference"),
        (Some(_), false) => Err("the image was built, not pulled: this is its base"),
        (Some((repository, tag)), true) => Found::new(
            repository.clone(),
            tag.clone(),
            "the image was pulled: the definition is the generated header only",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().copied().collect()
    }

    fn origin(definition: &str) -> Option<Origin> {
        Origin::of(Some(&Definition::parse(definition)), &Labels::default())
    }

    #[test]
    fn agents() {
        for (definition, expected) in [
            ("bootstrap: docker\nfrom: debian:12", Some(("debian", "12"))),
            (
                "bootstrap: Docker\nfrom: docker.io/library/debian",
                Some(("debian", "latest")),
            ),
            (
                "bootstrap: docker\nfrom: debian@sha256:ab",
                Some(("debian", "sha256:ab")),
            ),
            (
                "bootstrap: docker\nfrom: docker://h.example:1/a/b:2",
                Some(("h.example:1/a/b", "2")),
            ),
            (
                "bootstrap: library\nfrom: library/default/alpine:3",
                Some(("library/default/alpine", "3")),
            ),
            (
                "bootstrap: library\nfrom: library/alpine",
                Some(("library/alpine", "latest")),
            ),
            (
                "bootstrap: shub\nfrom: user/name:tag",
                Some(("user/name", "tag")),
            ),
            (
                "bootstrap: oras\nfrom: localhost:5000/a/b:1",
                Some(("localhost:5000/a/b", "1")),
            ),
            (
                "bootstrap: docker\nregistry: quay.io\nnamespace: org\nfrom: a:1",
                Some(("quay.io/org/a", "1")),
            ),
            (
                "bootstrap: docker\nregistry: h:5000/\nnamespace:\nfrom: library/a:1",
                Some(("h:5000/library/a", "1")),
            ),
            (
                "bootstrap: docker\nregistry: /h:5000\nfrom: docker:///a:1",
                Some(("h:5000/a", "1")),
            ),
            (
                "bootstrap: docker\nregistry: h:5000\nfrom: /a:1",
                Some(("h:5000/a", "1")),
            ),
            (
                "bootstrap: docker\nnamespace: org\nfrom: a",
                Some(("org/a", "latest")),
            ),
            ("bootstrap: docker", None),
            ("bootstrap: localimage\nfrom: a.sif", None),
            ("bootstrap: docker-archive\nfrom: a.tar", None),
            ("bootstrap: docker-daemon\nfrom: a:1", None),
            ("bootstrap: oci-archive\nfrom: a.tar:1", None),
            ("bootstrap: yum\nfrom: a:1", None),
            ("bootstrap: scratch", None),
            ("bootstrap: docker\nfrom: a:{{ V }}", None),
        ] {
            let given = origin(definition).expect("a bootstrap").reference;
            let given = given.as_ref().map(|(r, t)| (r.as_str(), t.as_str()));
            assert_eq!(given, expected, "{definition}");
        }
        assert_eq!(origin("from: debian:12"), None);
    }

    #[test]
    fn pulled_or_built() {
        for (definition, base, gives) in [
            ("bootstrap: docker\nfrom: debian:12\n", "", true),
            (
                "Bootstrap: docker\nFrom: debian:12\n%post\n true\n",
                "debian:12",
                false,
            ),
            (
                "Bootstrap: docker\nFrom: debian@sha256:ab\n%post\n",
                "debian@sha256:ab",
                false,
            ),
            (
                "Bootstrap: docker\nFrom: a:1\nBootstrap: docker\nFrom: b:2\n",
                "b:2",
                false,
            ),
            ("Bootstrap: localimage\nFrom: a.sif\n%post\n", "", false),
        ] {
            let origin = origin(definition).expect("a bootstrap");
            assert_eq!(origin.base(), base, "{definition}");
            assert_eq!(
                super::definition(Some(&origin)).is_ok(),
                gives,
                "{definition}"
            );
        }
    }

    #[test]
    fn labels_stand_in_for_a_definition() {
        const BOOTSTRAP: &str = "org.label-schema.usage.singularity.deffile.bootstrap";
        const FROM: &str = "org.label-schema.usage.singularity.deffile.from";
        let pulled = [(BOOTSTRAP, "docker"), (FROM, "a/b:1")];
        for (more, is_pulled) in [
            (None, true),
            (
                Some(("org.label-schema.usage.singularity.deffile.registry", "h:1")),
                true,
            ),
            (
                Some(("org.label-schema.usage.singularity.deffile", "Singularity")),
                false,
            ),
            (
                Some(("org.label-schema.usage.singularity.deffile.stage", "final")),
                false,
            ),
            (
                Some(("org.label-schema.usage.singularity.runscript.help", "/x")),
                false,
            ),
            (
                Some(("org.label-schema.usage.singularity.version", "3.1")),
                true,
            ),
        ] {
            let mut labels = labels(&pulled);
            labels.extend(more.map(|(key, value)| (key.to_owned(), value.to_owned())));
            let origin = Origin::of(None, &labels).expect("an origin");
            assert_eq!(origin.pulled, is_pulled, "{more:?}");
            assert!(origin.from_labels);
        }
        let old = labels(&[
            ("SINGULARITY_DEFFILE_BOOTSTRAP", "docker"),
            ("SINGULARITY_DEFFILE_FROM", "a:1"),
        ]);
        let origin = Origin::of(None, &old).expect("an origin");
        assert_eq!(origin.base(), "a:1");
        // A definition that is there is believed rather than labels.
        assert_eq!(
            Origin::of(Some(&Definition::parse("nothing")), &labels(&pulled)),
            None
        );
    }

    #[test]
    fn stored_references() {
        let pull = "bootstrap: docker\nfrom: org/tool@sha256:ab\n";
        let build = "bootstrap: docker\nfrom: org/tool:1\n%post\n";
        for (oci_reference, definition, found, expected) in [
            (
                Some("index.docker.io/library/debian:12"),
                None,
                &[][..],
                Some("debian:12"),
            ),
            (
                Some("ghcr.io/o/t@sha256:ab"),
                None,
                &[],
                Some("ghcr.io/o/t@sha256:ab"),
            ),
            (Some("not a reference"), None, &[], None),
            (None, None, &[], None),
            (
                None,
                Some(pull),
                &[(BASE_NAME, "docker.io/org/tool:1")],
                Some("org/tool:1"),
            ),
            (
                None,
                Some(pull),
                &[(BASE_NAME, "docker.io/library/debian:12")],
                None,
            ),
            (
                None,
                Some(pull),
                &[(BASE_NAME, "h/x:1"), (APPTAINER_VERSION, "1.5.0-rc.1")],
                Some("h/x:1"),
            ),
            (
                None,
                Some(pull),
                &[(BASE_NAME, "h/x:1"), (APPTAINER_VERSION, "1.4.5")],
                None,
            ),
            (
                None,
                Some(build),
                &[(BASE_NAME, "docker.io/org/tool:1")],
                None,
            ),
            (None, None, &[(BASE_NAME, "docker.io/org/tool:1")], None),
            // Labels that are inherited say the same of what this was built on.
            (
                None,
                None,
                &[
                    (BASE_NAME, "docker.io/org/tool:1"),
                    (
                        "org.label-schema.usage.singularity.deffile.bootstrap",
                        "docker",
                    ),
                    (
                        "org.label-schema.usage.singularity.deffile.from",
                        "org/tool:1",
                    ),
                ],
                None,
            ),
        ] {
            let labels = labels(found);
            let definition = definition.map(Definition::parse);
            let origin = Origin::of(definition.as_ref(), &labels);
            let evidence = Evidence {
                path: "/x.sif".as_ref(),
                naming: &[],
                oci_reference,
                definition: None,
                labels: &labels,
            };
            let given = stored(&evidence, origin.as_ref()).ok();
            let given = given.map(|found| oci::join(&found.repository, &found.tag));
            assert_eq!(given.as_deref(), expected, "{oci_reference:?} {found:?}");
        }
    }
}
