//! Which operations are timed, and what the times say of the next file.

use nix::sys::resource::{UsageWho, getrusage};

use super::super::pace::Timed;

/// Latency is taken of one in so many operations where they are answered from memory: there taking
/// it costs as much as a tenth of the operation.
const SAMPLE_EVERY: u32 = 16;

/// Nanoseconds from which an answer did not come from memory.
const SLOW: u64 = 30_000;

/// How often this thread has given up its processor to wait for something, in its life.
///
/// It tells an answer that had to be waited for from one that came from memory while others had the
/// processor: on a busy machine the clock alone would take every file system for a slow one, and more and
/// more threads would fight for the processors that are the bottleneck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waits(Option<i64>);

impl Waits {
    /// Until now.
    pub fn of_this_thread() -> Self {
        let usage = getrusage(UsageWho::RUSAGE_THREAD);
        Self(usage.ok().map(|usage| usage.voluntary_context_switches()))
    }

    /// Whether the thread has waited since. Where that cannot be told, the clock decides.
    pub fn have_grown(self) -> bool {
        self.0.is_none() || self != Self::of_this_thread()
    }
}

/// What the time of an operation says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Took {
    /// The answer came from memory.
    Memory,
    /// The answer had to be waited for. Such times are all taken, and at once, so that the width follows.
    Slow,
    /// The thread had no processor: nothing of the file system.
    Displaced,
}

/// One worker's choice of what to time.
#[derive(Debug, Default)]
pub(super) struct Sampling {
    /// Operations that are not timed before the next one that is.
    untimed: u32,
    files_are_slow: bool,
}

impl Sampling {
    /// Whether the next operation is to be timed.
    pub fn is_due(&mut self) -> bool {
        let is_due = self.untimed == 0;
        self.untimed = self.untimed.saturating_sub(1);
        is_due
    }

    /// Notes how long an operation took that began with `waits`, and says what that is.
    pub fn took(&mut self, kind: Timed, nanoseconds: u64, waits: Waits) -> Took {
        let took = if nanoseconds <= SLOW {
            Took::Memory
        } else if waits.have_grown() {
            Took::Slow
        } else {
            Took::Displaced
        };
        let is_slow = took == Took::Slow;
        self.untimed = if is_slow { 0 } else { SAMPLE_EVERY };
        if kind == Timed::File {
            self.files_are_slow = is_slow;
        }
        took
    }

    /// Whether the last file that was timed was not in memory.
    pub fn files_are_slow(&self) -> bool {
        self.files_are_slow
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{SAMPLE_EVERY, SLOW, Sampling, Took, Waits};
    use crate::scan::pace::Timed;

    /// As if the thread had waited since, or had not.
    fn waits(since: bool) -> Waits {
        let mut waits = Waits::of_this_thread();
        if since {
            waits.0 = waits.0.map(|count| count - 1);
        }
        waits
    }

    #[test]
    fn fast_answers_are_timed_now_and_then_and_slow_ones_always() {
        let mut sampling = Sampling::default();
        assert!(sampling.is_due());
        assert_eq!(sampling.took(Timed::State, SLOW, waits(true)), Took::Memory);
        let untimed = (0..).take_while(|_| !sampling.is_due()).count();
        assert_eq!(untimed, SAMPLE_EVERY as usize);
        let took = sampling.took(Timed::State, SLOW + 1, waits(true));
        assert_eq!(took, Took::Slow);
        assert!(sampling.is_due());
    }

    #[test]
    fn the_last_file_tells_whether_files_are_in_memory() {
        let mut sampling = Sampling::default();
        for (kind, nanoseconds, slow) in [
            (Timed::Directory, SLOW + 1, false),
            (Timed::File, SLOW + 1, true),
            (Timed::State, 1, true),
            (Timed::File, 1, false),
        ] {
            sampling.took(kind, nanoseconds, waits(true));
            assert_eq!(sampling.files_are_slow(), slow, "{kind:?} {nanoseconds}");
        }
    }

    #[test]
    fn who_only_had_no_processor_has_not_waited() {
        let mut sampling = Sampling::default();
        assert_eq!(
            sampling.took(Timed::File, SLOW + 1, waits(false)),
            Took::Displaced
        );
        assert!(!sampling.files_are_slow());
        assert!(!sampling.is_due());
    }

    #[test]
    fn a_thread_that_sleeps_has_waited() {
        let waits = Waits::of_this_thread();
        std::thread::sleep(Duration::from_millis(1));
        assert!(waits.have_grown());
    }
}
