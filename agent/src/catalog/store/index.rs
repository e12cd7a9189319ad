//! The index of directories by their paths, which are unique in a root. A first scan does without it and
//! makes it at its end: kept up to date row by row its pages would be written a dozen times over.
//!
//! It is sorted in as little memory as SQLite takes by itself, though files are written for it: more would
//! save a fiftieth of a first scan, and the C library would keep ten megabytes of it for good.

use rusqlite::Connection;

use super::StoreError;

/// Makes it, if it is not there.
pub(super) fn make(connection: &Connection) -> Result<(), StoreError> {
    connection.execute_batch(
        "CREATE UNIQUE INDEX IF NOT EXISTS directories_by_path ON directories (root, path)",
    )?;
    Ok(())
}

/// Drops it, where there is nothing to find by it.
pub(super) fn remove(connection: &Connection) -> Result<(), StoreError> {
    connection.execute_batch("DROP INDEX IF EXISTS directories_by_path")?;
    Ok(())
}
