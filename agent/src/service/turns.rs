//! When users have scans: a look at every directory and image is work for a file server, and anybody may ask.
//!
//! Nobody is refused: who asks too soon waits, with all others who do, for one scan that begins when its time has
//! come, and so sees what was there when they asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::source::{ImageSource, Ticket};
use crate::lock::lock;

/// A scan that was asked for, once it could begin. Without a sender there will be none.
pub(super) type Turn = watch::Receiver<Option<Ticket>>;

/// The last scan of each root that users have, or will have.
#[derive(Debug, Default)]
pub(super) struct Turns(Arc<Mutex<Last>>);

/// When it begins, and what becomes of it.
type Last = HashMap<String, (Instant, Turn)>;

impl Turns {
    /// The next scan of a root that a user may have.
    pub(super) fn take<A: ImageSource>(&self, agent: &Arc<A>, root: String) -> Turn {
        let replaced = agent.replaced();
        let interval = agent.rescan_interval(&root);
        let now = Instant::now();
        let mut turns = lock(&self.0);
        let last = turns.get(&root);
        let Some(at) = next(last.map(|(at, _)| *at), now, interval) else {
            return last.map_or_else(|| watch::channel(None).1, |(_, turn)| turn.clone());
        };
        let (sender, turn) = watch::channel(None);
        turns.insert(root.clone(), (at, turn.clone()));
        drop(turns);
        let (agent, turns) = (Arc::clone(agent), Arc::clone(&self.0));
        // Not by who asked first: others wait for it, too, and some of them elsewhere.
        tokio::spawn(async move {
            let interval = || agent.rescan_interval(&root);
            let bring_forward = |at| {
                if let Some(turn) = lock(&turns).get_mut(&root) {
                    turn.0 = at;
                }
            };
            begin(at, replaced, interval, bring_forward).await;
            if let Some(ticket) = agent.scan(&root, false) {
                let _ = sender.send(Some(ticket));
            }
        });
        turn
    }
}

/// Waits until a scan begins that is to begin at `at`. An administrator may shorten the interval meanwhile: nobody
/// waits for longer than that from then on.
async fn begin(
    mut at: Instant,
    mut replaced: watch::Receiver<u64>,
    interval: impl Fn() -> Duration,
    bring_forward: impl Fn(Instant),
) {
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(at.into()) => return,
            Ok(()) = replaced.changed() => {
                at = at.min(Instant::now() + interval());
                bring_forward(at);
            }
        }
    }
}

/// When the next scan begins; `None`: the last one has not begun, and is the next.
fn next(last: Option<Instant>, now: Instant, interval: Duration) -> Option<Instant> {
    match last {
        Some(last) if last > now => None,
        Some(last) => Some(now.max(last + interval)),
        None => Some(now),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::time::{Duration, Instant};

    use tokio::sync::watch;

    use super::{begin, next};

    #[test]
    fn users_have_a_scan_an_interval() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut last = None;
        for (now, begins) in [
            (0, Some(0)),
            (10, Some(60)),
            // Those who ask meanwhile wait for the same one, …
            (11, None),
            (59, None),
            // … and not for one that has begun.
            (60, Some(120)),
            (119, None),
            (500, Some(500)),
            (560, Some(560)),
        ] {
            let found = next(last, at(now), Duration::from_secs(60));
            assert_eq!(found, begins.map(at), "{now}");
            last = found.or(last);
        }
        assert_eq!(next(last, at(561), Duration::ZERO), Some(at(561)));
    }

    #[test]
    fn who_waits_does_so_no_longer_than_the_interval_that_is_shortened_meanwhile() {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().build().unwrap();
        runtime.block_on(async {
            let (replaced, changes) = watch::channel(0);
            let late = Instant::now() + Duration::from_secs(3600);
            let intervals = Cell::new(7200);
            let moved = RefCell::new(Vec::new());
            // Of two reloads the second one shortens it.
            let interval = || {
                let seconds = intervals.replace(0);
                replaced.send_replace(seconds);
                Duration::from_secs(seconds)
            };
            replaced.send_replace(1);
            let begun = begin(late, changes, interval, |at| moved.borrow_mut().push(at));
            let patience = Duration::from_secs(60);
            tokio::time::timeout(patience, begun).await.expect("begins");
            let moved = moved.into_inner();
            assert_eq!(moved[0], late);
            assert!(moved[1] <= Instant::now());
        });
    }
}
