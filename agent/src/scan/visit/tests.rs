//! A worker on its own.

use std::sync::Arc;
use std::time::Duration;

use super::Visitor;
use crate::config::RootSettings;
use crate::scan::ScanOptions;
use crate::scan::dir::{Access, Operations};
use crate::scan::pace::Pace;
use crate::scan::progress::Progress;
use crate::scan::walk::{Pool, Walk};

#[test]
fn who_waits_for_the_rate_does_not_hang() {
    let directory = tempfile::tempdir().unwrap();
    let settings = RootSettings::new(directory.path().into());
    let access = Access::new(false);
    let root = access.open_root(directory.path(), &mut Operations::default());
    let (root, pace) = (root.unwrap(), Pace::new(1, 1, Some(10.0)));
    let (progress, options) = (Arc::new(Progress::default()), ScanOptions::default());
    let walk = Walk {
        settings: &settings,
        access: &access,
        root: &root,
        known: None,
        pace: &pace,
        progress: &progress,
        options: &options,
        probe: options.probe(&settings),
        sink: &|_| {},
        pool: Pool::default(),
    };
    let mut visitor = Visitor::new(&walk);
    visitor.operations.calls = 10;
    visitor.hand_on();
    assert!(progress.throttled() > Duration::from_millis(900));
    assert!(progress.idle() < Duration::from_millis(800));
}
