//! Requests for the same thing at the same time: one call for all that have arrived before it.
//!
//! A request never joins a call that is already under way, since what that call reads may have been
//! read before the request came. It waits for the end of it together with all others that come
//! meanwhile, and one call is made for them. Who comes alone waits for nothing. So a crowd costs a
//! login node one call at a time, and nobody is answered with anything older than the question.
//!
//! Of a crowd, those who have just been answered ask again, and would come a moment too late for the
//! call that is about to begin. So where the last call was shared by [`CROWD`] or more, the next one
//! gathers as many as there were, but begins when [`GATHERING`] has passed since the last one ended.
//!
//! Invariants: a call that is slow holds nobody up for longer than [`PATIENCE`]; a call whose callers
//! have all gone away is dropped; no outcome is kept between calls, only how many shared the last one.

use std::collections::HashMap;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::Weak;
use std::time::Duration;
use std::time::Instant;

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::sync::SetOnce;
use tokio_util::task::AbortOnDropHandle;

/// How long the next call waits for the one under way. An agent on the same network answers in a
/// tenth of this; one that does not is not worth waiting for.
pub(super) const PATIENCE: Duration = Duration::from_millis(10);

/// How long after the end of a crowd's call the next one begins at the latest (give or take a tick of
/// the timer, if nobody comes). As long as it takes to answer a crowd and to be asked again.
pub(super) const GATHERING: Duration = Duration::from_millis(1);

/// How many sharing a call are a crowd: fewer would save less than the wait costs them.
const CROWD: usize = 4;

/// Calls by what they ask for.
pub(super) struct Together<K, V> {
    turns: Mutex<Turns<K, V>>,
    /// How long a call waits for the one before it.
    patience: Duration,
    /// How long after the end of a crowd's call the next one begins at the latest.
    gathering: Duration,
}

struct Turns<K, V> {
    /// The newest call of each kind.
    newest: HashMap<K, Turn<V>>,
    /// Number of the next call.
    number: u64,
    /// How many kinds there are when those are dropped that nobody has asked for lately.
    sweep_at: usize,
}

/// Kinds up to which nothing is swept.
const FEW: usize = 64;

struct Turn<V> {
    number: u64,
    /// Weak: it is its callers who keep a call alive.
    call: Weak<Call<V>>,
    /// How many have asked for this call.
    callers: usize,
    /// How many of them had when the call before it ended: who comes later may have shared that one.
    queued: Option<usize>,
    stage: Stage,
    /// Told when nobody more is waited for.
    enough: Arc<Notify>,
}

#[derive(Clone, Copy)]
enum Stage {
    /// Waits for the end of the call before it.
    Queued,
    /// Waits for so many callers, but not for long.
    Gathering { expected: usize, since: Instant },
    /// Under way since then, or over since then: nobody joins.
    Begun(Instant),
}

/// A call that several wait for.
struct Call<V> {
    outcome: Arc<SetOnce<V>>,
    /// Ends with the last caller.
    _task: AbortOnDropHandle<()>,
}

/// Who shared the last call, and since when it is over.
#[derive(Clone, Copy)]
struct Last {
    callers: usize,
    since: Instant,
}

impl Last {
    /// How long may still be waited for such a crowd to gather again.
    fn rest(self, gathering: Duration) -> Option<Duration> {
        let rest = gathering.checked_sub(self.since.elapsed());
        rest.filter(|_| self.callers >= CROWD)
    }
}

impl<K, V> Together<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// No calls yet.
    pub(super) fn new(patience: Duration, gathering: Duration) -> Self {
        Self {
            turns: Mutex::new(Turns {
                newest: HashMap::new(),
                number: 0,
                sweep_at: FEW,
            }),
            patience,
            gathering,
        }
    }

    /// The outcome of the call that `make` makes, or of another one for the same key that begins after
    /// this moment. The other half of what it makes says what comes of a call that panics.
    pub(super) fn ask<M, C, L>(
        self: &Arc<Self>,
        key: K,
        make: M,
    ) -> impl Future<Output = V> + Send + 'static
    where
        M: FnOnce() -> (C, L),
        C: Future<Output = V> + Send + 'static,
        L: FnOnce() -> V + Send + 'static,
    {
        let call = self.join(key, make);
        async move { call.outcome.wait().await.clone() }
    }

    fn join<C, L>(self: &Arc<Self>, key: K, make: impl FnOnce() -> (C, L)) -> Arc<Call<V>>
    where
        C: Future<Output = V> + Send + 'static,
        L: FnOnce() -> V + Send + 'static,
    {
        let mut turns = self.lock();
        let mut previous = None;
        let mut last = None;
        if let Some(turn) = turns.newest.get_mut(&key) {
            match (turn.stage, turn.call.upgrade()) {
                (Stage::Begun(since), call) => {
                    previous = call;
                    last = Some(Last {
                        callers: turn.callers,
                        since,
                    });
                }
                (_, Some(call)) => {
                    turn.callers += 1;
                    turn.tell_if_enough(self.gathering);
                    return call;
                }
                // All its callers have gone away.
                (_, None) => {}
            }
        }
        let number = turns.number;
        turns.number += 1;
        let entry = Entry {
            together: Arc::clone(self),
            key: key.clone(),
            number,
        };
        let stage = match (&previous, last) {
            (Some(_), _) => Stage::Queued,
            (None, Some(last)) if last.rest(self.gathering).is_some() => Stage::Gathering {
                expected: last.callers,
                since: last.since,
            },
            (None, _) => Stage::Begun(Instant::now()),
        };
        let has_begun = matches!(stage, Stage::Begun(_));
        let enough = Arc::new(Notify::new());
        let outcome = Arc::new(SetOnce::new());
        let (call, lost) = make();
        let task = {
            let (enough, outcome) = (Arc::clone(&enough), Arc::clone(&outcome));
            async move {
                if !has_begun {
                    entry.wait(previous, last, &enough).await;
                }
                let result = AssertUnwindSafe(call).catch_unwind().await;
                let result = result.unwrap_or_else(|_| lost());
                drop(entry);
                // Nobody else sets it.
                let _ = outcome.set(result);
            }
        };
        let call = Arc::new(Call {
            outcome,
            _task: AbortOnDropHandle::new(tokio::spawn(task)),
        });
        let turn = Turn {
            number,
            call: Arc::downgrade(&call),
            callers: 1,
            queued: None,
            stage,
            enough,
        };
        turns.newest.insert(key, turn);
        if turns.newest.len() > turns.sweep_at {
            turns.sweep(self.gathering);
        }
        call
    }

    fn lock(&self) -> MutexGuard<'_, Turns<K, V>> {
        // Map operations are whole or did not happen.
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash, V> Turns<K, V> {
    /// Drops what only says how large a crowd was that nobody gathers for any more.
    fn sweep(&mut self, gathering: Duration) {
        self.newest.retain(|_, turn| match turn.stage {
            Stage::Begun(began) => turn.call.strong_count() > 0 || began.elapsed() < gathering,
            _ => true,
        });
        self.sweep_at = FEW.max(2 * self.newest.len());
    }
}

impl<V> Turn<V> {
    /// Also looks at the clock: its caller is here already, a timer would be later.
    fn tell_if_enough(&self, gathering: Duration) {
        if let Stage::Gathering { expected, since } = self.stage
            && (self.callers >= expected || since.elapsed() >= gathering)
        {
            self.enough.notify_one();
        }
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
    /// Waits for the call before, and for a crowd to gather again.
    async fn wait(&self, previous: Option<Arc<Call<V>>>, mut last: Option<Last>, enough: &Notify) {
        let Together {
            patience,
            gathering,
            ..
        } = *self.together;
        if let Some(previous) = previous {
            let ended = tokio::time::timeout(patience, previous.outcome.wait()).await;
            // Whoever shares a call that is still under way does not come back soon.
            last = last.filter(|_| ended.is_ok()).map(|last| Last {
                since: Instant::now(),
                ..last
            });
        }
        if let Some(last) = last
            && let Some(rest) = last.rest(gathering)
        {
            self.with_turn(|turn| {
                if matches!(turn.stage, Stage::Queued) {
                    // Those who were answered just now may come again.
                    turn.stage = Stage::Gathering {
                        expected: last.callers + turn.queued.unwrap_or(turn.callers),
                        since: last.since,
                    };
                    turn.tell_if_enough(gathering);
                }
            });
            let _ = tokio::time::timeout(rest, enough.notified()).await;
        }
        // From now on nobody joins.
        self.with_turn(|turn| turn.stage = Stage::Begun(Instant::now()));
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
        let Some(turn) = turns.newest.get_mut(&self.key) else {
            return;
        };
        if turn.number != self.number {
            turn.queued.get_or_insert(turn.callers);
            return;
        }
        if turn.callers >= CROWD && matches!(turn.stage, Stage::Begun(_)) {
            // How many they were is remembered; the next caller must not wait for what has ended.
            turn.call = Weak::new();
            turn.stage = Stage::Begun(Instant::now());
        } else {
            turns.newest.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests;
