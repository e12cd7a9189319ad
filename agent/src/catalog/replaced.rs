//! A database whose file is deleted or replaced while it is in use: what is written then goes to a file that
//! nobody can open any more, and is lost at the next start.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::failure::beside;
use super::{Catalog, Store, StoreError};

/// Device and inode number of a file; none where there is no file.
type File = Option<(u64, u64)>;

/// What file a database was found in.
#[derive(Debug, Default)]
pub(super) struct Origin(Mutex<(Weak<Store>, File)>);

impl Catalog {
    /// Looks whether the database is still the one at its path; another one is begun there if not, as after any
    /// failure ([`Catalog::recover`]).
    pub fn look_for_file(&self) {
        let Some(path) = &self.path else { return };
        let store = {
            let state = self.lock();
            if state.failure.is_some() {
                return;
            }
            Arc::clone(&state.store)
        };
        let Ok(file) = file_at(path) else { return };
        {
            let mut origin = self.origin.0.lock().unwrap_or_else(PoisonError::into_inner);
            if !std::ptr::eq(origin.0.as_ptr(), Arc::as_ptr(&store)) {
                *origin = (Arc::downgrade(&store), file);
            }
            if file.is_some() && origin.1 == file {
                return;
            }
        }
        // They belong to the file that is gone, and would be taken for the new one's.
        for name in beside(path) {
            let _ = std::fs::remove_file(name);
        }
        let moved = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_READONLY_DBMOVED);
        let message = format!(
            "{} was deleted or replaced while in use",
            crate::escape::path(path)
        );
        let error = rusqlite::Error::SqliteFailure(moved, Some(message));
        self.failed(&store, &StoreError::Sqlite(error));
    }
}

fn file_at(path: &Path) -> io::Result<File> {
    match path.metadata() {
        Ok(metadata) => Ok(Some((metadata.dev(), metadata.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
