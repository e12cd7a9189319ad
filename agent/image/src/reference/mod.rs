//! What an image is called: repository and tag, by the first rule that applies.
//!
//! | rule | module | looks at |
//! |---|---|---|
//! | 1 | [`naming`] | the site's own expressions over the path |
//! | 2 | [`origin`] | an OCI reference stored as such |
//! | 3 | [`origin`] | the definition of a *pulled* image |
//! | 4 | [`conventions`] | how tools name files and folders |
//! | 5 | [`labels`] | labels in which the image names itself |
//! | 6 | here | the file stem, tag `latest` |
//!
//! Names, labels and definitions are written by strangers: whatever they hold, a resolution ends,
//! and its texts are bounded. Rules are rules of form; there is no list of images.

mod conventions;
mod explain;
mod labels;
mod naming;
mod oci;
mod origin;
mod shape;

use std::borrow::Cow;
use std::path::Path;

pub use self::naming::NamingRule;
pub(crate) use self::origin::{Origin, decided};
use crate::definition::{Definition, bounded};
use crate::labels::Labels;
use crate::record::{Reference, ReferenceSource};

/// Bytes of a repository or tag that are listed: what a registry takes, and a file name's length.
const MAX_LISTED: usize = 512;

/// All that is known of an image's origin.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// Absolute path.
    pub path: &'a Path,
    /// The site's naming rules, in order.
    pub naming: &'a [NamingRule],
    /// An OCI reference stored as such: the `ref.name` annotation of an OCI-SIF's root index.
    pub oci_reference: Option<&'a str>,
    /// Definition as stored.
    pub definition: Option<&'a str>,
    /// Labels.
    pub labels: &'a Labels,
}

/// What the rules made of the evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// The winner.
    pub reference: Reference,
    /// What the image was built on; empty if it was pulled or nothing is known.
    pub base: String,
    /// Every rule in order: what it saw, what it would give, and why it won or lost.
    pub rules: Vec<RuleOutcome>,
}

/// One rule's part in a [`Resolution`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleOutcome {
    /// The rule.
    pub rule: ReferenceSource,
    /// What it looked at, for people.
    pub saw: String,
    /// What it gives, if it applies.
    pub gives: Option<(String, String)>,
    /// Why it won, lost or does not apply, for people.
    pub because: String,
}

/// What a rule gives, or why it does not apply. The reasons are constant, so that a listing pays
/// nothing for them.
type Outcome = Result<Found, &'static str>;

/// Repository and tag as one rule gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    repository: String,
    tag: String,
    /// Why the rule applies.
    how: &'static str,
}

impl Found {
    #[expect(
        clippy::unnecessary_wraps,
        reason = "ends a rule that may also not apply"
    )]
    fn new(repository: String, tag: String, how: &'static str) -> Outcome {
        Ok(Self {
            repository,
            tag,
            how,
        })
    }
}

/// The rules in the order in which they are tried.
const RULES: [ReferenceSource; 6] = [
    ReferenceSource::NamingRule,
    ReferenceSource::OciReference,
    ReferenceSource::Definition,
    ReferenceSource::NamingConvention,
    ReferenceSource::Labels,
    ReferenceSource::FileStem,
];

/// The evidence, with what several rules need read once.
struct Case<'a> {
    evidence: &'a Evidence<'a>,
    definition: Option<Definition<'a>>,
    origin: Option<Origin>,
}

impl<'a> Case<'a> {
    fn new(evidence: &'a Evidence<'a>) -> Self {
        let definition = evidence
            .definition
            .filter(|text| !text.trim().is_empty())
            .map(Definition::parse);
        let origin = Origin::of(definition.as_ref(), evidence.labels);
        Self {
            evidence,
            definition,
            origin,
        }
    }

    fn apply(&self, rule: ReferenceSource) -> Outcome {
        let evidence = self.evidence;
        match rule {
            ReferenceSource::NamingRule => match naming::first(evidence.naming, evidence.path) {
                Some((repository, tag)) => Found::new(
                    repository,
                    tag,
                    "a naming rule of the site matches the path",
                ),
                None if evidence.naming.is_empty() => Err("the site has no naming rules here"),
                None => Err("no naming rule of the site matches the path"),
            },
            ReferenceSource::OciReference => origin::stored(evidence, self.origin.as_ref()),
            ReferenceSource::Definition => origin::definition(self.origin.as_ref()),
            ReferenceSource::NamingConvention => conventions::apply(evidence.path),
            ReferenceSource::Labels => labels::own_name(
                evidence.labels,
                self.definition.as_ref(),
                self.origin.as_ref(),
            ),
            ReferenceSource::FileStem => Found::new(
                stem(evidence.path).into_owned(),
                "latest".to_owned(),
                "every file has a name",
            ),
        }
    }
}

/// Applies the rules. `explain` fills [`Resolution::rules`]; a listing does without.
#[must_use]
pub fn resolve(evidence: &Evidence<'_>, explain: bool) -> Resolution {
    resolve_case(&Case::new(evidence), explain)
}

/// As [`resolve`], of an image whose definition says it all ([`decided`]).
pub(crate) fn resolve_decided(evidence: &Evidence<'_>, origin: Origin) -> Resolution {
    let case = Case {
        evidence,
        definition: None,
        origin: Some(origin),
    };
    resolve_case(&case, false)
}

fn resolve_case(case: &Case<'_>, explain: bool) -> Resolution {
    let base = case.origin.as_ref().map(Origin::base).unwrap_or_default();
    let mut winner = None;
    let mut rules = Vec::new();
    for rule in RULES {
        if winner.is_some() && !explain {
            break;
        }
        let outcome = case.apply(rule).map(|found| Found {
            repository: listed(found.repository),
            tag: listed(found.tag),
            how: found.how,
        });
        if explain {
            rules.push(explain::outcome(case, rule, &outcome, winner.as_ref()));
        }
        if let (Ok(found), None) = (outcome, &winner) {
            winner = Some(Reference {
                repository: found.repository,
                tag: found.tag,
                source: rule,
            });
        }
    }
    // The last rule always applies.
    let reference = winner.unwrap_or_else(|| Reference {
        repository: NAMELESS.to_owned(),
        tag: "latest".to_owned(),
        source: ReferenceSource::FileStem,
    });
    Resolution {
        reference,
        base: listed(base),
        rules,
    }
}

/// A text cut to what is listed.
fn listed(mut text: String) -> String {
    text.truncate(bounded(&text, MAX_LISTED).len());
    text
}

/// What a file without a name is called.
const NAMELESS: &str = "image";

/// Rule 6: the file name without the ending of an image file, or of another kind. What follows
/// the last dot of `tool_2.6.1` is no ending.
fn stem(path: &Path) -> Cow<'_, str> {
    let name = match path.file_name() {
        Some(name) => name.to_string_lossy(),
        None => Cow::Borrowed(NAMELESS),
    };
    let keep = conventions::stem_len(&name);
    match name {
        Cow::Borrowed(name) => Cow::Borrowed(&name[..keep]),
        Cow::Owned(mut name) => {
            name.truncate(keep);
            Cow::Owned(name)
        }
    }
}

#[cfg(test)]
mod tests;
