//! Crowds that come, share a call and come back.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use futures_util::future::BoxFuture;
use futures_util::future::JoinAll;
use futures_util::future::join_all;

use super::*;

type Calls = Arc<Together<&'static str, u32>>;

fn calls(patience: Duration) -> Calls {
    Arc::new(Together::new(patience, GATHERING))
}

/// Calls for whose crowds there is all the time in the world.
fn patient() -> Calls {
    Arc::new(Together::new(Duration::MAX, Duration::MAX))
}

/// Something that is asked: answers with how often it was, when it is allowed to.
#[derive(Clone, Default)]
struct Asked {
    count: Arc<AtomicU32>,
    go: Arc<Notify>,
}

impl Asked {
    fn call(&self, calls: &Calls, key: &'static str) -> BoxFuture<'static, u32> {
        let this = self.clone();
        let call = async move {
            let number = this.count.fetch_add(1, Ordering::SeqCst) + 1;
            this.go.notified().await;
            number
        };
        calls.ask(key, || (call, || panic!("a panic"))).boxed()
    }

    /// Several that ask at once.
    fn crowd(&self, calls: &Calls, size: usize) -> JoinAll<BoxFuture<'static, u32>> {
        join_all((0..size).map(|_| self.call(calls, "a")))
    }

    async fn until(&self, count: u32) {
        while self.count.load(Ordering::SeqCst) < count {
            tokio::task::yield_now().await;
        }
    }
}

/// Until a call waits for others to come.
async fn until_gathering(calls: &Calls) {
    let gathers = || {
        let turns = calls.lock();
        let turn = turns.newest.get("a");
        turn.is_some_and(|turn| matches!(turn.stage, Stage::Gathering { .. }))
    };
    while !gathers() {
        tokio::task::yield_now().await;
    }
}

/// Lets a crowd of this size be answered, for the next one to be expected.
async fn answer_crowd(calls: &Calls, asked: &Asked, size: usize) {
    let begun = asked.count.load(Ordering::SeqCst);
    let first = asked.call(calls, "a");
    asked.until(begun + 1).await;
    let crowd = asked.crowd(calls, size);
    asked.go.notify_waiters();
    first.await;
    asked.until(begun + 2).await;
    asked.go.notify_waiters();
    assert_eq!(crowd.await, vec![begun + 2; size]);
}

#[tokio::test]
async fn nobody_joins_a_call_that_is_under_way() {
    let (calls, asked) = (patient(), Asked::default());
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
async fn a_crowd_gathers_again_and_still_nobody_joins_late() {
    let (calls, asked) = (patient(), Asked::default());
    let first = asked.call(&calls, "a");
    asked.until(1).await;
    let crowd = asked.crowd(&calls, CROWD);
    asked.go.notify_waiters();
    assert_eq!(first.await, 1);
    asked.until(2).await;
    // Too late for the call of the crowd, which may come back and then be CROWD more.
    let late = asked.crowd(&calls, 2);
    asked.go.notify_waiters();
    assert_eq!(crowd.await, [2; CROWD]);
    until_gathering(&calls).await;
    assert_eq!(asked.count.load(Ordering::SeqCst), 2);
    let again = asked.crowd(&calls, CROWD);
    asked.until(3).await;
    let too_late = asked.call(&calls, "a");
    asked.go.notify_waiters();
    assert_eq!((late.await, again.await), (vec![3; 2], vec![3; CROWD]));
    // That was a crowd, too: of the next one only the first has come so far.
    until_gathering(&calls).await;
    let again = asked.crowd(&calls, CROWD + 2);
    asked.until(4).await;
    asked.go.notify_waiters();
    assert_eq!((too_late.await, again.await), (4, vec![4; CROWD + 2]));
}

#[tokio::test]
async fn who_comes_back_at_once_is_not_expected_twice() {
    let (calls, asked) = (patient(), Asked::default());
    let first = asked.call(&calls, "a");
    asked.until(1).await;
    // Each asks again as soon as it is answered, before the task of the next call has run.
    let crowd = join_all((0..CROWD).map(|_| {
        let (calls, asked) = (Arc::clone(&calls), asked.clone());
        tokio::spawn(async move {
            let answer = asked.call(&calls, "a").await;
            (answer, asked.call(&calls, "a").await)
        })
    }));
    while calls.lock().newest["a"].callers < CROWD {
        tokio::task::yield_now().await;
    }
    asked.go.notify_waiters();
    first.await;
    asked.until(2).await;
    let late = asked.call(&calls, "a");
    tokio::task::yield_now().await;
    asked.go.notify_waiters();
    let begun = tokio::time::timeout(Duration::from_secs(5), asked.until(3)).await;
    assert!(begun.is_ok(), "more are waited for than there are");
    asked.go.notify_waiters();
    assert_eq!(late.await, 3);
    for answers in crowd.await {
        assert_eq!(answers.unwrap(), (2, 3));
    }
}

#[tokio::test]
async fn a_crowd_gathers_also_where_no_call_is_under_way() {
    let (calls, asked) = (patient(), Asked::default());
    answer_crowd(&calls, &asked, CROWD).await;
    let some = asked.crowd(&calls, CROWD - 1);
    until_gathering(&calls).await;
    assert_eq!(asked.count.load(Ordering::SeqCst), 2);
    let last = asked.call(&calls, "a");
    asked.until(3).await;
    asked.go.notify_waiters();
    assert_eq!((some.await, last.await), (vec![3; CROWD - 1], 3));
}

#[tokio::test]
async fn who_is_alone_waits_for_nobody() {
    let (calls, asked) = (patient(), Asked::default());
    // Begins when it is asked for; whether it has begun is whether others may join.
    let has_begun = || {
        let turns = calls.lock();
        matches!(turns.newest["a"].stage, Stage::Begun(_))
    };
    for number in 1..=3 {
        let alone = asked.call(&calls, "a");
        assert!(has_begun());
        asked.until(number).await;
        asked.go.notify_waiters();
        assert_eq!(alone.await, number);
    }
    // Fewer than a crowd leave nothing to wait for either.
    answer_crowd(&calls, &asked, CROWD - 1).await;
    drop(asked.call(&calls, "a"));
    assert!(has_begun());
}

#[tokio::test]
async fn a_crowd_that_does_not_come_back_is_not_waited_for() {
    let calls: Calls = Arc::new(Together::new(Duration::MAX, Duration::ZERO));
    let asked = Asked::default();
    answer_crowd(&calls, &asked, CROWD).await;
    let alone = asked.call(&calls, "a");
    let turns = calls.lock().newest["a"].stage;
    assert!(matches!(turns, Stage::Begun(_)));
    asked.until(3).await;
    asked.go.notify_waiters();
    assert_eq!(alone.await, 3);

    // Nor for longer than there is time.
    let calls = self::calls(Duration::MAX);
    let asked = Asked::default();
    answer_crowd(&calls, &asked, CROWD).await;
    let alone = asked.call(&calls, "a");
    asked.until(3).await;
    asked.go.notify_waiters();
    assert_eq!(alone.await, 3);
}

#[tokio::test]
async fn what_crowds_leave_behind_is_swept() {
    let calls: Arc<Together<usize, u32>> = Arc::new(Together::new(PATIENCE, Duration::ZERO));
    let go = Arc::new(Notify::new());
    for key in 0..10 * FEW {
        let call = || {
            let go = Arc::clone(&go);
            let call = async move {
                go.notified().await;
                0
            };
            calls.ask(key, || (call, || 1))
        };
        let first = call();
        let crowd: Vec<_> = (0..CROWD).map(|_| call()).collect();
        go.notify_one();
        first.await;
        go.notify_one();
        join_all(crowd).await;
        assert!(calls.lock().newest.len() <= 2 * FEW);
    }
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
    let call = || calls.ask("a", || (async { panic!("a bug") }, || 7));
    assert_eq!(tokio::join!(call(), call()), (7, 7));
    assert!(calls.lock().newest.is_empty());
}
