//! What can be wrong with an image: closed enums whose text says where, what was expected and what
//! is there.

use thiserror::Error;

use crate::limits;

/// A message that may quote the file, of no more than [`limits::MESSAGE_MAX`] bytes and a mark.
pub(crate) fn shown(mut message: String) -> String {
    let end = message.floor_char_boundary(limits::MESSAGE_MAX);
    if end < message.len() {
        message.truncate(end);
        message.push('…');
    }
    message
}

/// What is wrong with a SIF.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SifError {
    /// The file ends within the global header.
    #[error("truncated: the SIF header ends at byte 128 but the file has {size}")]
    HeaderTruncated {
        /// Bytes of the file.
        size: u64,
    },
    /// One or two bytes of the magic are wrong.
    #[error(
        "corrupt: magic damaged at offset {offset}: expected {expected:#04x}, found {found:#04x}"
    )]
    MagicDamaged {
        /// Offset of the first wrong byte.
        offset: u64,
        /// What should be there.
        expected: u8,
        /// What is there.
        found: u8,
    },
    /// A file of another format, asked for its signatures.
    #[error("not a SIF, which alone holds signatures: expected its magic at byte 32")]
    NotSif,
    /// Neither version 00 nor 01.
    #[error("unknown SIF version at offset 42: expected 00 or 01, found \"{found}\"")]
    Version {
        /// The version's text, escaped.
        found: String,
    },
    /// The descriptor table's numbers make no sense.
    #[error(
        "corrupt: descriptor table of {total} entries and {size} bytes at byte {offset} \
         (offsets 88 to 112 of the header): expected 0 to {limit} entries of 585 bytes behind the header"
    )]
    Table {
        /// Number of descriptors.
        total: i64,
        /// Bytes of the table.
        size: i64,
        /// Where it begins.
        offset: i64,
        /// [`crate::limits::DESCRIPTORS_MAX`].
        limit: i64,
    },
    /// The file ends within the descriptor table.
    #[error("truncated: the descriptor table ends at byte {end} but the file has {size}")]
    TableTruncated {
        /// Where the table ends.
        end: u64,
        /// Bytes of the file.
        size: u64,
    },
    /// A free slot that is not empty, and the header counts one object more.
    #[error(
        "corrupt: the header counts {expected} objects (offsets 80 to 96), the table has {found}: slot {slot} at \
         byte {offset} is marked unused but not empty"
    )]
    LostObject {
        /// Objects by the header.
        expected: i64,
        /// Objects by the table.
        found: usize,
        /// Slot, from 0.
        slot: u32,
        /// Offset of the descriptor.
        offset: u64,
    },
    /// Objects in the table, and none by the header, which is written last.
    #[error(
        "incomplete: the header counts no object (offsets 80 to 96), the descriptor table has {found}"
    )]
    Uncounted {
        /// Objects by the table.
        found: usize,
    },
    /// A data type outside the range of the format.
    #[error(
        "corrupt: slot {slot} at byte {offset}: expected a data type of 0x4001 to 0x40ff, found {found:#x}"
    )]
    DataType {
        /// Slot, from 0.
        slot: u32,
        /// Offset of the descriptor.
        offset: u64,
        /// The number found.
        found: i32,
    },
    /// An object with a negative offset or size, or inside the header or the descriptor table.
    #[error(
        "corrupt: object {id} ({kind}) of {size} bytes at byte {offset}: expected within the data area, \
         which begins behind byte {data}"
    )]
    ObjectRange {
        /// Object ID.
        id: u32,
        /// What it is.
        kind: &'static str,
        /// Its offset.
        offset: i64,
        /// Its size.
        size: i64,
        /// End of the descriptor table.
        data: u64,
    },
    /// An object ends beyond the end of the file.
    #[error("truncated: object {id} ({kind}) ends at byte {end} but the file has {size}")]
    ObjectTruncated {
        /// Object ID.
        id: u32,
        /// What it is.
        kind: &'static str,
        /// Where it ends.
        end: u64,
        /// Bytes of the file.
        size: u64,
    },
    /// Two objects share bytes.
    #[error(
        "corrupt: object {second} begins at byte {offset}, within object {first}, which ends at {end}"
    )]
    Overlap {
        /// ID of the object that begins first.
        first: u32,
        /// ID of the other.
        second: u32,
        /// Where the second begins.
        offset: u64,
        /// Where the first ends.
        end: u64,
    },
    /// A primary partition that is not what its descriptor says.
    #[error("corrupt: object {id} (partition): {error}")]
    Partition {
        /// Object ID.
        id: u32,
        /// What is wrong with it.
        error: InsideError,
    },
    /// What is wrong with the OCI image inside.
    #[error(transparent)]
    Oci(#[from] OciError),
}

impl SifError {
    /// Whether something is merely not there yet, so that the file may still be being written.
    #[must_use]
    pub fn is_truncation(&self) -> bool {
        matches!(
            self,
            Self::HeaderTruncated { .. }
                | Self::TableTruncated { .. }
                | Self::Uncounted { .. }
                | Self::ObjectTruncated { .. }
        )
    }
}

/// What is wrong with the OCI image inside a SIF.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OciError {
    /// A blob is not JSON of the expected shape.
    #[error("corrupt: OCI {what} at byte {offset} is not valid: {reason}")]
    Json {
        /// Root index, index, manifest or configuration.
        what: &'static str,
        /// Offset of the object.
        offset: u64,
        /// What the JSON reader says.
        reason: String,
    },
    /// A blob's content is not what its digest says.
    #[error("corrupt: OCI {what} at byte {offset}: expected {expected}, found {found}")]
    Digest {
        /// Root index, index, manifest or configuration.
        what: &'static str,
        /// Offset of the object.
        offset: u64,
        /// The digest by which it is known.
        expected: String,
        /// The digest of what is there.
        found: String,
    },
    /// A blob that is needed and not in the file.
    #[error("corrupt: OCI {what} {digest} is not in the file")]
    Missing {
        /// Manifest, configuration or layer.
        what: &'static str,
        /// Its digest.
        digest: String,
    },
    /// A layer that is not what its media type says.
    #[error("corrupt: OCI layer {digest}: {error}")]
    Layer {
        /// Its digest.
        digest: String,
        /// What is wrong with it.
        error: InsideError,
    },
    /// More blobs, or larger ones, than any real image has.
    #[error("OCI {what} at byte {offset} is not read: an image may have {limit} bytes of JSON")]
    TooMuch {
        /// Root index, index, manifest or configuration.
        what: &'static str,
        /// Offset of the object.
        offset: u64,
        /// The limit.
        limit: u64,
    },
    /// A blob larger than any real one.
    #[error("OCI {what} at byte {offset} has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Root index, index, manifest or configuration.
        what: &'static str,
        /// Offset of the object.
        offset: u64,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
}

/// What is wrong with a squashfs.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SquashfsError {
    /// The superblock does not begin with `hsqs`.
    #[error("expected a squashfs at byte {offset}, found {found}")]
    Magic {
        /// Where it should begin.
        offset: u64,
        /// The first four bytes, in hexadecimal.
        found: String,
    },
    /// Neither a block size of the format nor version 4.0.
    #[error("squashfs superblock at byte {offset}: {what} expected {expected}, found {found}")]
    Superblock {
        /// Where the superblock begins.
        offset: u64,
        /// Which field.
        what: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        found: u64,
    },
    /// The file or partition ends within the file system.
    #[error("squashfs ends at byte {end} but the file or partition ends at {size}")]
    Truncated {
        /// Where the file system ends.
        end: u64,
        /// Where what holds it ends.
        size: u64,
    },
    /// A table, block or inode lies or leads outside the file system.
    #[error("squashfs {what} at byte {offset} leads outside or makes no sense")]
    Structure {
        /// What was being read.
        what: &'static str,
        /// Where.
        offset: u64,
    },
    /// A block does not decompress.
    #[error("squashfs block at byte {offset} does not decompress: {reason}")]
    Decompress {
        /// Where the block begins.
        offset: u64,
        /// What the decompressor says.
        reason: String,
    },
    /// A compressor that cannot be read here.
    #[error("squashfs compressed with {compressor}, which is not read here")]
    Compressor {
        /// Its name or number.
        compressor: String,
    },
    /// A named limit was reached.
    #[error("squashfs needs more than {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
}

/// What is wrong with an ext2, ext3 or ext4.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ExtError {
    /// The file or partition ends within the file system.
    #[error("ext file system ends at byte {end} but the file or partition ends at {size}")]
    Truncated {
        /// Where the file system ends.
        end: u64,
        /// Where what holds it ends.
        size: u64,
    },
    /// The magic is damaged.
    #[error("expected an ext superblock with 0xef53 at byte {offset}, found {found:#06x}")]
    Magic {
        /// Offset of the magic.
        offset: u64,
        /// What is there.
        found: u16,
    },
    /// A feature that cannot be read here.
    #[error("ext file system with what is not read here: {reason}")]
    Unsupported {
        /// Which.
        reason: String,
    },
    /// The superblock has the magic and is none.
    #[error("ext file system at byte {offset}: the numbers of its superblock make no sense")]
    Superblock {
        /// Where the file system begins.
        offset: u64,
    },
    /// A table, block or inode lies or leads outside the file system.
    #[error("ext {what} at byte {offset} leads outside or makes no sense")]
    Structure {
        /// What was being read.
        what: &'static str,
        /// Where.
        offset: u64,
    },
    /// A named limit was reached.
    #[error("ext file system needs more than {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
}

/// What is wrong with a file system inside an image, or keeps it from being looked into.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InsideError {
    /// Too few bytes for a superblock.
    #[error("expected {kind} of {expected} bytes or more at byte {offset}, found {found}")]
    Short {
        /// What should be there.
        kind: &'static str,
        /// Where it should begin.
        offset: u64,
        /// What its superblock takes.
        expected: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// No LUKS volume.
    #[error("expected a LUKS volume at byte {offset}, found {found}")]
    Luks {
        /// Where it should begin.
        offset: u64,
        /// The first six bytes, in hexadecimal.
        found: String,
    },
    /// A squashfs.
    #[error(transparent)]
    Squashfs(#[from] SquashfsError),
    /// An ext file system.
    #[error(transparent)]
    Ext(#[from] ExtError),
}

impl InsideError {
    /// Whether it is our limit and not the file's damage.
    pub(crate) fn is_ours(&self) -> bool {
        matches!(
            self,
            Self::Squashfs(SquashfsError::Compressor { .. } | SquashfsError::Limit { .. })
                | Self::Ext(ExtError::Unsupported { .. } | ExtError::Limit { .. })
        )
    }
}
