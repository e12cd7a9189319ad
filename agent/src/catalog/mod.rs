//! What the agent knows: images, negative verdicts and directory states on disk ([`Store`]), and
//! the listing in memory ([`Snapshot`]).
//!
//! Only a scan changes the catalogue, through [`Catalog::apply`] and [`Catalog::finish_scan`];
//! everybody else reads one snapshot and never waits. Where the database fails, the listing goes on
//! from memory and the database is rebuilt from the next scan.

mod change;
mod columns;
mod detail;
mod entry;
mod failure;
mod kept;
mod lease;
mod packed;
mod prepare;
mod query;
mod row;
mod rows;
mod snapshot;
mod state;
mod store;
#[cfg(test)]
pub(crate) mod testing;
mod token;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use sifter_proto::v1;
use tokio::sync::watch;

pub use self::change::{ChangeKind, DirectoryChange, KnownDirectory, KnownFile};
pub use self::detail::{details, fill_details};
pub use self::entry::{
    Content, ContentDigest, FileFacts, FileTime, Found, Identity, KnownImage, Prepared,
    RootDirectory,
};
pub use self::kept::{Commons, KeptRow};
pub use self::lease::LEASE_MAX;
pub use self::prepare::Preparation;
pub use self::query::{Labels, Query, QueryError, format_name, status_name};
pub use self::row::{Row, join_path};
pub use self::rows::Rows;
pub use self::snapshot::{Changes, Snapshot};
pub use self::store::{Delta, KnownRoot, Store, StoreError, StoredRoot};
pub use self::token::PageToken;

use self::failure::{memory, open_or_set_aside};
use self::lease::{Leases, Publishing};
use self::state::{Past, RootRecord, State, forget_oldest};

/// Snapshots of past generations that are kept, so that a listing that was begun can be read to
/// its end. They share what did not change.
const PAST_SNAPSHOTS: usize = 16;

/// The same counted in rows that they do not share, 16 bytes each besides the row itself: a first scan
/// changes the whole listing with each generation. The last one is always kept.
const PAST_ROWS: usize = 1 << 18;

/// Changes that are kept for watchers that fall behind or come back, counted in images.
const HISTORY_IMAGES: usize = 20_000;

/// Results of filters that are kept, so that their next pages cost nothing.
const SELECTIONS: usize = 16;

/// The catalogue.
#[derive(Debug)]
pub struct Catalog {
    /// Where the database is; `None`: in memory, as configured.
    path: Option<PathBuf>,
    current: ArcSwap<Snapshot>,
    /// Held by whoever changes the database, which may take as long as another process holds it locked;
    /// the state is locked without waiting for that. Taken before the state.
    writing: Mutex<()>,
    state: Mutex<State>,
    generation: watch::Sender<u64>,
    selections: Mutex<VecDeque<Arc<Selection>>>,
    leases: Leases,
}

/// Number of a root, in the order of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RootIndex(pub usize);

/// Condition of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Read and written.
    Ok,
    /// In memory, as configured.
    Memory,
    /// Fails; the listing goes on from memory.
    Failed(String),
}

/// The images of a listing.
#[derive(Debug)]
pub struct Selection {
    /// The snapshot that it is of.
    pub snapshot: Arc<Snapshot>,
    /// The images in order.
    pub rows: Rows,
    key: (u64, u64, i64),
}

impl Catalog {
    /// Opens the catalogue at `path` (or in memory) for the given roots, and loads its last
    /// listing. Never fails: a database that cannot be used is set aside, or done without.
    #[must_use]
    pub fn open(path: Option<&Path>, roots: &[PathBuf]) -> Self {
        let (store, failure) = match path {
            None => (memory(), None),
            Some(path) => open_or_set_aside(path),
        };
        let first = Snapshot {
            // Unique over restarts, as long as there is less than one change a millisecond.
            generation: u64::try_from(FileTime::now().0 / 1_000_000).unwrap_or(0),
            ..Snapshot::default()
        };
        let catalog = Self {
            path: path.map(Path::to_owned),
            generation: watch::Sender::new(first.generation),
            current: ArcSwap::from_pointee(first),
            writing: Mutex::default(),
            state: Mutex::new(State {
                store: Arc::new(store),
                failure,
                commons: Arc::default(),
                roots: roots.iter().map(|path| RootRecord::new(path)).collect(),
                upserts: Vec::new(),
                removed: Vec::new(),
                unavailable: BTreeMap::new(),
                past: VecDeque::new(),
                history: VecDeque::new(),
            }),
            selections: Mutex::default(),
            leases: Leases::default(),
        };
        {
            let publishing = catalog.leases.end();
            let mut state = catalog.lock();
            if let Err(error) = state.load() {
                catalog.start_anew(&mut state, &error);
            }
            catalog.publish(&mut state, &publishing);
        }
        catalog
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // === reading ===

    /// The present snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Promises that the snapshot which is read after this stays the present one for a time, `wanted` at
    /// most, and says how long; see [`lease`](self::lease).
    #[must_use]
    pub fn lease(&self, wanted: Duration) -> Option<Duration> {
        self.leases.grant(wanted)
    }

    /// Waits for the end of all leases and grants no more: another catalogue takes this one's place.
    pub fn end_leases(&self) {
        std::mem::forget(self.leases.end());
    }

    /// The snapshot of a past generation, if it is still held.
    #[must_use]
    pub fn snapshot_of(&self, generation: u64) -> Option<Arc<Snapshot>> {
        let current = self.snapshot();
        if current.generation == generation {
            return Some(current);
        }
        let state = self.lock();
        state
            .past
            .iter()
            .map(|past| &past.snapshot)
            .find(|snapshot| snapshot.generation == generation)
            .map(Arc::clone)
    }

    /// The images of `snapshot` that a query selects. `query` is the number that stands for its
    /// text, `now` the time from which its ages are counted.
    #[must_use]
    pub fn select(
        &self,
        snapshot: Arc<Snapshot>,
        query: &Query,
        number: u64,
        now: i64,
    ) -> Arc<Selection> {
        let key = (snapshot.generation, number, now);
        if query.is_plain() {
            return Arc::new(Selection {
                rows: snapshot.rows.clone(),
                snapshot,
                key,
            });
        }
        let held = |selections: &VecDeque<Arc<Selection>>| {
            selections
                .iter()
                .find(|selection| selection.key == key)
                .map(Arc::clone)
        };
        {
            let selections = self
                .selections
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(selection) = held(&selections) {
                return selection;
            }
        }
        let selection = Arc::new(Selection {
            rows: query.select(&snapshot, self).into(),
            snapshot,
            key,
        });
        let mut selections = self
            .selections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        selections.push_back(Arc::clone(&selection));
        while selections.len() > SELECTIONS {
            selections.pop_front();
        }
        selection
    }

    /// What only view FULL shows of an image.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn details(&self, image: i64) -> Result<v1::Image, StoreError> {
        let store = Arc::clone(&self.lock().store);
        store.details(image)
    }

    /// Announces every new generation.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// The changes after `generation`, oldest first; `None` if they are not held any more (or that
    /// generation never was).
    #[must_use]
    pub fn changes_after(&self, generation: u64) -> Option<Vec<Arc<Changes>>> {
        let current = self.snapshot().generation;
        if generation == current {
            return Some(Vec::new());
        }
        let state = self.lock();
        let first = state.history.front()?.generation;
        // The change that leads to `generation + 1` must be held.
        if generation + 1 < first || generation > current {
            return None;
        }
        Some(
            state
                .history
                .iter()
                .filter(|changes| changes.generation > generation)
                .map(Arc::clone)
                .collect(),
        )
    }

    /// Condition of the database.
    #[must_use]
    pub fn condition(&self) -> Condition {
        match (&self.lock().failure, &self.path) {
            (Some(failure), _) => Condition::Failed(failure.clone()),
            (None, None) => Condition::Memory,
            (None, Some(_)) => Condition::Ok,
        }
    }

    /// The database as a URI.
    #[must_use]
    pub fn uri(&self) -> String {
        match &self.path {
            Some(path) => format!("sqlite://{}", crate::escape::path(path)),
            None => "sqlite::memory:".to_owned(),
        }
    }

    /// What is stored of a root.
    #[must_use]
    pub fn root(&self, root: RootIndex) -> Option<StoredRoot> {
        self.lock().roots.get(root.0).map(|root| root.stored)
    }

    // === what a scan does ===

    /// The database, and a root's number and text in it.
    fn store_of(&self, root: RootIndex) -> (Arc<Store>, i64, Arc<str>) {
        let state = self.lock();
        let store = Arc::clone(&state.store);
        (store, state.id_of(root), state.text_of(root))
    }

    /// What is known of a root, for a scan of it.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn known(&self, root: RootIndex) -> Result<KnownRoot, StoreError> {
        let (store, id, text) = self.store_of(root);
        let known = store.known(id, &text, self.snapshot());
        known.inspect_err(|error| self.failed(&store, error))
    }

    /// The same for some directories only, given relative to the root.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn known_some(
        &self,
        root: RootIndex,
        paths: Vec<Box<[u8]>>,
    ) -> Result<KnownRoot, StoreError> {
        let (store, id, text) = self.store_of(root);
        let known = store.known_some(id, &text, self.snapshot(), paths);
        known.inspect_err(|error| self.failed(&store, error))
    }

    /// Paths of all directories of a root, relative to it, but no more than `limit`.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn directories(&self, root: RootIndex, limit: usize) -> Result<Vec<Box<[u8]>>, StoreError> {
        let (store, id) = {
            let state = self.lock();
            (Arc::clone(&state.store), state.id_of(root))
        };
        store.directories(id, limit)
    }

    /// Whether a root will be scanned otherwise than before, so that everything must be read again.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn begin_settings(&self, root: RootIndex, settings: &str) -> Result<bool, StoreError> {
        let (store, id, _) = self.store_of(root);
        store.begin_settings(id, settings)
    }

    /// Notes that everything was read so.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn set_settings(&self, root: RootIndex, settings: &str) -> Result<(), StoreError> {
        let (store, id, _) = self.store_of(root);
        store.set_settings(id, settings)
    }

    /// What of a root its images are made ready with, before they are given to [`Catalog::apply`].
    #[must_use]
    pub fn preparation(&self, root: RootIndex) -> Option<Preparation> {
        let state = self.lock();
        let record = state.roots.get(root.0)?;
        Some(state.preparation_of(record))
    }

    /// Stores what a scan that began with `known` found; the listing has it after the next
    /// [`Catalog::publish_changes`] or [`Catalog::finish_scan`].
    ///
    /// # Errors
    ///
    /// The database failed and is done without from now on, or is not the one that the scan began with:
    /// the scan must begin anew.
    pub fn apply(
        &self,
        root: RootIndex,
        known: &KnownRoot,
        changes: Vec<DirectoryChange>,
    ) -> Result<(), StoreError> {
        let _writing = self.write();
        let store = known.store();
        let record = {
            let state = self.lock();
            state.expect_store(store)?;
            let record = state.roots.get(root.0);
            record.map(|record| (record.clone(), state.preparation_of(record)))
        };
        let Some((record, preparation)) = record else {
            return Ok(());
        };
        match store.apply(record.stored.id, &preparation, changes) {
            Ok(delta) => {
                let mut state = self.lock();
                state.expect_store(store)?;
                state.take(&record.path, delta, !record.rebuild);
                Ok(())
            }
            Err(error) => {
                self.failed(store, &error);
                Err(error)
            }
        }
    }

    /// Stores digests that were computed in the background and makes them part of the listing; those
    /// of files that changed meanwhile are passed over. Gives how many were stored.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub fn set_content_digests(&self, digests: &[ContentDigest]) -> Result<usize, StoreError> {
        let _writing = self.write();
        let store = Arc::clone(&self.lock().store);
        let mut stored = HashMap::new();
        for digest in digests {
            match store.set_content_digest(digest) {
                Ok(true) => drop(stored.insert(digest.image, digest)),
                Ok(false) => {}
                Err(error) => {
                    self.failed(&store, &error);
                    return Err(error);
                }
            }
        }
        let publishing = self.leases.end();
        let mut state = self.lock();
        state.expect_store(&store)?;
        let current = self.snapshot();
        let with_digest = |row: &mut Arc<KeptRow>| {
            if let Some(digest) = stored.get(&row.id())
                && row.identity() == digest.identity
            {
                Arc::make_mut(row).set_content_digest(Some(digest.digest));
            }
        };
        // What a scan applied and did not publish yet is newer than the listing.
        state.upserts.iter_mut().for_each(with_digest);
        let waiting: HashSet<i64> = state.upserts.iter().map(|row| row.id()).collect();
        let listed = current
            .rows
            .iter()
            .filter(|row| stored.contains_key(&row.id()) && !waiting.contains(&row.id()));
        for row in listed {
            let mut row = Arc::clone(row);
            with_digest(&mut row);
            state.upserts.push(row);
        }
        self.publish(&mut state, &publishing);
        Ok(stored.len())
    }

    /// Makes what was applied so far part of the listing.
    pub fn publish_changes(&self) {
        let publishing = self.leases.end();
        self.publish(&mut self.lock(), &publishing);
    }

    /// Notes that a scan of a root that began with `known` is complete, and makes what it found part of the
    /// listing.
    ///
    /// # Errors
    ///
    /// As [`Catalog::apply`].
    pub fn finish_scan(
        &self,
        root: RootIndex,
        known: &KnownRoot,
        directory: RootDirectory,
        files_checked: bool,
    ) -> Result<(), StoreError> {
        let _writing = self.write();
        let store = known.store();
        let (record, preparation) = {
            let state = self.lock();
            state.expect_store(store)?;
            let Some(record) = state.roots.get(root.0) else {
                return Ok(());
            };
            (record.clone(), state.preparation_of(record))
        };
        let (id, now) = (record.stored.id, FileTime::now());
        // The index after a first scan takes a while, like all rows of a root.
        let finished = store
            .index_paths()
            .and_then(|()| store.finish_scan(id, directory, now, files_checked))
            .and_then(|()| {
                record
                    .rebuild
                    .then(|| store.load(id, &preparation))
                    .transpose()
            });
        let rows = finished.inspect_err(|error| self.failed(store, error));
        let publishing = self.leases.end();
        let mut state = self.lock();
        let finished = rows.and_then(|rows| {
            state.expect_store(store)?;
            state.finish_scan(root, directory, now, files_checked);
            if let Some(rows) = rows {
                state.replace_rows(root, rows, &self.snapshot());
            }
            Ok(())
        });
        self.publish(&mut state, &publishing);
        finished
    }

    /// Notes that a root cannot be read now (or, with `None`, that it can).
    pub fn set_unavailable(&self, root: RootIndex, message: Option<String>) {
        let publishing = self.leases.end();
        let mut state = self.lock();
        let Some(path) = state.roots.get(root.0).map(|root| root.path.clone()) else {
            return;
        };
        match message {
            Some(message) => drop(state.unavailable.insert(path, message)),
            None => drop(state.unavailable.remove(&path)),
        }
        self.publish(&mut state, &publishing);
    }

    /// Forgets what is known below a root, which then begins anew.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn clear_root(&self, root: RootIndex) -> Result<(), StoreError> {
        let mut state = self.lock();
        let id = state.id_of(root);
        state.store.clear_root(id)?;
        if let Some(record) = state.roots.get_mut(root.0) {
            record.rebuild = true;
        }
        Ok(())
    }

    // === the inside ===

    /// Leases are waited for before the state is locked: nobody who reads waits for them.
    fn publish(&self, state: &mut State, _: &Publishing<'_>) {
        let current = self.snapshot();
        let as_of = state
            .roots
            .iter()
            .filter_map(|root| root.stored.scanned)
            .min()
            .or(current.as_of);
        let unchanged = state.upserts.is_empty()
            && state.removed.is_empty()
            && state.unavailable == *current.unavailable;
        if unchanged {
            if as_of != current.as_of {
                self.current.store(Arc::new(Snapshot {
                    as_of,
                    ..(*current).clone()
                }));
            }
            return;
        }
        let (next, changes) = current.next(
            std::mem::take(&mut state.upserts),
            &std::mem::take(&mut state.removed),
            state.unavailable.clone(),
            as_of,
        );
        if changes.is_empty() {
            self.current.store(Arc::new(Snapshot {
                generation: current.generation,
                ..next
            }));
            return;
        }
        let own = current.rows.not_shared_with(&next.rows);
        state.past.push_back(Past {
            snapshot: current,
            own,
        });
        forget_oldest(&mut state.past, PAST_SNAPSHOTS, PAST_ROWS);
        state.history.push_back(Arc::new(changes));
        let mut held: usize = state.history.iter().map(|changes| changes.len()).sum();
        while held > HISTORY_IMAGES && state.history.len() > 1 {
            held -= state.history.pop_front().map_or(0, |oldest| oldest.len());
        }
        let generation = next.generation;
        self.current.store(Arc::new(next));
        self.generation.send_replace(generation);
    }
}

impl Labels for Catalog {
    fn label(&self, image: i64, key: &str) -> Option<String> {
        self.details(image).ok()?.labels.remove(key)
    }
}
