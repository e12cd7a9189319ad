//! `kill -9` at any moment of scans and commits: the next start serves a listing of what was there
//! once, and one scan makes it what is there now.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use sifter_tests::agent::Agent;
use sifter_tests::agent::Options;
use sifter_tests::agent::runtime;
use sifter_tests::sif::Tiny;
use sifter_tests::wait;
use tempfile::TempDir;

/// How often the agent is killed, unless `SIFTER_CRASHES` says otherwise.
const CRASHES: u32 = 20;
const DIRECTORIES: u32 = 40;
const IMAGES: u32 = 400;
/// A start, its scan and its commits take less, on an idle machine.
const LIFETIME_MAX: Duration = Duration::from_millis(300);
/// After so many crashes an agent may live, and must tell the truth.
const ROUNDS_UNTRUE: u32 = 5;

/// The images on disk, and every reference that each path ever had.
struct Tree {
    dir: TempDir,
    now: BTreeMap<PathBuf, String>,
    ever: BTreeSet<(PathBuf, String)>,
    written: u32,
    random: fastrand::Rng,
}

impl Tree {
    fn new() -> Self {
        let dir = TempDir::new().expect("tree");
        for number in 0..DIRECTORIES {
            fs::create_dir(dir.path().join(format!("d{number:02}"))).expect("directory");
        }
        let mut tree = Self {
            dir,
            now: BTreeMap::new(),
            ever: BTreeSet::new(),
            written: 0,
            random: fastrand::Rng::with_seed(7),
        };
        for _ in 0..IMAGES {
            tree.write();
        }
        tree
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.random.u32(..bound)
    }

    fn path(&mut self) -> PathBuf {
        let (directory, name) = (
            self.below(DIRECTORIES),
            self.below(IMAGES / DIRECTORIES * 2),
        );
        self.dir
            .path()
            .join(format!("d{directory:02}/i{name:02}.sif"))
    }

    fn is(&mut self, path: PathBuf, reference: String) {
        self.ever.insert((path.clone(), reference.clone()));
        self.now.insert(path, reference);
    }

    /// A new image, in a new file or over an old one.
    fn write(&mut self) {
        let path = self.path();
        self.written += 1;
        let reference = format!("tool{}:1.{}", self.written % 7, self.written);
        Tiny::numbered(self.written, &reference).write(&path);
        self.is(path, reference);
    }

    fn any(&mut self) -> Option<PathBuf> {
        let index = self.below(u32::try_from(self.now.len()).ok()?.max(1));
        self.now.keys().nth(index as usize).cloned()
    }

    fn change(&mut self) {
        match self.below(4) {
            0 => {
                if let Some(path) = self.any() {
                    fs::remove_file(&path).expect("remove");
                    self.now.remove(&path);
                }
            }
            1 => {
                let to = self.path();
                if let Some(from) = self.any().filter(|from| *from != to) {
                    fs::rename(&from, &to).expect("rename");
                    if let Some(reference) = self.now.remove(&from) {
                        self.is(to, reference);
                    }
                }
            }
            _ => self.write(),
        }
    }
}

fn listed(agent: &Agent) -> Vec<(PathBuf, String)> {
    runtime()
        .block_on(agent.all())
        .into_iter()
        .map(|image| {
            let reference = format!("{}:{}", image.repository, image.tag);
            (PathBuf::from(image.path), reference)
        })
        .collect()
}

fn start(tree: &Tree, state: &Path) -> Agent {
    Agent::start(Options::roots([tree.dir.path()]).state_dir(state))
}

#[test]
fn a_crash_loses_nothing_that_was_true() {
    let crashes = std::env::var("SIFTER_CRASHES")
        .ok()
        .map_or(CRASHES, |text| text.parse().expect("SIFTER_CRASHES"));
    let mut tree = Tree::new();
    let state = TempDir::new().expect("state");
    let mut served = 0;
    for crash in 0..crashes {
        for _ in 0..1 + tree.below(20) {
            tree.change();
        }
        let mut agent = start(&tree, state.path());
        let ready = runtime().block_on(agent.status()).expect("status").ready;
        if ready {
            served += 1;
            let listing = listed(&agent);
            let mut paths = BTreeSet::new();
            for (path, reference) in &listing {
                let known = tree.ever.contains(&(path.clone(), reference.clone()));
                assert!(known, "crash {crash}: {path:?} was never {reference}");
                assert!(paths.insert(path), "crash {crash}: {path:?} twice");
            }
        }
        if crash % ROUNDS_UNTRUE == ROUNDS_UNTRUE - 1 {
            agent.wait_until_ready();
            agent.scan();
            let listing: BTreeMap<_, _> = listed(&agent).into_iter().collect();
            assert_eq!(listing, tree.now, "crash {crash}");
        } else {
            wait::moment(LIFETIME_MAX.mul_f64(tree.random.f64()));
        }
        agent.process.kill();
    }
    assert!(served > 0, "no start found a catalogue");
}
