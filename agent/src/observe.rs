//! Brings what the agent is and does into the metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

use crate::catalog::{Condition, Snapshot};
use crate::catalog::{format_name, status_name};
use crate::engine::Engines;
use crate::escape;
use crate::lock::lock;
use crate::net::{Doorkeeper, Tls};
use crate::scan::RootStatus;
use crate::telemetry::{Metrics, RootFigures};

/// All conditions of the catalogue's database.
const CONDITIONS: [&str; 3] = ["ok", "memory", "failed"];

/// Images by status and format.
type ByStatus = BTreeMap<(&'static str, &'static str), u64>;

/// How many images a listing has, of which nothing is held.
struct Counted {
    of: Weak<Snapshot>,
    by_status: ByStatus,
    by_root: BTreeMap<String, u64>,
}

impl Counted {
    fn new(snapshot: &Arc<Snapshot>) -> Self {
        let mut by_status = ByStatus::new();
        let mut by_root: BTreeMap<String, u64> = BTreeMap::new();
        for row in snapshot.rows.iter() {
            let status = status_name(snapshot.status_of(row));
            let format = format_name(row.format());
            *by_status.entry((status, format)).or_default() += 1;
            match by_root.get_mut(&**row.root()) {
                Some(count) => *count += 1,
                None => drop(by_root.insert(row.root().as_ref().to_owned(), 1)),
            }
        }
        Self {
            of: Arc::downgrade(snapshot),
            by_status,
            by_root,
        }
    }

    fn is_of(&self, snapshot: &Arc<Snapshot>) -> bool {
        std::ptr::eq(self.of.as_ptr(), Arc::as_ptr(snapshot))
    }
}

/// What the metrics are taken from.
pub struct Observed {
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The listing and the roots.
    pub engines: Arc<Engines>,
    /// The connections.
    pub doorkeeper: Arc<Doorkeeper>,
    /// The certificates.
    pub tls: Option<Arc<Tls>>,
}

impl Observed {
    /// Brings the figures up to date; `ready` says whether listings are answered.
    pub fn refresh(
        self: Arc<Self>,
        ready: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Arc<dyn Fn() + Send + Sync> {
        let counted: Mutex<Option<Counted>> = Mutex::default();
        Arc::new(move || {
            let metrics = &self.metrics;
            let engine = self.engines.current();
            let snapshot = engine.catalog.snapshot();
            let mut counted = lock(&counted);
            // A million images need not be counted again for every scrape.
            drop(counted.take_if(|counted| !counted.is_of(&snapshot)));
            let counted = counted.get_or_insert_with(|| Counted::new(&snapshot));
            metrics.set_images(&counted.by_status);
            let roots = engine.supervisor.status().into_iter();
            let roots: Vec<_> = roots
                .map(|status| figures(&status, &counted.by_root))
                .collect();
            metrics.set_roots(&roots);
            metrics
                .generation
                .set(i64::try_from(snapshot.generation).unwrap_or(i64::MAX));
            metrics.ready.set(i64::from(ready()));
            metrics
                .connections
                .set(i64::try_from(self.doorkeeper.connections()).unwrap_or(i64::MAX));
            let condition = match engine.catalog.condition() {
                Condition::Ok => "ok",
                Condition::Memory => "memory",
                Condition::Failed(_) => "failed",
            };
            metrics.set_condition(&CONDITIONS, condition);
            if let Some(tls) = &self.tls {
                for held in &tls.loaded().held {
                    if let Some(validity) = held.validity {
                        metrics.set_certificate(
                            held.setting,
                            validity.not_after,
                            validity.renewal(),
                        );
                    }
                }
            }
        })
    }
}

fn figures(status: &RootStatus, images: &BTreeMap<String, u64>) -> RootFigures {
    let root = escape::utf8_path(&status.path);
    RootFigures {
        images: images.get(&root).copied().unwrap_or(0),
        available: !status.root_state.is_unavailable(),
        scanning: status.progress.is_some(),
        width: status.width(),
        problems: status
            .last
            .as_ref()
            .map(|last| last.problems.by_kind.clone())
            .unwrap_or_default(),
        root,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::Observed;
    use crate::config::RootSettings;
    use crate::engine::Engines;
    use crate::net::Doorkeeper;
    use crate::telemetry::Metrics;

    /// Whoever scrapes may come once a day, and listings are large.
    #[tokio::test]
    async fn a_listing_that_was_counted_is_not_held() {
        let root = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::default());
        let roots = vec![RootSettings::new(root.path().into())];
        let engines = Engines::start(None, roots, Arc::clone(&metrics)).unwrap();
        let engine = engines.current();
        engine.supervisor.stop(Duration::from_secs(60));
        let observed = Observed {
            doorkeeper: Doorkeeper::new(None, Arc::clone(&metrics)),
            metrics,
            engines: Arc::new(engines),
            tls: None,
        };
        let refresh = Arc::new(observed).refresh(|| true);
        let snapshot = engine.catalog.snapshot();
        let held = Arc::strong_count(&snapshot);
        for _ in 0..2 {
            refresh();
            assert_eq!(Arc::strong_count(&snapshot), held);
        }
        // It is known by that, and not counted again.
        assert_eq!(Arc::weak_count(&snapshot), 1);
    }
}
