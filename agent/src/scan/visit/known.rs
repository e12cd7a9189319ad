//! Known directories and files: a `stat` of each tells whether they changed.

use std::ffi::CStr;
use std::io;
use std::sync::Arc;

use crate::catalog::{ChangeKind, DirectoryChange, FileTime, Identity, KnownDirectory, KnownFile};

use super::super::candidates::Candidate;
use super::super::dir::{Dir, EntryKind, c_name, directory_identity};
use super::super::pace::Timed;
use super::super::work::{Item, Pending};
use super::Visitor;
use super::look::{Look, Looked, Parent};

impl Visitor<'_> {
    /// A known directory: one `stat` tells whether it must be read again.
    pub(super) fn known_directory(&mut self, known: KnownDirectory, new: &mut Vec<Item>) {
        if known.identity == Identity::default() && self.is_hidden(&known.path) {
            self.counts.directories += 1;
            self.counts.mounts_skipped += 1;
            return;
        }
        if self.shared.submounts.hides(&known.path) {
            return;
        }
        if known.volatile || self.shared.options.full {
            new.push(Item::Directory(Pending {
                parent: None,
                path: known.path.clone(),
                known: Some(known),
            }));
            return;
        }
        if self.is_unchanged(&known) {
            self.counts.directories += 1;
            self.check_known(known, new);
        } else {
            // Changed, gone or unreadable: reading it tells which.
            new.push(Item::Directory(Pending {
                parent: None,
                path: known.path.clone(),
                known: Some(known),
            }));
        }
    }

    fn is_unchanged(&mut self, known: &KnownDirectory) -> bool {
        let root = self.shared.root;
        let stat = c_name(&known.path)
            .and_then(|path| self.timed(Timed::State, |operations| root.stat(&path, operations)));
        matches!(stat, Ok((EntryKind::Directory, facts)) if directory_identity(&facts) == known.identity)
    }

    /// Whether something is still mounted over a directory that was never read, or not since something was. To open
    /// it would have an automounter mount what nobody asks for.
    fn is_hidden(&mut self, path: &[u8]) -> bool {
        let root = self.shared.root;
        let enters = self.shared.settings.cross_file_systems || path.is_empty();
        !enters && c_name(path).is_ok_and(|path| root.is_mount(&path, &mut self.operations))
    }

    fn check_known(&mut self, known: KnownDirectory, new: &mut Vec<Item>) {
        let due = self.shared.options.check_files;
        if known.files.is_empty() || !(due || known.files.iter().any(|file| file.volatile)) {
            let images = known.files.iter().filter(|file| file.image.is_some());
            self.counts.images += images.count() as u64;
            return;
        }
        let share = self.shared.share();
        let count = known.files.len();
        if count <= share {
            self.check(&known, 0..count);
            return;
        }
        let known = Arc::new(known);
        let mut start = 0;
        while start < count {
            let end = (start + share).min(count);
            new.push(Item::Check(Arc::clone(&known), start..end));
            start = end;
        }
    }

    /// Looks whether known candidates of an unchanged directory changed in place.
    pub(super) fn check(&mut self, directory: &KnownDirectory, range: std::ops::Range<usize>) {
        let mut dir = None;
        let mut looked = Looked::default();
        let mut path = directory.path.to_vec();
        for file in &directory.files[range] {
            if self.is_told_by_stat(directory, file, &mut path, &mut looked) {
                continue;
            }
            if dir.is_none() {
                let shared = self.shared;
                match shared
                    .access
                    .open_below(shared.root, &directory.path, &mut self.operations)
                {
                    Ok(opened) => dir = Some(opened),
                    Err(error) => {
                        self.problem(&directory.path, "open directory", &error);
                        break;
                    }
                }
            }
            if let Some(dir) = &dir {
                self.look_again(dir, directory, file, &mut looked);
            }
        }
        let Looked { found, mut removed } = looked;
        // What took its place meanwhile (its file system was unmounted, say) has none of its files: the next scan sees
        // another directory, and reads it.
        if !removed.is_empty() && !self.is_unchanged(directory) {
            removed.clear();
        }
        if !found.is_empty() || !removed.is_empty() {
            (self.shared.sink)(DirectoryChange {
                id: Some(directory.id),
                path: directory.path.clone(),
                kind: ChangeKind::Files { found, removed },
            });
        }
    }

    /// Whether a file is as it was, not to be looked at now, or gone, as far as that can be told without opening
    /// anything. `path` holds that of the directory, and is made that of the file for it.
    fn is_told_by_stat(
        &mut self,
        directory: &KnownDirectory,
        file: &KnownFile,
        path: &mut Vec<u8>,
        looked: &mut Looked,
    ) -> bool {
        if file.volatile {
            return false;
        }
        if !self.shared.options.check_files {
            self.counts.images += u64::from(file.image.is_some());
            return true;
        }
        if file.name.is_empty() {
            let is_same = self.says_the_same(&directory.path, file);
            self.counts.images += u64::from(is_same);
            return is_same;
        }
        path.truncate(directory.path.len());
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&file.name);
        path.push(0);
        let root = self.shared.root;
        let stat = CStr::from_bytes_with_nul(path)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
            .and_then(|path| self.timed(Timed::State, |operations| root.stat(path, operations)));
        match stat {
            Ok((_, facts)) if Identity::from(&facts) == file.identity => {
                self.counts.images += u64::from(file.image.is_some());
                looked.found.extend(self.accessed(file, facts));
                true
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                looked.removed.push(file.name.clone());
                true
            }
            // Changed or unreadable: looking at it tells which.
            _ => false,
        }
    }

    /// Looks at a file, or a sandbox, that changed or may have.
    fn look_again(
        &mut self,
        dir: &Dir,
        directory: &KnownDirectory,
        file: &KnownFile,
        looked: &mut Looked,
    ) {
        if file.name.is_empty() {
            let started = FileTime::now();
            if let Ok((_, facts)) = dir.identity(&mut self.operations)
                && let Ok(Some(sandbox)) = self.sandbox(dir, &directory.path, facts, started)
            {
                looked.found.push(sandbox);
            }
            return;
        }
        let Ok(name) = c_name(&file.name) else {
            return;
        };
        // It changed here: that it is still the same inode proves nothing.
        let changed = KnownFile {
            volatile: true,
            ..file.clone()
        };
        let parent = Parent {
            dir,
            path: &directory.path,
            known: std::slice::from_ref(&changed),
        };
        let candidate = Candidate {
            name,
            inode: file.identity.inode,
            if_large: false,
            known: Some(0),
        };
        match self.look_at(parent, &candidate) {
            Look::Found(new) => looked.found.push(new),
            Look::Gone => looked.removed.push(file.name.clone()),
            Look::Unchanged => {}
        }
    }
}
