//! Whether a user may read or enter, by owner, group, mode and access-control list. Pure: what is
//! known of the file is given.

use std::sync::Arc;

/// Reading a file, or listing a directory.
pub const READ: u8 = 4;

/// Entering a directory.
pub const SEARCH: u8 = 1;

/// Entries of a list. Linux stores a few hundred at most.
const ENTRIES_MAX: usize = 4096;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    /// The user; `None`: nobody is known, and only what everybody may counts.
    pub uid: Option<u32>,
    /// All groups, in order.
    pub groups: Arc<[u32]>,
}

/// Owner, group and mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// An access-control list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acl {
    /// There is none: the mode says all.
    None,
    /// As in POSIX.1e draft 17, `getfacl`.
    Posix(Box<[Entry]>),
    /// As in NFS version 4, `nfs4_getfacl`.
    Nfs4(Box<[Ace]>),
    /// There is one, and it cannot be evaluated.
    Opaque,
}

/// An entry of a POSIX list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    tag: u16,
    bits: u8,
    id: u32,
}

/// An entry of an NFS version 4 list, as far as it concerns reading and entering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ace {
    allow: bool,
    bits: u8,
    who: Who,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Owner,
    Group,
    Everyone,
    User(u32),
    NamedGroup(u32),
    /// A name that only the server can resolve.
    Unknown,
}

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

impl Subject {
    fn is(&self, uid: u32) -> bool {
        self.uid == Some(uid)
    }

    fn is_in(&self, gid: u32) -> bool {
        self.groups.binary_search(&gid).is_ok()
    }

    /// Whether all of `wanted` ([`READ`], [`SEARCH`]) is granted.
    #[must_use]
    pub fn may(&self, wanted: u8, facts: Facts, acl: &Acl) -> bool {
        let class = |shift: u32| (facts.mode >> shift) as u8 & 7;
        let grants = |bits: u8| bits & wanted == wanted;
        // The owner's own entry is the mode's, in every list; and shows nothing to strangers.
        if self.is(facts.uid) {
            return grants(class(6));
        }
        match acl {
            Acl::None if self.is_in(facts.gid) => grants(class(3)),
            Acl::None => grants(class(0)),
            Acl::Posix(entries) => self.posix(wanted, facts, entries),
            Acl::Nfs4(entries) => [READ, SEARCH]
                .into_iter()
                .filter(|bit| wanted & bit != 0)
                .all(|bit| self.nfs4(bit, facts, entries)),
            Acl::Opaque => false,
        }
    }

    fn posix(&self, wanted: u8, facts: Facts, entries: &[Entry]) -> bool {
        let find = |tag: u16| entries.iter().find(|entry| entry.tag == tag);
        let mask = find(MASK).map_or(7, |entry| entry.bits);
        let grants = |bits: u8| bits & wanted == wanted;
        if let Some(named) = entries
            .iter()
            .find(|entry| entry.tag == USER && self.is(entry.id))
        {
            return grants(named.bits & mask);
        }
        let mut groups = entries
            .iter()
            .filter(|entry| match entry.tag {
                GROUP_OBJ => self.is_in(facts.gid),
                GROUP => self.is_in(entry.id),
                _ => false,
            })
            .peekable();
        // A member of several groups has what one of them grants, and nothing of what others may.
        if groups.peek().is_some() {
            return groups.any(|entry| grants(entry.bits & mask));
        }
        find(OTHER).is_some_and(|entry| grants(entry.bits))
    }

    fn nfs4(&self, bit: u8, facts: Facts, entries: &[Ace]) -> bool {
        for ace in entries.iter().filter(|ace| ace.bits & bit != 0) {
            let concerned = match ace.who {
                Who::Owner => false,
                Who::Group => self.is_in(facts.gid),
                Who::Everyone => true,
                Who::User(uid) => self.is(uid),
                Who::NamedGroup(gid) => self.is_in(gid),
                // What it may grant is not counted on; what it may deny is denied.
                Who::Unknown => !ace.allow,
            };
            if concerned {
                return ace.allow;
            }
        }
        false
    }
}

impl Acl {
    /// The value of `system.posix_acl_access`: version 2, entries of tag, bits and ID.
    #[must_use]
    pub fn posix(value: &[u8]) -> Self {
        let Some((version, rest)) = value.split_first_chunk::<4>() else {
            return Self::Opaque;
        };
        if u32::from_le_bytes(*version) != 2 || rest.len() % 8 != 0 || rest.len() / 8 > ENTRIES_MAX
        {
            return Self::Opaque;
        }
        let entries: Option<Box<[Entry]>> = rest
            .chunks_exact(8)
            .map(|chunk| {
                let [t0, t1, b0, b1, id @ ..] = *<&[u8; 8]>::try_from(chunk).ok()?;
                let tag = u16::from_le_bytes([t0, t1]);
                let known = [USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER].contains(&tag);
                (known && b0 <= 7 && b1 == 0).then_some(Entry {
                    tag,
                    bits: b0,
                    id: u32::from_le_bytes(id),
                })
            })
            .collect();
        entries.map_or(Self::Opaque, Self::Posix)
    }

    /// The value of `system.nfs4_acl`: entries of type, flags, mask and name, in XDR.
    #[must_use]
    pub fn nfs4(value: &[u8]) -> Self {
        Self::parse_nfs4(value).map_or(Self::Opaque, Self::Nfs4)
    }

    fn parse_nfs4(mut value: &[u8]) -> Option<Box<[Ace]>> {
        fn word(value: &mut &[u8]) -> Option<u32> {
            let (word, rest) = value.split_first_chunk::<4>()?;
            *value = rest;
            Some(u32::from_be_bytes(*word))
        }
        let count = usize::try_from(word(&mut value)?).ok()?;
        if count > ENTRIES_MAX {
            return None;
        }
        let mut entries = Vec::new();
        for _ in 0..count {
            let (kind, flags, mask) = (word(&mut value)?, word(&mut value)?, word(&mut value)?);
            let length = usize::try_from(word(&mut value)?).ok()?;
            let name = value.get(..length)?;
            value = value.get(length.checked_next_multiple_of(4)?..)?;
            // Audits and alarms grant nothing; what only children inherit is not ours.
            if kind > 1 || flags & 0x08 != 0 {
                continue;
            }
            let number = std::str::from_utf8(name)
                .ok()
                .and_then(|name| name.parse().ok());
            let who = match (name, number) {
                (b"OWNER@", _) => Who::Owner,
                (b"GROUP@", _) => Who::Group,
                (b"EVERYONE@", _) => Who::Everyone,
                (_, Some(gid)) if flags & 0x40 != 0 => Who::NamedGroup(gid),
                (_, Some(uid)) => Who::User(uid),
                (_, None) => Who::Unknown,
            };
            let read = if mask & 0x01 != 0 { READ } else { 0 };
            let search = if mask & 0x20 != 0 { SEARCH } else { 0 };
            entries.push(Ace {
                allow: kind == 0,
                bits: read | search,
                who,
            });
        }
        Some(entries.into())
    }
}

#[cfg(test)]
mod tests {
    use super::{Acl, Facts, READ, SEARCH, Subject};

    fn subject(uid: u32, groups: &[u32]) -> Subject {
        Subject {
            uid: Some(uid),
            groups: groups.into(),
        }
    }

    fn facts(mode: u32) -> Facts {
        Facts {
            uid: 1,
            gid: 10,
            mode,
        }
    }

    #[test]
    fn owner_group_and_others_have_what_their_class_has() {
        let nobody = Subject {
            uid: None,
            groups: [].into(),
        };
        let (owner, member, other) = (subject(1, &[10]), subject(2, &[9, 10]), subject(3, &[11]));
        for (mode, wanted, expected) in [
            (0o400, READ, [true, false, false, false]),
            (0o040, READ, [false, true, false, false]),
            (0o004, READ, [false, false, true, true]),
            (0o000, READ, [false; 4]),
            (0o777, READ | SEARCH, [true; 4]),
            (0o711, SEARCH, [true; 4]),
            (0o711, READ | SEARCH, [true, false, false, false]),
            (0o100, SEARCH, [true, false, false, false]),
            // The first class that fits decides, even if a later one has more.
            (0o077, READ, [false, true, true, true]),
            (0o707, READ, [true, false, true, true]),
        ] {
            let found = [&owner, &member, &other, &nobody]
                .map(|subject| subject.may(wanted, facts(mode), &Acl::None));
            assert_eq!(found, expected, "{mode:o} {wanted}");
        }
    }

    fn posix(entries: &[(u16, u8, u32)]) -> Acl {
        let mut value = 2u32.to_le_bytes().to_vec();
        for (tag, bits, id) in entries {
            value.extend(tag.to_le_bytes());
            value.extend(u16::from(*bits).to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        Acl::posix(&value)
    }

    #[test]
    fn posix_lists_grant_and_deny() {
        use super::{GROUP, GROUP_OBJ, MASK, OTHER, USER, USER_OBJ};
        let none = u32::MAX;
        // user::rw- user:2:r-- user:3:--- group::--- group:20:r-- group:21:--- mask::r-- other::r--
        let acl = posix(&[
            (USER_OBJ, 6, none),
            (USER, 4, 2),
            (USER, 0, 3),
            (GROUP_OBJ, 0, none),
            (GROUP, 4, 20),
            (GROUP, 0, 21),
            (MASK, 4, none),
            (OTHER, 4, none),
        ]);
        for (who, expected) in [
            (subject(1, &[]), true),
            (subject(2, &[21]), true),
            (subject(3, &[20]), false),
            (subject(4, &[10]), false),
            (subject(4, &[10, 20]), true),
            (subject(4, &[21]), false),
            (subject(4, &[20, 21]), true),
            (subject(4, &[99]), true),
        ] {
            assert_eq!(who.may(READ, facts(0o644), &acl), expected, "{who:?}");
        }
        // The mask takes away what entries grant, and nothing from others.
        let acl = posix(&[
            (USER_OBJ, 6, none),
            (USER, 7, 2),
            (GROUP_OBJ, 7, none),
            (MASK, 0, none),
            (OTHER, 4, none),
        ]);
        assert!(!subject(2, &[]).may(READ, facts(0o604), &acl));
        assert!(!subject(5, &[10]).may(READ, facts(0o604), &acl));
        assert!(subject(5, &[]).may(READ, facts(0o604), &acl));
    }

    #[test]
    fn a_list_that_is_not_understood_hides_from_all_but_the_owner() {
        let good = [2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255];
        assert!(matches!(Acl::posix(&good), Acl::Posix(_)));
        let damaged: [&[u8]; 7] = [
            &[],
            &[2, 0, 0],
            &[1, 0, 0, 0],
            &good[..11],
            &[2, 0, 0, 0, 3, 0, 6, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0, 1, 0, 8, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0, 1, 0, 6, 1, 0, 0, 0, 0],
        ];
        for value in damaged {
            let acl = Acl::posix(value);
            assert_eq!(acl, Acl::Opaque, "{value:?}");
            assert!(!subject(2, &[10]).may(READ, facts(0o777), &acl));
            assert!(subject(1, &[]).may(READ, facts(0o400), &acl));
        }
    }

    fn nfs4(entries: &[(u32, u32, u32, &str)]) -> Vec<u8> {
        let mut value = u32::try_from(entries.len()).unwrap().to_be_bytes().to_vec();
        for (kind, flags, mask, who) in entries {
            for word in [*kind, *flags, *mask, u32::try_from(who.len()).unwrap()] {
                value.extend(word.to_be_bytes());
            }
            value.extend(who.as_bytes());
            value.resize(value.len().next_multiple_of(4), 0);
        }
        value
    }

    #[test]
    fn nfs4_lists_are_read_in_order_and_unknown_names_count_only_against() {
        let may = |uid, groups: &[u32], entries: &[_]| {
            subject(uid, groups).may(READ, facts(0o644), &Acl::nfs4(&nfs4(entries)))
        };
        let everyone = (0, 0, 1, "EVERYONE@");
        assert!(may(2, &[], &[everyone]));
        assert!(!may(2, &[10], &[(1, 0x40, 1, "GROUP@"), everyone]));
        assert!(may(2, &[], &[(1, 0x40, 1, "GROUP@"), everyone]));
        assert!(!may(2, &[], &[(1, 0, 1, "alice@example.org"), everyone]));
        assert!(!may(2, &[], &[(0, 0, 1, "bob@example.org")]));
        assert!(may(2, &[], &[(0, 0, 1, "2")]));
        assert!(!may(3, &[2], &[(0, 0, 1, "2")]));
        assert!(may(3, &[2], &[(0, 0x40, 1, "2")]));
        assert!(!may(2, &[], &[(0, 0x08, 1, "EVERYONE@")]), "inherited only");
        assert!(!may(2, &[], &[(0, 0, 0x20, "EVERYONE@")]), "another right");
        assert!(!may(2, &[], &[(0, 0, 1, "OWNER@")]), "somebody else's");
        assert!(may(2, &[], &[(2, 0, 1, "EVERYONE@"), everyone]), "an audit");
        // To list a directory and to enter it are granted one by one.
        for (wanted, masks, expected) in [
            (SEARCH, &[0x20][..], true),
            (SEARCH, &[0x01], false),
            (READ | SEARCH, &[0x01], false),
            (READ | SEARCH, &[0x20], false),
            (READ | SEARCH, &[0x20, 0x01], true),
            (READ | SEARCH, &[0x21], true),
        ] {
            let entries: Vec<_> = masks
                .iter()
                .map(|mask| (0, 0, *mask, "EVERYONE@"))
                .collect();
            let acl = Acl::nfs4(&nfs4(&entries));
            let found = subject(2, &[]).may(wanted, facts(0o777), &acl);
            assert_eq!(found, expected, "{wanted} {masks:x?}");
        }
        let whole = nfs4(&[(0, 0, 1, "EVERYONE@")]);
        for end in 0..whole.len() {
            assert_eq!(Acl::nfs4(&whole[..end]), Acl::Opaque, "{end}");
        }
    }
}
