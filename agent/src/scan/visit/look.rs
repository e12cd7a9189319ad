//! What a candidate is: told as cheaply as what is known of it allows.

use std::ffi::{CStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::errno::Errno;
use sifter_image::{NotImage, Subject, Verdict};

use crate::catalog::{
    ChangeKind, Content, DirectoryChange, FileFacts, FileTime, Found, Identity, KnownDirectory,
    KnownFile, join_path,
};

use super::super::candidates::{Candidate, SIZE_MIN};
use super::super::dir::{Dir, EntryKind, absolute, c_name, join};
use super::super::file::{Reading, released};
use super::super::pace::Timed;
use super::super::panics;
use super::super::plan::{is_moved, is_racy, is_young, may_be_moved};
use super::super::sandbox::{SandboxTree, TELLING};
use super::Visitor;

/// A later access is worth an update of the listing from this on: what `relatime`, the usual mount
/// option, distinguishes.
const ACCESS_GRANULARITY: i64 = 86_400_000_000_000;

/// The directory that candidates are in, as far as looking at them needs it.
#[derive(Clone, Copy)]
pub(super) struct Parent<'d> {
    pub dir: &'d Dir,
    pub path: &'d [u8],
    /// Files known in it.
    pub known: &'d [KnownFile],
}

impl<'d> Parent<'d> {
    /// What is known of a candidate.
    fn known(&self, candidate: &Candidate) -> Option<&'d KnownFile> {
        self.known.get(candidate.known? as usize)
    }
}

/// What looking at candidates gave.
#[derive(Default)]
pub(super) struct Looked {
    pub found: Vec<Found>,
    pub removed: Vec<Box<[u8]>>,
}

/// What looking at a candidate gave.
pub(super) enum Look {
    Found(Found),
    Gone,
    Unchanged,
}

impl Visitor<'_> {
    pub(super) fn look_at_all(&mut self, parent: Parent<'_>, candidates: &[Candidate]) -> Looked {
        let mut looked = Looked::default();
        for (index, candidate) in candidates.iter().enumerate() {
            if self.shared.progress.is_cancelled() {
                break;
            }
            match self.look_at(parent, candidate) {
                Look::Found(found) => {
                    // Mostly all of them are found, or none.
                    if looked.found.is_empty() {
                        looked.found.reserve_exact(candidates.len() - index);
                    }
                    looked.found.push(found);
                }
                Look::Gone if candidate.known.is_some() => {
                    looked.removed.push(candidate.name.to_bytes().into());
                }
                Look::Gone | Look::Unchanged => {}
            }
        }
        looked
    }

    /// Looks at one candidate: as cheaply as what is known of it allows.
    pub(super) fn look_at(&mut self, parent: Parent<'_>, candidate: &Candidate) -> Look {
        let name = candidate.name.as_c_str();
        if let Some(known) = parent.known(candidate)
            && !known.volatile
            && !self.shared.options.full
        {
            let same_inode = known.identity.inode == candidate.inode;
            if same_inode && !self.shared.options.check_files {
                self.counts.images += u64::from(known.image.is_some());
                return Look::Unchanged;
            }
            match self.timed(Timed::State, |operations| parent.dir.stat(name, operations)) {
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
            && let Some(known) = self.shared.known
            && !self.shared.options.full
            // Naming rules go by the path, which is another one now.
            && self.shared.settings.naming.is_empty()
            && let images = known.images_with_inode(candidate.inode)
            && !images.is_empty()
            && let Ok((EntryKind::File, facts)) = parent.dir.stat(name, &mut self.operations)
        {
            let seen = Identity::from(&facts);
            let moved = images.iter().find(|(_, known)| may_be_moved(known, &seen));
            // One that is gone from the catalogue meanwhile is read like any other.
            if let Some((id, _)) = moved
                && let Ok(Some(image)) = known.image(*id)
                && is_moved(&image, &facts, self.shared.options.network)
            {
                self.counts.images += 1;
                // An unfinished one is looked at until it is finished, or old.
                let volatile = image.row.view().status == sifter_image::record::Status::Transfer
                    || is_racy(&seen, FileTime::now(), self.shared.options.network);
                return Look::Found(Found {
                    name: name.to_bytes().into(),
                    facts,
                    volatile,
                    content: Content::Moved(Box::new(image)),
                });
            }
        }
        // What is known of it counts, unless all is to be as if nothing were known.
        if candidate.if_large && (candidate.known.is_none() || self.shared.options.full) {
            match self.timed(Timed::State, |operations| parent.dir.stat(name, operations)) {
                Ok((EntryKind::File, facts)) if facts.size >= SIZE_MIN => {}
                // Small now, but perhaps only because it is being written.
                Ok((EntryKind::File, facts)) if self.is_young(&facts) => {
                    return Look::Found(other(name, facts, true));
                }
                Ok(_) => return Look::Gone,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Look::Gone,
                // Opening it says the same, and keeps what is known.
                Err(_) if candidate.known.is_some() => {}
                Err(error) => {
                    self.problem(&join(parent.path, name.to_bytes()), "stat", &error);
                    return Look::Gone;
                }
            }
        }
        self.read(parent, candidate)
    }

    /// The image again if it was read since the listing's last access: reading changes neither what
    /// it is nor what tells whether it changed.
    pub(super) fn accessed(&self, file: &KnownFile, facts: FileFacts) -> Option<Found> {
        let age = facts.accessed.0.saturating_sub(file.accessed.0);
        if age < ACCESS_GRANULARITY || file.name.is_empty() {
            return None;
        }
        let image = self.shared.known?.image(file.image?).ok()??;
        Some(Found {
            name: file.name.clone(),
            facts,
            volatile: false,
            content: Content::Moved(Box::new(image)),
        })
    }

    /// Opens and probes one file.
    fn read(&mut self, parent: Parent<'_>, candidate: &Candidate) -> Look {
        let shared = self.shared;
        let name = candidate.name.as_c_str();
        let path = || join(parent.path, name.to_bytes());
        let network = shared.options.network;
        let reading = Reading {
            tape: network,
            window: shared.options.window,
            cold: !shared.options.window && self.sampling.files_are_slow(),
        };
        let now = FileTime::now();
        let root = shared.settings.path.as_os_str().as_bytes();
        let full_path = join_path(root, parent.path, name.to_bytes()).into_vec();
        let full_path = std::path::PathBuf::from(OsString::from_vec(full_path));
        let opened = self.timed(Timed::File, |operations| -> io::Result<_> {
            let file = shared
                .access
                .open_file(parent.dir, name, reading, operations)?;
            let facts = file.facts;
            if file.released {
                return Ok((facts, None));
            }
            let subject = Subject {
                path: &full_path,
                modified: facts.modified.timestamp(),
                now: now.timestamp(),
            };
            let verdict = panics::probe(&file, &subject, &shared.probe);
            let cost = file.operations();
            operations.calls += cost.calls + 1;
            operations.bytes += cost.bytes;
            Ok((facts, Some(verdict)))
        });
        let (facts, verdict) = match opened {
            Ok((facts, Some(verdict))) => (facts, verdict),
            Ok((facts, None)) => {
                self.problem(&path(), "read", &released());
                return self.unreadable(parent, candidate, Some(facts));
            }
            Err(error) => {
                let errno = error.raw_os_error().map(Errno::from_raw);
                if errno == Some(Errno::ENOENT) {
                    return Look::Gone;
                }
                self.problem(&path(), "open", &error);
                let facts = parent.dir.stat(name, &mut self.operations);
                return match (facts, parent.known(candidate)) {
                    // What was known is not here any more.
                    (Ok((_, facts)), Some(known)) if facts.inode != known.identity.inode => {
                        Look::Found(other(name, facts, true))
                    }
                    (facts, _) => {
                        self.unreadable(parent, candidate, facts.ok().map(|(_, facts)| facts))
                    }
                };
            }
        };
        self.counts.files_read += 1;
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
                self.unreadable(parent, candidate, Some(facts))
            }
        }
    }

    /// What is known of a file that cannot be read stays, with the owner and the mode that it has now: who
    /// may see it goes by them. Size and time stay those of what was read, or it would pass for read once it
    /// is moved. What is not known is looked at again.
    fn unreadable(
        &self,
        parent: Parent<'_>,
        candidate: &Candidate,
        facts: Option<FileFacts>,
    ) -> Look {
        let Some(known) = parent.known(candidate) else {
            return Look::Found(other(&candidate.name, facts.unwrap_or_default(), true));
        };
        let facts = facts.map(|facts| FileFacts {
            size: known.identity.size,
            modified: known.identity.modified,
            ..facts
        });
        let changed = facts.filter(|facts| Identity::from(facts) != known.identity);
        if let (Some(facts), Some(id), Some(catalogue)) = (changed, known.image, self.shared.known)
            && let Ok(Some(image)) = catalogue.image(id)
        {
            return Look::Found(Found {
                name: known.name.clone(),
                facts,
                volatile: true,
                content: Content::Moved(Box::new(image)),
            });
        }
        Look::Unchanged
    }

    fn is_young(&self, facts: &FileFacts) -> bool {
        is_young(facts, self.shared.settings.transfer_age, FileTime::now())
    }

    // === sandboxes ===

    pub(super) fn sandbox(
        &mut self,
        dir: &Dir,
        path: &[u8],
        facts: FileFacts,
        started: FileTime,
    ) -> io::Result<Option<Found>> {
        let shared = self.shared;
        let full_path = absolute(&shared.settings.path, path);
        let tree = SandboxTree::new(shared.access, dir);
        let subject = Subject {
            path: &full_path,
            modified: facts.modified.timestamp(),
            now: started.timestamp(),
        };
        // Before it is read: a later change is seen the next time.
        let changed = tree.changed(&facts);
        let verdict = panics::probe_directory(&tree, &subject, &shared.probe);
        let cost = tree.operations();
        self.operations.calls += cost.calls;
        self.operations.bytes += cost.bytes;
        match verdict {
            Ok(Verdict::Image(image)) => {
                self.counts.images += 1;
                let facts = FileFacts {
                    // A directory's own size says nothing about the image in it.
                    size: 0,
                    changed,
                    ..facts
                };
                Ok(Some(Found {
                    name: Box::default(),
                    facts,
                    volatile: is_racy(&Identity::from(&facts), started, shared.options.network),
                    content: Content::Image(image),
                }))
            }
            Ok(Verdict::NotImage(_)) => Ok(None),
            Err(error) => {
                self.problem(path, "read sandbox", &error);
                Err(error)
            }
        }
    }

    /// Whether a known sandbox, the directory of which is as it was, says of itself what it said.
    pub(super) fn says_the_same(&mut self, directory: &[u8], known: &KnownFile) -> bool {
        for name in TELLING {
            let root = self.shared.root;
            let told = c_name(&join(directory, name.to_bytes())).and_then(|path| {
                self.timed(Timed::State, |operations| root.stat(&path, operations))
            });
            match told {
                Ok((_, facts)) => return facts.changed <= known.identity.changed,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // Unreadable: looking at it tells.
                Err(_) => return false,
            }
        }
        true
    }

    /// A sandbox has one image, itself, and nothing below it is known.
    pub(super) fn finish_sandbox(
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

fn other(name: &CStr, facts: FileFacts, volatile: bool) -> Found {
    Found {
        name: name.to_bytes().into(),
        facts,
        volatile,
        content: Content::Other,
    }
}
