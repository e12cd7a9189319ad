//! Replay protection: a nonce is accepted once for each access key.
//!
//! [`NonceStore`] is the seam: one process remembers in memory ([`MemoryNonces`]); several control
//! planes behind one address would share a store.
//!
//! Invariants: a nonce is recorded only after its signature was verified, so a stranger can
//! neither fill the store nor burn a nonce; of parallel requests with one nonce exactly one is
//! accepted; memory is bounded, and a full store refuses rather than forgets. What is remembered here
//! is lost with the process; [`JournaledNonces`](super::journal::JournaledNonces) keeps it for the
//! next one.

use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::hash::BuildHasherDefault;
use std::hash::Hasher;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;

use super::clock::WINDOW;
use crate::lock::lock;

/// Why a nonce was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NonceError {
    /// Seen before.
    #[error("the nonce was used before")]
    Used,
    /// This key has used up its share of the memory.
    #[error("too many nonces of one key in the window")]
    KeyFull {
        /// When the oldest of them leave it.
        free_in: Duration,
    },
    /// The store as a whole is full, or cannot be asked.
    #[error("the nonce store is full or unavailable")]
    Unavailable,
}

/// Remembers which nonces were used.
pub trait NonceStore: Send + Sync {
    /// Whether `(key, nonce)` was used. That it was not is no promise: [`NonceStore::record`] decides.
    fn is_used(&self, key: &str, nonce: &str, now: Timestamp) -> bool;

    /// Records `(key, nonce)`, or says why it must be refused. Of several calls with the same
    /// pair, one at most may succeed for as long as the pair's time stamp could be accepted.
    fn record(&self, key: &str, nonce: &str, now: Timestamp) -> Result<(), NonceError>;

    /// Called when no more requests come, to save what is not saved yet. May block.
    fn close(&self) {}
}

/// One slot of the ring; the retention is a whole number of slots.
pub(super) const SLOT_SECONDS: i64 = 5 * 60;

/// Slots that still count: both halves of the window, and the slot that is being filled.
pub(super) const SLOTS: i64 = 2 * WINDOW.as_secs() / SLOT_SECONDS + 1;

/// The number of the slot that a time falls into.
pub(super) fn slot(time: Timestamp) -> i64 {
    time.as_second().div_euclid(SLOT_SECONDS)
}

/// Nonces of one process, in memory.
///
/// A nonce is kept as 64 bits of a hash keyed with a secret of this process: 10 to 21 bytes each.
/// Two nonces of one key that collide are refused as a replay, which at the default capacity
/// happens about once in 10^13 requests.
#[derive(Debug)]
pub struct MemoryNonces {
    hasher: RandomState,
    keys: RwLock<HashMap<String, Arc<Mutex<KeyNonces>>>>,
    total: AtomicUsize,
    capacity: usize,
    capacity_per_key: usize,
}

#[derive(Debug, Default)]
struct KeyNonces {
    /// Oldest first, each with its number (time divided by the slot's length).
    slots: VecDeque<(i64, HashSet<u64, BuildHasherDefault<Identity>>)>,
    count: usize,
}

impl KeyNonces {
    fn has(&self, hash: u64) -> bool {
        self.slots.iter().any(|(_, set)| set.contains(&hash))
    }

    /// How long until the oldest are forgotten.
    fn free_in(&self, now: Timestamp) -> Duration {
        let oldest = self.slots.front().map_or(0, |(number, _)| *number);
        let seconds = (oldest + SLOTS) * SLOT_SECONDS - now.as_second();
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1))
    }
}

/// The values are hashes already.
#[derive(Debug, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

impl MemoryNonces {
    /// Default capacity: 2,300 requests a second for half an hour, in 84 MiB at most.
    pub const DEFAULT_CAPACITY: usize = 1 << 22;

    /// A store of `capacity` nonces, half of which one key may use.
    pub fn new(capacity: usize) -> Self {
        Self {
            hasher: RandomState::new(),
            keys: RwLock::default(),
            total: AtomicUsize::new(0),
            capacity,
            capacity_per_key: capacity.div_ceil(2),
        }
    }

    /// How many nonces are remembered.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    fn key(&self, key: &str) -> Arc<Mutex<KeyNonces>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = keys.get(key) {
            return Arc::clone(found);
        }
        drop(keys);
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(keys.entry(key.to_owned()).or_default())
    }

    /// Forgets what has left the window, for every key.
    fn expire_all(&self, slot: i64) {
        let keys: Vec<_> = self
            .keys
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .map(Arc::clone)
            .collect();
        for key in keys {
            let mut nonces = lock(&key);
            self.expire(&mut nonces, slot);
        }
    }

    fn expire(&self, nonces: &mut KeyNonces, slot: i64) {
        while let Some((number, set)) = nonces.slots.front() {
            if *number + SLOTS > slot {
                break;
            }
            nonces.count -= set.len();
            self.total.fetch_sub(set.len(), Ordering::Relaxed);
            nonces.slots.pop_front();
        }
    }
}

impl NonceStore for MemoryNonces {
    fn is_used(&self, key: &str, nonce: &str, now: Timestamp) -> bool {
        let hash = self.hasher.hash_one(nonce);
        let entry = self.key(key);
        let mut nonces = lock(&entry);
        self.expire(&mut nonces, slot(now));
        nonces.has(hash)
    }

    fn record(&self, key: &str, nonce: &str, now: Timestamp) -> Result<(), NonceError> {
        let hash = self.hasher.hash_one(nonce);
        let slot = slot(now);
        if self.total.load(Ordering::Relaxed) >= self.capacity {
            // Keys that no longer ask must not hold the memory of those that do.
            self.expire_all(slot);
        }
        let entry = self.key(key);
        let mut nonces = lock(&entry);
        self.expire(&mut nonces, slot);
        if nonces.has(hash) {
            return Err(NonceError::Used);
        }
        if nonces.count >= self.capacity_per_key {
            return Err(NonceError::KeyFull {
                free_in: nonces.free_in(now),
            });
        }
        let reserved = self
            .total
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |total| {
                (total < self.capacity).then_some(total + 1)
            });
        if reserved.is_err() {
            return Err(NonceError::Unavailable);
        }
        // A clock set back files under the newest slot: kept longer, never shorter.
        match nonces.slots.back_mut() {
            Some((number, set)) if *number >= slot => {
                set.insert(hash);
            }
            _ => nonces
                .slots
                .push_back((slot, std::iter::once(hash).collect())),
        }
        nonces.count += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    #[test]
    fn remembers_for_the_whole_window_and_then_forgets() {
        let window = 2 * WINDOW.as_secs();
        for (first, second, expected) in [
            (0, 0, Err(NonceError::Used)),
            (0, 1, Err(NonceError::Used)),
            (0, window, Err(NonceError::Used)),
            (
                SLOT_SECONDS - 1,
                SLOT_SECONDS - 1 + window,
                Err(NonceError::Used),
            ),
            // A clock that is set back does not open the door.
            (0, -3600, Err(NonceError::Used)),
            (0, window + SLOT_SECONDS, Ok(())),
        ] {
            let store = MemoryNonces::new(100);
            assert_eq!(store.record("k", "n", at(first)), Ok(()));
            assert_eq!(
                store.record("k", "n", at(second)),
                expected,
                "{first} then {second}"
            );
        }
    }

    #[test]
    fn keys_do_not_share_nonces() {
        let store = MemoryNonces::new(100);
        assert_eq!(store.record("a", "n", at(0)), Ok(()));
        assert_eq!(store.record("b", "n", at(0)), Ok(()));
        assert_eq!(store.record("a", "N", at(0)), Ok(()), "case counts");
    }

    #[test]
    fn full_refuses_instead_of_forgetting_and_recovers() {
        let store = MemoryNonces::new(4);
        for nonce in ["1", "2"] {
            assert_eq!(store.record("a", nonce, at(0)), Ok(()));
        }
        assert_eq!(
            store.record("a", "3", at(0)),
            Err(NonceError::KeyFull {
                free_in: Duration::from_secs(2100)
            })
        );
        for nonce in ["1", "2"] {
            assert_eq!(store.record("b", nonce, at(0)), Ok(()));
        }
        assert_eq!(store.record("c", "1", at(0)), Err(NonceError::Unavailable));
        assert_eq!(store.record("a", "1", at(0)), Err(NonceError::Used));
        assert_eq!(store.len(), 4);
        // Another key's stale nonces make room, although that key is never asked again.
        assert_eq!(store.record("c", "1", at(7200)), Ok(()));
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn of_parallel_replays_exactly_one_wins() {
        let store = MemoryNonces::new(100_000);
        for round in 0..200 {
            let nonce = format!("n{round}");
            let wins: usize = thread::scope(|scope| {
                let workers: Vec<_> = (0..8)
                    .map(|_| scope.spawn(|| usize::from(store.record("k", &nonce, at(0)).is_ok())))
                    .collect();
                workers.into_iter().map(|w| w.join().unwrap()).sum()
            });
            assert_eq!(wins, 1, "{nonce}");
        }
        assert_eq!(store.len(), 200);
    }
}
