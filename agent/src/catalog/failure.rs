//! Where the database fails: the listing goes on from memory, a damaged file is set aside, and the database is
//! used again as soon as it can be.

use std::path::Path;
use std::sync::Arc;

use super::state::State;
use super::{Catalog, FileTime, KnownRoot, Store, StoreError};

/// Numbers of images in a database in memory begin here, so that they differ from those of the
/// database on disk that it stands in for.
const MEMORY_FIRST_ID: i64 = 1 << 40;

impl Catalog {
    /// Tries to use the database on disk again after a failure. Its listing replaces the present
    /// one root by root, after each one's next scan.
    pub fn recover(&self) -> bool {
        let Some(path) = &self.path else { return false };
        if self.lock().failure.is_none() {
            return false;
        }
        let (store, failure) = open_or_set_aside(path);
        if failure.is_some() {
            return false;
        }
        let mut state = self.lock();
        state.failure = None;
        self.replace_store(&mut state, store);
        true
    }

    /// Notes that what is known could not be read to its end, if so: the database is done without then, or
    /// begun anew.
    pub fn note_failure(&self, known: &KnownRoot) {
        if let Some((store, error)) = known.failure() {
            self.failed(store, error);
        }
    }

    /// The last listing cannot be read: begins without it.
    pub(super) fn start_anew(&self, state: &mut State, error: &StoreError) {
        self.fail(state, error);
        state.unavailable.clear();
    }

    /// Goes on without the database on disk, or with a new one if it is damaged.
    pub(super) fn fail(&self, state: &mut State, error: &StoreError) {
        tracing::error!(%error, "catalogue failed: the listing goes on from memory");
        state.failure = Some(error.to_string());
        self.replace_store(state, memory());
        if let (true, Some(path)) = (error.is_damage(), &self.path)
            && let Ok(store) = set_aside(path, error)
        {
            state.failure = None;
            self.replace_store(state, store);
        }
    }

    /// The same, unless another database has taken the place of the one that failed.
    pub(super) fn failed(&self, store: &Arc<Store>, error: &StoreError) {
        let mut state = self.lock();
        if Arc::ptr_eq(&state.store, store) {
            self.fail(&mut state, error);
        }
    }

    fn replace_store(&self, state: &mut State, store: Store) {
        let store = Arc::new(store);
        for record in &mut state.roots {
            // A database in memory does not fail for want of a disk; if it does for want of
            // memory, the scan that follows says so.
            if let Ok(stored) = store.root(&record.path) {
                record.stored = stored;
            }
            record.rebuild = true;
        }
        state.store = store;
        state.upserts.clear();
        state.removed.clear();
    }
}

pub(super) fn memory() -> Store {
    Store::in_memory(MEMORY_FIRST_ID)
}

/// Opens the database; one that is damaged is renamed and begun anew.
pub(super) fn open_or_set_aside(path: &Path) -> (Store, Option<String>) {
    let error = match Store::open(path) {
        Ok(store) => return (store, None),
        Err(error) => error,
    };
    if !error.is_damage() {
        tracing::error!(%error, path = %crate::escape::path(path), "catalogue cannot be opened");
        return (memory(), Some(error.to_string()));
    }
    match set_aside(path, &error) {
        Ok(store) => (store, None),
        Err(error) => (memory(), Some(error)),
    }
}

/// Renames a damaged database, and begins a new one.
fn set_aside(path: &Path, error: &StoreError) -> Result<Store, String> {
    let aside = path.with_extension(format!("broken-{}", FileTime::now().0 / 1_000_000_000));
    tracing::error!(
        %error,
        path = %crate::escape::path(path),
        aside = %crate::escape::path(&aside),
        "catalogue is damaged: set aside, and rebuilt from the next scan"
    );
    std::fs::rename(path, &aside).map_err(|error| error.to_string())?;
    for ending in ["-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        let _ = std::fs::remove_file(name);
    }
    Store::open(path).map_err(|error| error.to_string())
}
