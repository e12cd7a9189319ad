//! Roots of which symbolic links are followed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use sifter_agent::config::RootSettings;

use crate::support::site::{Site, is_listed, until_seen};
use crate::support::tree::{outwait_granularity, sif, write};
use crate::support::{open_directory, unprivileged, until};

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
    let tree = open_directory();
    let at = |path: &str| tree.path().join(path);
    let mode = |path: &str, mode| {
        fs::set_permissions(at(path), fs::Permissions::from_mode(mode)).unwrap();
    };
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
    let (tree, elsewhere) = (open_directory(), open_directory());
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
    let tree = open_directory();
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
    let tree = open_directory();
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
