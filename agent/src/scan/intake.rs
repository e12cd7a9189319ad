//! The way of a scan's changes into the catalogue: many at a time, for each time wakes a thread and is
//! a transaction.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::catalog::{Catalog, DirectoryChange, KnownRoot, RootIndex, StoreError};
use crate::lock::lock;

use super::progress::Progress;

/// Directories and files of one transaction, about.
const BATCH: usize = 1024;

/// How long fewer of them wait for more.
const BATCH_TIME: Duration = Duration::from_millis(250);

/// Directories and files that may wait; whoever finds more waits with them, so that memory is bounded.
const WAITING_MAX: usize = 2 * BATCH;

/// Time between two listings published by a running scan, at least.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// The same as a multiple of what it takes to publish one: what a large listing costs must not be what
/// a scan costs.
const PUBLISH_SHARE: u32 = 32;

/// Changes on their way from a scan's workers to the catalogue.
#[derive(Debug, Default)]
pub(super) struct Intake {
    waiting: Mutex<Waiting>,
    /// There is a batch, or no more will come.
    ready: Condvar,
    /// There is room again.
    room: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    changes: Vec<DirectoryChange>,
    /// Of all of them.
    size: usize,
    /// No more will be sent.
    complete: bool,
    /// Nobody takes any more: the catalogue failed, and the scan is being cancelled.
    abandoned: bool,
}

impl Intake {
    /// Hands a change on; waits where too many wait already.
    pub(super) fn send(&self, change: DirectoryChange) {
        let mut waiting = self
            .room
            .wait_while(lock(&self.waiting), |waiting| {
                waiting.size >= WAITING_MAX && !waiting.abandoned
            })
            .unwrap_or_else(PoisonError::into_inner);
        if waiting.abandoned {
            return;
        }
        let before = waiting.size;
        waiting.size += change.size();
        waiting.changes.push(change);
        // The first one begins the time that a batch may wait.
        if before == 0 || (before < BATCH && waiting.size >= BATCH) {
            self.ready.notify_one();
        }
    }

    /// Nothing more will be sent once what this gives is dropped, be it by a panic.
    pub(super) fn complete_on_drop(&self) -> Complete<'_> {
        Complete(self)
    }

    /// The next changes, in the order in which they were sent; none when no more will come.
    fn next(&self) -> Vec<DirectoryChange> {
        let mut waiting = self
            .ready
            .wait_while(lock(&self.waiting), |waiting| {
                waiting.changes.is_empty() && !waiting.complete
            })
            .unwrap_or_else(PoisonError::into_inner);
        waiting = self
            .ready
            .wait_timeout_while(waiting, BATCH_TIME, |waiting| {
                waiting.size < BATCH && !waiting.complete
            })
            .unwrap_or_else(PoisonError::into_inner)
            .0;
        let changes = std::mem::take(&mut waiting.changes);
        waiting.size = 0;
        self.room.notify_all();
        changes
    }

    fn abandon(&self) {
        let mut waiting = lock(&self.waiting);
        waiting.abandoned = true;
        waiting.changes.clear();
        waiting.size = 0;
        self.room.notify_all();
    }

    /// Takes changes as they come into the catalogue, a transaction a batch, until they are complete;
    /// with `publish` also into the listing. They were found with `known`.
    ///
    /// # Errors
    ///
    /// The catalogue failed; the scan is cancelled.
    pub(super) fn write(
        &self,
        catalog: &Catalog,
        root: RootIndex,
        known: &KnownRoot,
        publish: bool,
        progress: &Progress,
    ) -> Result<(), StoreError> {
        let _nobody_waits_in_vain = Abandon(self, progress);
        let mut publish_at = Instant::now() + PUBLISH_EVERY;
        loop {
            let batch = self.next();
            if batch.is_empty() {
                return Ok(());
            }
            // What a scan that was ended still brings may be another's business by now.
            if progress.is_cancelled() {
                self.abandon();
                return Ok(());
            }
            // That it is gone may be written: the next scan says so if this one has stored the name before.
            #[cfg(test)]
            for change in batch
                .iter()
                .filter(|change| !matches!(change.kind, crate::catalog::ChangeKind::Gone))
            {
                let path = crate::scan::dir::absolute("/".as_ref(), &change.path);
                crate::scan::panics::fail_on_purpose("panics-when-written", &path);
            }
            if let Err(error) = catalog.apply(root, known, batch) {
                progress.cancel();
                self.abandon();
                return Err(error);
            }
            let now = Instant::now();
            if publish && now >= publish_at {
                catalog.publish_changes();
                publish_at = now + until_next(now.elapsed());
            }
        }
    }
}

/// How long after one listing was published the next one is, when it took so long.
fn until_next(cost: Duration) -> Duration {
    PUBLISH_EVERY.max(cost * PUBLISH_SHARE)
}

/// Ends the scan if its writer panics: its workers would wait for room for ever.
struct Abandon<'a>(&'a Intake, &'a Progress);

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.1.cancel();
            self.0.abandon();
        }
    }
}

/// See [`Intake::complete_on_drop`].
pub(super) struct Complete<'a>(&'a Intake);

impl Drop for Complete<'_> {
    fn drop(&mut self) {
        lock(&self.0.waiting).complete = true;
        self.0.ready.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{BATCH, Intake, PUBLISH_EVERY, WAITING_MAX, lock, until_next};
    use crate::catalog::{ChangeKind, DirectoryChange};

    fn change(number: usize) -> DirectoryChange {
        DirectoryChange {
            id: None,
            path: number.to_string().into_bytes().into(),
            kind: ChangeKind::Gone,
        }
    }

    #[test]
    fn all_changes_arrive_in_order_though_more_are_sent_than_may_wait() {
        let intake = Intake::default();
        let count = 3 * WAITING_MAX + 7;
        let received = std::thread::scope(|scope| {
            scope.spawn(|| {
                let _complete = intake.complete_on_drop();
                (0..count).for_each(|number| intake.send(change(number)));
            });
            let mut received = Vec::new();
            loop {
                let batch = intake.next();
                assert!(batch.len() <= WAITING_MAX);
                if batch.is_empty() {
                    return received;
                }
                received.extend(batch);
            }
        });
        let paths = received.iter().map(|change| change.path.to_vec());
        let sent = (0..count).map(|number| number.to_string().into_bytes());
        assert!(paths.eq(sent));
    }

    #[test]
    fn what_is_dear_to_publish_is_published_less_often() {
        for (cost, until) in [(0, 1000), (10, 1000), (100, 3200), (2000, 64_000)] {
            let until = Duration::from_millis(until);
            assert_eq!(until_next(Duration::from_millis(cost)), until, "{cost} ms");
        }
        assert_eq!(until_next(Duration::ZERO), PUBLISH_EVERY);
    }

    #[test]
    fn few_changes_arrive_though_no_more_come() {
        let intake = Intake::default();
        intake.send(change(0));
        assert_eq!(intake.next().len(), 1);
    }

    #[test]
    fn nobody_waits_for_a_catalogue_that_failed() {
        let intake = Intake::default();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..=2 * WAITING_MAX).for_each(|number| intake.send(change(number))));
            while lock(&intake.waiting).changes.len() < BATCH {
                std::thread::yield_now();
            }
            intake.abandon();
        });
        assert!(lock(&intake.waiting).changes.is_empty());
    }
}
