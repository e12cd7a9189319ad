//! A catalogue that follows a tree scan by scan knows what one that is scanned from scratch knows,
//! whatever happens to the tree.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::{settings, start_over, wait};
use crate::catalog::{Catalog, RootIndex};
use crate::config::RootSettings;
use crate::scan::submounts::is_within;
use crate::scan::supervisor::{Request, Supervisor};

const ROOT: RootIndex = RootIndex(0);

/// Directories by number, parents first.
const DIRECTORIES: &[&str] = &["", "a", "b", "a/a", "a/b", "b/a", "a/a/a", "b/a/b"];

/// Names of files and links: two of images, one that only its content makes one, one of something else.
const FILES: &[&str] = &["x.sif", "y.img", "z", "w.txt", "a", "b"];

/// What happens to a tree: entries are numbers of directories and of names in them.
#[derive(Debug, Clone)]
enum Step {
    Write(Entry, u8),
    Directory(usize),
    Remove(Entry),
    Rename(Entry, Entry),
    Link(Entry, Entry),
    Symlink(Entry, usize),
    Mode(Entry),
    /// The mark of a sandbox comes, or goes.
    Sandbox(usize),
    Label(usize, u8),
    /// A scan of the whole root, or of the directories in which something happened.
    Scan {
        whole: bool,
    },
}

type Entry = (usize, usize);

fn place() -> impl Strategy<Value = Entry> {
    (0..DIRECTORIES.len(), 0..FILES.len())
}

fn step() -> impl Strategy<Value = Step> {
    let directory = || 0..DIRECTORIES.len();
    prop_oneof![
        6 => (place(), 0u8..8).prop_map(|(place, content)| Step::Write(place, content)),
        4 => directory().prop_map(Step::Directory),
        3 => place().prop_map(Step::Remove),
        5 => (place(), place()).prop_map(|(from, to)| Step::Rename(from, to)),
        2 => (place(), place()).prop_map(|(from, to)| Step::Link(from, to)),
        2 => (place(), directory()).prop_map(|(at, to)| Step::Symlink(at, to)),
        1 => place().prop_map(Step::Mode),
        2 => directory().prop_map(Step::Sandbox),
        1 => (directory(), 0u8..4).prop_map(|(at, label)| Step::Label(at, label)),
        6 => any::<bool>().prop_map(|whole| Step::Scan { whole }),
    ]
}

/// A tree, and where something happened in it since the last scan.
struct Tree {
    root: PathBuf,
    touched: BTreeSet<Box<[u8]>>,
    /// Directories that come, go or have another name: what is there afterwards is watched anew, and looked at for it.
    moved: Vec<Box<[u8]>>,
}

impl Tree {
    /// Where an entry really is: what happens may take away the links that led there.
    fn at(&self, (directory, name): Entry) -> io::Result<PathBuf> {
        let directory = self.root.join(DIRECTORIES[directory]).canonicalize()?;
        Ok(directory.join(FILES[name]))
    }

    /// What inotify would say of an entry that comes, changes or goes, whichever links lead to it.
    fn touch(&mut self, path: &Path) {
        let directory = path.parent().and_then(|parent| parent.canonicalize().ok());
        let directory = directory.expect("it was there just now");
        if let Ok(directory) = directory.strip_prefix(&self.root) {
            let directory = directory.as_os_str().as_encoded_bytes();
            self.touched.insert(directory.into());
        }
    }

    fn touch_directory(&mut self, path: &Path) {
        self.touch(path);
        let parent = path.parent().and_then(|parent| parent.canonicalize().ok());
        let path = parent.unwrap().join(path.file_name().unwrap());
        let path = path.strip_prefix(&self.root).unwrap();
        self.moved.push(path.as_os_str().as_encoded_bytes().into());
    }

    /// Does it, if it can be done.
    fn take(&mut self, step: &Step) -> io::Result<()> {
        match *step {
            Step::Write(at, content) => {
                let path = self.at(at)?;
                fs::write(&path, image(content))?;
                // Through a link that led nowhere it has made a file elsewhere.
                self.touch(&path.canonicalize()?);
            }
            Step::Directory(at) => {
                let path = self.root.join(DIRECTORIES[at]);
                fs::create_dir(&path)?;
                self.touch_directory(&path);
            }
            Step::Remove(at) => {
                let path = self.at(at)?;
                if path.symlink_metadata()?.is_dir() {
                    fs::remove_dir_all(&path)?;
                } else {
                    fs::remove_file(&path)?;
                }
                self.touch_directory(&path);
            }
            Step::Rename(from, to) => {
                let (from, to) = (self.at(from)?, self.at(to)?);
                fs::rename(&from, &to)?;
                self.touch_directory(&from);
                self.touch_directory(&to);
            }
            Step::Link(from, to) => {
                let (from, to) = (self.at(from)?, self.at(to)?);
                fs::hard_link(&from, &to)?;
                self.touch(&to);
                // Its links have changed, which only directories that have it are told of.
                self.touch(&from);
            }
            Step::Symlink(at, to) => {
                let path = self.at(at)?;
                symlink(self.root.join(DIRECTORIES[to]), &path)?;
                self.touch(&path);
            }
            Step::Mode(at) => {
                let path = self.at(at)?.canonicalize()?;
                let metadata = path.metadata()?;
                let mode = metadata.mode() ^ 0o001;
                fs::set_permissions(&path, Permissions::from_mode(mode))?;
                self.touch(&path);
                // A directory that is watched is itself told of it.
                if metadata.is_dir() {
                    self.touch(&path.join(FILES[0]));
                }
            }
            Step::Sandbox(at) => {
                let mark = self.root.join(DIRECTORIES[at]).join(".singularity.d");
                match fs::create_dir(&mark) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        fs::remove_dir_all(&mark)?;
                    }
                    made => made?,
                }
                self.touch(&mark);
            }
            Step::Label(at, label) => {
                let mark = self.root.join(DIRECTORIES[at]).join(".singularity.d");
                let labels = mark.join("labels.json");
                fs::write(
                    &labels,
                    format!("{{\"org.label-schema.name\":\"{label}\"}}"),
                )?;
                // Nothing inside a sandbox is watched.
                self.touch(&mark);
            }
            Step::Scan { .. } => {}
        }
        Ok(())
    }
}

/// The beginning of a SIF, of two lengths, or something else. None is so short that only what is known of it makes
/// it worth a look.
fn image(content: u8) -> Vec<u8> {
    let length = if content > 4 { 5000 } else { 6000 };
    let header: &[u8] = if content == 0 {
        b""
    } else {
        b"SIF_MAGIC\x0001\0"
    };
    [&[b'#'; 32], header, &vec![content; length]].concat()
}

/// All that is listed, but for what only says how it came to be known.
fn listed(catalog: &Catalog) -> Vec<String> {
    let snapshot = catalog.snapshot();
    let mut lines: Vec<_> = (snapshot.rows.iter())
        .map(|row| {
            let mut row = row.view();
            row.id = 0;
            row.facts.accessed = crate::catalog::FileTime(0);
            row.facts.born = None;
            format!("{} {row:?}", String::from_utf8_lossy(row.path))
        })
        .collect();
    lines.sort();
    lines
}

fn start(settings: &RootSettings) -> (Arc<Catalog>, Arc<Supervisor>) {
    let catalog = Arc::new(Catalog::open(None, std::slice::from_ref(&settings.path)));
    let supervisor = start_over(&catalog, vec![settings.clone()]);
    (catalog, supervisor)
}

/// A scan of the whole root, or of directories in which something happened.
fn scan(supervisor: &Supervisor, whole: bool, hinted: BTreeSet<Box<[u8]>>) {
    let number = supervisor.roots[0].request(Request {
        whole,
        hinted,
        ..Request::default()
    });
    wait(supervisor, ROOT, number);
}

/// Waits until a file that is changed now has another time than one that was changed before.
fn next_tick(scratch: &Path) {
    let time = || {
        fs::write(scratch, "").unwrap();
        let metadata = scratch.metadata().unwrap();
        (metadata.ctime(), metadata.ctime_nsec())
    };
    let first = time();
    while time() == first {
        std::thread::yield_now();
    }
}

fn follow(steps: &[Step], follow_symlinks: bool) -> Result<(), TestCaseError> {
    let directory = tempfile::tempdir().unwrap();
    let mut tree = Tree {
        root: directory.path().canonicalize().unwrap().join("tree"),
        touched: BTreeSet::new(),
        moved: Vec::new(),
    };
    // Most of them are there at first, so that what happens has something to happen to.
    for directory in &DIRECTORIES[..DIRECTORIES.len() - 2] {
        fs::create_dir(tree.root.join(directory)).unwrap();
    }
    let scratch = directory.path().join("scratch");
    let mut settings = settings(&tree.root);
    settings.follow_symlinks = follow_symlinks;
    settings.transfer_age = Duration::ZERO;
    settings.width = Some(2);
    let (catalog, supervisor) = start(&settings);
    for step in steps {
        // What cannot be done is not done.
        let _ = tree.take(step);
        let Step::Scan { whole } = *step else {
            continue;
        };
        scan(&supervisor, whole, std::mem::take(&mut tree.touched));
        let moved = std::mem::take(&mut tree.moved);
        let is_moved = |path: &[u8]| moved.iter().any(|moved| is_within(path, moved));
        let directories = catalog.directories(ROOT, usize::MAX).unwrap();
        let hinted: BTreeSet<_> = directories
            .into_iter()
            .filter(|path| is_moved(path))
            .collect();
        if !hinted.is_empty() {
            scan(&supervisor, false, hinted);
        }
        let (fresh, other) = start(&settings);
        other.stop(super::PATIENCE);
        prop_assert_eq!(listed(&catalog), listed(&fresh));
        next_tick(&scratch);
        catalog.settle();
    }
    supervisor.stop(super::PATIENCE);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_followed_is_as_what_is_scanned_from_scratch(
        mut steps in prop::collection::vec(step(), 1..60),
        follow_symlinks: bool,
    ) {
        steps.push(Step::Scan { whole: true });
        follow(&steps, follow_symlinks)?;
    }
}

#[test]
fn a_directory_goes_through_a_link_of_its_own() {
    let steps = [
        Step::Symlink((3, 4), 2),
        Step::Rename((0, 4), (6, 0)),
        Step::Scan { whole: true },
    ];
    follow(&steps, false).unwrap();
}

#[test]
fn what_was_hinted_at_while_the_root_was_away_is_seen_when_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let [root, away, scratch] = ["tree", "away", "scratch"].map(|name| directory.path().join(name));
    fs::create_dir(&root).unwrap();
    fs::write(root.join("x.sif"), image(2)).unwrap();
    let settings = settings(&root);
    let (catalog, supervisor) = start(&settings);
    next_tick(&scratch);
    catalog.settle();
    fs::rename(&root, &away).unwrap();
    // In place, of which no directory tells.
    fs::write(away.join("x.sif"), image(3)).unwrap();
    scan(&supervisor, false, BTreeSet::from([Box::default()]));
    fs::rename(&away, &root).unwrap();
    scan(&supervisor, true, BTreeSet::new());
    let (fresh, other) = start(&settings);
    assert_eq!(listed(&catalog), listed(&fresh));
    for supervisor in [supervisor, other] {
        supervisor.stop(super::PATIENCE);
    }
}
