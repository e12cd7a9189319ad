//! The only entrance: from a file's first bytes to an [`Image`].
//!
//! Whatever the bytes are, a probe ends: with an image (which may be a FAILURE that says what is
//! wrong and where), or with the reason why this is none. Only failing reads are errors.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use crate::container::{self, Container};
use crate::error::InsideError;
use crate::limits;
use crate::read_at::{ReadAt, ReadTree};
use crate::record::{Format, Image, Status, TimeSource};
use crate::reference::{Evidence, NamingRule, Origin, RuleOutcome, resolve, resolve_decided};
use crate::sniff::{Kind, sniff};
use crate::window::Windows;
use crate::{definition, error, ext, sandbox, sif, squashfs};

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

/// A verdict, and for an image what each naming rule made of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Probed {
    /// What the file is.
    pub verdict: Verdict,
    /// The rules for repository and tag, in order; empty where the file is not an image.
    pub rules: Vec<RuleOutcome>,
}

/// Decides what `file` is and reads its metadata objects.
///
/// # Errors
///
/// Only what reading the file says; damaged content is a verdict, not an error.
pub fn probe(file: &dyn ReadAt, subject: &Subject<'_>, options: &Options) -> io::Result<Verdict> {
    Ok(probe_file(
        file,
        &Context {
            subject,
            options,
            explain: false,
        },
    )?
    .verdict)
}

/// As [`probe`], with every naming rule's part in the outcome, and with the bootstrap history of any image:
/// the primary partition is looked into even where the header answers for everything else and names
/// no source that leaves a history.
///
/// # Errors
///
/// As [`probe`].
pub fn explain(file: &dyn ReadAt, subject: &Subject<'_>, options: &Options) -> io::Result<Probed> {
    probe_file(
        file,
        &Context {
            subject,
            options,
            explain: true,
        },
    )
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
    let context = Context {
        subject,
        options,
        explain: false,
    };
    Ok(context.conclude(sandbox::probe(tree)?).verdict)
}

/// As [`probe_directory`], with every naming rule's part in the outcome.
///
/// # Errors
///
/// As [`probe_directory`].
pub fn explain_directory(
    tree: &dyn ReadTree,
    subject: &Subject<'_>,
    options: &Options,
) -> io::Result<Probed> {
    let context = Context {
        subject,
        options,
        explain: true,
    };
    Ok(context.conclude(sandbox::probe(tree)?))
}

/// What is said of a file of which the probe ended in an internal error, told by `message`: a FAILURE, if its
/// first bytes are those of an image, of which nothing else is read.
///
/// # Errors
///
/// As [`probe`].
pub fn failure(
    file: &dyn ReadAt,
    subject: &Subject<'_>,
    options: &Options,
    message: &str,
) -> io::Result<Verdict> {
    let context = Context {
        subject,
        options,
        explain: false,
    };
    let windows = Windows::open(file)?;
    let format = match sniff(windows.head(), windows.size(), context.has_image_name()) {
        Kind::Sif => Format::Sif,
        Kind::Squashfs { .. } => Format::Squashfs,
        Kind::Ext { .. } => Format::Ext3,
        Kind::Incomplete { format, .. } | Kind::Damaged { format, .. } => format,
        Kind::Other if context.has_image_name() => {
            return Ok(Verdict::NotImage(NotImage::Misnamed));
        }
        Kind::Other => return Ok(Verdict::NotImage(NotImage::OtherContent)),
    };
    let failed = context.failed(format, message.to_owned(), false);
    Ok(context.conclude(Ok(failed)).verdict)
}

/// As [`failure`], of a directory that has the marks of a sandbox.
#[must_use]
pub fn failure_of_directory(subject: &Subject<'_>, options: &Options, message: &str) -> Verdict {
    let context = Context {
        subject,
        options,
        explain: false,
    };
    let failed = context.failed(Format::Sandbox, message.to_owned(), false);
    context.conclude(Ok(failed)).verdict
}

fn probe_file(file: &dyn ReadAt, context: &Context<'_>) -> io::Result<Probed> {
    let mut windows = Windows::open(file)?;
    let kind = sniff(windows.head(), windows.size(), context.has_image_name());
    let outcome = match kind {
        Kind::Sif => Ok(sif::probe(&mut windows, context)?),
        Kind::Squashfs { payload, launch } => {
            squashfs::probe(&mut windows, payload, launch, context)?
        }
        Kind::Ext { payload, launch } => ext::probe(&mut windows, payload, launch, context)?,
        Kind::Incomplete { format, message } => Ok(context.failed(format, message, true)),
        Kind::Damaged { format, message } => Ok(context.failed(format, message, false)),
        Kind::Other if context.has_image_name() => Err(NotImage::Misnamed),
        Kind::Other => Err(NotImage::OtherContent),
    };
    Ok(context.conclude(outcome))
}

/// What one probe is about and how it is to be done.
pub(crate) struct Context<'a> {
    pub(crate) subject: &'a Subject<'a>,
    pub(crate) options: &'a Options,
    pub(crate) explain: bool,
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

impl Context<'_> {
    /// Whether the file has the name of an image.
    pub(crate) fn has_image_name(&self) -> bool {
        self.subject
            .path
            .file_name()
            .is_some_and(|name| is_image_name(name.as_encoded_bytes()))
    }

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

    /// Looks for labels, if they are wanted, and for a definition if there is none yet, in the primary partition
    /// of a SIF. What cannot be read inside leaves the image as it is: the runtimes mount the partition
    /// and may be better off.
    pub(crate) fn look_inside_partition(
        &self,
        windows: &Windows<'_>,
        sif: &sif::Sif,
        wants_labels: bool,
        found: &mut Found,
    ) -> io::Result<()> {
        let Some(primary) = sif.primary() else {
            return Ok(());
        };
        let (Some((file_system, _)), Some((offset, size))) = (primary.partition(), primary.range())
        else {
            return Ok(());
        };
        let looked = match file_system {
            sif::fs_type::SQUASHFS => {
                let Some(tree) = squashfs::tree_at(windows, offset, size)? else {
                    return Ok(());
                };
                container::look(&tree, &found.image, wants_labels)?
            }
            sif::fs_type::EXT3 => {
                let Some(tree) = ext::tree_at(windows, offset, size)? else {
                    return Ok(());
                };
                container::look(&tree, &found.image, wants_labels)?
            }
            _ => return Ok(()),
        };
        if let Ok(Some(container)) = looked {
            container.fill(&mut found.image);
        }
        Ok(())
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
        let listed = launch || self.has_image_name();
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
        if !launch && !self.has_image_name() {
            return Err(NotImage::PlainFileSystem);
        }
        let what = if incomplete { "truncated" } else { "corrupt" };
        self.fail(&mut image, format!("{what}: {error}"), incomplete);
        Ok(Found::plain(image))
    }

    /// An image of which nothing is known but what is wrong.
    fn failed(&self, format: Format, message: String, incomplete: bool) -> Found {
        let mut image = Image::blank(format);
        self.fail(&mut image, message, incomplete);
        Found::plain(image)
    }

    /// Names the image, and gives it the time of the file where it has none of its own.
    fn conclude(&self, outcome: Result<Found, NotImage>) -> Probed {
        let Found {
            mut image,
            oci_reference,
            origin,
        } = match outcome {
            Ok(found) => found,
            Err(not) => {
                return Probed {
                    verdict: Verdict::NotImage(not),
                    rules: Vec::new(),
                };
            }
        };
        if image.update_time.is_none() {
            image.update_time = Some(self.subject.modified);
            image.update_time_source = TimeSource::Mtime;
        }
        if image.definition.as_deref().is_some_and(definition::is_cut) {
            image.note(&format!(
                "the definition is longer than the limit of {} bytes: it is cut there, and repository, tag and base \
                 are not taken from it",
                limits::DEFINITION_MAX
            ));
        }
        if image.labels.is_cut() {
            image.note(&format!(
                "labels beyond the limit of {}, or of {} bytes, are left out",
                limits::LABELS_MAX,
                limits::LABELS_BYTES_MAX
            ));
        }
        if image.compressor == Some("lzma") {
            // Linux `fs/squashfs/decompressor.c` knows the name alone, and so does squashfuse `decompress.c`.
            image.note(
                "the squashfs is compressed with lzma, which neither Linux nor squashfuse mounts: build the image again \
                 with another compressor",
            );
        }
        let evidence = Evidence {
            path: self.subject.path,
            naming: &self.options.naming,
            oci_reference: oci_reference.as_deref(),
            definition: image.definition.as_deref(),
            labels: &image.labels,
        };
        let resolution = match origin {
            Some(origin) => resolve_decided(&evidence, origin),
            None => resolve(&evidence, self.explain),
        };
        image.reference = resolution.reference;
        image.base = resolution.base;
        Probed {
            verdict: Verdict::Image(image),
            rules: resolution.rules,
        }
    }
}

/// Whether a name is one that tools give to image files (`.sif`, `.simg`, `.img`, `.sqsh`), or to a
/// download of one in progress: Nextflow's `.img.pulling.<ms>`
/// (`SingularityCache.groovy: getTempImagePath`), rsync's `.<name>.<six letters>`, and the endings
/// that other tools add (`.part`, `.partial`, `.tmp`, `.filepart`, `.download`).
#[must_use]
pub fn is_image_name(name: &[u8]) -> bool {
    let has_ending = |name: &[u8]| {
        [&b".sif"[..], b".simg", b".img", b".sqsh"]
            .iter()
            .any(|ending| name.ends_with(ending))
    };
    if has_ending(name) {
        return true;
    }
    if let Some(at) = name.windows(9).rposition(|window| window == b".pulling.") {
        return has_ending(&name[..at]) && name[at + 9..].iter().all(u8::is_ascii_digit);
    }
    let Some(dot) = name.iter().rposition(|byte| *byte == b'.') else {
        return false;
    };
    let (stem, ending) = (&name[..dot], &name[dot + 1..]);
    let in_progress = matches!(
        ending,
        b"part" | b"partial" | b"tmp" | b"filepart" | b"download" | b"crdownload"
    );
    let rsync =
        name.starts_with(b".") && ending.len() == 6 && ending.iter().all(u8::is_ascii_alphanumeric);
    (in_progress || rsync) && has_ending(stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_names() {
        let yes = [
            "a.sif",
            "a.oci.sif",
            "a.simg",
            "a.img",
            "a.sqsh",
            "quay-io-x.img.pulling.1795488039",
            ".ubuntu.sif.Ab3dE9",
            "a.sif.part",
            "a.sif.tmp",
        ];
        let no = [
            "",
            "sif",
            "a",
            "a.sif.txt",
            "a.SIFT",
            "samtools:1.9--h91753b0_8",
            "a.pulling.1",
            "a.img.pulling.x",
            ".bashrc.abcdef",
            "a.part",
            "a.sif.bak2",
        ];
        for name in yes {
            assert!(is_image_name(name.as_bytes()), "{name}");
        }
        for name in no {
            assert!(!is_image_name(name.as_bytes()), "{name}");
        }
    }
}
