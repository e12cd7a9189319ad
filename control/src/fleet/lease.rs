//! An agent's promise that nothing of its answer changes for a moment.

use std::time::Duration;
use std::time::Instant;

/// How long an agent is asked to promise that its listing stays as it is. Long enough for hundreds of
/// requests to share one call, short enough for nobody to see a new image later.
pub(super) const LEASE: Duration = Duration::from_millis(10);

/// A promise, which ends by itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lease {
    until: Instant,
}

impl Lease {
    /// What was granted to who asked at `asked`: no more than was asked for, and a tenth less, since no two
    /// clocks run alike. The agent counts from when the request arrived there, which was not before.
    pub(super) fn granted(lease: sifter_proto::Duration, asked: Instant) -> Self {
        let granted = Duration::try_from(lease).unwrap_or_default().min(LEASE);
        Self {
            until: asked + granted * 9 / 10,
        }
    }

    /// Whether it holds now.
    pub(super) fn holds(self) -> bool {
        Instant::now() < self.until
    }

    /// When it ends.
    pub(super) fn until(self) -> Instant {
        self.until
    }

    /// One that holds for so long.
    #[cfg(test)]
    pub(super) fn lasting(time: Duration) -> Self {
        Self {
            until: Instant::now() + time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_and_is_never_long() {
        let asked = Instant::now();
        for (granted, most) in [
            (Duration::from_millis(2), Duration::from_millis(2)),
            (LEASE, LEASE),
            (Duration::from_secs(1 << 40), LEASE),
        ] {
            let lease = Lease::granted(granted.into(), asked);
            assert!(lease.until() < asked + most, "{granted:?}");
            assert!(lease.until() > asked + most / 2, "{granted:?}");
        }
        let negative = sifter_proto::Duration {
            seconds: -1,
            nanos: 0,
        };
        assert!(!Lease::granted(negative, asked).holds());
        assert!(!Lease::lasting(Duration::ZERO).holds());
        assert!(Lease::lasting(Duration::from_secs(60)).holds());
    }
}
