//! The walk that follows symbolic links (`follow_symlinks`): walkdir with its loop detection, one
//! directory after the other, by path. Slower and less confined than the fd-relative walk: for
//! roots whose owners the site trusts. One operation is in flight at a time, whatever the width.

mod directory;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use walkdir::{DirEntry, WalkDir};

use crate::catalog::{ChangeKind, DirectoryChange, Identity, KnownDirectory};

use self::directory::{OpenDirectory, identity_of, is_sandbox};
use super::candidates::is_entered;
use super::dir::absolute;
use super::panics::caught;
use super::plan::{Known, KnownError};
use super::progress::Counts;
use super::submounts::{Unmounted, is_within};
use super::walk::STACK_SIZE;
use super::work::{Shared, too_deep};
use super::{ScanError, no_thread};

/// Scans by path, following links. Every directory is read each time; files that are known and
/// unchanged are not opened. The walk has a thread of its own, for a priority is never raised again.
pub(super) fn scan(shared: &Shared<'_>) -> Result<(), ScanError> {
    let settings = shared.settings;
    shared.progress.set_queue(0, 1);
    std::thread::scope(|scope| {
        let walk = || {
            caught(|| {
                if settings.background {
                    super::priority::lower_this_thread();
                }
                LinkWalk::new(shared, all_known(shared.known)?).run();
                Ok(())
            })
        };
        let walking = std::thread::Builder::new()
            .name("sifter-scan".to_owned())
            .stack_size(STACK_SIZE)
            .spawn_scoped(scope, walk)
            .map_err(|error| ScanError::internal(settings, no_thread(&error)))?;
        match walking.join() {
            Ok(Ok(walked)) => walked.map_err(|error| ScanError::known(settings, error)),
            Ok(Err(message)) => Err(ScanError::internal(settings, message)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

impl Shared<'_> {
    /// Tells that nothing is mounted where something was.
    fn unmounted(&self, path: &Path) {
        self.progress
            .problem(path, "read directory", &Unmounted.into());
    }

    /// A path relative to the root.
    fn relative<'p>(&self, path: &'p Path) -> &'p [u8] {
        path.strip_prefix(&self.settings.path)
            .unwrap_or(path)
            .as_os_str()
            .as_bytes()
    }

    fn is_entered(&self, entry: &DirEntry) -> bool {
        let directory = entry.path().parent().unwrap_or(&self.settings.path);
        let (directory, name) = (self.relative(directory), entry.file_name().as_bytes());
        !entry.file_type().is_dir()
            || entry.depth() == 0
            || is_entered(self.settings, directory, name)
    }
}

/// One walk, and how far it is.
struct LinkWalk<'a> {
    scan: &'a Shared<'a>,
    /// Known directories that it has not come to.
    known: HashMap<Box<[u8]>, KnownDirectory>,
    /// Directories that it is in, by their depths.
    open: Vec<(usize, OpenDirectory)>,
    /// What it could not read.
    unreadable: Vec<Box<[u8]>>,
    /// The directory of which it was last told that nothing below is entered.
    told: Option<PathBuf>,
    /// The root's device.
    device: Option<u64>,
}

impl<'a> LinkWalk<'a> {
    fn new(scan: &'a Shared<'a>, known: HashMap<Box<[u8]>, KnownDirectory>) -> Self {
        let of_root = scan.settings.path.metadata();
        Self {
            scan,
            known,
            open: Vec::new(),
            unreadable: Vec::new(),
            told: None,
            device: of_root.ok().map(|metadata| metadata.dev()),
        }
    }

    fn run(mut self) {
        let (scan, settings) = (self.scan, self.scan.settings);
        let max_depth = settings.max_depth as usize;
        let mut walk = WalkDir::new(&settings.path)
            .follow_links(true)
            .max_depth(max_depth + 1)
            .same_file_system(!settings.cross_file_systems)
            .into_iter()
            .filter_entry(|entry| scan.is_entered(entry));
        while let Some(entry) = walk.next() {
            if scan.progress.is_cancelled() {
                return;
            }
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.cannot_read(&error);
                    continue;
                }
            };
            self.leave(entry.depth());
            let kind = entry.file_type();
            if kind.is_dir() && entry.depth() > max_depth {
                self.too_deep(&entry);
            } else if kind.is_dir() {
                if self.enter(&entry) {
                    walk.skip_current_dir();
                }
            } else if kind.is_file()
                && let Some((_, directory)) = self.open.last_mut()
            {
                directory.file(&entry, scan);
            }
        }
        self.leave(0);
        self.forget();
    }

    fn cannot_read(&mut self, error: &walkdir::Error) {
        // A loop and a link to nowhere or itself are part of what users leave behind.
        if error.loop_ancestor().is_some() {
            return;
        }
        let path = error.path().unwrap_or(&self.scan.settings.path);
        let error = error.io_error().map(copy_of);
        let is_told = |error: &io::Error| {
            error.kind() != io::ErrorKind::NotFound
                && error.raw_os_error() != Some(Errno::ELOOP as i32)
        };
        let Some(error) = error.filter(is_told) else {
            return;
        };
        self.scan.progress.problem(path, "read", &error);
        let path = self.scan.relative(path);
        // A directory, of which there may have been a part, or something in one.
        for (_, directory) in &mut self.open {
            directory.cannot_read(path, &error);
        }
        self.unreadable.push(path.into());
    }

    /// Reports the directories that have been read to their end, where something so deep comes next.
    fn leave(&mut self, depth: usize) {
        while let Some((_, done)) = self.open.pop_if(|(of, _)| *of >= depth) {
            (self.scan.sink)(done.finish());
        }
    }

    fn too_deep(&mut self, entry: &DirEntry) {
        // Those of a directory follow each other, for none of them is entered.
        let scan = self.scan;
        let parent = entry.path().parent().unwrap_or(&scan.settings.path);
        if !scan.options.chosen_depth && self.told.as_deref() != Some(parent) {
            let error = too_deep(scan.settings);
            scan.progress.problem(parent, "descend below", &error);
            self.told = Some(parent.to_owned());
        }
    }

    /// Comes to a directory; whether its inside is nobody's, as that of a sandbox.
    fn enter(&mut self, entry: &DirEntry) -> bool {
        let scan = self.scan;
        if let Some((_, parent)) = self.open.last_mut() {
            parent.child(entry.file_name().as_bytes());
        }
        scan.add(&Counts {
            directories: 1,
            operations: 4,
            ..Counts::default()
        });
        let path: Box<[u8]> = scan.relative(entry.path()).into();
        let metadata = entry.metadata().ok();
        // The walk goes not into a directory on another one, but names it.
        let is_entered = scan.settings.cross_file_systems
            || metadata.as_ref().map(MetadataExt::dev) == self.device;
        let identity = metadata.map_or_else(Identity::default, |metadata| identity_of(&metadata));
        let known = self.known.remove(&path);
        let is_missing = known.is_some() && scan.submounts.is_missing(&path);
        let mut directory = OpenDirectory::new(path, identity, known);
        if is_missing {
            scan.unmounted(entry.path());
            directory.error = Some(Unmounted.to_string());
            self.open.push((entry.depth(), directory));
            return true;
        }
        let is_sandbox = is_entered
            && is_sandbox(entry.path())
            && directory.sandbox(entry, scan).unwrap_or_else(|error| {
                // It is one all the same: what is known of it stays.
                scan.progress.problem(entry.path(), "read sandbox", &error);
                directory.error = Some(error.to_string());
                true
            });
        self.open.push((entry.depth(), directory));
        is_sandbox
    }

    /// What is known and was not come to is gone, unless it lies where nothing could be read.
    fn forget(self) {
        let is_hidden = |path: &[u8]| {
            let mut unreadable = self.unreadable.iter();
            unreadable.any(|hidden| is_within(path, hidden))
        };
        let submounts = self.scan.submounts;
        for gone in self.known.into_values() {
            let kind = if !submounts.is_missing(&gone.path) {
                ChangeKind::Gone
            } else if !submounts.hides(&gone.path) {
                // Also the directory went with what was mounted on it.
                self.scan
                    .unmounted(&absolute(&self.scan.settings.path, &gone.path));
                ChangeKind::Unreadable {
                    message: Unmounted.to_string(),
                }
            } else {
                continue;
            };
            if !is_hidden(&gone.path) {
                (self.scan.sink)(DirectoryChange {
                    id: Some(gone.id),
                    path: gone.path,
                    kind,
                });
            }
        }
    }
}

fn all_known(known: Option<&dyn Known>) -> Result<HashMap<Box<[u8]>, KnownDirectory>, KnownError> {
    let mut all = HashMap::new();
    if let Some(known) = known {
        loop {
            let batch = known.next_directories()?;
            if batch.is_empty() {
                break;
            }
            all.extend(batch.into_iter().map(|known| (known.path.clone(), known)));
        }
    }
    Ok(all)
}

fn copy_of(error: &io::Error) -> io::Error {
    error
        .raw_os_error()
        .map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}
