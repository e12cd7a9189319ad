//! One directory of a walk that follows links, and what is looked at in it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sifter_image::record::Status;
use sifter_image::{NotImage, Subject, Verdict};
use walkdir::DirEntry;

use super::super::candidates::{Candidacy, SIZE_MIN, candidacy};
use super::super::file::{Reading, released};
use super::super::operations::Operations;
use super::super::panics;
use super::super::plan::{is_racy, is_young};
use super::super::progress::Counts;
use super::super::sandbox::{SandboxTree, TELLING};
use super::super::work::Shared;
use super::copy_of;
use crate::catalog::{
    ChangeKind, Content, DirectoryChange, FileFacts, FileTime, Found, Identity, KnownDirectory,
    KnownFile,
};

/// A directory of which not all entries were seen yet.
pub(super) struct OpenDirectory {
    id: Option<i64>,
    path: Box<[u8]>,
    identity: Identity,
    known_files: HashMap<Box<[u8]>, KnownFile>,
    children: Vec<Box<[u8]>>,
    found: Vec<Found>,
    is_known: bool,
    /// Why it cannot be read to its end.
    pub(super) error: Option<String>,
}

impl OpenDirectory {
    pub(super) fn new(path: Box<[u8]>, identity: Identity, known: Option<KnownDirectory>) -> Self {
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
    pub(super) fn cannot_read(&mut self, path: &[u8], error: &io::Error) {
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
    pub(super) fn sandbox(&mut self, entry: &DirEntry, scan: &Shared<'_>) -> io::Result<bool> {
        let (access, options) = (scan.access, scan.options);
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
            scan.add(&Counts {
                images: 1,
                ..Counts::default()
            });
            return Ok(true);
        }
        let mut operations = Operations::default();
        let dir = access.open_root(entry.path(), &mut operations)?;
        let (_, facts) = dir.identity(&mut operations)?;
        let now = FileTime::now();
        let subject = Subject {
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
        let verdict = panics::probe_directory(&tree, &subject, &scan.probe)?;
        let cost = tree.operations();
        scan.add(&Counts {
            images: u64::from(matches!(verdict, Verdict::Image(_))),
            operations: operations.calls + cost.calls,
            bytes: cost.bytes,
            ..Counts::default()
        });
        let Verdict::Image(image) = verdict else {
            return Ok(false);
        };
        self.known_files.remove(b"".as_slice());
        self.found.push(Found {
            name: Box::default(),
            facts,
            volatile: is_racy(&Identity::from(&facts), now, options.network),
            content: Content::Image(image),
        });
        Ok(true)
    }

    pub(super) fn child(&mut self, name: &[u8]) {
        if !self.is_known {
            self.children.push(name.into());
        }
    }

    pub(super) fn file(&mut self, entry: &DirEntry, scan: &Shared<'_>) {
        let name = entry.file_name().as_bytes();
        let mut counts = Counts {
            files: 1,
            ..Counts::default()
        };
        let candidacy = candidacy(scan.settings, &self.path, name);
        if candidacy != Candidacy::No {
            let known = self.known_files.get(name);
            let looked = look_at(entry, candidacy, known, scan, &mut counts);
            // Removed since its directory was read.
            let looked = looked.or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(Look::Gone),
                _ => Err(error),
            });
            // What is left of those that were known is gone.
            if !matches!(looked, Ok(Look::Gone)) {
                self.known_files.remove(name);
            }
            match looked {
                Ok(Look::Found(found)) => self.found.push(*found),
                Ok(Look::Gone | Look::Unchanged) => {}
                Err(error) => scan.progress.problem(entry.path(), "read", &error),
            }
        }
        scan.add(&counts);
    }

    pub(super) fn finish(self) -> DirectoryChange {
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

fn look_at(
    entry: &DirEntry,
    candidacy: Candidacy,
    known: Option<&KnownFile>,
    scan: &Shared<'_>,
    counts: &mut Counts,
) -> io::Result<Look> {
    let options = scan.options;
    counts.operations += 1;
    // Of its error only what the system says: the path in it is not escaped, and told anyway.
    let metadata = entry.metadata().map_err(|error| {
        let told = error.io_error().map(copy_of);
        told.unwrap_or_else(|| error.into())
    })?;
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
    let found = read(entry, scan, counts)?;
    Ok(Look::Found(Box::new(found)))
}

/// Opens and probes a file where it really is.
fn read(entry: &DirEntry, scan: &Shared<'_>, counts: &mut Counts) -> io::Result<Found> {
    let network = scan.options.network;
    let mut operations = Operations::default();
    let reading = Reading {
        tape: network,
        window: scan.options.window,
        cold: false,
    };
    let file = (scan.access).open_path(entry.path(), reading, &mut operations)?;
    if file.released {
        counts.operations += operations.calls;
        return Err(released());
    }
    counts.files_read += 1;
    let now = FileTime::now();
    let subject = Subject {
        path: entry.path(),
        modified: file.facts.modified.timestamp(),
        now: now.timestamp(),
    };
    let verdict = panics::probe(&file, &subject, &scan.probe)?;
    let read = file.operations();
    counts.operations += operations.calls + read.calls + 1;
    counts.bytes += read.bytes;
    let (content, volatile) = match verdict {
        Verdict::Image(image) => {
            counts.images += 1;
            let volatile = image.status == Status::Transfer
                || is_racy(&Identity::from(&file.facts), now, network);
            (Content::Image(image), volatile)
        }
        Verdict::NotImage(why) => {
            counts.misnamed += u64::from(why == NotImage::Misnamed);
            let volatile = is_young(&file.facts, scan.settings.transfer_age, now);
            (Content::Other, volatile)
        }
    };
    Ok(Found {
        name: entry.file_name().as_bytes().into(),
        facts: file.facts,
        volatile,
        content,
    })
}

/// Whether there are the marks of a sandbox: `.singularity.d`, or the scripts of Singularity 2.2 and earlier.
pub(super) fn is_sandbox(directory: &Path) -> bool {
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

pub(super) fn identity_of(metadata: &std::fs::Metadata) -> Identity {
    Identity {
        size: 0,
        ..file_identity(metadata)
    }
}
