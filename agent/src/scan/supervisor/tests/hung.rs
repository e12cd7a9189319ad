//! What is told of a root while its scan hangs, and when it has ended.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{PATIENCE, idle, settings, start, until, write_image};
use crate::catalog::{Catalog, RootIndex};
use crate::config::RootSettings;
use crate::scan::ScanError;
use crate::scan::location::Locations;
use crate::scan::supervisor::{RootState, Supervised, Supervisor};

/// A supervisor of roots that were scanned once, with no thread that looks at them by itself.
fn start_unwatched(roots: &[&Path]) -> (Arc<Catalog>, Arc<Supervisor>) {
    let (catalog, former) = start(roots);
    former.stop(PATIENCE);
    let settings = roots.iter().map(|root| settings(root)).collect();
    let status = former.status();
    let later = Supervisor::start_after(Arc::clone(&catalog), settings, &status, &mut idle);
    (catalog, later.unwrap())
}

#[test]
fn a_scan_that_has_ended_does_not_hang() {
    let settings = RootSettings::new("/r".into());
    let catalog = Catalog::open(None, std::slice::from_ref(&settings.path));
    let locations = Arc::new(Locations::new(std::slice::from_ref(&settings)));
    let root = Supervised::new(RootIndex(0), settings, &locations, &Arc::default());
    let hangs = || {
        root.hangs(&catalog, Duration::from_secs(31));
        let status = root.status(&catalog);
        let is_unavailable = status.root_state.is_unavailable();
        assert_eq!(!catalog.snapshot().unavailable.is_empty(), is_unavailable);
        is_unavailable
    };
    let _running = root.begin();
    assert!(hangs());
    root.lock().progress = None;
    root.lock().root_state = RootState::Ok;
    catalog.set_unavailable(RootIndex(0), None);
    assert!(!hangs());
}

/// The rest of its scan may take hours.
#[test]
fn who_asks_for_a_root_does_not_wait_for_the_listing_that_tells_its_state() {
    let tree = tempfile::tempdir().unwrap();
    let (catalog, supervisor) = start_unwatched(&[tree.path()]);
    let root = &supervisor.roots[0];
    let fails = |catalog: &Catalog| {
        let (progress, started) = root.begin();
        let path = tree.path().to_owned();
        let error = std::io::Error::other("gone");
        root.end(
            catalog,
            &progress,
            started,
            Err(ScanError::Root { path, error }),
            true,
        );
    };
    let hangs = |catalog: &Catalog| {
        let _running = root.begin();
        root.hangs(catalog, Duration::from_secs(31));
    };
    let answers = |catalog: &Catalog| root.answers(catalog);
    let all: [&(dyn Fn(&Catalog) + Sync); 3] = [&hangs, &answers, &fails];
    for (number, tells) in all.into_iter().enumerate() {
        std::thread::scope(|scope| {
            let others = catalog.publish_nothing();
            let telling = scope.spawn(|| tells(&catalog));
            until("it is told", || catalog.lease(Duration::MAX).is_none());
            let is_free = root.state.try_lock().is_ok();
            assert!(!telling.is_finished());
            drop(others);
            telling.join().unwrap();
            assert!(is_free, "{number}");
        });
        let is_unavailable = !catalog.snapshot().unavailable.is_empty();
        assert_eq!(is_unavailable, number != 1);
    }
}

#[test]
fn a_root_that_answers_again_is_available_before_its_scan_ends() {
    let tree = tempfile::tempdir().unwrap();
    let away = tree.path().join("away");
    write_image(&tree.path().join("image.sif"));
    let (catalog, supervisor) = start_unwatched(&[tree.path(), &away]);
    let root_states = || supervisor.status().into_iter().map(|root| root.root_state);
    let root_states = || root_states().collect::<Vec<_>>();
    let before = root_states();
    let unavailable = catalog.snapshot().unavailable.len();
    for root in &supervisor.roots {
        let (progress, _) = root.begin();
        root.hangs(&catalog, Duration::from_secs(31));
        assert!(root.lock().root_state.is_unavailable());
        progress.note_activity();
        supervisor.look_for_hung();
    }
    // Of the other one nothing is known.
    assert_eq!(root_states()[0], before[0]);
    assert!(root_states()[1].is_unavailable());
    assert_eq!(catalog.snapshot().unavailable.len(), unavailable);
    supervisor.stop(PATIENCE);
}
