//! Callers that come, share a call or an outcome, and go.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Instant;

use futures_util::future::BoxFuture;
use futures_util::future::join_all;
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
    /// Asks for an outcome that does not last.
    fn call(&self, calls: &Calls, key: &'static str) -> BoxFuture<'static, u32> {
        self.lasting(calls, key, None)
    }

    /// Asks for an outcome that lasts so long once it is there.
    fn lasting(
        &self,
        calls: &Calls,
        key: &'static str,
        lasts: Option<Duration>,
    ) -> BoxFuture<'static, u32> {
        let this = self.clone();
        let call = async move {
            let value = this.count.fetch_add(1, Ordering::SeqCst) + 1;
            this.go.notified().await;
            let lease = lasts.map(Lease::lasting);
            Outcome { value, lease }
        };
        calls.ask(key, |_| (call, || panic!("a panic"))).boxed()
    }

    /// Until it was asked so often; fails after a time that no machine needs.
    async fn until(&self, count: u32) {
        let asked = async {
            while self.count.load(Ordering::SeqCst) < count {
                tokio::task::yield_now().await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(30), asked).await;
        assert!(in_time.is_ok(), "not asked {count} times");
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

const LONG: Option<Duration> = Some(Duration::from_secs(3600));

#[tokio::test]
async fn what_lasts_answers_everybody_until_it_ends() {
    let (calls, asked) = (calls(Duration::MAX), Asked::default());
    let first = asked.lasting(&calls, "a", LONG);
    asked.until(1).await;
    // Those also who came meanwhile, though the call may have begun before them.
    let meanwhile = [asked.call(&calls, "a"), asked.call(&calls, "a")];
    asked.go.notify_waiters();
    assert_eq!(first.await, 1);
    assert_eq!(join_all(meanwhile).await, [1, 1]);
    assert_eq!(asked.call(&calls, "a").await, 1);
    // But nobody who asks for something else.
    let other = asked.call(&calls, "b");
    asked.until(2).await;
    asked.go.notify_waiters();
    assert_eq!(other.await, 2);
}

#[tokio::test]
async fn what_has_ended_answers_nobody_and_is_not_kept() {
    let (calls, asked) = (calls(Duration::MAX), Asked::default());
    let first = asked.lasting(&calls, "a", Some(Duration::ZERO));
    asked.until(1).await;
    let meanwhile = asked.lasting(&calls, "a", Some(Duration::from_millis(1)));
    asked.go.notify_waiters();
    assert_eq!(first.await, 1);
    asked.until(2).await;
    asked.go.notify_waiters();
    assert_eq!(meanwhile.await, 2);
    while !calls.lock().newest.is_empty() {
        tokio::task::yield_now().await;
    }
    let after = asked.call(&calls, "a");
    asked.until(3).await;
    asked.go.notify_waiters();
    assert_eq!(after.await, 3);
}

#[tokio::test]
async fn the_end_of_an_outcome_is_not_that_of_a_later_call() {
    let (calls, asked) = (calls(Duration::MAX), Asked::default());
    let first = asked.lasting(&calls, "a", Some(Duration::from_millis(1)));
    asked.until(1).await;
    asked.go.notify_waiters();
    first.await;
    // Its time is over before anybody notices: the test has not given way since.
    let until = Instant::now() + Duration::from_millis(1);
    while Instant::now() < until {
        std::hint::spin_loop();
    }
    let later = asked.call(&calls, "a");
    // Until only the later call has a place among the others.
    while Arc::strong_count(&calls) > 2 {
        tokio::task::yield_now().await;
    }
    assert!(calls.lock().newest.contains_key("a"));
    asked.until(2).await;
    asked.go.notify_waiters();
    assert_eq!(later.await, 2);
}

#[tokio::test]
async fn who_comes_alone_is_no_crowd() {
    let calls: Arc<Together<(), bool>> = Arc::new(Together::new(Duration::MAX));
    async fn outcome(value: bool) -> Outcome<bool> {
        tokio::task::yield_now().await;
        let lease = None;
        Outcome { value, lease }
    }
    let call = || calls.ask((), |crowd| (outcome(crowd), || panic!("a panic")));
    assert!(!call().await);
    assert!(!call().await);
    assert_eq!(tokio::join!(call(), call(), call()), (false, true, true));
    assert!(!call().await);
}

#[tokio::test]
async fn a_slow_call_is_not_waited_for() {
    let (calls, asked) = (calls(PATIENCE), Asked::default());
    let slow = asked.call(&calls, "a");
    asked.until(1).await;
    let next = asked.call(&calls, "a");
    asked.until(2).await;
    // Nobody joins that one either.
    let last = asked.call(&calls, "a");
    asked.until(3).await;
    asked.go.notify_waiters();
    assert_eq!((slow.await, next.await, last.await), (1, 2, 3));
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
    let call = || calls.ask("a", |_| (async { panic!("a bug") }, || 7));
    assert_eq!(tokio::join!(call(), call()), (7, 7));
    assert!(calls.lock().newest.is_empty());
}
