//! RAM policies: who may do what.
//!
//! Everything is denied unless a statement allows it, and one statement that denies outweighs
//! every one that allows. A condition that cannot be decided (see [`condition`]) makes an `Allow`
//! not apply and a `Deny` apply. Evaluation cannot fail: what cannot be understood was refused by
//! [`Policy::parse`].

use std::fmt;

mod condition;
mod parse;
mod pattern;

pub use condition::{Context, Truth};
pub use parse::{MAX_DOCUMENT, PolicyError};

use condition::Test;

/// A named policy document.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    name: String,
    statements: Vec<Statement>,
}

#[derive(Debug, Clone, PartialEq)]
struct Statement {
    effect: Effect,
    actions: Patterns,
    resources: Patterns,
    tests: Vec<Test>,
}

/// What a statement does where it applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Grants.
    Allow,
    /// Refuses, whatever grants.
    Deny,
}

/// Patterns of which one must match, or (`NotAction`, `NotResource`) none may.
#[derive(Debug, Clone, PartialEq)]
struct Patterns {
    list: Vec<String>,
    negated: bool,
}

impl Patterns {
    fn match_with(&self, matches: impl Fn(&str) -> bool) -> bool {
        self.list.iter().any(|pattern| matches(pattern)) != self.negated
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// `service:Action`.
    pub action: &'a str,
    /// `acs:service:region:account:name`.
    pub resource: &'a str,
    /// The rest that conditions may ask about.
    pub context: &'a Context,
}

/// The answer, and what led to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What decided.
    pub verdict: Verdict,
    /// Every statement looked at, in order.
    pub trace: Vec<Trace>,
}

/// What decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The access key is the account's own; policies bind its users only.
    Owner,
    /// A statement allows it and none denies it.
    Allowed(StatementName),
    /// A statement denies it.
    Denied(StatementName),
    /// No statement allows it.
    NotAllowed,
}

/// A statement by its policy and its number from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementName {
    /// Name of the policy.
    pub policy: String,
    /// Number of the statement, from 1.
    pub index: usize,
}

/// One statement and why it applied or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Which one.
    pub statement: StatementName,
    /// What it does where it applies.
    pub effect: Effect,
    /// Why it applied or did not.
    pub outcome: Outcome,
}

/// Why a statement applied or did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It applies.
    Applies,
    /// It applies because it denies and this condition cannot be decided.
    AppliesUndecided(String),
    /// It is about other actions.
    OtherAction,
    /// It is about other resources.
    OtherResource,
    /// This condition is not met.
    ConditionNotMet(String),
    /// This condition cannot be decided, so it does not allow.
    ConditionUndecided(String),
}

impl Decision {
    /// The answer for an account's own key.
    pub fn owner() -> Self {
        Self {
            verdict: Verdict::Owner,
            trace: Vec::new(),
        }
    }

    /// Whether the request may go on.
    pub fn is_allowed(&self) -> bool {
        matches!(self.verdict, Verdict::Owner | Verdict::Allowed(_))
    }
}

impl Statement {
    fn outcome(&self, request: &Request<'_>) -> Outcome {
        let action = |p: &str| pattern::matches_ignoring_case(p, request.action);
        if !self.actions.match_with(action) {
            return Outcome::OtherAction;
        }
        let resource = |p: &str| pattern::matches_resource(p, request.resource);
        if !self.resources.match_with(resource) {
            return Outcome::OtherResource;
        }
        let mut undecided = None;
        for test in &self.tests {
            match test.evaluate(request.context) {
                Truth::NotMet => return Outcome::ConditionNotMet(test.to_string()),
                Truth::Unknown => undecided = undecided.or_else(|| Some(test.to_string())),
                Truth::Met => {}
            }
        }
        match (undecided, self.effect) {
            (None, _) => Outcome::Applies,
            (Some(test), Effect::Allow) => Outcome::ConditionUndecided(test),
            (Some(test), Effect::Deny) => Outcome::AppliesUndecided(test),
        }
    }
}

/// Decides, looking at every statement so that the explanation is complete.
pub fn decide<'a>(policies: impl Iterator<Item = &'a Policy>, request: &Request<'_>) -> Decision {
    let mut trace = Vec::new();
    let mut verdict = Verdict::NotAllowed;
    for policy in policies {
        for (at, statement) in policy.statements.iter().enumerate() {
            let name = StatementName {
                policy: policy.name.clone(),
                index: at + 1,
            };
            let outcome = statement.outcome(request);
            if matches!(outcome, Outcome::Applies | Outcome::AppliesUndecided(_)) {
                match (statement.effect, &verdict) {
                    (_, Verdict::Denied(_)) | (Effect::Allow, Verdict::Allowed(_)) => {}
                    (Effect::Deny, _) => verdict = Verdict::Denied(name.clone()),
                    (Effect::Allow, _) => verdict = Verdict::Allowed(name.clone()),
                }
            }
            trace.push(Trace {
                statement: name,
                effect: statement.effect,
                outcome,
            });
        }
    }
    Decision { verdict, trace }
}

impl fmt::Display for StatementName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "policy {:?}, statement {}", self.policy, self.index)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner => f.write_str("allowed: the key is the account's own"),
            Self::Allowed(by) => write!(f, "allowed by {by}"),
            Self::Denied(by) => write!(f, "denied by {by}"),
            Self::NotAllowed => f.write_str("denied: no statement allows it"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Applies => f.write_str("applies"),
            Self::AppliesUndecided(test) => {
                write!(
                    f,
                    "applies: {test} cannot be decided, and a Deny then counts"
                )
            }
            Self::OtherAction => f.write_str("does not apply: other actions"),
            Self::OtherResource => f.write_str("does not apply: other resources"),
            Self::ConditionNotMet(test) => write!(f, "does not apply: {test} is not met"),
            Self::ConditionUndecided(test) => {
                write!(f, "does not apply: {test} cannot be decided")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "ehpc:ListContainerImages";
    const HERE: &str = "acs:ehpc:cn-hangzhou:123:*";

    fn verdict(statements: &[&str]) -> Verdict {
        // One policy a statement: several policies are as good as one.
        let policies: Vec<_> = statements
            .iter()
            .enumerate()
            .map(|(at, statement)| {
                let document = format!(r#"{{"Version":"1","Statement":[{statement}]}}"#);
                Policy::parse(&format!("p{at}"), &document).unwrap()
            })
            .collect();
        let context = Context::new(
            "10.1.2.3".parse().unwrap(),
            false,
            "2026-01-02T03:04:05Z".parse().unwrap(),
        );
        let request = Request {
            action: LIST,
            resource: HERE,
            context: &context,
        };
        decide(policies.iter(), &request).verdict
    }

    fn name(at: usize) -> StatementName {
        StatementName {
            policy: format!("p{at}"),
            index: 1,
        }
    }

    #[test]
    fn decisions() {
        const ALL: &str = r#"{"Effect":"Allow","Action":"*","Resource":"*"}"#;
        const DENY: &str =
            r#"{"Effect":"Deny","Action":"EHPC:listcontainerimages","Resource":"*"}"#;
        let rows: &[(&[&str], Verdict)] = &[
            (&[], Verdict::NotAllowed),
            (&[ALL], Verdict::Allowed(name(0))),
            // The first of those that decide alike is named.
            (&[ALL, ALL], Verdict::Allowed(name(0))),
            (&[DENY, DENY], Verdict::Denied(name(0))),
            (&[ALL, DENY], Verdict::Denied(name(1))),
            (&[DENY, ALL], Verdict::Denied(name(0))),
            (&[DENY], Verdict::Denied(name(0))),
            (
                &[r#"{"Effect":"Allow","Action":"ehpc:List*","Resource":"acs:ehpc:*:123:*"}"#],
                Verdict::Allowed(name(0)),
            ),
            (
                &[r#"{"Effect":"Allow","Action":"ehpc:ListContainerImage?","Resource":"*"}"#],
                Verdict::Allowed(name(0)),
            ),
            (
                &[r#"{"Effect":"Allow","Action":"ehpc:Delete*","Resource":"*"}"#],
                Verdict::NotAllowed,
            ),
            (
                &[r#"{"Effect":"Allow","Action":"*","Resource":"acs:ehpc:*:999:*"}"#],
                Verdict::NotAllowed,
            ),
            (
                &[r#"{"Effect":"Allow","NotAction":"ecs:*","Resource":"*"}"#],
                Verdict::Allowed(name(0)),
            ),
            (
                &[r#"{"Effect":"Allow","NotAction":["ecs:*","ehpc:*"],"Resource":"*"}"#],
                Verdict::NotAllowed,
            ),
            (
                &[
                    ALL,
                    r#"{"Effect":"Deny","Action":"*","NotResource":"acs:ehpc:cn-hangzhou:*:*"}"#,
                ],
                Verdict::Allowed(name(0)),
            ),
            (
                &[
                    ALL,
                    r#"{"Effect":"Deny","Action":"*","NotResource":"acs:ehpc:cn-beijing:*:*"}"#,
                ],
                Verdict::Denied(name(1)),
            ),
            // Conditions: all of them; the Deny ones of a typical "only from here, only by TLS".
            (
                &[
                    ALL,
                    r#"{"Effect":"Deny","Action":"*","Resource":"*",
                    "Condition":{"Bool":{"acs:SecureTransport":"false"}}}"#,
                ],
                Verdict::Denied(name(1)),
            ),
            (
                &[
                    ALL,
                    r#"{"Effect":"Deny","Action":"*","Resource":"*",
                    "Condition":{"NotIpAddress":{"acs:SourceIp":["10.0.0.0/8"]}}}"#,
                ],
                Verdict::Allowed(name(0)),
            ),
            (
                &[
                    r#"{"Effect":"Allow","Action":"*","Resource":"*","Condition":{
                    "IpAddress":{"acs:SourceIp":"10.0.0.0/8"},
                    "DateLessThan":{"acs:CurrentTime":"2026-01-01T00:00:00+08:00"}}}"#,
                ],
                Verdict::NotAllowed,
            ),
            (
                &[
                    r#"{"Effect":"Allow","Action":"*","Resource":"*","Condition":{
                    "IpAddress":{"acs:SourceIp":"10.0.0.0/8"},
                    "DateLessThan":{"acs:CurrentTime":"2027-01-01T00:00:00+08:00"}}}"#,
                ],
                Verdict::Allowed(name(0)),
            ),
            // What cannot be decided never opens: no Allow, and a Deny counts.
            (
                &[r#"{"Effect":"Allow","Action":"*","Resource":"*",
                    "Condition":{"StringNotEquals":{"acs:SourceVpc":"vpc-1"}}}"#],
                Verdict::NotAllowed,
            ),
            (
                &[
                    ALL,
                    r#"{"Effect":"Deny","Action":"*","Resource":"*",
                    "Condition":{"Bool":{"acs:MFAPresent":"false"}}}"#,
                ],
                Verdict::Denied(name(1)),
            ),
            // … unless another condition of the same Deny is plainly not met.
            (
                &[
                    ALL,
                    r#"{"Effect":"Deny","Action":"*","Resource":"*","Condition":{
                    "Bool":{"acs:MFAPresent":"false","acs:SecureTransport":"true"}}}"#,
                ],
                Verdict::Allowed(name(0)),
            ),
        ];
        for (statements, expected) in rows {
            assert_eq!(&verdict(statements), expected, "{statements:#?}");
        }
    }

    #[test]
    fn the_explanation_names_every_statement() {
        let policy = Policy::parse(
            "mixed",
            r#"{"Version":"1","Statement":[
                {"Effect":"Allow","Action":"ecs:*","Resource":"*"},
                {"Effect":"Allow","Action":"*","Resource":"acs:ecs:*:*:*"},
                {"Effect":"Allow","Action":"*","Resource":"*",
                 "Condition":{"Bool":{"acs:SecureTransport":"true"}}},
                {"Effect":"Allow","Action":"*","Resource":"*",
                 "Condition":{"Bool":{"acs:MFAPresent":"true"}}},
                {"Effect":"Allow","Action":"*","Resource":"*"},
                {"Effect":"Deny","Action":"*","Resource":"*",
                 "Condition":{"Bool":{"acs:MFAPresent":"true"}}}]}"#,
        )
        .unwrap();
        let context = Context::new(
            "::1".parse().unwrap(),
            false,
            "2026-01-02T03:04:05Z".parse().unwrap(),
        );
        let decision = decide(
            [&policy].into_iter(),
            &Request {
                action: LIST,
                resource: HERE,
                context: &context,
            },
        );
        let lines: Vec<_> = decision
            .trace
            .iter()
            .map(|t| t.outcome.to_string())
            .collect();
        assert_eq!(
            lines,
            [
                "does not apply: other actions",
                "does not apply: other resources",
                "does not apply: Bool acs:SecureTransport is not met",
                "does not apply: Bool acs:MFAPresent cannot be decided",
                "applies",
                "applies: Bool acs:MFAPresent cannot be decided, and a Deny then counts",
            ]
        );
        assert!(!decision.is_allowed());
        assert_eq!(
            decision.verdict.to_string(),
            "denied by policy \"mixed\", statement 6"
        );
    }
}
