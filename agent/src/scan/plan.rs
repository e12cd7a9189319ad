//! What must be read again: the decision, and what the scan asks the catalogue for.

use crate::catalog::{FileTime, Identity, KnownDirectory, KnownImage};

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

    /// The images known under an inode number, by number, with their identities.
    fn images_with_inode(&self, inode: u64) -> Vec<(i64, Identity)>;

    /// All that is known of an image; `None` if it is gone meanwhile.
    ///
    /// # Errors
    ///
    /// The catalogue cannot be read.
    fn image(&self, id: i64) -> Result<Option<KnownImage>, KnownError>;
}

/// Whether something that was changed at `identity`'s times and read at `read` may have changed
/// again within its timestamp's granularity ("racy").
#[must_use]
pub fn is_racy(identity: &Identity, read: FileTime, network: bool) -> bool {
    let granularity = if network {
        GRANULARITY_NETWORK
    } else {
        GRANULARITY_LOCAL
    };
    identity.modified.max(identity.changed).0 > read.0.saturating_sub(granularity)
}

/// Whether a file is the one seen before, at another place: a move or rename changes the inode's
/// change time, and nothing else.
#[must_use]
pub fn is_moved(known: &Identity, seen: &Identity) -> bool {
    known.inode == seen.inode && known.size == seen.size && known.modified == seen.modified
}

#[cfg(test)]
mod tests {
    use super::{is_moved, is_racy};
    use crate::catalog::{FileTime, Identity};

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
            (200, 100, 110, false, true),
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
    fn a_move_changes_the_change_time_only() {
        assert!(is_moved(&identity(1, 1), &identity(1, 9)));
        assert!(!is_moved(&identity(1, 1), &identity(2, 1)));
        let other = Identity {
            inode: 2,
            ..identity(1, 1)
        };
        assert!(!is_moved(&identity(1, 1), &other));
    }
}
