//! What depends on the roots: catalogue, scans and digests. Where the roots change while the agent
//! runs, all of it is replaced as one by a new engine over the same database; a call that has begun
//! with the old one ends with it.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::catalog::{Catalog, Condition, FileTime};
use crate::config::RootSettings;
use crate::digest::Digester;
use crate::escape;
use crate::lock::lock;
use crate::scan::{ScanReport, Supervisor};
use crate::telemetry::{Metrics, Scanned};

/// How long running scans may take to notice the end.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long the listing of before a change of roots is held for those who turn its pages.
const FORMER: Duration = Duration::from_secs(60);

/// Catalogue, scans and digests of one set of roots.
#[derive(Debug)]
pub struct Engine {
    /// What is listed.
    pub catalog: Arc<Catalog>,
    /// The scans.
    pub supervisor: Arc<Supervisor>,
    /// Roots that were added to a running agent: nobody waits for their first scan, as the others'
    /// images are listed meanwhile.
    added: HashSet<PathBuf>,
    digester: Mutex<Option<Digester>>,
    followers: Vec<AbortHandle>,
}

impl Engine {
    fn start(
        path: Option<&PathBuf>,
        roots: Vec<RootSettings>,
        added: HashSet<PathBuf>,
        metrics: &Arc<Metrics>,
        former: Option<&Engine>,
    ) -> anyhow::Result<Self> {
        let paths: Vec<_> = roots.iter().map(|root| root.path.clone()).collect();
        let catalog = Arc::new(Catalog::open(path.map(PathBuf::as_path), &paths));
        let digester = Digester::start(&catalog, &roots).context("start the digesting threads")?;
        let started = match former {
            None => Supervisor::start(Arc::clone(&catalog), roots),
            Some(former) => {
                Supervisor::start_in_place_of(&former.supervisor, Arc::clone(&catalog), roots)
            }
        };
        let supervisor = match started {
            Ok(supervisor) => supervisor,
            Err(error) => {
                digester.stop(PATIENCE);
                return Err(error).context("start the scanning threads");
            }
        };
        let followers = follow_scans(metrics, &supervisor);
        Ok(Self {
            catalog,
            supervisor,
            added,
            digester: Mutex::new(Some(digester)),
            followers,
        })
    }

    /// Whether a root's images are waited for before listings are answered.
    #[must_use]
    pub fn waits_for(&self, root: &std::path::Path) -> bool {
        !self.added.contains(root)
    }

    /// Ends scans and digests; an operation on a hung file system does not come back.
    fn stop(&self) {
        self.supervisor.stop(PATIENCE);
        let digester = lock(&self.digester).take();
        if let Some(digester) = digester {
            digester.stop(PATIENCE);
        }
        for follower in &self.followers {
            follower.abort();
        }
    }
}

/// Why the roots cannot be changed now, and what will be done about it, or is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeepsRoots {
    /// There is no database.
    #[error("the catalogue is in memory, and would be lost: restart")]
    InMemory,
    /// The database is done without for now.
    #[error("the catalogue's database fails: they will be taken as soon as it works again")]
    DatabaseFails,
}

/// The engine in use.
#[derive(Debug)]
pub struct Engines {
    path: Option<PathBuf>,
    metrics: Arc<Metrics>,
    current: ArcSwap<Engine>,
    former: Mutex<Option<Arc<Catalog>>>,
    /// Grows before an engine is stopped.
    number: AtomicU64,
    /// Announces that another engine is in use.
    replaced: watch::Sender<u64>,
}

impl Engines {
    /// Starts the first engine, over the catalogue at `path` or in memory.
    ///
    /// # Errors
    ///
    /// A thread cannot be started.
    pub fn start(
        path: Option<PathBuf>,
        roots: Vec<RootSettings>,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let first = Engine::start(path.as_ref(), roots, HashSet::new(), &metrics, None)?;
        Ok(Self {
            path,
            metrics,
            current: ArcSwap::from_pointee(first),
            former: Mutex::default(),
            number: AtomicU64::new(0),
            replaced: watch::Sender::new(0),
        })
    }

    /// The engine in use.
    #[must_use]
    pub fn current(&self) -> Arc<Engine> {
        self.current.load_full()
    }

    /// The catalogue of before the roots changed, for a while.
    #[must_use]
    pub fn former(&self) -> Option<Arc<Catalog>> {
        lock(&self.former).clone()
    }

    /// Number of the engine that does the work: another one, and a scan that was asked for may not
    /// be done.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// Announces that another engine is in use.
    #[must_use]
    pub fn replaced(&self) -> watch::Receiver<u64> {
        self.replaced.subscribe()
    }

    /// Why the roots cannot be changed now, if they cannot: what is known must lie on disk, or it would be lost.
    #[must_use]
    pub fn keeps_roots(&self) -> Option<KeepsRoots> {
        match self.current().catalog.condition() {
            Condition::Ok => None,
            Condition::Memory => Some(KeepsRoots::InMemory),
            Condition::Failed(_) => Some(KeepsRoots::DatabaseFails),
        }
    }

    /// Takes other roots, or the same with other settings. Blocks until running scans have ended.
    ///
    /// # Errors
    ///
    /// A thread cannot be started: the roots are as they were.
    pub fn replace(self: &Arc<Self>, roots: Vec<RootSettings>) -> anyhow::Result<()> {
        let old = self.current();
        self.replace_by(roots, &mut |roots, added| {
            Engine::start(self.path.as_ref(), roots, added, &self.metrics, Some(&old))
        })
    }

    fn replace_by(
        self: &Arc<Self>,
        roots: Vec<RootSettings>,
        start: &mut dyn FnMut(Vec<RootSettings>, HashSet<PathBuf>) -> anyhow::Result<Engine>,
    ) -> anyhow::Result<()> {
        let old = self.current();
        let known: HashSet<PathBuf> = old
            .supervisor
            .settings()
            .map(|(_, settings)| settings.path.clone())
            .collect();
        let stays = |root: &&RootSettings| known.contains(&root.path);
        // Without one that stays there is no listing yet.
        let added = if roots.iter().any(|root| stays(&root)) {
            roots
                .iter()
                .filter(|root| !stays(root) || old.added.contains(&root.path))
                .map(|root| root.path.clone())
                .collect()
        } else {
            HashSet::new()
        };
        self.number.fetch_add(1, Ordering::AcqRel);
        old.stop();
        // What hangs in it may come back, and the database is the next one's.
        old.catalog.retire();
        let started = start(roots, added);
        let (new, result) = match started {
            Ok(new) => (new, Ok(())),
            // Those of before have just been scanned by as many threads.
            Err(error) => {
                let settings = old.supervisor.settings();
                let roots = settings.map(|(_, settings)| settings.clone()).collect();
                let again = start(roots, old.added.clone());
                let again = again.context("the old roots are not scanned any more: restart");
                (again?, Err(error))
            }
        };
        self.put(&old, new);
        result
    }

    /// Uses another engine.
    fn put(self: &Arc<Self>, old: &Engine, new: Engine) {
        let catalog = Arc::clone(&old.catalog);
        *lock(&self.former) = Some(Arc::clone(&catalog));
        catalog.end_leases();
        self.current.store(Arc::new(new));
        self.replaced.send_replace(self.number());
        // The one before it is not held any longer, whoever still waits to give that back.
        let (engines, catalog) = (Arc::downgrade(self), Arc::downgrade(&catalog));
        tokio::spawn(async move {
            tokio::time::sleep(FORMER).await;
            let Some(engines) = engines.upgrade() else {
                return;
            };
            let mut former = lock(&engines.former);
            drop(former.take_if(|held| std::ptr::eq(Arc::as_ptr(held), catalog.as_ptr())));
        });
    }

    /// Ends scans and digests.
    pub fn stop(&self) {
        self.current().stop();
    }
}

/// Counts every scan that ends from now on, in tasks that end when they are told to.
fn follow_scans(metrics: &Arc<Metrics>, supervisor: &Arc<Supervisor>) -> Vec<AbortHandle> {
    let mut followers = Vec::new();
    for (index, settings) in supervisor.settings() {
        let Some(mut finished) = supervisor.finished(index) else {
            continue;
        };
        let path = settings.path.clone();
        let (metrics, supervisor) = (Arc::clone(metrics), Arc::clone(supervisor));
        let follower = tokio::spawn(async move {
            let mut counted: Option<FileTime> = None;
            loop {
                finished.borrow_and_update();
                let last = supervisor.status_of(index).and_then(|status| status.last);
                if let Some(report) = last
                    && counted != Some(report.started)
                {
                    counted = Some(report.started);
                    let root = escape::utf8_path(&path);
                    metrics.scanned(&root, &scanned(&report));
                }
                if finished.changed().await.is_err() {
                    return;
                }
            }
        });
        followers.push(follower.abort_handle());
    }
    followers
}

fn scanned(report: &ScanReport) -> Scanned {
    Scanned {
        ok: report.error.is_none(),
        duration: report.duration,
        directories: report.counts.directories,
        files_read: report.counts.files_read,
        operations: report.counts.operations,
        bytes: report.counts.bytes,
        ended: report.started.0.div_euclid(1_000_000_000)
            + i64::try_from(report.duration.as_secs()).unwrap_or(0),
        throttled: report.throttled,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    fn settings(path: &Path) -> RootSettings {
        let mut settings = RootSettings::new(path.into());
        settings.interval = Duration::from_secs(86_400);
        settings.hints = false;
        settings
    }

    async fn scanned(engines: &Engines) {
        let engine = engines.current();
        let (index, _) = engine.supervisor.settings().next().unwrap();
        let mut finished = engine.supervisor.finished(index).unwrap();
        let number = engine.supervisor.request(index, false, true);
        let done = finished.wait_for(|last| *last >= number);
        let done = tokio::time::timeout(Duration::from_secs(60), done).await;
        done.expect("the scan ends").unwrap();
    }

    /// Else what a round of scans costs grows with the square of the number of roots.
    #[tokio::test(flavor = "multi_thread")]
    async fn the_end_of_a_scan_concerns_no_other_root() {
        let tree = tempfile::tempdir().unwrap();
        let paths = ["a", "b", "c"].map(|name| tree.path().join(name));
        for path in &paths {
            std::fs::create_dir(path).unwrap();
        }
        let metrics = Arc::new(Metrics::default());
        let roots = paths.iter().map(|path| settings(path)).collect();
        let engines = Engines::start(None, roots, Arc::clone(&metrics)).unwrap();
        let is_counted = |path: &std::path::PathBuf| {
            let root = format!("sifter_agent_scans_total{{root=\"{}\"", path.display());
            metrics.render(|| ()).contains(&root)
        };
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while !paths.iter().all(is_counted) {
            assert!(std::time::Instant::now() < deadline, "scans are counted");
            tokio::task::yield_now().await;
        }
        // Each follower looks when it begins, and when the scan has ended.
        assert!(engines.current().supervisor.asked() <= 2 * paths.len());
        engines.stop();
    }

    /// Somebody may reload once a second, and listings are large.
    #[tokio::test(flavor = "multi_thread")]
    async fn one_listing_of_before_is_held_however_often_the_roots_change() {
        let tree = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::default());
        let engines = Engines::start(None, vec![settings(tree.path())], metrics).unwrap();
        let engines = Arc::new(engines);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(Arc::downgrade(&engines.current().catalog));
            engines.replace(vec![settings(tree.path())]).unwrap();
        }
        let former = engines.former().expect("the last one");
        assert_eq!(Arc::as_ptr(&former), held.pop().unwrap().as_ptr());
        let deadline = std::time::Instant::now() + FORMER / 2;
        // Whoever had a call under way, or a thread, is done with it soon.
        while held.iter().any(|catalog| catalog.strong_count() > 0) {
            assert!(std::time::Instant::now() < deadline, "older ones are held");
            tokio::task::yield_now().await;
        }
        engines.stop();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn roots_that_cannot_be_replaced_are_scanned_as_before() {
        let tree = tempfile::tempdir().unwrap();
        let [old, new, state] = ["old", "new", "state"].map(|name| tree.path().join(name));
        for directory in [&old, &new, &state] {
            std::fs::create_dir(directory).unwrap();
        }
        let path = Some(state.join("catalog.sqlite"));
        let metrics = Arc::new(Metrics::default());
        let engines = Engines::start(path, vec![settings(&old)], metrics).unwrap();
        let engines = Arc::new(engines);
        scanned(&engines).await;
        let (retired, number) = (engines.current(), engines.number());
        let mut fails = true;
        let replaced = engines.replace_by(vec![settings(&new)], &mut |roots, added| {
            if std::mem::take(&mut fails) {
                anyhow::bail!("no thread");
            }
            let path = engines.path.as_ref();
            Engine::start(path, roots, added, &engines.metrics, Some(&retired))
        });
        assert_eq!(replaced.unwrap_err().to_string(), "no thread");
        assert_ne!(engines.number(), number);
        let header = [&[b'#'; 32][..], b"SIF_MAGIC\0", b"01\0", &[0; 100]].concat();
        std::fs::write(old.join("image.sif"), header).unwrap();
        scanned(&engines).await;
        assert_eq!(engines.current().catalog.snapshot().rows.len(), 1);
        engines.stop();
    }
}
