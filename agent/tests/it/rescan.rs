//! The walk, the catalogue and the plan together, over real trees: what is read again and what is not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use sifter_agent::config::RootSettings;
use sifter_image::record::Status;
use sifter_image::reference::NamingRule;

use crate::support::site::Site;
use crate::support::tree::{outwait_granularity, settle, sif, tree_of, write};
use crate::support::{leave_out, unprivileged};

#[test]
fn an_unchanged_tree_is_not_read_again_and_changes_are_seen() {
    let (tree, paths) = tree_of(40);
    outwait_granularity(tree.path());
    let site = Site::start(tree.path(), None);
    assert_eq!(site.listing().len(), 40);
    let generation = site.catalog.snapshot().generation;

    let counts = site.rescan(false, true);
    assert_eq!(counts.files_read, 0);
    assert_eq!(counts.images, 40);
    assert_eq!(site.rescan(false, false).images, 40);
    // One stat a directory and one an image, and three for the root itself: its file system's, to open and
    // to stat it.
    assert!(counts.operations <= 8 + 40 + 3, "{counts:?}");
    assert_eq!(site.catalog.snapshot().generation, generation);

    // A new one, one gone, one rewritten in place with the same size and its old time.
    write(&tree.path().join("d3/new.sif"), &sif("new:1", 77));
    fs::remove_file(&paths[0]).unwrap();
    let modified = fs::metadata(&paths[1]).unwrap().modified().unwrap();
    fs::write(&paths[1], sif("rewritten:1", 99)).unwrap();
    fs::File::open(&paths[1])
        .unwrap()
        .set_times(fs::FileTimes::new().set_modified(modified))
        .unwrap();
    let counts = site.rescan(false, true);
    assert_eq!(counts.files_read, 2, "{counts:?}");
    let listing = site.listing();
    assert_eq!(listing.len(), 40);
    assert!(
        listing.contains(&"new:1 new.sif Ready".to_owned()),
        "{listing:?}"
    );
    assert!(listing.contains(&"rewritten:1 image1.sif Ready".to_owned()));
    assert!(!listing.iter().any(|line| line.contains("image0.sif")));
    assert!(site.catalog.snapshot().generation > generation);
}

#[test]
fn the_names_of_a_large_root_are_read_once_and_only_if_they_changed() {
    const NAMES: u64 = 2000;
    let tree = tempfile::tempdir().unwrap();
    for number in 0..NAMES {
        fs::write(tree.path().join(format!("{number:0>200}.log")), b"").unwrap();
    }
    write(&tree.path().join("a.sif"), &sif("a:1", 1));
    settle(tree.path());
    outwait_granularity(tree.path());
    let site = Site::start(tree.path(), None);
    let counts = site.rescan(false, true);
    assert!(counts.operations <= 2 + 3, "{counts:?}");
    write(&tree.path().join("b.sif"), &sif("b:1", 2));
    let counts = site.rescan(false, true);
    assert_eq!(counts.images, 2);
    // As many calls as its buffer takes, and some for the directory and its images.
    let pass = NAMES * 256 / (64 << 10) + 2;
    assert!(counts.operations <= pass + 15, "{counts:?}");
}

#[test]
fn moved_images_are_recognised_without_being_read() {
    let (tree, paths) = tree_of(10);
    outwait_granularity(tree.path());
    let site = Site::start(tree.path(), None);
    fs::create_dir(tree.path().join("elsewhere")).unwrap();
    fs::rename(&paths[0], tree.path().join("elsewhere/other-name.sif")).unwrap();
    fs::hard_link(&paths[1], tree.path().join("elsewhere/second-name.sif")).unwrap();
    let counts = site.rescan(false, true);
    // Only the one that got a second name, under both: its change time says that something changed, and
    // does not say what.
    assert_eq!(counts.files_read, 2, "{counts:?}");
    let listing = site.listing();
    assert_eq!(listing.len(), 11);
    assert!(
        listing.contains(&"image0:1 other-name.sif Ready".to_owned()),
        "{listing:?}"
    );
    assert!(
        listing.contains(&"image1:1 second-name.sif Ready".to_owned()),
        "{listing:?}"
    );

    // A whole directory, with all that is in it.
    outwait_granularity(tree.path());
    site.rescan(false, true);
    fs::rename(tree.path().join("d2"), tree.path().join("d2-renamed")).unwrap();
    let counts = site.rescan(false, true);
    assert_eq!(counts.files_read, 0, "{counts:?}");
    assert_eq!(site.listing().len(), 11);
}

#[test]
fn a_moved_image_is_named_by_the_rules_where_it_is_now() {
    let (tree, paths) = tree_of(1);
    outwait_granularity(tree.path());
    let mut settings = RootSettings::new(tree.path().into());
    settings.hints = false;
    let rule = r"(?P<repository>d[0-9])/[a-z]+(?P<tag>[0-9])\.sif$";
    settings.naming.push(NamingRule::new(rule).unwrap());
    let site = Site::with(settings, None);
    assert_eq!(site.listing(), ["d0:0 image0.sif Ready"]);
    fs::create_dir(tree.path().join("d5")).unwrap();
    fs::rename(&paths[0], tree.path().join("d5/image7.sif")).unwrap();
    site.rescan(false, true);
    assert_eq!(site.listing(), ["d5:7 image7.sif Ready"]);
}

#[test]
fn a_full_scan_finds_what_a_first_one_would() {
    for follow_symlinks in [false, true] {
        let tree = tempfile::tempdir().unwrap();
        // By its name it is none, unless it is large enough to be one.
        let path = tree.path().join("tool:1.0");
        write(&path, &sif("tool:1.0", 1));
        settle(tree.path());
        let mut settings = RootSettings::new(tree.path().into());
        settings.interval = Duration::from_secs(86_400);
        settings.hints = false;
        settings.follow_symlinks = follow_symlinks;
        let site = Site::with(settings, None);
        assert_eq!(site.listing().len(), 1);
        write(&path, &sif("tool:1.0", 1)[..2000]);
        settle(tree.path());
        site.rescan(false, true);
        let listing = site.listing();
        assert!(listing[0].ends_with("Failure"), "{listing:?}");
        site.rescan(true, true);
        assert_eq!(
            site.listing().len(),
            0,
            "follow_symlinks: {follow_symlinks}"
        );
        site.rescan(true, true);
        assert_eq!(site.listing().len(), 0);
    }
}

#[test]
fn a_second_name_of_what_was_rewritten_is_read() {
    let (tree, paths) = tree_of(1);
    outwait_granularity(tree.path());
    let site = Site::start(tree.path(), None);
    let modified = fs::metadata(&paths[0]).unwrap().modified().unwrap();
    // As long as the first, in the same file.
    fs::write(&paths[0], sif("image9:1", 9)).unwrap();
    let file = fs::File::options().write(true).open(&paths[0]).unwrap();
    file.set_modified(modified).unwrap();
    fs::hard_link(&paths[0], tree.path().join("second.sif")).unwrap();
    site.rescan(false, true);
    let mut listing = site.listing();
    listing.sort();
    assert_eq!(
        listing,
        ["image9:1 image0.sif Ready", "image9:1 second.sif Ready"]
    );
}

#[test]
fn what_a_sandbox_says_of_itself_is_seen_when_it_changes() {
    for follow_symlinks in [false, true] {
        let tree = tempfile::tempdir().unwrap();
        let metadata = tree.path().join("box/.singularity.d");
        let labels = metadata.join("labels.json");
        write(&labels, b"{}");
        write(&metadata.join("runscript"), b"#!/bin/sh\n");
        for name in ["bin", "etc", "usr"] {
            fs::create_dir(tree.path().join("box").join(name)).unwrap();
        }
        settle(tree.path());
        outwait_granularity(tree.path());
        let mut settings = RootSettings::new(tree.path().into());
        settings.interval = Duration::from_secs(86_400);
        settings.hints = false;
        settings.follow_symlinks = follow_symlinks;
        let site = Site::with(settings, None);
        let identity = || {
            let snapshot = site.catalog.snapshot();
            assert_eq!(snapshot.rows.len(), 1);
            snapshot.rows[0].view().image_id
        };
        let first = identity();
        let counts = site.rescan(false, true);
        // One stat for each directory, and one for what the sandbox says.
        assert!(follow_symlinks || counts.operations <= 3 + 6, "{counts:?}");
        assert_eq!(
            (counts.images, counts.bytes),
            (1, 0),
            "nothing is read: {counts:?}"
        );
        fs::write(&labels, br#"{"org.label-schema.version": "2"}"#).unwrap();
        site.rescan(false, true);
        let second = identity();
        assert_ne!(first, second, "written in place");
        outwait_granularity(tree.path());
        site.rescan(false, true);
        fs::remove_file(&labels).unwrap();
        site.rescan(false, true);
        assert_ne!(identity(), second, "removed");
    }
}

#[test]
fn a_time_to_come_is_no_reason_to_read_again() {
    let (tree, paths) = tree_of(2);
    let other = tree.path().join("d0/other");
    write(&other, &[7; 8192]);
    for path in [&paths[0], &other, &tree.path().join("d0")] {
        let file = fs::File::open(path).unwrap();
        let future = SystemTime::now() + Duration::from_secs(86_400 * 365);
        file.set_modified(future).unwrap();
    }
    outwait_granularity(tree.path());
    let site = Site::start(tree.path(), None);
    let counts = site.rescan(false, true);
    assert_eq!((counts.files_read, counts.images), (0, 2), "{counts:?}");
    // Neither is the directory: then there would be more files than those that are known.
    assert_eq!(counts.files, 0, "{counts:?}");
    fs::write(&paths[0], sif("again:1", 9)).unwrap();
    assert_eq!(site.rescan(false, true).files_read, 1);
}

#[test]
fn another_image_with_the_number_of_a_removed_one_is_read() {
    use std::os::unix::fs::MetadataExt;
    let (tree, paths) = tree_of(2);
    outwait_granularity(tree.path());
    let site = Site::start(tree.path(), None);
    let old = fs::metadata(&paths[0]).unwrap();
    fs::remove_file(&paths[0]).unwrap();
    let mut others = Vec::new();
    let reused = (0..100).find_map(|number| {
        let path = tree.path().join(format!("new{number}.sif"));
        write(&path, &sif("new:1", 9));
        let is_reused = fs::metadata(&path).unwrap().ino() == old.ino();
        others.push(path);
        is_reused.then(|| others.pop()).flatten()
    });
    others
        .iter()
        .for_each(|path| fs::remove_file(path).unwrap());
    let Some(reused) = reused else {
        return leave_out(
            "another_image_with_the_number_of_a_removed_one_is_read",
            "this file system gives no number twice",
        );
    };
    // As `cp -p` and `tar` do it.
    let file = fs::File::options().write(true).open(&reused).unwrap();
    file.set_modified(old.modified().unwrap()).unwrap();
    let counts = site.rescan(false, true);
    assert_eq!(counts.files_read, 1, "{counts:?}");
    let listing = site.listing();
    assert_eq!(listing.len(), 2);
    assert!(
        listing.iter().any(|line| line.starts_with("new:1 new")),
        "{listing:?}"
    );
}

#[test]
fn what_was_written_just_before_it_was_read_is_read_again_where_it_is_now() {
    let tree = tempfile::tempdir().unwrap();
    let path = tree.path().join("a.sif");
    write(&path, &sif("first:1", 1));
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let site = Site::start(tree.path(), None);
    // As if both had been written within one tick of the clock.
    fs::write(&path, sif("again:1", 2)).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(modified).unwrap();
    fs::rename(&path, tree.path().join("b.sif")).unwrap();
    site.rescan(false, false);
    assert_eq!(site.listing(), ["again:1 b.sif Ready"]);
}

#[test]
fn what_changed_within_the_granularity_is_read_again() {
    let (tree, paths) = tree_of(3);
    // Not settled: the change times are now.
    let site = Site::start(tree.path(), None);
    let counts = site.rescan(false, false);
    assert_eq!(
        counts.files_read, 3,
        "racy files are read again: {counts:?}"
    );
    assert_eq!(counts.images, 3, "and counted once: {counts:?}");
    assert_eq!(counts.files, 3, "so are racy directories: {counts:?}");
    drop(paths);
}

#[test]
fn a_vanished_root_keeps_its_images_and_comes_back() {
    let (tree, _) = tree_of(5);
    let state = tempfile::tempdir().unwrap();
    let root = tree.path().join("root");
    fs::create_dir(&root).unwrap();
    for index in 0..7 {
        let directory = format!("d{index}");
        if tree.path().join(&directory).exists() {
            fs::rename(tree.path().join(&directory), root.join(&directory)).unwrap();
        }
    }
    let site = Site::start(&root, Some(state.path()));
    assert_eq!(site.listing().len(), 5);
    fs::rename(&root, tree.path().join("away")).unwrap();
    site.rescan(false, true);
    let listing = site.listing();
    assert_eq!(listing.len(), 5);
    assert!(
        listing.iter().all(|line| line.ends_with("Unavailable")),
        "{listing:?}"
    );
    drop(site);

    // Also over a restart: the last listing is there, and its root is not.
    let site = Site::start(&root, Some(state.path()));
    assert_eq!(site.listing().len(), 5);
    assert!(
        site.listing()
            .iter()
            .all(|line| line.ends_with("Unavailable"))
    );
    fs::rename(tree.path().join("away"), &root).unwrap();
    let counts = site.rescan(false, true);
    assert!(site.listing().iter().all(|line| line.ends_with("Ready")));
    assert_eq!(counts.images, 5);
}

#[test]
fn an_unreadable_directory_hides_nothing_that_was_known() {
    let (tree, _) = tree_of(14);
    let path = tree.path().to_owned();
    let site = unprivileged(move || Site::start(&path, None));
    let closed = tree.path().join("d1");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    site.rescan(false, true);
    let unavailable = site
        .listing()
        .iter()
        .filter(|line| line.ends_with("Unavailable"))
        .count();
    assert_eq!((site.listing().len(), unavailable), (14, 2));
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
    site.rescan(false, true);
    assert!(site.listing().iter().all(|line| line.ends_with("Ready")));
}

#[test]
fn other_settings_find_other_things_at_once() {
    let (tree, _) = tree_of(3);
    write(
        &tree.path().join("d0/tool.py"),
        &sif("named-otherwise:1", 5),
    );
    let state = tempfile::tempdir().unwrap();
    assert_eq!(
        Site::start(tree.path(), Some(state.path())).listing().len(),
        3
    );
    let mut settings = RootSettings::new(tree.path().into());
    settings.hints = false;
    settings.candidates = sifter_agent::config::Candidates::All;
    let site = Site::with(settings, Some(state.path()));
    assert_eq!(site.listing().len(), 4, "{:?}", site.listing());
}

#[test]
fn a_flat_directory_is_shared_among_threads_and_complete() {
    let tree = tempfile::tempdir().unwrap();
    for index in 0..1000 {
        write(
            &tree.path().join(format!("image{index}.sif")),
            &sif(
                &format!("image{index}:1"),
                u8::try_from(index % 250 + 1).unwrap(),
            ),
        );
    }
    settle(tree.path());
    outwait_granularity(tree.path());
    let site = Site::start(tree.path(), None);
    assert_eq!(site.listing().len(), 1000);
    assert_eq!(site.rescan(false, true).images, 1000);
    write(&tree.path().join("new.sif"), &sif("new:1", 3));
    let counts = site.rescan(false, false);
    assert_eq!(
        counts.files_read, 1,
        "only the new one is opened: {counts:?}"
    );
    assert_eq!(site.listing().len(), 1001);
}

#[test]
fn a_later_access_is_seen_without_reading() {
    use std::os::unix::fs::MetadataExt;
    let (tree, paths) = tree_of(3);
    let old = SystemTime::now() - Duration::from_secs(10 * 86_400);
    fs::File::open(&paths[1])
        .unwrap()
        .set_times(fs::FileTimes::new().set_accessed(old))
        .unwrap();
    outwait_granularity(tree.path());
    let site = Site::start(tree.path(), None);
    let accessed = |site: &Site| {
        let snapshot = site.catalog.snapshot();
        let row = snapshot
            .rows
            .iter()
            .find(|row| row.path().ends_with(b"image1.sif"))
            .unwrap();
        row.facts().accessed.0 / 1_000_000_000
    };
    let before = accessed(&site);
    fs::read(&paths[1]).unwrap();
    let now = fs::metadata(&paths[1]).unwrap().atime();
    if now - before < 86_400 {
        return leave_out(
            "a_later_access_is_seen_without_reading",
            "the file system notes no access, or only one a day",
        );
    }
    let counts = site.rescan(false, true);
    assert_eq!(counts.files_read, 0, "{counts:?}");
    assert_eq!(accessed(&site), now);
    assert!(
        site.listing()
            .contains(&"image1:1 image1.sif Ready".to_owned())
    );
}

#[test]
fn an_unfinished_image_that_is_renamed_is_still_looked_at() {
    let tree = tempfile::tempdir().unwrap();
    let path = tree.path().join("half.sif");
    write(&path, &sif("half:1", 1)[..36_000]);
    let modified = SystemTime::now() - Duration::from_secs(5);
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(modified)
        .unwrap();
    let mut settings = RootSettings::new(tree.path().into());
    settings.interval = Duration::from_secs(86_400);
    settings.file_interval = settings.interval;
    settings.hints = false;
    settings.transfer_age = Duration::from_secs(8);
    let site = Site::with(settings, None);
    let status = || {
        let snapshot = site.catalog.snapshot();
        assert_eq!(snapshot.rows.len(), 1);
        snapshot.rows[0].view().status
    };
    assert_eq!(status(), Status::Transfer);
    fs::rename(&path, tree.path().join("renamed.sif")).unwrap();
    // Its times alone are no reason any more to look at it.
    outwait_granularity(tree.path());
    site.rescan(false, false);
    assert_eq!(status(), Status::Transfer);
    crate::support::until("it is old, and no longer under way", || {
        site.rescan(false, false);
        status() == Status::Failure
    });
}
