//! What only the database itself can be asked.

use std::sync::Arc;

use rusqlite::Connection;

use super::{MIGRATIONS, Store};
use crate::catalog::change::{ChangeKind, DirectoryChange};
use crate::catalog::entry::{Content, FileFacts, FileTime, Found, Identity};
use crate::catalog::prepare::Preparation;
use crate::catalog::snapshot::Snapshot;

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

/// An image that is cut short.
fn image() -> Content {
    let header = [&[b'#'; 32][..], b"SIF_MAGIC\0", b"01\0", &[0; 100]].concat();
    let subject = sifter_image::Subject {
        path: std::path::Path::new("/r/a.sif"),
        modified: jiff::Timestamp::UNIX_EPOCH,
        now: jiff::Timestamp::UNIX_EPOCH,
    };
    match sifter_image::probe(
        &header.as_slice(),
        &subject,
        &sifter_image::Options::default(),
    ) {
        Ok(sifter_image::Verdict::Image(image)) => Content::Image(image),
        other => panic!("{other:?}"),
    }
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
    let delta = store.load(root, &preparation()).unwrap();
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
        let ids = delta.upserts.iter().map(|row| row.id());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(ids(i64::MAX), (1..=41).collect::<Vec<_>>());
    assert_eq!(ids(5), ids(i64::MAX));
    assert_eq!(ids(21), ids(i64::MAX));
}

#[test]
fn a_name_that_a_directory_gives_twice_is_one_image() {
    let store = Store::in_memory(0);
    let twice = vec![found("a.sif", image()), found("a.sif", image())];
    assert_eq!(apply(&store, vec![read("", &[], twice)]), (2, 1));
    assert_eq!(listed(&store), [("/r/a.sif".to_owned(), 13)]);
}

#[test]
fn a_directory_named_in_one_batch_and_read_in_another_is_one_directory() {
    let store = Arc::new(Store::in_memory(0));
    apply(&store, vec![read("", &["d"], Vec::new())]);
    let root = store.root(b"/r").unwrap().id;
    let known = |store: &Arc<Store>| {
        let known = store.known(root, &"/r".into(), Arc::new(Snapshot::default()));
        let directories = known.unwrap().next_directories().unwrap();
        let known = directories.into_iter().map(|known| {
            let path = String::from_utf8_lossy(&known.path).into_owned();
            (path, known.volatile, known.files.len())
        });
        known.collect::<Vec<_>>()
    };
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
fn a_directory_that_comes_in_parts_is_one_and_read_again_until_its_end_came() {
    let store = Arc::new(Store::in_memory(0));
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
fn a_catalogue_of_the_first_schema_version_keeps_its_listing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalog.sqlite");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(MIGRATIONS[0]).unwrap();
    old.execute_batch(
        "PRAGMA user_version = 1;
         INSERT INTO roots (id, path) VALUES (1, CAST('/r' AS BLOB));
         INSERT INTO directories (id, root, path, inode, modified, changed, volatile)
         VALUES (5, 1, x'', 7, 1, 2, 0);
         INSERT INTO files VALUES (5, CAST('a.sif' AS BLOB), 11, 12, 0, 0, 0, 9);
         INSERT INTO files VALUES (5, CAST('b.txt' AS BLOB), 12, 12, 0, 0, 0, NULL);
         INSERT INTO images VALUES (9, 1, 5, CAST('a.sif' AS BLOB), 11, 12, 0, 0, 13, 0, 0, 0, 0, 1,
             NULL, NULL, 0, '01', 2, 'cut', 'a', 'latest', 5, '', 0, 2, NULL, '', '', '', '', 0,
             NULL, NULL);",
    )
    .unwrap();
    drop(old);
    let store = Arc::new(Store::open(&path).unwrap());
    assert_eq!(listed(&store), [("/r/a.sif".to_owned(), 13)]);
    let known = store
        .known(1, &"/r".into(), Arc::new(Snapshot::default()))
        .unwrap();
    let directories = known.next_directories().unwrap();
    let files: Vec<_> = directories[0]
        .files
        .iter()
        .map(|file| (&*file.name, file.image, file.accessed.0))
        .collect();
    assert_eq!(files, [(&b"a.sif"[..], Some(9), 13), (b"b.txt", None, 0)]);
    // Numbers go on where they were.
    let mut other = found("c.sif", image());
    other.facts.inode = 20;
    apply(&store, vec![read("d", &[], vec![other])]);
    assert_eq!(listed(&store).len(), 2);
}
