//! What could not be read for want of a mount is scanned again as soon as that is there, not after the interval.

use std::path::Path;
use std::sync::Arc;

use crate::catalog::RootIndex;
use crate::engine::Engines;
use crate::mounts::{self, MOUNTINFO};
use crate::scan::RootStatus;

/// Asks for scans whenever something was mounted that some root lacked.
pub(super) async fn watch(engines: Arc<Engines>) {
    let mut changes = mounts::changes();
    while changes.recv().await.is_some() {
        let Ok(mountinfo) = std::fs::read(MOUNTINFO) else {
            continue;
        };
        let supervisor = Arc::clone(&engines.current().supervisor);
        for (index, root) in supervisor.status().iter().enumerate() {
            if may_be_back(root, &mountinfo) {
                supervisor.request(RootIndex(index), false, false);
            }
        }
    }
}

/// Whether something that a root lacked at its last scan may be there now.
fn may_be_back(root: &RootStatus, mountinfo: &[u8]) -> bool {
    // By their ends: a root may be a link, and the kernel tells where that leads.
    let is_mounted = |path: &Path| {
        mounts::all(mountinfo).any(|mount| mount.point.ends_with(path) && mount.kind != b"autofs")
    };
    let problems = root.last.iter().flat_map(|last| &last.problems.first);
    // Of a root itself any mount above it may be what was missing.
    root.root_state.is_unavailable()
        || problems
            .filter(|problem| problem.kind == "NOT_MOUNTED")
            .filter_map(|problem| problem.path.strip_prefix(&root.path).ok())
            .any(is_mounted)
}
