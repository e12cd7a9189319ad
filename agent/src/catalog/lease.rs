//! Promises that the listing stays as it is for a moment: who is asked thousands of times a second need
//! not ask each time, and is never wrong.
//!
//! Invariant: between the moment in which a lease is granted and its end no other listing is
//! published. Whoever publishes one waits for the end of all leases, and none is granted meanwhile, so
//! that it waits for [`LEASE_MAX`] at most.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::lock::lock;

/// The longest lease. A new listing may come later by so much: nothing to somebody who looks, and
/// nothing beside the time between two scans.
pub const LEASE_MAX: Duration = Duration::from_millis(10);

/// The leases of one catalogue.
#[derive(Debug, Default)]
pub(super) struct Leases(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When the last one ends.
    until: Option<Instant>,
    /// How many wait for that, or publish.
    publishing: usize,
}

impl Leases {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    /// Promises that what is published now stays for a time, `wanted` at most, and says how long.
    pub(super) fn grant(&self, wanted: Duration) -> Option<Duration> {
        let mut state = self.lock();
        let lease = wanted.min(LEASE_MAX);
        if state.publishing > 0 || lease.is_zero() {
            return None;
        }
        let until = Instant::now() + lease;
        state.until = state.until.max(Some(until));
        Some(lease)
    }

    /// Waits for the end of all leases. None is granted until what this gives is dropped.
    pub(super) fn end(&self) -> Publishing<'_> {
        let until = {
            let mut state = self.lock();
            state.publishing += 1;
            state.until
        };
        let publishing = Publishing(self);
        if let Some(until) = until {
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        }
        publishing
    }
}

/// No lease holds, and none is granted.
#[derive(Debug)]
#[must_use]
pub(super) struct Publishing<'a>(&'a Leases);

impl Drop for Publishing<'_> {
    fn drop(&mut self) {
        self.0.lock().publishing -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{LEASE_MAX, Leases};

    #[test]
    fn a_lease_is_what_was_asked_for_and_never_long() {
        let leases = Leases::default();
        for (wanted, granted) in [
            (Duration::ZERO, None),
            (LEASE_MAX / 2, Some(LEASE_MAX / 2)),
            (Duration::MAX, Some(LEASE_MAX)),
        ] {
            assert_eq!(leases.grant(wanted), granted, "{wanted:?}");
        }
    }

    #[test]
    fn nothing_is_published_before_the_last_lease_ends() {
        let leases = Leases::default();
        drop(leases.end());
        let first = Instant::now();
        let long = leases.grant(LEASE_MAX).unwrap();
        // One that ends sooner takes nothing from it.
        leases.grant(Duration::from_nanos(1)).unwrap();
        let publishing = leases.end();
        assert!(first.elapsed() >= long);
        drop(publishing);
    }

    #[test]
    fn nothing_is_promised_while_a_listing_is_published() {
        let leases = Leases::default();
        let (one, other) = (leases.end(), leases.end());
        assert_eq!(leases.grant(LEASE_MAX), None);
        drop(one);
        assert_eq!(leases.grant(LEASE_MAX), None);
        drop(other);
        assert_eq!(leases.grant(LEASE_MAX), Some(LEASE_MAX));
    }
}
