//! A database that fails under the listing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier, mpsc};
use std::time::{Duration, Instant};

use sifter_image::record::Status;

use crate::catalog::testing::images;
use crate::catalog::{
    Catalog, ChangeKind, Condition, DirectoryChange, RootDirectory, RootIndex, StoreError,
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

fn damaged() -> StoreError {
    let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    StoreError::Sqlite(rusqlite::Error::SqliteFailure(corrupt, None))
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

/// A reload opens the database for another catalogue while something of the first one may still hang.
#[test]
fn a_catalogue_that_was_replaced_leaves_the_database_to_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("catalog.sqlite");
    let former = two_roots(&file);
    let late = former.known(A).unwrap();
    former.retire();
    let next = Catalog::open(Some(&file), &["/a", "/b"].map(PathBuf::from));
    let known = next.known(A).unwrap();
    // Both give their new images the same numbers.
    let written = former.apply(A, &late, image("late"));
    assert!(matches!(written, Err(StoreError::Replaced)), "{written:?}");
    let begun = former.known(A);
    assert!(matches!(begun, Err(StoreError::Replaced)), "{begun:?}");
    let digests = former.set_content_digests(&[]);
    assert!(matches!(digests, Err(StoreError::Replaced)), "{digests:?}");
    former.failed(late.store(), &damaged());
    assert!(!former.recover());
    next.apply(A, &known, image("second")).unwrap();
    next.finish_scan(A, &known, DIRECTORY, true).unwrap();
    next.look_for_file();
    assert_eq!(next.condition(), Condition::Ok);
    assert_eq!(next.snapshot().rows.len(), 3);
    // What it listed can be read to its end.
    assert_eq!(former.snapshot().rows.len(), 2);
    assert!(former.details(former.snapshot().rows[0].id()).is_ok());
}

#[test]
fn a_database_whose_file_is_another_than_was_opened_is_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("catalog.sqlite");
    let catalog = two_roots(&file);
    catalog.look_for_file();
    assert_eq!(catalog.condition(), Condition::Ok);
    drop(catalog);
    // Nobody has looked since it was opened.
    let catalog = Catalog::open(Some(&file), &["/a", "/b"].map(PathBuf::from));
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, "").unwrap();
    catalog.look_for_file();
    let condition = catalog.condition();
    assert!(matches!(condition, Condition::Failed(_)), "{condition:?}");
    assert!(catalog.recover());
    assert_eq!(catalog.snapshot().rows.len(), 2);
    catalog.look_for_file();
    assert_eq!(catalog.condition(), Condition::Ok);
}

/// What is found would be stored under the number that a root has in another database.
#[test]
fn a_database_that_cannot_know_the_roots_is_not_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("catalog.sqlite");
    let catalog = two_roots(&file);
    catalog.failed(catalog.known(A).unwrap().store(), &no_space());
    let other = rusqlite::Connection::open(&file).unwrap();
    other
        .execute_batch(
            "CREATE TRIGGER hinders BEFORE INSERT ON roots
             BEGIN SELECT RAISE(ABORT, 'hindered'); END",
        )
        .unwrap();
    assert!(catalog.recover());
    let names = std::fs::read_dir(directory.path()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.contains("broken")).count(), 1);
    assert_eq!(catalog.condition(), Condition::Ok);
}

#[test]
fn why_there_can_be_no_database_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    for (state, expected) in [
        (directory.path().join("none"), "No such file or directory"),
        (file, "Not a directory"),
    ] {
        let catalog = Catalog::open(Some(&state.join("catalog.sqlite")), &[]);
        let Condition::Failed(said) = catalog.condition() else {
            panic!("{:?}", catalog.condition());
        };
        let expected = format!("{}: {expected}", state.display());
        assert!(said.contains(&expected), "{said}");
    }
}

/// Each attempt may last as long as another process holds the database locked.
#[test]
fn an_attempt_that_was_in_vain_is_one_for_all_who_waited_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = two_roots(&directory.path().join("catalog.sqlite"));
    catalog.failed(catalog.known(A).unwrap().store(), &no_space());
    let before = Instant::now();
    *catalog.mend() = Some(before + Duration::from_secs(3600));
    assert!(!catalog.recover(), "somebody has just tried");
    *catalog.mend() = Some(before);
    assert!(catalog.recover());
}

/// It is what fills the memory; the file that it stands in for is as good as it was.
#[test]
fn what_fails_in_memory_is_no_damage_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = two_roots(&directory.path().join("catalog.sqlite"));
    catalog.failed(catalog.known(A).unwrap().store(), &no_space());
    catalog.failed(catalog.known(A).unwrap().store(), &damaged());
    assert!(catalog.recover());
    let known = catalog.known(A).unwrap();
    assert!(known.has_root(), "it is the database of before");
}

/// Who asks would wait with it. What is there can be read meanwhile.
#[test]
fn a_start_does_not_wait_for_a_locked_database() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("catalog.sqlite");
    drop(two_roots(&file));
    let other = rusqlite::Connection::open(&file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (opened, is_open) = mpsc::channel::<()>();
    let locked = std::thread::spawn(move || {
        // Less than the patience of those for whom nobody waits.
        let _ = is_open.recv_timeout(Duration::from_secs(3));
        drop(other);
    });
    let catalog = Catalog::open(Some(&file), &["/a", "/b"].map(PathBuf::from));
    let condition = catalog.condition();
    assert!(matches!(condition, Condition::Failed(_)), "{condition:?}");
    assert_eq!(catalog.snapshot().rows.len(), 2);
    drop(opened);
    locked.join().unwrap();
    assert!(catalog.recover());
    assert_eq!(catalog.condition(), Condition::Ok);
}

/// An empty answer would be one: that the image has no labels, no definition and no objects.
#[test]
fn what_a_past_listing_has_is_not_known_where_another_database_was_begun() {
    for is_damage in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("catalog.sqlite");
        let catalog = two_roots(&file);
        let past = catalog.snapshot();
        let known = catalog.known(A).unwrap();
        if is_damage {
            catalog.failed(known.store(), &damaged());
        } else {
            std::fs::remove_file(&file).unwrap();
            catalog.look_for_file();
            assert!(catalog.recover());
        }
        for root in [A, B] {
            assert!(catalog.awaits_scan(root));
            let known = catalog.known(root).unwrap();
            let found = images(&["first", "second"]);
            catalog.apply(root, &known, found).unwrap();
            catalog.finish_scan(root, &known, DIRECTORY, true).unwrap();
        }
        for row in past.rows.iter() {
            let details = catalog.details(row.id());
            assert!(
                matches!(details, Err(StoreError::Elsewhere(_))),
                "{details:?}"
            );
        }
        let present = catalog.snapshot();
        for row in present.rows.iter() {
            assert!(catalog.details(row.id()).is_ok());
        }
        // What is gone from the present one has nothing to show.
        let known = catalog.known(A).unwrap();
        let mut changes = images(&[]);
        changes[0].id = Some(known.next_directories().unwrap()[0].id);
        if let ChangeKind::Read { removed, .. } = &mut changes[0].kind {
            removed.push(b"second".as_slice().into());
        }
        catalog.apply(A, &known, changes).unwrap();
        let gone = present.get(b"/a/second").unwrap().id();
        assert!(catalog.details(gone).is_ok());
    }
}

#[test]
fn a_catalogue_in_memory_goes_on_as_one() {
    let catalog = Catalog::open(None, &["/a"].map(PathBuf::from));
    let known = catalog.known(A).unwrap();
    catalog.failed(known.store(), &no_space());
    assert_eq!(catalog.condition(), Condition::Memory);
    let known = catalog.known(A).unwrap();
    catalog.apply(A, &known, image("first")).unwrap();
    catalog.finish_scan(A, &known, DIRECTORY, true).unwrap();
    assert_eq!(catalog.snapshot().rows.len(), 1);
}

/// What is known of the others is no less true for it.
#[test]
fn a_root_that_is_not_configured_any_more_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("catalog.sqlite");
    drop(two_roots(&file));
    for roots in [&["/b"][..], &["/a", "/b"]] {
        let roots: Vec<_> = roots.iter().map(PathBuf::from).collect();
        let catalog = Catalog::open(Some(&file), &roots);
        let snapshot = catalog.snapshot();
        let paths: Vec<_> = snapshot.rows.iter().map(|row| row.path()).collect();
        assert_eq!(paths, [b"/b/first"], "{roots:?}");
        for (index, root) in roots.iter().enumerate() {
            let is_known = root == Path::new("/b");
            let index = RootIndex(index);
            assert_eq!(catalog.root(index).unwrap().scanned.is_some(), is_known);
            assert_eq!(catalog.stores_images(index), is_known, "{}", root.display());
        }
    }
}

#[test]
fn images_are_described_by_the_former_database_until_all_roots_are_scanned() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = two_roots(&directory.path().join("catalog.sqlite"));
    let first = catalog.snapshot().get(b"/b/first").unwrap().id();
    let described = catalog.details(first).unwrap();
    catalog.failed(catalog.known(A).unwrap().store(), &no_space());
    for (root, is_held) in [(A, true), (B, false)] {
        let known = catalog.known(root).unwrap();
        catalog.apply(root, &known, image("first")).unwrap();
        catalog.finish_scan(root, &known, DIRECTORY, true).unwrap();
        assert_eq!(catalog.lock().former.is_some(), is_held);
        let details = catalog.details(first);
        assert_eq!(details.ok().as_ref(), is_held.then_some(&described));
        for row in catalog.snapshot().rows.iter() {
            assert!(catalog.details(row.id()).is_ok());
        }
    }
}
