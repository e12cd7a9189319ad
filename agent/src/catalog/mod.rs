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
mod facts;
mod failure;
mod kept;
mod lease;
mod order;
mod packed;
mod prepare;
mod query;
mod replaced;
mod row;
mod rows;
mod selections;
mod snapshot;
mod state;
mod store;
#[cfg(test)]
pub(crate) mod testing;
mod token;
mod writing;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::Thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use sifter_proto::v1;
use tokio::sync::watch;

pub use self::change::{ChangeKind, DirectoryChange, KnownDirectory, KnownFile};
pub use self::detail::{details, fill_details};
pub use self::entry::{Content, ContentDigest, Found, KnownImage, Prepared};
pub use self::facts::{FileFacts, FileTime, Identity, RootDirectory};
pub use self::kept::{Commons, KeptRow};
pub use self::lease::LEASE_MAX;
pub use self::order::{OrderKey, in_order};
pub use self::prepare::Preparation;
pub use self::query::{Labels, Query, QueryError, format_name, quote, status_name};
pub use self::row::{Row, join_path};
pub use self::rows::Rows;
pub use self::selections::Selection;
pub use self::snapshot::{Changes, Snapshot};
pub use self::store::{
    Delta, KnownRoot, Loaded, Reach, Store, StoreError, StoredRoot, Tally, older_at,
};
pub use self::token::PageToken;

use self::failure::open_at_start;
use self::lease::Leases;
use self::selections::{Asked, Selections};
use self::state::{Given, RootRecord, State};
use crate::lock::lock;

/// The catalogue.
#[derive(Debug)]
pub struct Catalog {
    /// Where the database is; `None`: in memory, as configured.
    path: Option<PathBuf>,
    current: ArcSwap<Snapshot>,
    /// Held by whoever changes the database, which may take as long as another process holds it locked;
    /// the state is locked without waiting for that. Taken before the state.
    writing: Mutex<()>,
    /// Held by whoever makes the next listing, which takes as long as many images have changed: the state is locked
    /// without waiting for that. Taken after all leases have ended, and before the state.
    publishing: Mutex<()>,
    state: Mutex<State>,
    generation: watch::Sender<u64>,
    selections: Selections,
    leases: Leases,
    /// See [`Catalog::take_wish`].
    scan_wanted: AtomicBool,
    /// Who is woken then.
    granter: Mutex<Option<Thread>>,
    /// Held by whoever opens the database again, looks for its file or sets it aside; when that was last done in
    /// vain. Taken after the right to write, and before the state.
    mending: Mutex<Option<Instant>>,
    /// What a test does while the next listing is made.
    #[cfg(test)]
    while_published: std::sync::OnceLock<fn(&Catalog)>,
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

impl Catalog {
    /// Opens the catalogue at `path` (or in memory) for the given roots, and loads its last
    /// listing. Never fails: a database that is damaged is set aside, and one that cannot be written is read, or
    /// done without.
    #[must_use]
    pub fn open(path: Option<&Path>, roots: &[PathBuf]) -> Self {
        let (store, failure) = match path {
            None => (Store::in_memory(), None),
            Some(path) => open_at_start(path),
        };
        let first = Snapshot {
            // Unique over restarts, as long as there is less than one change a millisecond.
            generation: u64::try_from(FileTime::now().0 / 1_000_000).unwrap_or(0),
            ..Snapshot::default()
        };
        let given = Given::default();
        given.begin(&store);
        let catalog = Self {
            path: path.map(Path::to_owned),
            generation: watch::Sender::new(first.generation),
            current: ArcSwap::from_pointee(first),
            writing: Mutex::default(),
            publishing: Mutex::default(),
            state: Mutex::new(State {
                store: Arc::new(store),
                former: None,
                failure,
                commons: Arc::default(),
                roots: roots.iter().map(|path| RootRecord::new(path)).collect(),
                upserts: Vec::new(),
                removed: Vec::new(),
                unavailable: BTreeMap::new(),
                past: VecDeque::new(),
                history: VecDeque::new(),
                given,
                retired: false,
            }),
            selections: Selections::default(),
            leases: Leases::default(),
            scan_wanted: AtomicBool::new(false),
            granter: Mutex::default(),
            mending: Mutex::default(),
            #[cfg(test)]
            while_published: std::sync::OnceLock::new(),
        };
        catalog.begin();
        catalog.publish_changes();
        catalog
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn write(&self) -> MutexGuard<'_, ()> {
        lock(&self.writing)
    }

    // === reading ===

    /// The present snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Promises that the snapshot which is read after this stays the present one for a time, `wanted` at
    /// most, and says how long; see [`lease`].
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
    ///
    /// # Errors
    ///
    /// The query asks for labels, and the database fails.
    pub fn select(
        &self,
        snapshot: Arc<Snapshot>,
        query: &Query,
        number: u64,
        now: i64,
    ) -> Result<Arc<Selection>, StoreError> {
        if query.is_plain() {
            return self.select_once(snapshot, query).map(Arc::new);
        }
        let asked = Asked {
            generation: snapshot.generation,
            query: number,
            now,
        };
        if let Some(selection) = self.selections.get(asked) {
            return Ok(selection);
        }
        let selection = Arc::new(self.select_once(snapshot, query)?);
        self.selections.keep(asked, &selection);
        Ok(selection)
    }

    /// The same, for somebody who reads it in one go: it is not kept.
    ///
    /// # Errors
    ///
    /// As [`Catalog::select`].
    pub fn select_once(
        &self,
        snapshot: Arc<Snapshot>,
        query: &Query,
    ) -> Result<Selection, StoreError> {
        let rows = query.select(&snapshot, self)?;
        Ok(Selection { snapshot, rows })
    }

    /// What only view FULL shows of an image. An image that is not there any more has nothing to show.
    ///
    /// # Errors
    ///
    /// The database fails, or the image is in none that is in use.
    pub fn details(&self, image: i64) -> Result<v1::Image, StoreError> {
        let (store, former) = {
            let state = self.lock();
            (Arc::clone(&state.store), state.former.clone())
        };
        let is_of_other_kind = store.is_in_memory() != (image > state::MEMORY);
        let is_elsewhere = is_of_other_kind || store.is_foreign(image);
        let found = store.details(image).inspect_err(|error| {
            if error.is_damage() {
                self.failed(&store, error);
                self.scan_wanted.store(true, Ordering::Relaxed);
                if let Some(granter) = &*self.granter() {
                    granter.unpark();
                }
            }
        })?;
        match (found, former) {
            (Some(details), _) => Ok(details),
            // No two databases have given the same number.
            (None, Some(former)) => former.details(image)?.ok_or(StoreError::Elsewhere(image)),
            (None, None) if is_elsewhere => Err(StoreError::Elsewhere(image)),
            (None, None) => Ok(v1::Image::default()),
        }
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
        if generation > current || generation + 1 < first {
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

    /// The roots that were never scanned to the end: of their images nothing is known. Every request asks.
    #[must_use]
    pub fn unscanned(&self) -> Vec<RootIndex> {
        let state = self.lock();
        let roots = (0..).map(RootIndex).zip(&state.roots);
        let unscanned = roots.filter(|(_, root)| root.stored.scanned.is_none());
        unscanned.map(|(index, _)| index).collect()
    }

    /// Whether scans of all roots have been wished for since this was last asked: somebody who read found the
    /// database damaged, and nobody else would begin one before the interval is over.
    #[must_use]
    pub fn take_wish(&self) -> bool {
        self.scan_wanted.swap(false, Ordering::Relaxed)
    }

    /// Has a thread unparked whenever there is such a wish.
    pub fn wishes_go_to(&self, granter: Thread) {
        *self.granter() = Some(granter);
    }

    fn granter(&self) -> MutexGuard<'_, Option<Thread>> {
        lock(&self.granter)
    }

    /// Whether the database has images of a root, also such as are not listed: a listing that was made
    /// without it has none of them.
    #[must_use]
    pub fn stores_images(&self, root: RootIndex) -> bool {
        let (store, id) = {
            let state = self.lock();
            (Arc::clone(&state.store), state.id_of(root))
        };
        // One that cannot say so may have some.
        store.has_images(id).unwrap_or(true)
    }
}

impl Labels for Catalog {
    fn label(&self, image: i64, key: &str) -> Result<Option<String>, StoreError> {
        Ok(self.details(image)?.labels.remove(key))
    }
}
