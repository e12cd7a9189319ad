//! The only entrance: from a file's first bytes to an [`Image`].
//!
//! Whatever the bytes are, a probe ends: with an image (which may be a FAILURE that says what is
//! wrong and where), or with the reason why this is none. Only failing reads are errors.

use std::io;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use crate::read_at::{ReadAt, ReadTree};
use crate::record::Image;
use crate::reference::NamingRule;

/// What is known of the file before a byte of it is read.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Absolute path, for the naming conventions and the file stem.
    pub path: &'a Path,
    /// The file's modification time (`st_mtime`).
    pub modified: Timestamp,
    /// The time of the scan, against which a file is young or not.
    pub now: Timestamp,
}

/// How to probe.
#[derive(Debug, Clone)]
pub struct Options {
    /// An incomplete file modified less than this ago is TRANSFER, an older one FAILURE.
    pub transfer_age: Duration,
    /// The site's naming rules for this root, in order.
    pub naming: Vec<NamingRule>,
    /// Whether labels and definition are looked for inside file systems where the header does not
    /// answer.
    pub inside_file_systems: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            transfer_age: Duration::from_secs(15 * 60),
            naming: Vec::new(),
            inside_file_systems: true,
        }
    }
}

/// What a file is.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// An image, whole or not.
    Image(Box<Image>),
    /// Not an image.
    NotImage(NotImage),
}

/// Why a file is not an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotImage {
    /// Other content, and no image name.
    OtherContent,
    /// The name of an image over other content (cameras and finite-element programs write `.sif`
    /// too): counted by the scan.
    Misnamed,
    /// A file system without a container inside.
    PlainFileSystem,
}

/// Decides what `file` is and reads its metadata objects.
///
/// # Errors
///
/// Only what reading the file says; damaged content is a verdict, not an error.
pub fn probe(file: &dyn ReadAt, subject: &Subject<'_>, options: &Options) -> io::Result<Verdict> {
    let _ = (file, subject, options);
    Ok(Verdict::NotImage(NotImage::OtherContent))
}

/// The same for a directory: a sandbox, or none.
///
/// # Errors
///
/// Only what reading the directory says.
pub fn probe_directory(
    tree: &dyn ReadTree,
    subject: &Subject<'_>,
    options: &Options,
) -> io::Result<Verdict> {
    let _ = (tree, subject, options);
    Ok(Verdict::NotImage(NotImage::OtherContent))
}

/// Whether a name is one that tools give to image files (`.sif`, `.simg`, `.img`, `.sqsh`, or a
/// download of one in progress).
#[must_use]
pub fn is_image_name(name: &[u8]) -> bool {
    [&b".sif"[..], b".simg", b".img", b".sqsh"]
        .iter()
        .any(|ending| name.ends_with(ending))
}
