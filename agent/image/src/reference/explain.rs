//! Why a rule won or lost, in words. Only `inspect --explain` comes here.

use super::{Case, Outcome, RuleOutcome, labels, oci, origin};
use crate::definition::bounded;
use crate::record::{Reference, ReferenceSource};

/// Bytes of one piece of evidence that are shown.
const MAX_SHOWN: usize = 300;

/// One rule's part: what it saw and gives, and why it won or lost against `winner`.
pub(super) fn outcome(
    case: &Case<'_>,
    rule: ReferenceSource,
    outcome: &Outcome,
    winner: Option<&Reference>,
) -> RuleOutcome {
    let (gives, because) = match (outcome, winner) {
        (Ok(found), None) => (Some(found), format!("wins: {}", found.how)),
        (Ok(found), Some(winner)) => {
            let agrees = found.repository == winner.repository && found.tag == winner.tag;
            let says = if agrees {
                "it says the same".to_owned()
            } else {
                format!("it says {}", oci::join(&winner.repository, &winner.tag))
            };
            (
                Some(found),
                format!("an earlier rule applied; {says} (here: {})", found.how),
            )
        }
        (Err(reason), _) => (None, format!("does not apply: {reason}")),
    };
    RuleOutcome {
        rule,
        saw: saw(case, rule),
        gives: gives.map(|found| (found.repository.clone(), found.tag.clone())),
        because,
    }
}

fn saw(case: &Case<'_>, rule: ReferenceSource) -> String {
    let evidence = case.evidence;
    match rule {
        ReferenceSource::NamingRule => {
            let path = evidence.path.to_string_lossy();
            match evidence.naming {
                [] => format!("path {}", shown(&path)),
                rules => {
                    let rules: Vec<_> = rules.iter().map(super::NamingRule::as_str).collect();
                    format!("path {}, rules {}", shown(&path), shown(&rules.join(" | ")))
                }
            }
        }
        ReferenceSource::OciReference => match evidence.oci_reference {
            Some(reference) => format!("ref.name {}", shown(reference)),
            None => label(case, &[origin::BASE_NAME]),
        },
        ReferenceSource::Definition => match (&case.definition, &case.origin) {
            (Some(definition), _) if definition.is_cut() => {
                "a definition that was cut for its length".to_owned()
            }
            (Some(definition), _) => {
                let lines: Vec<_> = ["bootstrap", "registry", "namespace", "from"]
                    .iter()
                    .filter_map(|key| Some(format!("{key}: {}", definition.get(key)?)))
                    .collect();
                let kind = match (definition.is_generated(), definition.stages()) {
                    (true, _) => "definition of header lines only",
                    (false, 0 | 1) => "written definition",
                    (false, _) => "written definition of several stages (the last counts)",
                };
                format!("{kind}: {}", shown(&lines.join(", ")))
            }
            (None, Some(origin)) => {
                let reference = origin
                    .reference
                    .as_ref()
                    .map_or("no reference".to_owned(), |(repository, tag)| {
                        oci::join(repository, tag)
                    });
                format!(
                    "labels of the build: {} {}",
                    shown(&origin.agent),
                    shown(&reference)
                )
            }
            (None, None) => "no definition".to_owned(),
        },
        ReferenceSource::NamingConvention => {
            format!("path {}", shown(&evidence.path.to_string_lossy()))
        }
        ReferenceSource::Labels => {
            let names: Vec<_> = labels::PAIRS
                .iter()
                .flat_map(|(name, version)| [*name, *version])
                .collect();
            label(case, &names)
        }
        ReferenceSource::FileStem => {
            let name = evidence.path.file_name().unwrap_or_default();
            format!("file name {}", shown(&name.to_string_lossy()))
        }
    }
}

fn label(case: &Case<'_>, names: &[&str]) -> String {
    let found: Vec<_> = names
        .iter()
        .filter_map(|name| Some(format!("{name}={}", shown(case.evidence.labels.get(name)?))))
        .collect();
    if found.is_empty() {
        "no such label".to_owned()
    } else {
        found.join(", ")
    }
}

/// A piece of evidence, cut to what a person reads.
fn shown(text: &str) -> String {
    let cut = bounded(text, MAX_SHOWN);
    if cut.len() < text.len() {
        format!("{cut}…")
    } else {
        cut.to_owned()
    }
}
