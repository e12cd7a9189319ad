//! What a walk that follows links owes to everybody else, as any other.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::scan;
use crate::catalog::{ChangeKind, DirectoryChange};
use crate::config::RootSettings;
use crate::scan::progress::{Problems, Progress};
use crate::scan::testing::TestRoot;
use crate::scan::{Root, ScanOptions};

fn settings(root: &Path) -> RootSettings {
    let mut settings = RootSettings::new(root.into());
    settings.follow_symlinks = true;
    settings
}

/// Names that are found.
fn found(changes: Vec<DirectoryChange>) -> BTreeSet<String> {
    let files = changes.into_iter().flat_map(|change| match change.kind {
        ChangeKind::Read { found, .. } => found,
        _ => Vec::new(),
    });
    let names = files.map(|file| String::from_utf8(file.name.into()).unwrap());
    names.collect()
}

#[test]
fn the_rate_and_the_priority_are_kept() {
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("a.sif"), [0; 5000]).unwrap();
    symlink(tree.path().join("a.sif"), tree.path().join("b.sif")).unwrap();
    let own = || rustix::process::getpriority_process(None).unwrap();
    let before = own();
    for background in [false, true] {
        let mut settings = settings(tree.path());
        settings.background = background;
        settings.operations_per_second = Some(500.0);
        let progress = Arc::new(Progress::default());
        let root = Root::open(&settings, &progress).unwrap();
        let opening = progress.counts().operations;
        let sink = |_| assert_eq!(own(), if background { 19 } else { before });
        root.scan(&settings, ScanOptions::default(), None, &progress, &sink)
            .unwrap();
        assert_eq!(own(), before);
        assert_eq!(progress.width(), 1);
        // One after the other, each waits for all that it costs.
        let operations = u32::try_from(progress.counts().operations - opening).unwrap();
        assert!(progress.throttled() >= operations * Duration::from_secs(1) / 500);
        assert_eq!(progress.counts().images, 2);
    }
}

#[test]
fn what_is_on_tape_is_not_recalled() {
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("here.sif"), [0; 5000]).unwrap();
    let tape = File::create(tree.path().join("tape.sif")).unwrap();
    tape.set_len(1 << 20).unwrap();
    let changes = Mutex::new(Vec::new());
    let mut root = TestRoot::over(tree.path());
    root.settings = settings(tree.path());
    root.options.network = true;
    let sink = |change| changes.lock().unwrap().push(change);
    scan(&root.shared(&sink)).unwrap();
    let names = found(changes.into_inner().unwrap());
    assert_eq!(names, BTreeSet::from(["here.sif".to_owned()]));
    assert_eq!(root.progress.problems().by_kind["RELEASED"], 1);
    assert_eq!(root.progress.counts().files_read, 1);
}

/// Names that are found of 24 files and the problems, where `change` happens to their directory after they were
/// listed and before they are looked at: directories among them are done with then.
fn found_while(change: impl Fn(&Path) + Sync) -> (BTreeSet<String>, Problems) {
    let tree = tempfile::tempdir().unwrap();
    let directory = tree.path().join("s");
    // In whatever order a file system lists them, some file comes behind some directory.
    for n in 0..24 {
        fs::create_dir_all(directory.join(format!("d{n}"))).unwrap();
        fs::write(directory.join(format!("f{n}\n.sif")), [0; 5000]).unwrap();
    }
    let changes = Mutex::new(Vec::new());
    let once = std::sync::Once::new();
    let sink = |done| {
        once.call_once(|| change(&directory));
        changes.lock().unwrap().push(done);
    };
    let settings = settings(tree.path());
    let progress = Arc::new(Progress::default());
    let root = Root::open(&settings, &progress).unwrap();
    root.scan(&settings, ScanOptions::default(), None, &progress, &sink)
        .unwrap();
    let names = found(changes.into_inner().unwrap());
    assert!(names.len() < 24);
    (names, progress.problems())
}

#[test]
fn what_is_removed_meanwhile_is_no_problem() {
    let (_, problems) = found_while(|directory| fs::remove_dir_all(directory).unwrap());
    assert_eq!(problems.count(), 0, "{:?}", problems.first);
}

#[test]
fn what_cannot_be_told_of_a_file_is_one_escaped_line() {
    let (names, problems) = found_while(|directory| {
        fs::rename(directory, directory.with_file_name("away")).unwrap();
        fs::write(directory, "").unwrap();
    });
    // ENOTDIR.
    assert!(problems.by_kind["NOT_FOUND"] as usize >= 24 - names.len());
    for problem in problems.first {
        assert!(!problem.message.contains('\n'), "{}", problem.message);
        assert!(problem.message.matches(".sif").count() <= 1);
    }
}

#[test]
fn a_link_to_itself_is_no_problem() {
    let tree = tempfile::tempdir().unwrap();
    symlink("self", tree.path().join("self")).unwrap();
    symlink("nowhere", tree.path().join("link")).unwrap();
    symlink(".", tree.path().join("loop")).unwrap();
    let settings = settings(tree.path());
    let progress = Arc::new(Progress::default());
    let root = Root::open(&settings, &progress).unwrap();
    root.scan(&settings, ScanOptions::default(), None, &progress, &|_| {})
        .unwrap();
    assert_eq!(progress.problems().count(), 0);
}

#[test]
fn what_is_too_deep_is_told_whether_links_are_followed_or_not() {
    let tree = tempfile::tempdir().unwrap();
    for directory in ["", "d", "d/e", "sandbox/.singularity.d"] {
        fs::create_dir_all(tree.path().join(directory)).unwrap();
        fs::write(tree.path().join(directory).join("a.sif"), [0; 5000]).unwrap();
    }
    for (max_depth, images, problems) in [(0, 1, 1), (1, 3, 1), (2, 4, 0)] {
        for follow_symlinks in [false, true] {
            let mut settings = settings(tree.path());
            settings.follow_symlinks = follow_symlinks;
            settings.max_depth = max_depth;
            let progress = Arc::new(Progress::default());
            let root = Root::open(&settings, &progress).unwrap();
            root.scan(&settings, ScanOptions::default(), None, &progress, &|_| ())
                .unwrap();
            let told = progress.problems();
            assert_eq!(
                (progress.counts().images, told.count()),
                (images, problems),
                "{max_depth} {follow_symlinks}: {told:?}"
            );
            assert!(told.first.iter().all(|problem| problem.kind == "TOO_DEEP"));
        }
    }
}

/// Each name may be opened below its directory, however long the path is.
#[test]
fn what_has_too_long_a_path_is_told_whether_links_are_followed_or_not() {
    let tree = tempfile::tempdir().unwrap();
    let name = "x".repeat(250);
    let mut directory = File::open(tree.path()).unwrap();
    for _ in 0..20 {
        let below = rustix::fs::mkdirat(&directory, &name, 0o755.into());
        below.unwrap();
        let flags = rustix::fs::OFlags::RDONLY;
        directory = rustix::fs::openat(&directory, &name, flags, 0.into())
            .unwrap()
            .into();
    }
    for follow_symlinks in [false, true] {
        let mut settings = settings(tree.path());
        settings.follow_symlinks = follow_symlinks;
        let progress = Arc::new(Progress::default());
        let root = Root::open(&settings, &progress).unwrap();
        root.scan(&settings, ScanOptions::default(), None, &progress, &|_| ())
            .unwrap();
        let directories = progress.counts().directories;
        assert_eq!(progress.problems().count(), 1, "{follow_symlinks}");
        assert!(
            (16..=18).contains(&directories),
            "{follow_symlinks}: {directories}"
        );
    }
}
