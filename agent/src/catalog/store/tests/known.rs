//! What a scan is told of a root, and what it tells of directories.

use std::sync::Arc;

use rusqlite::StatementStatus;

use super::{apply, change, found, image, preparation, read};
use crate::catalog::change::{ChangeKind, DirectoryChange};
use crate::catalog::snapshot::Snapshot;
use crate::catalog::store::{Reach, Store};

#[test]
fn children_are_those_of_the_directory_and_all_of_them() {
    let store = Arc::new(Store::in_memory());
    // In the order of their paths, what lies below `a` is between `a-x` and `a0`.
    let paths = ["a", "a-x", "a/d", "a/d/e", "a/d/e/f", "a/g", "a0", "b"];
    let changes = paths.map(|path| read(path, &[], Vec::new()));
    apply(&store, changes.into());
    // Of a directory that is known by what lies in it alone.
    apply(&store, vec![read("c/h", &[], Vec::new())]);
    // Another root's are not this one's.
    let other = store.root(b"/other").unwrap().id;
    let changes = vec![read("a/other", &[], Vec::new())];
    store.apply(other, &preparation(), changes).unwrap();
    let root = store.root(b"/r").unwrap().id;
    let known = store.known(root, &"/r".into(), Arc::new(Snapshot::default()));
    let known = known.unwrap();
    for (path, expected) in [
        ("", &["a", "a-x", "a0", "b"][..]),
        ("a", &["d", "g"]),
        ("a/d", &["e"]),
        ("a-x", &[]),
        ("b", &[]),
        ("c", &["h"]),
        ("d", &[]),
    ] {
        let children = known.children(path.as_bytes()).unwrap();
        let expected: Vec<_> = expected.iter().map(|name| name.as_bytes().into()).collect();
        assert_eq!(children, expected, "{path:?}");
    }
}

#[test]
fn a_range_is_asked_for_without_compiling_the_statement_again() {
    let directory = tempfile::tempdir().unwrap();
    let on_disk = Store::open(&directory.path().join("catalog.sqlite")).unwrap();
    for store in [Store::in_memory(), on_disk] {
        let connection = store.read();
        let sql =
            "SELECT path FROM directories WHERE root = ?1 AND path >= ?2 ORDER BY path LIMIT 1";
        let mut range = connection.prepare(sql).unwrap();
        for from in ["a", "b", "c"] {
            assert!(!range.exists((1, from.as_bytes())).unwrap());
        }
        assert_eq!(range.get_status(StatementStatus::RePrepare), 0);
    }
}

#[test]
fn images_are_known_in_a_directory_and_below_it() {
    let store = Arc::new(Store::in_memory());
    let images = |path| read(path, &[], vec![found("a.sif", image())]);
    let changes = vec![images("a/b"), read("c", &[], Vec::new()), images("d")];
    apply(&store, changes);
    let other = store.root(b"/other").unwrap().id;
    store
        .apply(other, &preparation(), vec![images("c")])
        .unwrap();
    let root = store.root(b"/r").unwrap().id;
    for (path, expected) in [
        ("a", true),
        ("a/b", true),
        ("a/b/c", false),
        ("c", false),
        ("d", true),
        ("", false),
        ("A", false),
    ] {
        let any = store.has_images_below(root, path.as_bytes()).unwrap();
        assert_eq!(any, expected, "{path:?}");
    }
}

#[test]
fn an_image_is_looked_at_again_unless_its_file_says_that_it_need_not_be() {
    for (file, expected) in [
        ("UPDATE files SET volatile = 0", false),
        ("UPDATE files SET volatile = 1", true),
        ("UPDATE files SET name = x'62'", true),
        ("DELETE FROM files", true),
    ] {
        let store = Arc::new(Store::in_memory());
        apply(&store, vec![read("", &[], vec![found("a.sif", image())])]);
        store.write().connection.execute_batch(file).unwrap();
        let root = store.root(b"/r").unwrap().id;
        let known = store.known(root, &"/r".into(), Arc::new(Snapshot::default()));
        let image = known.unwrap().image(1).unwrap().unwrap();
        assert_eq!(image.volatile, expected, "{file}");
    }
}

#[test]
fn a_directory_that_could_not_be_read_is_read_again() {
    let store = Arc::new(Store::in_memory());
    let root = store.root(b"/r").unwrap().id;
    let d = || read("d", &[], vec![found("a.sif", image())]);
    let known = |some: bool| {
        let (text, listing) = ("/r".into(), Arc::new(Snapshot::default()));
        let known = if some {
            store.known_some(root, &text, listing, vec![b"d"[..].into()])
        } else {
            store.known(root, &text, listing)
        };
        let mut known = known.unwrap().next_directories().unwrap();
        known.pop().unwrap()
    };
    apply(&store, vec![read("", &["d"], Vec::new()), d()]);
    let id = known(false).id;
    // As a scan says it of what was known to it, and of what was not.
    for id in [Some(id), None] {
        let message = "denied".to_owned();
        let kind = ChangeKind::Unreadable { message };
        let unreadable = DirectoryChange {
            id,
            ..change("d", kind)
        };
        for (said, again) in [(unreadable, true), (d(), false)] {
            apply(&store, vec![said]);
            for some in [false, true] {
                let known = known(some);
                let is = (&*known.path, known.volatile, known.files.len());
                assert_eq!(is, (&b"d"[..], again, 1), "{id:?} {some}");
            }
        }
    }
}

#[test]
fn what_became_of_every_directory_is_told() {
    let store = Arc::new(Store::in_memory());
    let root = store.root(b"/r").unwrap().id;
    let message = || "denied".to_owned();
    let unreadable = |path| change(path, ChangeKind::Unreadable { message: message() });
    let file = |name| vec![found(name, image())];
    for (told, expected) in [
        (read("", &["d"], Vec::new()), ("", Reach::Readable)),
        (unreadable("d"), ("d", Reach::Unreadable(message()))),
        (read("d", &[], file("a.sif")), ("d", Reach::Readable)),
        (unreadable(""), ("", Reach::Unreadable(message()))),
        (read("", &["d"], Vec::new()), ("", Reach::Readable)),
        // A sandbox: its inside is nobody's.
        (read("d", &[], file("")), ("d", Reach::Gone)),
        (change("d", ChangeKind::Gone), ("d", Reach::Gone)),
    ] {
        let what = format!("{told:?}");
        let delta = store.apply(root, &preparation(), vec![told]).unwrap();
        let (path, reach) = expected;
        assert_eq!(delta.reach, [(path.as_bytes().into(), reach)], "{what}");
    }
}
