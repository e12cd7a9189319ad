//! What is wrong with a database is never passed over.

use std::path::Path;

use rusqlite::Connection;

use super::*;
use crate::catalog::{Catalog, RootIndex};

/// A database with images in two directories.
fn stored(path: &Path) -> Store {
    let store = Store::open(path).unwrap();
    apply(
        &store,
        vec![
            read("", &["d"], vec![found("a.sif", image())]),
            read(
                "d",
                &[],
                vec![found("b.sif", image()), found("c.sif", image())],
            ),
        ],
    );
    store
}

/// Opens a catalogue on what is stored, as the next start does.
fn start(path: &Path) -> Catalog {
    Catalog::open(Some(path), &["/r".into()])
}

fn aside(directory: &Path) -> usize {
    let names = std::fs::read_dir(directory).unwrap();
    names
        .filter(|name| {
            let name = name.as_ref().unwrap().file_name();
            name.to_string_lossy().contains("broken-")
        })
        .count()
}

#[test]
fn a_listing_that_lacks_something_or_has_something_else_is_damage() {
    for damage in [
        "",
        // An image that says nothing of itself.
        "UPDATE images SET common = 4711 WHERE id = 2",
        // Images in no directory would be listed at paths that never were.
        "UPDATE images SET directory = 4711",
        "DELETE FROM directories WHERE path = x'64'",
        "DELETE FROM images WHERE id = 2",
        "UPDATE images SET root = root + 1 WHERE id = 2",
        "UPDATE images SET directory = 1 WHERE id = 2",
        "UPDATE images SET id = 4711 WHERE id = 2",
        "UPDATE files SET image = NULL WHERE image = 2",
        "UPDATE files SET directory = 1 WHERE image = 2",
        "UPDATE images SET repository = CAST(x'ff' AS TEXT) WHERE id = 2",
        "UPDATE images SET name = 'text' WHERE id = 2",
        "UPDATE images SET image_id = x'00' WHERE id = 2",
        "UPDATE images SET uuid = x'00' WHERE id = 2",
        "UPDATE images SET signatures = x'ff' WHERE id = 2",
        "UPDATE images SET facts = zeroblob(47) WHERE id = 2",
        "UPDATE images SET facts = zeroblob(56) WHERE id = 2",
        "UPDATE images SET update_time = 'late' WHERE id = 2",
        "UPDATE commons SET status = 4711",
        "UPDATE commons SET format = -1",
        "UPDATE commons SET uid = -1",
        "UPDATE commons SET arch = CAST(x'ff' AS TEXT)",
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalog.sqlite");
        drop(stored(&path));
        let other = Connection::open(&path).unwrap();
        other.execute_batch(damage).unwrap();
        drop(other);
        let catalog = start(&path);
        let expected = if damage.is_empty() { (3, 0) } else { (0, 1) };
        let seen = (catalog.snapshot().rows.len(), aside(directory.path()));
        assert_eq!(seen, expected, "{damage}");
        assert_eq!(
            catalog.condition(),
            crate::catalog::Condition::Ok,
            "{damage}: there is a new one"
        );
    }
}

#[test]
fn details_that_cannot_be_read_are_damage_and_those_of_another_database_are_not_empty() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalog.sqlite");
    drop(stored(&path));
    let other = Connection::open(&path).unwrap();
    other
        .execute("UPDATE images SET details = x'ff' WHERE id = 2", [])
        .unwrap();
    let catalog = start(&path);
    assert!(catalog.details(1).is_ok());
    assert!(catalog.details(4711).is_ok(), "it is gone, maybe");
    let error = catalog.details(2).unwrap_err();
    assert!(matches!(error, StoreError::Details(2)), "{error}");
    assert_eq!(aside(directory.path()), 1);
    assert!(catalog.take_wish() && !catalog.take_wish());
    assert_eq!(catalog.snapshot().rows.len(), 3, "the listing goes on");
    let error = catalog.details(1).unwrap_err();
    assert!(matches!(error, StoreError::Elsewhere(1)), "{error}");
    // Nor does a filter take a label that is not known for one that is not there.
    let query = crate::catalog::Query::parse("label!=key", "", FileTime(0)).unwrap();
    let selected = catalog.select(catalog.snapshot(), &query, 1, 0);
    assert!(matches!(selected, Err(StoreError::Elsewhere(_))));
}

#[test]
fn images_are_described_by_a_database_that_is_done_without() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalog.sqlite");
    drop(stored(&path));
    let catalog = start(&path);
    let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
    let full = StoreError::Sqlite(rusqlite::Error::SqliteFailure(full, None));
    let known = catalog.known(RootIndex(0)).unwrap();
    assert!(known.fail(full).contains("full"));
    let described = catalog.details(1).unwrap();
    catalog.note_failure(&known);
    assert_eq!(catalog.details(1).unwrap(), described);
    assert!(catalog.details(4711).is_err());
}

#[test]
fn what_is_gone_while_it_is_read_leaves_no_files_in_no_directory() {
    let store = Store::in_memory();
    let part = |path: &str, name: &str| DirectoryChange {
        id: None,
        path: path.as_bytes().into(),
        kind: ChangeKind::Part {
            found: vec![found(name, image())],
        },
    };
    let gone = |path: &str| DirectoryChange {
        id: None,
        path: path.as_bytes().into(),
        kind: ChangeKind::Gone,
    };
    apply(&store, vec![read("", &["d", "d2"], Vec::new())]);
    apply(
        &store,
        vec![part("d", "a"), part("d/e", "a"), part("d2", "a")],
    );
    apply(&store, vec![gone("d")]);
    // What was still under way.
    apply(
        &store,
        vec![part("d", "b"), part("d/e", "b"), part("d2", "b")],
    );
    let end = |path| read(path, &[], vec![found("c", image())]);
    apply(&store, vec![end("d"), end("d/e"), end("d2")]);
    let paths: Vec<String> = listed(&store).into_iter().map(|(path, _)| path).collect();
    let expected = [
        "/r/d/b", "/r/d/c", "/r/d/e/b", "/r/d/e/c", "/r/d2/a", "/r/d2/b", "/r/d2/c",
    ];
    assert_eq!(paths, expected);
}

/// Only the file's owner and the superuser may change it; and another process is writing it.
#[test]
fn a_database_that_cannot_be_written_at_start_is_read() {
    use std::os::unix::fs::PermissionsExt;

    type Hinder = fn(&Path) -> Option<Connection>;
    let hinders: [(&str, Hinder, &str); 2] = [
        (
            "another owner",
            |path| {
                let mode = |path, mode| {
                    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
                };
                mode(path.parent().unwrap(), 0o755);
                mode(path, 0o444);
                nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65_534));
                None
            },
            "Permission denied",
        ),
        (
            "another process",
            |path| {
                let other = Connection::open(path).unwrap();
                other.execute_batch("BEGIN IMMEDIATE").unwrap();
                Some(other)
            },
            "locked",
        ),
    ];
    for (what, hinder, message) in hinders {
        let directory = tempfile::tempdir().unwrap();
        // Characters that mean something in a URI.
        let path = directory.path().join("a#b%41?c.sqlite");
        let store = stored(&path);
        let (root, now) = (store.root(b"/r").unwrap().id, FileTime::now());
        let born_where = RootDirectory {
            device: 1,
            inode: 2,
            born: None,
        };
        store.finish_scan(root, born_where, now, true).unwrap();
        drop(store);
        // In a thread that is thrown away, and its permissions with it.
        let (catalog, _held) = {
            let path = path.clone();
            let started = std::thread::spawn(move || {
                let held = hinder(&path);
                (start(&path), held)
            });
            started.join().unwrap()
        };
        let snapshot = catalog.snapshot();
        assert_eq!(snapshot.rows.len(), 3, "{what}");
        assert_eq!(snapshot.as_of, Some(now), "{what}");
        let crate::catalog::Condition::Failed(failure) = catalog.condition() else {
            panic!("{what}: {:?}", catalog.condition());
        };
        assert!(failure.contains(message), "{what}: {failure}");
        for row in snapshot.rows.iter() {
            assert!(catalog.details(row.id()).is_ok(), "{what}");
        }
        assert!(catalog.awaits_scan(RootIndex(0)), "{what}");
        let stored = catalog.root(RootIndex(0)).unwrap();
        assert_eq!(stored.directory, Some(born_where), "{what}");
        // A scan in memory makes its own listing.
        let known = catalog.known(RootIndex(0)).unwrap();
        let changes = vec![read("", &[], vec![found("new.sif", image())])];
        catalog.apply(RootIndex(0), &known, changes).unwrap();
        catalog
            .finish_scan(RootIndex(0), &known, born_where, true)
            .unwrap();
        let snapshot = catalog.snapshot();
        assert_eq!(snapshot.rows.len(), 1, "{what}");
        let id = snapshot.rows.iter().next().unwrap().id();
        assert!(catalog.details(id).is_ok(), "{what}");
    }
}

#[test]
fn what_can_be_read_only_is_no_listing_if_it_lacks_something() {
    use std::os::unix::fs::PermissionsExt;

    for (damage, expected) in [
        ("", 3),
        ("DELETE FROM images WHERE id = 2", 0),
        // There is one that is not configured any more.
        ("INSERT INTO roots (path) VALUES (x'2f73')", 3),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalog.sqlite");
        drop(stored(&path));
        let other = Connection::open(&path).unwrap();
        other.execute_batch(damage).unwrap();
        drop(other);
        let mode = |path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(directory.path(), 0o755);
        mode(&path, 0o444);
        // In a thread that is thrown away, and its permissions with it.
        let started = std::thread::spawn(move || {
            nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65_534));
            start(&path)
        });
        let catalog = started.join().unwrap();
        let condition = catalog.condition();
        assert!(matches!(condition, crate::catalog::Condition::Failed(_)));
        assert_eq!(catalog.snapshot().rows.len(), expected, "{damage}");
    }
}
