//! Rule 5: labels in which an image names itself.
//!
//! A name and a version of the same vocabulary together, and only where the image itself can have
//! set them:
//!
//! - `org.opencontainers.image.title` with `.version` (OCI image annotations), or
//!   `org.label-schema.name` with `.version` (its forerunner). Never `…image.ref.name`: it is
//!   Ubuntu's own name in every image built on Ubuntu.
//! - Ubuntu's `…image.version` (`22.04`) is inherited along with its `ref.name`; next to that
//!   label a version of this form is not the image's own.
//! - Where the definition shows a build, the labels of the base are still there. The name must
//!   then be in `%labels` of the last stage, as it stands in the image. One that was cut for its
//!   length is of a build, and shows no labels.
//! - The name must be such as a repository can have: `CentOS Base Image` is none.

use super::origin::Origin;
use super::{Found, Outcome, shape};
use crate::definition::Definition;
use crate::labels::Labels;

/// Labels for name and version, by vocabulary.
pub(super) const PAIRS: [(&str, &str); 2] = [
    (
        "org.opencontainers.image.title",
        "org.opencontainers.image.version",
    ),
    ("org.label-schema.name", "org.label-schema.version"),
];

/// The label that Ubuntu leaves in every image built on it.
const UBUNTU: &str = "org.opencontainers.image.ref.name";

/// Applies the rule.
pub(super) fn own_name(
    labels: &Labels,
    definition: Option<&Definition<'_>>,
    origin: Option<&Origin>,
) -> Outcome {
    let mut reason = "no label names the image";
    for (name_label, version_label) in PAIRS {
        let Some(name) = labels.get(name_label) else {
            continue;
        };
        let Some(version) = labels.get(version_label) else {
            reason = "a name without a version of its own";
            continue;
        };
        match check(labels, definition, origin, (name_label, name), version) {
            Ok(()) => {
                return Found::new(
                    name.to_owned(),
                    version.to_owned(),
                    "the image names itself",
                );
            }
            Err(why) => reason = why,
        }
    }
    Err(reason)
}

fn check(
    labels: &Labels,
    definition: Option<&Definition<'_>>,
    origin: Option<&Origin>,
    (name_label, name): (&str, &str),
    version: &str,
) -> Result<(), &'static str> {
    if !shape::is_repository(name) || !shape::is_label_version(version) {
        return Err("name and version are not such as repositories and tags have");
    }
    if labels.contains_key(UBUNTU) && shape::is_ubuntu_release(version) {
        return Err("the version is Ubuntu's, inherited");
    }
    let cut = definition.is_some_and(Definition::is_cut);
    if cut || origin.is_some_and(|origin| !origin.pulled) {
        let own = definition.is_some_and(|definition| {
            definition
                .labels()
                .any(|(label, value)| label == name_label && unquoted(value) == name)
        });
        if !own {
            return Err("the name is inherited: the definition of this build does not set it");
        }
    }
    Ok(())
}

/// A value of `%labels` as 2.x stores it: without quotes around it.
fn unquoted(value: &str) -> &str {
    value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'))
        .unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TITLE: &str = "org.opencontainers.image.title";
    const VERSION: &str = "org.opencontainers.image.version";
    const NAME: &str = "org.label-schema.name";
    const SCHEMA_VERSION: &str = "org.label-schema.version";

    #[test]
    fn names() {
        let pull = Some("bootstrap: oci\nfrom: layout\n");
        let silent = Some("Bootstrap: docker\nFrom: a:1\n%labels\n  Version 3\n");
        let own =
            Some("Bootstrap: docker\nFrom: a:1\n%labels\n  org.opencontainers.image.title tool\n");
        let quoted =
            Some("Bootstrap: docker\nFrom: a:1\n%labels\n  org.label-schema.name \"tool\"\n");
        let other =
            Some("Bootstrap: docker\nFrom: a:1\n%labels\n  org.opencontainers.image.title new\n");
        for (definition, labels, expected) in [
            (
                None,
                &[(TITLE, "org/tool"), (VERSION, "R-1.2")][..],
                Some(("org/tool", "R-1.2")),
            ),
            (
                None,
                &[(NAME, "tool"), (SCHEMA_VERSION, "0.4")],
                Some(("tool", "0.4")),
            ),
            (None, &[(TITLE, "tool")], None),
            (None, &[(VERSION, "1")], None),
            (None, &[(TITLE, "tool"), (SCHEMA_VERSION, "1")], None),
            (None, &[(UBUNTU, "ubuntu"), (VERSION, "24.04")], None),
            (
                None,
                &[(UBUNTU, "ubuntu"), (TITLE, "tool"), (VERSION, "24.04")],
                None,
            ),
            (
                None,
                &[(UBUNTU, "ubuntu"), (TITLE, "tool"), (VERSION, "2.1.0")],
                Some(("tool", "2.1.0")),
            ),
            (
                None,
                &[(TITLE, "tool"), (VERSION, "24.04")],
                Some(("tool", "24.04")),
            ),
            (
                None,
                &[(NAME, "CentOS Base Image"), (SCHEMA_VERSION, "7")],
                None,
            ),
            (None, &[(TITLE, "tool"), (VERSION, "1 (beta)")], None),
            (
                None,
                &[
                    (TITLE, "A Tool"),
                    (VERSION, "1"),
                    (NAME, "tool"),
                    (SCHEMA_VERSION, "1"),
                ],
                Some(("tool", "1")),
            ),
            (
                pull,
                &[(TITLE, "tool"), (VERSION, "1")],
                Some(("tool", "1")),
            ),
            (silent, &[(TITLE, "tool"), (VERSION, "1")], None),
            (silent, &[(TITLE, "3"), (VERSION, "1")], None),
            (own, &[(TITLE, "tool"), (VERSION, "1")], Some(("tool", "1"))),
            (
                quoted,
                &[(NAME, "tool"), (SCHEMA_VERSION, "1")],
                Some(("tool", "1")),
            ),
            // On a rebuild the labels of the base win over new ones.
            (other, &[(TITLE, "old"), (VERSION, "1")], None),
        ] {
            let labels: Labels = labels.iter().copied().collect();
            let parsed = definition.map(Definition::parse);
            let origin = Origin::of(parsed.as_ref(), &labels);
            let given = own_name(&labels, parsed.as_ref(), origin.as_ref()).ok();
            let given = given
                .as_ref()
                .map(|found| (found.repository.as_str(), found.tag.as_str()));
            assert_eq!(given, expected, "{definition:?} {labels:?}");
        }
    }
}
