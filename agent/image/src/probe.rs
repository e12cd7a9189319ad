//! The only entrance: from a file's first bytes to an [`Image`].
//!
//! Whatever the bytes are, a probe ends: with an image (which may be a FAILURE that says what is
//! wrong and where), or with the reason why this is none. Only failing reads are errors.

use std::io;

use crate::context::{Context, Found, NotImage, Options, Subject};
use crate::limits;
use crate::read_at::{ReadAt, ReadTree};
use crate::record::{Format, Image, TimeSource};
use crate::reference::{Evidence, RuleOutcome, resolve, resolve_decided};
use crate::sniff::{Kind, sniff};
use crate::window::Windows;
use crate::{definition, ext, sandbox, sif, squashfs};

/// What a file is.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// An image, whole or not.
    Image(Box<Image>),
    /// Not an image.
    NotImage(NotImage),
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
    Ok(probe_file(file, &context_of(subject, options, false))?.verdict)
}

/// As [`probe`], with every naming rule's part in the outcome, and with the bootstrap history of any image:
/// the primary partition is looked into even where the header answers for everything else and names
/// no source that leaves a history.
///
/// # Errors
///
/// As [`probe`].
pub fn explain(file: &dyn ReadAt, subject: &Subject<'_>, options: &Options) -> io::Result<Probed> {
    probe_file(file, &context_of(subject, options, true))
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
    let context = context_of(subject, options, false);
    Ok(conclude(&context, sandbox::probe(tree)?).verdict)
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
    let context = context_of(subject, options, true);
    Ok(conclude(&context, sandbox::probe(tree)?))
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
    let context = context_of(subject, options, false);
    let windows = Windows::open(file)?;
    let format = match sniff(windows.head(), windows.size(), context.image_name) {
        Kind::Sif => Format::Sif,
        Kind::Squashfs { .. } => Format::Squashfs,
        Kind::Ext { .. } => Format::Ext3,
        Kind::Incomplete { format, .. } | Kind::Damaged { format, .. } => format,
        Kind::Other if context.image_name => {
            return Ok(Verdict::NotImage(NotImage::Misnamed));
        }
        Kind::Other => return Ok(Verdict::NotImage(NotImage::OtherContent)),
    };
    let failed = context.failed(format, message.to_owned(), false);
    Ok(conclude(&context, Ok(failed)).verdict)
}

/// As [`failure`], of a directory that has the marks of a sandbox.
#[must_use]
pub fn failure_of_directory(subject: &Subject<'_>, options: &Options, message: &str) -> Verdict {
    let context = context_of(subject, options, false);
    let failed = context.failed(Format::Sandbox, message.to_owned(), false);
    conclude(&context, Ok(failed)).verdict
}

fn context_of<'a>(subject: &'a Subject<'_>, options: &'a Options, explain: bool) -> Context<'a> {
    let name = subject.path.file_name();
    Context {
        subject,
        options,
        explain,
        image_name: name.is_some_and(|name| is_image_name(name.as_encoded_bytes())),
    }
}

fn probe_file(file: &dyn ReadAt, context: &Context<'_>) -> io::Result<Probed> {
    let mut windows = Windows::open(file)?;
    let kind = sniff(windows.head(), windows.size(), context.image_name);
    let outcome = match kind {
        Kind::Sif => Ok(sif::probe(&mut windows, context)?),
        Kind::Squashfs { payload, launch } => {
            squashfs::probe(&mut windows, payload, launch, context)?
        }
        Kind::Ext { payload, launch } => ext::probe(&mut windows, payload, launch, context)?,
        Kind::Incomplete { format, message } => Ok(context.failed(format, message, true)),
        Kind::Damaged { format, message } => Ok(context.failed(format, message, false)),
        Kind::Other if context.image_name => Err(NotImage::Misnamed),
        Kind::Other => Err(NotImage::OtherContent),
    };
    Ok(conclude(context, outcome))
}

/// Names the image, and gives it the time of the file where it has none of its own.
fn conclude(context: &Context<'_>, outcome: Result<Found, NotImage>) -> Probed {
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
        image.update_time = Some(context.subject.modified);
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
        path: context.subject.path,
        naming: &context.options.naming,
        oci_reference: oci_reference.as_deref(),
        definition: image.definition.as_deref(),
        labels: &image.labels,
    };
    let resolution = match origin {
        Some(origin) => resolve_decided(&evidence, origin),
        None => resolve(&evidence, context.explain),
    };
    image.reference = resolution.reference;
    image.base = resolution.base;
    Probed {
        verdict: Verdict::Image(image),
        rules: resolution.rules,
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
