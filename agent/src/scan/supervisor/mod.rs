//! When each root is scanned, and what is known of its scans: one thread a root, so that a hung
//! file system stalls no other.

mod hinted;
mod hung;
mod linked;
mod mount;
mod overlap;
mod supervised;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::catalog::{Catalog, FileTime, RootIndex};
use crate::config::RootSettings;
use crate::lock::lock;

use super::bell::Bell;
use super::hint::{self, HintState};
use super::location::Locations;
use super::panics::caught;
use super::progress::{Counts, Problems, Progress};
use super::{FileSystemType, RootFacts, no_thread, wait_for_end};

/// A scan of which no operation came back for so long hangs: its root is UNAVAILABLE until one does.
const HUNG_AFTER: Duration = Duration::from_secs(30);

/// How often running scans are looked at for that.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// How long is waited for threads to end when others cannot be started.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// What a thread runs.
type Run = Box<dyn FnOnce() + Send>;

/// Starts a thread of this name.
type Spawn<'s> = dyn FnMut(&'static str, Run) -> std::io::Result<JoinHandle<()>> + 's;

/// All roots and their scans.
#[derive(Debug)]
pub struct Supervisor {
    catalog: Arc<Catalog>,
    roots: Vec<Arc<Supervised>>,
    locations: Arc<Locations>,
    watcher: Arc<Watcher>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// The thread that looks whether running scans hang. It sleeps while none runs, until it is unparked.
#[derive(Debug, Default)]
struct Watcher(OnceLock<Thread>);

impl Watcher {
    fn wake(&self) {
        // One that has not begun looks at everything when it does.
        if let Some(thread) = self.0.get() {
            thread.unpark();
        }
    }
}

/// One root and its scans.
#[derive(Debug)]
struct Supervised {
    index: RootIndex,
    settings: RootSettings,
    /// Where all of them are.
    locations: Arc<Locations>,
    /// Told that a scan begins, and where the root is found.
    watcher: Arc<Watcher>,
    /// Rung for the thread of the hints, if there is one, when a scan has finished and at the end.
    bell: OnceLock<Arc<Bell>>,
    /// Held by whoever tells the catalogue whether the root can be read, which may take a while: the state is locked
    /// without waiting for that. Taken before the state.
    telling: Mutex<()>,
    state: Mutex<State>,
    wake: Condvar,
    /// Number of the last finished scan.
    finished: watch::Sender<u64>,
    /// How often its status was asked for.
    #[cfg(test)]
    asked: std::sync::atomic::AtomicUsize,
}

#[derive(Debug)]
struct State {
    root_state: RootState,
    /// What it was before the running scan hung, if it is what it is for that alone.
    before_hanging: Option<RootState>,
    facts: Option<RootFacts>,
    last: Option<Arc<ScanReport>>,
    progress: Option<(Arc<Progress>, FileTime)>,
    /// Scans started so far.
    started: u64,
    due: Instant,
    request: Option<Request>,
    /// Directories that were hinted at and not looked at, for the scan failed: the next one has them.
    missed: BTreeSet<Box<[u8]>>,
    hint: HintState,
    stopping: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Request {
    /// The whole root, not only the directories below.
    whole: bool,
    full: bool,
    check_files: bool,
    /// Somebody waits for what has changed until now.
    asked: bool,
    /// Directories, relative to the root, in which something is said to have changed.
    hinted: BTreeSet<Box<[u8]>>,
}

/// State of a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootState {
    /// Not scanned since the agent started.
    Pending,
    /// Scanned.
    Ok,
    /// Cannot be read now.
    Unavailable(String),
}

impl RootState {
    /// Whether it cannot be read now.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// What is known of a root and its scans.
#[derive(Debug, Clone)]
pub struct RootStatus {
    /// Path, as configured.
    pub path: PathBuf,
    /// State.
    pub root_state: RootState,
    /// Whether nothing is known of its images: never scanned to the end.
    pub unknown: bool,
    /// Type of the file system, once it was asked.
    pub file_system: Option<FileSystemType>,
    /// The last finished scan; shared, for every RPC asks and it may have a hundred problems.
    pub last: Option<Arc<ScanReport>>,
    /// The running scan, and when it started.
    pub progress: Option<(Arc<Progress>, FileTime)>,
    /// When the next one is due.
    pub next: Option<FileTime>,
    /// Whether changes between scans are learned of.
    pub hint: HintState,
}

impl RootStatus {
    /// Operations in flight at most: of the running scan, or of the last one; 0 before the first.
    #[must_use]
    pub fn width(&self) -> u32 {
        match (&self.progress, &self.last) {
            (Some((progress, _)), _) => progress.width(),
            (None, Some(last)) => last.width,
            (None, None) => 0,
        }
    }
}

/// A finished scan.
#[derive(Debug, Clone)]
pub struct ScanReport {
    /// When it started.
    pub started: FileTime,
    /// How long it took.
    pub duration: Duration,
    /// What it found and cost.
    pub counts: Counts,
    /// What it could not read.
    pub problems: Problems,
    /// Operations in flight at most, at its end.
    pub width: u32,
    /// Time that its workers waited to keep the rate, all together.
    pub throttled: Duration,
    /// Why there was none at all.
    pub error: Option<String>,
}

// === impl Supervisor ===

impl Supervisor {
    /// Starts scanning: each root at once, then by its interval.
    ///
    /// # Errors
    ///
    /// A thread cannot be started; none is left.
    pub fn start(catalog: Arc<Catalog>, roots: Vec<RootSettings>) -> std::io::Result<Arc<Self>> {
        Self::start_after(catalog, roots, &[], &mut spawn)
    }

    /// The same in place of another one: a root that could not be read is none that can before a scan has
    /// shown it, which takes as long as its file system hangs.
    ///
    /// # Errors
    ///
    /// A thread cannot be started; none is left.
    pub fn start_in_place_of(
        former: &Self,
        catalog: Arc<Catalog>,
        roots: Vec<RootSettings>,
    ) -> std::io::Result<Arc<Self>> {
        Self::start_after(catalog, roots, &former.status(), &mut spawn)
    }

    fn start_after(
        catalog: Arc<Catalog>,
        roots: Vec<RootSettings>,
        former: &[RootStatus],
        spawn: &mut Spawn<'_>,
    ) -> std::io::Result<Arc<Self>> {
        let locations = Arc::new(Locations::new(&roots));
        let watcher = Arc::new(Watcher::default());
        let roots: Vec<Arc<Supervised>> = roots
            .into_iter()
            .enumerate()
            .map(|(index, settings)| {
                Supervised::new(RootIndex(index), settings, &locations, &watcher)
            })
            .map(Arc::new)
            .collect();
        for root in &roots {
            let was = former
                .iter()
                .find(|former| former.path == root.settings.path);
            if let Some(RootState::Unavailable(why)) = was.map(|was| &was.root_state) {
                root.lock().root_state = RootState::Unavailable(why.clone());
                catalog.set_unavailable(root.index, Some(why.clone()));
            }
        }
        let supervisor = Arc::new(Self {
            catalog,
            roots,
            locations,
            watcher,
            threads: Mutex::default(),
        });
        if let Err(error) = supervisor.start_threads(spawn) {
            supervisor.stop(STOP_PATIENCE);
            return Err(error);
        }
        Ok(supervisor)
    }

    fn start_threads(self: &Arc<Self>, spawn: &mut Spawn<'_>) -> std::io::Result<()> {
        let mut start = |name, run| {
            let thread = spawn(name, run)?;
            let mut threads = lock(&self.threads);
            threads.push(thread);
            Ok::<_, std::io::Error>(())
        };
        for root in &self.roots {
            // Before its first scan, the end of which is waited for.
            if root.settings.hints {
                let bell = Arc::new(Bell::new()?);
                let _ = root.bell.set(Arc::clone(&bell));
                hint::start(Arc::clone(root), bell, &self.catalog)?;
            }
            let (root, catalog) = (Arc::clone(root), Arc::clone(&self.catalog));
            start("sifter-root", Box::new(move || root.run(&catalog)))?;
        }
        // This one ends by itself once the supervisor is no more.
        let (watched, watcher) = (Arc::downgrade(self), Arc::clone(&self.watcher));
        let watch = move || {
            let _ = watcher.0.set(std::thread::current());
            while let Some(supervisor) = watched.upgrade() {
                supervisor.catalog.wishes_go_to(std::thread::current());
                supervisor.grant_wishes();
                let is_scanned = caught(|| supervisor.look_for_hung()).unwrap_or_else(|message| {
                    tracing::error!(error = message, "it is not known whether scans hang");
                    true
                });
                drop(supervisor);
                if is_scanned {
                    std::thread::park_timeout(WATCH_EVERY);
                } else {
                    std::thread::park();
                }
            }
        };
        spawn("sifter-watch", Box::new(watch)).map(drop)
    }

    /// What is known of every root.
    #[must_use]
    pub fn status(&self) -> Vec<RootStatus> {
        self.roots
            .iter()
            .map(|root| root.status(&self.catalog))
            .collect()
    }

    /// The same of one root.
    #[must_use]
    pub fn status_of(&self, root: RootIndex) -> Option<RootStatus> {
        let root = self.roots.get(root.0)?;
        Some(root.status(&self.catalog))
    }

    /// The same of those of whose images nothing is known, which mostly are none.
    #[must_use]
    pub fn unknown(&self) -> Vec<RootStatus> {
        let unscanned = self.catalog.unscanned().into_iter();
        unscanned
            .filter_map(|root| self.status_of(root))
            .filter(|status| status.unknown)
            .collect()
    }

    /// Asks for a scan. Gives the number of the scan that will have seen everything that is there
    /// now.
    pub fn request(&self, root: RootIndex, full: bool, check_files: bool) -> u64 {
        let Some(root) = self.roots.get(root.0) else {
            return 0;
        };
        root.request(Request {
            whole: true,
            full,
            check_files,
            asked: true,
            hinted: BTreeSet::new(),
        })
    }

    /// Announces the number of each finished scan of a root.
    #[must_use]
    pub fn finished(&self, root: RootIndex) -> Option<watch::Receiver<u64>> {
        self.roots.get(root.0).map(|root| root.finished.subscribe())
    }

    /// The settings of the roots.
    pub fn settings(&self) -> impl Iterator<Item = (RootIndex, &RootSettings)> {
        self.roots.iter().map(|root| (root.index, &root.settings))
    }

    /// How often the status of a root was asked for, of all together.
    #[cfg(test)]
    pub(crate) fn asked(&self) -> usize {
        let of_roots = self.roots.iter().map(|root| &root.asked);
        of_roots
            .map(|asked| asked.load(std::sync::atomic::Ordering::Relaxed))
            .sum()
    }

    /// Ends all scans, and waits for them, but no longer than `patience`.
    pub fn stop(&self, patience: Duration) {
        for root in &self.roots {
            let mut state = root.lock();
            state.stopping = true;
            if let Some((progress, _)) = &state.progress {
                progress.cancel();
            }
            root.wake.notify_all();
            drop(state);
            root.ring();
        }
        let threads = std::mem::take(&mut *lock(&self.threads));
        wait_for_end(threads, patience);
    }

    /// Scans all roots, if the catalogue asks for it, and those that may overlap others now, or do not any
    /// more.
    fn grant_wishes(&self) {
        let all = self.catalog.take_wish();
        let moved = self.locations.take_concerned();
        for root in &self.roots {
            if all || moved.contains(&root.index) {
                self.request(root.index, false, false);
            }
        }
    }

    /// Gives whether any root is being scanned: then this is to be asked again.
    fn look_for_hung(&self) -> bool {
        let mut is_scanned = false;
        for root in &self.roots {
            let progress = root.lock().progress.clone();
            let Some((progress, _)) = progress else {
                continue;
            };
            is_scanned = true;
            let idle = progress.idle();
            if idle > HUNG_AFTER {
                root.hangs(&self.catalog, idle);
            } else {
                root.answers(&self.catalog);
            }
        }
        is_scanned
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.watcher.wake();
    }
}

fn spawn(name: &str, run: Run) -> std::io::Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map_err(|error| std::io::Error::other(no_thread(&error)))
}
