//! What is wrong with the values of a configuration: all of it, so that nobody mends a file one value at a time.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use super::place::Line;

/// A key of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The image directory whose setting it is.
    pub(super) root: Option<PathBuf>,
    /// Its name, from the outermost table on: `tls.cert`. Of an image directory, the name alone.
    pub(super) name: Cow<'static, str>,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.root {
            Some(root) => write!(f, "root {}: {}", crate::escape::path(root), self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// What cannot be understood, or makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Where it stands; `None` where it is not from a file, or missing.
    pub line: Option<Line>,
    /// Which key; `None` where the text has none there that is known.
    pub key: Option<Key>,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = &self.line {
            write!(f, "{line}: ")?;
        }
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// Values that make no sense.
#[derive(Debug, Default)]
pub(super) struct ConfigProblems(pub(super) Vec<Found>);

/// One of them, before it is known where it stands.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) key: Key,
    pub(super) message: String,
    /// Whether it is only that something is not there.
    pub(super) absent: bool,
}

impl ConfigProblems {
    /// Adds what is wrong with a value of the whole agent.
    pub(super) fn add(&mut self, name: &'static str, message: impl Into<String>) {
        self.add_of(None, name, message);
    }

    /// Adds what is wrong only because something is not there. It is not told while something could not be
    /// understood: that may be it.
    pub(super) fn add_absent(&mut self, name: &'static str, message: impl Into<String>) {
        self.push(None, name, message.into(), true);
    }

    /// Adds what is wrong with a value of an image directory, where there is one.
    pub(super) fn add_of(
        &mut self,
        root: Option<PathBuf>,
        name: &'static str,
        message: impl Into<String>,
    ) {
        self.push(root, name, message.into(), false);
    }

    fn push(&mut self, root: Option<PathBuf>, name: &'static str, message: String, absent: bool) {
        let name = name.into();
        self.0.push(Found {
            key: Key { root, name },
            message,
            absent,
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
