//! Databases of earlier schema versions.

use std::sync::Arc;

use prost::Message as _;
use rusqlite::Connection;
use sifter_proto::v1;

use super::super::Store;
use super::super::load::UNREADABLE;
use super::super::schema::MIGRATIONS;
use super::{apply, found, image, listed, preparation, read};
use crate::catalog::entry::Content;
use crate::catalog::facts::{FileTime, Identity};
use crate::catalog::packed::Packed;
use crate::catalog::row::Row;
use crate::catalog::snapshot::Snapshot;
use crate::catalog::testing::{cut_image, full_row};

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
         VALUES (5, 1, x'', 7, 1, 2, 0), (6, 1, CAST('new' AS BLOB), 0, 0, 0, 1);
         INSERT INTO files VALUES (5, CAST('a.sif' AS BLOB), -11, 12, 3, -4, 0, 9);
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
    let identity = |inode: i64, size, modified, changed| Identity {
        inode: inode.cast_unsigned(),
        size,
        modified: FileTime(modified),
        changed: FileTime(changed),
    };
    let states: Vec<_> = directories
        .iter()
        .map(|directory| (&*directory.path, directory.identity, directory.volatile))
        .collect();
    let (known, named) = (identity(7, 0, 1, 2), Identity::default());
    assert_eq!(states, [(&b""[..], known, false), (b"new", named, true)]);
    let files: Vec<_> = directories[0]
        .files
        .iter()
        .map(|file| (&*file.name, file.image, file.identity, file.accessed.0))
        .collect();
    let (a, b) = (identity(-11, 12, 3, -4), identity(12, 12, 0, 0));
    assert_eq!(
        files,
        [(&b"a.sif"[..], Some(9), a, 13), (b"b.txt", None, b, 0)]
    );
    // Numbers go on where they were.
    let mut other = found("c.sif", image());
    other.facts.inode = 20;
    apply(&store, vec![read("d", &[], vec![other])]);
    assert_eq!(listed(&store).len(), 2);
}

#[test]
fn details_that_were_stored_before_they_were_compressed_are_shown() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalog.sqlite");
    let labels = |value: &str| v1::Image {
        labels: [("org.label-schema.build-arch".to_owned(), value.to_owned())].into(),
        ..v1::Image::default()
    };
    let old = Connection::open(&path).unwrap();
    for step in &MIGRATIONS[..3] {
        old.execute_batch(step).unwrap();
    }
    old.pragma_update(None, "user_version", 3).unwrap();
    old.execute_batch(
        "INSERT INTO images VALUES (9, 7, 5, CAST('a.sif' AS BLOB), 11, 12, 0, 0, 13, 0, 0, 0, 0, 1,
             NULL, NULL, 0, '01', 2, 'cut', 'a', 'latest', 5, '', 0, 2, NULL, '', '', '', '', 0,
             NULL, NULL);",
    )
    .unwrap();
    old.execute(
        "INSERT INTO details VALUES (9, ?1)",
        [labels("amd64").encode_to_vec()],
    )
    .unwrap();
    drop(old);
    let store = Arc::new(Store::open(&path).unwrap());
    assert_eq!(store.details(9).unwrap(), Some(labels("amd64")));
    assert_eq!(store.details(10).unwrap(), None);
    // And one that is compressed, to both who ask.
    let mut image = cut_image();
    image.labels = labels("arm64").labels.into_iter().collect();
    let image = Content::Image(Box::new(image));
    apply(&store, vec![read("", &[], vec![found("a.sif", image)])]);
    let root = store.root(b"/r").unwrap().id;
    let known = store.known(root, &"/r".into(), Arc::new(Snapshot::default()));
    let id = store.load(root, &preparation()).unwrap().listing.upserts[0].id();
    assert_eq!(store.details(id).unwrap(), Some(labels("arm64")));
    let known = known.unwrap().image(id).unwrap().unwrap();
    assert_eq!(known.details, labels("arm64"));
    let stored: (i64, i64) = store
        .write()
        .connection
        .query_row(
            "SELECT length(details), details_size FROM images WHERE id = ?1",
            [id],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    assert!(stored.0 < stored.1, "{stored:?}");
}

#[test]
fn a_catalogue_in_which_an_image_was_two_rows_keeps_all_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalog.sqlite");
    let old = Connection::open(&path).unwrap();
    for step in &MIGRATIONS[..5] {
        old.execute_batch(step).unwrap();
    }
    old.pragma_update(None, "user_version", 5).unwrap();
    let signatures = v1::Image {
        signatures: full_row().signatures.into_owned(),
        ..v1::Image::default()
    };
    let details = v1::Image {
        definition: "Bootstrap: docker".to_owned(),
        ..v1::Image::default()
    };
    let packed = Packed::new(&details.encode_to_vec());
    old.execute_batch(
        "INSERT INTO roots (id, path) VALUES (1, CAST('/r' AS BLOB));
         INSERT INTO directories (id, root, path, inode, modified, changed, volatile)
         VALUES (5, 1, x'', 7, 1, 2, 0);",
    )
    .unwrap();
    let images = [
        (9, "a.sif", "arm64"),
        (10, "b.sif", "amd64"),
        (11, "c.sif", "arm64"),
    ];
    for (id, name, arch) in images {
        old.execute(
            "INSERT INTO images VALUES (?1, 1, 5, CAST(?2 AS BLOB), -1, 2199023255552,
                 1700000002000000000, 1700000001000000000, 1700000003000000001, 4096,
                 4000000001, 4000000002, 2536, 3, ?3, x'123456789abcdef01122334455667788', 4, '01', 2,
                 ?4, 'quay.io/biocontainers/samtools', '1.9--0', 5, 'docker://ubuntu:22.04',
                 -1, 2, 1, ?5, 'ext3', 'zstd', 'spdx-json', 2, ?6, ?7)",
            rusqlite::params![
                id,
                name,
                [0xab_u8; 32],
                full_row().status_message,
                arch,
                signatures.encode_to_vec(),
                [0xcd_u8; 32]
            ],
        )
        .unwrap();
    }
    old.execute(
        "INSERT INTO details VALUES (9, ?1, ?2)",
        rusqlite::params![packed.data, packed.size],
    )
    .unwrap();
    drop(old);
    let store = Store::open(&path).unwrap();
    let loaded = store.load(1, &preparation()).unwrap().listing.upserts;
    assert_eq!(loaded.len(), images.len());
    for (loaded, (id, name, arch)) in loaded.iter().zip(images) {
        let path = format!("/r/{name}");
        let expected = Row {
            id,
            path: path.as_bytes(),
            root: "/r",
            arch,
            ..full_row()
        };
        assert_eq!(loaded.view(), expected);
    }
    assert_eq!(store.details(9).unwrap(), Some(details));
    assert_eq!(store.details(10).unwrap(), Some(v1::Image::default()));
}

#[test]
fn what_was_rewritten_takes_its_room_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalog.sqlite");
    let old = Connection::open(&path).unwrap();
    for step in &MIGRATIONS[..7] {
        old.execute_batch(step).unwrap();
    }
    old.pragma_update(None, "user_version", 7).unwrap();
    old.execute_batch(
        "INSERT INTO roots (id, path) VALUES (1, CAST('/r' AS BLOB));
         WITH RECURSIVE numbers (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers LIMIT 5000)
         INSERT INTO directories (root, path, inode, modified, changed, volatile)
         SELECT 1, CAST(printf('d%d', number) AS BLOB), number, 1, 2, 0 FROM numbers;",
    )
    .unwrap();
    drop(old);
    let before = std::fs::metadata(&path).unwrap().len();
    let store = Store::open(&path).unwrap();
    let pages = |of: &str| -> i64 {
        let pragma = format!("PRAGMA {of}_count");
        let writer = store.write();
        writer
            .connection
            .query_row(&pragma, [], |row| row.get(0))
            .unwrap()
    };
    assert!(pages("page") > 10);
    assert_eq!(pages("freelist"), 0);
    let mut log = path.clone().into_os_string();
    log.push("-wal");
    let log = std::fs::metadata(log).unwrap().len();
    assert!(log < before / 4, "{log} bytes of log, {before} before");
    drop(store);
    assert!(std::fs::metadata(&path).unwrap().len() < before * 3 / 2);
}

#[test]
fn a_start_does_not_go_through_all_directories() {
    let store = Store::in_memory();
    let plan: String = store
        .write()
        .connection
        .query_row(&format!("EXPLAIN QUERY PLAN {UNREADABLE}"), [1], |row| {
            row.get("detail")
        })
        .unwrap();
    assert_eq!(
        plan,
        "SEARCH directories USING INDEX directories_unreadable (root=?)"
    );
}

/// The tables and indices after all steps, as SQLite writes them, for whoever reads the database.
#[test]
fn the_present_schema_is_the_one_that_is_kept() {
    let store = Store::in_memory();
    let writer = store.write();
    let mut statement = writer
        .connection
        .prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type DESC, name")
        .unwrap();
    let schema: Vec<String> = statement
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    insta::assert_snapshot!(schema.join(";\n\n"));
}
