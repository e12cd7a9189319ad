//! The files of the configuration, and where in them a value stands: what is wrong is found only when all
//! of them have come together, and whoever mends it wants the file and the line.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::DeTable;

use super::place::{Line, at, nameless_root, root};
use super::problem::{ConfigProblem, ConfigProblems, Found, Key};

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

impl Sources {
    /// One file with its text.
    pub(super) fn of(path: &Path, text: String, unread: Vec<ConfigProblem>) -> Self {
        Self {
            files: vec![Arc::new((path.to_owned(), text))],
            given: BTreeSet::new(),
            unread,
        }
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

    /// All problems, and what could not be understood, each with its line, in the order of the files and lines. A
    /// default is the value of every image directory, and wrong once.
    pub(super) fn placed(&self, problems: ConfigProblems) -> Vec<ConfigProblem> {
        let mut placed = self.unread.clone();
        for Found {
            key,
            message,
            absent,
        } in problems.0
        {
            let line = self.line(&key);
            let is_known = placed.iter().any(|known| {
                known.key.as_ref().map(|key| &key.name) == Some(&key.name)
                    && known.line == line
                    && known.message == message
                    && self.is_default(&key)
            });
            if !is_known && (self.unread.is_empty() || !absent) {
                placed.push(ConfigProblem {
                    line,
                    key: Some(key),
                    message,
                });
            }
        }
        placed.sort_by(|one, other| one.line.cmp(&other.line));
        placed
    }

    /// Whether the value of a key of an image directory is that of all of them that have none of their own.
    fn is_default(&self, key: &Key) -> bool {
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
    fn line(&self, key: &Key) -> Option<Line> {
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
