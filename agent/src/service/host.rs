//! Questions that the host answers by its name service (NSS): who is who, and in which groups.
//!
//! A directory service behind it may hang. Then it holds some threads, however many ask, and who asks is told so:
//! all other calls have threads left, and are answered.

use std::time::Duration;

use tokio::sync::Semaphore;
use tonic::Status;

use super::{aside, status};

/// Questions at a time, those that hang included.
const AT_ONCE: usize = 4;

/// How long an answer is waited for. A question goes on after that: whoever asks again later may find its answer.
const PATIENCE: Duration = Duration::from_secs(5);

static SLOTS: Semaphore = Semaphore::const_new(AT_ONCE);

/// Asks.
///
/// # Errors
///
/// `UNAVAILABLE`: there was no answer in time.
pub(super) async fn ask<T: Send + 'static>(
    question: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    ask_within(&SLOTS, PATIENCE, question).await
}

async fn ask_within<T: Send + 'static>(
    slots: &'static Semaphore,
    patience: Duration,
    question: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    let answer = aside::in_time(slots.acquire(), patience, question).await;
    answer.ok_or_else(status::host_is_silent)
}

/// As if as many questions hung as can be asked.
#[cfg(test)]
pub(super) async fn all_slots() -> tokio::sync::SemaphorePermit<'static> {
    SLOTS.acquire_many(AT_ONCE as u32).await.unwrap()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use tokio::sync::Semaphore;
    use tokio::task::spawn_blocking;
    use tonic::Code;

    use super::ask_within;

    static SLOTS: Semaphore = Semaphore::const_new(1);

    #[test]
    fn a_host_that_hangs_holds_no_more_than_its_threads() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime.enable_time().max_blocking_threads(2) }
            .build()
            .unwrap();
        runtime.block_on(async {
            let (short, long) = (Duration::from_millis(1), Duration::from_secs(60));
            let mut hanging = Vec::new();
            for _ in 0..3 {
                let (answer, hangs) = mpsc::channel::<()>();
                hanging.push(answer);
                let asked = ask_within(&SLOTS, short, move || hangs.recv()).await;
                assert_eq!(asked.unwrap_err().code(), Code::Unavailable);
            }
            let other = tokio::time::timeout(long, spawn_blocking(|| 1)).await;
            assert_eq!(other.expect("a thread is left").unwrap(), 1);
            drop(hanging);
            assert_eq!(ask_within(&SLOTS, long, || 2).await.unwrap(), 2);
        });
    }
}
