//! The walk that follows symbolic links (`follow_symlinks`): walkdir with its loop detection, one
//! directory after the other, by path. Slower and less confined than the fd-relative walk: for
//! roots whose owners the site trusts. One operation is in flight at a time, whatever the width.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use walkdir::WalkDir;

use crate::catalog::{
    ChangeKind, Content, DirectoryChange, FileFacts, FileTime, Found, Identity, KnownDirectory,
};
use crate::config::RootSettings;

use super::ScanOptions;
use super::candidates::{Candidacy, SIZE_MIN, candidacy, is_excluded};
use super::dir::{Access, Operations, c_name};
use super::file::{Reading, released};
use super::pace::Pace;
use super::panics::{self, caught};
use super::plan::{Known, KnownError, is_racy};
use super::progress::{Counts, Progress};
use super::sandbox::{SandboxTree, TELLING};
use super::walk::{STACK_SIZE, WalkError};

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
    let probe = sifter_image::Options {
        transfer_age: settings.transfer_age,
        naming: settings.naming.clone(),
        inside_file_systems: settings.inside_file_systems,
    };
    let mut unreadable: Vec<Box<[u8]>> = Vec::new();
    let device = settings.path.metadata().ok().map(|metadata| metadata.dev());
    let mut walk = WalkDir::new(&settings.path)
        .follow_links(true)
        .max_depth(settings.max_depth as usize + 1)
        .same_file_system(!settings.cross_file_systems)
        .into_iter()
        .filter_entry(|entry| {
            let relative = relative(&settings.path, entry.path());
            !entry.file_type().is_dir()
                || entry.depth() == 0
                || !(settings
                    .skip
                    .iter()
                    .any(|skip| skip == entry.file_name().as_bytes())
                    || is_excluded(settings, b"", relative))
        });
    while let Some(entry) = walk.next() {
        if progress.is_cancelled() {
            return Ok(());
        }
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                let path = error.path().unwrap_or(&settings.path).to_owned();
                // A loop and a link to nowhere are part of what users leave behind.
                if error.loop_ancestor().is_none()
                    && let Some(error) = error.io_error().map(copy_of)
                    && error.kind() != io::ErrorKind::NotFound
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
        if entry.file_type().is_dir() {
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

/// A directory of which not all entries were seen yet.
struct OpenDirectory {
    id: Option<i64>,
    path: Box<[u8]>,
    identity: Identity,
    known_files: HashMap<Box<[u8]>, crate::catalog::KnownFile>,
    children: Vec<Box<[u8]>>,
    found: Vec<Found>,
    is_known: bool,
    /// Why it cannot be read to its end.
    error: Option<String>,
}

impl OpenDirectory {
    fn new(path: Box<[u8]>, identity: Identity, known: Option<KnownDirectory>) -> Self {
        Self {
            id: known.as_ref().map(|known| known.id),
            is_known: known.is_some(),
            path,
            identity,
            known_files: known
                .into_iter()
                .flat_map(|known| known.files)
                .map(|file| (file.name.clone(), file))
                .collect(),
            children: Vec::new(),
            found: Vec::new(),
            error: None,
        }
    }

    /// Something cannot be read: this directory, or what is known in it stays as it is.
    fn cannot_read(&mut self, path: &[u8], error: &io::Error) {
        if *path == *self.path {
            self.error = Some(error.to_string());
            return;
        }
        let name = match &*self.path {
            b"" => Some(path),
            own => path
                .strip_prefix(own)
                .and_then(|rest| rest.strip_prefix(b"/")),
        };
        if let Some(name) = name {
            self.known_files.remove(name);
        }
    }

    /// Whether the directory is one image, of which nothing but itself is listed then.
    fn sandbox(
        &mut self,
        entry: &walkdir::DirEntry,
        access: &Access,
        options: ScanOptions,
        probe: &sifter_image::Options,
        account: &Account<'_>,
    ) -> io::Result<bool> {
        let known = self.known_files.get(b"".as_slice());
        if let Some(known) = known
            && known.image.is_some()
            && !known.volatile
            && !options.full
            && known.identity
                == (Identity {
                    changed: changed_inside(entry.path(), &self.identity),
                    ..self.identity
                })
        {
            self.known_files.remove(b"".as_slice());
            account.add(&Counts {
                images: 1,
                ..Counts::default()
            });
            return Ok(true);
        }
        let mut operations = Operations::default();
        let dir = access.open_root(entry.path(), &mut operations)?;
        let (_, facts) = dir.identity(&mut operations)?;
        let now = FileTime::now();
        let subject = sifter_image::Subject {
            path: entry.path(),
            modified: facts.modified.timestamp(),
            now: now.timestamp(),
        };
        let tree = SandboxTree::new(access, &dir);
        let facts = FileFacts {
            size: 0,
            changed: tree.changed(&facts),
            ..facts
        };
        let verdict = panics::probe_directory(&tree, &subject, probe)?;
        let cost = tree.operations();
        account.add(&Counts {
            operations: operations.calls + cost.calls,
            bytes: cost.bytes,
            ..Counts::default()
        });
        let sifter_image::Verdict::Image(image) = verdict else {
            return Ok(false);
        };
        account.add(&Counts {
            images: 1,
            ..Counts::default()
        });
        self.known_files.remove(b"".as_slice());
        self.found.push(Found {
            name: Box::default(),
            facts,
            volatile: is_racy(&Identity::from(&facts), now, options.network),
            content: Content::Image(image),
        });
        Ok(true)
    }

    fn child(&mut self, name: &[u8]) {
        if !self.is_known {
            self.children.push(name.into());
        }
    }

    fn file(
        &mut self,
        entry: &walkdir::DirEntry,
        settings: &RootSettings,
        access: &Access,
        options: ScanOptions,
        probe: &sifter_image::Options,
        account: &Account<'_>,
    ) {
        let name = entry.file_name().as_bytes();
        let mut counts = Counts {
            files: 1,
            ..Counts::default()
        };
        let candidacy = candidacy(settings, &self.path, name);
        if candidacy != Candidacy::No {
            let looked = look_at(
                entry,
                candidacy,
                self.known_files.get(name),
                access,
                options,
                probe,
                settings,
                &mut counts,
            );
            // What is left of those that were known is gone.
            if !matches!(looked, Ok(Look::Gone)) {
                self.known_files.remove(name);
            }
            match looked {
                Ok(Look::Found(found)) => self.found.push(*found),
                Ok(Look::Gone | Look::Unchanged) => {}
                Err(error) => account.progress.problem(entry.path(), "read", &error),
            }
        }
        account.add(&counts);
    }

    fn finish(self) -> DirectoryChange {
        if let Some(message) = self.error {
            return DirectoryChange {
                id: self.id,
                path: self.path,
                kind: ChangeKind::Unreadable { message },
            };
        }
        DirectoryChange {
            id: self.id,
            path: self.path,
            kind: ChangeKind::Read {
                identity: self.identity,
                // What is behind a link may change without the directory's timestamp telling.
                volatile: true,
                children: self.children,
                found: self.found,
                removed: self.known_files.into_keys().collect(),
            },
        }
    }
}

/// What looking at a file gave.
enum Look {
    Found(Box<Found>),
    Gone,
    Unchanged,
}

#[allow(clippy::too_many_arguments)] // one call, above
fn look_at(
    entry: &walkdir::DirEntry,
    candidacy: Candidacy,
    known: Option<&crate::catalog::KnownFile>,
    access: &Access,
    options: ScanOptions,
    probe: &sifter_image::Options,
    settings: &RootSettings,
    counts: &mut Counts,
) -> io::Result<Look> {
    counts.operations += 1;
    let metadata = entry.metadata()?;
    if let Some(known) = known
        && !known.volatile
        && !options.full
        && known.identity == file_identity(&metadata)
    {
        counts.images += u64::from(known.image.is_some());
        return Ok(Look::Unchanged);
    }
    // What is known of it counts, unless all is to be as if nothing were known.
    let goes_by_size = known.is_none() || options.full;
    if candidacy == Candidacy::IfLarge && goes_by_size && metadata.len() < SIZE_MIN {
        return Ok(Look::Gone);
    }
    let mut operations = Operations::default();
    let target = entry.path().canonicalize()?;
    let (Some(directory), Some(target_name)) = (target.parent(), target.file_name()) else {
        return Ok(Look::Gone);
    };
    let dir = access.open_root(directory, &mut operations)?;
    let file = access.open_file(
        &dir,
        &c_name(target_name.as_bytes())?,
        Reading {
            tape: options.network,
            window: options.window,
            cold: false,
        },
        &mut operations,
    )?;
    if file.released {
        counts.operations += operations.calls;
        return Err(released());
    }
    counts.files_read += 1;
    let now = FileTime::now();
    let subject = sifter_image::Subject {
        path: entry.path(),
        modified: file.facts.modified.timestamp(),
        now: now.timestamp(),
    };
    let verdict = panics::probe(&file, &subject, probe)?;
    let read = file.operations();
    counts.operations += operations.calls + read.calls + 1;
    counts.bytes += read.bytes;
    let young = i64::try_from(settings.transfer_age.as_nanos()).unwrap_or(i64::MAX);
    let volatile = file.facts.modified.0 > now.0.saturating_sub(young);
    let content = match verdict {
        sifter_image::Verdict::Image(image) => {
            counts.images += 1;
            Content::Image(image)
        }
        sifter_image::Verdict::NotImage(why) => {
            counts.misnamed += u64::from(why == sifter_image::NotImage::Misnamed);
            Content::Other
        }
    };
    Ok(Look::Found(Box::new(Found {
        name: entry.file_name().as_bytes().into(),
        facts: file.facts,
        volatile,
        content,
    })))
}

/// Whether there are the marks of a sandbox: `.singularity.d`, or the scripts of Singularity 2.2 and earlier.
fn is_sandbox(directory: &Path) -> bool {
    let is_there = |name: &str| directory.join(name).symlink_metadata();
    is_there(".singularity.d").is_ok_and(|metadata| metadata.is_dir())
        || [".exec", ".run", ".shell"]
            .iter()
            .all(|name| is_there(name).is_ok_and(|metadata| metadata.is_file()))
}

/// When a sandbox, or what it says of itself, was changed last.
fn changed_inside(directory: &Path, identity: &Identity) -> FileTime {
    let told = TELLING.iter().find_map(|name| {
        let path = directory.join(OsStr::from_bytes(name.to_bytes()));
        path.symlink_metadata().ok()
    });
    told.map_or(identity.changed, |told| {
        identity.changed.max(file_identity(&told).changed)
    })
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

fn file_identity(metadata: &std::fs::Metadata) -> Identity {
    let time =
        |seconds, nanoseconds: i64| FileTime::new(seconds, u32::try_from(nanoseconds).unwrap_or(0));
    Identity {
        inode: metadata.ino(),
        size: metadata.len(),
        modified: time(metadata.mtime(), metadata.mtime_nsec()),
        changed: time(metadata.ctime(), metadata.ctime_nsec()),
    }
}

fn identity_of(metadata: &std::fs::Metadata) -> Identity {
    Identity {
        size: 0,
        ..file_identity(metadata)
    }
}

fn copy_of(error: &io::Error) -> io::Error {
    error
        .raw_os_error()
        .map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}
