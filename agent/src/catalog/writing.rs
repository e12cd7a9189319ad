//! What scans do to the catalogue: they store what they find, and make listings of it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, MutexGuard};

use super::lease::Publishing;
use super::state::{Finished, Past, forget_oldest};
use super::{
    Catalog, ContentDigest, DirectoryChange, FileTime, KeptRow, KnownRoot, Preparation,
    RootDirectory, RootIndex, Snapshot, Store, StoreError,
};
use crate::lock::lock;

/// Snapshots of past generations that are kept, so that a listing that was begun can be read to
/// its end. They share what did not change.
const PAST_SNAPSHOTS: usize = 16;

/// The same counted in rows that they do not share, 16 bytes each besides the row itself: a first scan
/// changes the whole listing with each generation. The last one is always kept.
const PAST_ROWS: usize = 1 << 18;

/// Changes that are kept for watchers that fall behind or come back, counted in images.
const HISTORY_IMAGES: usize = 20_000;

/// Of whoever makes the next listing.
type Turn<'a> = (Publishing<'a>, MutexGuard<'a, ()>);

impl Catalog {
    /// The database, and a root's number and text in it.
    fn store_of(&self, root: RootIndex) -> Result<(Arc<Store>, i64, Arc<str>), StoreError> {
        let state = self.lock();
        let store = Arc::clone(&state.store);
        // A scan that hung while this catalogue was replaced begins nothing any more.
        state.expect_store(&store)?;
        Ok((store, state.id_of(root), state.text_of(root)))
    }

    /// What is known of a root, for a scan of it.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn known(&self, root: RootIndex) -> Result<KnownRoot, StoreError> {
        let (store, id, text) = self.store_of(root)?;
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
        let (store, id, text) = self.store_of(root)?;
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
        let (store, id, _) = self.store_of(root)?;
        store.begin_settings(id, settings)
    }

    /// Notes that everything was read so.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn set_settings(&self, root: RootIndex, settings: &str) -> Result<(), StoreError> {
        let (store, id, _) = self.store_of(root)?;
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
        let store = {
            let state = self.lock();
            state.expect_store(&state.store)?;
            Arc::clone(&state.store)
        };
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
        let mut ids: Vec<i64> = stored.keys().copied().collect();
        ids.sort_unstable();
        let publishing = self.begin_publishing();
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
        let listed = current.rows.with_ids(&ids);
        for row in listed.filter(|row| !waiting.contains(&row.id())) {
            let mut row = Arc::clone(row);
            with_digest(&mut row);
            state.upserts.push(row);
        }
        drop(state);
        self.publish(&publishing, None);
        Ok(stored.len())
    }

    /// Makes what was applied so far part of the listing.
    pub fn publish_changes(&self) {
        self.publish(&self.begin_publishing(), None);
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
                    .then(|| Ok(store.load(id, &preparation)?.listing))
                    .transpose()
            });
        let rows = finished.inspect_err(|error| self.failed(store, error));
        let publishing = self.begin_publishing();
        let replaced = rows.and_then(|rows| {
            let mut state = self.lock();
            state.expect_store(store)?;
            Ok(rows.and_then(|rows| state.replace_rows(root, rows, &self.snapshot())))
        });
        let finished = Finished {
            store,
            root,
            directory,
            at: now,
            files_checked,
        };
        self.publish(&publishing, replaced.is_ok().then_some(&finished));
        // The database that is not needed any more is closed here, if it is.
        replaced.map(drop)
    }

    /// Notes that a root cannot be read now (or, with `None`, that it can).
    pub fn set_unavailable(&self, root: RootIndex, message: Option<String>) {
        let path = {
            let state = self.lock();
            let Some(record) = state.roots.get(root.0) else {
                return;
            };
            // Mostly it is as it was at the last scan: nobody waits for leases then.
            if state.unavailable.get(&record.path) == message.as_ref() && !state.has_changes() {
                return;
            }
            record.path.clone()
        };
        let publishing = self.begin_publishing();
        {
            let mut state = self.lock();
            match message {
                Some(message) => drop(state.unavailable.insert(path, message)),
                None => drop(state.unavailable.remove(&path)),
            }
        }
        self.publish(&publishing, None);
    }

    /// Waits until no lease holds and nobody else makes a listing.
    fn begin_publishing(&self) -> Turn<'_> {
        let leases = self.leases.end();
        (leases, lock(&self.publishing))
    }

    /// Makes the next listing of what has changed. Nobody who reads waits for that: it is made while the state is
    /// not locked. A scan that is `finished` is so from the moment in which it is listed what it found.
    fn publish(&self, _: &Turn<'_>, finished: Option<&Finished<'_>>) {
        let current = self.snapshot();
        let (upserts, removed, unavailable, as_of) = {
            let mut state = self.lock();
            let as_of = state.as_of(finished).or(current.as_of);
            let upserts = std::mem::take(&mut state.upserts);
            let removed = std::mem::take(&mut state.removed);
            (upserts, removed, state.unavailable.clone(), as_of)
        };
        let is_same = upserts.is_empty() && removed.is_empty();
        let (next, changes) = if is_same && unavailable == *current.unavailable {
            let same = Snapshot {
                as_of,
                ..(*current).clone()
            };
            (same, None)
        } else {
            let (next, changes) = current.next(upserts, &removed, unavailable, as_of);
            (next, Some(changes).filter(|changes| !changes.is_empty()))
        };
        #[cfg(test)]
        if let Some(look) = self.while_published.get() {
            look(self);
        }
        let Some(changes) = changes else {
            let mut state = self.lock();
            state.finish(finished);
            self.current.store(Arc::new(Snapshot {
                generation: current.generation,
                ..next
            }));
            return;
        };
        let own = current.rows.not_shared_with(&next.rows);
        let generation = next.generation;
        let forgotten = {
            let mut state = self.lock();
            state.finish(finished);
            state.past.push_back(Past {
                snapshot: current,
                own,
            });
            let forgotten = forget_oldest(&mut state.past, PAST_SNAPSHOTS, PAST_ROWS);
            if let Some(oldest) = state.past.front() {
                self.selections.forget_before(oldest.snapshot.generation);
            }
            state.history.push_back(Arc::new(changes));
            let mut held: usize = state.history.iter().map(|changes| changes.len()).sum();
            while held > HISTORY_IMAGES && state.history.len() > 1 {
                held -= state.history.pop_front().map_or(0, |oldest| oldest.len());
            }
            self.current.store(Arc::new(next));
            forgotten
        };
        self.generation.send_replace(generation);
        drop(forgotten);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::PAST_SNAPSHOTS;
    use crate::catalog::testing::images;
    use crate::catalog::{Catalog, FileTime, Query, RootDirectory, RootIndex};

    const ROOT: RootIndex = RootIndex(0);

    /// A scan that finds one more image.
    fn scan(catalog: &Catalog, name: &str) {
        let directory = RootDirectory {
            device: 1,
            inode: 2,
            born: None,
        };
        let known = catalog.known(ROOT).unwrap();
        catalog.apply(ROOT, &known, images(&[name])).unwrap();
        catalog.finish_scan(ROOT, &known, directory, true).unwrap();
    }

    #[test]
    fn selections_go_with_the_listings_that_they_are_of() {
        let catalog = Catalog::open(None, &["/r".into()]);
        scan(&catalog, "a");
        let query = Query::parse("size>=0", "", FileTime(0)).unwrap();
        let select = || catalog.select(catalog.snapshot(), &query, 1, 0).unwrap();
        let first = Arc::downgrade(&select());
        for number in 0..PAST_SNAPSHOTS {
            scan(&catalog, &number.to_string());
            assert!(first.upgrade().is_some_and(|first| first.rows.len() == 1));
        }
        scan(&catalog, "b");
        assert!(first.upgrade().is_none());
    }

    #[test]
    fn nobody_waits_for_a_listing_that_is_made() {
        let catalog = Catalog::open(None, &["/r".into()]);
        let look = |catalog: &Catalog| {
            let state = catalog
                .state
                .try_lock()
                .expect("who reads waits for nothing");
            // What is not listed yet is not found yet.
            let scanned = state.roots[0].stored.scanned;
            assert_eq!(scanned.is_some(), catalog.snapshot().as_of.is_some());
        };
        catalog.while_published.set(look).unwrap();
        for name in ["a", "b"] {
            scan(&catalog, name);
        }
        assert_eq!(catalog.snapshot().rows.len(), 2);
        assert!(catalog.root(ROOT).unwrap().scanned.is_some());
    }

    #[test]
    fn changes_are_told_from_each_generation_that_is_held_on() {
        let catalog = Catalog::open(None, &["/r".into()]);
        let first = catalog.snapshot().generation;
        let held = |generation| {
            let changes = catalog.changes_after(generation)?;
            Some(changes.iter().map(|changes| changes.generation).collect())
        };
        assert_eq!(held(first), Some(Vec::new()));
        assert_eq!(held(first - 1), None);
        scan(&catalog, "a");
        scan(&catalog, "b");
        for (generation, changes) in [
            (0, None),
            (first - 1, None),
            (first, Some(vec![first + 1, first + 2])),
            (first + 1, Some(vec![first + 2])),
            (first + 2, Some(Vec::new())),
            (first + 3, None),
            (u64::MAX, None),
        ] {
            assert_eq!(held(generation), changes, "{generation}");
        }
    }
}
