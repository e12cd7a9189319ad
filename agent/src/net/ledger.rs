//! Which connections are held, so that no client can take all of them.
//!
//! A connection is silent until its client has said something (over TLS: has proved who it is).
//! Silent connections never keep anybody out: where there are too many, the oldest of whoever has
//! most of them gives way. Of those that have spoken, one source may have a share.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use crate::lock::lock;

/// How many connections are held.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// All together.
    pub total: usize,
    /// Of one [`Source`].
    pub per_source: usize,
    /// Silent ones, all together.
    pub silent: usize,
}

impl Default for Limits {
    /// A control plane has one connection, a person some: this is far above, and below the
    /// descriptors that a service has by default.
    fn default() -> Self {
        Self {
            total: 768,
            per_source: 128,
            silent: 256,
        }
    }
}

/// Whose connections are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// A user of this machine.
    User(u32),
    /// An address, or the /64 of an IPv6 one.
    Address(IpAddr),
    /// A local process of which nothing is known.
    Unknown,
}

/// Bits that a host does not choose by itself: all addresses below are its own.
const HOST_PREFIX: u32 = 64;

impl Source {
    /// A client at an address.
    #[must_use]
    pub fn at(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::MAX << (128 - HOST_PREFIX);
                Ipv6Addr::from_bits(address.to_bits() & network).into()
            }
            address @ IpAddr::V4(_) => address,
        })
    }
}

/// The connections that are held.
#[derive(Debug)]
pub struct Ledger {
    limits: Limits,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    /// By number: the oldest first.
    held: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    source: Source,
    /// Ends the connection; there while it is silent.
    end: Option<oneshot::Sender<()>>,
}

/// A connection's place; given back when dropped.
#[derive(Debug)]
pub struct Ticket {
    ledger: Arc<Ledger>,
    number: u64,
}

/// What became of a new connection.
#[derive(Debug)]
pub struct Admitted {
    /// Its place.
    pub ticket: Ticket,
    /// Resolves when it must give way.
    pub ended: oneshot::Receiver<()>,
    /// Whether another one had to give way.
    pub evicted: bool,
}

impl Ledger {
    /// An empty ledger.
    #[must_use]
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            entries: Mutex::default(),
        })
    }

    /// A place for a new connection; `None` if there is none.
    #[must_use]
    pub fn admit(self: &Arc<Self>, source: Source) -> Option<Admitted> {
        let mut entries = lock(&self.entries);
        let mut evicted = false;
        if entries.count(|entry| entry.source == source) >= self.limits.per_source {
            if !entries.evict(Some(source)) {
                return None;
            }
            evicted = true;
        }
        let crowded = entries.held.len() >= self.limits.total;
        if crowded || entries.count(|entry| entry.end.is_some()) >= self.limits.silent {
            let heaviest = entries.heaviest();
            if !entries.evict(heaviest) && crowded {
                return None;
            }
            evicted = true;
        }
        let (end, ended) = oneshot::channel();
        let number = entries.next;
        entries.next += 1;
        entries.held.insert(
            number,
            Entry {
                source,
                end: Some(end),
            },
        );
        drop(entries);
        Some(Admitted {
            ticket: Ticket {
                ledger: Arc::clone(self),
                number,
            },
            ended,
            evicted,
        })
    }

    /// Connections held.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.entries).held.len()
    }
}

impl Entries {
    fn count(&self, counts: impl Fn(&Entry) -> bool) -> usize {
        self.held.values().filter(|entry| counts(entry)).count()
    }

    /// Whoever has most silent connections.
    fn heaviest(&self) -> Option<Source> {
        let mut silent: HashMap<Source, usize> = HashMap::new();
        for entry in self.held.values().filter(|entry| entry.end.is_some()) {
            *silent.entry(entry.source).or_default() += 1;
        }
        silent
            .into_iter()
            .max_by_key(|(_, count)| *count)
            .map(|(source, _)| source)
    }

    /// Ends the oldest silent connection of `source`.
    fn evict(&mut self, source: Option<Source>) -> bool {
        let oldest = self
            .held
            .iter()
            .find(|(_, entry)| entry.end.is_some() && Some(entry.source) == source)
            .map(|(number, _)| *number);
        let Some(entry) = oldest.and_then(|number| self.held.remove(&number)) else {
            return false;
        };
        if let Some(end) = entry.end {
            let _ = end.send(());
        }
        true
    }
}

impl Ticket {
    /// The connection is silent no more, and is known to be of `source`. False if that one has its
    /// share already, or the connection had to give way.
    #[must_use]
    pub fn spoke(&self, source: Source) -> bool {
        let mut entries = lock(&self.ledger.entries);
        let others = entries.count(|entry| entry.source == source && entry.end.is_none());
        match entries.held.get_mut(&self.number) {
            Some(entry) if others < self.ledger.limits.per_source => {
                entry.source = source;
                entry.end = None;
                true
            }
            _ => false,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        lock(&self.ledger.entries).held.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::{Ledger, Limits, Source};

    const LIMITS: Limits = Limits {
        total: 6,
        per_source: 3,
        silent: 4,
    };

    #[test]
    fn the_addresses_of_a_host_are_one_source() {
        for (one, other, expected) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2", false),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", true),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
        ] {
            let [one, other] = [one, other].map(|text| Source::at(text.parse().unwrap()));
            assert_eq!(one == other, expected, "{one:?} {other:?}");
        }
    }

    #[test]
    fn silent_connections_give_way_the_oldest_of_the_heaviest_first() {
        let ledger = Ledger::new(LIMITS);
        let mut crowd: Vec<_> = (0..3)
            .map(|_| ledger.admit(Source::User(1)).unwrap())
            .collect();
        let mut other = ledger.admit(Source::User(2)).unwrap();
        // The fourth of one source: its own oldest goes.
        let fourth = ledger.admit(Source::User(1)).unwrap();
        assert!(fourth.evicted);
        assert!(crowd[0].ended.try_recv().is_ok());
        // All are silent and there are four: of user 1, who has most, not of user 2.
        let third = ledger.admit(Source::User(3)).unwrap();
        assert!(third.evicted);
        assert!(crowd[1].ended.try_recv().is_ok());
        assert!(other.ended.try_recv().is_err());
        assert!(
            !crowd[0].ticket.spoke(Source::User(1)),
            "it had to give way"
        );
        assert_eq!(ledger.len(), 4);
    }

    #[test]
    fn those_who_spoke_stay_and_have_a_share() {
        let ledger = Ledger::new(LIMITS);
        let spoken: Vec<_> = (0..3)
            .map(|_| {
                let admitted = ledger.admit(Source::User(1)).unwrap();
                assert!(admitted.ticket.spoke(Source::User(1)));
                admitted
            })
            .collect();
        assert!(ledger.admit(Source::User(1)).is_none(), "has its share");
        let disguised = ledger.admit(Source::Unknown).unwrap();
        assert!(
            !disguised.ticket.spoke(Source::User(1)),
            "whoever it seemed to be"
        );
        drop((disguised, spoken));
        assert_eq!(ledger.len(), 0);
        let all: Vec<_> = (0..6)
            .map(|user| {
                let admitted = ledger.admit(Source::User(user)).unwrap();
                assert!(admitted.ticket.spoke(Source::User(user)));
                admitted
            })
            .collect();
        assert!(ledger.admit(Source::User(9)).is_none(), "full");
        drop(all);
        assert!(ledger.admit(Source::User(9)).is_some());
    }
}
