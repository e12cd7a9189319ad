//! Filters and orders, the same for gRPC and the command line. See docs/queries.md.

mod field;
mod literal;
mod term;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::facts::FileTime;
use super::row::Row;
use super::rows::Rows;
use super::snapshot::Snapshot;
use super::store::StoreError;
use field::Field;
pub use field::{format_name, status_name};
pub use literal::quote;
use literal::split;
use term::Term;

/// Longest filter: what people write has some hundred bytes.
const FILTER_MAX: usize = 4096;

/// Most terms of a filter.
const TERMS_MAX: usize = 32;

/// What is wrong with a query: the message does not say where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// It is in the filter.
    #[error("filter: {0}")]
    Filter(String),
    /// It is in the order.
    #[error("order: {0}")]
    Order(String),
}

/// Which images, and in which order.
#[derive(Debug, Clone, Default)]
pub struct Query {
    terms: Vec<Term>,
    order: Vec<(Field, bool)>,
}

/// Labels of images, for filters that ask for them.
pub trait Labels {
    /// The value of label `key` of the image numbered `image`.
    ///
    /// # Errors
    ///
    /// It is not known whether there is one.
    fn label(&self, image: i64, key: &str) -> Result<Option<String>, StoreError>;
}

impl Query {
    /// Parses a filter (terms separated by blanks) and an order (fields separated by commas); an empty
    /// text is none. `now` is what ages are counted from.
    ///
    /// # Errors
    ///
    /// What is wrong, with the term.
    pub fn parse(filter: &str, order_by: &str, now: FileTime) -> Result<Self, QueryError> {
        let long = || format!("longer than {FILTER_MAX} bytes");
        if filter.len() > FILTER_MAX {
            return Err(QueryError::Filter(long()));
        }
        if order_by.len() > FILTER_MAX {
            return Err(QueryError::Order(long()));
        }
        let words = split(filter)?;
        if words.len() > TERMS_MAX {
            return Err(QueryError::Filter(format!("more than {TERMS_MAX} terms")));
        }
        let terms = words
            .iter()
            .map(|word| Term::parse(word, now))
            .collect::<Result<_, _>>()?;
        let mut order: Vec<(Field, bool)> = Vec::new();
        // As proto3 leaves it where nothing is asked for.
        let parts = (!order_by.is_empty()).then(|| order_by.split(','));
        for part in parts.into_iter().flatten() {
            let (field, descending) = parse_order(part.trim())?;
            // What is equal in a field is so again.
            if order.iter().all(|(known, _)| *known != field) {
                order.push((field, descending));
            }
        }
        Ok(Self { terms, order })
    }

    /// Whether parsing a filter takes the host's users or groups, which may take long to ask for.
    #[must_use]
    pub fn asks_host(filter: &str) -> bool {
        filter.len() <= FILTER_MAX
            && split(filter).is_ok_and(|words| words.iter().any(|word| term::asks_host(word)))
    }

    /// Whether the query takes all images in the order of the snapshot.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.terms.is_empty() && self.order.is_empty()
    }

    /// Whether it takes labels to tell what matches.
    #[must_use]
    pub fn needs_labels(&self) -> bool {
        self.terms.iter().any(Term::needs_labels)
    }

    /// Whether the image matches.
    ///
    /// # Errors
    ///
    /// Its labels are not known.
    pub fn matches(
        &self,
        snapshot: &Snapshot,
        row: &Row<'_>,
        labels: &dyn Labels,
    ) -> Result<bool, StoreError> {
        for term in &self.terms {
            if !term.matches(snapshot, row, labels)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The images of a snapshot that match, in order. What is in the order of the snapshot shares with it.
    ///
    /// # Errors
    ///
    /// The labels of one of them are not known.
    pub fn select(&self, snapshot: &Snapshot, labels: &dyn Labels) -> Result<Rows, StoreError> {
        let matching = if self.terms.is_empty() {
            snapshot.rows.clone()
        } else {
            let mut places = Vec::new();
            for (place, row) in snapshot.rows.iter().enumerate() {
                if self.matches(snapshot, &row.view(), labels)? {
                    places.push(place);
                }
            }
            snapshot.rows.at(&places)
        };
        if self.order.is_empty() {
            return Ok(matching);
        }
        let mut rows: Vec<_> = matching.iter().collect();
        // From the last field to the first: what is equal stays in the order it has, at first that of the snapshot.
        for (field, descending) in self.order.iter().rev() {
            let keys = rows.iter().map(|row| field.key(snapshot, &row.view()));
            let mut keyed: Vec<_> = keys.zip(rows.iter().copied()).collect();
            keyed.sort_by(|(a, _), (b, _)| {
                let order = a.cmp(b);
                if *descending { order.reverse() } else { order }
            });
            rows = keyed.into_iter().map(|(_, row)| row).collect();
        }
        Ok(rows.into_iter().map(Arc::clone).collect::<Vec<_>>().into())
    }
}

fn parse_order(part: &str) -> Result<(Field, bool), QueryError> {
    if part.is_empty() {
        return Err(QueryError::Order(
            "an empty key: write a field, as in `size desc`, or leave it out".to_owned(),
        ));
    }
    let (name, descending) = match part.split_once(' ') {
        Some((name, direction)) if direction.trim().eq_ignore_ascii_case("desc") => (name, true),
        Some((name, direction)) if direction.trim().eq_ignore_ascii_case("asc") => (name, false),
        Some(_) => {
            return Err(QueryError::Order(format!("`{part}`: neither asc nor desc")));
        }
        None => part
            .strip_prefix('-')
            .map_or((part, false), |name| (name, true)),
    };
    match Field::parse(name) {
        Some(Field::Label(_)) | None => Err(QueryError::Order(format!(
            "`{name}`: no field to order by; there are {}",
            Field::names()
        ))),
        Some(field) => Ok((field, descending)),
    }
}
