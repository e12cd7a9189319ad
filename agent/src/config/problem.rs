//! What is wrong with the values of a configuration: all of it, so that nobody mends a file one value at a time.

use std::fmt;
use std::path::PathBuf;

use super::{Line, Sources};

/// A key of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The image directory whose setting it is.
    pub(super) root: Option<PathBuf>,
    /// Its name, from the outermost table on: `tls.cert`. Of an image directory, the name alone.
    pub(super) name: &'static str,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.root {
            Some(root) => write!(f, "root {}: {}", crate::escape::path(root), self.name),
            None => f.write_str(self.name),
        }
    }
}

/// A value that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Where it stands; `None` where it is not from a file, or missing.
    pub line: Option<Line>,
    /// Which key.
    pub key: Key,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = &self.line {
            write!(f, "{line}: ")?;
        }
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// Values that make no sense.
#[derive(Debug, Default)]
pub(super) struct ConfigProblems(Vec<ConfigProblem>);

impl ConfigProblems {
    /// Adds what is wrong with a value of the whole agent, or with its absence.
    pub(super) fn add(&mut self, name: &'static str, message: impl Into<String>) {
        self.add_of(None, name, message);
    }

    /// The same of an image directory, where there is one.
    pub(super) fn add_of(
        &mut self,
        root: Option<PathBuf>,
        name: &'static str,
        message: impl Into<String>,
    ) {
        self.0.push(ConfigProblem {
            line: None,
            key: Key { root, name },
            message: message.into(),
        });
    }

    /// The value of a key, unless it makes no sense.
    pub(super) fn take<T>(
        &mut self,
        name: &'static str,
        value: Result<T, impl Into<String>>,
    ) -> Option<T> {
        value.map_err(|message| self.add(name, message)).ok()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, each with its line, in the order of the files and lines. A default is the value of every
    /// image directory, and wrong once.
    pub(super) fn placed(self, sources: &Sources) -> Vec<ConfigProblem> {
        let mut placed: Vec<ConfigProblem> = Vec::new();
        for problem in self.0 {
            let line = sources.line(&problem.key);
            let is_known = placed.iter().any(|known| {
                known.key.name == problem.key.name
                    && known.line == line
                    && known.message == problem.message
                    && sources.is_default(&problem.key)
            });
            if !is_known {
                placed.push(ConfigProblem { line, ..problem });
            }
        }
        placed.sort_by(|one, other| one.line.cmp(&other.line));
        placed
    }
}

/// One as it is; several below one another.
pub(super) fn listed(problems: &[ConfigProblem]) -> String {
    match problems {
        [problem] => problem.to_string(),
        _ => problems
            .iter()
            .fold(format!("{} problems", problems.len()), |text, problem| {
                // What is wrong with an expression is shown in several lines.
                text + "\n- " + &problem.to_string().replace('\n', "\n  ")
            }),
    }
}
