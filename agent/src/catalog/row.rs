//! One image as the listing shows it: kept small, since a snapshot holds all of them.

use std::collections::HashSet;
use std::sync::Arc;

use sifter_image::record::{Encryption, Format, ImageId, ReferenceSource, Status, TimeSource};
use sifter_proto::v1;
use uuid::Uuid;

use super::detail;
use super::entry::{FileFacts, FileTime};

/// An image in a listing; [`sifter_image::Image`] and [`FileFacts`] document the fields. Labels,
/// definition and objects are not here: they are read when one image is asked for.
///
/// Texts are shared where rows are kept, and borrowed where a row only lives for a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Row<T = Arc<str>> {
    /// Number in the catalogue; stable while the image is known.
    pub id: i64,
    /// Absolute path.
    pub path: Box<[u8]>,
    /// Path of the root.
    pub root: T,
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
    pub repository: T,
    /// Tag.
    pub tag: T,
    /// What the image was built on; empty if not known.
    pub base: T,
    /// Version of the format.
    pub format_version: T,
    /// Architecture.
    pub arch: T,
    /// What is wrong; empty if nothing.
    pub status_message: T,
    /// When the image was last changed.
    pub update_time: FileTime,
    /// When the image was created; `None` if it does not say.
    pub create_time: Option<FileTime>,
    /// File system of the primary partition.
    pub file_system: T,
    /// Compressor of a squashfs.
    pub compressor: T,
    /// Format of a stored SBOM.
    pub sbom: T,
    /// Signatures.
    pub signatures: Box<[v1::Signature]>,
    /// SHA-256 of the whole file, once it was computed.
    pub content_digest: Option<Box<[u8; 32]>>,
}

/// Hands out one copy of texts that many rows share.
#[derive(Debug)]
pub struct Interner {
    known: HashSet<Arc<str>>,
    /// What most texts of an image are.
    empty: Arc<str>,
}

impl Default for Interner {
    fn default() -> Self {
        Self {
            known: HashSet::new(),
            empty: "".into(),
        }
    }
}

/// Texts that one interner keeps; above, texts are not shared. Bounds what strangers' file names can
/// make it hold.
const INTERNED_MAX: usize = 1 << 16;

impl Interner {
    /// The shared copy of `text`.
    pub fn get(&mut self, text: &str) -> Arc<str> {
        if text.is_empty() {
            return Arc::clone(&self.empty);
        }
        if let Some(known) = self.known.get(text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = text.into();
        if self.known.len() < INTERNED_MAX {
            self.known.insert(Arc::clone(&new));
        }
        new
    }
}

impl Row {
    /// The row of an image that was found at `path`, to be kept.
    #[must_use]
    pub fn new(
        id: i64,
        path: Box<[u8]>,
        root: &Arc<str>,
        facts: FileFacts,
        image: &sifter_image::Image,
        texts: &mut Interner,
    ) -> Self {
        Self::with_texts(id, path, Arc::clone(root), facts, image, |text| {
            texts.get(text)
        })
    }
}

impl<'a> Row<&'a str> {
    /// The row of an image that was found at `path`, for now.
    #[must_use]
    pub fn passing(
        path: Box<[u8]>,
        root: &'a str,
        facts: FileFacts,
        image: &'a sifter_image::Image,
    ) -> Self {
        Self::with_texts(0, path, root, facts, image, |text| text)
    }
}

impl<T> Row<T> {
    fn with_texts<'a>(
        id: i64,
        path: Box<[u8]>,
        root: T,
        facts: FileFacts,
        image: &'a sifter_image::Image,
        mut text: impl FnMut(&'a str) -> T,
    ) -> Self {
        Self {
            id,
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
            repository: text(&image.reference.repository),
            tag: text(&image.reference.tag),
            base: text(&image.base),
            format_version: text(&image.format_version),
            arch: text(&image.arch),
            status_message: text(&image.status_message),
            update_time: image.update_time.map_or(facts.modified, FileTime::from),
            create_time: image.create_time.map(FileTime::from),
            file_system: text(image.file_system.unwrap_or_default()),
            compressor: text(image.compressor.unwrap_or_default()),
            sbom: text(image.sbom.unwrap_or_default()),
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
