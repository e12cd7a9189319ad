//! Nonces that outlive the process: what [`MemoryNonces`] forgets at its end.
//!
//! Every accepted nonce is also written down, as eight bytes of a hash, into the file of the five
//! minutes it was used in; a file whose time has passed is deleted with the next that is begun. At the
//! start all files are read once, and what is in them is refused for a whole window from then on, since the
//! clock may not be right yet.
//!
//! Writing is a thread's work, some times a second: a request waits for no disk and wakes nobody, and
//! a disk that fails or hangs costs what the file was for, and nothing else. What cannot be written is
//! tried again along with the next nonces, and at the end. What was accepted just before a crash may be
//! missing, and after a power failure what the kernel had not written yet.

use std::collections::HashSet;
use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::Flock;
use nix::fcntl::FlockArg;
use sha2::Digest;
use sha2::Sha256;

use super::nonce::MemoryNonces;
use super::nonce::NonceError;
use super::nonce::NonceStore;
use super::nonce::SLOTS;
use super::nonce::slot;
use crate::lock::lock;

/// Nonces that may wait for the disk: seconds of any rate that is served.
const MAX_WAITING: usize = 1 << 16;

/// How long nonces are gathered before they are written: one write for many, and little to lose.
const GATHER: Duration = Duration::from_millis(100);

/// Bytes of a nonce in a file.
const RECORD: usize = 8;

/// Names of the files, before the number of their slot.
const PREFIX: &str = "nonces-";

/// The file that is locked while a process has the directory.
const LOCK_FILE: &str = "control.lock";

/// Makes sure that no other process writes down nonces in a directory: each would cut what the other is writing, and
/// accept what the other has accepted. Such a process is [`io::ErrorKind::WouldBlock`]. The lock ends with what is
/// returned; there is none where the directory cannot be written, or its file system has no locks.
pub fn lock_directory(directory: &Path) -> io::Result<Option<Flock<File>>> {
    let path = directory.join(LOCK_FILE);
    let mut open = OpenOptions::new();
    let file = match open.create(true).append(true).mode(0o600).open(&path) {
        Ok(file) => file,
        // Then no nonce can be written either, which is told when one is.
        Err(error) => {
            tracing::debug!(%error, path = %path.display(), "no lock");
            return Ok(None);
        }
    };
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Err(Errno::EWOULDBLOCK.into()),
        // Some network file systems have no locks.
        Err((_, error)) => {
            tracing::debug!(%error, path = %path.display(), "no lock");
            Ok(None)
        }
    }
}

/// Nonces in memory, and in files for the next process.
#[derive(Debug)]
pub struct JournaledNonces {
    memory: MemoryNonces,
    /// What earlier processes accepted; nothing once the window has passed.
    earlier: ArcSwapOption<Earlier>,
    waiting: Arc<Waiting>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What the writer has not taken yet.
#[derive(Debug, Default)]
struct Waiting {
    queue: Mutex<Queue>,
    /// Told when the queue is no longer empty, and at the end.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// Slots and hashes.
    nonces: Vec<(i64, u64)>,
    is_closed: bool,
    /// Whether nonces were dropped since the queue was last taken.
    is_full: bool,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    fn add(&self, slot: i64, hash: u64) {
        let mut queue = self.lock();
        if queue.is_closed {
            return;
        }
        if queue.nonces.len() >= MAX_WAITING {
            if !queue.is_full {
                queue.is_full = true;
                tracing::error!(
                    "nonces cannot be written down as fast as they come: after a restart some \
                     requests could be repeated"
                );
            }
            return;
        }
        queue.nonces.push((slot, hash));
        if queue.nonces.len() == 1 {
            self.changed.notify_one();
        }
    }

    /// Waits for nonces and for more of them, and adds them to what could not be written yet. Returns
    /// whether there can be more.
    fn take(&self, taken: &mut Vec<(i64, u64)>) -> bool {
        let wait = self.changed.wait_while(self.lock(), |queue| {
            queue.nonces.is_empty() && !queue.is_closed
        });
        let queue = wait.unwrap_or_else(PoisonError::into_inner);
        let wait = self
            .changed
            .wait_timeout_while(queue, GATHER, |queue| !queue.is_closed);
        let mut queue = wait.unwrap_or_else(PoisonError::into_inner).0;
        taken.append(&mut queue.nonces);
        queue.is_full = false;
        !queue.is_closed
    }
}

#[derive(Debug)]
struct Earlier {
    hashes: HashSet<u64>,
    /// The first slot in which none of them counts any more.
    until: i64,
}

impl JournaledNonces {
    /// Reads what earlier processes left in a directory, which must exist; all of it counts for a window
    /// from `now` on.
    pub fn open(directory: &Path, memory: MemoryNonces, now: Timestamp) -> io::Result<Self> {
        let now = slot(now);
        let mut hashes = HashSet::new();
        let mut newest = now;
        for (number, path) in files(directory)? {
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
            until: newest + SLOTS,
        });
        let waiting = Arc::<Waiting>::default();
        let writer = Writer::new(directory.to_owned());
        let writer = thread::Builder::new().name("nonces".to_owned()).spawn({
            let waiting = Arc::clone(&waiting);
            move || writer.run(&waiting)
        })?;
        Ok(Self {
            memory,
            earlier: ArcSwapOption::from_pointee(earlier),
            waiting,
            writer: Mutex::new(Some(writer)),
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
    fn is_used(&self, key: &str, nonce: &str, now: Timestamp) -> bool {
        self.is_earlier(hash(key, nonce), slot(now)) || self.memory.is_used(key, nonce, now)
    }

    fn record(&self, key: &str, nonce: &str, now: Timestamp) -> Result<(), NonceError> {
        let (hash, slot) = (hash(key, nonce), slot(now));
        if self.is_earlier(hash, slot) {
            return Err(NonceError::Used);
        }
        self.memory.record(key, nonce, now)?;
        self.waiting.add(slot, hash);
        Ok(())
    }

    fn close(&self) {
        self.waiting.lock().is_closed = true;
        self.waiting.changed.notify_one();
        let writer = lock(&self.writer).take();
        if let Some(writer) = writer {
            let _ = writer.join();
        }
    }
}

impl Drop for JournaledNonces {
    fn drop(&mut self) {
        self.close();
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
    /// Nonces that were too many to wait since it failed.
    lost: usize,
}

impl Writer {
    fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            current: None,
            has_failed: false,
            lost: 0,
        }
    }

    fn run(mut self, waiting: &Waiting) {
        let mut taken = Vec::new();
        let mut has_more = true;
        while has_more {
            has_more = waiting.take(&mut taken);
            self.write_down(&mut taken);
        }
    }

    /// Writes nonces down and drops them from the list. What cannot be written stays there; if that becomes
    /// too many, the oldest go, which count the shortest.
    fn write_down(&mut self, nonces: &mut Vec<(i64, u64)>) {
        let mut written = 0;
        let mut slots = nonces.chunk_by(|(a, _), (b, _)| a == b);
        let result: io::Result<()> = slots.try_for_each(|slot| {
            let bytes: Vec<u8> = slot
                .iter()
                .flat_map(|(_, hash)| hash.to_le_bytes())
                .collect();
            self.write(slot[0].0, &bytes)?;
            written += slot.len();
            Ok(())
        });
        nonces.drain(..written);
        let too_many = nonces.len().saturating_sub(MAX_WAITING);
        nonces.drain(..too_many);
        self.lost += too_many;
        let directory = self.directory.display();
        match &result {
            Err(error) if !self.has_failed => tracing::error!(
                %directory,
                %error,
                "nonces cannot be written down: until they can, a restart would let requests be \
                 repeated; look at the space and the rights of the directory"
            ),
            Ok(()) if self.has_failed => {
                let lost = std::mem::take(&mut self.lost);
                tracing::info!(%directory, lost, "nonces are written down again, with those that waited");
            }
            _ => {}
        }
        self.has_failed = result.is_err();
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
        let before = file.metadata()?.len();
        let result = file.write_all(bytes);
        if result.is_err() {
            // All of it is tried again: what was written would stand there once more each time.
            let _ = file.set_len(before);
            self.current = None;
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::resource::Resource;
    use nix::sys::resource::getrlimit;
    use nix::sys::resource::setrlimit;
    use nix::sys::signal::SigSet;
    use nix::sys::signal::Signal;

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
        for (restart, later) in [
            (0, 1800),
            (1800, 1800),
            // A clock that is set back does not open the door.
            (-3600, 1800),
            // Nor one that is ahead at the start, as of a machine whose hardware clock has another time zone, and then
            // set right.
            (8 * 3600, 60),
        ] {
            let dir = tempfile::tempdir().unwrap();
            assert_eq!(open(dir.path(), 0).record("k", "n", at(0)), Ok(()));
            let second = open(dir.path(), restart);
            for now in [restart, later] {
                assert!(second.is_used("k", "n", at(now)), "{restart}, then {now}");
                assert!(!second.is_used("other", "n", at(now)));
            }
            assert_eq!(
                second.record("k", "n", at(later)),
                Err(NonceError::Used),
                "{restart}"
            );
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
    fn what_cannot_be_written_is_written_later() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("state");
        let mut writer = Writer::new(directory.clone());
        let first = slot(at(0));
        let mut nonces = vec![(first, hash("k", "early"))];
        writer.write_down(&mut nonces);
        assert_eq!(nonces.len(), 1, "there is no directory");
        fs::create_dir(&directory).unwrap();
        nonces.extend([(first, hash("k", "late")), (first + 1, hash("k", "later"))]);
        writer.write_down(&mut nonces);
        assert!(nonces.is_empty());
        let next = open(&directory, SLOT_SECONDS);
        for nonce in ["early", "late", "later"] {
            assert!(next.is_used("k", nonce, at(SLOT_SECONDS)), "{nonce}");
        }
    }

    /// A limit on the size of files stands for a disk that has room for a part of it.
    #[test]
    fn what_was_written_in_part_stands_there_once() {
        const SIZE: u64 = 1 << 30;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(format!("{PREFIX}7"));
        // Larger than anything that another test writes meanwhile.
        File::create(&path).unwrap().set_len(SIZE).unwrap();
        SigSet::from(Signal::SIGXFSZ).thread_block().unwrap();
        let mut writer = Writer::new(dir.path().to_owned());
        let mut nonces = vec![(7, 1), (7, 2), (7, 3)];
        let (soft, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
        setrlimit(Resource::RLIMIT_FSIZE, SIZE + 20, hard).unwrap();
        writer.write_down(&mut nonces);
        setrlimit(Resource::RLIMIT_FSIZE, soft, hard).unwrap();
        assert!(writer.has_failed && nonces.len() == 3);
        assert_eq!(fs::metadata(&path).unwrap().len(), SIZE);
        writer.write_down(&mut nonces);
        assert_eq!(fs::metadata(&path).unwrap().len(), SIZE + 24);
    }

    #[test]
    fn what_waits_for_a_disk_is_bounded_and_what_is_lost_counted() {
        let mut writer = Writer::new("/nonexistent".into());
        let mut nonces = vec![(0, 0); MAX_WAITING];
        nonces.push((1, 1));
        writer.write_down(&mut nonces);
        assert_eq!((nonces.len(), writer.lost), (MAX_WAITING, 1));
        assert_eq!(nonces.last(), Some(&(1, 1)));
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
