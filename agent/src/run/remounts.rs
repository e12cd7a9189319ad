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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::may_be_back;
    use crate::catalog::FileTime;
    use crate::scan::{Counts, HintState, Problem, Problems, RootState, RootStatus, ScanReport};

    #[test]
    fn only_what_was_lacking_is_scanned_again() {
        let nfs = "34 22 0:44 / /r/project rw shared:6 - nfs4 server:/p rw\n";
        let autofs = "34 22 0:44 / /r/project rw shared:6 - autofs /etc/auto.p rw,fd=7,direct\n";
        let elsewhere = "34 22 0:44 / /other rw shared:6 - nfs4 server:/p rw\n";
        let away = || RootState::Unavailable("gone".to_owned());
        for (root_state, kind, mounts, expected) in [
            (RootState::Ok, "NOT_MOUNTED", nfs, true),
            // It mounts nothing before somebody looks.
            (RootState::Ok, "NOT_MOUNTED", autofs, false),
            (RootState::Ok, "NOT_MOUNTED", elsewhere, false),
            (RootState::Ok, "PERMISSION_DENIED", nfs, false),
            (away(), "PERMISSION_DENIED", elsewhere, true),
        ] {
            let problem = Problem {
                path: "/r/project".into(),
                kind,
                message: String::new(),
            };
            let root = RootStatus {
                path: "/r".into(),
                root_state,
                unknown: false,
                file_system: None,
                last: Some(Arc::new(ScanReport {
                    started: FileTime(0),
                    duration: Duration::ZERO,
                    counts: Counts::default(),
                    problems: Problems {
                        first: vec![problem],
                        ..Problems::default()
                    },
                    width: 1,
                    throttled: Duration::ZERO,
                    error: None,
                })),
                progress: None,
                next: None,
                hint: HintState::Interval,
            };
            let is = may_be_back(&root, mounts.as_bytes());
            assert_eq!(is, expected, "{:?} {kind} {mounts}", root.root_state);
        }
    }
}
