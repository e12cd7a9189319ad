//! What a scan hands to the catalogue: a candidate, and what its content is.

use sifter_image::Image;
use sifter_proto::v1;

use super::facts::{FileFacts, FileTime, Identity};
use super::kept::KeptRow;
use super::packed::Packed;

/// A candidate file (or sandbox directory) as the scan found it.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Name within its directory.
    pub name: Box<[u8]>,
    /// Facts of the file.
    pub facts: FileFacts,
    /// Whether it must be looked at again next time whatever its identity says: it changed within
    /// its timestamp's granularity before it was read, or its status depends on its age.
    pub volatile: bool,
    /// What it is.
    pub content: Content,
}

/// What a candidate is.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// An image that was read.
    Image(Box<Image>),
    /// The same, as it is stored.
    Prepared(Box<Prepared>),
    /// An image that the catalogue knows: it was moved, renamed or only read, not changed.
    Moved(Box<KnownImage>),
    /// Not an image.
    Other,
}

/// An image that was read, as it is stored and listed.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// As listed; not numbered yet.
    pub row: KeptRow,
    /// What only view FULL shows: a `sifter.v1.Image` with only those fields.
    pub details: Packed,
}

/// What the catalogue knows of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownImage {
    /// As listed.
    pub row: KeptRow,
    /// What only view FULL shows.
    pub details: v1::Image,
    /// When its inode was made, if that was told.
    pub born: Option<FileTime>,
    /// Whether it must be looked at again.
    pub volatile: bool,
}

/// The digest of an image's whole content, and of which file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentDigest {
    /// Number of the image.
    pub image: i64,
    /// The file that was read.
    pub identity: Identity,
    /// SHA-256.
    pub digest: [u8; 32],
}
