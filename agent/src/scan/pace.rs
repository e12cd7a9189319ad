//! How hard a scan leans on a file system: operations in flight and operations a second.
//!
//! The width follows the latency that is measured: a slow server that answers as fast with more
//! requests in flight gets more of them; when latency grows with the load, the queue is the
//! server's, and the width shrinks. Where that does not make it answer faster, the load is not this
//! scan's (or there is none: a disk answers now from its cache and now not), and the width is what it was,
//! or what it began with if that is less. A file system that answers from memory needs no more threads than
//! the scan began with, and gets no more once it has done so for a while.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::lock::lock;

/// Below this an operation was answered from memory (some 5 µs; a local flash disk takes 60 and
/// more): more threads only cost switches.
const FROM_MEMORY: Duration = Duration::from_micros(30);

/// Samples for one decision at least, so that one slow answer decides nothing.
const WINDOW_MIN: usize = 8;

/// Latency up to which the server is taken to answer as fast as when unloaded, in percent of the
/// lowest median seen.
const UNLOADED_PERCENT: u64 = 135;

/// Latency from which the load is taken to be too high, likewise.
const OVERLOADED_PERCENT: u64 = 190;

/// Latency after the width was halved, in percent of the one before, up to which that has helped. Half the
/// load on a server that has too much to do is half the latency.
const HELPED_PERCENT: u64 = 75;

/// So many measures of other kinds are waited for until one tells whether halving has helped.
const TRIAL_MAX: u32 = 16;

/// So many measures in a row that memory answered, and the width is no more than the scan began with.
const MEMORY_RUN: u32 = 16;

/// Longest sleep for the sake of the rate limit before cancellation is looked at again.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// Shared by the workers of one scan.
#[derive(Debug)]
pub struct Pace {
    width: AtomicU32,
    start: u32,
    max: u32,
    rate: Option<f64>,
    latency: Mutex<Latency>,
    next_free: Mutex<Instant>,
}

/// What latency is taken of. A server takes longer for some than for others, whatever its load: each is
/// compared with its own kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timed {
    /// Opening a directory.
    Directory,
    /// Opening and reading a file.
    File,
    /// Asking for a state.
    State,
}

impl Timed {
    /// How many there are.
    pub const COUNT: usize = 3;
}

#[derive(Debug)]
struct Latency {
    samples: [Vec<u64>; Timed::COUNT],
    /// The lowest median of each.
    lowest: [Option<u64>; Timed::COUNT],
    /// The latest median in percent of the lowest one: what the load makes of latencies.
    load: u64,
    /// The width was halved, and whether that helps is not known yet.
    trial: Option<Trial>,
    /// Latest measures in a row that memory answered.
    from_memory: u32,
}

/// What there was before the width was halved.
#[derive(Debug)]
struct Trial {
    kind: usize,
    width: u32,
    median: u64,
    /// Measures of other kinds since then.
    others: u32,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            samples: Default::default(),
            lowest: [None; Timed::COUNT],
            load: 100,
            trial: None,
            from_memory: 0,
        }
    }
}

impl Latency {
    /// From now on this is what is measured by.
    fn is_usual(&mut self, kind: usize, median: u64) {
        self.lowest[kind] = Some(median);
        self.load = 100;
    }
}

impl Pace {
    /// Starts with `start` operations in flight and never exceeds `max`; `rate` operations a
    /// second at most, if given.
    #[must_use]
    pub fn new(start: u32, max: u32, rate: Option<f64>) -> Self {
        let max = max.max(1);
        let start = start.clamp(1, max);
        Self {
            width: AtomicU32::new(start),
            start,
            max,
            rate: rate.filter(|rate| *rate > 0.0),
            latency: Mutex::default(),
            next_free: Mutex::new(Instant::now()),
        }
    }

    /// Operations in flight at most, now.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width.load(Ordering::Relaxed)
    }

    /// Whether operations are answered so slowly that even single ones are worth sharing out.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        self.rate.is_some() || self.width() > self.start
    }

    /// Takes the latencies of single operations of one kind and adapts the width. Empties `samples`.
    pub fn record(&self, kind: Timed, samples: &mut Vec<u64>) {
        let mut latency = lock(&self.latency);
        let kind = kind as usize;
        latency.samples[kind].append(samples);
        let width = self.width();
        let taken = &mut latency.samples[kind];
        if taken.len() < WINDOW_MIN.max(width as usize) {
            return;
        }
        let middle = taken.len() / 2;
        let median = *taken.select_nth_unstable(middle).1;
        // The others may be of another width.
        latency.samples.iter_mut().for_each(Vec::clear);
        // What memory answered says nothing of the server, and must not be what its answers are
        // measured by.
        if Duration::from_nanos(median) < FROM_MEMORY {
            latency.from_memory = latency.from_memory.saturating_add(1);
            if latency.from_memory >= MEMORY_RUN {
                self.width.store(width.min(self.start), Ordering::Relaxed);
            }
            return;
        }
        latency.from_memory = 0;
        if let Some(mut trial) = latency.trial.take() {
            if trial.kind != kind {
                trial.others += 1;
                latency.trial = Some(trial).filter(|trial| trial.others < TRIAL_MAX);
                return;
            }
            if median.saturating_mul(100) > trial.median.saturating_mul(HELPED_PERCENT) {
                latency.is_usual(kind, median);
                let width = trial.width.min(self.start.max(width));
                self.width.store(width, Ordering::Relaxed);
                return;
            }
        }
        // What is taken for the first time is taken under the load that there is. One quick answer is
        // not what all others are measured by.
        let lowest = latency.lowest[kind]
            .map_or(median.saturating_mul(100) / latency.load, |seen| {
                seen.min(median.max(seen - seen / 4))
            });
        latency.lowest[kind] = Some(lowest);
        let percent = median.saturating_mul(100) / lowest.max(1);
        latency.load = percent.max(100);
        let next = if percent <= UNLOADED_PERCENT {
            (width + (width / 2).max(1)).min(self.max)
        } else if percent >= OVERLOADED_PERCENT && width > 1 {
            latency.trial = Some(Trial {
                kind,
                width,
                median,
                others: 0,
            });
            width / 2
        } else if percent >= OVERLOADED_PERCENT {
            // One alone is no load.
            latency.is_usual(kind, median);
            width
        } else {
            width
        };
        self.width.store(next, Ordering::Relaxed);
    }

    /// Sleeps as long as the rate limit asks for after `operations`, unless `cancelled` says so;
    /// gives the time slept.
    pub fn throttle(&self, operations: u64, cancelled: impl Fn() -> bool) -> Duration {
        let Some(rate) = self.rate else {
            return Duration::ZERO;
        };
        #[allow(clippy::cast_precision_loss)] // operations of one item: far below 2^52
        let cost = Duration::from_secs_f64(operations as f64 / rate);
        let until = {
            let mut next_free = lock(&self.next_free);
            *next_free = (*next_free).max(Instant::now()) + cost;
            *next_free
        };
        let start = Instant::now();
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            if cancelled() {
                break;
            }
            std::thread::sleep(left.min(SLEEP_MAX));
        }
        start.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::{Pace, Timed};

    /// A server that serves `capacity` at once, each in `service` nanoseconds: what a worker sees
    /// with `width` in flight.
    fn latency(width: u32, capacity: u32, service: u64) -> u64 {
        service * u64::from(width.max(capacity)) / u64::from(capacity)
    }

    fn settle(start: u32, max: u32, capacity: u32, service: u64) -> (u32, u32) {
        let pace = Pace::new(start, max, None);
        let mut highest = 0;
        for _ in 0..200 {
            let width = pace.width();
            let mut samples = vec![latency(width, capacity, service); width.max(8) as usize];
            pace.record(Timed::File, &mut samples);
            highest = highest.max(pace.width());
        }
        (pace.width(), highest)
    }

    #[test]
    fn width_grows_to_the_ceiling_on_a_slow_server_that_keeps_up() {
        assert_eq!(settle(4, 64, 1000, 2_000_000).0, 64);
    }

    #[test]
    fn width_stays_near_what_the_server_serves_at_once() {
        let (width, highest) = settle(4, 128, 8, 2_000_000);
        assert!((8..=20).contains(&width), "settled at {width}");
        assert!(highest <= 20, "went up to {highest}");
    }

    #[test]
    fn width_does_not_grow_where_memory_answers() {
        assert_eq!(settle(2, 64, 1000, 5_000).1, 2);
    }

    #[test]
    fn width_goes_back_to_what_it_began_with_once_memory_answers() {
        let pace = Pace::new(1, 8, None);
        let measure = |nanoseconds, times| {
            for _ in 0..times {
                pace.record(Timed::File, &mut vec![nanoseconds; 8]);
            }
            pace.width()
        };
        assert_eq!(measure(200_000, 10), 8);
        assert_eq!(measure(5_000, 15), 8, "may be a warm corner of a cold disk");
        assert_eq!(measure(5_000, 1), 1);
        assert_eq!(measure(200_000, 10), 8, "cold again");
    }

    #[test]
    fn answers_from_memory_are_no_measure_for_those_from_a_disk() {
        let pace = Pace::new(2, 8, None);
        for _ in 0..20 {
            pace.record(Timed::File, &mut vec![5_000; 8]);
            pace.record(Timed::File, &mut vec![200_000; 8]);
        }
        assert_eq!(pace.width(), 8);
    }

    #[test]
    fn width_halves_when_latency_doubles_and_recovers() {
        let pace = Pace::new(16, 16, None);
        pace.record(Timed::File, &mut vec![1_000_000; 16]);
        pace.record(Timed::File, &mut vec![2_000_000; 16]);
        assert_eq!(pace.width(), 8);
        pace.record(Timed::File, &mut vec![1_000_000; 16]);
        assert_eq!(pace.width(), 12);
    }

    #[test]
    fn a_disk_that_answers_now_and_then_from_its_cache_is_not_overloaded() {
        let pace = Pace::new(8, 8, None);
        let mut widths = 0;
        for round in 0..100 {
            let median = if round % 5 == 0 { 40_000 } else { 400_000 };
            pace.record(Timed::Directory, &mut vec![median; 8]);
            pace.record(Timed::File, &mut vec![2 * median; 8]);
            widths += pace.width();
        }
        assert!(widths >= 600, "{} on the mean", widths / 100);
    }

    #[test]
    fn a_load_that_is_not_ours_leaves_the_scan_what_it_began_with() {
        let pace = Pace::new(8, 64, None);
        let measure = |median| {
            pace.record(Timed::File, &mut vec![median; 64]);
            pace.width()
        };
        let grown = (0..6).map(|_| measure(1_000_000)).max();
        assert_eq!(grown, Some(64));
        assert_eq!(measure(4_000_000), 32);
        let later = (0..20).map(|_| measure(4_000_000)).min();
        assert!(later >= Some(8), "{later:?}");
    }

    #[test]
    fn kinds_of_operations_are_not_measured_by_each_other() {
        let pace = Pace::new(4, 64, None);
        for _ in 0..20 {
            let width = pace.width() as usize;
            pace.record(Timed::File, &mut vec![1_500_000; width.max(8)]);
            let width = pace.width() as usize;
            pace.record(Timed::Directory, &mut vec![4_000_000; width.max(8)]);
        }
        assert_eq!(pace.width(), 64);
    }

    #[test]
    fn what_is_seen_first_under_load_is_not_taken_for_unloaded() {
        let pace = Pace::new(16, 64, None);
        pace.record(Timed::Directory, &mut vec![2_000_000; 16]);
        assert_eq!(pace.width(), 24);
        pace.record(Timed::Directory, &mut vec![3_500_000; 24]);
        assert_eq!(pace.width(), 24, "loaded, not overloaded");
        pace.record(Timed::File, &mut vec![7_000_000; 24]);
        assert_eq!(pace.width(), 24, "as loaded");
    }

    #[test]
    fn rate_limit_is_kept() {
        let pace = Pace::new(1, 1, Some(1000.0));
        let start = std::time::Instant::now();
        let waited: std::time::Duration = (0..10).map(|_| pace.throttle(10, || false)).sum();
        assert!(start.elapsed() >= std::time::Duration::from_millis(99));
        assert!(waited >= std::time::Duration::from_millis(90));
    }
}
