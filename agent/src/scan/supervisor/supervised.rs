//! One root: waits until a scan of it is due, runs it, and keeps what became of it.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::catalog::{Catalog, FileTime, KnownRoot, RootIndex, StoreError};
use crate::config::RootSettings;
use crate::lock::lock;
use crate::scan::hint::HintState;
use crate::scan::intake::Intake;
use crate::scan::location::Locations;
use crate::scan::panics::caught;
use crate::scan::plan::{KnownError, is_due};
use crate::scan::progress::Progress;
use crate::scan::{Root, RootFacts, ScanError, ScanOptions, no_thread};

use super::linked::Linked;
use super::{Request, RootState, RootStatus, ScanReport, State, Supervised, Watcher};

/// Attempts to scan when the catalogue fails in the midst of it: the first failure makes it go on
/// in memory.
const ATTEMPTS: usize = 3;

impl Supervised {
    pub(super) fn new(
        index: RootIndex,
        settings: RootSettings,
        locations: &Arc<Locations>,
        watcher: &Arc<Watcher>,
    ) -> Self {
        Self {
            index,
            settings,
            locations: Arc::clone(locations),
            watcher: Arc::clone(watcher),
            bell: OnceLock::new(),
            telling: Mutex::default(),
            state: Mutex::new(State {
                root_state: RootState::Pending,
                before_hanging: None,
                facts: None,
                last: None,
                progress: None,
                started: 0,
                due: Instant::now(),
                request: None,
                missed: BTreeSet::new(),
                hint: HintState::Interval,
                stopping: false,
            }),
            wake: Condvar::new(),
            finished: watch::Sender::new(0),
            #[cfg(test)]
            asked: std::sync::atomic::AtomicUsize::new(0),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Whoever has this may tell the catalogue whether the root can be read.
    pub(super) fn tell(&self) -> MutexGuard<'_, ()> {
        lock(&self.telling)
    }

    /// Whether its images are known: it was scanned to the end, now or before.
    pub(super) fn was_scanned(&self, catalog: &Catalog) -> bool {
        let stored = catalog.root(self.index);
        stored.is_some_and(|stored| stored.scanned.is_some())
    }

    pub(super) fn request(&self, request: Request) -> u64 {
        let mut state = self.lock();
        let wanted = state.request.get_or_insert_default();
        wanted.whole |= request.whole;
        wanted.full |= request.full;
        wanted.check_files |= request.check_files;
        wanted.asked |= request.asked;
        wanted.hinted.extend(request.hinted);
        self.wake.notify_all();
        // The running one may have passed by already.
        state.started + 1
    }

    pub(super) fn status(&self, catalog: &Catalog) -> RootStatus {
        #[cfg(test)]
        self.asked
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let unknown = !self.was_scanned(catalog);
        let state = self.lock();
        let next = state
            .progress
            .is_none()
            .then(|| state.due.saturating_duration_since(Instant::now()))
            .map(|left| {
                let left = i64::try_from(left.as_nanos()).unwrap_or(i64::MAX);
                FileTime(FileTime::now().0.saturating_add(left))
            });
        RootStatus {
            path: self.settings.path.clone(),
            root_state: state.root_state.clone(),
            unknown,
            file_system: state.facts.as_ref().map(|facts| facts.file_system),
            last: state.last.clone(),
            progress: state.progress.clone(),
            next,
            hint: state.hint.clone(),
        }
    }

    pub(super) fn run(&self, catalog: &Arc<Catalog>) {
        while let Some(mut request) = self.wait() {
            let (progress, started) = self.begin();
            // What is hinted at is looked at closely in a scan of all, too: no other event will tell of it.
            request.check_files |= !request.hinted.is_empty();
            // This thread outlives a panic, for it is the only one that scans the root.
            let outcome = caught(|| {
                catalog.look_for_file();
                if catalog.recover() {
                    catalog.look_for_file();
                }
                // That was not the root's file system.
                progress.note_activity();
                // What a database that comes back has of the files is old, and no event tells so any more.
                let is_old = catalog.awaits_scan(self.index);
                request.check_files |= is_old;
                // What is listed of a root that comes back is old as a whole, too.
                request.whole |= is_old
                    || self.lock().root_state.is_unavailable()
                    // That walk begins at the root, whatever it knows.
                    || self.settings.follow_symlinks;
                self.scan(catalog, &request, &progress)
            })
            .unwrap_or_else(|message| Err(ScanError::internal(&self.settings, message)));
            if outcome.is_err() {
                self.lock().missed.append(&mut request.hinted);
            }
            self.end(catalog, &progress, started, outcome, request.whole);
        }
    }

    /// Waits until a scan is due or asked for, and counts it: it need not do what is asked for from then on.
    /// `None` at the end.
    pub(super) fn wait(&self) -> Option<Request> {
        let mut state = self.lock();
        loop {
            if state.stopping {
                return None;
            }
            let left = state.due.saturating_duration_since(Instant::now());
            let is_due = left.is_zero();
            if is_due || state.request.is_some() {
                let mut request = state.request.take().unwrap_or_default();
                request.whole |= is_due;
                request.hinted.append(&mut state.missed);
                state.started += 1;
                return Some(request);
            }
            state = self
                .wake
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    pub(super) fn begin(&self) -> (Arc<Progress>, FileTime) {
        let progress = Arc::new(Progress::default());
        let started = FileTime::now();
        let mut state = self.lock();
        state.progress = Some((Arc::clone(&progress), started));
        if state.stopping {
            progress.cancel();
        }
        drop(state);
        self.watcher.wake();
        (progress, started)
    }

    pub(super) fn end(
        &self,
        catalog: &Catalog,
        progress: &Progress,
        started: FileTime,
        outcome: Result<RootFacts, ScanError>,
        whole: bool,
    ) {
        let duration = progress.elapsed();
        let (root_state, error, facts) = match outcome {
            Ok(facts) => (Some(RootState::Ok), None, Some(facts)),
            // One that was told to stop has counted a part of the root, and confirmed nothing.
            Err(ScanError::Cancelled { .. }) => (None, None, None),
            Err(error) => {
                let message = error.to_string();
                let root_state = RootState::Unavailable(message.clone());
                (Some(root_state), Some(message), None)
            }
        };
        let report = ScanReport {
            started,
            duration,
            counts: progress.counts(),
            problems: progress.problems(),
            width: progress.width(),
            throttled: progress.throttled(),
            error: error.clone(),
        };
        let is_told = whole || error.is_some();
        let root = crate::escape::path(&self.settings.path);
        if is_told && root_state.is_some() {
            self.log(&report);
        } else if is_told {
            tracing::info!(root, "scan stopped before its end");
        }
        let _telling = self.tell();
        if root_state.is_some()
            && let Err(error) = caught(|| catalog.set_unavailable(self.index, error))
        {
            tracing::error!(root, error, "the listing does not tell the root's state");
        }
        let mut state = self.lock();
        if let Some(root_state) = root_state {
            state.root_state = root_state;
            if is_told {
                state.last = Some(Arc::new(report));
            }
        }
        if facts.is_some() {
            state.facts = facts;
        }
        state.progress = None;
        state.before_hanging = None;
        if is_told {
            state.due = Instant::now() + with_jitter(self.settings.interval);
        }
        let number = state.started;
        drop(state);
        self.finished.send_replace(number);
        self.ring();
    }

    /// Has the hints look again at what a scan changes.
    pub(super) fn ring(&self) {
        if let Some(bell) = self.bell.get() {
            bell.ring();
        }
    }

    fn log(&self, report: &ScanReport) {
        let root = crate::escape::path(&self.settings.path);
        if let Some(error) = &report.error {
            tracing::warn!(root, error, "root cannot be scanned");
            return;
        }
        tracing::info!(
            root,
            images = report.counts.images,
            files = report.counts.files,
            directories = report.counts.directories,
            files_read = report.counts.files_read,
            operations = report.counts.operations,
            problems = report.problems.count(),
            milliseconds = u64::try_from(report.duration.as_millis()).unwrap_or(u64::MAX),
            "scanned"
        );
        for problem in &report.problems.first {
            tracing::debug!(
                root,
                kind = problem.kind,
                error = problem.message,
                "problem"
            );
        }
    }

    /// One scan, begun anew where the catalogue fails in the midst of it.
    fn scan(
        &self,
        catalog: &Arc<Catalog>,
        request: &Request,
        progress: &Arc<Progress>,
    ) -> Result<RootFacts, ScanError> {
        let opened = self.open(catalog, request, progress);
        if request.whole || opened.is_err() {
            self.note_location(opened.as_ref().ok());
        }
        let root = opened?;
        let facts = root.facts().clone();
        if request.whole {
            self.check_overlap(catalog, &root)?;
        } else {
            match self.scan_hinted(catalog, &root, &request.hinted, progress) {
                Err(error @ ScanError::Known { .. }) => self.begin_anew(&error, progress),
                scanned => return scanned.map(|()| facts),
            }
        }
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.scan_whole(catalog, &root, request, progress) {
                // A catalogue that was replaced meanwhile takes nothing any more.
                Err(ScanError::Known { path, .. }) if self.lock().stopping => {
                    return Err(ScanError::Cancelled { path });
                }
                Err(error @ ScanError::Known { .. }) if attempt < ATTEMPTS => {
                    self.begin_anew(&error, progress);
                }
                scanned => return scanned.map(|()| facts),
            }
        }
    }

    /// Opens the root, if it is there.
    fn open(
        &self,
        catalog: &Catalog,
        request: &Request,
        progress: &Arc<Progress>,
    ) -> Result<Root, ScanError> {
        let mut root = Root::open(&self.settings, progress)?;
        if request.asked {
            root.ask_server();
        }
        self.lock().facts = Some(root.facts().clone());
        if !self.was_scanned(catalog) {
            self.check_place(&root, request, progress)?;
        }
        // Also when only some directories are looked at: that all is gone from them is what an unmounted
        // file system looks like.
        self.check_mount(catalog, &root, request, progress)?;
        Ok(root)
    }

    /// How the whole root is scanned, and whether that is otherwise than before.
    fn options(&self, catalog: &Catalog, request: &Request, settings: &str) -> (ScanOptions, bool) {
        let is_new = match catalog.begin_settings(self.index, settings) {
            Ok(is_new) => is_new,
            Err(error) => {
                // No reason to read everything: if the settings are other ones, the next scan sees it.
                tracing::warn!(%error, "it is not known how the root was scanned");
                false
            }
        };
        let full = request.full || is_new;
        let stored = catalog.root(self.index);
        let checked = stored.and_then(|stored| stored.files_checked);
        let check_files = full
            || request.check_files
            || is_due(checked, self.settings.file_interval, FileTime::now());
        let options = ScanOptions {
            full,
            forget_unmounted: request.full,
            check_files,
            ..ScanOptions::default()
        };
        (options, is_new)
    }

    /// The catalogue failed in the midst of a scan, which that ended; it goes on in memory.
    fn begin_anew(&self, error: &ScanError, progress: &Progress) {
        tracing::warn!(%error, "catalogue failed: scanning anew");
        let state = self.lock();
        if !state.stopping {
            progress.resume();
        }
    }

    /// Scans the directories in which something happened.
    fn scan_hinted(
        &self,
        catalog: &Arc<Catalog>,
        root: &Root,
        directories: &BTreeSet<Box<[u8]>>,
        progress: &Arc<Progress>,
    ) -> Result<(), ScanError> {
        let options = ScanOptions {
            check_files: true,
            ..ScanOptions::default()
        };
        let linked = Linked::default();
        let scan = |directories, linked| {
            let known = catalog
                .known_some(self.index, directories)
                .map_err(|error| self.catalog_failed(&error))?;
            self.scan_into(catalog, root, options, &known, progress, linked)
        };
        scan(directories.iter().cloned().collect(), Some(&linked))?;
        let others = linked.elsewhere(&catalog.snapshot(), &self.settings.path, directories);
        if !others.is_empty() {
            scan(others, None)?;
        }
        catalog.publish_changes();
        Ok(())
    }

    fn scan_whole(
        &self,
        catalog: &Arc<Catalog>,
        root: &Root,
        request: &Request,
        progress: &Arc<Progress>,
    ) -> Result<(), ScanError> {
        let settings = self.settings.fingerprint();
        let (options, is_new) = self.options(catalog, request, &settings);
        let known = catalog
            .known(self.index)
            .map_err(|error| self.catalog_failed(&error))?;
        self.scan_into(catalog, root, options, &known, progress, None)?;
        // One that was opened later than this one.
        self.check_overlap(catalog, root)?;
        let facts = root.facts();
        catalog
            .finish_scan(self.index, &known, facts.directory, options.check_files)
            .map_err(|error| self.catalog_failed(&error))?;
        if is_new && let Err(error) = catalog.set_settings(self.index, &settings) {
            // The next scan reads everything again.
            tracing::warn!(%error, "it is not stored how the root was scanned");
        }
        Ok(())
    }

    /// Scans with what is known, and stores what is found; `linked` notes what has several names.
    fn scan_into(
        &self,
        catalog: &Arc<Catalog>,
        root: &Root,
        options: ScanOptions,
        known: &KnownRoot,
        progress: &Arc<Progress>,
        linked: Option<&Linked>,
    ) -> Result<(), ScanError> {
        let listed = self.was_scanned(catalog);
        let preparation = catalog.preparation(self.index);
        let intake = Intake::default();
        std::thread::scope(|scope| {
            let writer = std::thread::Builder::new()
                .name("sifter-write".to_owned())
                .spawn_scoped(scope, || {
                    caught(|| intake.write(catalog, self.index, known, listed, progress))
                })
                .map_err(|error| ScanError::internal(&self.settings, no_thread(&error)))?;
            let scanned = {
                let _complete = intake.complete_on_drop();
                root.scan(
                    &self.settings,
                    options,
                    Some(known),
                    progress,
                    &|mut change| {
                        if let Some(linked) = linked {
                            linked.note(&change);
                        }
                        if let Some(preparation) = &preparation {
                            preparation.change(&mut change);
                        }
                        intake.send(change);
                    },
                )
            };
            let written = match writer.join() {
                Ok(written) => {
                    written.map_err(|message| ScanError::internal(&self.settings, message))?
                }
                Err(panic) => std::panic::resume_unwind(panic),
            };
            written.map_err(|error| self.catalog_failed(&error))?;
            catalog.note_failure(known);
            scanned
        })
    }

    pub(super) fn catalog_failed(&self, error: &StoreError) -> ScanError {
        ScanError::known(&self.settings, KnownError(error.to_string()))
    }
}

/// The interval, up to a tenth more or less, so that the agents of a site do not all ask a file
/// server at the same moment.
fn with_jitter(interval: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(Instant::now());
    let permille = 900 + u32::try_from(random % 201).unwrap_or(100);
    interval * permille / 1000
}
