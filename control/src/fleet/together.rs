//! Requests for the same thing at the same time: one call for all that have arrived before it, and none
//! as long as the last outcome is known to be true.
//!
//! A request never joins a call that is already under way, since what that call reads may have been
//! read before the request came. It waits for the end of it together with all others that come
//! meanwhile, and one call is made for them. Who comes alone waits for nothing. So a crowd costs a
//! login node one call at a time, and nobody is answered with anything older than the question.
//!
//! The outcome of a call for several may come with a [`Lease`], the promise that nothing about it changes. As
//! long as that holds it answers everybody, those also who came while the call for it was under way: it is
//! true at the moment in which they are answered. Who comes alone always has a call made.
//!
//! Invariants: a call that is slow holds nobody up for longer than [`PATIENCE`]; a call whose callers
//! have all gone away is dropped; no outcome is kept for longer than it lasts.

use std::collections::HashMap;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::Weak;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::Either;
use tokio::sync::SetOnce;
use tokio_util::task::AbortOnDropHandle;

use super::lease::Lease;
use crate::lock::lock;

/// How long the next call waits for the one under way. An agent on the same network answers in a
/// tenth of this; one that does not is not worth waiting for.
pub(super) const PATIENCE: Duration = Duration::from_millis(10);

/// What came of a call.
#[derive(Debug, Clone)]
pub(super) struct Outcome<V> {
    pub value: V,
    /// The promise that nothing about it changes, if there is one.
    pub lease: Option<Lease>,
}

impl<V> Outcome<V> {
    fn lasts(&self) -> bool {
        self.lease.is_some_and(Lease::holds)
    }
}

/// Calls by what they ask for.
pub(super) struct Together<K, V> {
    turns: Mutex<Turns<K, V>>,
    /// How long a call waits for the one before it.
    patience: Duration,
}

struct Turns<K, V> {
    /// The newest call of each kind.
    newest: HashMap<K, Turn<V>>,
    /// Number of the next call.
    number: u64,
}

struct Turn<V> {
    number: u64,
    stage: Stage<V>,
}

enum Stage<V> {
    /// Waits for the end of the call before it. Weak: it is its callers who keep a call alive.
    Queued(Weak<Call<V>>),
    /// Under way: nobody joins.
    Begun(Weak<Call<V>>),
    /// Over, with an outcome that lasts.
    Kept(Outcome<V>),
}

/// A call that several wait for.
struct Call<V> {
    outcome: Arc<SetOnce<Outcome<V>>>,
    /// Ends with the last caller.
    _task: AbortOnDropHandle<()>,
}

impl<K, V> Together<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// No calls yet.
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            turns: Mutex::new(Turns {
                newest: HashMap::new(),
                number: 0,
            }),
            patience,
        }
    }

    /// An outcome that is true at a moment after this one: of the call that `make` makes, or of another
    /// one for the same key. It is told whether there is a crowd: others ask for the same. The other half of
    /// what it makes says what comes of a call that panics.
    pub(super) fn ask<M, C, L>(
        self: &Arc<Self>,
        key: K,
        make: M,
    ) -> impl Future<Output = V> + Send + 'static
    where
        M: FnOnce(bool) -> (C, L),
        C: Future<Output = Outcome<V>> + Send + 'static,
        L: FnOnce() -> V + Send + 'static,
    {
        match self.join(key, make) {
            Ok(value) => Either::Left(std::future::ready(value)),
            Err(call) => Either::Right(async move { call.outcome.wait().await.value.clone() }),
        }
    }

    /// What is kept, or the call to wait for.
    fn join<C, L>(
        self: &Arc<Self>,
        key: K,
        make: impl FnOnce(bool) -> (C, L),
    ) -> Result<V, Arc<Call<V>>>
    where
        C: Future<Output = Outcome<V>> + Send + 'static,
        L: FnOnce() -> V + Send + 'static,
    {
        let mut turns = self.lock();
        let mut previous = None;
        match turns.newest.get(&key).map(|turn| &turn.stage) {
            Some(Stage::Kept(outcome)) if outcome.lasts() => return Ok(outcome.value.clone()),
            Some(Stage::Queued(call)) => {
                // Unless all its callers have gone away.
                if let Some(call) = call.upgrade() {
                    return Err(call);
                }
            }
            Some(Stage::Begun(call)) => previous = call.upgrade(),
            Some(Stage::Kept(_)) | None => {}
        }
        let number = turns.number;
        turns.number += 1;
        let entry = Entry {
            together: Arc::clone(self),
            key: key.clone(),
            number,
        };
        let has_begun = previous.is_none();
        let outcome = Arc::new(SetOnce::new());
        let (call, lost) = make(!has_begun);
        let task = {
            let outcome = Arc::clone(&outcome);
            async move {
                if let Some(previous) = previous
                    && let Some(lasting) = entry.wait(&previous).await
                {
                    entry.end(&outcome, lasting);
                    return;
                }
                let result = AssertUnwindSafe(call).catch_unwind().await;
                let result = result.unwrap_or_else(|_| Outcome {
                    value: lost(),
                    lease: None,
                });
                entry.end(&outcome, result);
            }
        };
        let call = Arc::new(Call {
            outcome,
            _task: AbortOnDropHandle::new(tokio::spawn(task)),
        });
        let weak = Arc::downgrade(&call);
        let stage = if has_begun {
            Stage::Begun(weak)
        } else {
            Stage::Queued(weak)
        };
        turns.newest.insert(key, Turn { number, stage });
        Err(call)
    }
}

impl<K, V> Together<K, V> {
    fn lock(&self) -> MutexGuard<'_, Turns<K, V>> {
        lock(&self.turns)
    }
}

/// A call's place among the others, until it has ended or was dropped.
struct Entry<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    together: Arc<Together<K, V>>,
    key: K,
    number: u64,
}

impl<K, V> Entry<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Waits for the call before. Where what it ended with lasts, that answers these callers, too; else
    /// their call begins now, and nobody joins it any more.
    async fn wait(&self, previous: &Call<V>) -> Option<Outcome<V>> {
        let ended = tokio::time::timeout(self.together.patience, previous.outcome.wait()).await;
        if let Ok(outcome) = ended
            && outcome.lasts()
        {
            return Some(outcome.clone());
        }
        self.with_turn(|turn| {
            if let Stage::Queued(call) = &turn.stage {
                turn.stage = Stage::Begun(call.clone());
            }
        });
        None
    }

    /// Gives the outcome to the callers, and keeps it as long as it lasts.
    fn end(self, callers: &SetOnce<Outcome<V>>, outcome: Outcome<V>) {
        if let Some(until) = outcome.lease.map(Lease::until) {
            self.with_turn(|turn| turn.stage = Stage::Kept(outcome.clone()));
            tokio::spawn(async move {
                tokio::time::sleep_until(until.into()).await;
                drop(self);
            });
        } else {
            drop(self);
        }
        // Nobody else sets it.
        let _ = callers.set(outcome);
    }

    /// Does something with this call's turn, unless there is a newer one.
    fn with_turn(&self, act: impl FnOnce(&mut Turn<V>)) {
        if let Some(turn) = self.together.lock().newest.get_mut(&self.key)
            && turn.number == self.number
        {
            act(turn);
        }
    }
}

impl<K, V> Drop for Entry<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    fn drop(&mut self) {
        let mut turns = self.together.lock();
        let newest = turns.newest.get(&self.key);
        if newest.is_some_and(|turn| turn.number == self.number) {
            turns.newest.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests;
