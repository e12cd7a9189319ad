//! How much is let in: requests at a time, requests a second, and requests a second of each key.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use governor::DefaultDirectRateLimiter;
use governor::DefaultKeyedRateLimiter;
use governor::Quota;
use governor::RateLimiter;
use governor::clock::Clock;
use governor::clock::DefaultClock;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

use super::tally::Held;
use super::tally::Tally;
use crate::api::ApiError;
use crate::config::Limits;
use crate::config::Rate;

/// After so many requests the state of keys that have been quiet is dropped.
const SWEEP_EVERY: u32 = 4096;

/// So many times what is still free may wait for one cluster: two thirds of all at most.
const SHARE_OF_FREE: usize = 2;

/// The limits of the server as a whole and of each key.
#[derive(Debug)]
pub(super) struct Gate {
    /// Requests that wait for the answer of each cluster.
    waiting: Tally<String>,
    concurrent: Arc<Semaphore>,
    overall: Option<DefaultDirectRateLimiter>,
    keys: Option<DefaultKeyedRateLimiter<String>>,
    sweep: AtomicU32,
    clock: DefaultClock,
}

impl Gate {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            waiting: Tally::new(),
            concurrent: Arc::new(Semaphore::new(limits.max_concurrent_requests)),
            overall: limits
                .requests_per_second
                .map(|rate| RateLimiter::direct(quota(rate))),
            keys: limits
                .key_requests_per_second
                .map(|rate| RateLimiter::keyed(quota(rate))),
            sweep: AtomicU32::new(0),
            clock: DefaultClock::default(),
        }
    }

    /// Lets a request in, until the permit is dropped. Nobody waits: a client gives up within
    /// seconds, and a queue would only make every answer late.
    pub(super) fn enter(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.concurrent)
            .try_acquire_owned()
            .map_err(|_| ApiError::ServiceUnavailable)
    }

    /// Counts a request against the rate of all together. Only one that is believed: otherwise
    /// strangers, who need no key to ask, would use it up for those who have one.
    pub(super) fn spend(&self) -> Result<(), ApiError> {
        match &self.overall {
            Some(overall) if overall.check().is_err() => Err(ApiError::ServiceUnavailable),
            _ => Ok(()),
        }
    }

    /// Lets a request wait for the answer of a cluster, until what is given is dropped. A cluster that does
    /// not answer soon holds all that ask for it: the less is free, the fewer it may hold, so that
    /// there is always room for those who ask for another.
    pub(super) fn wait_for(&self, cluster: &str) -> Result<Held<String>, ApiError> {
        let free = self.concurrent.available_permits();
        self.waiting
            .take(cluster.to_owned(), SHARE_OF_FREE * free + 1)
            .ok_or(ApiError::ServiceUnavailable)
    }

    /// Counts a request against a key. Only for keys that have proven who they are: otherwise
    /// anyone could use up somebody else's share, and fill the memory with names.
    pub(super) fn charge(&self, access_key_id: &str) -> Result<(), ApiError> {
        let Some(keys) = &self.keys else {
            return Ok(());
        };
        if self.sweep.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            keys.retain_recent();
        }
        keys.check_key(&access_key_id.to_owned())
            .map_err(|not_until| ApiError::ThrottlingUser {
                retry_after: not_until
                    .wait_time_from(self.clock.now())
                    .max(Duration::from_millis(1)),
            })
    }
}

fn quota(rate: Rate) -> Quota {
    Quota::per_second(rate.per_second).allow_burst(rate.burst)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn gate(limits: &str) -> Gate {
        let text = format!("auth = \"none\"\n[limits]\n{limits}");
        let settings = Settings::parse(&text, std::path::Path::new("x")).unwrap();
        Gate::new(&settings.limits)
    }

    #[test]
    fn requests_at_a_time() {
        let gate = gate("max_concurrent_requests = 1");
        let permit = gate.enter().unwrap();
        assert_eq!(gate.enter().unwrap_err(), ApiError::ServiceUnavailable);
        drop(permit);
        assert!(gate.enter().is_ok());
    }

    #[test]
    fn one_cluster_leaves_room_for_others() {
        let gate = gate("max_concurrent_requests = 30");
        let ask = |cluster: &str| {
            let permit = gate.enter().unwrap();
            gate.wait_for(cluster).map(|waiting| (permit, waiting))
        };
        let mut hung = Vec::new();
        let error = loop {
            match ask("hung") {
                Ok(held) => hung.push(held),
                Err(error) => break error,
            }
        };
        assert_eq!(error, ApiError::ServiceUnavailable);
        assert_eq!(hung.len(), 20);
        let also: Vec<_> = (0..7).map(|_| ask("also hung").unwrap()).collect();
        assert!(ask("also hung").is_err() && ask("hung").is_err());
        assert!(ask("well").is_ok());
        drop((hung, also));
        assert!(gate.waiting.is_empty());
        assert!(ask("hung").is_ok());
        // The last permit is for whoever comes.
        let gate = super::tests::gate("max_concurrent_requests = 1");
        let _permit = gate.enter().unwrap();
        assert!(gate.wait_for("only").is_ok());
    }

    #[test]
    fn requests_a_second() {
        let gate = gate("requests_per_second = 1");
        // Twice the rate at once.
        assert!(gate.spend().is_ok());
        assert!(gate.spend().is_ok());
        assert_eq!(gate.spend().unwrap_err(), ApiError::ServiceUnavailable);
        // Who only comes in has not asked for anything yet.
        assert!(gate.enter().is_ok());
    }

    #[test]
    fn each_key_has_its_own_share() {
        let gate = gate("key_requests_per_second = 1\nkey_burst = 1");
        assert!(gate.charge("a").is_ok());
        let error = gate.charge("a").unwrap_err();
        assert_eq!(error.code(), "Throttling.User");
        let wait = error.retry_after().unwrap();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1));
        assert!(gate.charge("b").is_ok());
    }
}
