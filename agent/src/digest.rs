//! SHA-256 of whole files: at once for `inspect --digest`, and in the background where a root asks
//! for it.
//!
//! In the background a thread a root reads one image after the other, slowly and at the lowest
//! priority. A digest belongs to a file's identity (inode, size, times), which is compared before
//! and after reading and once more by the catalogue: what changed meanwhile gets none, and is read
//! again. Nothing on tape is recalled, and a directory, which a sandbox is, has no digest.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use sifter_image::record::{Format, Status};

use crate::catalog::{
    Catalog, ContentDigest, FileTime, Identity, KeptRow, RootIndex, Snapshot, StoreError,
};
use crate::config::RootSettings;
use crate::escape;
use crate::lock::lock;
use crate::scan::{self, Access, OpenFile, Pace, Reading};

/// Bytes read at a time: large enough for a network file system, small enough for the rate.
const CHUNK: usize = 1 << 20;

/// How often is looked whether there are new images.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A file is left alone until it has been at rest for so long: it may still be written, and a change
/// within its timestamps' granularity would not show.
const AT_REST: Duration = Duration::from_secs(5);

/// After an error an image is tried again, also if it did not change: mounts come and go.
const RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Digests become part of the listing in batches: every batch makes a new generation.
const PUBLISH_EVERY: Duration = Duration::from_secs(2);

/// How long is waited for threads to end when others cannot be started.
const START_PATIENCE: Duration = Duration::from_secs(2);

/// The digest of a file's whole content. `each` is told how many bytes were read, and ends it by
/// `false`; the result is none then.
///
/// # Errors
///
/// What reading says; [`io::ErrorKind::UnexpectedEof`] if the file is not as long as it was.
pub fn of(file: &OpenFile, mut each: impl FnMut(u64) -> bool) -> io::Result<Option<[u8; 32]>> {
    file.will_be_read_once();
    let size = file.facts.size;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK))];
    let mut at = 0;
    // No further than the file was long: one that grows has no end.
    while at < size {
        let length = buffer
            .len()
            .min(usize::try_from(size - at).unwrap_or(usize::MAX));
        let count = file.read_up_to(&mut buffer[..length], at)?;
        if count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file became shorter while it was read",
            ));
        }
        hash.update(&buffer[..count]);
        at += count as u64;
        if !each(count as u64) {
            return Ok(None);
        }
    }
    Ok(Some(hash.finalize().into()))
}

/// The threads that compute digests in the background.
#[derive(Debug)]
pub struct Digester {
    stop: Arc<Stop>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Stop {
    stopping: Mutex<bool>,
    wake: Condvar,
}

impl Stop {
    fn is_set(&self) -> bool {
        *lock(&self.stopping)
    }

    /// Waits; true if it is time to end.
    fn wait(&self, time: Duration) -> bool {
        let stopping = lock(&self.stopping);
        let (stopping, _) = self
            .wake
            .wait_timeout_while(stopping, time, |stopping| !*stopping)
            .unwrap_or_else(PoisonError::into_inner);
        *stopping
    }
}

impl Digester {
    /// Starts a thread for every root that asks for digests.
    ///
    /// # Errors
    ///
    /// A thread cannot be started.
    pub fn start(catalog: &Arc<Catalog>, roots: &[RootSettings]) -> io::Result<Self> {
        let stop = Arc::new(Stop::default());
        let mut digester = Self {
            stop: Arc::clone(&stop),
            threads: Vec::new(),
        };
        for (index, settings) in roots.iter().enumerate() {
            if !settings.content_digest {
                continue;
            }
            let rate = settings.digest_bytes_per_second;
            #[allow(clippy::cast_precision_loss)] // a rate, far below 2^52
            let worker = Worker {
                catalog: Arc::clone(catalog),
                index: RootIndex(index),
                root: escape::utf8_path(&settings.path),
                pace: Pace::new(1, 1, Some(rate as f64)),
                access: Access::new(settings.cross_file_systems),
                settings: settings.clone(),
                stop: Arc::clone(&stop),
                failed: HashMap::new(),
                done: Vec::new(),
                published: Instant::now(),
            };
            let thread = std::thread::Builder::new()
                .name("digest".to_owned())
                .spawn(move || worker.run());
            match thread {
                Ok(thread) => digester.threads.push(thread),
                Err(error) => {
                    digester.stop(START_PATIENCE);
                    return Err(io::Error::other(scan::no_thread(&error)));
                }
            }
        }
        Ok(digester)
    }

    /// Ends the threads. One that hangs on a file system is left behind after `patience`.
    pub fn stop(self, patience: Duration) {
        *lock(&self.stop.stopping) = true;
        self.stop.wake.notify_all();
        scan::wait_for_end(self.threads, patience);
    }
}

struct Worker {
    catalog: Arc<Catalog>,
    settings: RootSettings,
    index: RootIndex,
    /// As it is in rows.
    root: String,
    pace: Pace,
    access: Access,
    stop: Arc<Stop>,
    /// Images that could not be read, what they were, and when.
    failed: HashMap<i64, (Identity, Instant)>,
    done: Vec<ContentDigest>,
    published: Instant,
}

impl Worker {
    fn run(mut self) {
        if self.settings.background {
            scan::lower_this_thread();
        }
        let (mut seen, mut again) = (None, Instant::now());
        loop {
            let snapshot = self.catalog.snapshot();
            if seen != Some(snapshot.generation) || Instant::now() >= again {
                seen = Some(snapshot.generation);
                let complete = self.pass(&snapshot);
                again = Instant::now() + if complete { RETRY_AFTER } else { AT_REST };
            }
            if self.stop.wait(LOOK_EVERY) {
                return;
            }
        }
    }

    /// Whether everything was tried that can have a digest; the rest is too young now, or not what is listed
    /// any more.
    fn pass(&mut self, snapshot: &Snapshot) -> bool {
        // What is listed is another database's, which is not written.
        if self.catalog.awaits_scan(self.index) {
            return false;
        }
        let (rows, mut complete) = (&snapshot.rows, true);
        self.failed.retain(|_, (_, at)| at.elapsed() < RETRY_AFTER);
        // Hard links are read once.
        let mut linked: HashMap<Identity, [u8; 32]> = rows
            .iter()
            .filter(|row| row.facts().links > 1 && **row.root() == *self.root)
            .filter_map(|row| Some((row.identity(), row.content_digest()?)))
            .collect();
        for row in rows.iter() {
            if !self.wants(snapshot, row) {
                continue;
            }
            let identity = row.identity();
            if snapshot.status_of(row) == Status::Transfer
                || !is_at_rest(&identity, FileTime::now())
            {
                complete = false;
                continue;
            }
            let known = linked.get(&identity).copied();
            let digest = match known {
                Some(digest) => Ok(Some(digest)),
                // This thread is the only one that computes the root's.
                None => scan::caught(|| self.digest(row, &identity))
                    .unwrap_or_else(|message| Err(io::Error::other(message))),
            };
            match digest {
                Ok(Some(digest)) => {
                    if row.facts().links > 1 {
                        linked.insert(identity, digest);
                    }
                    self.done.push(ContentDigest {
                        image: row.id(),
                        identity,
                        digest,
                    });
                }
                // The file is another one now, or gone: the next scan says which.
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, path = %escape::terminal(&escape::utf8(row.path())), "no digest");
                    self.failed.insert(row.id(), (identity, Instant::now()));
                }
            }
            let is_due = self.published.elapsed() >= PUBLISH_EVERY;
            // The rest would be read for nothing, too: it may take days.
            if is_due && !self.publish() || self.stop.is_set() {
                complete = false;
                break;
            }
        }
        self.publish() && complete
    }

    /// Whether it is an image of this root that may get a digest, now or once it is at rest.
    fn wants(&self, snapshot: &Snapshot, row: &KeptRow) -> bool {
        let has_none = || {
            let facts = row.facts();
            let is_released = facts.allocated == 0 && facts.size > 0;
            // What can be read again is another listing's.
            let is_unavailable = snapshot.status_of(row) == Status::Unavailable;
            let failed = self.failed.get(&row.id());
            let has_failed = failed.is_some_and(|(failed, _)| *failed == row.identity());
            row.format() == Format::Sandbox || is_released || is_unavailable || has_failed
        };
        **row.root() == *self.root && row.content_digest().is_none() && !has_none()
    }

    /// The digest of an image, if its file is the one that is listed.
    fn digest(&self, row: &KeptRow, identity: &Identity) -> io::Result<Option<[u8; 32]>> {
        // Nothing is known that panics here: in unit tests a name does.
        #[cfg(test)]
        assert!(!row.path().ends_with(b"panics-when-read"), "on purpose");
        let Some(file) = self.open(row, identity)? else {
            return Ok(None);
        };
        let digest = of(&file, |bytes| {
            self.pace.throttle(bytes, || self.stop.is_set());
            !self.stop.is_set()
        })?;
        let after = self.open(row, identity)?;
        Ok(after.and(digest))
    }

    /// Opens the file of an image, if it is there and the one that is listed.
    fn open(&self, row: &KeptRow, identity: &Identity) -> io::Result<Option<OpenFile>> {
        match self.open_path(row.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            file => Ok(file
                .map(Some)?
                .filter(|file| Identity::from(&file.facts) == *identity)),
        }
    }

    /// Opens a listed file as a scan does: name by name below the root.
    fn open_path(&self, path: &[u8]) -> io::Result<OpenFile> {
        let root = self.settings.path.as_os_str().as_bytes();
        let path_below = path.strip_prefix(root).unwrap_or(path);
        // Where links are followed, the place of a file need not be below the root.
        if self.settings.follow_symlinks {
            return scan::open_file(Path::new(std::ffi::OsStr::from_bytes(path)));
        }
        let end = path_below.iter().rposition(|byte| *byte == b'/');
        let (directory, name) = match end {
            Some(end) => (&path_below[..end], &path_below[end + 1..]),
            None => (&b""[..], path_below),
        };
        let name = CString::new(name)?;
        let mut operations = Default::default();
        let root = self
            .access
            .open_root(&self.settings.path, &mut operations)?;
        let directory = self.access.open_below(&root, directory, &mut operations)?;
        self.access
            .open_file(&directory, &name, Reading::default(), &mut operations)
    }

    /// Stores what was computed; false if none of it is of an image that is listed now.
    fn publish(&mut self) -> bool {
        self.published = Instant::now();
        if self.done.is_empty() {
            return true;
        }
        let done = std::mem::take(&mut self.done);
        match self.catalog.set_content_digests(&done) {
            Ok(stored) => {
                tracing::debug!(count = done.len(), stored, root = %self.root, "digests");
                return stored > 0;
            }
            // They are computed again for the one that is in use now.
            Err(error @ StoreError::Replaced) => {
                tracing::debug!(%error, root = %self.root, "digests");
            }
            Err(error) => tracing::error!(%error, "digests cannot be stored"),
        }
        false
    }
}

/// Whether nothing was written to a file for a while. Whoever writes changes its change time, too, which nobody
/// sets: that of the last modification may have been set to one that is to come.
fn is_at_rest(identity: &Identity, now: FileTime) -> bool {
    let rest = i64::try_from(AT_REST.as_nanos()).unwrap_or(i64::MAX);
    identity.changed.0 < now.0.saturating_sub(rest)
}
