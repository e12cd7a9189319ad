//! Where in a TOML file a value stands.

use std::fmt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    file: PathBuf,
    line: usize,
}

impl Line {
    /// That of a place in a file's text.
    pub(super) fn of(file: &Path, text: &str, at: usize) -> Self {
        Self {
            file: file.to_owned(),
            line: text.get(..at).unwrap_or_default().matches('\n').count() + 1,
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}", self.file.display(), self.line)
    }
}

/// Where a key stands in a table; its name may lead through others.
pub(super) fn at(table: &DeTable<'_>, name: &str) -> Option<usize> {
    let (first, rest) = match name.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (name, None),
    };
    let (key, value) = table.get_key_value(first)?;
    match rest {
        None => Some(key.span().start),
        Some(rest) => at(value.get_ref().as_table()?, rest),
    }
}

fn roots<'a, 'i>(table: &'a DeTable<'i>) -> impl Iterator<Item = &'a Spanned<DeValue<'i>>> {
    let roots = table
        .get("root")
        .and_then(|roots| roots.get_ref().as_array());
    // The last one of a path counts.
    roots.into_iter().flat_map(|roots| roots.iter().rev())
}

/// The path of an image directory, as it is written.
pub(super) fn path_of<'a>(root: &'a DeTable<'_>) -> Option<&'a Path> {
    Some(Path::new(root.get("path")?.get_ref().as_str()?))
}

/// The table of an image directory.
pub(super) fn root<'a, 'i>(table: &'a DeTable<'i>, path: &Path) -> Option<&'a DeTable<'i>> {
    roots(table)
        .filter_map(|root| root.get_ref().as_table())
        .find(|root| path_of(root) == Some(path))
}

/// Where a table of an image directory is that has no path.
pub(super) fn nameless_root(table: &DeTable<'_>) -> Option<usize> {
    roots(table)
        .find(|root| root.get_ref().get("path").is_none())
        .map(|root| root.span().start)
}
