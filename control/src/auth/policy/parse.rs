//! Reading RAM policy documents: strict, since a misread policy is a hole.
//!
//! Refused: unknown or repeated names (a repeated `Condition` would silently drop the first),
//! empty lists, operators and values that are not understood, names that are no resource names,
//! and documents over [`MAX_DOCUMENT`].

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::Deserializer;
use serde::de::Error as _;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;

use super::condition::Test;
use super::pattern;
use super::pattern::RESOURCE_PARTS;
use super::{Effect, Patterns, Policy, Statement};

/// Ten times what the vendor accepts; more is a mistake.
pub const MAX_DOCUMENT: usize = 64 * 1024;

/// The service in the names of resources that are asked for.
const SERVICE: &str = "ehpc";

/// Why a document is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Over [`MAX_DOCUMENT`].
    #[error("the document has {0} bytes; at most {MAX_DOCUMENT} are read")]
    TooLarge(usize),
    /// Not JSON of the policy grammar.
    #[error("{0}")]
    Grammar(String),
    /// A version other than "1".
    #[error("Version is {0:?}; only \"1\" exists")]
    Version(String),
    /// A statement that cannot be understood.
    #[error("statement {index}: {problem}")]
    Statement {
        /// Its number, from 1.
        index: usize,
        /// What is wrong.
        problem: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[serde(rename_all = "PascalCase")]
struct RawDocument {
    version: String,
    statement: Vec<RawStatement>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[serde(rename_all = "PascalCase")]
struct RawStatement {
    effect: String,
    #[serde(default, deserialize_with = "present")]
    action: Option<OneOrMany>,
    #[serde(default, deserialize_with = "present")]
    not_action: Option<OneOrMany>,
    #[serde(default, deserialize_with = "present")]
    resource: Option<OneOrMany>,
    #[serde(default, deserialize_with = "present")]
    not_resource: Option<OneOrMany>,
    #[serde(default, deserialize_with = "present")]
    condition: Option<Entries<Entries<OneOrMany>>>,
}

/// What is there must be something: `null` is no condition that was left out.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// A value or a list of values; numbers and booleans are taken as their text.
struct OneOrMany(Vec<String>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Values { list: true })
    }
}

/// Reads a value, or where `list` is set a list of values.
struct Values {
    list: bool,
}

impl<'de> Visitor<'de> for Values {
    type Value = OneOrMany;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or a list of values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OneOrMany, A::Error> {
        if !self.list {
            return Err(A::Error::custom("a list inside a list of values"));
        }
        let mut all = Vec::new();
        while let Some(Scalar(one)) = seq.next_element()? {
            all.push(one);
        }
        Ok(OneOrMany(all))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<OneOrMany, E> {
        Ok(OneOrMany(vec![text.to_owned()]))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<OneOrMany, E> {
        Ok(OneOrMany(vec![value.to_string()]))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<OneOrMany, E> {
        Ok(OneOrMany(vec![value.to_string()]))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<OneOrMany, E> {
        Ok(OneOrMany(vec![value.to_string()]))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<OneOrMany, E> {
        Ok(OneOrMany(vec![value.to_string()]))
    }
}

/// One element of a list of values.
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let OneOrMany(all) = deserializer.deserialize_any(Values { list: false })?;
        Ok(Self(all.concat()))
    }
}

/// An object whose names are all different.
struct Entries<V>(Vec<(String, V)>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Entries<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Object<V> {
            type Value = Entries<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<V>, A::Error> {
                let mut entries: Vec<(String, V)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, V>()? {
                    if entries.iter().any(|(n, _)| n.eq_ignore_ascii_case(&name)) {
                        return Err(A::Error::custom(format!("{name:?} occurs twice")));
                    }
                    entries.push((name, value));
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Object(PhantomData))
    }
}

impl Policy {
    /// Reads a document. `name` is what explanations call it.
    pub fn parse(name: &str, document: &str) -> Result<Self, PolicyError> {
        if document.len() > MAX_DOCUMENT {
            return Err(PolicyError::TooLarge(document.len()));
        }
        let raw: RawDocument =
            serde_json::from_str(document).map_err(|e| PolicyError::Grammar(e.to_string()))?;
        if raw.version != "1" {
            return Err(PolicyError::Version(raw.version));
        }
        if raw.statement.is_empty() {
            return Err(PolicyError::Grammar("Statement is empty".into()));
        }
        let statements = raw
            .statement
            .into_iter()
            .enumerate()
            .map(|(at, raw)| {
                statement(raw).map_err(|problem| PolicyError::Statement {
                    index: at + 1,
                    problem,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            name: name.to_owned(),
            statements,
        })
    }
}

fn statement(raw: RawStatement) -> Result<Statement, String> {
    let effect = match raw.effect.as_str() {
        "Allow" => Effect::Allow,
        "Deny" => Effect::Deny,
        other => return Err(format!("Effect is {other:?}; Allow and Deny exist")),
    };
    let actions = one_of(raw.action, raw.not_action, "Action", check_action)?;
    let resources = one_of(raw.resource, raw.not_resource, "Resource", check_resource)?;
    let mut tests = Vec::new();
    for (operator, keys) in raw.condition.map(|c| c.0).unwrap_or_default() {
        if keys.0.is_empty() {
            return Err(format!("{operator} names no condition key"));
        }
        for (key, values) in keys.0 {
            tests.push(Test::parse(&operator, &key, &values.0)?);
        }
    }
    Ok(Statement {
        effect,
        actions,
        resources,
        tests,
    })
}

fn one_of(
    plain: Option<OneOrMany>,
    negated: Option<OneOrMany>,
    name: &str,
    check: fn(&str) -> Result<(), String>,
) -> Result<Patterns, String> {
    let (list, is_negated) = match (plain, negated) {
        (Some(list), None) => (list.0, false),
        (None, Some(list)) => (list.0, true),
        (None, None) => return Err(format!("{name} is missing")),
        (Some(_), Some(_)) => return Err(format!("{name} and Not{name} exclude each other")),
    };
    if list.is_empty() {
        return Err(format!("{name} is empty"));
    }
    for item in &list {
        // Variables exist in other clouds' grammars; taking them literally would match nothing,
        // and a Deny that matches nothing is a hole.
        if item.contains("${") {
            return Err(format!("{item:?}: variables are not supported"));
        }
        check(item)?;
    }
    Ok(Patterns {
        list,
        negated: is_negated,
    })
}

fn check_action(action: &str) -> Result<(), String> {
    let good = action == "*"
        || action.split_once(':').is_some_and(|(service, name)| {
            [service, name].iter().all(|part| {
                !part.is_empty()
                    && part
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"*?-_".contains(&b))
            })
        });
    if good {
        Ok(())
    } else {
        Err(format!("{action:?} is no action (service:Name or *)"))
    }
}

fn check_resource(resource: &str) -> Result<(), String> {
    let parts: Vec<_> = resource.splitn(RESOURCE_PARTS, ':').collect();
    let good = resource == "*"
        || match parts[..] {
            ["acs", service, region, account, name] => {
                // Some services have no region or account, and leave it out. In what this one's names are
                // compared with it would match nothing.
                let may_leave_out = !pattern::matches(service, SERVICE);
                let fixed = [service, region, account];
                ![service, name].contains(&"")
                    && (may_leave_out || !fixed.contains(&""))
                    && !fixed.concat().contains(char::is_whitespace)
                    && !resource.contains(char::is_control)
            }
            _ => false,
        };
    if good {
        Ok(())
    } else {
        Err(format!(
            "{resource:?} is no resource (acs:service:region:account:name or *)"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_documents() {
        let with = |statement: &str| format!(r#"{{"Version":"1","Statement":[{statement}]}}"#);
        let good = r#"{"Effect":"Allow","Action":"ehpc:*","Resource":"*"}"#;
        assert!(Policy::parse("p", &with(good)).is_ok());
        let rows = [
            String::new(),
            "null".into(),
            "[]".into(),
            "{}".into(),
            r#"{"Version":"1"}"#.into(),
            r#"{"Version":"1","Statement":[]}"#.into(),
            format!(r#"{{"Version":"2012-10-17","Statement":[{good}]}}"#),
            format!(r#"{{"Version":1,"Statement":[{good}]}}"#),
            format!(r#"{{"Statement":[{good}]}}"#),
            format!(r#"{{"Version":"1","Statement":{good}}}"#),
            format!(r#"{{"Version":"1","Statement":[{good}],"Id":"x"}}"#),
            format!(r#"{{"Version":"1","Statement":[{good}]}} trailing"#),
            format!(r#"{{"Version":"1","Version":"1","Statement":[{good}]}}"#),
            with(r#"{"Action":"ehpc:*","Resource":"*"}"#),
            with(r#"{"Effect":"allow","Action":"ehpc:*","Resource":"*"}"#),
            with(r#"{"Effect":"Allow","Resource":"*"}"#),
            with(r#"{"Effect":"Allow","Action":"ehpc:*"}"#),
            with(r#"{"Effect":"Allow","Action":[],"Resource":"*"}"#),
            with(r#"{"Effect":"Allow","Action":"ehpc:*","Resource":[]}"#),
            with(r#"{"Effect":"Allow","Action":"ehpc","Resource":"*"}"#),
            with(r#"{"Effect":"Allow","Action":"ehpc: *","Resource":"*"}"#),
            with(r#"{"Effect":"Allow","Action":[["ehpc:*"]],"Resource":"*"}"#),
            with(r#"{"Effect":"Allow","Action":"ehpc:*","NotAction":"ecs:*","Resource":"*"}"#),
            with(r#"{"Effect":"Allow","Action":"ehpc:*","Resource":"acs:ehpc:*"}"#),
            with(r#"{"Effect":"Allow","Action":"ehpc:*","Resource":"acs:ehpc::1:*"}"#),
            with(r#"{"Effect":"Deny","Action":"ehpc:*","Resource":"acs:*::1:*"}"#),
            with(r#"{"Effect":"Deny","Action":"ehpc:*","Resource":"acs:ehpc:*:1:"}"#),
            with(r#"{"Effect":"Deny","Action":"ehpc:*","Resource":"acs:ehpc: *:1:*"}"#),
            with(r#"{"Effect":"Deny","Action":"ehpc:*","Resource":"acs::*:1:*"}"#),
            with(r#"{"Effect":"Deny","Action":"ehpc:*","Resource":"acs:ehpc:*:1:a\nb"}"#),
            with(r#"{"Effect":"Allow","Action":"ehpc:*","Resource":"arn:aws:s3:::x"}"#),
            with(r#"{"Effect":"Allow","Action":"ehpc:*","Resource":"acs:ehpc:${r}:*:*"}"#),
            with(r#"{"Effect":"Allow","Action":"ehpc:*","Resource":"*","Principal":"*"}"#),
            with(r#"{"Effect":"Allow","Action":"ehpc:*","Resource":"*","Condition":{"Bool":{}}}"#),
            with(r#"{"Effect":"Allow","Action":"ehpc:*","Resource":"*","Condition":[]}"#),
            with(r#"{"Effect":"Allow","Action":"ehpc:*","Resource":"*","Condition":null}"#),
            with(r#"{"Effect":"Allow","Action":"ehpc:*","Resource":"*","NotResource":null}"#),
            with(r#"{"Effect":"Allow","Action":null,"NotAction":"ecs:*","Resource":"*"}"#),
            with(
                r#"{"Effect":"Allow","Action":"ehpc:*","Resource":"*",
                   "Condition":{"Equals":{"k":"v"}}}"#,
            ),
            with(
                r#"{"Effect":"Allow","Action":"ehpc:*","Resource":"*","Condition":{
                   "IpAddress":{"acs:SourceIp":"10.0.0.0/8"},
                   "IpAddress":{"acs:SourceIp":"0.0.0.0/0"}}}"#,
            ),
            with(
                r#"{"Effect":"Allow","Action":"ehpc:*","Resource":"*","Condition":{
                   "IpAddress":{"acs:SourceIp":"10.0.0.0/8","acs:sourceip":"0.0.0.0/0"}}}"#,
            ),
            format!("{}{}", with(good), " ".repeat(MAX_DOCUMENT)),
        ];
        for document in rows {
            assert!(
                Policy::parse("p", &document).is_err(),
                "accepted {document}"
            );
        }
    }

    #[test]
    fn names_of_other_services_are_taken_as_they_are() {
        // As the vendor's own examples have them, in documents that also have a word on this service.
        let document = r#"{"Version":"1","Statement":[
            {"Effect":"Allow","Action":"sts:AssumeRole","Resource":"acs:ram::1:role/admin"},
            {"Effect":"Allow","Action":"oss:*","Resource":["acs:oss:::bucket","acs:oss:*:*:bucket/my dir/*"]},
            {"Effect":"Allow","Action":"ehpc:List*","Resource":"acs:ehpc:*:1:*"}]}"#;
        assert_eq!(Policy::parse("p", document).map(|_| ()), Ok(()));
    }

    #[test]
    fn values_of_every_spelling() {
        let document = r#"{"Version":"1","Statement":[{
            "Effect":"Allow","Action":["ehpc:List*","ehpc:Get*"],"Resource":["*"],
            "Condition":{"Bool":{"acs:SecureTransport":true},
                         "NumericLessThan":{"x:a":[1,2.5,"3"],"x:b":-4}}}]}"#;
        let policy = Policy::parse("p", document).unwrap();
        assert_eq!(policy.statements[0].tests.len(), 3);
    }
}
