//! What a caller sees of a real directory, and whose views are whose.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::permission::Subject;
use super::places::{Basis, Evaluation, Places};
use super::{Rows, Sights, VIEW_ROWS, VIEWS, View, Views, Visibility, lock};
use crate::catalog::testing::row;
use crate::catalog::{Commons, FileTime, KeptRow, Snapshot};
use crate::config::{AccessSettings, PlainTcp};

/// A root with directories and files that anybody may read.
struct Site(tempfile::TempDir);

impl Site {
    fn new(directories: &[&str], files: &[&str]) -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        set_mode(site.0.path(), 0o755);
        for name in directories {
            fs::create_dir(site.path(name)).unwrap();
            set_mode(&site.path(name), 0o755);
        }
        for name in files {
            fs::write(site.path(name), "image").unwrap();
            set_mode(&site.path(name), 0o444);
        }
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file as a scan of `root` lists it.
    fn scanned(&self, root: &Path, name: &str) -> Arc<KeptRow> {
        let path = self.path(name);
        let facts = fs::metadata(&path).unwrap();
        let mut row = row(1, path.to_str().unwrap(), "a", "1");
        row.root = root.to_str().unwrap();
        row.facts.inode = facts.ino();
        let nanoseconds = u32::try_from(facts.ctime_nsec()).unwrap();
        row.facts.changed = FileTime::new(facts.ctime(), nanoseconds);
        Arc::new(KeptRow::new(&row, &mut Commons::default()))
    }

    /// Whoever runs this, who may pass all directories above; the superuser may pass everything.
    fn subject(&self) -> Subject {
        Subject {
            uid: Some(fs::metadata(self.0.path()).unwrap().uid().max(1)),
            groups: [].into(),
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The same, so that the change time tells: a clock that is coarse may not have gone on.
fn change_mode(path: &Path, mode: u32) {
    let changed = || {
        let facts = fs::metadata(path).unwrap();
        (facts.ctime(), facts.ctime_nsec())
    };
    let before = changed();
    while changed() == before {
        set_mode(path, mode);
    }
}

#[test]
fn a_file_is_judged_by_its_mode_and_only_if_it_is_the_one_that_was_scanned() {
    let site = Site::new(&[], &["a.sif", "b.sif"]);
    let (file, subject, places) = (site.path("a.sif"), site.subject(), Places::default());
    let sees =
        |places: &Places, row: &KeptRow| Evaluation::new(places, &subject, Basis::Now).sees(row);
    let first = site.scanned(site.0.path(), "a.sif");
    // Changed since the scan: looked at each time.
    for (mode, expected) in [(0o000, false), (0o444, true), (0o000, false)] {
        change_mode(&file, mode);
        assert_eq!(sees(&places, &first), expected, "{mode:o}");
    }
    // What was remembered of the file as it was scanned says nothing of it once a scan has seen it change.
    change_mode(&file, 0o444);
    assert!(sees(&places, &site.scanned(site.0.path(), "a.sif")));
    change_mode(&file, 0o000);
    assert!(!sees(&places, &site.scanned(site.0.path(), "a.sif")));
    // Another file of that name is not what is listed.
    fs::rename(site.path("b.sif"), &file).unwrap();
    change_mode(&file, 0o444);
    assert!(!sees(&Places::default(), &first));
    assert!(sees(&places, &site.scanned(site.0.path(), "a.sif")));
}

#[test]
fn the_way_to_an_image_goes_from_its_root_through_all_links() {
    let site = Site::new(
        &["enter", "far", "far/inner", "near"],
        &["enter/a.sif", "near/a.sif"],
    );
    set_mode(&site.path("enter"), 0o111);
    let link = |name: &str, target: &str| symlink(target, site.path(name)).unwrap();
    link("up", "far/inner/../../near");
    link("closed", "far/../near");
    link("loop", "loop");
    link("file.sif", "near/../near/a.sif");
    let root = site.0.path();
    let in_enter = site.path("enter/a.sif");
    let far_is_closed = || set_mode(&site.path("far"), 0o000);
    for (name, root, before, expected) in [
        ("near/a.sif", root, None, true),
        ("up/a.sif", root, None, true),
        ("file.sif", root, None, true),
        // It may be entered, and its names are nobody's to know, unless the image is the root itself.
        ("enter/a.sif", root, None, false),
        ("enter/a.sif", &in_enter, None, true),
        ("closed/a.sif", root, None, true),
        ("closed/a.sif", root, Some(&far_is_closed), false),
    ] {
        let row = site.scanned(root, name);
        if let Some(close) = before {
            close();
        }
        let subject = site.subject();
        let (places, basis) = (Places::default(), Basis::Now);
        let sees = Evaluation::new(&places, &subject, basis).sees(&row);
        assert_eq!(sees, expected, "{name} of {}", root.display());
    }
    let path = site.path("loop/a.sif");
    let mut looping = row(1, path.to_str().unwrap(), "a", "1");
    looping.root = root.to_str().unwrap();
    let looping = KeptRow::new(&looping, &mut Commons::default());
    let subject = site.subject();
    assert!(!Evaluation::new(&Places::default(), &subject, Basis::Now).sees(&looping));
    set_mode(&site.path("far"), 0o755);
}

fn visibility() -> Visibility {
    let settings = AccessSettings {
        admin_group: String::new(),
        admin_group_configured: false,
        plain_tcp: PlainTcp::default(),
    };
    let sights = Sights::new(settings, Box::new(|_| true));
    Visibility::new(Arc::new(sights), Arc::new(|| true))
}

fn listing(rows: Vec<Arc<KeptRow>>, unavailable: &[&Path]) -> Snapshot {
    let bytes = |path: &&Path| Box::from(path.as_os_str().as_bytes());
    let unavailable: BTreeMap<_, _> = unavailable
        .iter()
        .map(|path| (bytes(path), "away".to_owned()))
        .collect();
    Snapshot::default().next(rows, &[], unavailable, None).0
}

#[tokio::test]
async fn a_view_is_of_one_caller_and_one_generation() {
    let site = Site::new(&[], &["a.sif"]);
    let (visibility, subject) = (visibility(), site.subject());
    let first = listing(vec![site.scanned(site.0.path(), "a.sif")], &[]);
    let (second, _) = first.next(Vec::new(), &[1], BTreeMap::new(), None);
    let view = visibility.view(1, &subject, &first, |_| true).await;
    assert_eq!(view.of(&first).rows.len(), 1);
    let again = visibility.view(1, &subject, &first, |_| true).await;
    assert!(Arc::ptr_eq(&view, &again), "kept for a while");
    let nobody = Subject {
        uid: None,
        groups: [].into(),
    };
    let other = visibility.view(2, &nobody, &first, |_| true).await;
    assert!(!Arc::ptr_eq(&view, &other), "somebody else's");
    let later = visibility.view(1, &subject, &second, |_| true).await;
    assert_eq!(later.of(&second).rows.len(), 0);
    for (caller, generation, stamp, expected) in [
        (1, first.generation, view.stamp, true),
        (2, first.generation, view.stamp, false),
        (1, second.generation, view.stamp, false),
        (1, first.generation, later.stamp, false),
    ] {
        let held = visibility.held(caller, generation, stamp);
        assert_eq!(held.is_some(), expected, "{caller} {generation} {stamp}");
    }
}

#[tokio::test]
async fn what_views_were_made_of_is_given_back_unless_it_cannot_be_had_again() {
    let site = Site::new(&["d"], &["d/a.sif"]);
    let whole = listing(vec![site.scanned(site.0.path(), "d/a.sif")], &[]);
    let (asked, answers) = (Arc::new(AtomicU32::new(0)), 3);
    let mut visibility = visibility();
    let (so_often, places) = (Arc::clone(&asked), Arc::clone(&visibility.places));
    visibility.idle = Duration::ZERO;
    // A directory is away, and comes back.
    visibility.all_there = Arc::new(move || {
        assert!(!places.is_empty());
        so_often.fetch_add(1, Ordering::Relaxed) + 1 == answers
    });
    let view = visibility.view(1, &site.subject(), &whole, |_| true).await;
    assert_eq!(view.of(&whole).rows.len(), 1);
    assert!(!visibility.places.is_empty());
    let given_back = async {
        while !visibility.places.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    let given_back = tokio::time::timeout(Duration::from_secs(60), given_back).await;
    given_back.expect("it is given back");
    assert_eq!(asked.load(Ordering::Relaxed), answers);
    assert!(visibility.held(1, whole.generation, view.stamp).is_none());
}

#[tokio::test]
async fn a_view_that_is_used_is_not_given_back() {
    let site = Site::new(&[], &["a.sif"]);
    let whole = listing(vec![site.scanned(site.0.path(), "a.sif")], &[]);
    let (visibility, subject) = (visibility(), site.subject());
    let end = || {
        lock(&visibility.giving_back)
            .clone()
            .expect("it has an end")
    };
    let view = visibility.view(1, &subject, &whole, |_| true).await;
    // Another page of it, and the first one once more.
    let before = end();
    visibility.held(1, whole.generation, view.stamp).unwrap();
    let between = end();
    visibility.view(1, &subject, &whole, |_| true).await;
    tokio::task::yield_now().await;
    assert!(before.is_finished() && between.is_finished());
    assert!(!end().is_finished());
    // Nobody has that one.
    let before = end();
    assert!(visibility.held(2, whole.generation, view.stamp).is_none());
    tokio::task::yield_now().await;
    assert!(!before.is_finished());
}

#[tokio::test]
async fn a_root_that_does_not_answer_is_named_and_the_others_are_shown() {
    let mut sites = [(); 3].map(|()| Site::new(&[], &["a.sif"]));
    sites.sort_by(|one, other| one.0.path().cmp(other.0.path()));
    // The listing is in another order than the roots.
    let rows = sites.iter().zip(1..).zip(["c", "b", "a"]);
    let rows = rows.map(|((site, id), repository)| {
        let found = site.scanned(site.0.path(), "a.sif");
        let mut row = found.view();
        (row.id, row.repository) = (id, repository);
        Arc::new(KeptRow::new(&row, &mut Commons::default()))
    });
    let whole = listing(rows.collect(), &[]);
    let visibility = visibility();
    // As if it were never its turn.
    let silent = Arc::new(Semaphore::new(0));
    silent.close();
    let root = sites[2].0.path().to_str().unwrap();
    lock(&visibility.roots).insert(root.into(), silent);
    let view = visibility
        .view(1, &sites[0].subject(), &whole, |_| true)
        .await;
    assert_eq!(view.unanswered, [root]);
    let shown: Vec<_> = view.of(&whole).rows.iter().map(|row| row.id()).collect();
    assert_eq!(shown, [2, 1]);
}

#[tokio::test]
async fn a_root_that_is_away_is_not_asked() {
    let site = Site::new(&["d"], &["d/a.sif"]);
    let root = site.0.path();
    let directory = site.path("d");
    for (unavailable, expected) in [(None, 1), (Some(&*directory), 1), (Some(root), 0)] {
        let unavailable: Vec<&Path> = unavailable.into_iter().collect();
        let whole = listing(vec![site.scanned(root, "d/a.sif")], &unavailable);
        let view = visibility()
            .view(1, &site.subject(), &whole, |_| true)
            .await;
        assert_eq!(view.of(&whole).rows.len(), expected, "{unavailable:?}");
    }
}

#[test]
fn views_are_bounded_by_what_they_cost_and_by_what_is_still_held() {
    let view = |(generation, own): (u64, usize)| {
        Arc::new(View {
            caller: 1,
            generation,
            stamp: 0,
            computed: Instant::now(),
            rows: Rows::default(),
            own,
            unanswered: Vec::new(),
        })
    };
    let small = |count: u64| -> Vec<_> { (1..=count).map(|number| (number, 0)).collect() };
    let half = VIEW_ROWS / 2;
    let cases = [
        (small(VIEWS as u64 + 2), 0, VIEWS),
        (small(5), 4, 2),
        (vec![(1, half), (2, half)], 0, 2),
        (vec![(1, half), (2, half), (3, 1)], 0, 2),
        (vec![(1, 1), (2, VIEW_ROWS + 1)], 0, 1),
    ];
    for (kept, oldest, left) in cases {
        let mut views = Views::default();
        let newest = kept.last().map(|(generation, _)| *generation);
        for kept in &kept {
            views.keep(view(*kept), |generation| generation >= oldest);
        }
        assert_eq!(views.0.len(), left, "{kept:?}");
        assert_eq!(views.0.back().map(|view| view.generation), newest);
    }
}
