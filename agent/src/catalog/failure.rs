//! Where the database fails: the listing goes on from memory, a damaged file is set aside, and the database is
//! used again as soon as it can be.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::ErrorCode;

use super::state::State;
use super::{Catalog, FileTime, KnownRoot, RootIndex, Store, StoreError, StoredRoot};

impl Catalog {
    /// Tries to use the database on disk again after a failure. Its listing replaces the present
    /// one root by root, after each one's next scan.
    pub fn recover(&self) -> bool {
        // One at a time: two would rename each other's new file, which the catalogue of before a change of the
        // roots has, too.
        static RECOVERING: Mutex<()> = Mutex::new(());
        let Some(path) = &self.path else { return false };
        let _alone = RECOVERING.lock().unwrap_or_else(PoisonError::into_inner);
        if self.lock().failure.is_none() {
            return false;
        }
        let (store, failure) = open_or_set_aside(path);
        // A disk that is still full would end the scan that is about to begin, which would read everything anew.

        if failure.is_some() || store.try_write().is_err() {
            return false;
        }
        let mut state = self.lock();
        // The scan of another root may have been first.
        if state.failure.take().is_none() {
            return false;
        }
        let former = Arc::clone(&state.store);
        self.replace_store(&mut state, store);
        state.former = Some(former);
        true
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

    /// Begins with the last listing, or with none if it cannot be read.
    pub(super) fn begin(&self, state: &mut State) {
        if let Err(error) = state.load() {
            state.unload();
            self.fail(state, &error);
        }
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

    /// Goes on without the database on disk, or with a new one if it is damaged.
    pub(super) fn fail(&self, state: &mut State, error: &StoreError) {
        tracing::error!(%error, "catalogue failed: the listing goes on from memory");
        state.failure = Some(explained(error, self.path.as_deref()));
        let former = Arc::clone(&state.store);
        self.replace_store(state, Store::in_memory());
        if !error.is_damage() {
            state.former = Some(former);
        }
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
        state.given.begin(&store);
        let store = Arc::new(store);
        for record in &mut state.roots {
            // A database in memory does not fail for want of a disk; if it does for want of
            // memory, the scan that follows says so.
            if let Ok(stored) = store.root(&record.path) {
                // Another database knows no less of what the root was, and what is listed stays so.
                record.stored = StoredRoot {
                    id: stored.id,
                    directory: stored.directory.or(record.stored.directory),
                    scanned: stored.scanned.or(record.stored.scanned),
                    files_checked: stored.files_checked,
                };
            }
            record.rebuild = true;
        }
        state.store = store;
        state.former = None;
        state.upserts.clear();
        state.removed.clear();
    }
}

/// What is wrong, and what SQLite does not say of it: a file in shared memory that cannot grow is an I/O error to
/// it, though there is no room but for that.
fn explained(error: &StoreError, path: Option<&Path>) -> String {
    let no_room = || {
        let room = nix::sys::statvfs::statvfs(path?.parent()?).ok()?;
        (room.blocks_available() == 0).then_some(())
    };
    match error {
        StoreError::Sqlite(inner)
            if matches!(
                inner.sqlite_error_code(),
                Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen)
            ) && no_room().is_some() =>
        {
            format!("{error}: the file system is full")
        }
        _ => error.to_string(),
    }
}

/// Opens the database; one that is damaged is renamed and begun anew.
pub(super) fn open_or_set_aside(path: &Path) -> (Store, Option<String>) {
    let error = match Store::open(path) {
        Ok(store) => return (store, None),
        Err(error) => error,
    };
    if !error.is_damage() {
        tracing::error!(%error, path = %crate::escape::path(path), "catalogue cannot be opened");
        return (Store::in_memory(), Some(explained(&error, Some(path))));
    }
    match set_aside(path, &error) {
        Ok(store) => (store, None),
        Err(error) => (Store::in_memory(), Some(error)),
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
    for name in beside(path) {
        let _ = std::fs::remove_file(name);
    }
    Store::open(path).map_err(|error| error.to_string())
}

/// What SQLite keeps beside a database.
pub(super) fn beside(path: &Path) -> [PathBuf; 2] {
    ["-wal", "-shm"].map(|ending| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        name.into()
    })
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::{Arc, Barrier};

    use sifter_image::record::Status;

    use super::super::testing::cut_image;
    use super::super::{
        Catalog, ChangeKind, Condition, Content, DirectoryChange, FileFacts, Found, Identity,
        RootDirectory, RootIndex, StoreError,
    };

    const DIRECTORY: RootDirectory = RootDirectory {
        device: 1,
        inode: 2,
        born: None,
    };

    const A: RootIndex = RootIndex(0);
    const B: RootIndex = RootIndex(1);

    /// One image in a root.
    fn image(name: &str) -> Vec<DirectoryChange> {
        images(&[name])
    }

    /// Images in a root.
    fn images(names: &[&str]) -> Vec<DirectoryChange> {
        let found = names.iter().map(|name| Found {
            name: name.as_bytes().into(),
            facts: FileFacts::default(),
            volatile: false,
            content: Content::Image(Box::new(cut_image())),
        });
        vec![DirectoryChange {
            id: None,
            path: Box::default(),
            kind: ChangeKind::Read {
                identity: Identity::default(),
                volatile: false,
                children: Vec::new(),
                found: found.collect(),
                removed: Vec::new(),
            },
        }]
    }

    /// A catalogue of two roots with an image each.
    fn two_roots(file: &Path) -> Catalog {
        let catalog = Catalog::open(Some(file), &["/a", "/b"].map(PathBuf::from));
        for root in [A, B] {
            let known = catalog.known(root).unwrap();
            catalog.apply(root, &known, image("first")).unwrap();
            catalog.finish_scan(root, &known, DIRECTORY, true).unwrap();
        }
        assert_eq!(catalog.snapshot().rows.len(), 2);
        catalog
    }

    fn no_space() -> StoreError {
        let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
        StoreError::Sqlite(rusqlite::Error::SqliteFailure(full, None))
    }

    #[test]
    fn a_scan_does_not_end_in_another_database_than_it_began_with() {
        let directory = tempfile::tempdir().unwrap();
        let catalog = two_roots(&directory.path().join("catalog.sqlite"));
        // The scan of one root is under way while the other one's meets a full disk.
        let known = catalog.known(A).unwrap();
        let other = catalog.known(B).unwrap();
        catalog.failed(other.store(), &no_space());
        let applied = catalog.apply(A, &known, image("second"));
        assert!(matches!(applied, Err(StoreError::Replaced)), "{applied:?}");
        let finished = catalog.finish_scan(A, &known, DIRECTORY, true);
        assert!(
            matches!(finished, Err(StoreError::Replaced)),
            "{finished:?}"
        );
        assert_eq!(catalog.snapshot().rows.len(), 2, "nothing is lost");
        assert!(catalog.awaits_scan(A));
        assert_eq!(catalog.root(A).unwrap().directory, Some(DIRECTORY));

        // So is one that began in memory when the database is used again.
        let known = catalog.known(A).unwrap();
        catalog.apply(A, &known, image("second")).unwrap();
        assert!(catalog.recover());
        let applied = catalog.apply(A, &known, image("third"));
        assert!(matches!(applied, Err(StoreError::Replaced)), "{applied:?}");
        let known = catalog.known(A).unwrap();
        catalog.apply(A, &known, image("fourth")).unwrap();
        catalog.finish_scan(A, &known, DIRECTORY, true).unwrap();
        assert!(!catalog.awaits_scan(A));
        let snapshot = catalog.snapshot();
        let mut paths: Vec<_> = snapshot.rows.iter().map(|row| row.path()).collect();
        paths.sort_unstable();
        let expected: [&[u8]; 3] = [b"/a/first", b"/a/fourth", b"/b/first"];
        assert_eq!(paths, expected);
    }

    /// A damaged database is begun anew while the other roots' images are still listed.
    #[test]
    fn images_of_a_new_database_do_not_take_the_place_of_others() {
        let damaged = || {
            let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            StoreError::Sqlite(rusqlite::Error::SqliteFailure(corrupt, None))
        };
        for error in [damaged, no_space] {
            let directory = tempfile::tempdir().unwrap();
            let catalog = two_roots(&directory.path().join("catalog.sqlite"));
            for scan in ["second", "third"] {
                catalog.failed(catalog.known(A).unwrap().store(), &error());
                let known = catalog.known(A).unwrap();
                let found = images(&[scan, "more", "most"]);
                catalog.apply(A, &known, found).unwrap();
                catalog.finish_scan(A, &known, DIRECTORY, true).unwrap();
                let snapshot = catalog.snapshot();
                let mut paths: Vec<_> = snapshot
                    .rows
                    .iter()
                    .map(|row| String::from_utf8_lossy(row.path()).into_owned())
                    .collect();
                paths.sort_unstable();
                let scanned = format!("/a/{scan}");
                let mut expected = vec!["/a/more", "/a/most", &scanned, "/b/first"];
                expected.sort_unstable();
                assert_eq!(paths, expected);
            }
        }
    }

    #[test]
    fn a_damaged_database_is_set_aside_once() {
        const THREADS: usize = 8;
        // Which thread is first is chance.
        for _ in 0..20 {
            let directory = tempfile::tempdir().unwrap();
            let at = |name: &str| directory.path().join(name);
            let catalog = two_roots(&at("catalog.sqlite"));
            catalog.failed(catalog.known(A).unwrap().store(), &no_space());
            // Nothing of it is in the log either.
            std::fs::remove_file(at("catalog.sqlite-wal")).unwrap();
            std::fs::write(at("catalog.sqlite"), [b'x'; 8192]).unwrap();
            let begin = Barrier::new(THREADS);
            let recover = || begin.wait().is_leader() | catalog.recover();
            std::thread::scope(|scope| {
                (0..THREADS).for_each(|_| drop(scope.spawn(recover)));
            });
            assert_eq!(catalog.condition(), Condition::Ok);
            let names = std::fs::read_dir(directory.path()).unwrap();
            let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let aside: Vec<_> = names.filter(|name| name.contains("broken")).collect();
            assert_eq!(aside.len(), 1, "{aside:?}");
            let aside = std::fs::read(at(&aside[0])).unwrap();
            assert!(aside == [b'x'; 8192], "not a new one");
        }
    }

    #[test]
    fn what_an_earlier_trial_left_behind_hinders_no_later_one() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("catalog.sqlite");
        let catalog = two_roots(&file);
        catalog.failed(catalog.known(A).unwrap().store(), &no_space());
        let other = rusqlite::Connection::open(&file).unwrap();
        other.execute_batch("CREATE TABLE trial (data)").unwrap();
        assert!(catalog.recover());
        let left = "SELECT count(*) FROM sqlite_schema WHERE name = 'trial'";
        let left: i64 = other.query_row(left, [], |row| row.get(0)).unwrap();
        assert_eq!(left, 0);
    }

    /// Also where it is another database that the directories are looked for in.
    #[test]
    fn what_could_not_be_read_and_is_gone_makes_nothing_unavailable() {
        let change = |path: &str, kind| DirectoryChange {
            id: None,
            path: path.as_bytes().into(),
            kind,
        };
        let unreadable = |path| {
            let message = "Permission denied".to_owned();
            change(path, ChangeKind::Unreadable { message })
        };
        for replaced in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let catalog = two_roots(&directory.path().join("catalog.sqlite"));
            let known = catalog.known(A).unwrap();
            let scan = |known, changes| {
                catalog.apply(A, known, changes).unwrap();
                catalog.finish_scan(A, known, DIRECTORY, true).unwrap();
            };
            let hidden = ["first", "d", "d/e", "d-e", "stays"].map(unreadable);
            scan(&known, hidden.into());
            let unavailable = || catalog.snapshot().unavailable.len();
            assert_eq!(unavailable(), 5);
            let mut changes = image("first");
            if replaced {
                catalog.failed(known.store(), &no_space());
            } else {
                changes.extend(["first", "d", "d-e"].map(|path| change(path, ChangeKind::Gone)));
            }
            changes.push(unreadable("stays"));
            let known = catalog.known(A).unwrap();
            scan(&known, changes);
            assert_eq!(unavailable(), 1, "{replaced}");
            let snapshot = catalog.snapshot();
            let row = snapshot.get(b"/a/first").unwrap();
            assert_ne!(snapshot.status_of(row), Status::Unavailable, "{replaced}");
        }
    }

    #[test]
    fn nobody_who_reads_waits_for_a_locked_database() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("catalog.sqlite");
        let catalog = Arc::new(two_roots(&file));
        let known = catalog.known(A).unwrap();
        let image_number = catalog.snapshot().rows[0].id();
        // Of a directory that is known, something is read before anything is written.
        let mut changes = image("second");
        changes[0].id = Some(known.next_directories().unwrap()[0].id);
        let other = rusqlite::Connection::open(&file).unwrap();
        other
            .execute_batch("BEGIN IMMEDIATE; CREATE TABLE other (data)")
            .unwrap();
        std::thread::scope(|scope| {
            let applied = scope.spawn(|| catalog.apply(A, &known, changes));
            while catalog.writing.try_lock().is_ok() {
                std::thread::yield_now();
            }
            // The writer waits for some seconds before it takes the database for broken.
            let generation = catalog.snapshot().generation;
            assert!(catalog.snapshot_of(generation + 1).is_none());
            assert!(catalog.details(image_number).is_ok());
            assert_eq!(catalog.condition(), Condition::Ok);
            assert!(!applied.is_finished());
            other.execute_batch("COMMIT").unwrap();
            assert!(applied.join().unwrap().is_ok());
        });
    }
}
