//! What one worker does with one piece of work.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use nix::errno::Errno;
use sifter_image::{NotImage, Subject, Verdict};

use crate::catalog::{
    ChangeKind, Content, DirectoryChange, FileFacts, FileTime, Found, Identity, KnownDirectory,
    KnownFile,
};

use super::candidates::{Candidacy, SIZE_MIN, candidacy, is_excluded};
use super::dir::{
    DIRECTORY_BUFFER, Dir, EntryKind, Operations, SandboxTree, absolute, c_name,
    directory_identity, join,
};
use super::plan::{KnownError, is_moved, is_racy};
use super::progress::Counts;
use super::walk::{Held, Item, Pending, Walk};

/// Latency is taken of one in so many operations where they are answered from memory: there taking
/// it costs as much as a tenth of the operation.
const SAMPLE_EVERY: u32 = 16;

/// A later access is worth an update of the listing from this on: what `relatime`, the usual mount
/// option, distinguishes.
const ACCESS_GRANULARITY: i64 = 86_400_000_000_000;

/// Samples handed to the pace at a time.
const SAMPLES: usize = 4;

/// One worker's own state: buffers, counts not yet handed on.
pub(super) struct Visitor<'a> {
    walk: &'a Walk<'a>,
    operations: Operations,
    counts: Counts,
    samples: Vec<u64>,
    until_sample: u32,
    buffer: Vec<MaybeUninit<u8>>,
}

/// A regular file in a directory that is being read.
struct Candidate {
    name: CString,
    inode: u64,
    if_large: bool,
    known: Option<KnownFile>,
}

/// The directory that candidates are in, as far as looking at them needs it.
#[derive(Clone, Copy)]
struct Place<'d> {
    dir: &'d Dir,
    path: &'d [u8],
}

/// A directory whose candidates are looked at, perhaps by several threads; the last one reports.
pub(super) struct Task {
    held: Arc<Held>,
    candidates: Vec<Candidate>,
    remaining: AtomicUsize,
    change: Mutex<DirectoryChange>,
    path: Box<[u8]>,
}

/// Names found in a directory.
#[derive(Default)]
struct Listing {
    directories: Vec<Box<[u8]>>,
    candidates: Vec<Candidate>,
    unknown: Vec<(CString, u64)>,
    files: u64,
    /// Marks of a sandbox: `.singularity.d`, or the scripts of Singularity 2.2 and earlier.
    has_singularity_d: bool,
    old_scripts: u32,
}

impl<'a> Visitor<'a> {
    pub fn new(walk: &'a Walk<'a>) -> Self {
        Self {
            walk,
            operations: Operations::default(),
            counts: Counts::default(),
            samples: Vec::with_capacity(SAMPLES),
            until_sample: 0,
            buffer: vec![MaybeUninit::uninit(); DIRECTORY_BUFFER],
        }
    }

    /// Does one piece of work; what there is to do besides goes to `new`.
    pub fn visit(&mut self, item: Item, new: &mut Vec<Item>) {
        match item {
            Item::Directory(pending) => self.directory(pending, new),
            Item::Known(directories) => {
                for directory in directories {
                    if self.walk.progress.is_cancelled() {
                        return;
                    }
                    self.known_directory(directory, new);
                }
            }
            Item::Candidates(task, range) => self.share(&task, range),
            Item::Check(directory, range) => self.check(&directory, range),
        }
        self.hand_on();
    }

    /// Hands counts on to the progress, and gives way if the rate asks for it.
    fn hand_on(&mut self) {
        self.counts.operations = self.operations.calls;
        self.counts.bytes = self.operations.bytes;
        self.walk.progress.add(&self.counts);
        let calls = self.operations.calls;
        self.counts = Counts::default();
        self.operations = Operations::default();
        self.walk
            .pace
            .throttle(calls, || self.walk.progress.is_cancelled());
    }

    /// Runs one operation on the file system and takes its latency now and then.
    fn timed<T>(&mut self, operation: impl FnOnce(&mut Operations) -> T) -> T {
        if self.until_sample > 0 {
            self.until_sample -= 1;
            return operation(&mut self.operations);
        }
        let start = Instant::now();
        let result = operation(&mut self.operations);
        let nanoseconds = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        // Slow answers are all taken, so that the width follows at once.
        self.until_sample = if nanoseconds > 100_000 {
            0
        } else {
            SAMPLE_EVERY
        };
        self.samples.push(nanoseconds);
        if self.samples.len() >= SAMPLES {
            self.walk.pace.record(&mut self.samples);
        }
        result
    }

    fn problem(&self, path: &[u8], doing: &str, error: &io::Error) {
        let path = absolute(&self.walk.settings.path, path);
        self.walk.progress.problem(&path, doing, error);
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
            let (identity, facts) = dir.identity(&mut self.operations)?;
            let listing = self.list(&dir, &pending.path)?;
            Ok((dir, started, identity, facts, listing))
        });
        let (dir, started, identity, facts, listing) = match read {
            Ok(read) => read,
            Err(error) => {
                let gone = matches!(
                    error.raw_os_error().map(Errno::from_raw),
                    // Another file system mounted here is not ours to enter.
                    Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV)
                );
                if gone && id.is_some() {
                    (self.walk.sink)(change(ChangeKind::Gone));
                } else if !gone {
                    self.problem(&pending.path, "read directory", &error);
                    (self.walk.sink)(change(ChangeKind::Unreadable {
                        message: error.to_string(),
                    }));
                }
                return;
            }
        };
        let volatile = is_racy(&identity, started, self.walk.options.network);
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
        if (listing.has_singularity_d || listing.old_scripts == 3)
            && let Some(found) = self.sandbox(&dir, &pending.path, facts, started)
        {
            self.finish_sandbox(&mut report, found, pending.known.as_ref());
            (self.walk.sink)(report);
            return;
        }
        self.counts.files += listing.files;
        self.descend(dir, pending, listing, report, new);
    }

    fn open(&mut self, pending: &Pending) -> io::Result<Dir> {
        let walk = self.walk;
        let path = &pending.path;
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        match &pending.parent {
            Some(parent) => {
                let name = c_name(name)?;
                self.timed(|operations| walk.access.open_dir(&parent.dir, &name, operations))
            }
            None => self.timed(|operations| walk.access.open_below(walk.root, path, operations)),
        }
    }

    /// Reads the names, sorts out what is of no interest.
    fn list(&mut self, dir: &Dir, path: &[u8]) -> io::Result<Listing> {
        let settings = self.walk.settings;
        let mut listing = Listing::default();
        dir.read(
            &mut self.buffer,
            &mut self.operations,
            |name, kind, inode| match kind {
                EntryKind::Directory => listing.directory(name, path, settings),
                EntryKind::File => listing.file(name, inode, path, settings),
                EntryKind::Unknown => listing.unknown.push((name.to_owned(), inode)),
                EntryKind::Other => {}
            },
        )?;
        // Some network file systems do not tell the kind.
        for (name, inode) in std::mem::take(&mut listing.unknown) {
            match dir.stat(&name, &mut self.operations) {
                Ok((EntryKind::Directory, _)) => listing.directory(&name, path, settings),
                Ok((EntryKind::File, _)) => listing.file(&name, inode, path, settings),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.problem(&join(path, name.to_bytes()), "stat", &error),
            }
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
        if let Some(known) = pending.known {
            let Ok(mut seen) = self.known_children(&known.path) else {
                return;
            };
            listing.directories.retain(|name| !seen.remove(name));
            // Known directories that are not there any more, or are left out now.
            for name in seen {
                (self.walk.sink)(DirectoryChange {
                    id: None,
                    path: join(&known.path, &name).into(),
                    kind: ChangeKind::Gone,
                });
            }
            let mut files: HashMap<Box<[u8]>, KnownFile> = known
                .files
                .into_iter()
                .map(|file| (file.name.clone(), file))
                .collect();
            for candidate in &mut listing.candidates {
                candidate.known = files.remove(candidate.name.to_bytes());
            }
            removed.extend(files.into_keys());
        }
        let depth = if pending.path.is_empty() {
            0
        } else {
            1 + pending.path.iter().filter(|byte| **byte == b'/').count()
        };
        if depth >= self.walk.settings.max_depth as usize && !listing.directories.is_empty() {
            let error = io::Error::new(
                io::ErrorKind::QuotaExceeded,
                format!(
                    "more than {} directories deep (max_depth): not entered",
                    self.walk.settings.max_depth
                ),
            );
            self.problem(&pending.path, "descend below", &error);
            listing.directories.clear();
        }
        children.clone_from(&listing.directories);
        let held = match self.walk.hold(dir) {
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
                let place = Place {
                    dir: &dir,
                    path: &pending.path,
                };
                let found = self.look_at_all(place, &listing.candidates);
                finish(&mut report, found);
                (self.walk.sink)(report);
                return;
            }
        };
        new.extend(listing.directories.into_iter().map(|name| {
            Item::Directory(Pending {
                parent: Some(Arc::clone(&held)),
                path: join(&pending.path, &name).into(),
                known: None,
            })
        }));
        let share = self.walk.share();
        if listing.candidates.len() <= share {
            let place = Place {
                dir: &held.dir,
                path: &pending.path,
            };
            let found = self.look_at_all(place, &listing.candidates);
            finish(&mut report, found);
            (self.walk.sink)(report);
            return;
        }
        let count = listing.candidates.len();
        let shares = count.div_ceil(share);
        let task = Arc::new(Task {
            held,
            candidates: listing.candidates,
            remaining: AtomicUsize::new(shares),
            change: Mutex::new(report),
            path: pending.path,
        });
        new.extend((0..shares).map(|index| {
            let start = index * share;
            Item::Candidates(Arc::clone(&task), start..(start + share).min(count))
        }));
    }

    fn known_children(&self, path: &[u8]) -> Result<HashSet<Box<[u8]>>, KnownError> {
        match self.walk.known {
            Some(known) => Ok(known.children(path)?.into_iter().collect()),
            None => Ok(HashSet::new()),
        }
    }

    /// One share of a large directory.
    fn share(&mut self, task: &Task, range: std::ops::Range<usize>) {
        let place = Place {
            dir: &task.held.dir,
            path: &task.path,
        };
        let found = self.look_at_all(place, &task.candidates[range]);
        let mut change = task.change.lock().unwrap_or_else(PoisonError::into_inner);
        finish(&mut change, found);
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
            (self.walk.sink)(done);
        }
    }

    // === what is known ===

    /// A known directory: one `stat` tells whether it must be read again.
    fn known_directory(&mut self, known: KnownDirectory, new: &mut Vec<Item>) {
        if known.volatile || self.walk.options.full {
            new.push(Item::Directory(Pending {
                parent: None,
                path: known.path.clone(),
                known: Some(known),
            }));
            return;
        }
        let root = self.walk.root;
        let stat = c_name(&known.path)
            .and_then(|path| self.timed(|operations| root.stat(&path, operations)));
        match stat {
            Ok((EntryKind::Directory, facts)) if directory_identity(&facts) == known.identity => {
                self.counts.directories += 1;
                self.counts.images += known
                    .files
                    .iter()
                    .filter(|file| file.image.is_some())
                    .count() as u64;
                self.check_known(known, new);
            }
            // Changed, gone or unreadable: reading it tells which.
            _ => new.push(Item::Directory(Pending {
                parent: None,
                path: known.path.clone(),
                known: Some(known),
            })),
        }
    }

    fn check_known(&mut self, known: KnownDirectory, new: &mut Vec<Item>) {
        let due = self.walk.options.check_files;
        if known.files.is_empty() || !(due || known.files.iter().any(|file| file.volatile)) {
            return;
        }
        let share = self.walk.share();
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
    fn check(&mut self, directory: &KnownDirectory, range: std::ops::Range<usize>) {
        let mut dir = None;
        let mut found = Vec::new();
        let mut removed = Vec::new();
        let mut path = directory.path.to_vec();
        let start = path.len();
        for file in &directory.files[range] {
            if !file.volatile {
                if !self.walk.options.check_files {
                    continue;
                }
                path.truncate(start);
                if start > 0 && !file.name.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(&file.name);
                let root = self.walk.root;
                path.push(0);
                let stat = CStr::from_bytes_with_nul(&path)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
                    .and_then(|path| self.timed(|operations| root.stat(path, operations)));
                path.pop();
                match stat {
                    Ok((_, facts)) if same(&file.identity, &facts, file.name.is_empty()) => {
                        found.extend(self.accessed(file, facts));
                        continue;
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        removed.push(file.name.clone());
                        continue;
                    }
                    // Changed or unreadable: looking at it tells which.
                    _ => {}
                }
            }
            if dir.is_none() {
                let walk = self.walk;
                match walk
                    .access
                    .open_below(walk.root, &directory.path, &mut self.operations)
                {
                    Ok(opened) => dir = Some(opened),
                    Err(error) => {
                        self.problem(&directory.path, "open directory", &error);
                        break;
                    }
                }
            }
            let Some(dir) = &dir else { break };
            let place = Place {
                dir,
                path: &directory.path,
            };
            if file.name.is_empty() {
                let started = FileTime::now();
                if let Ok((_, facts)) = dir.identity(&mut self.operations)
                    && let Some(sandbox) = self.sandbox(dir, &directory.path, facts, started)
                {
                    found.push(sandbox);
                }
                continue;
            }
            let Ok(name) = c_name(&file.name) else {
                continue;
            };
            let candidate = Candidate {
                name,
                inode: file.identity.inode,
                if_large: false,
                // It changed here: that it is still the same inode proves nothing.
                known: Some(KnownFile {
                    volatile: true,
                    ..file.clone()
                }),
            };
            match self.look_at(place, &candidate) {
                Look::Found(new) => found.push(new),
                Look::Gone => removed.push(file.name.clone()),
                Look::Unchanged => {}
            }
        }
        if !found.is_empty() || !removed.is_empty() {
            (self.walk.sink)(DirectoryChange {
                id: Some(directory.id),
                path: directory.path.clone(),
                kind: ChangeKind::Files { found, removed },
            });
        }
    }

    // === candidates ===

    fn look_at_all(&mut self, place: Place<'_>, candidates: &[Candidate]) -> Looked {
        let mut looked = Looked::default();
        for candidate in candidates {
            if self.walk.progress.is_cancelled() {
                break;
            }
            match self.look_at(place, candidate) {
                Look::Found(found) => looked.found.push(found),
                Look::Gone if candidate.known.is_some() => {
                    looked.removed.push(candidate.name.to_bytes().into());
                }
                Look::Gone | Look::Unchanged => {}
            }
        }
        looked
    }

    /// Looks at one candidate: as cheaply as what is known of it allows.
    fn look_at(&mut self, place: Place<'_>, candidate: &Candidate) -> Look {
        let name = candidate.name.as_c_str();
        if let Some(known) = &candidate.known
            && !known.volatile
            && !self.walk.options.full
        {
            let same_inode = known.identity.inode == candidate.inode;
            if same_inode && !self.walk.options.check_files {
                self.counts.images += u64::from(known.image.is_some());
                return Look::Unchanged;
            }
            match self.timed(|operations| place.dir.stat(name, operations)) {
                Ok((_, facts)) if Identity::from(&facts) == known.identity => {
                    self.counts.images += u64::from(known.image.is_some());
                    return self
                        .accessed(known, facts)
                        .map_or(Look::Unchanged, Look::Found);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Look::Gone,
                _ => {}
            }
        }
        if candidate.known.is_none()
            && let Some(known) = self.walk.known
            && !self.walk.options.full
            // Naming rules go by the path, which is another one now.
            && self.walk.settings.naming.is_empty()
            && let Ok(images) = known.images_with_inode(candidate.inode)
            && !images.is_empty()
            && let Ok((EntryKind::File, facts)) = place.dir.stat(name, &mut self.operations)
        {
            let seen = Identity::from(&facts);
            let moved = images.iter().find(|(_, known)| is_moved(known, &seen));
            // One that is gone from the catalogue meanwhile is read like any other.
            if let Some((id, _)) = moved
                && let Ok(Some(image)) = known.image(*id)
            {
                self.counts.images += 1;
                let volatile = is_racy(&seen, FileTime::now(), self.walk.options.network);
                return Look::Found(Found {
                    name: name.to_bytes().into(),
                    facts,
                    volatile,
                    content: Content::Moved(Box::new(image)),
                });
            }
        }
        if candidate.if_large && candidate.known.is_none() {
            match self.timed(|operations| place.dir.stat(name, operations)) {
                Ok((EntryKind::File, facts)) if facts.size >= SIZE_MIN => {}
                // Small now, but perhaps only because it is being written.
                Ok((EntryKind::File, facts)) if self.is_young(&facts) => {
                    return Look::Found(other(name, facts, true));
                }
                Ok(_) => return Look::Gone,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Look::Gone,
                Err(error) => {
                    self.problem(&join(place.path, name.to_bytes()), "stat", &error);
                    return Look::Gone;
                }
            }
        }
        self.read(place, candidate)
    }

    /// The image again if it was read since the listing's last access: reading changes neither what
    /// it is nor what tells whether it changed.
    fn accessed(&self, file: &KnownFile, facts: FileFacts) -> Option<Found> {
        let age = facts.accessed.0.saturating_sub(file.accessed.0);
        if age < ACCESS_GRANULARITY || file.name.is_empty() {
            return None;
        }
        let image = self.walk.known?.image(file.image?).ok()??;
        Some(Found {
            name: file.name.clone(),
            facts,
            volatile: false,
            content: Content::Moved(Box::new(image)),
        })
    }

    /// Opens and probes one file.
    fn read(&mut self, place: Place<'_>, candidate: &Candidate) -> Look {
        let walk = self.walk;
        let name = candidate.name.as_c_str();
        let path = || join(place.path, name.to_bytes());
        let network = walk.options.network;
        let opened =
            self.timed(|operations| walk.access.open_file(place.dir, name, network, operations));
        let file = match opened {
            Ok(file) => file,
            Err(error) => {
                let errno = error.raw_os_error().map(Errno::from_raw);
                if errno == Some(Errno::ENOENT) {
                    return Look::Gone;
                }
                self.problem(&path(), "open", &error);
                return self.unreadable(candidate, FileFacts::default());
            }
        };
        if file.released {
            let error = io::Error::new(
                io::ErrorKind::Unsupported,
                "released to tape: not recalled, listed from what is known",
            );
            self.problem(&path(), "read", &error);
            return self.unreadable(candidate, file.facts);
        }
        self.counts.files_read += 1;
        let now = FileTime::now();
        let full_path = absolute(&walk.settings.path, &path());
        let subject = Subject {
            path: &full_path,
            modified: file.facts.modified.timestamp(),
            now: now.timestamp(),
        };
        let verdict = sifter_image::probe(&file, &subject, &walk.probe);
        let cost = file.operations();
        self.operations.calls += cost.calls + 1;
        self.operations.bytes += cost.bytes;
        let facts = file.facts;
        match verdict {
            Ok(Verdict::Image(image)) => {
                self.counts.images += 1;
                let volatile = image.status == sifter_image::record::Status::Transfer
                    || is_racy(&Identity::from(&facts), now, network);
                Look::Found(Found {
                    name: name.to_bytes().into(),
                    facts,
                    volatile,
                    content: Content::Image(image),
                })
            }
            Ok(Verdict::NotImage(why)) => {
                if why == NotImage::Misnamed {
                    self.counts.misnamed += 1;
                }
                Look::Found(other(name, facts, self.is_young(&facts)))
            }
            Err(error) => {
                self.problem(&path(), "read", &error);
                self.unreadable(candidate, facts)
            }
        }
    }

    /// What is known of a file that cannot be read stays; what is not known is looked at again.
    fn unreadable(&self, candidate: &Candidate, facts: FileFacts) -> Look {
        if candidate.known.is_some() {
            return Look::Unchanged;
        }
        Look::Found(other(&candidate.name, facts, true))
    }

    fn is_young(&self, facts: &FileFacts) -> bool {
        let age = i64::try_from(self.walk.settings.transfer_age.as_nanos()).unwrap_or(i64::MAX);
        facts.modified.0 > FileTime::now().0.saturating_sub(age)
    }

    // === sandboxes ===

    fn sandbox(
        &mut self,
        dir: &Dir,
        path: &[u8],
        facts: FileFacts,
        started: FileTime,
    ) -> Option<Found> {
        let walk = self.walk;
        let full_path = absolute(&walk.settings.path, path);
        let tree = SandboxTree::new(walk.access, dir);
        let subject = Subject {
            path: &full_path,
            modified: facts.modified.timestamp(),
            now: started.timestamp(),
        };
        let verdict = sifter_image::probe_directory(&tree, &subject, &walk.probe);
        let cost = tree.operations();
        self.operations.calls += cost.calls;
        self.operations.bytes += cost.bytes;
        match verdict {
            Ok(Verdict::Image(image)) => {
                self.counts.images += 1;
                Some(Found {
                    name: Box::default(),
                    // A directory's own size says nothing about the image in it.
                    facts: FileFacts { size: 0, ..facts },
                    volatile: is_racy(&directory_identity(&facts), started, walk.options.network),
                    content: Content::Image(image),
                })
            }
            Ok(Verdict::NotImage(_)) => None,
            Err(error) => {
                self.problem(path, "read sandbox", &error);
                None
            }
        }
    }

    /// A sandbox has one image, itself, and nothing below it is known.
    fn finish_sandbox(
        &self,
        report: &mut DirectoryChange,
        sandbox: Found,
        known: Option<&KnownDirectory>,
    ) {
        if let ChangeKind::Read { found, removed, .. } = &mut report.kind {
            found.push(sandbox);
            removed.extend(
                known
                    .into_iter()
                    .flat_map(|known| &known.files)
                    .filter(|file| !file.name.is_empty())
                    .map(|file| file.name.clone()),
            );
        }
    }
}

/// What looking at candidates gave.
#[derive(Default)]
struct Looked {
    found: Vec<Found>,
    removed: Vec<Box<[u8]>>,
}

/// What looking at a candidate gave.
enum Look {
    Found(Found),
    Gone,
    Unchanged,
}

impl Listing {
    fn directory(&mut self, name: &CStr, path: &[u8], settings: &crate::config::RootSettings) {
        let bytes = name.to_bytes();
        if bytes == b".singularity.d" {
            self.has_singularity_d = true;
        }
        if !settings.skip.iter().any(|skip| skip == bytes) && !is_excluded(settings, path, bytes) {
            self.directories.push(bytes.into());
        }
    }

    fn file(
        &mut self,
        name: &CStr,
        inode: u64,
        path: &[u8],
        settings: &crate::config::RootSettings,
    ) {
        self.files += 1;
        let bytes = name.to_bytes();
        if matches!(bytes, b".exec" | b".run" | b".shell") {
            self.old_scripts += 1;
        }
        let if_large = match candidacy(settings, path, bytes) {
            Candidacy::No => return,
            Candidacy::Yes => false,
            Candidacy::IfLarge => true,
        };
        self.candidates.push(Candidate {
            name: name.to_owned(),
            inode,
            if_large,
            known: None,
        });
    }
}

fn finish(change: &mut DirectoryChange, looked: Looked) {
    if let ChangeKind::Read { found, removed, .. } = &mut change.kind {
        found.extend(looked.found);
        removed.extend(looked.removed);
    }
}

fn other(name: &CStr, facts: FileFacts, volatile: bool) -> Found {
    Found {
        name: name.to_bytes().into(),
        facts,
        volatile,
        content: Content::Other,
    }
}

fn same(known: &Identity, facts: &FileFacts, is_directory: bool) -> bool {
    if is_directory {
        directory_identity(facts) == *known
    } else {
        Identity::from(facts) == *known
    }
}
