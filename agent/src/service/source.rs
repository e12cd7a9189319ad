//! What the service reads from: a trait, so that the service knows neither scanning nor threads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sifter_proto::v1;
use tokio::sync::watch;

use crate::catalog::{Catalog, Snapshot};

/// The agent as the service sees it, besides the catalogue.
pub trait ImageSource: Send + Sync + 'static {
    /// What is listed.
    fn catalog(&self) -> Arc<Catalog>;

    /// What was listed before the roots changed, for a while.
    fn former_catalog(&self) -> Option<Arc<Catalog>>;

    /// Whether pages of this generation's listing can still be asked for.
    fn holds(&self, generation: u64) -> bool {
        let holds = |catalog: Arc<Catalog>| catalog.snapshot_of(generation).is_some();
        holds(self.catalog()) || self.former_catalog().is_some_and(holds)
    }

    /// Announces that the roots, and with them the catalogue, are others.
    fn replaced(&self) -> watch::Receiver<u64>;

    /// Number of the set of roots that is scanned.
    fn roots_number(&self) -> u64;

    /// The cluster's name.
    fn system(&self) -> &str;

    /// Host name.
    fn host(&self) -> &str;

    /// When the agent started.
    fn started(&self) -> crate::catalog::FileTime;

    /// How far the agent confines itself, and why no further.
    fn confinement(&self) -> (v1::Confinement, String);

    /// Whether listings are answered: every root was scanned once, or cannot be.
    fn is_ready(&self) -> bool;

    /// Whether every root was scanned once: none can become one of which nothing is known.
    fn knows_all_roots(&self) -> bool;

    /// Roots that cannot be read and of which nothing is known.
    fn unlisted_roots(&self) -> Vec<v1::UnlistedRoot>;

    /// Roots that could not be read when this listing was made.
    fn unavailable_roots(&self, snapshot: &Snapshot) -> Vec<String>;

    /// How many roots are configured.
    fn root_count(&self) -> usize;

    /// State of every root; `images` are counts by root.
    fn roots(&self, images: &BTreeMap<String, u64>) -> Vec<v1::Root>;

    /// Asks for a scan of a root.
    fn scan(&self, root: &str, full: bool) -> Option<Ticket>;

    /// Time between two scans of a root that users may have who do not see everything.
    fn rescan_interval(&self, root: &str) -> Duration;

    /// Paths of the roots.
    fn root_paths(&self) -> Vec<String>;

    /// The running scan of a root.
    fn progress(&self, root: &str) -> Option<v1::ScanProgress>;

    /// The last finished scan of a root.
    fn result(&self, root: &str) -> Option<v1::ScanResult>;
}

/// A scan that was asked for.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// Its number.
    pub number: u64,
    /// Number of the set of roots in which it has that number.
    pub roots_number: u64,
    /// Announces the numbers of finished scans.
    pub finished: watch::Receiver<u64>,
}
