//! Names of users and groups, asked from the host once and remembered for a while: a directory
//! service behind NSS may take long, or not answer at all.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use nix::unistd::{Gid, Group, Uid, User};
use tokio::sync::Semaphore;

/// After this a name is asked for again: accounts come and go.
const REMEMBERED: Duration = Duration::from_secs(600);

/// How long an answer waits for names: less than a control plane waits for a login node before it asks the next.
const PATIENCE: Duration = Duration::from_millis(300);

/// So many are asked for before they are told.
const CHUNK: usize = 50;

/// An owner and a group.
pub type Ids = (u32, u32);

/// Names of the host's users and groups.
#[derive(Debug)]
pub struct Owners {
    users: Names,
    groups: Names,
    /// One at a time asks for those who may not wait: a service that hangs holds one thread.
    turn: Arc<Semaphore>,
}

impl Default for Owners {
    fn default() -> Self {
        Self {
            users: Names::new(|uid| {
                let user = User::from_uid(Uid::from_raw(uid))?;
                Ok(user.map(|user| user.name))
            }),
            groups: Names::new(|gid| {
                let group = Group::from_gid(Gid::from_raw(gid))?;
                Ok(group.map(|group| group.name))
            }),
            turn: Arc::new(Semaphore::new(1)),
        }
    }
}

impl Owners {
    /// The user's name as it was learned; empty if it was not, or the host knows none.
    #[must_use]
    pub fn user(&self, uid: u32) -> String {
        self.users.known(uid)
    }

    /// The group's name, likewise.
    #[must_use]
    pub fn group(&self, gid: u32) -> String {
        self.groups.known(gid)
    }

    /// Asks for names that are not known, or not any more, however long that takes.
    pub fn learn(&self, ids: &[Ids]) {
        self.users.learn(ids.iter().map(|(uid, _)| *uid));
        self.groups.learn(ids.iter().map(|(_, gid)| *gid));
    }

    /// The same for somebody who answers others: names that are old are asked for while they are still told, and
    /// those that are not known are waited for, but not long.
    pub async fn learn_aside(self: &Arc<Self>, ids: impl IntoIterator<Item = Ids>) {
        let mut wanted = Vec::new();
        let mut last = None;
        for ids in ids {
            // Most images of a listing have the same.
            if last.replace(ids) != Some(ids) && !self.are(ids, Names::is_fresh) {
                wanted.push(ids);
            }
        }
        if wanted.is_empty() {
            return;
        }
        let all_known = wanted.iter().all(|ids| self.are(*ids, Names::is_known));
        let ask = |turn| {
            let this = Arc::clone(self);
            // The turn is given back by the thread itself, however long it takes.
            tokio::task::spawn_blocking(move || {
                wanted.chunks(CHUNK).for_each(|ids| this.learn(ids));
                drop(turn);
            })
        };
        if all_known {
            drop(Arc::clone(&self.turn).try_acquire_owned().map(ask));
            return;
        }
        let learned = async {
            if let Ok(turn) = Arc::clone(&self.turn).acquire_owned().await {
                let _ = ask(turn).await;
            }
        };
        let _ = tokio::time::timeout(PATIENCE, learned).await;
    }

    fn are(&self, (uid, gid): Ids, so: impl Fn(&Names, u32) -> bool) -> bool {
        so(&self.users, uid) && so(&self.groups, gid)
    }
}

/// Asked for each image by every thread of a scan: nobody may wait for another to read.
#[derive(Debug)]
struct Names {
    /// And until when each is taken as it is.
    known: ArcSwap<HashMap<u32, (String, Instant)>>,
    ask: Ask,
}

/// Asks the host.
type Ask = fn(u32) -> nix::Result<Option<String>>;

impl Names {
    fn new(ask: Ask) -> Self {
        Self {
            known: ArcSwap::default(),
            ask,
        }
    }

    fn known(&self, id: u32) -> String {
        let known = self.known.load();
        known
            .get(&id)
            .map_or_else(String::new, |(name, _)| name.clone())
    }

    fn is_known(&self, id: u32) -> bool {
        self.known.load().contains_key(&id)
    }

    fn is_fresh(&self, id: u32) -> bool {
        let known = self.known.load();
        known
            .get(&id)
            .is_some_and(|(_, until)| Instant::now() < *until)
    }

    fn learn(&self, ids: impl Iterator<Item = u32>) {
        let mut new: HashMap<u32, (String, Instant)> = HashMap::new();
        for id in ids {
            if !self.is_fresh(id) && !new.contains_key(&id) {
                // Of one that cannot be asked for, what was known is true as far as anybody knows.
                let name =
                    (self.ask)(id).map_or_else(|_| self.known(id), Option::unwrap_or_default);
                new.insert(id, (name, Instant::now() + REMEMBERED));
            }
        }
        if !new.is_empty() {
            self.known.rcu(|known| {
                let mut all = HashMap::clone(known);
                all.extend(new.iter().map(|(id, name)| (*id, name.clone())));
                all
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
    use std::time::Instant;

    use nix::errno::Errno;
    use tokio::sync::Semaphore;

    use super::{Ask, Names, Owners};

    /// Held by whoever lets the host hang.
    static HOST: Mutex<()> = Mutex::new(());

    fn host() -> MutexGuard<'static, ()> {
        HOST.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hangs(id: u32) -> nix::Result<Option<String>> {
        let _answers = host();
        Ok(Some(format!("new {id}")))
    }

    fn owners(ask: Ask) -> Arc<Owners> {
        Arc::new(Owners {
            users: Names::new(ask),
            groups: Names::new(ask),
            turn: Arc::new(Semaphore::new(1)),
        })
    }

    /// As if this name had been learned long ago.
    fn old(names: &Names, id: u32) {
        let known = [(id, (format!("old {id}"), Instant::now()))];
        names.known.store(Arc::new(known.into()));
    }

    #[test]
    fn an_answer_does_not_wait_for_names_for_long() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().build().unwrap();
        let owners = owners(hangs);
        old(&owners.users, 1);
        old(&owners.groups, 1);
        let hanging = host();
        for ids in [(1, 1), (2, 2), (3, 3)] {
            runtime.block_on(owners.learn_aside([ids, ids]));
        }
        assert_eq!(owners.user(1), "old 1");
        assert_eq!(owners.group(2), "");
        // One thread hangs, however many ask.
        assert_eq!(owners.turn.available_permits(), 0);
        drop(hanging);
        while owners.user(1) != "new 1" || owners.group(2) != "new 2" {
            runtime.block_on(owners.learn_aside([(1, 1), (2, 2)]));
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_host_that_does_not_know_takes_a_name_away_and_one_that_fails_does_not() {
        let cases: [(Ask, &str); 3] = [
            (|_| Ok(Some("new".to_owned())), "new"),
            (|_| Ok(None), ""),
            (|_| Err(Errno::EIO), "old 1"),
        ];
        for (ask, name) in cases {
            let owners = owners(ask);
            old(&owners.users, 1);
            owners.learn(&[(1, 2)]);
            assert_eq!(owners.user(1), name);
            assert!(owners.are((1, 2), Names::is_fresh), "is asked again");
        }
    }
}
