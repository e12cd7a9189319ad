//! Digests, and passes over what is listed.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use super::{Access, CHUNK, PUBLISH_EVERY, Pace, RootIndex, Stop, Worker, is_at_rest, of};
use crate::catalog::testing::row;
use crate::catalog::{Catalog, Commons, FileFacts, FileTime, Identity, KeptRow, Row, Snapshot};
use crate::config::RootSettings;

fn worker(catalog: Catalog) -> Worker {
    Worker {
        catalog: Arc::new(catalog),
        settings: RootSettings::new("/".into()),
        index: RootIndex(0),
        root: "/".to_owned(),
        pace: Pace::new(1, 1, None),
        access: Access::new(true),
        stop: Arc::new(Stop::default()),
        failed: HashMap::new(),
        done: Vec::new(),
        published: Instant::now(),
    }
}

#[test]
fn an_image_that_makes_it_panic_has_no_digest_and_the_rest_is_read() {
    let kept = |id, path: &str| {
        let facts = FileFacts {
            size: 1,
            allocated: 1,
            ..FileFacts::default()
        };
        let row = Row {
            facts,
            ..row(id, path, "r", "1")
        };
        Arc::new(KeptRow::new(&row, &mut Commons::default()))
    };
    let no_directory = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml/a");
    let paths = ["/panics-when-read", no_directory, "/not/there"];
    let rows = paths.iter().zip(1..).map(|(path, id)| kept(id, path));
    let rows: Vec<_> = rows.collect();
    let mut worker = worker(Catalog::open(None, &["/".into()]));
    assert!(worker.pass(&snapshot(rows.clone())));
    let mut failed: Vec<_> = worker.failed.keys().copied().collect();
    failed.sort_unstable();
    assert_eq!(failed, [1, 2], "what is gone may come back any time");

    // Once their file system is known to be away, nothing is tried.
    worker.failed.clear();
    let unavailable = BTreeMap::from([(b"/".as_slice().into(), "gone".to_owned())]);
    let (away, _) = snapshot(rows).next(Vec::new(), &[], unavailable, None);
    worker.pass(&away);
    assert!(worker.failed.is_empty());
}

fn snapshot(rows: Vec<Arc<KeptRow>>) -> Snapshot {
    Snapshot::default().next(rows, &[], BTreeMap::new(), None).0
}

/// A pass may take days, and what is listed be another database's meanwhile, or as yet.
#[test]
fn nothing_is_read_of_which_no_digest_can_be_stored() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let file = crate::scan::open_file(path.as_ref()).unwrap();
    let kept = |id, path| {
        let facts = file.facts;
        // In the order of their numbers.
        let tag = format!("{id}");
        let row = Row {
            facts,
            ..row(id, path, "r", &tag)
        };
        Arc::new(KeptRow::new(&row, &mut Commons::default()))
    };
    let rows = snapshot(vec![kept(1, path), kept(2, "/panics-when-read")]);
    let mut worker = worker(Catalog::open(None, &["/".into()]));
    worker.published = worker.published.checked_sub(PUBLISH_EVERY).unwrap();
    assert!(!worker.pass(&rows));
    assert!(worker.failed.is_empty() && worker.done.is_empty());

    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().join("catalog.sqlite");
    worker.catalog = Arc::new(Catalog::open(Some(&at), &["/".into()]));
    std::fs::remove_file(&at).unwrap();
    worker.catalog.look_for_file();
    let rows = snapshot(vec![kept(2, "/panics-when-read")]);
    assert!(!worker.pass(&rows));
    assert!(worker.failed.is_empty());
}

#[test]
fn a_file_is_at_rest_whatever_time_was_given_to_it() {
    for (modified, changed, expected) in [
        (80, 80, true),
        (80, 97, false),
        (97, 97, false),
        // Set, to a time to come.
        (4_000_000_000, 80, true),
        (4_000_000_000, 97, false),
    ] {
        let identity = Identity {
            modified: FileTime::new(modified, 0),
            changed: FileTime::new(changed, 0),
            ..Identity::default()
        };
        let is = is_at_rest(&identity, FileTime::new(100, 0));
        assert_eq!(is, expected, "{modified} {changed}");
    }
}

#[test]
fn digests_are_those_of_sha256sum() {
    let directory = tempfile::tempdir().unwrap();
    for (length, expected) in [
        (
            0,
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ),
        (
            3,
            "9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0",
        ),
        (
            CHUNK + 1,
            "4a3f0c0c213adea174f9a3d4c13177315b588bdb2e9c1012d3d0bf0453ca0f6a",
        ),
    ] {
        let path = directory.path().join("file");
        std::fs::write(&path, vec![b'a'; length]).unwrap();
        let file = crate::scan::open_file(&path).unwrap();
        let mut read = 0;
        let digest = of(&file, |bytes| {
            read += bytes;
            true
        });
        assert_eq!(hex::encode(digest.unwrap().unwrap()), expected, "{length}");
        assert_eq!(read, length as u64);
    }
}

#[test]
fn a_file_that_shrinks_has_no_digest_and_one_that_grows_ends() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, vec![0; 10]).unwrap();
    let file = crate::scan::open_file(&path).unwrap();
    let mut writer = std::fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap();
    writer.write_all(&[1; 10]).unwrap();
    let grown = of(&file, |_| true).unwrap().unwrap();
    std::fs::write(&path, vec![0; 10]).unwrap();
    let whole = crate::scan::open_file(&path).unwrap();
    assert_eq!(of(&whole, |_| true).unwrap(), Some(grown));
    std::fs::write(&path, vec![0; 9]).unwrap();
    let error = of(&whole, |_| true).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(
        of(&crate::scan::open_file(&path).unwrap(), |_| false).unwrap(),
        None
    );
}
