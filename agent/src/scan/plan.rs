//! What must be read again: the decision, and what the scan asks the catalogue for.

use std::time::Duration;

use crate::catalog::{FileFacts, FileTime, Identity, KnownDirectory, KnownImage, KnownRoot};

/// Timestamps of local file systems are at worst this coarse (FAT; ext4 and xfs have ticks of a few
/// milliseconds): what changed this short a time before it was read may change again without its
/// timestamp telling.
const GRANULARITY_LOCAL: i64 = 2_000_000_000;

/// On network file systems the server's clock counts, which may differ from ours.
const GRANULARITY_NETWORK: i64 = 60_000_000_000;

/// The catalogue could not say what is known.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct KnownError(pub String);

/// What the catalogue knows of one root.
pub trait Known: Sync {
    /// Whether the root directory itself is among the known ones; if not, the scan begins there.
    fn knows_root(&self) -> bool;

    /// The next directories with their candidates, in no particular order, each exactly once in a
    /// scan; none when there are no more.
    ///
    /// # Errors
    ///
    /// The catalogue cannot be read.
    fn next_directories(&self) -> Result<Vec<KnownDirectory>, KnownError>;

    /// Names of the directories known in a directory.
    ///
    /// # Errors
    ///
    /// The catalogue cannot be read.
    fn children(&self, path: &[u8]) -> Result<Vec<Box<[u8]>>, KnownError>;

    /// Where file systems were mounted below the root when it was last scanned: paths relative to it, in order.
    ///
    /// # Errors
    ///
    /// The catalogue cannot be read.
    fn mounts(&self) -> Result<Vec<Box<[u8]>>, KnownError>;

    /// Notes where they are mounted now.
    ///
    /// # Errors
    ///
    /// The catalogue cannot be written.
    fn set_mounts(&self, points: &[Box<[u8]>]) -> Result<(), KnownError>;

    /// Whether any image is known in a directory, or below it.
    ///
    /// # Errors
    ///
    /// The catalogue cannot be read.
    fn has_images_below(&self, path: &[u8]) -> Result<bool, KnownError>;

    /// The images known under an inode number, by number, with their identities.
    fn images_with_inode(&self, inode: u64) -> Vec<(i64, Identity)>;

    /// All that is known of an image; `None` if it is gone meanwhile.
    ///
    /// # Errors
    ///
    /// The catalogue cannot be read.
    fn image(&self, id: i64) -> Result<Option<KnownImage>, KnownError>;
}

impl Known for KnownRoot {
    fn knows_root(&self) -> bool {
        self.has_root()
    }

    fn next_directories(&self) -> Result<Vec<KnownDirectory>, KnownError> {
        self.next_directories()
            .map_err(|error| KnownError(self.fail(error)))
    }

    fn children(&self, path: &[u8]) -> Result<Vec<Box<[u8]>>, KnownError> {
        self.children(path)
            .map_err(|error| KnownError(self.fail(error)))
    }

    fn mounts(&self) -> Result<Vec<Box<[u8]>>, KnownError> {
        self.mounts().map_err(|error| KnownError(self.fail(error)))
    }

    fn set_mounts(&self, points: &[Box<[u8]>]) -> Result<(), KnownError> {
        self.set_mounts(points)
            .map_err(|error| KnownError(self.fail(error)))
    }

    fn has_images_below(&self, path: &[u8]) -> Result<bool, KnownError> {
        self.has_images_below(path)
            .map_err(|error| KnownError(self.fail(error)))
    }

    fn images_with_inode(&self, inode: u64) -> Vec<(i64, Identity)> {
        self.images_with_inode(inode)
    }

    fn image(&self, id: i64) -> Result<Option<KnownImage>, KnownError> {
        self.image(id).map_err(|error| KnownError(self.fail(error)))
    }
}

/// Whether something that was changed at `identity`'s times and read at `read` may have changed
/// again within its timestamp's granularity ("racy"). A modification in times to come was set by somebody, and
/// the next one has another time.
#[must_use]
pub fn is_racy(identity: &Identity, read: FileTime, network: bool) -> bool {
    let granularity = if network {
        GRANULARITY_NETWORK
    } else {
        GRANULARITY_LOCAL
    };
    let since = read.0.saturating_sub(granularity);
    let until = read.0.saturating_add(granularity);
    identity.changed.0 > since || (since + 1..=until).contains(&identity.modified.0)
}

/// Whether a file that is no image may become one: it was written less than `age` ago.
#[must_use]
pub fn is_young(facts: &FileFacts, age: Duration, now: FileTime) -> bool {
    let age = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
    // One of a time to come was set, and is not what a clock says that is behind.
    (now.0.saturating_sub(age)..=now.0.saturating_add(age)).contains(&facts.modified.0)
}

/// Whether something that was last done at `last` is to be done again. A time to come is one of a clock that was
/// ahead, and says nothing.
#[must_use]
pub fn is_due(last: Option<FileTime>, interval: Duration, now: FileTime) -> bool {
    let interval = i64::try_from(interval.as_nanos()).unwrap_or(i64::MAX);
    last.is_none_or(|last| !(0..interval).contains(&now.0.saturating_sub(last.0)))
}

/// Whether a file may be the one seen before, at another place: a move or rename changes the inode's
/// change time, and nothing else.
#[must_use]
pub fn may_be_moved(known: &Identity, seen: &Identity) -> bool {
    known.inode == seen.inode && known.size == seen.size && known.modified == seen.modified
}

/// Whether a file that may be is. A new file may have got the number of one that was removed, and a program
/// that copies sets its time: when the inode was made nobody can set. Where that is not told, a time of the
/// last modification is proof enough unless it is one of whole seconds, as archives and downloads have it.
///
/// What was written just before it was read may have been written once more, wherever it is now. So may one
/// of several names: a new one changes the change time as a move does, but the old one may be there still, and
/// nothing was moved then.
#[must_use]
pub fn is_moved(known: &KnownImage, seen: &FileFacts, network: bool) -> bool {
    let was = known.row.identity();
    let same_inode = match (known.born, seen.born) {
        (Some(known), Some(seen)) => known == seen,
        _ => was.modified.0 % 1_000_000_000 != 0,
    };
    let written = Identity {
        changed: was.modified,
        ..was
    };
    let rewritten = known.volatile && is_racy(&written, was.changed, network)
        || seen.links > 1 && seen.changed != was.changed;
    may_be_moved(&was, &Identity::from(seen)) && same_inode && !rewritten
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{is_due, is_moved, is_racy, may_be_moved};
    use crate::catalog::testing::row;
    use crate::catalog::{Commons, FileFacts, FileTime, Identity, KeptRow, KnownImage, Row};

    fn identity(modified: i64, changed: i64) -> Identity {
        Identity {
            inode: 1,
            size: 1,
            modified: FileTime::new(modified, 0),
            changed: FileTime::new(changed, 0),
        }
    }

    #[test]
    fn what_changed_just_before_it_was_read_is_racy() {
        for (modified, changed, read, network, expected) in [
            (100, 100, 110, false, false),
            (109, 100, 110, false, true),
            (100, 109, 110, false, true),
            (100, 100, 110, true, true),
            (10, 10, 110, true, false),
            // A clock behind the file's: nothing can be said.
            (200, 200, 110, false, true),
            (111, 100, 110, false, true),
            // Set to a time to come.
            (200, 100, 110, false, false),
        ] {
            let read = FileTime::new(read, 0);
            assert_eq!(
                is_racy(&identity(modified, changed), read, network),
                expected,
                "{modified} {changed} {network}"
            );
        }
    }

    #[test]
    fn what_a_clock_that_was_ahead_has_noted_is_due() {
        let interval = Duration::from_secs(60);
        for (last, now, expected) in [
            (None, 1000, true),
            (Some(1000), 1000, false),
            (Some(1000), 1059, false),
            (Some(1000), 1060, true),
            (Some(1000), 999, true),
            (Some(2_000_000_000), 1000, true),
            (Some(1000), -1000, true),
        ] {
            let last = last.map(|last| FileTime::new(last, 0));
            let is = is_due(last, interval, FileTime::new(now, 0));
            assert_eq!(is, expected, "{last:?} {now}");
        }
        let now = FileTime::new(1000, 0);
        assert!(!is_due(Some(FileTime::new(0, 0)), Duration::MAX, now));
        assert!(is_due(Some(now), Duration::ZERO, now));
    }

    #[test]
    fn a_move_changes_the_change_time_only() {
        assert!(may_be_moved(&identity(1, 1), &identity(1, 9)));
        assert!(!may_be_moved(&identity(1, 1), &identity(2, 1)));
        let other = Identity {
            inode: 2,
            ..identity(1, 1)
        };
        assert!(!may_be_moved(&identity(1, 1), &other));
    }

    fn known(facts: FileFacts, born: Option<FileTime>, volatile: bool) -> KnownImage {
        let row = Row {
            facts,
            ..row(1, "/r/a", "a", "1")
        };
        KnownImage {
            row: KeptRow::new(&row, &mut Commons::default()),
            details: sifter_proto::v1::Image::default(),
            born,
            volatile,
        }
    }

    #[test]
    fn one_more_name_is_no_move() {
        let born = Some(FileTime(10));
        for (links, changed, expected) in [
            (1, 20, true),
            (1, 30, true),
            (2, 30, false),
            // Its directory was moved: nothing of it has changed.
            (2, 20, true),
        ] {
            let facts = FileFacts {
                changed: FileTime::new(20, 0),
                links: 2,
                ..FileFacts::default()
            };
            let seen = FileFacts {
                changed: FileTime::new(changed, 0),
                links,
                born,
                ..facts
            };
            let is = is_moved(&known(facts, born, false), &seen, false);
            assert_eq!(is, expected, "{links} {changed}");
        }
    }

    #[test]
    fn what_got_the_number_of_another_is_not_taken_for_it() {
        let (old, new) = (Some(FileTime(10)), Some(FileTime(11)));
        let (whole, exact, changed) = (1_000_000_000, 1_000_000_001, 9_000_000_000);
        for (born, seen_born, modified, volatile, expected) in [
            (old, old, whole, false, true),
            (old, new, exact, false, false),
            (None, None, exact, false, true),
            (None, None, whole, false, false),
            // Known from before it was stored, or moved between machines.
            (None, old, exact, false, true),
            (None, old, whole, false, false),
            // Unfinished, but at rest.
            (old, old, whole, true, true),
            // Written within the granularity before it was read.
            (old, old, changed, true, false),
            (old, old, changed, false, true),
        ] {
            let facts = FileFacts {
                inode: 1,
                size: 1,
                modified: FileTime(modified),
                changed: FileTime(changed),
                ..FileFacts::default()
            };
            let known = known(facts, born, volatile);
            let seen = FileFacts {
                changed: FileTime(changed + 1),
                born: seen_born,
                ..facts
            };
            assert_eq!(
                is_moved(&known, &seen, false),
                expected,
                "{born:?} {seen_born:?} {modified} {volatile}"
            );
        }
    }
}
