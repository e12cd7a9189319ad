//! Roots without a scan, and scans that panic.

mod hung;
mod incremental;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use sifter_image::record::Status;

use super::{RootState, Supervisor};
use crate::catalog::{Catalog, RootIndex};
use crate::config::RootSettings;
use crate::scan::{Progress, Root, ScanError, ScanOptions};

/// Longest wait for what would else be waited for for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// The beginning of an image, which is enough to be listed.
fn write_image(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let header = [&[b'#'; 32][..], b"SIF_MAGIC\0", b"01\0", &[0; 100]].concat();
    fs::write(path, header).unwrap();
}

fn settings(path: &Path) -> RootSettings {
    let mut settings = RootSettings::new(path.into());
    settings.interval = Duration::from_secs(86_400);
    settings.hints = false;
    settings
}

/// A supervisor of these roots, all of which were scanned once, be it in vain.
fn start(roots: &[&Path]) -> (Arc<Catalog>, Arc<Supervisor>) {
    let paths: Vec<_> = roots.iter().map(|&path| path.to_owned()).collect();
    let catalog = Arc::new(Catalog::open(None, &paths));
    let settings = roots.iter().map(|path| settings(path)).collect();
    let supervisor = start_over(&catalog, settings);
    (catalog, supervisor)
}

/// The same over this catalogue.
fn start_over(catalog: &Arc<Catalog>, settings: Vec<RootSettings>) -> Arc<Supervisor> {
    let supervisor = Supervisor::start(Arc::clone(catalog), settings).unwrap();
    for (index, _) in supervisor.settings() {
        wait(&supervisor, index, 1);
    }
    supervisor
}

fn wait(supervisor: &Supervisor, root: RootIndex, number: u64) {
    let mut finished = supervisor.finished(root).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let waited = runtime.block_on(async {
        let done = finished.wait_for(|done| *done >= number);
        tokio::time::timeout(PATIENCE, done).await.map(drop)
    });
    waited.expect("the scan ends");
}

#[test]
fn what_is_asked_for_while_a_scan_begins_is_done_by_the_next() {
    let tree = tempfile::tempdir().unwrap();
    let (_, supervisor) = start(&[tree.path()]);
    supervisor.stop(PATIENCE);
    let root = &supervisor.roots[0];
    root.lock().stopping = false;
    let whole = supervisor.request(RootIndex(0), false, false);
    assert_eq!(root.wait().map(|request| request.full), Some(false));
    let full = supervisor.request(RootIndex(0), true, true);
    root.begin();
    assert_eq!((root.lock().started, full), (whole, whole + 1));
}

/// Each request asks, and there may be a root for every project.
#[test]
fn only_roots_of_which_nothing_is_known_are_asked_for_what_they_lack() {
    let tree = tempfile::tempdir().unwrap();
    let names = ["a", "b", "missing", "c"].map(|name| tree.path().join(name));
    for path in names.iter().filter(|path| !path.ends_with("missing")) {
        write_image(&path.join("image.sif"));
    }
    let paths: Vec<&Path> = names.iter().map(|path| &**path).collect();
    let (_, supervisor) = start(&paths);
    let before = supervisor.asked();
    let unknown = supervisor.unknown();
    let [missing] = &*unknown else {
        panic!("{unknown:?}")
    };
    assert_eq!(missing.path, names[2]);
    assert!(missing.root_state.is_unavailable());
    assert_eq!(supervisor.asked(), before + 1);
    write_image(&names[2].join("image.sif"));
    wait(
        &supervisor,
        RootIndex(2),
        supervisor.request(RootIndex(2), false, false),
    );
    assert!(supervisor.unknown().is_empty());
    assert_eq!(supervisor.asked(), before + 1);
    supervisor.stop(PATIENCE);
}

/// In another order than that of the catalogue each batch of a large directory would write to all of its pages.
#[test]
fn what_is_new_in_a_directory_is_stored_by_name() {
    let tree = tempfile::tempdir().unwrap();
    for number in 0..50 {
        write_image(&tree.path().join(format!("{}.sif", number * 7 % 50)));
    }
    let (catalog, supervisor) = start(&[tree.path()]);
    let snapshot = catalog.snapshot();
    let mut rows: Vec<_> = snapshot.rows.iter().map(|row| row.view()).collect();
    rows.sort_by_key(|row| row.id);
    assert_eq!(rows.len(), 50);
    assert!(rows.is_sorted_by_key(|row| row.path));
    supervisor.stop(PATIENCE);
}

#[test]
fn a_scan_that_is_stopped_is_no_report_of_the_root() {
    let tree = tempfile::tempdir().unwrap();
    let (catalog, supervisor) = start(&[tree.path()]);
    supervisor.stop(PATIENCE);
    let root = &supervisor.roots[0];
    let whole = || root.status(&catalog).last.unwrap().started;
    let (root_state, last) = (root.status(&catalog).root_state, whole());
    let (progress, started) = root.begin();
    let path = tree.path().to_owned();
    let stopped = Err(ScanError::Cancelled { path });
    root.end(&catalog, &progress, started, stopped, true);
    assert_ne!(started, last);
    assert_eq!(
        (root.status(&catalog).root_state, whole()),
        (root_state, last)
    );
    assert!(root.lock().progress.is_none());
}

/// Counts are of what there is, whatever became of the first attempt.
#[test]
fn a_scan_that_is_begun_anew_counts_anew() {
    let (tree, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_image(&tree.path().join("a.sif"));
    let path = state.path().join("catalog.sqlite");
    let roots = [tree.path().to_owned()];
    let catalog = Arc::new(Catalog::open(Some(&path), &roots));
    let other = rusqlite::Connection::open(&path).unwrap();
    other
        .execute_batch(
            "CREATE TRIGGER hinders BEFORE INSERT ON images
             BEGIN SELECT RAISE(ABORT, 'hindered'); END",
        )
        .unwrap();
    let supervisor = start_over(&catalog, vec![settings(tree.path())]);
    let last = supervisor.status().remove(0).last.unwrap();
    let counts = (last.counts.images, last.counts.files);
    assert_eq!((counts, last.counts.directories), ((1, 1), 1));
    assert_eq!(catalog.snapshot().rows.len(), 1);
    supervisor.stop(PATIENCE);
}

#[test]
fn a_probe_that_panics_costs_its_file_alone() {
    let tree = tempfile::tempdir().unwrap();
    for follow_symlinks in [false, true] {
        let root = tree.path().join(follow_symlinks.to_string());
        let names = ["a.sif", "b.sif", "panics-when-probed"];
        for name in names {
            write_image(&root.join("d").join(name));
        }
        fs::create_dir_all(root.join("sandbox/panics-when-probed/.singularity.d")).unwrap();
        let catalog = Arc::new(Catalog::open(None, std::slice::from_ref(&root)));
        let mut settings = settings(&root);
        settings.follow_symlinks = follow_symlinks;
        settings.candidates = crate::config::Candidates::All;
        let supervisor = start_over(&catalog, vec![settings]);
        assert_eq!(supervisor.status()[0].root_state, RootState::Ok);
        let snapshot = catalog.snapshot();
        assert_eq!(snapshot.rows.len(), 4);
        for row in snapshot.rows.iter() {
            let row = row.view();
            let path = String::from_utf8_lossy(row.path);
            assert_eq!(row.status, Status::Failure);
            let is_ours = row.status_message.contains("internal error of sifter at ");
            assert_eq!(is_ours, path.ends_with("panics-when-probed"), "{path}");
            assert!(!is_ours || row.status_message.contains("please report it"));
        }
        supervisor.stop(PATIENCE);
    }
}

#[test]
fn a_worker_that_panics_ends_its_scan() {
    let tree = tempfile::tempdir().unwrap();
    for index in 0..50 {
        write_image(&tree.path().join(format!("d{index}/image.sif")));
    }
    let (sender, ended) = mpsc::channel();
    let path = tree.path().to_owned();
    std::thread::spawn(move || {
        let mut settings = settings(&path);
        settings.width = Some(4);
        let progress = Arc::new(Progress::default());
        let root = Root::open(&settings, &progress).unwrap();
        let sink = |change: crate::catalog::DirectoryChange| {
            assert!(*change.path != *b"d25", "on purpose");
        };
        let scanned = root.scan(&settings, ScanOptions::default(), None, &progress, &sink);
        let _ = sender.send(scanned);
    });
    let scanned = ended.recv_timeout(PATIENCE).expect("the scan ends");
    let Err(ScanError::Internal { message, .. }) = &scanned else {
        panic!("{scanned:?}");
    };
    assert!(message.contains("on purpose"), "{message}");
}

#[test]
fn a_scan_that_panics_is_begun_again_and_stops_no_other() {
    let tree = tempfile::tempdir().unwrap();
    let roots = ["one", "two"].map(|name| tree.path().join(name));
    let directory = roots[0].join("panics-when-written");
    // More than may wait: the workers wait for room.
    for index in 0..3000 {
        write_image(&directory.join(format!("d{index}/image.sif")));
    }
    write_image(&roots[1].join("image.sif"));
    let (catalog, supervisor) = start(&[&roots[0], &roots[1]]);
    let root_states = || supervisor.status().into_iter().map(|root| root.root_state);
    let root_states = || root_states().collect::<Vec<_>>();
    match &root_states()[..] {
        [RootState::Unavailable(why), RootState::Ok] => {
            assert!(why.contains("internal error of sifter at "), "{why}");
        }
        other => panic!("{other:?}"),
    }
    fs::rename(&directory, roots[0].join("d")).unwrap();
    let number = supervisor.request(RootIndex(0), false, false);
    wait(&supervisor, RootIndex(0), number);
    assert_eq!(root_states(), [RootState::Ok, RootState::Ok]);
    assert_eq!(catalog.snapshot().rows.len(), 3001);
    supervisor.stop(PATIENCE);
}

/// A thread that does nothing.
fn idle(_: &'static str, _: super::Run) -> std::io::Result<std::thread::JoinHandle<()>> {
    Ok(std::thread::spawn(|| {}))
}

#[test]
fn a_root_that_cannot_be_read_is_none_that_can_before_a_scan_shows_it() {
    let tree = tempfile::tempdir().unwrap();
    let (away, there) = (tree.path().join("away"), tree.path().join("there"));
    write_image(&there.join("image.sif"));
    let (_, former) = start(&[&away, &there]);
    former.stop(PATIENCE);
    let root_states = |supervisor: &Supervisor| {
        let status = supervisor.status().into_iter();
        status.map(|root| root.root_state).collect::<Vec<_>>()
    };
    let before = root_states(&former);
    assert!(before[0].is_unavailable());
    // In another order, and with one that was not there.
    let roots = [tree.path().join("new"), there, away];
    let catalog = Arc::new(Catalog::open(None, &roots));
    let settings = roots.iter().map(|path| settings(path)).collect();
    let status = former.status();
    let later =
        Supervisor::start_after(Arc::clone(&catalog), settings, &status, &mut idle).unwrap();
    let after = root_states(&later);
    assert_eq!(after[..2], [RootState::Pending, RootState::Pending]);
    assert_eq!(after[2], before[0]);
    assert_eq!(catalog.snapshot().unavailable.len(), 1);
}

#[test]
fn no_thread_is_left_where_one_cannot_be_started() {
    let tree = tempfile::tempdir().unwrap();
    let roots = ["one", "two", "three"].map(|name| tree.path().join(name));
    let catalog = Arc::new(Catalog::open(None, &roots));
    let settings = roots.iter().map(|path| settings(path)).collect();
    let running = Arc::new(());
    let mut spawn = |name, run: super::Run| {
        if Arc::strong_count(&running) > 2 {
            return Err(std::io::ErrorKind::WouldBlock.into());
        }
        let is_running = Arc::clone(&running);
        super::spawn(
            name,
            Box::new(move || {
                run();
                drop(is_running);
            }),
        )
    };
    Supervisor::start_after(catalog, settings, &[], &mut spawn).unwrap_err();
    let deadline = std::time::Instant::now() + PATIENCE;
    while Arc::strong_count(&running) > 1 {
        assert!(std::time::Instant::now() < deadline, "all have ended");
        std::thread::yield_now();
    }
}

/// Who reads what is damaged does not wait for the interval, which is a day here.
#[test]
fn a_database_that_is_found_damaged_is_made_anew_at_once() {
    let (tree, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_image(&tree.path().join("a.sif"));
    let path = state.path().join("catalog.sqlite");
    let roots = [tree.path().to_owned()];
    let catalog = Arc::new(Catalog::open(Some(&path), &roots));
    let supervisor = start_over(&catalog, vec![settings(tree.path())]);
    let id = || catalog.snapshot().rows.iter().next().unwrap().id();
    assert!(catalog.details(id()).is_ok());
    let other = rusqlite::Connection::open(&path).unwrap();
    other
        .execute("UPDATE images SET details = x'ff'", [])
        .unwrap();
    assert!(catalog.details(id()).is_err());
    assert_eq!(catalog.snapshot().rows.len(), 1);
    wait(&supervisor, RootIndex(0), 2);
    assert!(catalog.details(id()).is_ok());
    supervisor.stop(PATIENCE);
}

/// The paths that are listed, below `tree`.
fn listed(catalog: &Catalog, tree: &Path) -> Vec<String> {
    let snapshot = catalog.snapshot();
    let paths = snapshot.rows.iter().map(|row| {
        let path = Path::new(std::ffi::OsStr::from_bytes(row.path()));
        path.strip_prefix(tree).unwrap().display().to_string()
    });
    let mut paths: Vec<_> = paths.collect();
    paths.sort();
    paths
}

fn until(what: &str, is: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !is() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_two_roots_lead_to_is_listed_once() {
    let images = ["data/a.sif", "data/deep/b.sif"];
    for (one, other, expected, why) in [
        (
            "link",
            "data",
            &["link/a.sif", "link/deep/b.sif"][..],
            "data: the same directory as",
        ),
        ("data", "link", &images, "link: the same directory as"),
        ("data", "deep", &images, "deep: lies within"),
        ("deep", "data", &images, "deep: lies within"),
    ] {
        let tree = tempfile::tempdir().unwrap();
        let at = |name: &str| tree.path().join(name);
        for image in images {
            write_image(&at(image));
        }
        symlink("data", at("link")).unwrap();
        symlink("data/deep", at("deep")).unwrap();
        let (catalog, supervisor) = start(&[&at(one), &at(other)]);
        let is_told = || {
            supervisor
                .status()
                .iter()
                .any(|root| match &root.root_state {
                    RootState::Unavailable(message) => message.contains(why),
                    _ => false,
                })
        };
        until(why, is_told);
        assert_eq!(listed(&catalog, tree.path()), expected, "{why}");
        // It is no root of which nothing is known: others' images are listed.
        let status = supervisor.status();
        assert!(status.iter().all(|root| !root.unknown), "{status:?}");
        supervisor.stop(PATIENCE);
    }
}

#[test]
fn roots_may_come_to_overlap_and_cease_to() {
    let tree = tempfile::tempdir().unwrap();
    let at = |name: &str| tree.path().join(name);
    write_image(&at("data/deep/a.sif"));
    write_image(&at("else/b.sif"));
    symlink("else", at("first")).unwrap();
    symlink("data/deep", at("second")).unwrap();
    let (catalog, supervisor) = start(&[&at("first"), &at("second")]);
    let apart = ["first/b.sif", "second/a.sif"];
    assert_eq!(listed(&catalog, tree.path()), apart);
    let lead_to = |target: &str| {
        fs::remove_file(at("first")).unwrap();
        symlink(target, at("first")).unwrap();
        wait(
            &supervisor,
            RootIndex(0),
            supervisor.request(RootIndex(0), false, false),
        );
    };
    // The second one is scanned at once, and not after a day.
    lead_to("data");
    let once = || listed(&catalog, tree.path()) == ["first/deep/a.sif"];
    until("the second one lies within the first", once);
    // What leads nowhere lists nothing of it any more but what was known.
    lead_to("nowhere");
    let both = ["first/deep/a.sif", "second/a.sif"];
    until("the second one is alone", || {
        listed(&catalog, tree.path()) == both
    });
    lead_to("data");
    until("the first one is back", once);
    lead_to("else");
    until("they are apart", || listed(&catalog, tree.path()) == apart);
    // What a scan has found is listed before it ends.
    until("both can be read", || {
        let mut roots = supervisor.status().into_iter();
        roots.all(|root| root.root_state == RootState::Ok)
    });
    supervisor.stop(PATIENCE);
}

/// Nobody else would list what is in it.
/// Nobody may look while that scan runs.
#[test]
fn a_root_that_comes_and_goes_within_a_moment_has_the_other_one_scanned() {
    let tree = tempfile::tempdir().unwrap();
    let (outer, inner) = (tree.path().join("a"), tree.path().join("b"));
    fs::create_dir_all(outer.join("x")).unwrap();
    symlink(outer.join("x"), &inner).unwrap();
    let (_, supervisor) = start(&[&inner, &outer]);
    // Nothing is scanned any more, and nobody waits for the end of a scan.
    supervisor.stop(PATIENCE);
    let opened = Root::open(&settings(&outer), &Arc::default()).unwrap();
    let _ = supervisor.roots[0].lock().request.take();
    for there in [None, Some(&opened), None, Some(&opened)] {
        supervisor.roots[1].note_location(there);
        until("the other one is to be scanned", || {
            supervisor.roots[0].lock().request.take().is_some()
        });
    }
}

#[test]
fn a_root_that_another_one_does_not_come_to_is_listed() {
    let tree = tempfile::tempdir().unwrap();
    let at = |name: &str| tree.path().join(name);
    write_image(&at("data/deep/er/a.sif"));
    symlink("data/deep/er", at("link")).unwrap();
    let leave_out: [fn(&mut RootSettings); 3] = [
        |settings| settings.skip.push(b"er".to_vec()),
        |settings| settings.max_depth = 1,
        |settings| {
            let glob = globset::Glob::new("deep").unwrap();
            settings.exclude = globset::GlobSet::builder().add(glob).build().unwrap();
        },
    ];
    for change in leave_out {
        let roots = [at("data"), at("link")];
        let catalog = Arc::new(Catalog::open(None, &roots));
        let mut settings = roots.map(|path| settings(&path));
        change(&mut settings[0]);
        let supervisor = start_over(&catalog, settings.to_vec());
        for root in 0..2 {
            let again = supervisor.request(RootIndex(root), false, false);
            wait(&supervisor, RootIndex(root), again);
        }
        assert_eq!(listed(&catalog, tree.path()), ["link/a.sif"]);
        supervisor.stop(PATIENCE);
    }
}
