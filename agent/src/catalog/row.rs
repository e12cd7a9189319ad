//! One image as the listing shows it.

use std::borrow::Cow;

use sifter_image::record::{Encryption, Format, ImageId, ReferenceSource, Status, TimeSource};
use sifter_proto::v1;
use uuid::Uuid;

use super::detail;
use super::facts::{FileFacts, FileTime};

/// An image in a listing; [`sifter_image::Image`] and [`FileFacts`] document the fields. Labels,
/// definition and objects are not here: they are read when one image is asked for.
///
/// Lives for a moment: made from what was just read, from the database, or from a
/// [`KeptRow`](super::KeptRow).
#[derive(Debug, Clone, PartialEq)]
pub struct Row<'a> {
    /// Number in the catalogue; stable while the image is known.
    pub id: i64,
    /// Absolute path.
    pub path: &'a [u8],
    /// Path of the root.
    pub root: &'a str,
    /// Facts of the file.
    pub facts: FileFacts,
    /// Stable identity.
    pub image_id: Option<ImageId>,
    /// UUID of a SIF.
    pub uuid: Option<Uuid>,
    /// Image format.
    pub format: Format,
    /// Status.
    pub status: Status,
    /// Rule that gave repository and tag.
    pub reference_source: ReferenceSource,
    /// Where `update_time` comes from.
    pub update_time_source: TimeSource,
    /// Encryption of the primary partition.
    pub encryption: Encryption,
    /// Repository.
    pub repository: &'a str,
    /// Tag.
    pub tag: &'a str,
    /// What the image was built on; empty if not known.
    pub base: &'a str,
    /// Version of the format.
    pub format_version: &'a str,
    /// Architecture.
    pub arch: &'a str,
    /// What is wrong; empty if nothing.
    pub status_message: &'a str,
    /// When the image was last changed.
    pub update_time: FileTime,
    /// When the image was created; `None` if it does not say.
    pub create_time: Option<FileTime>,
    /// File system of the primary partition.
    pub file_system: &'a str,
    /// Compressor of a squashfs.
    pub compressor: &'a str,
    /// Format of a stored SBOM.
    pub sbom: &'a str,
    /// Signatures.
    pub signatures: Cow<'a, [v1::Signature]>,
    /// SHA-256 of the whole file, once it was computed.
    pub content_digest: Option<[u8; 32]>,
}

impl<'a> Row<'a> {
    /// The row of an image that was found at `path`.
    #[must_use]
    pub fn new(
        path: &'a [u8],
        root: &'a str,
        facts: FileFacts,
        image: &'a sifter_image::Image,
    ) -> Self {
        Self {
            id: 0,
            path,
            root,
            facts,
            image_id: image.image_id,
            uuid: image.uuid,
            format: image.format,
            status: image.status,
            reference_source: image.reference.source,
            update_time_source: image.update_time_source,
            encryption: image.encryption,
            repository: &image.reference.repository,
            tag: &image.reference.tag,
            base: &image.base,
            format_version: &image.format_version,
            arch: &image.arch,
            status_message: &image.status_message,
            update_time: image.update_time.map_or(facts.modified, FileTime::from),
            create_time: image.create_time.map(FileTime::from),
            file_system: image.file_system.unwrap_or_default(),
            compressor: image.compressor.unwrap_or_default(),
            sbom: image.sbom.unwrap_or_default(),
            signatures: image.signatures.iter().map(detail::signature).collect(),
            content_digest: None,
        }
    }
}

/// `directory` and `name` as one path.
#[must_use]
pub fn join_path(root: &[u8], directory: &[u8], name: &[u8]) -> Box<[u8]> {
    let mut path = Vec::with_capacity(root.len() + directory.len() + name.len() + 2);
    path.extend_from_slice(root);
    for part in [directory, name] {
        if !part.is_empty() {
            if !path.ends_with(b"/") {
                path.push(b'/');
            }
            path.extend_from_slice(part);
        }
    }
    path.into()
}
