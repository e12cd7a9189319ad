//! Requests for the same thing at the same time: one call for all that have arrived before it.
//!
//! A request never joins a call that is already under way, since what that call reads may have been
//! read before the request came. It waits for the end of it together with all others that come
//! meanwhile, and one call is made for them. Who comes alone waits for nothing. So a crowd costs a
//! login node one call at a time, and nobody is answered with anything older than the question.
//!
//! Invariants: a call that is slow holds nobody up for longer than [`PATIENCE`]; a call whose callers
//! have all gone away is dropped; nothing is kept between calls.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::future::Shared;
use futures_util::future::WeakShared;
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;

/// How long the next call waits for the one under way. An agent on the same network answers in a
/// tenth of this; one that does not is not worth waiting for.
pub(super) const PATIENCE: Duration = Duration::from_millis(10);

/// A call that several wait for.
type Call<V> = Shared<BoxFuture<'static, V>>;

/// Calls by what they ask for.
pub(super) struct Together<K, V> {
    turns: Mutex<Turns<K, V>>,
    /// How long a call waits for the one before it.
    patience: Duration,
}

struct Turns<K, V> {
    /// The newest call of each kind: under way, or waiting for its turn.
    newest: HashMap<K, Turn<V>>,
    /// Number of the next call.
    number: u64,
}

struct Turn<V> {
    number: u64,
    has_begun: bool,
    /// Weak: it is its callers who keep a call alive.
    call: WeakShared<BoxFuture<'static, V>>,
}

impl<K, V> Together<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
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

    /// The outcome of `call`, or of another one for the same key that begins after this moment.
    /// `lost` says what comes of a call that panics.
    pub(super) fn ask(
        self: &Arc<Self>,
        key: K,
        call: impl Future<Output = V> + Send + 'static,
        lost: impl FnOnce(JoinError) -> V + Send + 'static,
    ) -> Call<V> {
        let mut turns = self.lock();
        let newest = turns.newest.get(&key);
        let previous = newest.and_then(|turn| Some((turn.has_begun, turn.call.upgrade()?)));
        let previous = match previous {
            Some((false, call)) => return call,
            Some((true, call)) => Some(call),
            None => None,
        };
        let number = turns.number;
        turns.number += 1;
        let entry = Entry {
            together: Arc::clone(self),
            key: key.clone(),
            number,
        };
        let has_begun = previous.is_none();
        let patience = self.patience;
        let task = tokio::spawn(async move {
            if let Some(previous) = previous {
                let _ = tokio::time::timeout(patience, previous).await;
                entry.begin();
            }
            let outcome = call.await;
            drop(entry);
            outcome
        });
        let call = AbortOnDropHandle::new(task)
            .map(|joined| joined.unwrap_or_else(lost))
            .boxed()
            .shared();
        if let Some(weak) = call.downgrade() {
            let turn = Turn {
                number,
                has_begun,
                call: weak,
            };
            turns.newest.insert(key, turn);
        }
        call
    }

    fn lock(&self) -> MutexGuard<'_, Turns<K, V>> {
        // Map operations are whole or did not happen.
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call's place among the others, until it has ended or was dropped.
struct Entry<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    together: Arc<Together<K, V>>,
    key: K,
    number: u64,
}

impl<K, V> Entry<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// From now on nobody joins.
    fn begin(&self) {
        if let Some(turn) = self.together.lock().newest.get_mut(&self.key)
            && turn.number == self.number
        {
            turn.has_begun = true;
        }
    }
}

impl<K, V> Drop for Entry<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
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
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering;

    use tokio::sync::Notify;

    use super::*;

    type Calls = Arc<Together<&'static str, u32>>;

    fn calls(patience: Duration) -> Calls {
        Arc::new(Together::new(patience))
    }

    /// Something that is asked: answers with how often it was, when it is allowed to.
    #[derive(Clone, Default)]
    struct Asked {
        count: Arc<AtomicU32>,
        go: Arc<Notify>,
    }

    impl Asked {
        fn call(&self, calls: &Calls, key: &'static str) -> Call<u32> {
            let this = self.clone();
            let call = async move {
                let number = this.count.fetch_add(1, Ordering::SeqCst) + 1;
                this.go.notified().await;
                number
            };
            calls.ask(key, call, |error| panic!("{error}"))
        }

        async fn until(&self, count: u32) {
            while self.count.load(Ordering::SeqCst) < count {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn nobody_joins_a_call_that_is_under_way() {
        let (calls, asked) = (calls(Duration::MAX), Asked::default());
        let first = asked.call(&calls, "a");
        // Not even before the task has run: it may at any moment.
        let second = asked.call(&calls, "a");
        let third = asked.call(&calls, "a");
        asked.until(1).await;
        let other = asked.call(&calls, "b");
        asked.until(2).await;
        asked.go.notify_waiters();
        assert_eq!((first.await, other.await), (1, 2));
        // The two that came meanwhile share one, which began after they came.
        asked.until(3).await;
        let fourth = asked.call(&calls, "a");
        asked.go.notify_waiters();
        assert_eq!((second.await, third.await), (3, 3));
        asked.until(4).await;
        asked.go.notify_waiters();
        assert_eq!(fourth.await, 4);
        assert!(calls.lock().newest.is_empty());
    }

    #[tokio::test]
    async fn a_slow_call_is_not_waited_for() {
        let (calls, asked) = (calls(PATIENCE), Asked::default());
        let slow = asked.call(&calls, "a");
        asked.until(1).await;
        let next = asked.call(&calls, "a");
        asked.until(2).await;
        asked.go.notify_waiters();
        assert_eq!((slow.await, next.await), (1, 2));
    }

    #[tokio::test]
    async fn a_call_ends_when_its_last_caller_goes() {
        let (calls, asked) = (calls(PATIENCE), Asked::default());
        let first = asked.call(&calls, "a");
        asked.until(1).await;
        let second = asked.call(&calls, "a");
        let third = asked.call(&calls, "a");
        drop((first, second));
        asked.until(2).await;
        asked.go.notify_waiters();
        assert_eq!(third.await, 2);
        drop(asked.call(&calls, "a"));
        while !calls.lock().newest.is_empty() {
            tokio::task::yield_now().await;
        }
        // The calls that were dropped have let go of what they had.
        assert_eq!(Arc::strong_count(&asked.count), 1);
    }

    #[tokio::test]
    async fn a_panic_is_everybodys() {
        let calls = calls(PATIENCE);
        let call = || calls.ask("a", async { panic!("a bug") }, |_| 7);
        assert_eq!(tokio::join!(call(), call()), (7, 7));
        assert!(calls.lock().newest.is_empty());
    }
}
