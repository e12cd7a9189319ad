//! One term of a filter.

use super::field::{Field, Value};
use super::literal::glob;
use super::{Labels, QueryError};
use crate::catalog::{FileTime, Row, Snapshot, StoreError};
use crate::config::duration;

/// `field op value`, of which a filter has several.
#[derive(Debug, Clone)]
pub(super) struct Term {
    field: Field,
    op: Op,
    value: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

/// A word's field, operator and value.
fn split(word: &str) -> Option<(&str, Op, &str)> {
    let (name, rest) = word.split_at(word.find(['=', '!', '<', '>'])?);
    [
        ("!=", Op::NotEqual),
        ("<=", Op::LessEqual),
        (">=", Op::GreaterEqual),
        ("=", Op::Equal),
        ("<", Op::Less),
        (">", Op::Greater),
    ]
    .into_iter()
    .find_map(|(text, op)| Some((name, op, rest.strip_prefix(text)?)))
}

/// Whether a word of a filter compares with a user or group by its name.
pub(super) fn asks_host(word: &str) -> bool {
    split(word).is_some_and(|(name, _, value)| {
        matches!(name, "owner" | "group") && value.parse::<u32>().is_err()
    })
}

impl Term {
    /// Parses a word of a filter; `now` is what ages are counted from.
    pub(super) fn parse(word: &str, now: FileTime) -> Result<Self, QueryError> {
        if word.trim().is_empty() {
            return Err(QueryError::Filter(
                "an empty term: write one, as in `status=READY`, or leave it out".to_owned(),
            ));
        }
        let no_operator =
            || QueryError::Filter(format!("`{word}` has no operator (= != < <= > >=)"));
        let (name, op, value) = split(word).ok_or_else(no_operator)?;
        let fail = |what: &str| QueryError::Filter(format!("`{word}`: {what}"));
        // `age>180d` is `update_time<` that long ago; `unused` the same for the last access.
        if let Some(field) = match name {
            "age" => Some(Field::UpdateTime),
            "unused" => Some(Field::AccessTime),
            _ => None,
        } {
            let age = duration(value).ok_or_else(|| fail("not a duration, as in 90d, 12h, 2w"))?;
            let op = match op {
                Op::Less => Op::Greater,
                Op::LessEqual => Op::GreaterEqual,
                Op::Greater => Op::Less,
                Op::GreaterEqual => Op::LessEqual,
                Op::Equal | Op::NotEqual => return Err(fail("ages are compared with < and >")),
            };
            return Ok(Self {
                field,
                op,
                value: Value::Number(i128::from(now.0) - age.as_nanos().cast_signed()),
            });
        }
        // `label=key=value`, as docker has it, is `label.key=value`; `label=key` asks for presence.
        if name == "label" {
            let (key, value) = value.split_once('=').unwrap_or((value, "*"));
            return Ok(Self {
                field: Field::Label(key.to_owned()),
                op,
                value: Value::Text(glob(value, false).map_err(|what| fail(&what))?),
            });
        }
        let field = Field::parse(name).ok_or_else(|| {
            fail(&format!(
                "no such field; there are {}, age, unused, label.KEY",
                Field::names()
            ))
        })?;
        let value = field.value(name, value).map_err(|what| fail(&what))?;
        if matches!(value, Value::Text(_) | Value::Boolean(_))
            && !matches!(op, Op::Equal | Op::NotEqual)
        {
            return Err(fail("is compared with = and != only"));
        }
        Ok(Self { field, op, value })
    }

    /// Whether it is about a label.
    pub(super) fn needs_labels(&self) -> bool {
        matches!(self.field, Field::Label(_))
    }

    /// Whether it holds for an image of a snapshot.
    pub(super) fn matches(
        &self,
        snapshot: &Snapshot,
        row: &Row<'_>,
        labels: &dyn Labels,
    ) -> Result<bool, StoreError> {
        Ok(match &self.value {
            Value::Text(glob) => {
                let equal = if let Field::Label(key) = &self.field {
                    labels
                        .label(row.id, key)?
                        .is_some_and(|value| glob.is_match(value))
                } else {
                    glob.is_match(&*self.field.text(snapshot, row))
                };
                equal == (self.op == Op::Equal)
            }
            Value::Boolean(wanted) => {
                let is_wanted = self.field.number(row) == Some((*wanted).into());
                is_wanted == (self.op == Op::Equal)
            }
            Value::Number(wanted) => self.field.number(row).is_some_and(|number| match self.op {
                Op::Equal => number == *wanted,
                Op::NotEqual => number != *wanted,
                Op::Less => number < *wanted,
                Op::LessEqual => number <= *wanted,
                Op::Greater => number > *wanted,
                Op::GreaterEqual => number >= *wanted,
            }),
        })
    }
}
