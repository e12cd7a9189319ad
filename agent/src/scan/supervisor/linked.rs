//! Files with several names: what is written under one of them has changed under all, and only the directory of
//! that one tells of it.

use std::collections::{BTreeSet, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Mutex;

use crate::catalog::{ChangeKind, DirectoryChange, Snapshot};
use crate::lock::lock;

/// Files with several names that a scan of some directories found changed.
#[derive(Debug, Default)]
pub(super) struct Linked(Mutex<HashSet<u64>>);

impl Linked {
    /// Takes what was found in a directory. A sandbox, which has no name in it, has no other one.
    pub fn note(&self, change: &DirectoryChange) {
        let (ChangeKind::Read { found, .. }
        | ChangeKind::Part { found }
        | ChangeKind::Files { found, .. }) = &change.kind
        else {
            return;
        };
        let linked = found
            .iter()
            .filter(|file| file.facts.links > 1 && !file.name.is_empty());
        let mut inodes = lock(&self.0);
        inodes.extend(linked.map(|file| file.facts.inode));
    }

    /// The directories below `root` in which images are listed under other names of these files, besides those
    /// that were looked at.
    pub fn elsewhere(
        &self,
        listing: &Snapshot,
        root: &Path,
        seen: &BTreeSet<Box<[u8]>>,
    ) -> Vec<Box<[u8]>> {
        let inodes = lock(&self.0);
        if inodes.is_empty() {
            return Vec::new();
        }
        let root = root.as_os_str().as_bytes();
        let directory = |path: &[u8]| -> Option<Box<[u8]>> {
            let below = path.strip_prefix(root)?;
            let below = below.strip_prefix(b"/").unwrap_or(below);
            let end = below.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            Some(below[..end].into())
        };
        let text = crate::escape::utf8(root);
        let rows = listing.rows.iter();
        let directories: BTreeSet<_> = rows
            .filter(|row| inodes.contains(&row.inode()) && **row.root() == *text)
            .filter_map(|row| directory(row.path()))
            .filter(|directory| !seen.contains(directory))
            .collect();
        directories.into_iter().collect()
    }
}
