//! File systems that an image holds as an object: whether one can be there at all, judged by its length
//! and the superblock, which a probe reads anyway. Of an encrypted one it is the header of the volume.

use crate::error::InsideError;
use crate::ext::{self, RawExtSuperblock};
use crate::squashfs::{RawSuperblock, SUPERBLOCK_LEN};

/// What a LUKS volume begins with, and the bytes of the header of version 2, which is the one that the tools make
/// (the LUKS2 on-disk format, section 2.1; apptainer `internal/pkg/util/crypt`).
const LUKS: &[u8; 6] = b"LUKS\xba\xbe";
const LUKS_HEADER: u64 = 4096;

/// A kind of file system whose superblock is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    Squashfs,
    Ext,
    Luks,
}

impl Held {
    /// Bytes at its beginning that hold the superblock; a shorter one is none.
    pub(crate) fn head(self) -> u64 {
        match self {
            Self::Squashfs => SUPERBLOCK_LEN as u64,
            Self::Ext => ext::SUPERBLOCK_END as u64,
            Self::Luks => LUKS_HEADER,
        }
    }

    /// Checks the length of the file system at `offset`, and its superblock if `head` is known. Gives
    /// the compressor of a squashfs.
    pub(crate) fn check(
        self,
        offset: u64,
        size: u64,
        head: Option<&[u8]>,
    ) -> Result<Option<&'static str>, InsideError> {
        if size < self.head() {
            return Err(InsideError::Short {
                kind: match self {
                    Self::Squashfs => "a squashfs",
                    Self::Ext => "an ext file system",
                    Self::Luks => "a LUKS volume",
                },
                offset,
                expected: self.head(),
                found: size,
            });
        }
        match self {
            Self::Squashfs => match head.and_then(RawSuperblock::read) {
                Some(superblock) => {
                    superblock.check(offset, size)?;
                    Ok(superblock.compressor_name())
                }
                None => Ok(None),
            },
            Self::Ext => {
                if let Some(superblock) = head.and_then(RawExtSuperblock::read) {
                    superblock.check(offset, size)?;
                }
                Ok(None)
            }
            Self::Luks => match head.and_then(<[u8]>::first_chunk) {
                Some(found) if found != LUKS => Err(InsideError::Luks {
                    offset,
                    found: hex::encode(found),
                }),
                _ => Ok(None),
            },
        }
    }
}
