//! Keeps clients from filling the log.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::lock::lock;

/// Lines of one kind in a window.
const LINES: u64 = 10;

/// The window.
const WINDOW: Duration = Duration::from_secs(10);

/// Lets some lines of each kind through, and counts the others.
#[derive(Debug, Default)]
pub struct Quiet(Mutex<HashMap<&'static str, Window>>);

#[derive(Debug)]
struct Window {
    began: Instant,
    lines: u64,
}

impl Quiet {
    /// Whether a line of this kind may be written now, and how many were left out before it.
    pub fn may_speak(&self, kind: &'static str) -> Option<u64> {
        self.may_speak_at(kind, Instant::now())
    }

    fn may_speak_at(&self, kind: &'static str, now: Instant) -> Option<u64> {
        let mut windows = lock(&self.0);
        let window = windows.entry(kind).or_insert(Window {
            began: now,
            lines: 0,
        });
        let mut left_out = 0;
        if now.saturating_duration_since(window.began) >= WINDOW {
            left_out = window.lines.saturating_sub(LINES);
            window.began = now;
            window.lines = 0;
        }
        window.lines += 1;
        (window.lines <= LINES).then_some(left_out)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{LINES, Quiet, WINDOW};

    #[test]
    fn a_flood_leaves_some_lines_and_its_number() {
        let quiet = Quiet::default();
        let start = Instant::now();
        let spoken = (0..100)
            .filter(|_| quiet.may_speak_at("a", start).is_some())
            .count();
        assert_eq!(spoken as u64, LINES);
        assert_eq!(
            quiet.may_speak_at("b", start),
            Some(0),
            "another kind is not concerned"
        );
        assert_eq!(quiet.may_speak_at("a", start + WINDOW), Some(90));
        assert_eq!(quiet.may_speak_at("a", start + WINDOW), Some(0));
    }
}
