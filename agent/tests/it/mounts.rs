//! File systems that are mounted where images are, and go.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sifter_agent::catalog::Condition;
use sifter_agent::config::RootSettings;
use sifter_image::reference::NamingRule;

use crate::support::mounted::{Automounter, Mounted};
use crate::support::site::{Site, is_listed};
use crate::support::tree::{outwait_granularity, sif, write};
use crate::support::{Agent, skip, until};
use crate::tool::sifter;

#[test]
fn an_unmounted_root_keeps_its_images_whoever_notices() {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path().join("images");
    let Some(mounted) = Mounted::new(&root, "4m") else {
        return;
    };
    write(&root.join("a.sif"), &sif("a:1", 1));
    let site = Site::watched(&root);
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

/// A mount changes nothing of the directory that it hides, nor of the one above.
#[test]
fn what_a_mount_has_hidden_is_listed_once_it_is_gone() {
    let tree = tempfile::tempdir().unwrap();
    let at = |path: &str| tree.path().join(path);
    for (path, number) in [
        ("known/deep/a.sif", 1),
        ("known/b.sif", 2),
        ("new/c.sif", 3),
    ] {
        write(&at(path), &sif(&format!("image{number}:1"), number));
    }
    let (known, new) = (at("known"), at("new"));
    let Some(over_new) = Mounted::new(&new, "1m") else {
        return;
    };
    outwait_granularity(tree.path());
    let site = Site::start(tree.path(), None);
    let names = || {
        let listing = site.listing();
        let names = listing.iter().filter_map(|line| line.split(' ').nth(1));
        let mut names: Vec<_> = names.map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["a.sif", "b.sif"]);
    let over_known = Mounted::new(&known, "1m").unwrap();
    // Hidden while it is looked at more than once.
    for full in [false, false, true] {
        let counts = site.rescan(full, true);
        assert_eq!(names(), [""; 0]);
        assert_eq!(counts.mounts_skipped, 2);
    }
    drop(over_known);
    assert_eq!(site.rescan(false, true).mounts_skipped, 1);
    assert_eq!(names(), ["a.sif", "b.sif"]);
    drop(over_new);
    assert_eq!(site.rescan(false, true).mounts_skipped, 0);
    assert_eq!(names(), ["a.sif", "b.sif", "c.sif"]);
}

#[test]
fn mount_points_that_are_not_entered_are_told() {
    let temporary = tempfile::tempdir().unwrap();
    let mounts = ["images/a", "images/b"].map(|name| temporary.path().join(name));
    let Some(_a) = Mounted::new(&mounts[0], "1m") else {
        return;
    };
    let _b = Mounted::new(&mounts[1], "1m").unwrap();
    let agent = Agent::start(temporary.path(), "", "");
    let root = temporary.path().join("images");
    let said = |arguments: &[&str], path: &Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_sifter"))
            .args(arguments)
            .arg(path)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let said = [output.stdout, output.stderr].concat();
        String::from_utf8(said).unwrap()
    };
    let status = said(&["status", "--address"], Path::new(&agent.unix()));
    let line = "2 mount points are not entered (see `cross_file_systems`)\n";
    assert!(status.contains(line), "{status}");
    let scan = said(&["scan"], &root);
    let line = "images: 2 mount points below it are not entered (see --cross-file-systems)\n";
    assert!(scan.contains(line), "{scan}");
    let scan = said(&["scan", "--cross-file-systems"], &root);
    assert!(!scan.contains("entered"), "{scan}");
}

/// Homes are mounted when they are used, go again afterwards, and sometimes cannot be mounted.
#[test]
fn what_an_automounter_does_not_mount_stays_listed() {
    for browse in [true, false] {
        let temporary = tempfile::tempdir().unwrap();
        let at = |name: &str| temporary.path().join(name);
        write(&at("server/a.sif"), &sif("a:1", 1));
        let home = at("home");
        let Some(automounter) = Automounter::new(&home) else {
            return;
        };
        automounter.mount("alice", &at("server"));
        let mut settings = RootSettings::new(home.clone());
        settings.cross_file_systems = true;
        settings.interval = Duration::from_secs(86_400);
        let state = tempfile::tempdir().unwrap();
        let mut site = Site::with(settings.clone(), Some(state.path()));
        assert_eq!(site.listing(), ["a:1 a.sif Ready"]);
        automounter.expire("alice", browse);
        // The first time it is asked in vain, and then not any more.
        for _ in 0..2 {
            site.rescan(false, true);
            assert_eq!(site.listing(), ["a:1 a.sif Unavailable"], "{browse}");
            let last = site.supervisor.status()[0].last.clone().unwrap();
            assert_eq!(last.problems.by_kind, [("NOT_MOUNTED", 1)].into());
        }
        if browse {
            automounter.mount("alice", &at("server"));
            site.rescan(false, true);
            assert_eq!(site.listing(), ["a:1 a.sif Ready"]);
            automounter.expire("alice", browse);
        }
        // Nor is it forgotten where all is read again for other settings.
        drop(site);
        settings.max_depth -= 1;
        site = Site::with(settings, Some(state.path()));
        assert_eq!(site.listing(), ["a:1 a.sif Unavailable"], "{browse}");
        // A name that is gone may be gone for good.
        site.rescan(true, true);
        let kept: &[_] = if browse {
            &["a:1 a.sif Unavailable"]
        } else {
            &[]
        };
        assert_eq!(site.listing(), kept);
    }
}

/// A root with an image, and beside it what is to be mounted there, with an image in itself and one deeper.
fn with_submounts(follow_symlinks: bool) -> (tempfile::TempDir, RootSettings) {
    let temporary = tempfile::tempdir().unwrap();
    let at = |name: &str| temporary.path().join(name);
    write(&at("server/a.sif"), &sif("a:1", 1));
    write(&at("server/deep/er/b.sif"), &sif("b:1", 2));
    write(&at("root/c.sif"), &sif("c:1", 3));
    fs::create_dir_all(at("root/session")).unwrap();
    let mut settings = RootSettings::new(at("root"));
    settings.cross_file_systems = true;
    settings.follow_symlinks = follow_symlinks;
    settings.interval = Duration::from_secs(86_400);
    settings.hints = false;
    (temporary, settings)
}

#[test]
fn what_was_mounted_below_a_root_stays_listed_without_its_mount() {
    for follow_symlinks in [false, true] {
        let (temporary, mut settings) = with_submounts(follow_symlinks);
        let at = |name: &str| temporary.path().join(name);
        outwait_granularity(temporary.path());
        let state = tempfile::tempdir().unwrap();
        let (project, session) = (at("root/project"), at("root/session"));
        let server = at("server");
        let mount = || Mounted::bind(&project, server.to_str().unwrap());
        // One without images comes and goes without a word.
        let (Some(mounted), Some(other)) = (mount(), Mounted::new(&session, "1m")) else {
            return;
        };
        fs::create_dir(session.join("empty")).unwrap();
        let site = Site::with(settings.clone(), Some(state.path()));
        let whole = ["a:1 a.sif Ready", "b:1 b.sif Ready", "c:1 c.sif Ready"];
        assert_eq!(site.listing(), whole, "{follow_symlinks}");

        drop((mounted, other));
        let kept = [
            "a:1 a.sif Unavailable",
            "b:1 b.sif Unavailable",
            "c:1 c.sif Ready",
        ];
        let problems = |site: &Site| {
            let last = site.supervisor.status().remove(0).last.unwrap();
            last.problems.clone()
        };
        for _ in 0..2 {
            site.rescan(false, true);
            assert_eq!(site.listing(), kept, "{follow_symlinks}");
            let problems = problems(&site);
            assert_eq!(problems.by_kind, [("NOT_MOUNTED", 1)].into());
            assert_eq!(problems.first[0].path, project);
        }
        // Nor does an agent forget it that starts without it, reads all again for other settings, or finds the
        // directory gone, too.
        drop(site);
        fs::remove_dir(&project).unwrap();
        let rule = r"project/.*(?P<repository>[a-z])\.(?P<tag>sif)$";
        settings.naming.push(NamingRule::new(rule).unwrap());
        let site = Site::with(settings, Some(state.path()));
        site.rescan(false, true);
        assert_eq!(site.listing(), kept, "{follow_symlinks}");
        assert_eq!(problems(&site).by_kind, [("NOT_MOUNTED", 1)].into());

        let mounted = mount().unwrap();
        site.rescan(false, true);
        let named = ["a:sif a.sif Ready", "b:sif b.sif Ready", "c:1 c.sif Ready"];
        assert_eq!(site.listing(), named, "{follow_symlinks}");
        assert_eq!(problems(&site).by_kind, [].into());

        // It may be gone for good.
        drop(mounted);
        site.rescan(true, true);
        assert_eq!(site.listing(), ["c:1 c.sif Ready"], "{follow_symlinks}");
        site.rescan(false, true);
        assert_eq!(problems(&site).by_kind, [].into());
    }
}

#[test]
fn what_is_mounted_again_is_scanned_without_waiting_for_the_interval() {
    // Each waits for mounts to be done with.
    let scanned = |root, place| {
        let temporary = tempfile::tempdir().unwrap();
        let at = |name: &str| temporary.path().join(name);
        write(&at("server/a.sif"), &sif("a:1", 1));
        fs::create_dir_all(at(root)).unwrap();
        if root != "images" {
            std::os::unix::fs::symlink(root, at("images")).unwrap();
        }
        let point = at(place);
        let mount = || Mounted::bind(&point, at("server").to_str().unwrap());
        let Some(mounted) = mount() else {
            return;
        };
        let more = "landlock = false\n[defaults]\ninterval = '1d'\nhints = false\ncross_file_systems = true\n";
        let agent = Agent::start(temporary.path(), "", more);
        let asked = |arguments: &[&str]| {
            let asked = sifter()
                .args(arguments)
                .args(["--address", &agent.unix()])
                .output();
            String::from_utf8(asked.unwrap().stdout).unwrap()
        };
        let are = |status: &str| {
            let filter = format!("status={status}");
            asked(&["ls", "-q", "--filter", &filter]).lines().count() == 1
        };
        assert!(are("READY"), "{root} {place}");
        drop(mounted);
        asked(&["rescan"]);
        assert!(are("UNAVAILABLE"), "{root} {place}");
        let _mounted = mount();
        until("it is scanned", || are("READY"));
    };
    std::thread::scope(|scope| {
        scope.spawn(|| scanned("images", "images"));
        scope.spawn(|| scanned("images", "images/project"));
        scope.spawn(|| scanned("linked", "images/project"));
    });
}

/// An agent that knows nothing yet, started before its file system is mounted, must not list an empty one.
#[test]
fn an_empty_root_that_is_to_be_mounted_is_not_taken_for_empty() {
    let temporary = tempfile::tempdir().unwrap();
    let at = |name: &str| temporary.path().join(name);
    fs::create_dir(at("images")).unwrap();
    std::os::unix::fs::symlink("images", at("link")).unwrap();
    for (root, place, is_listed) in [
        ("images", "images", false),
        ("images", "images-other", true),
        ("link", "images", false),
        // What is mounted there is mounted where the link leads.
        ("link", "link", true),
    ] {
        let (root, place) = (at(root), at(place));
        let line = format!("server:/images {} nfs4 defaults 0 0", place.display());
        fs::write(at("fstab"), line).unwrap();
        let socket = at("agent.sock");
        let config = format!(
            "listen = ['unix:{}']\n[[root]]\npath = '{}'\n",
            socket.display(),
            root.display()
        );
        fs::write(at("agent.toml"), config).unwrap();
        // With a table of its own.
        let mut agent = Command::new("unshare")
            .args(["--mount", "sh", "-c"])
            .arg("mount --bind \"$1\" /etc/fstab && exec \"$0\" agent --config \"$2\"")
            .arg(sifter().get_program())
            .args([at("fstab"), at("agent.toml")])
            .stdout(fs::File::create(at("out")).unwrap())
            .stderr(fs::File::create(at("log")).unwrap())
            .spawn()
            .unwrap();
        let asked = |arguments: &[&str]| {
            let address = format!("unix:{}", socket.display());
            sifter()
                .args(arguments)
                .args(["--address", &address])
                .output()
                .unwrap()
        };
        let mut ended = false;
        until("the first scan, or that this user may not mount", || {
            ended = agent.try_wait().unwrap().is_some();
            let log = fs::read_to_string(at("log")).unwrap();
            ended || log.contains("scanned")
        });
        if ended {
            return skip("a table of mounts of its own", "this user may not mount");
        }
        let listed = asked(&["ls", "-q"]);
        assert_eq!(listed.status.success(), is_listed, "{listed:?}");
        let said = String::from_utf8_lossy(&listed.stderr).into_owned();
        assert_eq!(said.contains("/etc/fstab"), !is_listed, "{said}");
        // Who knows better says so.
        asked(&["rescan", "--full"]);
        assert!(asked(&["ls", "-q"]).status.success());
        agent.kill().unwrap();
        agent.wait().unwrap();
    }
}
