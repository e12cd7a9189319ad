//! Where the database fails: the listing goes on from memory, a damaged file is set aside, and the database is
//! used again as soon as it can be.

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use rusqlite::ErrorCode;
use rustix::fs::{Access, access};

use super::state::State;
use super::store::{beside, is_on_server, to_make_writable};
use super::{Catalog, FileTime, KnownRoot, RootIndex, Store, StoreError, StoredRoot};
use crate::escape;
use crate::lock::lock;

impl Catalog {
    /// Tries to use the database on disk again after a failure. Its listing replaces the present
    /// one root by root, after each one's next scan.
    pub fn recover(&self) -> bool {
        let Some(path) = &self.path else { return false };
        let asked = Instant::now();
        let mut in_vain = self.mend();
        // Each attempt may wait for another process's lock: the scans of many roots would wait one after the other.
        if in_vain.is_some_and(|at| at > asked) || !self.lock().is_failed_in_use() {
            return false;
        }
        match self.open_again(path) {
            Ok((store, roots)) => {
                let mut state = self.lock();
                state.failure = None;
                let (used, former) = replace_store(&mut state, store, &roots);
                state.former = Some(used);
                drop(state);
                drop(former);
                tracing::info!(path = %escape::path(path), "catalogue: the database is used again");
                true
            }
            Err(failure) => {
                let known = self.lock().failure.replace(failure.clone());
                // Each scan tries.
                if known.as_ref() != Some(&failure) {
                    tracing::error!(
                        error = failure,
                        path = %escape::path(path),
                        "catalogue cannot be used again"
                    );
                }
                *in_vain = Some(Instant::now());
                false
            }
        }
    }

    /// The database on disk, and what it has of the roots.
    fn open_again(&self, path: &Path) -> Result<(Store, Vec<StoredRoot>), String> {
        let store = open_or_set_aside(path, Store::open)?;
        // A disk that is still full would end the scan that is about to begin, which would read everything anew.
        let roots = store.try_write().and_then(|()| self.roots_in(&store));
        let error = match roots {
            Ok(roots) => return Ok((store, roots)),
            Err(error) => error,
        };
        drop(store);
        if error.is_damage() {
            self.begin_another(path, &error)
        } else {
            Err(explained(&error, path))
        }
    }

    /// A new database in the place of one that is damaged, and what it has of the roots.
    fn begin_another(
        &self,
        path: &Path,
        error: &StoreError,
    ) -> Result<(Store, Vec<StoredRoot>), String> {
        let store = set_aside(path, error)?;
        let roots = self.roots_in(&store);
        let roots = roots.map_err(|error| explained(&error, path))?;
        Ok((store, roots))
    }

    /// What a database has of the roots, which it has from then on: asked for before the state is locked, for
    /// nobody who reads waits for a database.
    fn roots_in(&self, store: &Store) -> Result<Vec<StoredRoot>, StoreError> {
        let paths: Vec<_> = {
            let state = self.lock();
            state.roots.iter().map(|root| root.path.clone()).collect()
        };
        paths.iter().map(|path| store.root(path)).collect()
    }

    /// Alone with the database's file; gives when the last attempt to use it again ended in vain.
    pub(super) fn mend(&self) -> MutexGuard<'_, Option<Instant>> {
        lock(&self.mending)
    }

    /// Whether what is listed of a root comes from another database, and stays so until a scan of all of it is
    /// complete.
    #[must_use]
    pub fn awaits_scan(&self, root: RootIndex) -> bool {
        let state = self.lock();
        state.roots.get(root.0).is_some_and(|root| root.rebuild)
    }

    /// Notes that what is known could not be read to its end, if so: the database is done without then, or
    /// begun anew.
    pub fn note_failure(&self, known: &KnownRoot) {
        if let Some((store, error)) = known.failure() {
            self.failed(store, error);
        }
    }

    /// Begins with the last listing, or with none if it cannot be read. Nobody else has the catalogue yet.
    pub(super) fn begin(&self) {
        let loaded = self.lock().load();
        if let Err(error) = loaded {
            let store = {
                let mut state = self.lock();
                state.unload();
                Arc::clone(&state.store)
            };
            self.failed(&store, &error);
        }
        let mut state = self.lock();
        // Also a listing of which not all is read may have begun the list of what is unavailable.
        let (Some(_), Some(path)) = (&state.failure, &self.path) else {
            return;
        };
        let former = Store::open_to_read(path).and_then(|former| state.load_former(former));
        match former {
            Ok(()) => tracing::warn!(
                "catalogue: the last listing is served until it can be written again"
            ),
            Err(error) => {
                tracing::warn!(%error, "catalogue: there is no last listing to begin with");
                state.unload();
            }
        }
    }

    /// Goes on without the database, or with a new one if its file is damaged; unless another one has taken its
    /// place.
    pub(super) fn failed(&self, store: &Arc<Store>, error: &StoreError) {
        let is_used = || self.lock().uses(store);
        if !is_used() {
            return;
        }
        let _alone = self.mend();
        if !is_used() {
            return;
        }
        tracing::error!(%error, "catalogue failed: the listing goes on from memory");
        let memory = Store::in_memory();
        // A database in memory does not fail for want of a disk; if it does for want of memory, the scan that
        // follows says so.
        let roots = self.roots_in(&memory).unwrap_or_default();
        let is_damage = error.is_damage();
        // Where it is to be in memory, the next one is as good. The file system is asked for its room before the
        // state is locked.
        let path = self.path.as_deref();
        let failure = path.map(|path| explained(error, path));
        let former = {
            let mut state = self.lock();
            state.failure = failure;
            let former = replace_store(&mut state, memory, &roots);
            if !is_damage {
                state.former = Some(Arc::clone(&former.0));
            }
            former
        };
        // Closed while nobody waits for the state.
        drop(former);
        // One in memory says nothing of the file that it stands in for.
        let path = self.path.as_ref();
        let Some(path) = path.filter(|_| is_damage && !store.is_in_memory()) else {
            return;
        };
        match self.begin_another(path, error) {
            Ok((store, roots)) => {
                let mut state = self.lock();
                state.failure = None;
                let former = replace_store(&mut state, store, &roots);
                drop(state);
                drop(former);
            }
            Err(error) => tracing::error!(error, "catalogue: a new one cannot be begun"),
        }
    }

    /// Leaves the database to another catalogue: nothing of this one is written any more, and the file is none of
    /// its business. Waits for what is being written.
    pub fn retire(&self) {
        let _writing = self.write();
        let _alone = self.mend();
        self.lock().retired = true;
    }
}

/// What is listed stays, and is replaced root by root: `roots` is what the new database has of them. Gives what is
/// not used any more, to be closed while the state is not locked: that may take as long as anything on a disk.
fn replace_store(
    state: &mut State,
    store: Store,
    roots: &[StoredRoot],
) -> (Arc<Store>, Option<Arc<Store>>) {
    state.given.begin(&store);
    for (record, stored) in state.roots.iter_mut().zip(roots) {
        // Another database knows no less of what the root was, and what is listed stays so.
        record.stored = StoredRoot {
            id: stored.id,
            directory: stored.directory.or(record.stored.directory),
            scanned: stored.scanned.or(record.stored.scanned),
            files_checked: stored.files_checked,
        };
    }
    for record in &mut state.roots {
        record.rebuild = true;
    }
    state.upserts.clear();
    state.removed.clear();
    let used = std::mem::replace(&mut state.store, Arc::new(store));
    (used, state.former.take())
}

/// What the directory of a database must allow.
const ENTERED_AND_WRITTEN: Access = Access::WRITE_OK.union(Access::EXEC_OK);

/// What is wrong, and what SQLite does not say of it: a file in shared memory that cannot grow is an I/O error to it,
/// though there is no room but for that, and why it cannot make a file it keeps to itself.
fn explained(error: &StoreError, path: &Path) -> String {
    let StoreError::Sqlite(inner) = error else {
        return error.to_string();
    };
    let directory = path.parent().unwrap_or(path);
    let code = inner.sqlite_error_code();
    let is_full = || {
        let room = nix::sys::statvfs::statvfs(directory);
        room.is_ok_and(|room| room.blocks_available() == 0)
    };
    match code {
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) if is_full() => {
            format!("{error}: the file system is full")
        }
        // Of what is no directory the dot says so.
        Some(ErrorCode::CannotOpen) => match access(directory.join("."), ENTERED_AND_WRITTEN) {
            Ok(()) => error.to_string(),
            Err(why) => {
                let why = std::io::Error::from(why);
                let advice = to_make_writable(&why);
                format!("{error}: {}: {why}: {advice}", escape::path(directory))
            }
        },
        _ => error.to_string(),
    }
}

/// Opens the database, or one in memory in its place, and says why.
pub(super) fn open_at_start(path: &Path) -> (Store, Option<String>) {
    if is_on_server(path) {
        tracing::warn!(
            path = %escape::path(path),
            "catalogue: on a network file system, where two machines that use it damage it, and a server that does not \
             answer stops its scans: set state_directory to a directory on a local disk"
        );
    }
    let open = |path: &_| Store::open_within(path, Store::START_PATIENCE);
    match open_or_set_aside(path, open) {
        Ok(store) => (store, None),
        Err(failure) => {
            tracing::error!(
                error = failure,
                path = %escape::path(path),
                "catalogue cannot be opened"
            );
            (Store::in_memory(), Some(failure))
        }
    }
}

/// Opens the database; one that is damaged is renamed and begun anew.
fn open_or_set_aside(
    path: &Path,
    open: impl FnOnce(&Path) -> Result<Store, StoreError>,
) -> Result<Store, String> {
    open(path).or_else(|error| {
        if error.is_damage() {
            set_aside(path, &error)
        } else {
            Err(explained(&error, path))
        }
    })
}

/// Renames a damaged database, and begins a new one.
fn set_aside(path: &Path, error: &StoreError) -> Result<Store, String> {
    let aside = path.with_extension(format!("broken-{}", FileTime::now().0 / 1_000_000_000));
    std::fs::rename(path, &aside).map_err(|cause| {
        let aside = escape::path(&aside);
        format!("{error}, and it cannot be renamed to {aside}: {cause}")
    })?;
    tracing::error!(
        %error,
        path = %escape::path(path),
        aside = %escape::path(&aside),
        "catalogue is damaged: set aside, and rebuilt from the next scan"
    );
    for name in beside(path) {
        let _ = std::fs::remove_file(name);
    }
    Store::open(path).map_err(|error| error.to_string())
}
