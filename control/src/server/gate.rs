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

use crate::api::ApiError;
use crate::config::Limits;
use crate::config::Rate;

/// After so many requests the state of keys that have been quiet is dropped.
const SWEEP_EVERY: u32 = 4096;

/// The limits of the server as a whole and of each key.
#[derive(Debug)]
pub(super) struct Gate {
    concurrent: Arc<Semaphore>,
    overall: Option<DefaultDirectRateLimiter>,
    keys: Option<DefaultKeyedRateLimiter<String>>,
    sweep: AtomicU32,
    clock: DefaultClock,
}

impl Gate {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
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
        if let Some(overall) = &self.overall
            && overall.check().is_err()
        {
            return Err(ApiError::ServiceUnavailable);
        }
        Arc::clone(&self.concurrent)
            .try_acquire_owned()
            .map_err(|_| ApiError::ServiceUnavailable)
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
    fn requests_a_second() {
        let gate = gate("requests_per_second = 1");
        // Twice the rate at once.
        assert!(gate.enter().is_ok());
        assert!(gate.enter().is_ok());
        assert_eq!(gate.enter().unwrap_err(), ApiError::ServiceUnavailable);
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
