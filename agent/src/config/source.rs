//! The files of the configuration, and where in them a value stands: what is wrong is found only when all
//! of them have come together, and whoever mends it wants the file and the line.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::understood::understood;
use super::{ConfigError, ConfigProblem, Key, Raw};

/// What a configuration was read from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Files with their texts, in the order in which they count.
    files: Vec<Arc<(PathBuf, String)>>,
    /// Names of settings that the command line gave instead.
    given: BTreeSet<&'static str>,
    /// What in the files could not be understood.
    unread: Vec<ConfigProblem>,
}

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

impl Sources {
    fn of(path: &Path, text: String, unread: Vec<ConfigProblem>) -> Self {
        Self {
            files: vec![Arc::new((path.to_owned(), text))],
            given: BTreeSet::new(),
            unread,
        }
    }

    /// What in the files could not be understood.
    pub(super) fn unread(&self) -> &[ConfigProblem] {
        &self.unread
    }

    /// These over earlier ones; `settings` are the names of those that came with these.
    pub(super) fn over(self, earlier: Self, settings: &[(&'static str, bool)]) -> Self {
        let (mut files, mut given, mut unread) = (earlier.files, earlier.given, earlier.unread);
        if self.files.is_empty() {
            let set = settings.iter().filter(|(_, is_set)| *is_set);
            given.extend(set.map(|(name, _)| *name));
        }
        files.extend(self.files);
        unread.extend(self.unread);
        Self {
            files,
            given,
            unread,
        }
    }

    /// Whether the value of a key of an image directory is that of all of them that have none of their own.
    pub(super) fn is_default(&self, key: &Key) -> bool {
        let Some(path) = &key.root else {
            return false;
        };
        let is_own = |file: &Arc<(PathBuf, String)>| {
            let table = DeTable::parse(&file.1).ok();
            table.is_some_and(|table| {
                root(table.get_ref(), path).is_some_and(|root| at(root, &key.name).is_some())
            })
        };
        key.name != "path" && !self.files.iter().any(is_own)
    }

    /// Where the value of a key stands that counts: in the last file that has it.
    pub(super) fn line(&self, key: &Key) -> Option<Line> {
        let mut tables = Vec::new();
        for file in self.files.iter().rev() {
            tables.extend(DeTable::parse(&file.1).map(|table| (file, table)));
        }
        let find = |find: &dyn Fn(&DeTable<'_>) -> Option<usize>| {
            tables.iter().find_map(|(file, table)| {
                find(table.get_ref()).map(|at| Line::of(&file.0, &file.1, at))
            })
        };
        let Some(path) = &key.root else {
            return match &*key.name {
                "root.path" => find(&|table| nameless_root(table)),
                name if self.given.contains(name) => None,
                // What is missing is missing in its table.
                name => find(&|table| at(table, name)).or_else(|| {
                    let (table_of, _) = name.split_once('.')?;
                    find(&|table| at(table, table_of))
                }),
            };
        };
        find(&|table| at(root(table, path)?, &key.name)).or_else(|| {
            if self.given.contains(&*key.name) {
                return None;
            }
            find(&|table| at(table.get("defaults")?.get_ref().as_table()?, &key.name))
        })
    }
}

/// Where a key stands in a table; its name may lead through others.
fn at(table: &DeTable<'_>, name: &str) -> Option<usize> {
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

pub(super) fn path_of<'a>(root: &'a DeTable<'_>) -> Option<&'a Path> {
    Some(Path::new(root.get("path")?.get_ref().as_str()?))
}

fn root<'a, 'i>(table: &'a DeTable<'i>, path: &Path) -> Option<&'a DeTable<'i>> {
    roots(table)
        .filter_map(|root| root.get_ref().as_table())
        .find(|root| path_of(root) == Some(path))
}

fn nameless_root(table: &DeTable<'_>) -> Option<usize> {
    roots(table)
        .find(|root| root.get_ref().get("path").is_none())
        .map(|root| root.span().start)
}

/// Reads a file and its drop-ins, and merges them.
///
/// What cannot be understood is told with the values that make no sense.
///
/// # Errors
///
/// A file cannot be read.
pub fn read(path: &Path) -> Result<Raw, ConfigError> {
    let mut raw = read_one(path)?;
    let mut directory = path.as_os_str().to_owned();
    directory.push(".d");
    let mut names = BTreeSet::new();
    match std::fs::read_dir(&directory) {
        Ok(entries) => names.extend(
            entries
                .filter_map(Result::ok)
                // Hidden ones are what editors leave beside a file while it is open.
                .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
                .map(|entry| entry.path())
                .filter(|path| path.extension().is_some_and(|ending| ending == "toml")),
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(ConfigError::Read {
                path: directory.into(),
                error,
            });
        }
    }
    for path in names {
        raw = read_one(&path)?.over(raw);
    }
    Ok(raw)
}

fn read_one(path: &Path) -> Result<Raw, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read {
        path: path.to_owned(),
        error,
    })?;
    let (raw, unread) = understood(path, &text);
    Ok(Raw {
        sources: Sources::of(path, text, unread),
        ..raw
    })
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
