//! What one worker does with one piece of work: reads a directory, or looks whether a known one
//! changed.

mod known;
mod listing;
mod look;
mod sampling;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use nix::errno::Errno;

use crate::catalog::{ChangeKind, DirectoryChange, FileTime, Identity, KnownFile};
use crate::lock::lock;

use self::listing::{Listing, recognise};
use self::look::{Looked, Parent};
use self::sampling::{Sampling, Took, Waits};
use super::automount::NotMounted;
use super::candidates::{Candidate, is_entered};
use super::dir::{DIRECTORY_BUFFER, Dir, EntryKind, absolute, c_name, join};
use super::operations::Operations;
use super::pace::Timed;
use super::plan::{KnownError, is_racy};
use super::progress::Counts;
use super::submounts::Unmounted;
use super::work::{Item, Pending, Shared, Task, too_deep, too_long};

/// So many entries of which the kind is not told are asked for before counts are handed on.
const ASKED_IN_A_ROW: usize = 64;

/// Samples handed to the pace at a time where answers come from memory.
const SAMPLES: usize = 4;

/// One worker's own state: buffers, counts not yet handed on.
pub(super) struct Visitor<'a> {
    shared: &'a Shared<'a>,
    operations: Operations,
    counts: Counts,
    samples: [Vec<u64>; Timed::COUNT],
    sampling: Sampling,
    buffer: Vec<MaybeUninit<u8>>,
}

impl<'a> Visitor<'a> {
    pub fn new(shared: &'a Shared<'a>) -> Self {
        Self {
            shared,
            operations: Operations::default(),
            counts: Counts::default(),
            samples: Default::default(),
            sampling: Sampling::default(),
            buffer: vec![MaybeUninit::uninit(); DIRECTORY_BUFFER],
        }
    }

    /// Does one piece of work; what there is to do besides goes to `new`. Counts are kept until
    /// [`Visitor::hand_on`].
    pub fn visit(&mut self, item: Item, new: &mut Vec<Item>) {
        match item {
            Item::Directory(pending) => self.directory(pending, new),
            Item::Known(directories) => {
                for directory in directories {
                    if self.shared.progress.is_cancelled() {
                        return;
                    }
                    self.known_directory(directory, new);
                }
            }
            Item::Candidates(task, range) => self.share(&task, range),
            Item::Check(directory, range) => self.check(&directory, range),
        }
    }

    /// Hands counts on to the progress, and gives way if the rate asks for it.
    pub fn hand_on(&mut self) {
        self.counts.operations = self.operations.calls;
        self.counts.bytes = self.operations.bytes;
        self.operations = Operations::default();
        self.shared.add(&std::mem::take(&mut self.counts));
    }

    /// Runs operations on the file system and takes the latency of one, their mean, now and then.
    fn timed<T>(&mut self, kind: Timed, operation: impl FnOnce(&mut Operations) -> T) -> T {
        if !self.sampling.is_due() {
            return operation(&mut self.operations);
        }
        let before = self.operations.calls;
        let waits = Waits::of_this_thread();
        let start = Instant::now();
        let result = operation(&mut self.operations);
        let calls = self.operations.calls.saturating_sub(before).max(1);
        let elapsed = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let nanoseconds = elapsed / calls;
        let took = self.sampling.took(kind, nanoseconds, waits);
        if took == Took::Displaced {
            return result;
        }
        let samples = &mut self.samples[kind as usize];
        samples.push(nanoseconds);
        if took == Took::Slow || samples.len() >= SAMPLES {
            self.shared.pace.record(kind, samples);
        }
        result
    }

    fn problem(&self, path: &[u8], doing: &str, error: &io::Error) {
        let path = absolute(&self.shared.settings.path, path);
        self.shared.progress.problem(&path, doing, error);
    }

    // === directories ===

    fn directory(&mut self, pending: Pending, new: &mut Vec<Item>) {
        self.counts.directories += 1;
        let id = pending.known.as_ref().map(|known| known.id);
        let change = |kind| DirectoryChange {
            id,
            path: pending.path.clone(),
            kind,
        };
        let opened = self.open(&pending);
        let read = opened.and_then(|dir| {
            let started = FileTime::now();
            // A directory's state is for the next scan: nobody keeps it where nothing is known.
            let state = match self.shared.known {
                Some(_) => Some(dir.identity(&mut self.operations)?),
                None => None,
            };
            let listing = self.list(&dir, &pending.path)?;
            // Without a process behind it, an automounter's file system shows what it has not mounted as empty.
            if self.shared.settings.cross_file_systems
                && listing.is_empty()
                && !pending.path.is_empty()
                && dir.is_automounted(&mut self.operations)
            {
                return Err(io::Error::other(NotMounted::Named));
            }
            let (identity, facts) = match state {
                None if listing.is_sandbox() => dir.identity(&mut self.operations)?,
                state => state.unwrap_or_default(),
            };
            Ok((dir, started, identity, facts, listing))
        });
        let read = if id.is_some() && self.shared.submounts.is_missing(&pending.path) {
            Err(Unmounted.into())
        } else {
            read
        };
        let (dir, started, identity, facts, listing) = match read {
            Ok(read) => read,
            Err(error) => {
                let is_gone = matches!(NotMounted::of(&error), Some(NotMounted::Nameless))
                    && self.shared.options.forget_unmounted;
                match error.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {
                        if id.is_some() {
                            (self.shared.sink)(change(ChangeKind::Gone));
                        }
                    }
                    Some(Errno::EXDEV) => self.hidden(pending),
                    None if is_gone => (self.shared.sink)(change(ChangeKind::Gone)),
                    _ => {
                        self.problem(&pending.path, "read directory", &error);
                        (self.shared.sink)(change(ChangeKind::Unreadable {
                            message: error.to_string(),
                        }));
                    }
                }
                return;
            }
        };
        let volatile = is_racy(&identity, started, self.shared.options.network);
        let mut report = DirectoryChange {
            id,
            path: pending.path.clone(),
            kind: ChangeKind::Read {
                identity,
                volatile,
                children: Vec::new(),
                found: Vec::new(),
                removed: Vec::new(),
            },
        };
        if listing.is_sandbox() {
            match self.sandbox(&dir, &pending.path, facts, started) {
                Ok(Some(found)) => {
                    self.finish_sandbox(&mut report, found, pending.known.as_ref());
                    (self.shared.sink)(report);
                    return;
                }
                Ok(None) => {}
                // It is one all the same: what is known of it stays, and its inside is nobody's.
                Err(error) => {
                    report.kind = ChangeKind::Unreadable {
                        message: error.to_string(),
                    };
                    (self.shared.sink)(report);
                    return;
                }
            }
        }
        self.counts.files += listing.files;
        self.descend(dir, pending, listing, report, new);
    }

    /// Another file system is mounted here, which is not ours to enter. That it is gone again no timestamp tells:
    /// the directory stays one that is still to be read.
    fn hidden(&mut self, pending: Pending) {
        self.counts.mounts_skipped += u64::from(self.is_entered_above(&pending));
        // One that is not known yet is so anyway.
        let Some(known) = pending.known else { return };
        let Ok(children) = self.known_children(&known.path) else {
            return;
        };
        self.gone(&known.path, children);
        (self.shared.sink)(DirectoryChange {
            id: Some(known.id),
            path: known.path,
            kind: ChangeKind::Read {
                identity: Identity::default(),
                volatile: true,
                children: Vec::new(),
                found: Vec::new(),
                removed: known.files.into_iter().map(|file| file.name).collect(),
            },
        });
    }

    /// Whether what keeps a directory from being opened is not above it.
    fn is_entered_above(&mut self, pending: &Pending) -> bool {
        let shared = self.shared;
        pending.parent.is_some() || {
            let slash = pending.path.iter().rposition(|byte| *byte == b'/');
            let above = &pending.path[..slash.unwrap_or(0)];
            let opened = shared
                .access
                .open_below(shared.root, above, &mut self.operations);
            opened.is_ok()
        }
    }

    /// Known directories in one are not there any more.
    fn gone(&self, directory: &[u8], names: impl IntoIterator<Item = Box<[u8]>>) {
        for name in names {
            let path = join(directory, &name);
            // Also the directory may go with what was mounted on it.
            if !self.shared.submounts.is_missing(&path) {
                (self.shared.sink)(DirectoryChange {
                    id: None,
                    path: path.into(),
                    kind: ChangeKind::Gone,
                });
            }
        }
    }

    fn open(&mut self, pending: &Pending) -> io::Result<Dir> {
        let shared = self.shared;
        let path = &pending.path;
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        match &pending.parent {
            Some(parent) => {
                let name = c_name(name)?;
                self.timed(Timed::Directory, |operations| {
                    shared.access.open_dir(&parent.dir, &name, operations)
                })
            }
            None => self.timed(Timed::Directory, |operations| {
                shared.access.open_below(shared.root, path, operations)
            }),
        }
    }

    /// Reads the names, sorts out what is of no interest.
    fn list(&mut self, dir: &Dir, path: &[u8]) -> io::Result<Listing> {
        let settings = self.shared.settings;
        let mut listing = Listing::default();
        self.shared.access.read_dir(
            dir,
            &mut self.buffer,
            &mut self.operations,
            |name, kind, inode| {
                listing.names += 1;
                match kind {
                    EntryKind::Directory => listing.directory(name, path, settings),
                    EntryKind::File => listing.file(name, inode, path, settings),
                    EntryKind::Unknown => listing.unknown.push((name.to_owned(), inode)),
                    EntryKind::Other => {}
                }
            },
        )?;
        // Some network file systems do not tell the kind.
        for (index, (name, inode)) in std::mem::take(&mut listing.unknown).iter().enumerate() {
            // All of them may take minutes, and a scan of which nothing is heard is taken for one that hangs.
            if (index + 1) % ASKED_IN_A_ROW == 0 {
                self.hand_on();
            }
            match dir.stat(name, &mut self.operations) {
                Ok((EntryKind::Directory, _)) => listing.directory(name, path, settings),
                Ok((EntryKind::File, _)) => listing.file(name, *inode, path, settings),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.problem(&join(path, name.to_bytes()), "stat", &error),
            }
        }
        listing.name_once();
        if self.shared.known.is_some() {
            listing.in_order();
        }
        Ok(listing)
    }

    /// Queues the subdirectories that are not known, and looks at the candidates.
    fn descend(
        &mut self,
        dir: Dir,
        pending: Pending,
        mut listing: Listing,
        mut report: DirectoryChange,
        new: &mut Vec<Item>,
    ) {
        let ChangeKind::Read {
            children, removed, ..
        } = &mut report.kind
        else {
            return;
        };
        let mut files = Vec::new();
        if let Some(known) = pending.known {
            let Ok(mut seen) = self.known_children(&known.path) else {
                return;
            };
            listing.directories.retain(|name| !seen.remove(name));
            if !seen.is_empty() && dir.is_automounted(&mut self.operations) {
                // Each is looked for by its own name, which has it mounted if it is still there.
                seen.retain(|name| !is_entered(self.shared.settings, &known.path, name));
            }
            // Some may be left out now.
            self.gone(&known.path, seen);
            files = known.files;
            removed.extend(recognise(&mut listing.candidates, &mut files));
        }
        let depth = if pending.path.is_empty() {
            0
        } else {
            1 + pending.path.iter().filter(|byte| **byte == b'/').count()
        };
        let settings = self.shared.settings;
        let length = settings.path.as_os_str().len() + 1 + pending.path.len();
        let bottom = if depth >= settings.max_depth as usize {
            Some((too_deep(settings), self.shared.options.chosen_depth))
        } else {
            too_long(length).map(|error| (error, false))
        };
        if let Some((error, is_wanted)) = bottom.filter(|_| !listing.directories.is_empty()) {
            if !is_wanted {
                self.problem(&pending.path, "descend below", &error);
            }
            listing.directories.clear();
        }
        // They are part of a state that nobody keeps where nothing is known.
        if self.shared.known.is_some() {
            children.clone_from(&listing.directories);
        }
        let share = self.shared.share();
        // Most directories have none below and few candidates: nobody else needs them.
        if listing.directories.is_empty() && listing.candidates.len() <= share {
            return self.finish_directory(&dir, &listing.candidates, &files, report);
        }
        let held = match self.shared.hold(dir) {
            Ok(held) => held,
            Err(dir) => {
                // Too many descriptors are held: the subdirectories are opened from the root.
                new.extend(listing.directories.into_iter().map(|name| {
                    Item::Directory(Pending {
                        parent: None,
                        path: join(&pending.path, &name).into(),
                        known: None,
                    })
                }));
                return self.finish_directory(&dir, &listing.candidates, &files, report);
            }
        };
        new.extend(listing.directories.into_iter().map(|name| {
            Item::Directory(Pending {
                parent: Some(Arc::clone(&held)),
                path: join(&pending.path, &name).into(),
                known: None,
            })
        }));
        if listing.candidates.len() <= share {
            return self.finish_directory(&held.dir, &listing.candidates, &files, report);
        }
        let count = listing.candidates.len();
        let shares = count.div_ceil(share);
        let task = Arc::new(Task {
            held,
            id: report.id,
            candidates: listing.candidates,
            known: files,
            remaining: AtomicUsize::new(shares),
            change: Mutex::new(report),
            path: pending.path,
        });
        new.extend((0..shares).map(|index| {
            let start = index * share;
            Item::Candidates(Arc::clone(&task), start..(start + share).min(count))
        }));
    }

    /// Looks at all candidates of a directory, and reports it.
    fn finish_directory(
        &mut self,
        dir: &Dir,
        candidates: &[Candidate],
        known: &[KnownFile],
        mut report: DirectoryChange,
    ) {
        let path = &report.path;
        let looked = self.look_at_all(Parent { dir, path, known }, candidates);
        if let ChangeKind::Read { found, removed, .. } = &mut report.kind {
            *found = looked.found;
            removed.extend(looked.removed);
        }
        (self.shared.sink)(report);
    }

    fn known_children(&self, path: &[u8]) -> Result<HashSet<Box<[u8]>>, KnownError> {
        match self.shared.known {
            Some(known) => Ok(known.children(path)?.into_iter().collect()),
            None => Ok(HashSet::new()),
        }
    }

    /// One share of a large directory.
    fn share(&mut self, task: &Task, range: std::ops::Range<usize>) {
        let parent = Parent {
            dir: &task.held.dir,
            path: &task.path,
            known: &task.known,
        };
        let Looked { found, removed } = self.look_at_all(parent, &task.candidates[range]);
        if !found.is_empty() {
            (self.shared.sink)(DirectoryChange {
                id: task.id,
                path: task.path.clone(),
                kind: ChangeKind::Part { found },
            });
        }
        let mut change = lock(&task.change);
        if let ChangeKind::Read { removed: all, .. } = &mut change.kind {
            all.extend(removed);
        }
        if task.remaining.fetch_sub(1, Ordering::AcqRel) == 1 {
            let done = std::mem::replace(
                &mut *change,
                DirectoryChange {
                    id: None,
                    path: Box::default(),
                    kind: ChangeKind::Gone,
                },
            );
            drop(change);
            (self.shared.sink)(done);
        }
    }
}
