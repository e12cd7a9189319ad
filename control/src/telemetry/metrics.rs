//! What can be counted. Labels come from the configuration or from closed enums, never from a
//! request, so that nobody outside can make series.

use std::collections::HashMap;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Metric;
use prometheus_client::registry::Registry;
use prometheus_client::registry::Unit;

use crate::lock::lock;

/// Bounds around what matters: a loopback answer, a page, the hedge, the clients' three seconds.
const SECONDS: [f64; 12] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.25, 0.6, 1.0, 2.5, 3.0,
];

type Seconds = Family<NodeLabels, Histogram, fn() -> Histogram>;

/// Every metric of the control plane.
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<CodeLabels, Counter>,
    request_duration: Histogram,
    /// Requests worked on.
    pub in_flight: Gauge,
    /// Connections held.
    pub connections: Gauge,
    /// Connections that were closed at once, since their client had enough.
    pub connections_refused: Counter,
    /// Connections that ended before a request because of TLS.
    pub tls_failures: Counter,
    /// Panics caught while answering.
    pub panics: Counter,
    /// Clusters registered.
    pub clusters: Gauge,
    rpcs: Family<RpcLabels, Counter>,
    rpc_duration: Seconds,
    breaker: Family<NodeLabels, Gauge>,
    reloads: Family<ReloadLabels, Counter>,
    certificate_expiry: Family<CertificateLabels, Gauge>,
    certificate_renewal: Family<CertificateLabels, Gauge>,
    /// Login nodes and outcomes that have series.
    series: Mutex<HashMap<Arc<str>, HashSet<&'static str>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    code: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RpcLabels {
    node: Arc<str>,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabels {
    node: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    what: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabels {
    certificate: &'static str,
}

/// A registry being filled.
struct Table(Registry);

impl Table {
    /// Registers a metric and hands it back, to be counted with.
    fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }

    /// The same for a time.
    fn add_seconds<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        let copy = metric.clone();
        self.0.register_with_unit(name, help, Unit::Seconds, copy);
        metric
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// A registry of its own, so that tests do not share counters.
    pub fn new() -> Self {
        let mut table = Table(Registry::with_prefix("sifter_control"));
        table.0.register(
            "build",
            "Version of this program",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        let reloads: Family<ReloadLabels, Counter> =
            table.add("reloads", "Files read again, by result", Family::default());
        // There from the start, so that a first failure is an increase.
        for what in ["config", "certificate", "agent_tls", "keys"] {
            for result in ["ok", "failed"] {
                drop(reloads.get_or_create(&ReloadLabels { what, result }));
            }
        }
        Self {
            requests: table.add(
                "http_requests",
                "Requests answered, by the code of the answer (OK if there was none)",
                Family::default(),
            ),
            request_duration: table.add_seconds(
                "http_request_duration",
                "Time from the end of a request's headers to its answer",
                Histogram::new(SECONDS),
            ),
            in_flight: table.add(
                "http_requests_in_flight",
                "Requests worked on",
                Gauge::default(),
            ),
            connections: table.add("http_connections", "Connections held", Gauge::default()),
            connections_refused: table.add(
                "http_connections_refused",
                "Connections beyond what one client may have",
                Counter::default(),
            ),
            tls_failures: table.add(
                "tls_handshake_failures",
                "TLS handshakes that failed",
                Counter::default(),
            ),
            panics: table.add(
                "panics",
                "Panics caught while answering",
                Counter::default(),
            ),
            clusters: table.add("clusters", "Clusters registered", Gauge::default()),
            rpcs: table.add(
                "agent_rpcs",
                "Calls to login nodes, by outcome",
                Family::default(),
            ),
            rpc_duration: table.add_seconds(
                "agent_rpc_duration",
                "Time of a call to a login node",
                Family::new_with_constructor(|| Histogram::new(SECONDS)),
            ),
            breaker: table.add(
                "agent_breaker_state",
                "Circuit breaker of a login node: 0 closed, 1 probing, 2 open",
                Family::default(),
            ),
            reloads,
            certificate_expiry: table.add_seconds(
                "tls_certificate_expiry_timestamp",
                "Until when a certificate is valid, by its key in the configuration",
                Family::default(),
            ),
            certificate_renewal: table.add_seconds(
                "tls_certificate_renewal_timestamp",
                "When a certificate should have been renewed, by its key in the configuration",
                Family::default(),
            ),
            series: Mutex::default(),
            registry: Mutex::new(table.0),
        }
    }

    /// Counts an answer.
    pub fn request(&self, code: &'static str, status: u16, duration: Duration) {
        self.requests
            .get_or_create(&CodeLabels { code, status })
            .inc();
        self.request_duration.observe(duration.as_secs_f64());
    }

    /// Counts a call to a login node.
    pub fn agent_rpc(&self, node: &Arc<str>, outcome: &'static str, duration: Duration) {
        let labels = NodeLabels {
            node: Arc::clone(node),
        };
        self.rpc_duration
            .get_or_create(&labels)
            .observe(duration.as_secs_f64());
        let NodeLabels { node: name } = labels;
        self.rpcs
            .get_or_create(&RpcLabels {
                node: name,
                outcome,
            })
            .inc();
        self.lock_series()
            .entry(Arc::clone(node))
            .or_default()
            .insert(outcome);
    }

    /// Counts a file that was read again.
    pub fn reload(&self, what: &'static str, ok: bool) {
        let result = if ok { "ok" } else { "failed" };
        self.reloads
            .get_or_create(&ReloadLabels { what, result })
            .inc();
    }

    /// Notes until when a certificate is valid, and when it should have been renewed.
    pub fn certificate(&self, certificate: &'static str, not_after: Timestamp, renewal: Timestamp) {
        for (family, time) in [
            (&self.certificate_expiry, not_after),
            (&self.certificate_renewal, renewal),
        ] {
            family
                .get_or_create(&CertificateLabels { certificate })
                .set(time.as_second());
        }
    }

    /// Drops the series of login nodes that are not among these.
    pub fn retain_nodes(&self, registered: &HashSet<String>) {
        self.lock_series().retain(|node, outcomes| {
            let kept = registered.contains(&**node);
            if !kept {
                let labels = NodeLabels {
                    node: Arc::clone(node),
                };
                self.breaker.remove(&labels);
                self.rpc_duration.remove(&labels);
                for &outcome in outcomes.iter() {
                    self.rpcs.remove(&RpcLabels {
                        node: Arc::clone(node),
                        outcome,
                    });
                }
            }
            kept
        });
    }

    fn lock_series(&self) -> MutexGuard<'_, HashMap<Arc<str>, HashSet<&'static str>>> {
        lock(&self.series)
    }

    /// Everything in the text format of OpenMetrics.
    /// `breakers`: each login node, and 0, 1 or 2 for its circuit breaker.
    pub fn render(&self, breakers: Vec<(Arc<str>, i64)>) -> String {
        for (node, state) in breakers {
            self.lock_series().entry(Arc::clone(&node)).or_default();
            self.breaker.get_or_create(&NodeLabels { node }).set(state);
        }
        let mut text = String::new();
        let registry = lock(&self.registry);
        // Writing to a string does not fail.
        encode(&mut text, &registry).expect("metrics encode");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_reload_that_fails_is_an_increase() {
        let metrics = Metrics::new();
        for what in ["config", "certificate", "agent_tls", "keys"] {
            let line = |count: u32| {
                format!(
                    "sifter_control_reloads_total{{what=\"{what}\",result=\"failed\"}} {count}\n"
                )
            };
            assert!(metrics.render(Vec::new()).contains(&line(0)), "{what}");
            metrics.reload(what, false);
            assert!(metrics.render(Vec::new()).contains(&line(1)), "{what}");
        }
    }

    #[test]
    fn series_of_nodes_that_are_gone_are_gone() {
        let metrics = Metrics::new();
        for node in ["http://a:1", "http://b:1"] {
            metrics.agent_rpc(&node.into(), "ok", Duration::ZERO);
            metrics.agent_rpc(&node.into(), "timeout", Duration::ZERO);
        }
        let breakers = || vec![("http://a:1".into(), 2)];
        assert!(metrics.render(breakers()).contains("http://a:1"));
        metrics.retain_nodes(&HashSet::from(["http://b:1".to_owned()]));
        let text = metrics.render(Vec::new());
        assert!(!text.contains("http://a:1"), "{text}");
        assert!(text.contains("http://b:1"), "{text}");
    }

    #[test]
    fn every_metric_is_documented() {
        const OPERATIONS: &str = include_str!("../../../docs/operations.md");
        // What has no series yet is not on the page.
        let metrics = Metrics::new();
        metrics.request("OK", 200, Duration::ZERO);
        metrics.agent_rpc(&"http://a:1".into(), "ok", Duration::ZERO);
        metrics.certificate("server.cert", Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
        let page = metrics.render(vec![("http://a:1".into(), 2)]);
        let metrics: Vec<_> = page
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE sifter_control_")?.split_once(' '))
            .collect();
        assert!(metrics.len() > 12, "{page}");
        for (name, kind) in metrics {
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            let mut ends = ['`', '{'].iter();
            assert!(
                ends.any(|end| OPERATIONS.contains(&format!("`{name}{suffix}{end}"))),
                "{name}{suffix}"
            );
        }
    }
}
