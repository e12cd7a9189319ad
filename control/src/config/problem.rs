//! What is wrong with the values of a configuration, and where in its files it stands.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeTable;

/// An hour: what takes longer is not waited for.
const MAX_SECONDS: u64 = 3600;

/// Everything that is wrong, so that nobody repairs a file one error at a time.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<Problem>);

#[derive(Debug)]
struct Problem {
    /// The cluster that it is about: its ID, empty for one without, and how many of the same ID stand before it.
    cluster: Option<(String, usize)>,
    /// Names of the tables and of the key, between dots.
    key: String,
    /// What is wrong, and what to write.
    text: String,
    /// Whether it is only that something is not there.
    absent: bool,
}

impl Problems {
    /// Adds what is wrong with the value of a key.
    pub(super) fn add(&mut self, key: &str, text: impl Into<String>) {
        self.push(None, key, text.into(), false);
    }

    /// Adds what is wrong only because something is not there. It is not told while something could not be
    /// understood: that may be it.
    pub(super) fn add_absent(&mut self, key: &str, text: impl Into<String>) {
        self.push(None, key, text.into(), true);
    }

    /// Adds what is wrong with a key of a cluster, before which there are `before` of the same ID; `absent`: only
    /// because something is not there.
    pub(super) fn add_of_cluster(
        &mut self,
        (id, before): (&str, usize),
        key: &str,
        text: impl Into<String>,
        absent: bool,
    ) {
        self.push(Some((id.to_owned(), before)), key, text.into(), absent);
    }

    fn push(&mut self, cluster: Option<(String, usize)>, key: &str, text: String, absent: bool) {
        self.0.push(Problem {
            cluster,
            key: key.to_owned(),
            text,
            absent,
        });
    }

    /// The value of a key, or its default; a problem if it is out of range.
    pub(super) fn within<T: Copy + Display + PartialOrd>(
        &mut self,
        key: &str,
        value: Option<T>,
        default: T,
        range: RangeInclusive<T>,
    ) -> T {
        let value = value.unwrap_or(default);
        if range.contains(&value) {
            return value;
        }
        let (least, most) = range.into_inner();
        self.add(
            key,
            format!("{key} = {value} is out of range: write {least} to {most}"),
        );
        default
    }

    /// The time that a key gives in seconds, or its default; a problem if it is none, or more than an hour.
    pub(super) fn seconds(&mut self, key: &str, value: Option<u64>, default: u64) -> Duration {
        Duration::from_secs(self.within(key, value, default, 1..=MAX_SECONDS))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As people read them, each behind its place; with `all`, also what is only not there.
    pub(super) fn in_files(self, files: &[(PathBuf, String)], all: bool) -> Vec<String> {
        let told = self.0.into_iter().filter(|problem| all || !problem.absent);
        let placed = told.map(|problem| match problem.place(files) {
            Some(place) => format!("{place}: {}", problem.text),
            None => problem.text,
        });
        placed.collect()
    }
}

impl Problem {
    /// The line in the last file that has the key, which is the one that counts, or else its table.
    fn place(&self, files: &[(PathBuf, String)]) -> Option<String> {
        let find = |key: &str| {
            files.iter().rev().find_map(|(path, text)| {
                let table = DeTable::parse(text).ok()?;
                let at = match &self.cluster {
                    None => place_of(table.get_ref(), key)?,
                    Some((id, before)) => place_in_cluster(table.get_ref(), id, *before, key)?,
                };
                let line = text.get(..at)?.matches('\n').count() + 1;
                Some(format!("{}, line {line}", path.display()))
            })
        };
        find(&self.key).or_else(|| find(self.key.split_once('.')?.0))
    }
}

/// Where a key stands, in bytes.
fn place_of(table: &DeTable<'_>, key: &str) -> Option<usize> {
    let (first, rest) = match key.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (key, None),
    };
    let (name, value) = table.get_key_value(first)?;
    match rest {
        None => Some(name.span().start),
        Some(rest) => place_of(value.get_ref().as_table()?, rest),
    }
}

/// Where a key of a cluster stands, or the cluster, if it has no such key. All clusters of an ID are from one
/// file: those of a later one replace those of an earlier one.
fn place_in_cluster(table: &DeTable<'_>, id: &str, before: usize, key: &str) -> Option<usize> {
    let clusters = table.get("clusters")?.get_ref().as_array()?;
    let mut of_id = clusters.iter().filter(|cluster| {
        let found = cluster.get_ref().get("id");
        found
            .and_then(|id| id.get_ref().as_str())
            .unwrap_or_default()
            == id
    });
    let cluster = of_id.nth(before)?;
    let inside = cluster.get_ref().as_table();
    inside
        .and_then(|table| place_of(table, key))
        .or(Some(cluster.span().start))
}
