//! When users have scans: a look at every directory and image is work for a file server, and anybody may ask.
//!
//! Nobody is refused: who asks too soon waits, with all others who do, for one scan that begins when its time has
//! come, and so sees what was there when they asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::source::{Agent, Ticket};

/// A scan that was asked for, once it could begin. Without a sender there will be none.
pub(super) type Turn = watch::Receiver<Option<Ticket>>;

/// The last scan of each root that users have, or will have.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<String, (Instant, Turn)>>);

impl Turns {
    /// The next scan of a root that a user may have.
    pub(super) fn take<A: Agent>(&self, agent: &Arc<A>, root: String) -> Turn {
        let interval = agent.rescan_interval(&root);
        let now = Instant::now();
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = turns.get(&root);
        let Some(at) = next(last.map(|(at, _)| *at), now, interval) else {
            return last.map_or_else(|| watch::channel(None).1, |(_, turn)| turn.clone());
        };
        let (sender, turn) = watch::channel(None);
        let (agent, path) = (Arc::clone(agent), root.clone());
        // Not by who asked first: others wait for it, too, and some of them elsewhere.
        tokio::spawn(async move {
            tokio::time::sleep_until(at.into()).await;
            if let Some(ticket) = agent.scan(&path, false) {
                let _ = sender.send(Some(ticket));
            }
        });
        turns.insert(root, (at, turn.clone()));
        turn
    }
}

/// When the next scan begins; `None`: the last one has not begun, and is the next, unless the interval has become
/// shorter than one must wait for it.
fn next(last: Option<Instant>, now: Instant, interval: Duration) -> Option<Instant> {
    match last {
        Some(last) if last > now => (last > now + interval).then(|| now + interval),
        Some(last) => Some(now.max(last + interval)),
        None => Some(now),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::next;

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
        // An administrator takes an hour back.
        let last = Some(at(3600));
        assert_eq!(next(last, at(10), Duration::from_secs(60)), Some(at(70)));
        assert_eq!(next(last, at(10), Duration::from_secs(3600)), None);
    }
}
