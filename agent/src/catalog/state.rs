//! The catalogue's state: its database, its roots, and what the next listing will have that the
//! present one has not.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::{
    Changes, Commons, Delta, FileTime, KeptRow, Preparation, Reach, RootDirectory, RootIndex,
    Snapshot, Store, StoreError, StoredRoot, Tally, join_path,
};

/// What the catalogue keeps behind its lock.
#[derive(Debug)]
pub(super) struct State {
    pub(super) store: Arc<Store>,
    /// The database that this one stands in for, until all roots are scanned: what is listed is described
    /// there.
    pub(super) former: Option<Arc<Store>>,
    /// Why the database on disk is not used, if it is not.
    pub(super) failure: Option<String>,
    pub(super) commons: Arc<Mutex<Commons>>,
    pub(super) roots: Vec<RootRecord>,
    pub(super) upserts: Vec<Arc<KeptRow>>,
    pub(super) removed: Vec<i64>,
    pub(super) unavailable: BTreeMap<Box<[u8]>, String>,
    pub(super) past: VecDeque<Past>,
    pub(super) history: VecDeque<Arc<Changes>>,
    pub(super) given: Given,
    /// See [`Catalog::retire`](super::Catalog::retire).
    pub(super) retired: bool,
}

/// Numbers of images in a database in memory begin behind this, so that they differ from those of the
/// database on disk that it stands in for.
pub(super) const MEMORY: i64 = 1 << 40;

/// The highest numbers of images that were given while the catalogue is open. The listing has images of past
/// databases until all roots are scanned: in the next database no other image may have their numbers.
#[derive(Debug)]
pub(super) struct Given {
    on_disk: i64,
    in_memory: i64,
}

impl Default for Given {
    fn default() -> Self {
        Self {
            on_disk: 0,
            in_memory: MEMORY,
        }
    }
}

impl Given {
    fn note(&mut self, number: i64) {
        let highest = if number > MEMORY {
            &mut self.in_memory
        } else {
            &mut self.on_disk
        };
        *highest = number.max(*highest);
    }

    /// Lets a database give higher numbers only.
    pub(super) fn begin(&self, store: &Store) {
        store.number_behind(if store.is_in_memory() {
            self.in_memory
        } else {
            self.on_disk
        });
    }
}

/// A listing that was replaced.
#[derive(Debug)]
pub(super) struct Past {
    pub(super) snapshot: Arc<Snapshot>,
    /// Rows that it does not share with the next one.
    pub(super) own: usize,
}

/// Keeps the newest: no more than `snapshots`, and no more than `rows` of their own but for the last one. Gives the
/// others: to free them takes a while.
pub(super) fn forget_oldest(
    past: &mut VecDeque<Past>,
    snapshots: usize,
    rows: usize,
) -> VecDeque<Past> {
    let mut held: usize = past.iter().map(|past| past.own).sum();
    let mut count = 0;
    while past.len() - count > snapshots || held > rows && past.len() - count > 1 {
        held -= past[count].own;
        count += 1;
    }
    past.drain(..count).collect()
}

/// A scan of a root that is complete.
#[derive(Debug)]
pub(super) struct Finished<'a> {
    /// The database that has what it found.
    pub(super) store: &'a Arc<Store>,
    pub(super) root: RootIndex,
    pub(super) directory: RootDirectory,
    pub(super) at: FileTime,
    pub(super) files_checked: bool,
}

/// A configured root as the catalogue sees it.
#[derive(Debug, Clone)]
pub(super) struct RootRecord {
    pub(super) path: Box<[u8]>,
    pub(super) text: Arc<str>,
    pub(super) stored: StoredRoot,
    /// The listing's rows come from another database: they are replaced after the next scan.
    pub(super) rebuild: bool,
}

impl RootRecord {
    pub(super) fn new(path: &Path) -> Self {
        let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
        Self {
            path: bytes.into(),
            text: crate::escape::utf8(bytes).into(),
            stored: StoredRoot {
                id: 0,
                directory: None,
                scanned: None,
                files_checked: None,
            },
            rebuild: false,
        }
    }
}

impl State {
    /// Whether images are waiting for the next listing.
    pub(super) fn has_changes(&self) -> bool {
        !self.upserts.is_empty() || !self.removed.is_empty()
    }

    pub(super) fn id_of(&self, root: RootIndex) -> i64 {
        self.roots.get(root.0).map_or(0, |root| root.stored.id)
    }

    pub(super) fn text_of(&self, root: RootIndex) -> Arc<str> {
        self.roots
            .get(root.0)
            .map_or_else(|| "".into(), |root| Arc::clone(&root.text))
    }

    pub(super) fn preparation_of(&self, record: &RootRecord) -> Preparation {
        Preparation {
            root_path: record.path.clone(),
            root_text: Arc::clone(&record.text),
            commons: Arc::clone(&self.commons),
        }
    }

    /// The last listing, at start.
    pub(super) fn load(&mut self) -> Result<(), StoreError> {
        let store = Arc::clone(&self.store);
        for record in &mut self.roots {
            record.stored = store.root(&record.path)?;
        }
        let ids: Vec<i64> = self.roots.iter().map(|root| root.stored.id).collect();
        store.keep_roots(&ids)?;
        let mut images = Tally::default();
        for index in 0..self.roots.len() {
            let record = self.roots[index].clone();
            let loaded = store.load(record.stored.id, &self.preparation_of(&record))?;
            images += loaded.tally;
            self.take(&record.path, loaded.listing, true);
        }
        let files = store.tally()?;
        if files == images {
            Ok(())
        } else {
            Err(StoreError::Tally { files, images })
        }
    }

    /// The last listing from a database that can only be read, while another one stands in for it.
    pub(super) fn load_former(&mut self, former: Store) -> Result<(), StoreError> {
        let (mut images, mut found) = (Tally::default(), 0);
        for index in 0..self.roots.len() {
            let record = self.roots[index].clone();
            let Some(stored) = former.find_root(&record.path)? else {
                continue;
            };
            let loaded = former.load(stored.id, &self.preparation_of(&record))?;
            images += loaded.tally;
            found += 1;
            self.take(&record.path, loaded.listing, true);
            self.roots[index].rebuild = true;
            self.roots[index].stored = StoredRoot {
                id: record.stored.id,
                ..stored
            };
        }
        // The files are those of all roots, also of such as are not configured any more.
        let files = former.tally()?;
        if found == former.root_count()? && files != images {
            return Err(StoreError::Tally { files, images });
        }
        self.former = Some(Arc::new(former));
        Ok(())
    }

    /// Forgets what was read of a listing.
    pub(super) fn unload(&mut self) {
        self.upserts.clear();
        self.removed.clear();
        self.unavailable.clear();
        for record in &mut self.roots {
            record.stored.scanned = None;
            record.stored.files_checked = None;
        }
    }

    /// Takes what a batch changed; `list` says whether the listing's rows are this database's.
    pub(super) fn take(&mut self, root: &[u8], delta: Delta, list: bool) {
        for row in &delta.upserts {
            self.given.note(row.id());
        }
        if list {
            self.upserts.extend(delta.upserts);
            self.removed.extend(delta.removed);
        }
        for (path, reach) in delta.reach {
            match reach {
                Reach::Unreadable(message) => {
                    self.unavailable
                        .insert(join_path(root, &path, b""), message);
                }
                _ if self.unavailable.is_empty() => {}
                // Whether the root itself can be read is said by `set_unavailable`.
                Reach::Readable if path.is_empty() => {}
                Reach::Readable => {
                    self.unavailable.remove(&join_path(root, &path, b""));
                }
                Reach::Gone => self.forget_unavailable(root, &path),
            }
        }
    }

    /// Forgets that directories of a root could not be read, at `path` and below: what comes to be there is no
    /// less READY for it, and names that are never seen again would be kept for ever.
    fn forget_unavailable(&mut self, root: &[u8], path: &[u8]) {
        let gone = join_path(root, path, b"");
        // The root's own condition is another matter.
        if !path.is_empty() {
            self.unavailable.remove(&gone);
        }
        let is_below = |known: &[u8]| {
            let rest = known.strip_prefix(&*gone);
            rest.is_some_and(|rest| rest.starts_with(b"/") || gone.ends_with(b"/"))
        };
        let after = (Bound::Excluded(&gone), Bound::Unbounded);
        let known = self.unavailable.range::<Box<[u8]>, _>(after);
        let near = known.take_while(|(known, _)| known.starts_with(&gone));
        let below: Vec<_> = near
            .filter(|(known, _)| is_below(known))
            .map(|(known, _)| known.clone())
            .collect();
        for known in below {
            self.unavailable.remove(&known);
        }
    }

    /// When all roots were last scanned to the end, with the scan that is finished.
    pub(super) fn as_of(&self, finished: Option<&Finished<'_>>) -> Option<FileTime> {
        let finished = finished.filter(|finished| self.uses(finished.store));
        let of_root = |(index, record): (usize, &RootRecord)| match finished {
            Some(finished) if finished.root.0 == index => Some(finished.at),
            _ => record.stored.scanned,
        };
        self.roots.iter().enumerate().filter_map(of_root).min()
    }

    /// Notes a scan that is finished, unless another database has taken the place of its own meanwhile.
    pub(super) fn finish(&mut self, finished: Option<&Finished<'_>>) {
        if let Some(finished) = finished
            && self.uses(finished.store)
            && let Some(record) = self.roots.get_mut(finished.root.0)
        {
            record.stored.directory = Some(finished.directory);
            record.stored.scanned = Some(finished.at);
            if finished.files_checked {
                record.stored.files_checked = Some(finished.at);
            }
        }
    }

    /// Replaces all rows of a root by those of the present database. Gives the one that it stood in for, if that is
    /// not needed any more.
    pub(super) fn replace_rows(
        &mut self,
        root: RootIndex,
        rows: Delta,
        current: &Snapshot,
    ) -> Option<Arc<Store>> {
        let record = self.roots.get_mut(root.0)?;
        record.rebuild = false;
        let record = record.clone();
        let is_last = self.roots.iter().all(|root| !root.rebuild);
        let former = self.former.take_if(|_| is_last);
        let kept: HashSet<i64> = rows.upserts.iter().map(|row| row.id()).collect();
        let stale = current
            .rows
            .iter()
            .filter(|row| *row.root() == record.text && !kept.contains(&row.id()))
            .map(|row| row.id());
        self.removed.extend(stale);
        // The scan that is complete knows them all.
        self.forget_unavailable(&record.path, b"");
        self.take(&record.path, rows, true);
        former
    }

    /// Whether this is the database in use.
    pub(super) fn uses(&self, store: &Arc<Store>) -> bool {
        !self.retired && Arc::ptr_eq(&self.store, store)
    }

    /// Whether the database on disk is wanted and done without.
    pub(super) fn is_failed_in_use(&self) -> bool {
        !self.retired && self.failure.is_some()
    }

    /// Whether this is the database in use.
    ///
    /// # Errors
    ///
    /// [`StoreError::Replaced`] if it is not.
    pub(super) fn expect_store(&self, store: &Arc<Store>) -> Result<(), StoreError> {
        if self.uses(store) {
            Ok(())
        } else {
            Err(StoreError::Replaced)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Delta, Given, MEMORY, Past, Reach, forget_oldest, join_path};
    use crate::catalog::Catalog;

    #[test]
    fn past_listings_are_bounded_by_what_they_cost() {
        for (own, kept) in [
            (&[1, 2, 3][..], &[1, 2, 3][..]),
            (&[9, 1, 1, 1, 1], &[1, 1, 1, 1]),
            (&[5, 6, 5], &[5]),
            (&[6, 4, 5], &[4, 5]),
            // A listing that was just replaced can be read to its end, however large it is.
            (&[1, 99], &[99]),
        ] {
            let past = |own: &usize| Past {
                snapshot: std::sync::Arc::default(),
                own: *own,
            };
            let mut past = own.iter().map(past).collect();
            let forgotten = forget_oldest(&mut past, 4, 10);
            let left: Vec<usize> = past.iter().map(|past| past.own).collect();
            assert_eq!(left, kept, "{own:?}");
            assert_eq!(forgotten.len() + kept.len(), own.len());
        }
    }

    #[test]
    fn numbers_in_memory_and_on_disk_are_counted_apart() {
        let mut given = Given::default();
        assert_eq!((given.on_disk, given.in_memory), (0, MEMORY));
        for (number, on_disk, in_memory) in [
            (2, 2, MEMORY),
            (MEMORY + 7, 2, MEMORY + 7),
            (MEMORY, MEMORY, MEMORY + 7),
            (1, MEMORY, MEMORY + 7),
            (MEMORY + 1, MEMORY, MEMORY + 7),
        ] {
            given.note(number);
            assert_eq!((given.on_disk, given.in_memory), (on_disk, in_memory));
        }
    }

    #[test]
    fn what_is_said_of_a_directory_is_said_of_nothing_beside_it() {
        let all = ["", "d", "d-e", "d/e", "d/e/f", "d2", "x"];
        for root in ["/", "/r"] {
            for (reach, path, forgotten) in [
                (Reach::Readable, "d", &["d"][..]),
                (Reach::Readable, "d/e", &["d/e"]),
                (Reach::Readable, "d/none", &[]),
                (Reach::Gone, "d", &["d", "d/e", "d/e/f"]),
                (Reach::Gone, "d/e", &["d/e", "d/e/f"]),
                (Reach::Gone, "none", &[]),
                // What the root itself is has been said by others.
                (Reach::Readable, "", &[]),
                (Reach::Gone, "", &all[1..]),
            ] {
                let what = format!("{reach:?} {root} {path}");
                let catalog = Catalog::open(None, &[root.into()]);
                let mut state = catalog.lock();
                let mut say = |root: &str, path: &str, reach| {
                    let delta = Delta {
                        reach: vec![(path.as_bytes().into(), reach)],
                        ..Delta::default()
                    };
                    state.take(root.as_bytes(), delta, true);
                };
                // Below `/` there is no root beside it.
                let beside = if root == "/" { &[][..] } else { &["", "d"] };
                let of_root = all.iter().map(|path| (root, path));
                let known: Vec<_> = of_root
                    .chain(beside.iter().map(|path| ("/r2", path)))
                    .collect();
                for (root, path) in &known {
                    say(root, path, Reach::Unreadable("denied".to_owned()));
                }
                say(root, path, reach);
                let is_left =
                    |(of, path): &&(&str, &&str)| *of != root || !forgotten.contains(path);
                let left = known.iter().filter(is_left);
                let left: Vec<_> = left
                    .map(|(root, path)| join_path(root.as_bytes(), path.as_bytes(), b""))
                    .collect();
                let unavailable: Vec<_> = state.unavailable.keys().cloned().collect();
                assert_eq!(unavailable, left, "{what}");
            }
        }
    }
}
