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
use std::path::Path;

use nix::errno::Errno;
use walkdir::WalkDir;

use crate::catalog::{ChangeKind, DirectoryChange, Identity, KnownDirectory};
use crate::config::RootSettings;

use self::directory::{OpenDirectory, identity_of, is_sandbox};
use super::ScanOptions;
use super::candidates::is_entered;
use super::dir::Access;
use super::pace::Pace;
use super::panics::caught;
use super::plan::{Known, KnownError};
use super::progress::{Counts, Progress};
use super::walk::{STACK_SIZE, WalkError, too_deep};

/// Scans by path, following links. Every directory is read each time; files that are known and
/// unchanged are not opened. The walk has a thread of its own, for a priority is never raised again.
pub(super) fn scan(
    settings: &RootSettings,
    access: &Access,
    options: ScanOptions,
    known: Option<&dyn Known>,
    pace: &Pace,
    progress: &Progress,
    sink: &(dyn Fn(DirectoryChange) + Sync),
) -> Result<(), WalkError> {
    std::thread::scope(|scope| {
        let walk = || {
            caught(|| {
                if settings.background {
                    super::priority::lower_this_thread();
                }
                let account = Account { pace, progress };
                walk(settings, access, options, known, &account, sink)
            })
        };
        let walking = std::thread::Builder::new()
            .name("sifter-scan".to_owned())
            .stack_size(STACK_SIZE)
            .spawn_scoped(scope, walk)
            .map_err(WalkError::Thread)?;
        match walking.join() {
            Ok(Ok(walked)) => walked.map_err(WalkError::Known),
            Ok(Err(message)) => Err(WalkError::Internal(message)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// What the walk counts, and how fast it may.
struct Account<'a> {
    pace: &'a Pace,
    progress: &'a Progress,
}

impl Account<'_> {
    /// Hands counts on, and gives way if the rate asks for it.
    fn add(&self, counts: &Counts) {
        let progress = self.progress;
        progress.set_queue(0, 1);
        progress.add(counts);
        let waited = self.pace.throttle(counts.operations, || {
            progress.note_activity();
            progress.is_cancelled()
        });
        progress.add_throttled(waited);
    }
}

fn walk(
    settings: &RootSettings,
    access: &Access,
    options: ScanOptions,
    known: Option<&dyn Known>,
    account: &Account<'_>,
    sink: &(dyn Fn(DirectoryChange) + Sync),
) -> Result<(), KnownError> {
    let progress = account.progress;
    let mut known = all_known(known)?;
    let mut open: Vec<(usize, OpenDirectory)> = Vec::new();
    let probe = options.probe(settings);
    let mut unreadable: Vec<Box<[u8]>> = Vec::new();
    let mut told = None;
    let device = settings.path.metadata().ok().map(|metadata| metadata.dev());
    let mut walk = WalkDir::new(&settings.path)
        .follow_links(true)
        .max_depth(settings.max_depth as usize + 1)
        .same_file_system(!settings.cross_file_systems)
        .into_iter()
        .filter_entry(|entry| {
            let directory = entry.path().parent().unwrap_or(&settings.path);
            !entry.file_type().is_dir()
                || entry.depth() == 0
                || is_entered(
                    settings,
                    relative(&settings.path, directory),
                    entry.file_name().as_bytes(),
                )
        });
    while let Some(entry) = walk.next() {
        if progress.is_cancelled() {
            return Ok(());
        }
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                let path = error.path().unwrap_or(&settings.path).to_owned();
                // A loop and a link to nowhere or itself are part of what users leave behind.
                if error.loop_ancestor().is_none()
                    && let Some(error) = error.io_error().map(copy_of)
                    && error.kind() != io::ErrorKind::NotFound
                    && error.raw_os_error() != Some(Errno::ELOOP as i32)
                {
                    progress.problem(&path, "read", &error);
                    let path = relative(&settings.path, &path);
                    // A directory, of which there may have been a part, or something in one.
                    for (_, directory) in &mut open {
                        directory.cannot_read(path, &error);
                    }
                    unreadable.push(path.into());
                }
                continue;
            }
        };
        while let Some((_, done)) = open.pop_if(|(depth, _)| *depth >= entry.depth()) {
            sink(done.finish());
        }
        if entry.file_type().is_dir() && entry.depth() > settings.max_depth as usize {
            // Those of a directory follow each other, for none of them is entered.
            let parent = entry.path().parent().unwrap_or(&settings.path);
            if !options.chosen_depth && told.as_deref() != Some(parent) {
                progress.problem(parent, "descend below", &too_deep(settings));
                told = Some(parent.to_owned());
            }
        } else if entry.file_type().is_dir() {
            if let Some((_, parent)) = open.last_mut() {
                parent.child(entry.file_name().as_bytes());
            }
            account.add(&Counts {
                directories: 1,
                operations: 4,
                ..Counts::default()
            });
            let path: Box<[u8]> = relative(&settings.path, entry.path()).into();
            let metadata = entry.metadata();
            // The walk goes not into a directory on another one, but names it.
            let is_entered = settings.cross_file_systems
                || metadata.as_ref().ok().map(MetadataExt::dev) == device;
            let identity =
                metadata.map_or_else(|_| Identity::default(), |metadata| identity_of(&metadata));
            let known = known.remove(&path);
            let mut directory = OpenDirectory::new(path, identity, known);
            if is_entered && is_sandbox(entry.path()) {
                match directory.sandbox(&entry, access, options, &probe, account) {
                    Ok(false) => {}
                    Ok(true) => walk.skip_current_dir(),
                    // It is one all the same: what is known of it stays, and its inside is nobody's.
                    Err(error) => {
                        progress.problem(entry.path(), "read sandbox", &error);
                        directory.error = Some(error.to_string());
                        walk.skip_current_dir();
                    }
                }
            }
            open.push((entry.depth(), directory));
        } else if entry.file_type().is_file()
            && let Some((_, directory)) = open.last_mut()
        {
            directory.file(&entry, settings, access, options, &probe, account);
        }
    }
    while let Some((_, directory)) = open.pop() {
        sink(directory.finish());
    }
    let is_hidden = |path: &[u8]| unreadable.iter().any(|hidden| is_within(path, hidden));
    for gone in known.into_values() {
        if is_hidden(&gone.path) {
            continue;
        }
        sink(DirectoryChange {
            id: Some(gone.id),
            path: gone.path,
            kind: ChangeKind::Gone,
        });
    }
    Ok(())
}

/// Whether a path is another one, or lies below it.
fn is_within(path: &[u8], other: &[u8]) -> bool {
    let rest = path.strip_prefix(other);
    rest.is_some_and(|rest| other.is_empty() || rest.is_empty() || rest.starts_with(b"/"))
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

fn relative<'p>(root: &Path, path: &'p Path) -> &'p [u8] {
    path.strip_prefix(root)
        .unwrap_or(path)
        .as_os_str()
        .as_bytes()
}

fn copy_of(error: &io::Error) -> io::Error {
    error
        .raw_os_error()
        .map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}
