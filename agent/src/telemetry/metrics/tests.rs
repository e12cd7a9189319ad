use std::collections::BTreeMap;
use std::time::Duration;

use super::super::rpc::Method;
use super::{Metrics, REFUSALS, RootFigures, Scanned};

fn page(metrics: &Metrics) -> String {
    metrics.render(|| ())
}

#[test]
fn what_happened_is_shown_and_what_is_over_is_not() {
    let metrics = Metrics::default();
    metrics.scanned(
        "/r",
        &Scanned {
            ok: true,
            duration: Duration::from_secs(1),
            operations: 7,
            bytes: 9,
            ended: 1_795_000_000,
            ..Scanned::default()
        },
    );
    metrics.connection_refused("expired");
    let root = |problems| RootFigures {
        root: "/r".to_owned(),
        available: true,
        problems,
        ..RootFigures::default()
    };
    metrics.set_roots(&[root(BTreeMap::from([("PERMISSION_DENIED", 3)]))]);
    metrics.set_images(&BTreeMap::from([(("READY", "SIF"), 2)]));
    let text = page(&metrics);
    for line in [
        "sifter_agent_scan_operations_total{root=\"/r\"} 7",
        "sifter_agent_scan_read_bytes_total{root=\"/r\"} 9",
        "sifter_agent_scan_last_success_timestamp_seconds{root=\"/r\"} 1795000000",
        "sifter_agent_problems{root=\"/r\",kind=\"PERMISSION_DENIED\"} 3",
        "sifter_agent_images{status=\"READY\",format=\"SIF\"} 2",
        "sifter_agent_connections_refused_total{reason=\"expired\"} 1",
        "sifter_agent_build_info{version=\"",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    metrics.set_roots(&[root(BTreeMap::new())]);
    assert!(!page(&metrics).contains("PERMISSION_DENIED"));
}

/// Alerts for it would never end.
#[test]
fn nothing_is_told_of_a_root_that_is_none_any_more() {
    let metrics = Metrics::default();
    let root = |root: &str| RootFigures {
        root: root.to_owned(),
        problems: BTreeMap::from([("PERMISSION_DENIED", 3)]),
        ..RootFigures::default()
    };
    for (name, ok) in [("/kept", true), ("/gone", true), ("/gone", false)] {
        metrics.scanned(
            name,
            &Scanned {
                ok,
                ..Scanned::default()
            },
        );
    }
    metrics.set_roots(&[root("/kept"), root("/gone")]);
    let series = |name: &str| page(&metrics).matches(&format!("root=\"{name}\"")).count();
    let (kept, gone) = (series("/kept"), series("/gone"));
    assert!(gone > kept && kept > 10, "{gone} {kept}");
    metrics.set_roots(&[root("/kept")]);
    assert_eq!((series("/kept"), series("/gone")), (kept, 0));
    // A scan that ends late.
    metrics.scanned("/gone", &Scanned::default());
    assert_ne!(series("/gone"), 0);
    metrics.set_roots(&[root("/kept")]);
    assert_eq!(series("/gone"), 0);
}

#[test]
fn two_who_ask_at_once_both_get_all() {
    const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    let pairs = NAMES
        .iter()
        .flat_map(|one| NAMES.map(|other| (*one, other)));
    let images: BTreeMap<_, _> = pairs.map(|pair| (pair, 1)).collect();
    let metrics = Metrics::default();
    let shown = || {
        let page = metrics.render(|| metrics.set_images(&images));
        page.matches("sifter_agent_images{").count()
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..100 {
                    assert_eq!(shown(), images.len());
                }
            });
        }
    });
}

#[test]
fn every_metric_is_documented() {
    const OPERATIONS: &str = include_str!("../../../../docs/operations.md");
    // What has no series yet is not on the page.
    let metrics = Metrics::default();
    metrics.scanned(
        "/r",
        &Scanned {
            ok: true,
            ..Scanned::default()
        },
    );
    metrics.set_roots(&[RootFigures {
        root: "/r".to_owned(),
        problems: BTreeMap::from([("PERMISSION_DENIED", 3)]),
        ..RootFigures::default()
    }]);
    metrics.set_images(&BTreeMap::from([(("READY", "SIF"), 2)]));
    metrics.set_condition(&["ok"], "ok");
    let epoch = jiff::Timestamp::UNIX_EPOCH;
    metrics.set_certificate("tls.cert", epoch, epoch);
    let method = Method::of("/sifter.v1.ImageService/ListImages");
    metrics.rpc_started(&method);
    metrics.rpc_handled(&method, "OK", Duration::ZERO);
    let page = page(&metrics);
    let metrics: Vec<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    assert!(metrics.len() > 24, "{page}");
    for (name, kind) in metrics {
        let name = name.trim_start_matches("sifter_agent_");
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

#[test]
fn every_refusal_is_documented() {
    const SECURITY: &str = include_str!("../../../../docs/security.md");
    for reason in REFUSALS {
        assert!(SECURITY.contains(&format!("`{reason}`")), "{reason}");
    }
}
