//! Names of users and groups, asked from the host once and remembered for a while: a directory
//! service behind NSS may take long.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use nix::unistd::{Gid, Group, Uid, User};

/// After this a name is asked for again: accounts come and go.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Names of the host's users and groups.
#[derive(Debug, Default)]
pub struct Owners {
    users: Names,
    groups: Names,
}

/// Asked for each image by every thread of a scan: nobody may wait for another to read.
#[derive(Debug, Default)]
struct Names(ArcSwap<HashMap<u32, (String, Instant)>>);

impl Owners {
    /// The user's name; empty if the host knows none.
    #[must_use]
    pub fn user(&self, uid: u32) -> String {
        self.users.get(uid, || {
            User::from_uid(Uid::from_raw(uid))
                .ok()
                .flatten()
                .map(|user| user.name)
        })
    }

    /// The group's name; empty if the host knows none.
    #[must_use]
    pub fn group(&self, gid: u32) -> String {
        self.groups.get(gid, || {
            Group::from_gid(Gid::from_raw(gid))
                .ok()
                .flatten()
                .map(|group| group.name)
        })
    }
}

impl Names {
    fn get(&self, id: u32, ask: impl FnOnce() -> Option<String>) -> String {
        if let Some((name, asked)) = self.0.load().get(&id)
            && asked.elapsed() < REMEMBERED
        {
            return name.clone();
        }
        let name = ask().unwrap_or_default();
        let now = Instant::now();
        self.0.rcu(|names| {
            let mut names = HashMap::clone(names);
            names.insert(id, (name.clone(), now));
            names
        });
        name
    }
}
