//! What a probe is asked of a file, and what a format's reader answers: the words that [`mod@crate::probe`] and the
//! readers have in common.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use crate::container::Container;
use crate::error::{self, InsideError};
use crate::record::{Format, Image, Status};
use crate::reference::{NamingRule, Origin};

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
    /// Whether labels and the bootstrap history are wanted. If not, labels are read where they may decide what
    /// the image is called, and nothing is read for the history.
    pub details: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            transfer_age: Duration::from_secs(15 * 60),
            naming: Vec::new(),
            inside_file_systems: true,
            details: true,
        }
    }
}

/// What one probe is about and how it is to be done.
pub(crate) struct Context<'a> {
    pub(crate) subject: &'a Subject<'a>,
    pub(crate) options: &'a Options,
    /// Whether every naming rule's part in the outcome is wanted, and the history of any image.
    pub(crate) explain: bool,
    /// Whether the file has the name of an image.
    pub(crate) image_name: bool,
}

impl Context<'_> {
    /// Whether the file was modified so short a time ago, or so little in the future, that it may
    /// still be growing.
    fn is_young(&self) -> bool {
        let age = self.subject.now.duration_since(self.subject.modified);
        age.unsigned_abs() < self.options.transfer_age
    }

    /// Makes an image TRANSFER, if it is merely incomplete and young, or else FAILURE.
    pub(crate) fn fail(&self, image: &mut Image, message: String, incomplete: bool) {
        image.status = if incomplete && self.is_young() {
            Status::Transfer
        } else {
            Status::Failure
        };
        image.status_message = error::shown(message);
    }

    /// What a file system image is by what was found inside: an image with a container in it, or
    /// with the run-singularity line before it; FAILURE where it is damaged and line or name say
    /// that it is to be an image.
    pub(crate) fn judge(
        &self,
        mut image: Image,
        looked: Result<Option<Container>, InsideError>,
        launch: bool,
    ) -> Result<Found, NotImage> {
        let listed = launch || self.image_name;
        match looked {
            Ok(Some(container)) => container.fill(&mut image),
            Ok(None) if launch => {}
            Err(error) if listed && error.is_ours() => {
                image.note(&format!("labels and definition are not read: {error}"));
            }
            Err(error) if listed => self.fail(&mut image, format!("corrupt: {error}"), false),
            Ok(None) | Err(_) => return Err(NotImage::PlainFileSystem),
        }
        Ok(Found::plain(image))
    }

    /// What a file system image is whose superblock is wrong: FAILURE or TRANSFER, where line or name say that it is
    /// to be an image.
    pub(crate) fn unsound(
        &self,
        mut image: Image,
        error: &dyn Display,
        incomplete: bool,
        launch: bool,
    ) -> Result<Found, NotImage> {
        if !launch && !self.image_name {
            return Err(NotImage::PlainFileSystem);
        }
        let what = if incomplete { "truncated" } else { "corrupt" };
        self.fail(&mut image, format!("{what}: {error}"), incomplete);
        Ok(Found::plain(image))
    }

    /// An image of which nothing is known but what is wrong.
    pub(crate) fn failed(&self, format: Format, message: String, incomplete: bool) -> Found {
        let mut image = Image::blank(format);
        self.fail(&mut image, message, incomplete);
        Found::plain(image)
    }
}

/// What a format's reader found.
pub(crate) struct Found {
    pub(crate) image: Box<Image>,
    /// An OCI reference stored as such.
    pub(crate) oci_reference: Option<String>,
    /// What the definition says, where that is all that the name goes by.
    pub(crate) origin: Option<Origin>,
}

impl Found {
    pub(crate) fn plain(image: Image) -> Self {
        Self {
            image: Box::new(image),
            oci_reference: None,
            origin: None,
        }
    }
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
