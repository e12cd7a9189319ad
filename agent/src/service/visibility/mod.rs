//! Who may see what: a user of this machine sees the images that the user could find and read;
//! administrators and the control plane see all.
//!
//! A user's listing is computed once for a generation and kept for a while; everything else (pages,
//! filters, counts, watches) works on it as on the whole listing, so that nothing else can leak
//! what is not in it. Whoever sees everything pays nothing.

mod permission;
mod places;
mod sight;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use self::permission::Subject;
use self::places::{Basis, Evaluation, Places};
pub use self::sight::{Sight, Sights};
use super::aside;
use crate::catalog::{FileTime, KeptRow, Rows, Snapshot};
use crate::lock::lock;

/// How long a listing of a user is taken for a new request. A directory that was closed or opened
/// in between counts afterwards.
pub(super) const FRESH: Duration = Duration::from_secs(30);

/// The same where a root did not answer.
const FRESH_IF_INCOMPLETE: Duration = Duration::from_secs(2);

/// Listings that are kept for the pages of those who have begun to read them.
const VIEWS: usize = 32;

/// The same counted in rows that they do not share with the whole listing, 16 bytes each. The last one is
/// always kept.
const VIEW_ROWS: usize = 1 << 20;

/// After so long in which nobody used a view, what they were made of is given back, and they are: some hundred bytes
/// for each image, and what the listing was that they are of.
const IDLE: Duration = Duration::from_secs(600);

/// How long a root may take. A file system that hangs must not hold up the others.
const PATIENCE: Duration = Duration::from_secs(10);

/// Evaluations of one root at a time, hung ones included.
const AT_ONCE: usize = 4;

/// Callers that are computed for at a time.
const LANES: usize = 16;

/// An image with its place in the listing, and what decides who sees it.
type Candidate = (usize, Arc<KeptRow>, Basis);

/// What one caller sees of one generation.
#[derive(Debug)]
pub struct View {
    caller: u64,
    generation: u64,
    /// When it was computed: what tells it from others of the same caller and generation.
    pub stamp: i64,
    computed: Instant,
    rows: Rows,
    /// Rows that it does not share with the whole listing.
    own: usize,
    /// Roots that did not answer in time, of which nothing is shown.
    pub unanswered: Vec<String>,
}

impl View {
    /// The listing as the caller sees it; `whole` is of the same generation.
    #[must_use]
    pub fn of(&self, whole: &Snapshot) -> Arc<Snapshot> {
        Arc::new(whole.with_only(self.rows.clone()))
    }

    fn is_fresh(&self) -> bool {
        let fresh = if self.unanswered.is_empty() {
            FRESH
        } else {
            FRESH_IF_INCOMPLETE
        };
        self.computed.elapsed() < fresh
    }
}

/// Views, oldest first.
#[derive(Debug, Default)]
struct Views(VecDeque<Arc<View>>);

impl Views {
    /// Keeps one more, and none of a generation that is not held: it has images of which nobody can ask for the
    /// next page.
    fn keep(&mut self, view: Arc<View>, is_held: impl Fn(u64) -> bool) {
        self.0.push_back(view);
        self.0.retain(|view| is_held(view.generation));
        let mut own: usize = self.0.iter().map(|view| view.own).sum();
        while self.0.len() > VIEWS || own > VIEW_ROWS && self.0.len() > 1 {
            own -= self.0.pop_front().map_or(0, |oldest| oldest.own);
        }
    }
}

/// Whether everything that is listed can be read now.
pub type AllThere = Arc<dyn Fn() -> bool + Send + Sync>;

/// Computes and keeps what callers see.
pub struct Visibility {
    /// Who asks.
    pub sights: Arc<Sights>,
    all_there: AllThere,
    places: Arc<Places>,
    views: Arc<Mutex<Views>>,
    idle: Duration,
    /// Gives everything back in time.
    giving_back: Mutex<Option<AbortHandle>>,
    lanes: [tokio::sync::Mutex<()>; LANES],
    roots: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
}

impl Visibility {
    /// With what is known of callers.
    #[must_use]
    pub fn new(sights: Arc<Sights>, all_there: AllThere) -> Self {
        Self {
            sights,
            all_there,
            places: Arc::default(),
            views: Arc::default(),
            idle: IDLE,
            giving_back: Mutex::default(),
            lanes: Default::default(),
            roots: Mutex::default(),
        }
    }

    /// What a subject sees of a snapshot. Listings of which generations are still held is for the caller to say.
    pub async fn view(
        &self,
        caller: u64,
        subject: &Subject,
        whole: &Snapshot,
        is_held: impl Fn(u64) -> bool,
    ) -> Arc<View> {
        let fresh = || {
            self.find(|view| {
                view.caller == caller && view.generation == whole.generation && view.is_fresh()
            })
        };
        if let Some(view) = fresh() {
            return view;
        }
        // Those who ask for the same at the same time wait for the first.
        let lane = usize::try_from(caller % LANES as u64).unwrap_or(0);
        let _lane = self.lanes[lane].lock().await;
        if let Some(view) = fresh() {
            return view;
        }
        let view = Arc::new(self.compute(caller, subject, whole).await);
        lock(&self.views).keep(Arc::clone(&view), is_held);
        self.give_back_later();
        view
    }

    /// Forgets everything once nobody has used a view for long, from now on.
    fn give_back_later(&self) {
        let (places, views) = (Arc::clone(&self.places), Arc::clone(&self.views));
        let (idle, all_there) = (self.idle, Arc::clone(&self.all_there));
        let give_back = tokio::spawn(async move {
            loop {
                tokio::time::sleep(idle).await;
                *lock(&views) = Views::default();
                // Of what cannot be read nothing else would tell who may see it.
                if all_there() {
                    places.forget();
                    return;
                }
            }
        });
        let later = give_back.abort_handle();
        if let Some(sooner) = lock(&self.giving_back).replace(later) {
            sooner.abort();
        }
    }

    /// The view that a listing was begun with, if it is still held.
    #[must_use]
    pub fn held(&self, caller: u64, generation: u64, stamp: i64) -> Option<Arc<View>> {
        self.find(|view| {
            view.caller == caller && view.generation == generation && view.stamp == stamp
        })
    }

    fn find(&self, wanted: impl Fn(&View) -> bool) -> Option<Arc<View>> {
        let views = lock(&self.views);
        let found = views.0.iter().rev().find(|view| wanted(view));
        let found = found.map(Arc::clone);
        drop(views);
        if found.is_some() {
            self.give_back_later();
        }
        found
    }

    async fn compute(&self, caller: u64, subject: &Subject, whole: &Snapshot) -> View {
        let (stamp, computed) = (FileTime::now().0, Instant::now());
        self.places.limit(whole.rows.len());
        let mut by_root: BTreeMap<Arc<str>, Vec<Candidate>> = BTreeMap::new();
        for (index, row) in whole.rows.iter().enumerate() {
            let basis = match whole.unavailable_directory(row) {
                None => Basis::Now,
                Some(directory) if directory.len() > row.root().len() => Basis::NowOrRemembered,
                // A root that hangs must not be asked.
                Some(_) => Basis::Remembered,
            };
            let rows = by_root.entry(Arc::clone(row.root())).or_default();
            rows.push((index, Arc::clone(row), basis));
        }
        let mut running = Vec::new();
        for (root, rows) in by_root {
            running.push((
                Arc::clone(&root),
                tokio::spawn(self.root(root, rows, subject.clone())),
            ));
        }
        let mut seen: Vec<usize> = Vec::new();
        let mut unanswered = Vec::new();
        for (root, running) in running {
            match running.await {
                Ok(Some(places)) => seen.extend(places),
                Ok(None) | Err(_) => unanswered.push(root.as_ref().to_owned()),
            }
        }
        seen.sort_unstable();
        let rows = whole.rows.at(&seen);
        View {
            caller,
            generation: whole.generation,
            stamp,
            computed,
            own: rows.not_shared_with(&whole.rows),
            rows,
            unanswered,
        }
    }

    /// Places of what the subject sees of one root; `None` if that does not answer.
    fn root(
        &self,
        root: Arc<str>,
        rows: Vec<Candidate>,
        subject: Subject,
    ) -> impl Future<Output = Option<Vec<usize>>> + use<> {
        let slots = Arc::clone(
            lock(&self.roots)
                .entry(root)
                .or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE))),
        );
        let places = Arc::clone(&self.places);
        let evaluate = move || {
            // In their own order, by which they are found.
            let bases = [Basis::Now, Basis::NowOrRemembered, Basis::Remembered];
            let mut by_basis = bases.map(|basis| Evaluation::new(&places, &subject, basis));
            let mut rows = rows;
            rows.retain(|(_, row, basis)| by_basis[*basis as usize].sees(row));
            rows.into_iter().map(|(place, ..)| place).collect()
        };
        aside::in_time(slots.acquire_owned(), PATIENCE, evaluate)
    }
}

impl std::fmt::Debug for Visibility {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Visibility")
            .field("sights", &self.sights)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
