//! Waiting for a condition, with a deadline, or for a moment. The only place of the tests that
//! sleeps.

use std::fmt::Debug;
use std::time::Duration;
use std::time::Instant;

/// Longest wait for something that normally takes milliseconds: machines under load are slow, and
/// a test that passes never waits this long.
pub const LONG: Duration = Duration::from_secs(60);

/// Time between two looks.
const STEP: Duration = Duration::from_millis(10);

/// Calls `check` until it gives a value, and panics with the last reason at the deadline.
pub fn until<T, E: Debug>(what: &str, mut check: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        match check() {
            Ok(value) => return value,
            Err(reason) => assert!(
                Instant::now() < deadline,
                "waited {LONG:?} for {what}: {reason:?}"
            ),
        }
        std::thread::sleep(STEP);
    }
}

/// Calls `check` until it is true.
pub fn until_true(what: &str, mut check: impl FnMut() -> bool) {
    until(what, || check().then_some(()).ok_or("not yet"));
}

/// Lets time pass where the moment itself is what is tested: that of a crash, say.
pub fn moment(duration: Duration) {
    std::thread::sleep(duration);
}
