//! A worker on its own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::Visitor;
use crate::catalog::{ChangeKind, DirectoryChange, FileTime, Identity, KnownDirectory, KnownFile};
use crate::scan::dir::directory_identity;
use crate::scan::operations::Operations;
use crate::scan::pace::Pace;
use crate::scan::testing::TestRoot;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn who_waits_for_the_rate_does_not_hang() {
    let directory = tempfile::tempdir().unwrap();
    let mut root = TestRoot::over(directory.path());
    // Ten operations take hours.
    root.pace = Pace::new(1, 1, Some(0.001));
    let (shared, progress) = (root.shared(&|_| {}), &root.progress);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut visitor = Visitor::new(&shared);
            visitor.operations.calls = 10;
            visitor.hand_on();
        });
        let deadline = Instant::now() + PATIENCE;
        let is_late = || Instant::now() > deadline;
        while progress.counts().operations == 0 && !is_late() {
            std::thread::yield_now();
        }
        // It has been idle for a shorter time than before as often as it shows that it is there.
        let (mut shown, mut before) = (0, Duration::ZERO);
        while shown < 3 && !is_late() {
            let idle = progress.idle();
            shown += u32::from(idle < before);
            before = idle;
            std::thread::yield_now();
        }
        progress.cancel();
        assert_eq!(shown, 3);
    });
    assert!(!progress.throttled().is_zero());
}

/// After a file system was unmounted between two looks, say.
#[test]
fn what_is_missing_is_gone_only_from_a_directory_that_is_still_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let mut root = TestRoot::over(directory.path());
    root.options.check_files = true;
    let (_, facts) = root.dir.identity(&mut Operations::default()).unwrap();
    let same = directory_identity(&facts);
    for (identity, expected) in [(same, 1), (Identity::default(), 0)] {
        let removed = AtomicUsize::new(0);
        let sink = |change: DirectoryChange| {
            if let ChangeKind::Files { removed: names, .. } = change.kind {
                removed.fetch_add(names.len(), Ordering::Relaxed);
            }
        };
        let known = KnownDirectory {
            id: 1,
            path: Box::default(),
            identity,
            volatile: false,
            files: vec![KnownFile {
                name: b"gone.sif"[..].into(),
                identity: Identity::default(),
                volatile: false,
                image: None,
                accessed: FileTime::default(),
            }],
        };
        Visitor::new(&root.shared(&sink)).check(&known, 0..1);
        assert_eq!(removed.into_inner(), expected);
    }
}
