//! The agent as its services see it: what engine, scans and confinement say, in the words of the
//! contract.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use sifter_proto::v1;

use crate::catalog::{Catalog, FileTime, RootIndex, Snapshot};
use crate::config::RootSettings;
use crate::confine::Confined;
use crate::engine::Engines;
use crate::escape::utf8_path;
use crate::scan::{HintState, Nature, Progress, RootState, RootStatus, ScanReport, Supervisor};
use crate::service::{ImageSource, Ticket, convert};

/// What the services see of the agent.
pub(super) struct Wired {
    pub system: String,
    pub host: String,
    pub started: FileTime,
    pub engines: Arc<Engines>,
    pub confined: Confined,
}

impl Wired {
    fn supervisor(&self) -> Arc<Supervisor> {
        Arc::clone(&self.engines.current().supervisor)
    }

    fn status(&self, root: &str) -> Option<RootStatus> {
        let supervisor = self.supervisor();
        let (index, _) = find(&supervisor, root)?;
        supervisor.status_of(index)
    }
}

/// A root by its path as text.
fn find<'s>(supervisor: &'s Supervisor, root: &str) -> Option<(RootIndex, &'s RootSettings)> {
    let mut roots = supervisor.settings();
    roots.find(|(_, settings)| utf8_path(&settings.path) == root)
}

impl ImageSource for Wired {
    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.engines.current().catalog)
    }

    fn former_catalog(&self) -> Option<Arc<Catalog>> {
        self.engines.former()
    }

    fn replaced(&self) -> tokio::sync::watch::Receiver<u64> {
        self.engines.replaced()
    }

    fn roots_number(&self) -> u64 {
        self.engines.number()
    }

    fn system(&self) -> &str {
        &self.system
    }

    fn confinement(&self) -> (v1::Confinement, String) {
        (self.confined.state, self.confined.message.clone())
    }

    fn host(&self) -> &str {
        &self.host
    }

    fn started(&self) -> FileTime {
        self.started
    }

    fn is_ready(&self) -> bool {
        let engine = self.engines.current();
        let mut unknown = engine.supervisor.unknown().into_iter();
        unknown.all(|root| root.root_state.is_unavailable() || !engine.waits_for(&root.path))
    }

    fn knows_all_roots(&self) -> bool {
        self.supervisor().unknown().is_empty()
    }

    fn unlisted_roots(&self) -> Vec<v1::UnlistedRoot> {
        self.supervisor()
            .unknown()
            .into_iter()
            .filter_map(|root| match root.root_state {
                RootState::Unavailable(error) => {
                    let path = utf8_path(&root.path);
                    let command = format!("scan {path}");
                    let error = error
                        .strip_prefix(&format!("{command}: "))
                        .map_or(error.clone(), str::to_owned);
                    Some(v1::UnlistedRoot {
                        path,
                        command,
                        error,
                    })
                }
                RootState::Pending | RootState::Ok => None,
            })
            .collect()
    }

    fn unavailable_roots(&self, snapshot: &Snapshot) -> Vec<String> {
        if snapshot.unavailable.is_empty() {
            return Vec::new();
        }
        self.supervisor()
            .settings()
            .filter(|(_, root)| snapshot.is_unavailable(root.path.as_os_str().as_bytes()))
            .map(|(_, root)| utf8_path(&root.path))
            .collect()
    }

    fn root_count(&self) -> usize {
        self.supervisor().settings().count()
    }

    fn roots(&self, images: &BTreeMap<String, u64>) -> Vec<v1::Root> {
        self.supervisor()
            .status()
            .into_iter()
            .map(|status| root(status, images))
            .collect()
    }

    fn scan(&self, root: &str, full: bool) -> Option<Ticket> {
        let roots_number = self.engines.number();
        let supervisor = self.supervisor();
        let (index, _) = find(&supervisor, root)?;
        Some(Ticket {
            finished: supervisor.finished(index)?,
            number: supervisor.request(index, full, true),
            roots_number,
        })
    }

    fn rescan_interval(&self, root: &str) -> Duration {
        let supervisor = self.supervisor();
        let found = find(&supervisor, root);
        found.map_or(Duration::ZERO, |(_, settings)| settings.rescan_interval)
    }

    fn root_paths(&self) -> Vec<String> {
        self.supervisor()
            .settings()
            .map(|(_, settings)| utf8_path(&settings.path))
            .collect()
    }

    fn progress(&self, root: &str) -> Option<v1::ScanProgress> {
        let (progress, started) = self.status(root)?.progress?;
        Some(scan_progress(&progress, started))
    }

    fn result(&self, root: &str) -> Option<v1::ScanResult> {
        self.status(root)?.last.map(|report| scan_result(&report))
    }
}

fn root(status: RootStatus, images: &BTreeMap<String, u64>) -> v1::Root {
    let path = utf8_path(&status.path);
    let (state, message) = match (&status.root_state, &status.progress) {
        (RootState::Unavailable(message), _) => (v1::RootState::Unavailable, message.clone()),
        (RootState::Ok, _) => (v1::RootState::Ok, String::new()),
        (RootState::Pending, Some(_)) => (v1::RootState::Scanning, String::new()),
        (RootState::Pending, None) => (v1::RootState::Pending, String::new()),
    };
    let (hint_mode, hint_message) = match &status.hint {
        HintState::Interval => (v1::HintMode::Interval, String::new()),
        HintState::Fallback(message) => (v1::HintMode::Interval, message.clone()),
        HintState::Inotify => (v1::HintMode::Inotify, String::new()),
    };
    let problems = status.last.as_ref().map(|last| {
        last.problems
            .first
            .iter()
            .map(|problem| v1::Problem {
                path: utf8_path(&problem.path),
                kind: problem.kind.to_owned(),
                message: problem.message.clone(),
            })
            .collect()
    });
    v1::Root {
        image_count: images.get(&path).copied().unwrap_or(0),
        state: state.into(),
        message,
        file_system_type: status
            .file_system
            .map(|kind| kind.name.to_owned())
            .unwrap_or_default(),
        network: status
            .file_system
            .is_some_and(|kind| kind.nature == Nature::Network),
        hint_mode: hint_mode.into(),
        hint_message,
        width: status.width(),
        last_scan: status.last.as_deref().map(scan_result),
        progress: status
            .progress
            .as_ref()
            .map(|(progress, started)| scan_progress(progress, *started)),
        next_scan_time: status.next.map(convert::timestamp),
        problems: problems.unwrap_or_default(),
        path,
    }
}

fn scan_progress(progress: &Progress, started: FileTime) -> v1::ScanProgress {
    v1::ScanProgress {
        start_time: Some(convert::timestamp(started)),
        counts: Some(counts(&progress.counts(), progress.problems().count())),
        directories_pending: progress.pending(),
        width: progress.width(),
    }
}

fn scan_result(report: &ScanReport) -> v1::ScanResult {
    v1::ScanResult {
        start_time: Some(convert::timestamp(report.started)),
        duration: Some(pbjson_types::Duration {
            seconds: i64::try_from(report.duration.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(report.duration.subsec_nanos()).unwrap_or(0),
        }),
        counts: Some(counts(&report.counts, report.problems.count())),
        problem_count_by_kind: report
            .problems
            .by_kind
            .iter()
            .map(|(kind, count)| ((*kind).to_owned(), *count))
            .collect(),
        problem_count: report.problems.count(),
        error: report.error.clone().unwrap_or_default(),
    }
}

fn counts(counts: &crate::scan::Counts, problems: u64) -> v1::ScanCounts {
    v1::ScanCounts {
        directories: counts.directories,
        files: counts.files,
        images: counts.images,
        files_read: counts.files_read,
        misnamed: counts.misnamed,
        mounts_skipped: counts.mounts_skipped,
        operations: counts.operations,
        bytes_read: counts.bytes,
        problems,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::root;
    use crate::catalog::FileTime;
    use crate::scan::{FileSystemType, HintState, Nature, RootState, RootStatus};

    #[test]
    fn a_root_is_told_as_it_is() {
        let images = BTreeMap::from([("/r".to_owned(), 7), ("/other".to_owned(), 9)]);
        let gone = RootState::Unavailable("gone".to_owned());
        let no_watch = HintState::Fallback("no watch".to_owned());
        for (root_state, scans, hint, nature, expected) in [
            (
                RootState::Pending,
                false,
                HintState::Interval,
                Nature::Local,
                "PENDING  INTERVAL ",
            ),
            (
                RootState::Pending,
                true,
                HintState::Inotify,
                Nature::Local,
                "SCANNING  INOTIFY ",
            ),
            (
                RootState::Ok,
                true,
                no_watch,
                Nature::Network,
                "OK  INTERVAL no watch",
            ),
            (
                gone,
                true,
                HintState::Interval,
                Nature::User,
                "UNAVAILABLE gone INTERVAL ",
            ),
        ] {
            let progress = || (Arc::default(), FileTime::new(1, 0));
            let told = root(
                RootStatus {
                    path: "/r".into(),
                    root_state,
                    unknown: true,
                    file_system: Some(FileSystemType {
                        name: "xfs",
                        nature,
                    }),
                    last: None,
                    progress: scans.then(progress),
                    next: Some(FileTime::new(2, 0)),
                    hint,
                },
                &images,
            );
            let (state, mode) = (told.state().as_str_name(), told.hint_mode().as_str_name());
            let state = state.trim_start_matches("ROOT_STATE_");
            let mode = mode.trim_start_matches("HINT_MODE_");
            let said = format!("{state} {} {mode} {}", told.message, told.hint_message);
            assert_eq!(said, expected);
            assert_eq!(told.network, nature == Nature::Network, "{expected}");
            assert_eq!((&*told.file_system_type, told.image_count), ("xfs", 7));
            assert_eq!(told.next_scan_time.unwrap().seconds, 2);
            assert_eq!(told.progress.is_some(), scans, "{expected}");
        }
    }
}
