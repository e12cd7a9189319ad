//! What can be wrong with the database.

use std::io;
use std::path::PathBuf;

use rusqlite::{Error, ErrorCode};

use super::load::Tally;
use crate::escape;

/// What is wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite's own word.
    #[error("catalogue: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// Rows that contradict each other.
    #[error("catalogue: an image in directory number {0}, which is not there")]
    Orphan(i64),
    /// The same.
    #[error("catalogue: what image number {0} has in common with others is not there")]
    Half(i64),
    /// The same.
    #[error("catalogue: what image number {0} says of itself cannot be unpacked")]
    Details(i64),
    /// Tables that contradict each other.
    #[error("catalogue: {} of its files are images, and it has {} images, or others", files.images, images.images)]
    Tally {
        /// As the files have it.
        files: Tally,
        /// As the images have it.
        images: Tally,
    },
    /// An image is listed that is in no database which is in use.
    #[error(
        "catalogue: what image number {0} says of itself is in another database: \
         list it anew after the next scan of its root"
    )]
    Elsewhere(i64),
    /// What is to be stored was found with what another database knew.
    #[error("catalogue: another database is in use since")]
    Replaced,
    /// The file can be read, and no more.
    #[error(
        "catalogue: {} cannot be written: {error}: {}",
        escape::path(path),
        to_make_writable(error)
    )]
    ReadOnly {
        /// Where it is.
        path: PathBuf,
        /// What the system says of it.
        error: io::Error,
    },
    /// Written by an older version, and cannot be brought up to date.
    #[error("catalogue: schema version {found} cannot be read before it is brought to {known}")]
    Older {
        /// `user_version` of the file.
        found: i64,
        /// The present one.
        known: usize,
    },
    /// Written by a newer version.
    #[error(
        "catalogue: schema version {found} is newer than this version knows ({known}): \
         upgrade sifter, or move the file away to have it rebuilt"
    )]
    Newer {
        /// `user_version` of the file.
        found: i64,
        /// The newest known one.
        known: usize,
    },
}

impl StoreError {
    /// Whether the file itself is at fault: another one in its place would do.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Newer { .. }
            | Self::Older { .. }
            | Self::ReadOnly { .. }
            | Self::Replaced
            | Self::Elsewhere(_) => false,
            Self::Orphan(_) | Self::Half(_) | Self::Details(_) | Self::Tally { .. } => true,
            Self::Sqlite(error) => is_damage(error),
        }
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        // What no version has written: another type, another range, no UTF-8.
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..)
        | Error::Utf8Error(..) => true,
        _ => matches!(
            error.sqlite_error_code(),
            Some(
                ErrorCode::DatabaseCorrupt
                    | ErrorCode::NotADatabase
                    // Rows that contradict each other.
                    | ErrorCode::ConstraintViolation
            )
        ),
    }
}

/// What makes a file or a directory writable, of which the system says why it is not.
pub(in crate::catalog) fn to_make_writable(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "make it, and give it to the agent's user",
        io::ErrorKind::NotADirectory => "set state_directory to another place",
        io::ErrorKind::ReadOnlyFilesystem => {
            "make its file system writable, or set state_directory to another place"
        }
        _ => "give it to the agent's user (chown)",
    }
}
