//! Nonces that outlive the process: what [`MemoryNonces`] forgets at its end.
//!
//! Every accepted nonce is also written down, as eight bytes of a hash, into the file of the five
//! minutes it was used in; a file whose time has passed is deleted. At the start the files are read
//! once, and what is in them is refused until it could no longer be accepted anyway.
//!
//! Writing is a thread's work, behind a bounded queue: a request waits for no disk, and a disk that
//! fails or hangs costs what the file was for, and nothing else. What was accepted in the instant of
//! a crash may be missing, and after a power failure what the kernel had not written yet.

use std::collections::HashSet;
use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::thread::JoinHandle;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use sha2::Digest;
use sha2::Sha256;

use super::nonce::MemoryNonces;
use super::nonce::NonceError;
use super::nonce::NonceStore;
use super::nonce::SLOTS;
use super::nonce::slot;

/// Nonces that may wait for the disk: seconds of any rate that is served.
const QUEUE: usize = 1 << 16;

/// Bytes of a nonce in a file.
const RECORD: usize = 8;

/// Names of the files, before the number of their slot.
const PREFIX: &str = "nonces-";

/// Nonces in memory, and in files for the next process.
#[derive(Debug)]
pub struct JournaledNonces {
    memory: MemoryNonces,
    /// What earlier processes accepted; nothing once the window has passed.
    earlier: ArcSwapOption<Earlier>,
    queue: Option<SyncSender<(i64, u64)>>,
    writer: Option<JoinHandle<()>>,
    is_lossy: AtomicBool,
}

#[derive(Debug)]
struct Earlier {
    hashes: HashSet<u64>,
    /// The first slot in which none of them counts any more.
    until: i64,
}

impl JournaledNonces {
    /// Reads what earlier processes left in a directory, which must exist; `now` decides what still
    /// counts.
    pub fn open(directory: &Path, memory: MemoryNonces, now: Timestamp) -> io::Result<Self> {
        let now = slot(now);
        let mut hashes = HashSet::new();
        let mut newest = i64::MIN;
        for (number, path) in files(directory)? {
            if number + SLOTS <= now {
                continue;
            }
            newest = newest.max(number);
            // A record that was cut off by a crash is at the end.
            let bytes = fs::read(path)?;
            let records = bytes.chunks_exact(RECORD);
            hashes
                .extend(records.filter_map(|bytes| bytes.try_into().ok().map(u64::from_le_bytes)));
        }
        let earlier = (!hashes.is_empty()).then(|| Earlier {
            hashes,
            // Of a clock that was ahead, too: kept longer, never shorter.
            until: newest.max(now) + SLOTS,
        });
        let (queue, received) = mpsc::sync_channel(QUEUE);
        let directory = directory.to_owned();
        let writer = thread::Builder::new()
            .name("nonces".to_owned())
            .spawn(move || Writer::new(directory).run(&received))?;
        Ok(Self {
            memory,
            earlier: ArcSwapOption::from_pointee(earlier),
            queue: Some(queue),
            writer: Some(writer),
            is_lossy: AtomicBool::new(false),
        })
    }

    fn is_earlier(&self, hash: u64, now: i64) -> bool {
        let earlier = self.earlier.load();
        let Some(known) = &*earlier else { return false };
        if now >= known.until {
            self.earlier.store(None);
            return false;
        }
        known.hashes.contains(&hash)
    }
}

impl NonceStore for JournaledNonces {
    fn record(&self, key: &str, nonce: &str, now: Timestamp) -> Result<(), NonceError> {
        let (hash, slot) = (hash(key, nonce), slot(now));
        if self.is_earlier(hash, slot) {
            return Err(NonceError::Used);
        }
        self.memory.record(key, nonce, now)?;
        let sent = self
            .queue
            .as_ref()
            .is_some_and(|queue| queue.try_send((slot, hash)).is_ok());
        if sent == self.is_lossy.load(Ordering::Relaxed) {
            self.is_lossy.store(!sent, Ordering::Relaxed);
            if !sent {
                tracing::error!(
                    "nonces cannot be written down as fast as they come: after a restart some \
                     requests could be repeated"
                );
            }
        }
        Ok(())
    }
}

impl Drop for JournaledNonces {
    fn drop(&mut self) {
        // The end of the queue is the writer's.
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// Eight bytes that stand for a nonce of a key, the same in every process.
fn hash(key: &str, nonce: &str) -> u64 {
    let mut sha = Sha256::new();
    sha.update(key.as_bytes());
    // In no name of a key.
    sha.update([0]);
    sha.update(nonce.as_bytes());
    let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = sha.finalize().into();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// The files of a directory with the numbers of their slots.
fn files(directory: &Path) -> io::Result<Vec<(i64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if let Some(number) = number.and_then(|number| number.parse().ok()) {
            found.push((number, entry.path()));
        }
    }
    Ok(found)
}

/// What writes.
struct Writer {
    directory: PathBuf,
    /// The file being written, with its slot; none after a failure.
    current: Option<(i64, File)>,
    has_failed: bool,
}

impl Writer {
    fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            current: None,
            has_failed: false,
        }
    }

    fn run(mut self, received: &Receiver<(i64, u64)>) {
        let mut bytes = Vec::new();
        while let Ok((slot, first)) = received.recv() {
            bytes.clear();
            bytes.extend(first.to_le_bytes());
            // Whatever has come meanwhile goes along; at the turn of a slot a few land in the older
            // file, which is read for longer than they count.
            bytes.extend(
                received
                    .try_iter()
                    .take(1024)
                    .flat_map(|(_, hash)| hash.to_le_bytes()),
            );
            let result = self.write(slot, &bytes);
            if let Err(error) = &result
                && !self.has_failed
            {
                tracing::error!(
                    directory = %self.directory.display(),
                    %error,
                    "nonces cannot be written down: after a restart requests could be repeated"
                );
            }
            self.has_failed = result.is_err();
        }
    }

    fn write(&mut self, slot: i64, bytes: &[u8]) -> io::Result<()> {
        let file = match &mut self.current {
            Some((current, file)) if *current >= slot => file,
            current => {
                // Half a record in front would shift all that follow.
                *current = None;
                let path = self.directory.join(format!("{PREFIX}{slot}"));
                let file = OpenOptions::new()
                    .create(true)
                    .append(true)
                    .mode(0o600)
                    .open(path)?;
                let whole = file.metadata()?.len() / RECORD as u64 * RECORD as u64;
                file.set_len(whole)?;
                for (number, path) in files(&self.directory)? {
                    if number + SLOTS <= slot {
                        fs::remove_file(path)?;
                    }
                }
                &mut current.insert((slot, file)).1
            }
        };
        let result = file.write_all(bytes);
        if result.is_err() {
            self.current = None;
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::nonce::SLOT_SECONDS;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn open(directory: &Path, seconds: i64) -> JournaledNonces {
        JournaledNonces::open(directory, MemoryNonces::new(100), at(seconds)).unwrap()
    }

    #[test]
    fn a_restart_forgets_nothing_that_still_counts() {
        for (restart, expected) in [
            (0, Err(NonceError::Used)),
            (1700, Err(NonceError::Used)),
            // A clock that is set back does not open the door.
            (-3600, Err(NonceError::Used)),
            (1800 + 2 * SLOT_SECONDS, Ok(())),
        ] {
            let dir = tempfile::tempdir().unwrap();
            assert_eq!(open(dir.path(), 0).record("k", "n", at(0)), Ok(()));
            let second = open(dir.path(), restart);
            assert_eq!(second.record("k", "n", at(restart)), expected, "{restart}");
            assert_eq!(second.record("other", "n", at(restart)), Ok(()));
            assert_eq!(second.record("k", "m", at(restart)), Ok(()));
            drop(second);
            let third = open(dir.path(), restart);
            assert_eq!(third.record("k", "m", at(restart)), Err(NonceError::Used));
        }
    }

    #[test]
    fn what_no_longer_counts_is_dropped_from_memory_and_disk() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(open(dir.path(), 0).record("k", "n", at(0)), Ok(()));
        let later = 1800 + 2 * SLOT_SECONDS;
        let second = open(dir.path(), 60);
        assert_eq!(second.record("k", "n", at(60)), Err(NonceError::Used));
        assert_eq!(second.record("k", "n", at(later)), Ok(()));
        assert!(second.earlier.load().is_none());
        drop(second);
        let left = files(dir.path()).unwrap();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn half_a_record_harms_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(open(dir.path(), 0).record("k", "n", at(0)), Ok(()));
        let (_, path) = files(dir.path()).unwrap().remove(0);
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(b"abc").unwrap();
        fs::write(dir.path().join("nonces-x"), "not one of ours").unwrap();
        assert_eq!(open(dir.path(), 1).record("k", "m", at(1)), Ok(()));
        let third = open(dir.path(), 2);
        for nonce in ["n", "m"] {
            assert_eq!(
                third.record("k", nonce, at(2)),
                Err(NonceError::Used),
                "{nonce}"
            );
        }
    }

    #[test]
    fn a_disk_that_fails_stops_no_request() {
        let dir = tempfile::tempdir().unwrap();
        let nonces = open(dir.path(), 0);
        dir.close().unwrap();
        assert_eq!(nonces.record("k", "n", at(0)), Ok(()));
        assert_eq!(nonces.record("k", "n", at(0)), Err(NonceError::Used));
        assert!(
            JournaledNonces::open(Path::new("/nonexistent"), MemoryNonces::new(1), at(0)).is_err()
        );
    }
}
