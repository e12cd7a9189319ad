//! Who asks, and whether that is somebody who sees everything.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use nix::unistd::{Gid, Group, Uid, User, geteuid, getgrouplist};
use sha2::{Digest, Sha256};
use tonic::{Extensions, Status};

use super::permission::Subject;
use crate::config::{AccessSettings, PlainTcp};
use crate::lock::lock;
use crate::peer::{Certified, Credentials, Peer};
use crate::service::{host, status};

/// How long groups are taken as they were: asking a directory service may take long.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Users whose groups are remembered.
const USERS_MAX: usize = 10_000;

/// How much a caller sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// Everything.
    All,
    /// What the subject could read.
    Own(Subject),
}

impl Sight {
    /// A number that stands for the caller; 0 for everybody who sees everything.
    #[must_use]
    pub fn number(&self) -> u64 {
        let Self::Own(subject) = self else { return 0 };
        let mut hash = Sha256::new();
        match subject.uid {
            Some(uid) => hash.update([&[1][..], &uid.to_be_bytes()].concat()),
            None => hash.update([0]),
        }
        for group in subject.groups.iter() {
            hash.update(group.to_be_bytes());
        }
        hash.finalize()
            .iter()
            .take(8)
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
            .max(1)
    }
}

/// Whether a client that has shown a certificate may still ask.
pub type StillAllowed = Box<dyn Fn(&Certified) -> bool + Send + Sync>;

/// A user's groups, and when they were asked for.
type KnownGroups = (Instant, Arc<[u32]>);

/// Knows who sees what.
pub struct Sights {
    settings: ArcSwap<AccessSettings>,
    still_allowed: StillAllowed,
    groups: Mutex<HashMap<Credentials, KnownGroups>>,
    admins: Mutex<Option<(Instant, String, Option<u32>)>>,
}

impl Sights {
    /// With these settings.
    #[must_use]
    pub fn new(settings: AccessSettings, still_allowed: StillAllowed) -> Self {
        Self {
            settings: ArcSwap::from_pointee(settings),
            still_allowed,
            groups: Mutex::default(),
            admins: Mutex::default(),
        }
    }

    /// Takes other settings.
    pub fn change(&self, settings: AccessSettings) {
        self.settings.store(Arc::new(settings));
    }

    /// How much the sender of a request sees.
    ///
    /// # Errors
    ///
    /// `UNAUTHENTICATED` where the client's certificate has ended, or is not allowed any more, and `UNAVAILABLE` where
    /// the host does not say who the client is.
    pub async fn of(self: &Arc<Self>, extensions: &Extensions) -> Result<Sight, Status> {
        let plain = self.settings.load().plain_tcp;
        match extensions.get::<Peer>() {
            Some(Peer::Certified(client)) if (self.still_allowed)(client) => Ok(Sight::All),
            Some(Peer::Certified(_)) => Err(status::not_allowed_any_more()),
            // Only a unix socket says the group, too.
            Some(Peer::Local(Credentials { gid: None, .. }) | Peer::Unknown(Some(_)))
                if plain == PlainTcp::All =>
            {
                Ok(Sight::All)
            }
            Some(Peer::Local(user)) => self.local(*user).await,
            Some(Peer::Unknown(_)) | None => Ok(Sight::Own(Subject {
                uid: None,
                groups: [].into(),
            })),
        }
    }

    async fn local(self: &Arc<Self>, user: Credentials) -> Result<Sight, Status> {
        if user.uid == 0 || user.uid == geteuid().as_raw() {
            return Ok(Sight::All);
        }
        let key = Credentials { pid: None, ..user };
        let name = self.settings.load().admin_group.clone();
        let (groups, admins) = match (self.known_groups(key), self.known_admins(&name)) {
            (Some(groups), Some(admins)) => (groups, admins),
            _ => {
                let this = Arc::clone(self);
                host::ask(move || this.ask(key, name)).await?
            }
        };
        if admins.is_some_and(|admins| groups.binary_search(&admins).is_ok()) {
            return Ok(Sight::All);
        }
        Ok(Sight::Own(Subject {
            uid: Some(user.uid),
            groups,
        }))
    }

    fn known_groups(&self, key: Credentials) -> Option<Arc<[u32]>> {
        let groups = lock(&self.groups);
        groups
            .get(&key)
            .filter(|(asked, _)| asked.elapsed() < REMEMBERED)
            .map(|(_, groups)| Arc::clone(groups))
    }

    fn known_admins(&self, name: &str) -> Option<Option<u32>> {
        let admins = lock(&self.admins);
        admins
            .as_ref()
            .filter(|(asked, of, _)| asked.elapsed() < REMEMBERED && of == name)
            .map(|(_, _, gid)| *gid)
    }

    fn ask(&self, key: Credentials, name: String) -> (Arc<[u32]>, Option<u32>) {
        let groups = groups_of(key);
        let admins = Group::from_name(&name)
            .ok()
            .flatten()
            .map(|group| group.gid.as_raw());
        let mut known = lock(&self.groups);
        if known.len() >= USERS_MAX {
            known.clear();
        }
        known.insert(key, (Instant::now(), Arc::clone(&groups)));
        drop(known);
        let mut known = lock(&self.admins);
        *known = Some((Instant::now(), name, admins));
        (groups, admins)
    }
}

impl std::fmt::Debug for Sights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sights")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// The groups that a login of the user has, and the one that the process has now.
fn groups_of(user: Credentials) -> Arc<[u32]> {
    let mut groups: Vec<u32> = user.gid.into_iter().collect();
    if let Ok(Some(account)) = User::from_uid(Uid::from_raw(user.uid)) {
        groups.push(account.gid.as_raw());
        if let Ok(name) = CString::new(account.name)
            && let Ok(more) = getgrouplist(&name, account.gid)
        {
            groups.extend(more.into_iter().map(Gid::as_raw));
        }
    }
    groups.sort_unstable();
    groups.dedup();
    groups.into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tonic::{Code, Extensions};

    use super::{Credentials, Peer, Sight, Sights, Subject};
    use crate::config::{AccessSettings, PlainTcp};
    use crate::service::host;

    #[tokio::test]
    async fn a_user_of_whom_the_host_says_nothing_is_told_so() {
        let settings = AccessSettings {
            admin_group: "sifter".to_owned(),
            admin_group_configured: false,
            plain_tcp: PlainTcp::All,
        };
        let sights = Arc::new(Sights::new(settings, Box::new(|_| true)));
        let mut extensions = Extensions::new();
        extensions.insert(Peer::Local(Credentials {
            uid: 65_533,
            gid: Some(65_533),
            pid: None,
        }));
        let hanging = host::all_slots().await;
        let status = sights.of(&extensions).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains("getent group"), "{status:?}");
        drop(hanging);
        assert!(matches!(sights.of(&extensions).await, Ok(Sight::Own(_))));
        // It is remembered.
        let hanging = host::all_slots().await;
        assert!(matches!(sights.of(&extensions).await, Ok(Sight::Own(_))));
        drop(hanging);
    }

    #[test]
    fn every_caller_has_a_number_of_its_own() {
        let own = |uid: Option<u32>, groups: &[u32]| {
            Sight::Own(Subject {
                uid,
                groups: groups.into(),
            })
            .number()
        };
        assert_eq!(Sight::All.number(), 0);
        let numbers = [
            own(None, &[]),
            own(Some(1), &[]),
            own(Some(1), &[2]),
            own(Some(2), &[1]),
        ];
        for (index, number) in numbers.iter().enumerate() {
            assert_ne!(*number, 0);
            assert!(!numbers[..index].contains(number));
        }
    }
}
