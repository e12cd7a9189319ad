//! What is counted. Labels come from the configuration or from closed lists, never from a request,
//! so that nobody outside can make series.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};

use crate::lock::lock;

/// Bounds of RPCs: a page from memory, a stream of all images, a slow client.
const RPC_SECONDS: [f64; 11] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0,
];

/// Bounds of scans: an unchanged small tree, an unchanged large one, a first scan over a network.
const SCAN_SECONDS: [f64; 10] = [
    0.01, 0.1, 0.5, 2.0, 10.0, 30.0, 120.0, 600.0, 3600.0, 21_600.0,
];

/// Why connections are refused, or have to leave.
const REFUSALS: [&str; 14] = [
    "bad_certificate",
    "evicted",
    "expired",
    "gone",
    "handshake_timeout",
    "no_certificate",
    "not_allowed",
    "not_yet_valid",
    "plain_text",
    "protocol",
    "refused_by_client",
    "silent",
    "too_many",
    "unknown_issuer",
];

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Text that many series share.
type Name = Arc<str>;

macro_rules! labels {
    ($($name:ident { $($field:ident: $type:ty),* })*) => {$(
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name { $($field: $type),* }
    )*};
}

labels! {
    RootLabels { root: Name }
    ScanLabels { root: Name, result: &'static str }
    ProblemLabels { root: Name, kind: &'static str }
    ImageLabels { status: &'static str, format: &'static str }
    ConditionLabels { condition: &'static str }
    ReasonLabels { reason: &'static str }
    CertificateLabels { certificate: &'static str }
    ReloadLabels { what: &'static str, result: &'static str }
    RpcLabels { grpc_type: &'static str, grpc_service: &'static str, grpc_method: &'static str }
    CodeLabels { grpc_type: &'static str, grpc_service: &'static str, grpc_method: &'static str, grpc_code: &'static str }
}

/// A scan that has ended.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scanned {
    /// Whether the root could be scanned.
    pub ok: bool,
    /// How long it took.
    pub duration: Duration,
    /// Directories visited.
    pub directories: u64,
    /// Files opened and read.
    pub files_read: u64,
    /// System calls on the file system.
    pub operations: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Time that scanning waited for its rate.
    pub throttled: Duration,
    /// When it ended, in seconds since 1970.
    pub ended: i64,
}

/// A root as it is now.
#[derive(Debug, Clone, Default)]
pub struct RootFigures {
    /// Its path.
    pub root: String,
    /// Whether it can be read.
    pub available: bool,
    /// Whether a scan is under way.
    pub scanning: bool,
    /// Operations in flight at most.
    pub width: u32,
    /// Images listed.
    pub images: u64,
    /// Problems of the last scan.
    pub problems: BTreeMap<&'static str, u64>,
}

/// Every metric of the agent.
pub struct Metrics {
    registry: Mutex<Registry>,
    /// Roots that have series.
    roots: Mutex<BTreeSet<Name>>,
    scans: Family<ScanLabels, Counter>,
    scan_duration: Histograms<RootLabels>,
    scan_directories: Family<RootLabels, Counter>,
    scan_files_read: Family<RootLabels, Counter>,
    scan_operations: Family<RootLabels, Counter>,
    scan_bytes: Family<RootLabels, Counter>,
    scan_throttled: Family<RootLabels, Counter<f64, std::sync::atomic::AtomicU64>>,
    scan_success: Family<RootLabels, Gauge>,
    scan_running: Family<RootLabels, Gauge>,
    scan_width: Family<RootLabels, Gauge>,
    root_available: Family<RootLabels, Gauge>,
    root_images: Family<RootLabels, Gauge>,
    problems: Family<ProblemLabels, Gauge>,
    images: Family<ImageLabels, Gauge>,
    condition: Family<ConditionLabels, Gauge>,
    /// Generation of the listing.
    pub generation: Gauge,
    /// Whether listings are answered: 0 or 1.
    pub ready: Gauge,
    /// Connections held.
    pub connections: Gauge,
    refused: Family<ReasonLabels, Counter>,
    certificate_expiry: Family<CertificateLabels, Gauge>,
    certificate_renewal: Family<CertificateLabels, Gauge>,
    reloads: Family<ReloadLabels, Counter>,
    rpcs_started: Family<RpcLabels, Counter>,
    rpcs_handled: Family<CodeLabels, Counter>,
    rpc_duration: Histograms<RpcLabels>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Registers a metric and hands it back, to be counted with.
fn add<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// The same for one that has a unit.
fn add_in<M: Metric + Clone>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    unit: Unit,
    metric: M,
) -> M {
    registry.register_with_unit(name, help, unit, metric.clone());
    metric
}

impl Default for Metrics {
    #[rustfmt::skip]
    fn default() -> Self {
        let mut registry = Registry::default();
        let all = &mut registry;
        // The names that every gRPC library uses.
        let rpcs_started = add(all, "grpc_server_started", "RPCs begun", Family::default());
        let rpcs_handled = add(all, "grpc_server_handled", "RPCs ended, by code", Family::default());
        let rpc_duration: Histograms<_> = Family::new_with_constructor(|| Histogram::new(RPC_SECONDS));
        let rpc_duration = add_in(all, "grpc_server_handling", "Time from an RPC's begin to its end", Unit::Seconds, rpc_duration);
        let scan_duration: Histograms<_> = Family::new_with_constructor(|| Histogram::new(SCAN_SECONDS));
        let own = registry.sub_registry_with_prefix("sifter_agent");
        own.register("build", "Version of this program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        let metrics = Self {
            rpcs_started,
            rpcs_handled,
            rpc_duration,
            scans: add(own, "scans", "Scans ended, by result", Family::default()),
            scan_duration: add_in(own, "scan_duration", "Time that a scan took", Unit::Seconds, scan_duration),
            scan_directories: add(own, "scan_directories", "Directories visited by scans", Family::default()),
            scan_files_read: add(own, "scan_files_read", "Files that scans opened and read", Family::default()),
            scan_operations: add(own, "scan_operations", "System calls that scans made on the file system", Family::default()),
            scan_bytes: add_in(own, "scan_read", "Bytes that scans read from files", Unit::Bytes, Family::default()),
            scan_throttled: add_in(own, "scan_throttled", "Time that scans waited to keep their rate", Unit::Seconds, Family::default()),
            scan_success: add_in(own, "scan_last_success_timestamp", "When a scan of the root last succeeded", Unit::Seconds, Family::default()),
            scan_running: add(own, "scan_running", "Whether a scan of the root is under way", Family::default()),
            scan_width: add(own, "scan_width", "Operations in flight at most", Family::default()),
            root_available: add(own, "root_available", "Whether the root can be read", Family::default()),
            root_images: add(own, "root_images", "Images listed, by root", Family::default()),
            problems: add(own, "problems", "Problems of the last scan, by root and kind", Family::default()),
            images: add(own, "images", "Images listed, by status and format", Family::default()),
            condition: add(own, "catalog_condition", "1 for the condition that the catalogue's database is in", Family::default()),
            generation: add(own, "catalog_generation", "Generation of the listing", Gauge::default()),
            ready: add(own, "ready", "Whether listings are answered", Gauge::default()),
            connections: add(own, "connections", "Connections held", Gauge::default()),
            refused: add(own, "connections_refused", "Connections that were not let in, or had to leave, by reason", Family::default()),
            certificate_expiry: add_in(own, "tls_certificate_expiry_timestamp", "Until when a certificate is valid, by its key in the configuration", Unit::Seconds, Family::default()),
            certificate_renewal: add_in(own, "tls_certificate_renewal_timestamp", "When a certificate should have been renewed, by its key in the configuration", Unit::Seconds, Family::default()),
            reloads: add(own, "reloads", "Configuration and certificates read again, by result", Family::default()),
            roots: Mutex::default(),
            registry: Mutex::new(registry),
        };
        // There from the start, so that a first refusal is an increase.
        for reason in REFUSALS {
            drop(metrics.refused.get_or_create(&ReasonLabels { reason }));
        }
        for what in ["configuration", "certificates"] {
            for result in ["ok", "error"] {
                drop(metrics.reloads.get_or_create(&ReloadLabels { what, result }));
            }
        }
        metrics
    }
}

impl Metrics {
    /// A connection was not let in, or had to leave.
    pub fn connection_refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Something was read again.
    pub fn reloaded(&self, what: &'static str, ok: bool) {
        let result = if ok { "ok" } else { "error" };
        self.reloads
            .get_or_create(&ReloadLabels { what, result })
            .inc();
    }

    /// An RPC began.
    pub(super) fn rpc_started(&self, method: &super::rpc::Method) {
        self.rpcs_started.get_or_create(&method.into()).inc();
    }

    /// An RPC ended.
    pub(super) fn rpc_handled(
        &self,
        method: &super::rpc::Method,
        code: &'static str,
        duration: Duration,
    ) {
        self.rpcs_handled
            .get_or_create(&CodeLabels {
                grpc_type: method.kind,
                grpc_service: method.service,
                grpc_method: method.name,
                grpc_code: code,
            })
            .inc();
        self.rpc_duration
            .get_or_create(&method.into())
            .observe(duration.as_secs_f64());
    }

    /// A scan ended.
    pub fn scanned(&self, root: &str, scan: &Scanned) {
        let labels = RootLabels { root: root.into() };
        lock(&self.roots).insert(Arc::clone(&labels.root));
        self.scans
            .get_or_create(&ScanLabels {
                root: Arc::clone(&labels.root),
                result: if scan.ok { "ok" } else { "error" },
            })
            .inc();
        self.scan_duration
            .get_or_create(&labels)
            .observe(scan.duration.as_secs_f64());
        for (family, count) in [
            (&self.scan_directories, scan.directories),
            (&self.scan_files_read, scan.files_read),
            (&self.scan_operations, scan.operations),
            (&self.scan_bytes, scan.bytes),
        ] {
            family.get_or_create(&labels).inc_by(count);
        }
        self.scan_throttled
            .get_or_create(&labels)
            .inc_by(scan.throttled.as_secs_f64());
        if scan.ok {
            self.scan_success.get_or_create(&labels).set(scan.ended);
        }
    }

    /// How the roots are now. Of others nothing is told any more: what was last known of one that was taken
    /// from the configuration would be an alert without end.
    pub fn set_roots(&self, roots: &[RootFigures]) {
        self.problems.clear();
        lock(&self.roots).retain(|known| {
            let is_one = roots.iter().any(|root| *root.root == **known);
            if !is_one {
                self.forget(known);
            }
            is_one
        });
        for root in roots {
            let labels = RootLabels {
                root: root.root.as_str().into(),
            };
            lock(&self.roots).insert(Arc::clone(&labels.root));
            for (family, value) in [
                (&self.root_available, i64::from(root.available)),
                (&self.scan_running, i64::from(root.scanning)),
                (&self.scan_width, i64::from(root.width)),
                (&self.root_images, count(root.images)),
            ] {
                family.get_or_create(&labels).set(value);
            }
            for (kind, number) in &root.problems {
                self.problems
                    .get_or_create(&ProblemLabels {
                        root: Arc::clone(&labels.root),
                        kind,
                    })
                    .set(count(*number));
            }
        }
    }

    /// Drops the series of a root; those of its problems are set anew each time.
    fn forget(&self, root: &Name) {
        for result in ["ok", "error"] {
            let root = Arc::clone(root);
            self.scans.remove(&ScanLabels { root, result });
        }
        let labels = RootLabels {
            root: Arc::clone(root),
        };
        self.scan_duration.remove(&labels);
        self.scan_throttled.remove(&labels);
        for family in [
            &self.scan_directories,
            &self.scan_files_read,
            &self.scan_operations,
            &self.scan_bytes,
        ] {
            family.remove(&labels);
        }
        for family in [
            &self.scan_success,
            &self.scan_running,
            &self.scan_width,
            &self.root_available,
            &self.root_images,
        ] {
            family.remove(&labels);
        }
    }

    /// Which images are listed, by status and format.
    pub fn set_images(&self, images: &BTreeMap<(&'static str, &'static str), u64>) {
        self.images.clear();
        for ((status, format), number) in images {
            self.images
                .get_or_create(&ImageLabels { status, format })
                .set(count(*number));
        }
    }

    /// Notes until when a certificate is valid, and when it should have been renewed.
    pub fn set_certificate(
        &self,
        certificate: &'static str,
        not_after: Timestamp,
        renewal: Timestamp,
    ) {
        for (family, time) in [
            (&self.certificate_expiry, not_after),
            (&self.certificate_renewal, renewal),
        ] {
            family
                .get_or_create(&CertificateLabels { certificate })
                .set(time.as_second());
        }
    }

    /// How the catalogue's database is, of all conditions that there are.
    pub fn set_condition(&self, all: &[&'static str], now: &'static str) {
        for condition in all {
            self.condition
                .get_or_create(&ConditionLabels { condition })
                .set(i64::from(*condition == now));
        }
    }

    /// All metrics as OpenMetrics text, after `refresh` has set them. While one does, no other is shown a
    /// page: series are cleared before they are set anew.
    #[must_use]
    pub fn render(&self, refresh: impl FnOnce()) -> String {
        let mut text = String::new();
        let registry = lock(&self.registry);
        refresh();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &registry);
        text
    }
}

impl From<&super::rpc::Method> for RpcLabels {
    fn from(method: &super::rpc::Method) -> Self {
        Self {
            grpc_type: method.kind,
            grpc_service: method.service,
            grpc_method: method.name,
        }
    }
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
