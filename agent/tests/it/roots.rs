//! Roots that are away, come back, or are others now.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sifter_agent::catalog::{Catalog, Condition, LEASE_MAX, RootIndex};
use sifter_agent::config::RootSettings;
use sifter_agent::engine::Engines;
use sifter_agent::scan::Supervisor;
use sifter_agent::telemetry::Metrics;

use crate::support::mounted::Mounted;
use crate::support::site::Site;
use crate::support::tree::{outwait_granularity, sif, write};
use crate::support::{unprivileged, until};

/// A root that is watched, and scanned besides only when asked.
fn watched(root: &Path) -> Site {
    let mut settings = RootSettings::new(root.to_owned());
    settings.interval = Duration::from_secs(86_400);
    settings.file_interval = settings.interval;
    Site::with(settings, None)
}

fn is_listed(site: &Site, name: &str) -> bool {
    let line = format!("{name}:1 {name}.sif Ready");
    site.listing().contains(&line)
}

/// Waits until an image that comes there is listed.
fn until_seen(site: &Site, directory: &Path, name: &str) {
    until("changes are watched", || {
        write(
            &directory.join(format!("{name}.sif")),
            &sif(&format!("{name}:1"), 9),
        );
        is_listed(site, name)
    });
}

#[test]
fn an_unmounted_root_keeps_its_images_whoever_notices() {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path().join("images");
    let Some(mounted) = Mounted::new(&root, "4m") else {
        return;
    };
    write(&root.join("a.sif"), &sif("a:1", 1));
    let site = watched(&root);
    let root_status = || site.supervisor.status().remove(0);
    until("changes are watched", || {
        write(&root.join("b.sif"), &sif("b:1", 2));
        site.listing().len() == 2
    });
    drop(mounted);
    until("it is noticed", || {
        assert_eq!(site.listing().len(), 2);
        root_status().last.is_some_and(|last| last.error.is_some())
    });
    // What happens in the directory that was below is no reason to look elsewhere.
    write(&root.join("c.sif"), b"text");
    site.rescan(false, false);
    assert_eq!(site.listing().len(), 2);
}

/// What is known of it is in a database that is missing when the agent starts, and there again later.
#[test]
fn an_unmounted_root_keeps_its_images_in_a_database_that_comes_back() {
    let temporary = tempfile::tempdir().unwrap();
    let state = tempfile::tempdir().unwrap();
    let root = temporary.path().join("images");
    let Some(mounted) = Mounted::new(&root, "4m") else {
        return;
    };
    write(&root.join("a.sif"), &sif("a:1", 1));
    drop(Site::start(&root, Some(state.path())));
    drop(mounted);
    let (database, away) = (
        state.path().join("catalog.sqlite"),
        state.path().join("away"),
    );
    fs::rename(&database, &away).unwrap();
    fs::create_dir(&database).unwrap();
    let site = Site::start(&root, Some(state.path()));
    assert!(matches!(site.catalog.condition(), Condition::Failed(_)));
    fs::remove_dir(&database).unwrap();
    fs::rename(&away, &database).unwrap();
    site.rescan(false, true);
    assert_eq!(site.catalog.condition(), Condition::Ok);
    let last = site.supervisor.status()[0].last.clone().unwrap();
    assert!(last.error.is_some(), "{last:?}");
    drop(site);
    let site = Site::start(&root, Some(state.path()));
    assert_eq!(site.listing().len(), 1);
}

#[test]
fn what_happened_while_a_root_was_away_is_seen_when_it_is_back() {
    let temporary = tempfile::tempdir().unwrap();
    let (root, away) = (
        temporary.path().join("images"),
        temporary.path().join("away"),
    );
    write(&root.join("d1/a.sif"), &sif("a:1", 1));
    write(&root.join("d2/b.sif"), &sif("b:1", 2));
    let site = watched(&root);
    until("changes are watched", || {
        write(&root.join("d2/c.sif"), &sif("c:1", 3));
        site.listing().len() == 3
    });
    fs::rename(&root, &away).unwrap();
    let tried = || site.supervisor.status()[0].last.as_ref().unwrap().started;
    site.rescan(false, true);
    let last = tried();
    fs::remove_file(away.join("d1/a.sif")).unwrap();
    until("it is looked for in vain", || tried() > last);
    assert_eq!(site.listing().len(), 3);
    fs::rename(&away, &root).unwrap();
    until("a change elsewhere in it is seen", || {
        write(&root.join("d2/d.sif"), &sif("d:1", 4));
        site.listing().iter().any(|line| line.starts_with("d:1"))
    });
    let listing = site.listing();
    assert!(
        !listing.iter().any(|line| line.starts_with("a:1")),
        "{listing:?}"
    );
}

#[test]
fn an_empty_directory_in_place_of_a_root_keeps_its_images() {
    let temporary = tempfile::tempdir().unwrap();
    let (root, below) = (
        temporary.path().join("images"),
        temporary.path().join("below"),
    );
    write(&below.join("a.sif"), &sif("a:1", 1));
    let Some(mounted) = Mounted::bind(&root, below.to_str().unwrap()) else {
        return;
    };
    let site = Site::start(&root, None);
    assert!(is_listed(&site, "a"));
    let is_kept = || site.listing() == ["a:1 a.sif Unavailable"];
    // The directory below a bind mount is on the same device.
    drop(mounted);
    site.rescan(false, true);
    assert!(is_kept(), "{:?}", site.listing());
    // Of all file systems in memory the root has the same inode number.
    let mounted = Mounted::new(&root, "1m").unwrap();
    write(&root.join("a.sif"), &sif("a:1", 1));
    site.rescan(false, true);
    assert!(is_listed(&site, "a"));
    drop(mounted);
    let other = Mounted::new(&root, "1m").unwrap();
    write(&root.join("readme.txt"), b"not an image");
    site.rescan(false, true);
    assert!(is_kept(), "{:?}", site.listing());
    // Unless it is said to be true.
    site.rescan(true, true);
    assert_eq!(site.listing().len(), 0);
    drop(other);
}

#[test]
fn a_root_that_is_another_directory_now_is_watched() {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path().join("images");
    write(&root.join("a.sif"), &sif("a:1", 1));
    let site = watched(&root);
    until_seen(&site, &root, "b");
    write(&temporary.path().join("new/c.sif"), &sif("c:1", 3));
    fs::rename(&root, temporary.path().join("old")).unwrap();
    fs::rename(temporary.path().join("new"), &root).unwrap();
    site.rescan(false, true);
    assert_eq!(site.listing(), ["c:1 c.sif Ready"]);
    // The first one may be seen by a look at what happened before.
    until_seen(&site, &root, "d");
    until_seen(&site, &root, "e");
}

#[test]
fn what_is_written_under_one_name_is_seen_under_the_others() {
    let tree = tempfile::tempdir().unwrap();
    let at = |path: &str| tree.path().join(path);
    write(&at("one/first.sif"), &sif("before:1", 1));
    for path in ["two/deep/second.sif", "third.sif"] {
        fs::create_dir_all(at(path).parent().unwrap()).unwrap();
        fs::hard_link(at("one/first.sif"), at(path)).unwrap();
    }
    outwait_granularity(tree.path());
    let site = watched(tree.path());
    until_seen(&site, &at("one"), "a");
    let named = |reference: &str| {
        let listing = site.listing();
        let lines = listing.iter().filter(|line| line.starts_with(reference));
        lines.count()
    };
    assert_eq!(named("before:1 "), 3);
    fs::write(at("one/first.sif"), sif("after:1", 2)).unwrap();
    until("all names are read", || named("after:1 ") == 3);
}

#[test]
fn a_directory_that_takes_the_name_of_another_is_watched() {
    let temporary = tempfile::tempdir().unwrap();
    let at = |name: &str| temporary.path().join(name);
    write(&at("now/a.sif"), &sif("a:1", 1));
    let site = watched(temporary.path());
    until_seen(&site, &at("now"), "b");
    fs::rename(at("now"), at("before")).unwrap();
    fs::create_dir(at("now")).unwrap();
    until_seen(&site, &at("now"), "c");
    until_seen(&site, &at("before"), "d");
    // The first ones may have been seen by looks at what happened before.
    for name in ["e", "f", "g", "h"] {
        until_seen(&site, &at("now"), name);
    }
}

/// A root of which links are followed, scanned by somebody whom modes concern.
fn followed(root: &Path, hints: bool) -> Site {
    let mut settings = RootSettings::new(root.to_owned());
    settings.interval = Duration::from_secs(86_400);
    settings.follow_symlinks = true;
    settings.hints = hints;
    unprivileged(move || Site::with(settings, None))
}

#[test]
fn what_cannot_be_read_is_kept_where_links_are_followed() {
    let tree = tempfile::tempdir().unwrap();
    let at = |path: &str| tree.path().join(path);
    let mode = |path: &str, mode| {
        fs::set_permissions(at(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("", 0o755);
    write(&at("closed/a.sif"), &sif("a:1", 1));
    write(&at("closed/below/b.sif"), &sif("b:1", 2));
    write(&at("open/c.sif"), &sif("c:1", 3));
    write(&at("open/sandbox/.singularity.d/labels.json"), b"{}");
    write(&at("open/sandbox/.singularity.d/runscript"), b"#!/bin/sh\n");
    write(&at("open/sandbox/inner.sif"), &sif("inner:1", 4));
    for name in ["bin", "etc", "usr"] {
        fs::create_dir(at("open/sandbox").join(name)).unwrap();
    }
    std::os::unix::fs::symlink(at("open"), at("link")).unwrap();
    let site = followed(tree.path(), false);
    let lines = |status: &str| -> Vec<String> {
        let listing = site.listing().into_iter();
        listing.filter(|line| line.ends_with(status)).collect()
    };
    let ready = lines("Ready");
    assert_eq!(ready.len(), 6, "{ready:?}");
    let sandboxes = ready.iter().filter(|line| line.contains(" sandbox "));
    assert_eq!(sandboxes.count(), 2, "{ready:?}");
    mode("closed", 0o000);
    fs::remove_file(at("open/c.sif")).unwrap();
    site.rescan(false, true);
    assert_eq!(lines("Ready").len(), 2, "{:?}", site.listing());
    assert_eq!(lines("Unavailable").len(), 2, "{:?}", site.listing());
    mode("closed", 0o755);
    site.rescan(false, true);
    assert_eq!(lines("Ready").len(), 4, "{:?}", site.listing());
    assert!(lines("Unavailable").is_empty());
}

#[test]
fn what_links_lead_to_is_watched() {
    let (tree, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for directory in [&tree, &elsewhere] {
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let (one, other) = (elsewhere.path().join("one"), elsewhere.path().join("other"));
    write(&one.join("a.sif"), &sif("a:1", 1));
    write(&other.join("b.sif"), &sif("b:1", 2));
    let link = tree.path().join("link");
    std::os::unix::fs::symlink(&one, &link).unwrap();
    let site = followed(tree.path(), true);
    assert_eq!(site.listing(), ["a:1 a.sif Ready"]);
    // The first ones may be seen by a look at what happened before.
    for name in ["c", "d", "e"] {
        until_seen(&site, &one, name);
    }
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&other, &link).unwrap();
    until("the link is followed", || is_listed(&site, "b"));
    for name in ["f", "g", "h"] {
        until_seen(&site, &other, name);
    }
}

#[test]
fn what_is_known_is_not_read_again_where_links_are_followed() {
    let tree = tempfile::tempdir().unwrap();
    fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o755)).unwrap();
    write(&tree.path().join("new.sif"), &sif("new:1", 1));
    let future = tree.path().join("future.sif");
    write(&future, &sif("future:1", 2));
    let time = SystemTime::now() + Duration::from_secs(86_400);
    fs::File::open(&future).unwrap().set_modified(time).unwrap();
    // No image yet, and perhaps being written.
    write(&tree.path().join("growing"), &[0; 5000]);
    let site = followed(tree.path(), false);
    outwait_granularity(tree.path());
    assert_eq!(site.rescan(false, true).files_read, 3);
    assert_eq!(site.rescan(false, true).files_read, 1);
}

#[test]
fn an_event_is_no_reason_to_read_all_that_links_lead_to() {
    let tree = tempfile::tempdir().unwrap();
    fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for number in 0..20 {
        let path = tree.path().join(format!("d{number}/a.sif"));
        write(&path, &sif("a:1", 1));
    }
    outwait_granularity(tree.path());
    let site = followed(tree.path(), true);
    let started = || site.supervisor.status()[0].last.as_ref().unwrap().started;
    let first = started();
    until_seen(&site, &tree.path().join("d0"), "b");
    until("the whole is scanned", || started() > first);
    let last = site.supervisor.status()[0].last.clone().unwrap();
    assert!(last.counts.files_read < 10, "{:?}", last.counts);
}

#[test]
fn an_image_in_whose_place_an_unreadable_file_is_is_not_listed() {
    let tree = tempfile::tempdir().unwrap();
    fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["replaced", "closed"] {
        write(
            &tree.path().join(name).with_extension("sif"),
            &sif(&format!("{name}:1"), 1),
        );
    }
    let path = tree.path().to_owned();
    let site = unprivileged(move || Site::start(&path, None));
    assert_eq!(site.listing().len(), 2);
    outwait_granularity(tree.path());
    let (new, old) = (tree.path().join("new"), tree.path().join("replaced.sif"));
    write(&new, &sif("other:1", 2));
    let closed = tree.path().join("closed.sif");
    for path in [&new, &closed] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
    }
    fs::rename(&new, &old).unwrap();
    site.rescan(false, true);
    // What may not be read any more is still the image that it was.
    assert_eq!(site.listing(), ["closed:1 closed.sif Ready"]);
    // Who may see it goes by what its owner has made of it.
    let mode = || site.catalog.snapshot().rows[0].facts().mode & 0o777;
    assert_eq!(mode(), 0);
    site.rescan(false, true);
    assert_eq!(mode(), 0);
    // What is written meanwhile does not pass for read, not even under another name.
    write(&closed, &sif("changed:1", 3));
    outwait_granularity(tree.path());
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    site.rescan(false, true);
    assert_eq!(site.listing(), ["closed:1 closed.sif Ready"]);
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o644)).unwrap();
    fs::rename(&closed, tree.path().join("renamed.sif")).unwrap();
    outwait_granularity(tree.path());
    site.rescan(false, true);
    assert_eq!(site.listing(), ["changed:1 renamed.sif Ready"]);
    assert!(
        site.supervisor.status()[0]
            .last
            .as_ref()
            .unwrap()
            .problems
            .count()
            > 0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_others_replace_is_promised_to_nobody() {
    let tree = tempfile::tempdir().unwrap();
    let state = tempfile::tempdir().unwrap();
    let roots = || vec![RootSettings::new(tree.path().to_owned())];
    let database = state.path().join("catalog.sqlite");
    let engines = Engines::start(Some(database), roots(), Arc::new(Metrics::default()));
    let engines = Arc::new(engines.unwrap());
    let lease = |catalog: &sifter_agent::catalog::Catalog| catalog.lease(LEASE_MAX);
    let first = Arc::clone(&engines.current().catalog);
    until("nothing is published", || lease(&first).is_some());
    engines.replace(roots()).unwrap();
    let former = engines.former().unwrap();
    assert!(Arc::ptr_eq(&first, &former));
    assert_eq!(lease(&former), None);
    let now = Arc::clone(&engines.current().catalog);
    until("nothing is published", || lease(&now).is_some());
    engines.stop();
}

/// What is listed of two roots, below `tree`.
fn listed_of(tree: &Path, roots: [&str; 2], cross_file_systems: bool) -> Vec<String> {
    let settings = roots.map(|root| {
        let mut settings = RootSettings::new(tree.join(root));
        settings.cross_file_systems = cross_file_systems;
        settings.hints = false;
        settings
    });
    let paths = settings.each_ref().map(|settings| settings.path.clone());
    let catalog = Arc::new(Catalog::open(None, &paths));
    let supervisor = Supervisor::start(Arc::clone(&catalog), settings.to_vec()).unwrap();
    // Each is opened in the first scan, and knows of the other in the second one.
    for _ in 0..2 {
        let scans = [0, 1].map(|root| supervisor.request(RootIndex(root), false, false));
        for (root, number) in scans.into_iter().enumerate() {
            let finished = supervisor.finished(RootIndex(root)).unwrap();
            until("a scan ends", || *finished.borrow() >= number);
        }
    }
    supervisor.stop(Duration::from_secs(10));
    let snapshot = catalog.snapshot();
    let paths = snapshot.rows.iter().map(|row| {
        let path = Path::new(std::str::from_utf8(row.path()).unwrap());
        path.strip_prefix(tree).unwrap().display().to_string()
    });
    let mut paths: Vec<_> = paths.collect();
    paths.sort();
    paths
}

#[test]
fn what_is_mounted_at_two_places_is_listed_once() {
    let temporary = tempfile::tempdir().unwrap();
    let tree = temporary.path();
    let at = |name: &str| tree.join(name);
    write(&at("data/deep/a.sif"), &sif("a:1", 1));
    let (bound, same) = (at("bound"), at("same"));
    let Some(_mounted) = Mounted::bind(&bound, at("data/deep").to_str().unwrap()) else {
        return;
    };
    let _also = Mounted::bind(&same, at("data").to_str().unwrap()).unwrap();
    for (roots, expected) in [
        (["bound", "data"], "data/deep/a.sif"),
        (["data", "bound"], "data/deep/a.sif"),
        (["same", "bound"], "same/deep/a.sif"),
        (["same", "data"], "same/deep/a.sif"),
    ] {
        assert_eq!(listed_of(tree, roots, false), [expected], "{roots:?}");
    }
    // Hidden below another mount, nothing of it is seen there.
    let deep = at("data/deep");
    let hiding = Mounted::new(&deep, "1m").unwrap();
    assert_eq!(listed_of(tree, ["data", "bound"], false), ["bound/a.sif"]);
    drop(hiding);
    // As is a mount that is not entered.
    let itself = Mounted::bind(&deep, deep.to_str().unwrap()).unwrap();
    assert_eq!(listed_of(tree, ["data", "bound"], false), ["bound/a.sif"]);
    drop(itself);
}

/// As the root of a node without a disk is, or of a container.
#[test]
fn images_in_the_layers_of_an_overlay_are_listed() {
    let temporary = tempfile::tempdir().unwrap();
    let tree = temporary.path();
    let at = |name: &str| tree.join(name);
    let (lower, memory, merged) = (at("lower"), at("memory"), at("merged"));
    let Some(_memory) = Mounted::new(&memory, "1m") else {
        return;
    };
    let (upper, work) = (memory.join("upper"), memory.join("work"));
    for directory in [&upper, &work, &at("else")] {
        fs::create_dir(directory).unwrap();
    }
    write(&lower.join("deep/a.sif"), &sif("a:1", 1));
    write(&upper.join("deep/b.sif"), &sif("b:1", 2));
    let Some(_merged) = Mounted::overlay(&merged, &lower, &upper, &work) else {
        return;
    };
    // What is mounted over a file is not the overlay's.
    let (hidden, hiding) = (merged.join("deep/c.sif"), memory.join("c.sif"));
    for file in [&hidden, &hiding] {
        write(file, &sif("c:1", 3));
    }
    let bound = Command::new("mount")
        .arg("--bind")
        .args([&hiding, &hidden])
        .status();
    assert!(bound.unwrap().success());
    let listed = listed_of(tree, ["merged", "else"], false);
    let unbound = Command::new("umount").arg(&hidden).status();
    assert!(unbound.unwrap().success());
    assert_eq!(listed, ["merged/deep/a.sif", "merged/deep/b.sif"]);
}

/// A user lets others pass through a directory, but not see what is in it.
#[test]
fn a_root_below_a_directory_that_cannot_be_listed_is_listed() {
    let temporary = tempfile::tempdir().unwrap();
    let tree = temporary.path().to_owned();
    let at = |name: &str| tree.join(name);
    write(&at("data/user/images/a.sif"), &sif("a:1", 1));
    std::os::unix::fs::symlink("data/user/images", at("link")).unwrap();
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o755)).unwrap();
    for (mode, expected) in [(0o755, "data/user/images/a.sif"), (0o711, "link/a.sif")] {
        fs::set_permissions(at("data/user"), fs::Permissions::from_mode(mode)).unwrap();
        let tree = tree.clone();
        let listed = unprivileged(move || listed_of(&tree, ["data", "link"], false));
        assert_eq!(listed, [expected], "{mode:o}");
    }
}

#[test]
fn what_is_mounted_in_a_root_is_listed_once() {
    let temporary = tempfile::tempdir().unwrap();
    let tree = temporary.path();
    let inner = tree.join("data/inner");
    let Some(_mounted) = Mounted::new(&inner, "1m") else {
        return;
    };
    write(&inner.join("a.sif"), &sif("a:1", 1));
    std::os::unix::fs::symlink(&inner, tree.join("link")).unwrap();
    let roots = ["data", "link"];
    assert_eq!(listed_of(tree, roots, false), ["link/a.sif"]);
    assert_eq!(listed_of(tree, roots, true), ["data/inner/a.sif"]);
}
