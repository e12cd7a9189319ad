//! A database whose file is deleted or replaced while it is in use: what is written then goes to a file that
//! nobody can open any more, and is lost at the next start.

use std::path::Path;
use std::sync::Arc;

use super::store::{beside, file_at};
use super::{Catalog, Store, StoreError};

impl Catalog {
    /// Looks whether the database is still the one at its path; another one is begun there if not, as after any
    /// failure ([`Catalog::recover`]).
    pub fn look_for_file(&self) {
        let Some(path) = &self.path else { return };
        if self.without_file(path).is_none() {
            return;
        }
        let alone = self.mend();
        // The scan of another root may have been first, and what lies there is a new one's.
        let Some(store) = self.without_file(path) else {
            return;
        };
        // They belong to the file that is gone, and would be taken for the new one's.
        for name in beside(path) {
            let _ = std::fs::remove_file(name);
        }
        drop(alone);
        let moved = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_READONLY_DBMOVED);
        let message = format!(
            "{} was deleted or replaced while in use",
            crate::escape::path(path)
        );
        let error = rusqlite::Error::SqliteFailure(moved, Some(message));
        self.failed(&store, &StoreError::Sqlite(error));
    }

    /// The database in use, if its file is not the one at `path`.
    fn without_file(&self, path: &Path) -> Option<Arc<Store>> {
        let store = {
            let state = self.lock();
            if state.retired || state.failure.is_some() {
                return None;
            }
            Arc::clone(&state.store)
        };
        let there = file_at(path).ok()?;
        (there.is_none() || there != store.file()).then_some(store)
    }
}
