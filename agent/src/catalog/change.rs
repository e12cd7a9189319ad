//! What a scan and the catalogue say to each other: what is known, and what changed.

use super::entry::Found;
use super::facts::{FileTime, Identity};

/// A directory that the catalogue knows, with the candidates in it.
#[derive(Debug, Clone)]
pub struct KnownDirectory {
    /// Its number in the catalogue.
    pub id: i64,
    /// Path relative to the root; empty for the root itself.
    pub path: Box<[u8]>,
    /// What tells whether it changed.
    pub identity: Identity,
    /// Whether it must be read again whatever its identity says.
    pub volatile: bool,
    /// The candidates in it that were looked at.
    pub files: Vec<KnownFile>,
}

/// A candidate that the catalogue knows.
#[derive(Debug, Clone)]
pub struct KnownFile {
    /// Name; empty for a sandbox, which is the directory itself.
    pub name: Box<[u8]>,
    /// What tells whether it changed.
    pub identity: Identity,
    /// Whether it must be looked at again whatever its identity says.
    pub volatile: bool,
    /// Number of the image; `None` for what is no image.
    pub image: Option<i64>,
    /// Last access of the image as the listing has it.
    pub accessed: FileTime,
}

/// What a scan found in one directory. A directory in which nothing changed gives none.
#[derive(Debug, Clone)]
pub struct DirectoryChange {
    /// Its number in the catalogue, if it is known.
    pub id: Option<i64>,
    /// Path relative to the root; empty for the root itself.
    pub path: Box<[u8]>,
    /// What happened to it.
    pub kind: ChangeKind,
}

impl DirectoryChange {
    /// How much there is to store: the directory, and each candidate.
    #[must_use]
    pub fn size(&self) -> usize {
        match &self.kind {
            ChangeKind::Read { found, .. }
            | ChangeKind::Part { found }
            | ChangeKind::Files { found, .. } => 1 + found.len(),
            ChangeKind::Gone | ChangeKind::Unreadable { .. } => 1,
        }
    }
}

/// What happened to a directory.
#[derive(Debug, Clone)]
pub enum ChangeKind {
    /// It was read. Candidates that are neither found nor removed are as they were.
    Read {
        /// What tells whether it changes again.
        identity: Identity,
        /// Whether it must be read again next time.
        volatile: bool,
        /// Names of the directories in it that are not known yet; each gets a change of its own.
        children: Vec<Box<[u8]>>,
        /// Candidates that are new or changed.
        found: Vec<Found>,
        /// Names of known candidates that are gone.
        removed: Vec<Box<[u8]>>,
    },
    /// Some of what is in it, while it is being read: so that the images of a large directory need not
    /// be held until its last one. The rest, and what is said of the directory itself, follows with
    /// [`ChangeKind::Read`].
    Part {
        /// Candidates that are new or changed.
        found: Vec<Found>,
    },
    /// It is as it was, but files in it changed.
    Files {
        /// Candidates that changed.
        found: Vec<Found>,
        /// Names of known candidates that are gone.
        removed: Vec<Box<[u8]>>,
    },
    /// It is not there any more.
    Gone,
    /// It cannot be read now; what is known of it stays, as UNAVAILABLE.
    Unreadable {
        /// Why.
        message: String,
    },
}
