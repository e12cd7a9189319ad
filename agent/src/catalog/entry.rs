//! What a scan hands to the catalogue: one file's facts, and what its content is.

use jiff::Timestamp;
use sifter_image::Image;
use sifter_proto::v1;

use super::kept::KeptRow;
use super::packed::Packed;

/// Facts of a file by `fstat`. Times are kept as the kernel gives them, so that comparing them is
/// exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileFacts {
    /// Inode number.
    pub inode: u64,
    /// Apparent size in bytes.
    pub size: u64,
    /// Bytes allocated on disk.
    pub allocated: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits (07777).
    pub mode: u32,
    /// Hard links.
    pub links: u32,
    /// Last access.
    pub accessed: FileTime,
    /// Last modification of the content.
    pub modified: FileTime,
    /// Last change of the inode.
    pub changed: FileTime,
    /// When the inode was made, where the file system tells and it was asked for.
    pub born: Option<FileTime>,
}

/// A time of a file: nanoseconds since 1970, which hold the years 1678 to 2262. Files outside are
/// clamped; no file system in use there stores more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct FileTime(pub i64);

impl FileTime {
    /// From `struct timespec`.
    #[must_use]
    pub fn new(seconds: i64, nanoseconds: u32) -> Self {
        Self(
            seconds
                .saturating_mul(1_000_000_000)
                .saturating_add(i64::from(nanoseconds)),
        )
    }

    /// The time now.
    #[must_use]
    pub fn now() -> Self {
        Timestamp::now().into()
    }

    /// As a timestamp. Every value is within its range.
    #[must_use]
    pub fn timestamp(self) -> Timestamp {
        Timestamp::from_nanosecond(i128::from(self.0)).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

impl From<Timestamp> for FileTime {
    fn from(time: Timestamp) -> Self {
        let nanoseconds = time.as_nanosecond();
        Self(i64::try_from(nanoseconds).unwrap_or(if nanoseconds < 0 {
            i64::MIN
        } else {
            i64::MAX
        }))
    }
}

/// What tells whether a file or directory is the one seen before, unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Identity {
    /// Inode number.
    pub inode: u64,
    /// Apparent size; 0 for directories, whose size says nothing.
    pub size: u64,
    /// Last modification of the content.
    pub modified: FileTime,
    /// Last change of the inode.
    pub changed: FileTime,
}

impl From<&FileFacts> for Identity {
    fn from(facts: &FileFacts) -> Self {
        Self {
            inode: facts.inode,
            size: facts.size,
            modified: facts.modified,
            changed: facts.changed,
        }
    }
}

/// What tells the directory that a root is from another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootDirectory {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// When the inode was made, where the file system tells: the next one that is mounted may get the same
    /// device number, and all of a kind have the same inode number at their root.
    pub born: Option<FileTime>,
}

impl RootDirectory {
    /// Whether it is the one that was.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let born = self.born.zip(other.born);
        (self.device, self.inode) == (other.device, other.inode)
            && born.is_none_or(|(one, other)| one == other)
    }
}

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
