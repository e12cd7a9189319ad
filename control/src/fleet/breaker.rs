//! A circuit breaker: a login node that keeps failing is left alone for a while, then asked by one
//! request alone whether it is back.
//!
//! A pure state machine; the time is passed in. Invariant: at most one permit is out while the
//! breaker is not closed, and a permit that is dropped without a verdict (the client went away)
//! leaves the breaker ready for the next probe instead of stuck.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Duration;
use std::time::Instant;

use crate::lock::lock;

/// When to open, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct BreakerSettings {
    /// Failures in a row that open the breaker.
    pub failures: u32,
    /// How long it is open at first.
    pub open: Duration,
    /// How long it is open at most.
    pub open_max: Duration,
}

/// What the breaker does now; the numbers are those of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Every request may pass.
    Closed = 0,
    /// One request is on its way to find out.
    HalfOpen = 1,
    /// No request passes.
    Open = 2,
}

/// The breaker of one login node.
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    inner: Mutex<Inner>,
}

#[derive(Debug, Clone, Copy)]
enum Inner {
    Closed { failures: u32 },
    Open { until: Instant, wait: Duration },
    HalfOpen { wait: Duration },
}

/// Leave to ask a login node. Tell it how that went.
#[derive(Debug)]
pub struct Permit {
    breaker: Arc<Breaker>,
    settled: bool,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(settings: BreakerSettings) -> Arc<Self> {
        Arc::new(Self {
            settings,
            inner: Mutex::new(Inner::Closed { failures: 0 }),
        })
    }

    /// Leave to ask, if the breaker is closed or due for a probe.
    pub fn acquire(self: &Arc<Self>, now: Instant) -> Option<Permit> {
        self.enter(|inner| match inner {
            Inner::Open { until, .. } => now >= until,
            Inner::Closed { .. } | Inner::HalfOpen { .. } => true,
        })
    }

    /// Leave to ask before the time is up, where no other login node has the whole listing: whoever
    /// restarts the only one must not wait for us. Still one probe at a time.
    pub fn acquire_early(self: &Arc<Self>) -> Option<Permit> {
        self.enter(|_| true)
    }

    fn enter(self: &Arc<Self>, due: impl FnOnce(Inner) -> bool) -> Option<Permit> {
        let mut inner = self.lock();
        match *inner {
            Inner::Closed { .. } => {}
            Inner::Open { wait, .. } if due(*inner) => *inner = Inner::HalfOpen { wait },
            Inner::Open { .. } | Inner::HalfOpen { .. } => return None,
        }
        Some(Permit {
            breaker: Arc::clone(self),
            settled: false,
        })
    }

    /// What the breaker does now.
    pub fn state(&self) -> BreakerState {
        match *self.lock() {
            Inner::Closed { .. } => BreakerState::Closed,
            Inner::HalfOpen { .. } => BreakerState::HalfOpen,
            Inner::Open { .. } => BreakerState::Open,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

impl Permit {
    /// The login node answered, whatever it said.
    pub fn succeeded(mut self) {
        self.settled = true;
        *self.breaker.lock() = Inner::Closed { failures: 0 };
    }

    /// The login node did not answer, or not in time, or not sensibly.
    pub fn failed(mut self, now: Instant) {
        self.settled = true;
        let BreakerSettings {
            failures: limit,
            open,
            open_max,
        } = self.breaker.settings;
        let mut inner = self.breaker.lock();
        *inner = match *inner {
            Inner::Closed { failures } if failures + 1 < limit => Inner::Closed {
                failures: failures + 1,
            },
            Inner::Closed { .. } => Inner::Open {
                until: now + open,
                wait: open,
            },
            Inner::HalfOpen { wait } => {
                let wait = (wait * 2).min(open_max);
                Inner::Open {
                    until: now + wait,
                    wait,
                }
            }
            // Requests that left before it opened: they add nothing.
            open @ Inner::Open { .. } => open,
        };
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let mut inner = self.breaker.lock();
        if let Inner::HalfOpen { wait } = *inner {
            *inner = Inner::Open {
                until: Instant::now(),
                wait,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn breaker() -> Arc<Breaker> {
        Breaker::new(BreakerSettings {
            failures: 2,
            open: SECOND,
            open_max: 3 * SECOND,
        })
    }

    fn fail(breaker: &Arc<Breaker>, now: Instant) {
        breaker.acquire(now).expect("a permit").failed(now);
    }

    #[test]
    fn opens_after_failures_in_a_row_only() {
        let (breaker, now) = (breaker(), Instant::now());
        fail(&breaker, now);
        breaker.acquire(now).unwrap().succeeded();
        fail(&breaker, now);
        assert_eq!(breaker.state(), BreakerState::Closed);
        fail(&breaker, now);
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(breaker.acquire(now).is_none());
    }

    #[test]
    fn one_probe_at_a_time_and_longer_waits() {
        let (breaker, now) = (breaker(), Instant::now());
        fail(&breaker, now);
        fail(&breaker, now);
        let mut at = now;
        for wait in [SECOND, 2 * SECOND, 3 * SECOND, 3 * SECOND] {
            assert!(breaker.acquire(at + wait - SECOND / 2).is_none());
            at += wait;
            let probe = breaker.acquire(at).expect("a probe is due");
            assert_eq!(breaker.state(), BreakerState::HalfOpen);
            assert!(breaker.acquire(at).is_none(), "one probe at a time");
            assert!(breaker.acquire_early().is_none(), "one probe at a time");
            probe.failed(at);
        }
        breaker.acquire(at + 3 * SECOND).unwrap().succeeded();
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn a_dropped_probe_does_not_block_the_next() {
        let (breaker, now) = (breaker(), Instant::now());
        fail(&breaker, now);
        fail(&breaker, now);
        drop(breaker.acquire_early().expect("early probe"));
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(breaker.acquire(Instant::now()).is_some());
    }

    #[test]
    fn late_failures_do_not_prolong() {
        let (breaker, now) = (breaker(), Instant::now());
        let late = breaker.acquire(now).unwrap();
        fail(&breaker, now);
        fail(&breaker, now);
        late.failed(now + SECOND);
        assert!(breaker.acquire(now + SECOND).is_some());
    }
}
