//! Directories that become sandboxes, whose inside is nobody's.

use std::sync::Arc;

use super::{apply, found, image, known, listed, read};
use crate::catalog::change::{ChangeKind, DirectoryChange};
use crate::catalog::snapshot::Snapshot;
use crate::catalog::store::Store;

/// The directories `p` and `p/sub`, with an image, and their numbers.
fn known_directories(store: &Arc<Store>) -> (i64, i64) {
    apply(store, vec![read("", &["p"], Vec::new())]);
    apply(store, vec![read("p", &["sub"], Vec::new())]);
    apply(
        store,
        vec![read("p/sub", &[], vec![found("a.sif", image())])],
    );
    let root = store.root(b"/r").unwrap().id;
    let known = store.known(root, &"/r".into(), Arc::new(Snapshot::default()));
    let known = known.unwrap().next_directories().unwrap();
    let id = |path: &[u8]| known.iter().find(|known| *known.path == *path).unwrap().id;
    (id(b"p"), id(b"p/sub"))
}

/// What a scan says of a directory that was known under a number.
fn of_known(id: i64, change: DirectoryChange) -> DirectoryChange {
    DirectoryChange {
        id: Some(id),
        ..change
    }
}

#[test]
fn what_lies_below_a_directory_that_became_a_sandbox_is_not_stored() {
    let store = Arc::new(Store::in_memory());
    let file = |name| vec![found(name, image())];
    let (p, sub) = known_directories(&store);
    apply(&store, vec![of_known(p, read("p", &[], file("")))]);
    assert_eq!(listed(&store), [("/r/p".to_owned(), 13)]);
    // What was still under way for what was known before.
    for kind in [
        ChangeKind::Part {
            found: file("b.sif"),
        },
        ChangeKind::Files {
            found: file("c.sif"),
            removed: Vec::new(),
        },
        ChangeKind::Unreadable {
            message: "denied".to_owned(),
        },
        read("", &["deeper"], file("d.sif")).kind,
    ] {
        let change = DirectoryChange {
            id: Some(sub),
            path: b"p/sub"[..].into(),
            kind,
        };
        apply(&store, vec![change]);
        assert_eq!(listed(&store), [("/r/p".to_owned(), 13)]);
    }
}

/// The scan comes to `p/sub` by what is known of it, and to what is new there from it.
#[test]
fn what_is_new_below_a_directory_that_becomes_a_sandbox_is_not_stored() {
    for order in [
        [0, 1, 2, 3],
        [1, 0, 2, 3],
        [1, 2, 0, 3],
        [1, 2, 3, 0],
        [2, 0, 1, 3],
        [3, 2, 0, 1],
        [0, 3, 2, 1],
    ] {
        for per_batch in [1, 2, 4] {
            let store = Arc::new(Store::in_memory());
            let file = |name| vec![found(name, image())];
            let (p, sub) = known_directories(&store);
            let changes = [
                of_known(p, read("p", &[], file(""))),
                of_known(sub, read("p/sub", &["new"], Vec::new())),
                read("p/sub/new", &["newer"], file("b.sif")),
                read("p/sub/new/newer", &[], file("c.sif")),
            ];
            let changes = order.map(|index| changes[index].clone());
            for batch in changes.chunks(per_batch) {
                apply(&store, batch.to_vec());
            }
            let is = (listed(&store), known(&store));
            let expected = [(String::new(), false, 0), ("p".to_owned(), false, 1)];
            let listed = vec![("/r/p".to_owned(), 13)];
            assert_eq!(is, (listed, expected.into()), "{order:?} {per_batch}");
        }
    }
}
