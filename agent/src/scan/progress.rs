//! What a running scan found and cost so far, for whoever asks meanwhile.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::automount::NotMounted;
use super::submounts::Unmounted;
use crate::lock::lock;

/// Problems that are kept with path and message; all of them are counted.
pub const PROBLEMS_KEPT: usize = 100;

/// Shared between the scan's workers and its observers.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    counts: Mutex<Counts>,
    pending: AtomicU64,
    width: AtomicU32,
    cancelled: AtomicBool,
    last_activity: AtomicU64,
    throttled: AtomicU64,
    problems: Mutex<Problems>,
}

/// What a scan found and cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Directories visited.
    pub directories: u64,
    /// Regular files seen by name.
    pub files: u64,
    /// Images found.
    pub images: u64,
    /// Files opened and read.
    pub files_read: u64,
    /// Files with an image name and other content.
    pub misnamed: u64,
    /// Directories that were not entered, for another file system is mounted there.
    pub mounts_skipped: u64,
    /// System calls made on the file system.
    pub operations: u64,
    /// Bytes read from files.
    pub bytes: u64,
}

/// Problems met by a scan.
#[derive(Debug, Clone, Default)]
pub struct Problems {
    /// The first [`PROBLEMS_KEPT`] of them.
    pub first: Vec<Problem>,
    /// How many, by kind.
    pub by_kind: BTreeMap<&'static str, u64>,
}

/// One thing that could not be read.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Where.
    pub path: PathBuf,
    /// What, in one word.
    pub kind: &'static str,
    /// The whole message.
    pub message: String,
}

impl Problems {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.by_kind.values().sum()
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            counts: Mutex::default(),
            pending: AtomicU64::new(0),
            width: AtomicU32::new(0),
            cancelled: AtomicBool::new(false),
            last_activity: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
            problems: Mutex::default(),
        }
    }
}

impl Progress {
    /// The counts now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *lock(&self.counts)
    }

    /// Directories known of and not visited yet.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.pending.load(Ordering::Relaxed)
    }

    /// Operations in flight at most, now.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width.load(Ordering::Relaxed)
    }

    /// Time since the scan started.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Time since the last operation came back: a long time means that the file system hangs.
    #[must_use]
    pub fn idle(&self) -> Duration {
        let last = Duration::from_millis(self.last_activity.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(last)
    }

    /// Time that workers waited so far to keep the rate, all together.
    #[must_use]
    pub fn throttled(&self) -> Duration {
        Duration::from_nanos(self.throttled.load(Ordering::Relaxed))
    }

    /// Ends the scan as soon as its workers' present operations come back.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Takes that back, for another attempt: what was found is found again, and what it cost was spent. No worker
    /// is left.
    pub fn resume(&self) {
        let mut counts = lock(&self.counts);
        *counts = Counts {
            files_read: counts.files_read,
            operations: counts.operations,
            bytes: counts.bytes,
            ..Counts::default()
        };
        drop(counts);
        *lock(&self.problems) = Problems::default();
        self.cancelled.store(false, Ordering::Relaxed);
    }

    /// Whether the scan was ended.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// The problems so far.
    #[must_use]
    pub fn problems(&self) -> Problems {
        lock(&self.problems).clone()
    }

    pub(super) fn add(&self, counts: &Counts) {
        let mut all = lock(&self.counts);
        all.directories += counts.directories;
        all.files += counts.files;
        all.images += counts.images;
        all.files_read += counts.files_read;
        all.misnamed += counts.misnamed;
        all.mounts_skipped += counts.mounts_skipped;
        all.operations += counts.operations;
        all.bytes += counts.bytes;
        drop(all);
        self.note_activity();
    }

    /// Notes that the scan does not hang.
    pub(super) fn note_activity(&self) {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_activity.store(elapsed, Ordering::Relaxed);
    }

    pub(super) fn add_throttled(&self, waited: Duration) {
        let nanoseconds = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        self.throttled.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    pub(super) fn set_queue(&self, pending: u64, width: u32) {
        self.pending.store(pending, Ordering::Relaxed);
        self.width.store(width, Ordering::Relaxed);
    }

    pub(super) fn problem(&self, path: &Path, doing: &str, error: &io::Error) {
        let kind = problem_kind(error);
        let mut problems = lock(&self.problems);
        *problems.by_kind.entry(kind).or_default() += 1;
        if problems.first.len() < PROBLEMS_KEPT {
            problems.first.push(Problem {
                path: path.to_owned(),
                kind,
                message: format!("{doing} {}: {error}", crate::escape::path(path)),
            });
        }
    }
}

/// The kind of a problem in one word, for counts and metrics.
#[must_use]
pub fn problem_kind(error: &io::Error) -> &'static str {
    if NotMounted::of(error).is_some() || Unmounted::is_behind(error) {
        return "NOT_MOUNTED";
    }
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EACCES | Errno::EPERM) => "PERMISSION_DENIED",
        Some(Errno::ESTALE) => "STALE_HANDLE",
        Some(Errno::EIO) => "IO_ERROR",
        Some(Errno::ENOENT | Errno::ENOTDIR) => "NOT_FOUND",
        Some(Errno::ELOOP) => "LINK",
        Some(Errno::EXDEV) => "OTHER_FILE_SYSTEM",
        Some(Errno::ENAMETOOLONG) => "TOO_DEEP",
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM) => "OUT_OF_RESOURCES",
        Some(Errno::ETIMEDOUT | Errno::EHOSTDOWN | Errno::ENOTCONN) => "SERVER_UNREACHABLE",
        Some(_) => "OTHER",
        None => match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput => "CHANGED",
            io::ErrorKind::TimedOut => "SERVER_UNREACHABLE",
            io::ErrorKind::Unsupported => "RELEASED",
            io::ErrorKind::QuotaExceeded => "TOO_DEEP",
            _ => "OTHER",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{Counts, Progress};

    #[test]
    fn another_attempt_finds_anew_and_has_spent_what_was_spent() {
        let once = Counts {
            directories: 1,
            files: 2,
            images: 3,
            files_read: 4,
            misnamed: 5,
            mounts_skipped: 6,
            operations: 7,
            bytes: 8,
        };
        let progress = Progress::default();
        progress.add(&once);
        assert_eq!(progress.counts(), once);
        progress.cancel();
        progress.resume();
        progress.add(&once);
        let twice = Counts {
            files_read: 8,
            operations: 14,
            bytes: 16,
            ..once
        };
        assert_eq!((progress.counts(), progress.is_cancelled()), (twice, false));
    }
}
