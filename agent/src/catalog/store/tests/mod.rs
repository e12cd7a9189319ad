//! What only the database itself can be asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::batch::{IDS_BELOW, ids_below};
use super::{Store, StoreError};
use crate::catalog::change::{ChangeKind, DirectoryChange};
use crate::catalog::entry::{Content, Found, Prepared};
use crate::catalog::facts::{FileFacts, FileTime, Identity, RootDirectory};
use crate::catalog::kept::{Commons, KeptRow};
use crate::catalog::packed::Packed;
use crate::catalog::prepare::Preparation;
use crate::catalog::row::Row;
use crate::catalog::snapshot::Snapshot;
use crate::catalog::testing::{cut_image, full_row, row};

mod damage;
mod known;
mod migrations;
mod sandbox;

const IDENTITY: Identity = Identity {
    inode: 7,
    size: 0,
    modified: FileTime(1),
    changed: FileTime(2),
};

fn found(name: &str, content: Content) -> Found {
    Found {
        name: name.as_bytes().into(),
        facts: FileFacts {
            inode: 11,
            size: 12,
            accessed: FileTime(13),
            ..FileFacts::default()
        },
        volatile: false,
        content,
    }
}

fn image() -> Content {
    Content::Image(Box::new(cut_image()))
}

/// Thousands of directories may go at once, and be among hundreds of thousands.
#[test]
fn what_lies_below_a_directory_is_found_without_a_look_at_others() {
    let store = Store::in_memory();
    let names: Vec<String> = (0..2000).map(|number| format!("d{number:04}")).collect();
    let children: Vec<&str> = names.iter().map(|name| &**name).collect();
    apply(&store, vec![read("", &children, Vec::new())]);
    let below = ["b", "c"].map(|name| format!("d0000/{name}"));
    let changes = [read("d0000", &["b", "c"], Vec::new())];
    let changes = changes
        .into_iter()
        .chain(below.iter().map(|path| read(path, &[], Vec::new())));
    apply(&store, changes.collect());
    store.index_paths().unwrap();
    let root = store.root(b"/r").unwrap().id;
    let reader = store.read();
    for (path, expected) in [("", 2002), ("d0000", 2), ("d0001", 0), ("d0000/b", 0)] {
        let found = ids_below(&reader, root, path.as_bytes()).unwrap();
        assert_eq!(found.len(), expected, "{path}");
    }
    let mut statement = reader.prepare(IDS_BELOW).unwrap();
    let range = rusqlite::params![root, b"d0000/", b"d00000"];
    let found = statement
        .query_map(range, |row| row.get::<_, i64>(0))
        .unwrap();
    assert_eq!(found.count(), 2);
    let steps = statement.get_status(rusqlite::StatementStatus::VmStep);
    assert!(steps < 100, "{steps} steps");
}

fn read(path: &str, children: &[&str], found: Vec<Found>) -> DirectoryChange {
    DirectoryChange {
        id: None,
        path: path.as_bytes().into(),
        kind: ChangeKind::Read {
            identity: IDENTITY,
            volatile: false,
            children: children.iter().map(|name| name.as_bytes().into()).collect(),
            found,
            removed: Vec::new(),
        },
    }
}

fn change(path: &str, kind: ChangeKind) -> DirectoryChange {
    DirectoryChange {
        id: None,
        path: path.as_bytes().into(),
        kind,
    }
}

fn preparation() -> Preparation {
    Preparation {
        root_path: b"/r"[..].into(),
        root_text: "/r".into(),
        commons: Arc::default(),
    }
}

/// Applies changes to the root `/r`; gives what was added and removed.
fn apply(store: &Store, changes: Vec<DirectoryChange>) -> (usize, usize) {
    let root = store.root(b"/r").unwrap().id;
    let delta = store.apply(root, &preparation(), changes).unwrap();
    (delta.upserts.len(), delta.removed.len())
}

/// Paths and times of access of the images as they are loaded at the next start.
fn listed(store: &Store) -> Vec<(String, i64)> {
    let root = store.root(b"/r").unwrap().id;
    let delta = store.load(root, &preparation()).unwrap().listing;
    let mut listed: Vec<_> = delta
        .upserts
        .iter()
        .map(|row| {
            let path = String::from_utf8_lossy(row.path()).into_owned();
            (path, row.view().facts.accessed.0)
        })
        .collect();
    listed.sort();
    listed
}

#[test]
fn a_listing_is_the_same_however_many_threads_read_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("catalog.sqlite")).unwrap();
    let names = (0..41).map(|number| format!("{number}.sif"));
    let found = names.map(|name| found(&name, image())).collect();
    apply(&store, vec![read("", &[], found)]);
    let root = store.root(b"/r").unwrap().id;
    let ids = |share| {
        let delta = store.load_shared(root, &preparation(), share).unwrap();
        let ids = delta.listing.upserts.iter().map(|row| row.id());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(ids(i64::MAX), (1..=41).collect::<Vec<_>>());
    assert_eq!(ids(5), ids(i64::MAX));
    assert_eq!(ids(21), ids(i64::MAX));
}

/// What is found where a file `name` of the root `/r` is the image of a row.
fn prepared(name: &str, row: &Row<'_>) -> Found {
    let mut row = row.clone();
    let path = format!("/r/{name}");
    (row.path, row.root) = (path.as_bytes(), "/r");
    let content = Content::Prepared(Box::new(Prepared {
        row: preparation().keep(&row),
        details: Packed::new(b""),
    }));
    Found {
        name: name.as_bytes().into(),
        facts: row.facts,
        volatile: false,
        content,
    }
}

#[test]
fn what_is_stored_of_an_image_is_what_is_listed() {
    let store = Arc::new(Store::in_memory());
    let rows = [
        ("a.sif", full_row()),
        ("b.sif", row(0, "", "b", "1")),
        ("c.sif", full_row()),
    ];
    let found = rows.iter().map(|(name, row)| prepared(name, row));
    apply(&store, vec![read("", &[], found.collect())]);
    let root = store.root(b"/r").unwrap().id;
    let known = store.known(root, &"/r".into(), Arc::new(Snapshot::default()));
    let known = known.unwrap();
    let loaded = store.load(root, &preparation()).unwrap().listing.upserts;
    assert_eq!(loaded.len(), rows.len());
    for ((loaded, (name, row)), id) in loaded.iter().zip(&rows).zip(1..) {
        let path = format!("/r/{name}");
        let expected = Row {
            id,
            path: path.as_bytes(),
            root: "/r",
            ..row.clone()
        };
        assert_eq!(loaded.view(), expected);
        let known = known.image(id).unwrap().unwrap();
        let expected = Row {
            path: b"",
            root: "",
            ..expected
        };
        assert_eq!(known.row.view(), expected);
    }
}

#[test]
fn what_images_have_in_common_is_stored_once_and_goes_with_the_last_of_them() {
    const MANY: u32 = 2000;
    let store = Store::in_memory();
    let commons = || -> u32 {
        let sql = "SELECT count(*) FROM commons";
        let connection = &store.write().connection;
        connection.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    let root = store.root(b"/r").unwrap().id;
    let finish = || {
        let directory = RootDirectory {
            device: 1,
            inode: 2,
            born: None,
        };
        let finished = store.finish_scan(root, directory, FileTime(1), true);
        finished.unwrap();
    };
    // Images of so many modes in a directory.
    let add = |directory: &str, modes: u32| {
        let found = (0..modes).map(|mode| {
            let mut row = full_row();
            row.facts.mode = mode;
            prepared(&format!("{mode}.sif"), &row)
        });
        apply(&store, vec![read(directory, &[], found.collect())]);
    };
    let remove = |directory: &str| {
        let gone = DirectoryChange {
            id: None,
            path: directory.as_bytes().into(),
            kind: ChangeKind::Gone,
        };
        apply(&store, vec![gone]);
    };
    add("a", 3);
    add("b", 3);
    assert_eq!(commons(), 3);
    add("c", MANY);
    finish();
    assert_eq!(commons(), MANY, "all are in use");
    remove("c");
    finish();
    assert_eq!(commons(), MANY, "looked for when there are twice as many");
    add("d", 2 * MANY);
    remove("d");
    finish();
    assert_eq!(commons(), 3);
    assert_eq!(listed(&store).len(), 6);
}

#[test]
fn a_name_that_a_directory_gives_twice_is_one_image() {
    let store = Store::in_memory();
    let twice = vec![found("a.sif", image()), found("a.sif", image())];
    assert_eq!(apply(&store, vec![read("", &[], twice)]), (2, 1));
    assert_eq!(listed(&store), [("/r/a.sif".to_owned(), 13)]);
}

/// What a scan that begins now would know: paths, whether they are read again, and numbers of files.
fn known(store: &Arc<Store>) -> Vec<(String, bool, usize)> {
    let root = store.root(b"/r").unwrap().id;
    let known = store.known(root, &"/r".into(), Arc::new(Snapshot::default()));
    let directories = known.unwrap().next_directories().unwrap();
    let known = directories.into_iter().map(|known| {
        let path = String::from_utf8_lossy(&known.path).into_owned();
        (path, known.volatile, known.files.len())
    });
    let mut known: Vec<_> = known.collect();
    known.sort();
    known
}

fn has_index(store: &Store) -> bool {
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'directories_by_path')";
    let connection = &store.write().connection;
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn a_directory_named_in_one_batch_and_read_in_another_is_one_directory() {
    let store = Arc::new(Store::in_memory());
    apply(&store, vec![read("", &["d"], Vec::new())]);
    assert_eq!(
        known(&store),
        [(String::new(), false, 0), ("d".to_owned(), true, 0)]
    );
    apply(&store, vec![read("d", &[], vec![found("a.sif", image())])]);
    assert_eq!(
        known(&store),
        [(String::new(), false, 0), ("d".to_owned(), false, 1)]
    );
    assert_eq!(listed(&store), [("/r/d/a.sif".to_owned(), 13)]);
}

#[test]
fn a_directory_is_one_in_whatever_order_it_is_named_and_read() {
    let root = || read("", &["d"], Vec::new());
    let file = || vec![found("a.sif", image())];
    let d = || read("d", &["e"], file());
    let e = || read("d/e", &[], Vec::new());
    let part = || change("d", ChangeKind::Part { found: file() });
    let rest = || read("d", &["e"], Vec::new());
    let message = || "no".to_owned();
    let unreadable = || change("d/e", ChangeKind::Unreadable { message: message() });
    let cases = [
        (
            "as they are found",
            vec![vec![root()], vec![d()], vec![e()]],
        ),
        ("in one batch", vec![vec![root(), d(), e()]]),
        ("children first", vec![vec![e()], vec![d()], vec![root()]]),
        ("children first in one batch", vec![vec![e(), d(), root()]]),
        ("child between", vec![vec![root(), e()], vec![d()]]),
        (
            "in parts",
            vec![vec![root(), part()], vec![e()], vec![rest()]],
        ),
        (
            "part first",
            vec![vec![part()], vec![e(), rest()], vec![root()]],
        ),
        (
            "part and rest",
            vec![vec![part(), rest(), e()], vec![root()]],
        ),
        ("unreadable", vec![vec![root(), d()], vec![unreadable()]]),
        (
            "unreadable first",
            vec![vec![unreadable()], vec![d(), root()]],
        ),
    ];
    for (name, batches) in cases {
        for is_first_scan in [true, false] {
            let store = Arc::new(Store::in_memory());
            if is_first_scan {
                assert_eq!(known(&store), []);
            }
            for batch in batches.clone() {
                apply(&store, batch);
                assert_eq!(has_index(&store), !is_first_scan, "{name}");
            }
            let root = store.root(b"/r").unwrap().id;
            store.index_paths().unwrap();
            let directory = RootDirectory {
                device: 1,
                inode: 2,
                born: None,
            };
            store
                .finish_scan(root, directory, FileTime(3), true)
                .unwrap();
            assert!(has_index(&store), "{name}");
            let last_is_read = !name.starts_with("unreadable");
            let expected = [("", false, 0), ("d", false, 1), ("d/e", !last_is_read, 0)];
            let expected = expected.map(|(path, again, files)| (path.to_owned(), again, files));
            assert_eq!(known(&store), expected, "{name}");
            assert_eq!(listed(&store).len(), 1, "{name}");
        }
    }
}

#[test]
fn what_is_known_is_indexed_by_path_also_after_a_first_scan_that_was_broken_off() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalog.sqlite");
    let open = || Arc::new(Store::open(&path).unwrap());
    let store = open();
    assert_eq!(known(&store), []);
    assert!(!has_index(&store));
    apply(&store, vec![read("", &["d"], Vec::new())]);
    let half = known(&store);
    assert!(has_index(&store), "the scan that began anew");
    store
        .write()
        .connection
        .execute_batch("DROP INDEX directories_by_path")
        .unwrap();
    drop(store);
    let store = open();
    assert!(has_index(&store), "the start");
    assert_eq!(known(&store), half);
    // Another root's first scan leaves it as it is.
    let other = store.root(b"/other").unwrap().id;
    drop(store.known(other, &"/other".into(), Arc::new(Snapshot::default())));
    assert!(has_index(&store));
}

#[test]
fn images_are_found_by_their_inodes_whether_few_or_many_are_asked_for() {
    let mut commons = Commons::default();
    let rows = (0..20).map(|number| {
        let path = format!("/r/{number}");
        let mut row = row(number, &path, "a", "1");
        row.root = if number % 4 == 3 { "/other" } else { "/r" };
        row.facts.inode = 100 + number.cast_unsigned() / 2;
        Arc::new(KeptRow::new(&row, &mut commons))
    });
    let (listing, _) = Snapshot::default().next(rows.collect(), &[], BTreeMap::new(), None);
    let store = Arc::new(Store::in_memory());
    let known = store.known(0, &"/r".into(), Arc::new(listing)).unwrap();
    // Once by search and once by index, and the other way round.
    for inode in (98..112).chain((98..112).rev()) {
        let found = known.images_with_inode(inode);
        let mut ids: Vec<_> = found.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        let expected = (0..20).filter(|number| 100 + number / 2 == inode && number % 4 != 3);
        let expected: Vec<_> = expected.map(u64::cast_signed).collect();
        assert_eq!(ids, expected, "inode {inode}");
        assert!(found.iter().all(|(_, identity)| identity.inode == inode));
    }
}

#[test]
fn directories_that_are_stored_twice_are_damage() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalog.sqlite");
    let store = Store::open(&path).unwrap();
    store
        .write()
        .connection
        .execute_batch(
            "DROP INDEX directories_by_path;
             INSERT INTO directories (id, root, path, volatile) VALUES (5, 1, x'', 0), (6, 1, x'', 0);",
        )
        .unwrap();
    drop(store);
    assert!(Store::open(&path).unwrap_err().is_damage());
}

#[test]
fn a_directory_that_comes_in_parts_is_one_and_read_again_until_its_end_came() {
    let store = Arc::new(Store::in_memory());
    let root = store.root(b"/r").unwrap().id;
    let part = |name: &str| DirectoryChange {
        id: None,
        path: b"d"[..].into(),
        kind: ChangeKind::Part {
            found: vec![found(name, image())],
        },
    };
    let known = || {
        let known = store.known(root, &"/r".into(), Arc::new(Snapshot::default()));
        let mut directories = known.unwrap().next_directories().unwrap();
        assert_eq!(directories.len(), 1);
        let directory = directories.remove(0);
        (directory.id, directory.volatile, directory.files.len())
    };
    apply(&store, vec![part("a.sif")]);
    apply(&store, vec![part("b.sif")]);
    let (id, volatile, files) = known();
    assert_eq!((volatile, files), (true, 2));
    // That was as if another scan had begun: nothing of the first one is taken for new.
    apply(&store, vec![part("b.sif"), part("c.sif")]);
    apply(&store, vec![read("d", &[], vec![found("d.sif", image())])]);
    assert_eq!(known(), (id, false, 4));
    assert_eq!(listed(&store).len(), 4);
}

#[test]
fn a_file_that_can_only_be_read_is_not_taken_for_a_catalogue() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalog.sqlite");
    drop(Store::open(&path).unwrap());
    let mode = |path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
    mode(directory.path(), 0o755).unwrap();
    mode(&path, 0o444).unwrap();
    // As somebody else, in a thread that is thrown away: root may write whatever the mode says.
    let opened = std::thread::spawn(move || {
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65_534));
        Store::open(&path).map(drop)
    });
    let error = opened.join().unwrap().unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
    assert!(!error.is_damage());
    assert!(error.to_string().contains("cannot be written"), "{error}");
}

#[test]
fn other_settings_count_when_everything_was_read_so() {
    let store = Store::in_memory();
    let root = store.root(b"/r").unwrap().id;
    let begin = |settings| store.begin_settings(root, settings).unwrap();
    assert!(begin("one"), "a first scan");
    assert!(!begin("one"), "which broke off");
    assert!(begin("two"));
    assert!(begin("two"), "a crash");
    assert!(begin("one"), "and back");
    store.set_settings(root, "one").unwrap();
    assert!(!begin("one"));
}

#[test]
fn what_could_not_be_read_so_is_looked_at_again() {
    let store = Arc::new(Store::in_memory());
    let paths = ["a", "a-x", "a/b", "a/b/c", "a0", "d", "\u{e9}", "\u{e9}/f"];
    let changes = paths.map(|path| read(path, &[], vec![found("a.sif", image())]));
    apply(&store, changes.into());
    let unreadable = |path| {
        let message = "away".to_owned();
        change(path, ChangeKind::Unreadable { message })
    };
    apply(&store, vec![unreadable("a"), unreadable("\u{e9}")]);
    let root = store.root(b"/r").unwrap().id;
    store.set_settings(root, "other").unwrap();
    let known = store.known(root, &"/r".into(), Arc::default()).unwrap();
    let again = known.next_directories().unwrap().into_iter();
    let again = again.filter(|known| {
        assert_eq!(known.volatile, known.files[0].volatile);
        known.volatile
    });
    let again: Vec<_> = again
        .map(|known| String::from_utf8(known.path.into()).unwrap())
        .collect();
    assert_eq!(again, ["a", "a/b", "a/b/c", "\u{e9}", "\u{e9}/f"]);
}
