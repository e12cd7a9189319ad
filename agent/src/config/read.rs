//! Reads the files of the configuration, and merges them.

use std::collections::BTreeSet;
use std::path::Path;

use super::source::Sources;
use super::understood::understood;
use super::{ConfigError, Raw};

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
#[path = "read_tests.rs"]
mod tests;
