//! What lies between the directories that a running scan found and those that it has read. New ones are
//! known here, so that none need be looked for by its path: a first scan has no index of paths, which
//! is made at its end.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

/// Of one root, relative to which paths are.
#[derive(Debug, Default)]
pub(super) struct Frontier {
    /// Numbers of directories that were named by their parents and not read yet.
    named: HashMap<Box<[u8]>, i64, RandomState>,
    /// Numbers of new directories of which some files are stored and not yet the end.
    begun: HashMap<Box<[u8]>, i64, RandomState>,
    /// Directories that were read before their parents had named them.
    early: HashSet<Box<[u8]>, RandomState>,
    /// Known directories that turned out to be sandboxes: the scan may be under way to what is new in them.
    sandboxes: HashSet<Box<[u8]>, RandomState>,
}

/// Whether a path is that of a directory, or lies below it.
pub(super) fn is_within(path: &[u8], directory: &[u8]) -> bool {
    let rest = path.strip_prefix(directory);
    rest.is_some_and(|rest| directory.is_empty() || rest.is_empty() || rest[0] == b'/')
}

impl Frontier {
    /// A directory was named, and stored under a number until it is read.
    pub fn name(&mut self, path: Box<[u8]>, id: i64) {
        self.named.insert(path, id);
    }

    /// Some files of a new directory are stored.
    pub fn begin(&mut self, path: &[u8], id: i64) {
        self.begun.insert(path.into(), id);
    }

    /// The number of a directory that was begun.
    pub fn begun(&self, path: &[u8]) -> Option<i64> {
        self.begun.get(path).copied()
    }

    /// A new directory is read: its number, if it is stored already.
    pub fn take(&mut self, path: &[u8]) -> Option<i64> {
        let begun = self.begun.remove(path);
        begun.or_else(|| self.named.remove(path))
    }

    /// A directory is read that nobody has named. Nobody names the root, which has no path.
    pub fn read_early(&mut self, path: &[u8]) {
        if !path.is_empty() {
            self.early.insert(path.into());
        }
    }

    /// Whether a directory that is named now was read before.
    pub fn was_read(&mut self, path: &[u8]) -> bool {
        !self.early.is_empty() && self.early.remove(path)
    }

    /// What is at `path` and below is gone, with all that was stored of it: numbers given there are no
    /// directories any more.
    pub fn forget(&mut self, path: &[u8]) {
        let stays = |known: &[u8]| !is_within(known, path);
        self.named.retain(|known, _| stays(known));
        self.begun.retain(|known, _| stays(known));
        self.early.retain(|known| stays(known));
    }

    /// A known directory is a sandbox now.
    pub fn close(&mut self, path: &[u8]) {
        self.sandboxes.insert(path.into());
    }

    /// Whether a directory is inside of one.
    pub fn is_closed(&self, path: &[u8]) -> bool {
        let slashes = || (0..path.len()).filter(|at| path[*at] == b'/');
        let is_sandbox = |end: usize| self.sandboxes.contains(&path[..end]);
        !self.sandboxes.is_empty()
            && !path.is_empty()
            && (is_sandbox(0) || slashes().any(is_sandbox))
    }
}
