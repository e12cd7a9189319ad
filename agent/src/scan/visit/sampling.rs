//! Which operations are timed, and what the times say of the next file.

use super::super::pace::Timed;

/// Latency is taken of one in so many operations where they are answered from memory: there taking
/// it costs as much as a tenth of the operation.
const SAMPLE_EVERY: u32 = 16;

/// Nanoseconds from which an answer did not come from memory.
const SLOW: u64 = 30_000;

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

    /// Notes how long an operation took; true if its answer did not come from memory. Slow answers are
    /// all taken, and at once, so that the width follows.
    pub fn took(&mut self, kind: Timed, nanoseconds: u64) -> bool {
        let is_slow = nanoseconds > SLOW;
        self.untimed = if is_slow { 0 } else { SAMPLE_EVERY };
        if kind == Timed::File {
            self.files_are_slow = is_slow;
        }
        is_slow
    }

    /// Whether the last file that was timed was not in memory.
    pub fn files_are_slow(&self) -> bool {
        self.files_are_slow
    }
}

#[cfg(test)]
mod tests {
    use super::{SAMPLE_EVERY, SLOW, Sampling};
    use crate::scan::pace::Timed;

    #[test]
    fn fast_answers_are_timed_now_and_then_and_slow_ones_always() {
        let mut sampling = Sampling::default();
        assert!(sampling.is_due());
        assert!(!sampling.took(Timed::State, SLOW));
        let untimed = (0..).take_while(|_| !sampling.is_due()).count();
        assert_eq!(untimed, SAMPLE_EVERY as usize);
        assert!(sampling.took(Timed::State, SLOW + 1));
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
            sampling.took(kind, nanoseconds);
            assert_eq!(sampling.files_are_slow(), slow, "{kind:?} {nanoseconds}");
        }
    }
}
