//! Roots that are away, come back, or are others now.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use sifter_agent::catalog::{Condition, LEASE_MAX};
use sifter_agent::config::RootSettings;
use sifter_agent::engine::Engines;
use sifter_agent::telemetry::Metrics;

use nix::sys::signal::Signal;

use crate::support::site::{Site, until_seen};
use crate::support::tree::{outwait_granularity, sif, write};
use crate::support::{Agent, images, open_directory, unprivileged, until};

/// The directory in which it was rewritten is as it was.
#[test]
fn what_was_rewritten_while_the_database_was_away_is_listed_when_it_is_back() {
    let tree = tempfile::tempdir().unwrap();
    let state = tempfile::tempdir().unwrap();
    let image = tree.path().join("a.sif");
    write(&image, &sif("a:1", 1));
    outwait_granularity(tree.path());
    drop(Site::start(tree.path(), Some(state.path())));
    let [database, away] = ["catalog.sqlite", "away"].map(|name| state.path().join(name));
    fs::rename(&database, &away).unwrap();
    fs::create_dir(&database).unwrap();
    let site = Site::start(tree.path(), Some(state.path()));
    write(&image, &sif("a:2", 2));
    site.rescan(false, true);
    assert_eq!(site.listing(), ["a:2 a.sif Ready"]);
    fs::remove_dir(&database).unwrap();
    fs::rename(&away, &database).unwrap();
    site.rescan(false, false);
    assert_eq!(site.catalog.condition(), Condition::Ok);
    assert_eq!(site.listing(), ["a:2 a.sif Ready"]);
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
    let site = Site::watched(&root);
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
fn a_root_that_is_another_directory_now_is_watched() {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path().join("images");
    write(&root.join("a.sif"), &sif("a:1", 1));
    let site = Site::watched(&root);
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
    let site = Site::watched(tree.path());
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
    let site = Site::watched(temporary.path());
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

#[test]
fn an_image_in_whose_place_an_unreadable_file_is_is_not_listed() {
    let tree = open_directory();
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
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o200)).unwrap();
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

#[test]
fn roots_that_a_failing_database_kept_out_are_taken_when_it_works() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    images(directory.path(), &["a.sif"]);
    write(&at("other/b.sif"), &sif("b:1", 2));
    fs::create_dir_all(at("state/catalog.sqlite")).unwrap();
    let more = format!(
        "landlock = false\nstate_directory = '{}'",
        at("state").display()
    );
    let agent = Agent::start(directory.path(), "", &more);
    let config = fs::read_to_string(at("agent.toml")).unwrap();
    let other = format!("[[root]]\npath = '{}'\n", at("other").display());
    fs::write(at("agent.toml"), config + &other).unwrap();
    agent.signal(Signal::SIGHUP);
    until("the database keeps it out", || {
        agent.log().contains("roots changed, and are not taken")
    });
    assert!(!agent.log().contains("roots in use"), "{}", agent.log());
    fs::remove_dir(at("state/catalog.sqlite")).unwrap();
    // Whichever scan comes next opens it.
    until("the roots are taken", || {
        write(&at("images/again.sif"), &sif("again:1", 3));
        agent.log().contains("roots in use roots=2")
    });
}
