//! Roots that reach the same images: by mounts, overlays and links. Each is listed once.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use sifter_agent::catalog::{Catalog, RootIndex};
use sifter_agent::config::RootSettings;
use sifter_agent::scan::Supervisor;

use crate::support::mounted::Mounted;
use crate::support::tree::{sif, write};
use crate::support::{open_directory, unprivileged, until};

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
    let temporary = open_directory();
    let tree = temporary.path().to_owned();
    let at = |name: &str| tree.join(name);
    write(&at("data/user/images/a.sif"), &sif("a:1", 1));
    std::os::unix::fs::symlink("data/user/images", at("link")).unwrap();
    // Nor may who owns it, where that is who runs the tests.
    for (mode, expected) in [(0o755, "data/user/images/a.sif"), (0o311, "link/a.sif")] {
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
