//! What the workers of one scan share, and the pieces of work that they do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::catalog::{DirectoryChange, KnownDirectory, KnownFile};
use crate::config::RootSettings;

use super::ScanOptions;
use super::candidates::Candidate;
use super::dir::{Access, Dir};
use super::pace::Pace;
use super::plan::Known;
use super::progress::{Counts, Progress};
use super::submounts::Submounts;

/// Bytes of a path, with its end, that the kernel takes in one call.
const PATH_MAX: usize = 4096;

/// Directory descriptors held by one scan.
const DESCRIPTORS_MAX: usize = 256;

/// Candidates that one thread looks at before it would have shared them out, where the file system
/// answers from memory: sharing costs more than a few microseconds of work.
const SHARE_FAST: usize = 128;

/// The same where each operation costs a round trip.
const SHARE_SLOW: usize = 2;

/// All that the workers of one scan share.
pub(super) struct Shared<'a> {
    pub settings: &'a RootSettings,
    pub access: &'a Access,
    pub root: &'a Dir,
    pub known: Option<&'a dyn Known>,
    pub submounts: &'a Submounts<'a>,
    pub pace: &'a Pace,
    pub progress: &'a Progress,
    pub options: &'a ScanOptions,
    pub probe: sifter_image::Options,
    pub sink: &'a (dyn Fn(DirectoryChange) + Sync),
    pub descriptors: Descriptors,
}

/// How many directories are held open. Above [`DESCRIPTORS_MAX`] one is opened from the root, not from its parent.
#[derive(Default)]
pub(super) struct Descriptors(Arc<AtomicUsize>);

/// A piece of work.
pub(super) enum Item {
    /// A directory to be read.
    Directory(Pending),
    /// Known directories to be looked at, cheaply.
    Known(Vec<KnownDirectory>),
    /// Some of a directory's candidates.
    Candidates(Arc<Task>, std::ops::Range<usize>),
    /// Some of the known candidates of an unchanged directory.
    Check(Arc<KnownDirectory>, std::ops::Range<usize>),
}

/// A directory to be read.
pub(super) struct Pending {
    /// Its open parent; without, it is opened from the root.
    pub parent: Option<Arc<Held>>,
    /// Path relative to the root.
    pub path: Box<[u8]>,
    /// What is known of it.
    pub known: Option<KnownDirectory>,
}

/// An open directory that counts against [`DESCRIPTORS_MAX`] while anybody needs it.
pub(super) struct Held {
    pub dir: Dir,
    counter: Arc<AtomicUsize>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.counter.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A directory whose candidates are looked at, perhaps by several threads; the last one reports.
pub(super) struct Task {
    pub held: Arc<Held>,
    pub id: Option<i64>,
    pub candidates: Vec<Candidate>,
    pub known: Vec<KnownFile>,
    pub remaining: AtomicUsize,
    pub change: Mutex<DirectoryChange>,
    pub path: Box<[u8]>,
}

impl Shared<'_> {
    /// Hands counts on to the progress, and gives way if the rate asks for it.
    pub fn add(&self, counts: &Counts) {
        let progress = self.progress;
        progress.add(counts);
        let waited = self.pace.throttle(counts.operations, || {
            progress.note_activity();
            progress.is_cancelled()
        });
        progress.add_throttled(waited);
    }

    /// Holds on to an open directory for its subdirectories, unless too many are held already.
    pub fn hold(&self, dir: Dir) -> Result<Arc<Held>, Dir> {
        let held = self.descriptors.0.fetch_add(1, Ordering::Relaxed);
        if held >= DESCRIPTORS_MAX {
            self.descriptors.0.fetch_sub(1, Ordering::Relaxed);
            return Err(dir);
        }
        Ok(Arc::new(Held {
            dir,
            counter: Arc::clone(&self.descriptors.0),
        }))
    }

    /// How many candidates one thread takes at a time.
    pub fn share(&self) -> usize {
        if self.pace.is_slow() {
            SHARE_SLOW
        } else {
            SHARE_FAST
        }
    }
}

/// Why nothing below a directory is entered whose path, of so many bytes, is as long as may be: no program opens
/// what is there by its path, and a path without a bound makes a listing without one.
pub(super) fn too_long(length: usize) -> Option<std::io::Error> {
    (length >= PATH_MAX).then(|| {
        let message = format!("a path of {PATH_MAX} bytes or more: not entered");
        std::io::Error::new(std::io::ErrorKind::QuotaExceeded, message)
    })
}

/// Why nothing below a directory is entered that is as deep as may be.
pub(super) fn too_deep(settings: &RootSettings) -> std::io::Error {
    let message = format!(
        "more than {} directories deep (max_depth): not entered",
        settings.max_depth
    );
    std::io::Error::new(std::io::ErrorKind::QuotaExceeded, message)
}
