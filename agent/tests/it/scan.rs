//! The walk, the catalogue and the plan together, over real trees: what is found, what is read
//! again, what a hostile tree can do.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use sifter_agent::catalog::{Catalog, ChangeKind, Content, DirectoryChange, RootIndex};
use sifter_agent::config::RootSettings;
use sifter_agent::scan::{Counts, Progress, Root, ScanOptions, Supervisor};

/// A small SIF: header, four descriptors, a definition of a pulled image.
fn sif(reference: &str, uuid: u8) -> Vec<u8> {
    let definition = format!("bootstrap: docker\nfrom: {reference}\n\n");
    let mut bytes = vec![0; 40_960];
    let mut put = |at: usize, data: &[u8]| bytes[at..at + data.len()].copy_from_slice(data);
    put(0, b"#!/usr/bin/env run-singularity\n");
    put(32, b"SIF_MAGIC\0");
    put(42, b"01\0");
    put(45, b"02\0");
    put(48, &[uuid; 16]);
    put(64, &1_600_000_000_i64.to_le_bytes());
    put(72, &1_700_000_000_i64.to_le_bytes());
    put(80, &46_i64.to_le_bytes());
    put(88, &48_i64.to_le_bytes());
    put(96, &4096_i64.to_le_bytes());
    put(104, &(48 * 585_i64).to_le_bytes());
    put(112, &32_768_i64.to_le_bytes());
    put(120, &8192_i64.to_le_bytes());
    let mut descriptor = |slot: usize, kind: i32, offset: i64, size: i64| {
        let at = 4096 + slot * 585;
        put(at, &kind.to_le_bytes());
        put(at + 4, &[1]);
        put(at + 5, &u32::try_from(slot + 1).unwrap().to_le_bytes());
        put(at + 9, &0xf000_0001_u32.to_le_bytes());
        put(at + 17, &offset.to_le_bytes());
        put(at + 25, &size.to_le_bytes());
        put(at + 33, &size.to_le_bytes());
    };
    let length = i64::try_from(definition.len()).unwrap();
    descriptor(0, 0x4001, 32_768, length);
    descriptor(1, 0x4004, 36_864, 4096);
    put(4096 + 585 + 201, &1_i32.to_le_bytes());
    put(4096 + 585 + 205, &2_i32.to_le_bytes());
    put(4096 + 585 + 209, b"02\0");
    put(32_768, definition.as_bytes());
    // A superblock of squashfs 4.0 with gzip.
    put(36_864, b"hsqs");
    for (at, value, length) in [
        (4, 5_u64, 4),
        (8, 1_600_000_000, 4),
        (12, 131_072, 4),
        (20, 1, 2),
        (22, 17, 2),
        (28, 4, 2),
        (40, 4096, 8),
    ] {
        put(36_864 + at, &value.to_le_bytes()[..length]);
    }
    bytes
}

/// Files that are old enough not to be "racy".
fn settle(path: &Path) {
    let old = SystemTime::now() - Duration::from_secs(86_400);
    for entry in walkdir::WalkDir::new(path).contents_first(true) {
        let entry = entry.unwrap();
        if !entry.file_type().is_symlink() {
            let file = fs::File::open(entry.path()).unwrap();
            file.set_times(fs::FileTimes::new().set_modified(old))
                .unwrap();
        }
    }
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn scan_once(settings: &RootSettings) -> (Vec<String>, Counts, u64) {
    let progress = Arc::new(Progress::default());
    let root = Root::open(settings, &progress).unwrap();
    let found = Mutex::new(Vec::new());
    let sink = |change: DirectoryChange| {
        if let ChangeKind::Read { found: files, .. } = change.kind {
            let mut found = found.lock().unwrap();
            for file in files {
                if let Content::Image(image) = file.content {
                    let directory = String::from_utf8_lossy(&change.path).into_owned();
                    let name = String::from_utf8_lossy(&file.name).into_owned();
                    found.push(format!("{directory}/{name} {}", image.reference.repository));
                }
            }
        }
    };
    root.scan(settings, ScanOptions::default(), None, &progress, &sink)
        .unwrap();
    let mut found = found.into_inner().unwrap();
    found.sort();
    (found, progress.counts(), progress.problems().count())
}

#[test]
fn images_are_found_by_content_wherever_they_are() {
    let tree = tempfile::tempdir().unwrap();
    let at = |path: &str| tree.path().join(path);
    write(&at("a/one.sif"), &sif("alpha:1", 1));
    write(&at("a/b/c/d/two:1.0--h1"), &sif("beta:2", 2));
    write(
        &at("a/text.sif"),
        b"just a camera's raw image, no container at all, but long enough",
    );
    write(&at("a/script.py"), &sif("hidden:1", 3));
    write(&at("node_modules/x.sif"), &sif("skipped:1", 4));
    write(&at("a/small"), b"tiny");
    let (found, counts, problems) = scan_once(&RootSettings::new(tree.path().into()));
    assert_eq!(found, ["a/b/c/d/two:1.0--h1 beta", "a/one.sif alpha"]);
    assert_eq!(counts.images, 2);
    assert_eq!(counts.misnamed, 1);
    assert_eq!(problems, 0);

    let mut all = RootSettings::new(tree.path().into());
    all.candidates = sifter_agent::config::Candidates::All;
    all.skip.clear();
    assert_eq!(scan_once(&all).0.len(), 4);
}

#[test]
fn a_hostile_tree_leads_nowhere() {
    let outside = tempfile::tempdir().unwrap();
    write(&outside.path().join("secret.sif"), &sif("secret:1", 9));
    let tree = tempfile::tempdir().unwrap();
    let at = |path: &str| tree.path().join(path);
    write(&at("good.sif"), &sif("good:1", 1));
    symlink(outside.path(), at("out")).unwrap();
    symlink(outside.path().join("secret.sif"), at("link.sif")).unwrap();
    symlink(".", at("loop")).unwrap();
    nix::unistd::mkfifo(&at("fifo.sif"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket.sif")).unwrap();
    symlink("/dev/zero", at("zero.sif")).unwrap();
    write(&at("\u{1b}[2Jname.sif"), &sif("escape:1", 2));
    let mut deep = at("deep");
    for _ in 0..300 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    let (found, _, problems) = scan_once(&RootSettings::new(tree.path().into()));
    assert_eq!(found, ["/\u{1b}[2Jname.sif escape", "/good.sif good"]);
    assert_eq!(problems, 1, "the depth is limited, and that is said");

    let mut following = RootSettings::new(tree.path().into());
    following.follow_symlinks = true;
    let (found, ..) = scan_once(&following);
    assert!(
        found.iter().any(|line| line == "out/secret.sif secret"),
        "{found:?}"
    );
    assert!(
        found.iter().any(|line| line == "/link.sif secret"),
        "{found:?}"
    );
    assert_eq!(found.len(), 4, "{found:?}");
}

#[test]
fn a_deep_and_wide_tree_needs_few_descriptors() {
    let tree = tempfile::tempdir().unwrap();
    let mut directory = tree.path().to_path_buf();
    for level in 0..100 {
        for sibling in 0..8 {
            fs::create_dir_all(directory.join(format!("s{sibling}"))).unwrap();
        }
        directory.push(format!("level{level}"));
    }
    write(&directory.join("bottom.sif"), &sif("bottom:1", 1));
    // Far below what holding one descriptor a pending directory would need.
    let (soft, hard) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    nix::sys::resource::setrlimit(
        nix::sys::resource::Resource::RLIMIT_NOFILE,
        400.min(soft),
        hard,
    )
    .unwrap();
    let (found, counts, problems) = scan_once(&RootSettings::new(tree.path().into()));
    assert_eq!(found.len(), 1);
    assert_eq!(counts.directories, 1 + 100 * 9);
    assert_eq!(problems, 0);
}

/// A catalogue with one root and a supervisor that scans when asked.
struct Site {
    catalog: Arc<Catalog>,
    supervisor: Arc<Supervisor>,
}

impl Site {
    fn start(root: &Path, state: Option<&Path>) -> Self {
        let mut settings = RootSettings::new(root.into());
        settings.interval = Duration::from_secs(86_400);
        settings.file_interval = Duration::from_secs(86_400);
        settings.hints = false;
        Self::with(settings, state)
    }

    fn with(settings: RootSettings, state: Option<&Path>) -> Self {
        let path = state.map(|state| state.join("catalog.sqlite"));
        let catalog = Arc::new(Catalog::open(
            path.as_deref(),
            std::slice::from_ref(&settings.path),
        ));
        let supervisor = Supervisor::start(Arc::clone(&catalog), vec![settings]).unwrap();
        let site = Self {
            catalog,
            supervisor,
        };
        site.wait(1);
        site
    }

    fn wait(&self, number: u64) {
        let mut finished = self.supervisor.finished(RootIndex(0)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime
            .block_on(async {
                tokio::time::timeout(
                    Duration::from_secs(60),
                    finished.wait_for(|done| *done >= number),
                )
                .await
                .map(drop)
            })
            .expect("the scan ends");
    }

    fn rescan(&self, full: bool, check_files: bool) -> Counts {
        let number = self.supervisor.request(RootIndex(0), full, check_files);
        self.wait(number);
        self.supervisor.status()[0].last.as_ref().unwrap().counts
    }

    fn listing(&self) -> Vec<String> {
        let snapshot = self.catalog.snapshot();
        snapshot
            .rows
            .iter()
            .map(|row| {
                let row = row.view();
                format!(
                    "{}:{} {} {:?}",
                    row.repository,
                    row.tag,
                    Path::new(std::str::from_utf8(row.path).unwrap())
                        .file_name()
                        .unwrap()
                        .to_str()
                        .unwrap(),
                    snapshot.status(&row).0
                )
            })
            .collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.supervisor.stop(Duration::from_secs(10));
    }
}

fn tree_of(images: usize) -> (tempfile::TempDir, Vec<PathBuf>) {
    let tree = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for index in 0..images {
        let path = tree.path().join(format!("d{}/image{index}.sif", index % 7));
        write(
            &path,
            &sif(
                &format!("image{index}:1"),
                u8::try_from(index % 250 + 1).unwrap(),
            ),
        );
        paths.push(path);
    }
    settle(tree.path());
    (tree, paths)
}

/// Waits until what was just made is no longer within a timestamp's granularity: the change time
/// cannot be set, so that only the clock can make it old.
fn outwait_granularity(tree: &Path) {
    use std::os::unix::fs::MetadataExt;
    let newest = walkdir::WalkDir::new(tree)
        .into_iter()
        .map(|entry| entry.unwrap().metadata().unwrap())
        .map(|metadata| (metadata.ctime(), metadata.ctime_nsec()))
        .max()
        .unwrap();
    let changed = Duration::new(newest.0.try_into().unwrap(), newest.1.try_into().unwrap());
    super::support::until("the change times are old", || {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap();
        now.saturating_sub(changed) > Duration::from_millis(2100)
    });
}

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
    // One stat a directory and one an image, and a handful for the root itself.
    assert!(counts.operations <= 8 + 40 + 6, "{counts:?}");
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
fn moved_images_are_recognised_without_being_read() {
    let (tree, paths) = tree_of(10);
    outwait_granularity(tree.path());
    let site = Site::start(tree.path(), None);
    fs::create_dir(tree.path().join("elsewhere")).unwrap();
    fs::rename(&paths[0], tree.path().join("elsewhere/other-name.sif")).unwrap();
    fs::hard_link(&paths[1], tree.path().join("elsewhere/second-name.sif")).unwrap();
    let counts = site.rescan(false, true);
    // Only the one that got a second name where it was: its change time says that something
    // changed, and does not say what.
    assert_eq!(counts.files_read, 1, "{counts:?}");
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
fn what_changed_within_the_granularity_is_read_again() {
    let (tree, paths) = tree_of(3);
    // Not settled: the change times are now.
    let site = Site::start(tree.path(), None);
    let counts = site.rescan(false, false);
    assert_eq!(
        counts.files_read, 3,
        "racy files are read again: {counts:?}"
    );
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
    // Root may read everything.
    if nix::unistd::geteuid().is_root() {
        return;
    }
    let (tree, _) = tree_of(14);
    let site = Site::start(tree.path(), None);
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
fn a_restart_serves_the_last_listing_before_any_scan() {
    let (tree, _) = tree_of(20);
    let state = tempfile::tempdir().unwrap();
    drop(Site::start(tree.path(), Some(state.path())));
    let catalog = Catalog::open(
        Some(&state.path().join("catalog.sqlite")),
        &[tree.path().to_path_buf()],
    );
    let snapshot = catalog.snapshot();
    assert_eq!(snapshot.rows.len(), 20);
    assert!(snapshot.as_of.is_some());
    let details = catalog.details(snapshot.rows[0].id()).unwrap();
    assert!(details.definition.contains("image"));
    assert_eq!(details.objects.len(), 2);
}

#[test]
fn a_damaged_database_is_set_aside_and_rebuilt() {
    let (tree, _) = tree_of(6);
    let state = tempfile::tempdir().unwrap();
    let file = state.path().join("catalog.sqlite");
    drop(Site::start(tree.path(), Some(state.path())));
    for damage in ["not a database at all, in any way", ""] {
        if damage.is_empty() {
            // Pages of it overwritten: found when it is read.
            let mut bytes = fs::read(&file).unwrap();
            let end = bytes.len();
            bytes[2048..end].fill(0xa5);
            fs::write(&file, bytes).unwrap();
        } else {
            fs::write(&file, damage.repeat(100)).unwrap();
        }
        let _ = fs::remove_file(state.path().join("catalog.sqlite-wal"));
        let _ = fs::remove_file(state.path().join("catalog.sqlite-shm"));
        let site = Site::start(tree.path(), Some(state.path()));
        assert_eq!(site.listing().len(), 6);
        assert_eq!(
            site.catalog.condition(),
            sifter_agent::catalog::Condition::Ok,
            "rebuilt on disk"
        );
        drop(site);
        let aside = fs::read_dir(state.path())
            .unwrap()
            .filter(|entry| {
                let name = entry.as_ref().unwrap().file_name();
                name.to_string_lossy().contains("broken")
            })
            .count();
        assert!(aside >= 1, "the damaged file is kept");
    }
}

#[test]
fn a_directory_in_place_of_the_database_leaves_the_listing_in_memory() {
    let (tree, _) = tree_of(4);
    let state = tempfile::tempdir().unwrap();
    fs::create_dir(state.path().join("catalog.sqlite")).unwrap();
    let site = Site::start(tree.path(), Some(state.path()));
    assert_eq!(site.listing().len(), 4);
    assert!(matches!(
        site.catalog.condition(),
        sifter_agent::catalog::Condition::Failed(_)
    ));
    // Once the way is free, the database is used again.
    fs::remove_dir(state.path().join("catalog.sqlite")).unwrap();
    site.rescan(false, true);
    assert_eq!(site.listing().len(), 4);
    assert_eq!(
        site.catalog.condition(),
        sifter_agent::catalog::Condition::Ok
    );
    drop(site);
    let catalog = Catalog::open(
        Some(&state.path().join("catalog.sqlite")),
        &[tree.path().to_path_buf()],
    );
    assert_eq!(catalog.snapshot().rows.len(), 4);
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
        // Mounted with noatime, or the scan may not use O_NOATIME: there is nothing to see.
        return;
    }
    let counts = site.rescan(false, true);
    assert_eq!(counts.files_read, 0, "{counts:?}");
    assert_eq!(accessed(&site), now);
    assert!(
        site.listing()
            .contains(&"image1:1 image1.sif Ready".to_owned())
    );
}
