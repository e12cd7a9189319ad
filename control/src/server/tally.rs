//! How much each of many holds at a time: connections of an address, requests that wait for a cluster.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::Mutex;

use crate::lock::lock;

/// What is held, counted by who holds it. Whoever holds nothing takes no memory.
#[derive(Debug)]
pub(super) struct Tally<K>(Arc<Mutex<HashMap<K, usize>>>);

impl<K: Clone + Eq + Hash> Tally<K> {
    /// Nothing is held.
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    /// One more for `key`, until what is given is dropped; `None` if it holds so many already.
    pub(super) fn take(&self, key: K, limit: usize) -> Option<Held<K>> {
        let mut counts = lock(&self.0);
        let count = counts.entry(key.clone()).or_default();
        if *count >= limit {
            if *count == 0 {
                counts.remove(&key);
            }
            return None;
        }
        *count += 1;
        Some(Held {
            key,
            counts: Arc::clone(&self.0),
        })
    }

    /// Whether nobody holds anything.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }
}

/// One that is held.
#[derive(Debug)]
pub(super) struct Held<K: Eq + Hash> {
    key: K,
    counts: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Eq + Hash> Drop for Held<K> {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn each_has_its_own_limit_and_gives_back_what_it_held() {
        let tally = Tally::new();
        let first = tally.take("a", 2).unwrap();
        let second = tally.take("a", 2).unwrap();
        assert!(tally.take("a", 2).is_none());
        let other = tally.take("b", 1).unwrap();
        drop(first);
        let third = tally.take("a", 2).unwrap();
        drop((second, third, other));
        assert!(tally.is_empty());
        assert!(tally.take("a", 0).is_none());
        assert!(tally.is_empty());
    }
}
