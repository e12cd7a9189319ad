//! The superblock of a squashfs 4.0: 96 bytes, little endian.
//!
//! Source: Linux `fs/squashfs/squashfs_fs.h: struct squashfs_super_block`, squashfs-tools
//! `squashfs_fs.h`.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::SquashfsError;

/// `hsqs`, little endian; no Singularity ever wrote the other kind.
pub(crate) const MAGIC: &[u8; 4] = b"hsqs";

/// Bytes of the superblock.
pub(crate) const SUPERBLOCK_LEN: usize = size_of::<RawSuperblock>();

/// The superblock as it lies in the file.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawSuperblock {
    pub(crate) magic: [u8; 4],
    pub(crate) inode_count: U32,
    pub(crate) mkfs_time: U32,
    pub(crate) block_size: U32,
    pub(crate) fragment_count: U32,
    pub(crate) compressor: U16,
    pub(crate) block_log: U16,
    pub(crate) flags: U16,
    pub(crate) id_count: U16,
    pub(crate) version_major: U16,
    pub(crate) version_minor: U16,
    pub(crate) root_inode: U64,
    pub(crate) bytes_used: U64,
    pub(crate) id_table: U64,
    pub(crate) xattr_table: U64,
    pub(crate) inode_table: U64,
    pub(crate) directory_table: U64,
    pub(crate) fragment_table: U64,
    pub(crate) export_table: U64,
}

impl RawSuperblock {
    /// The superblock at the beginning of `bytes`, whatever it says.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        Self::read_from_prefix(bytes)
            .ok()
            .map(|(superblock, _)| superblock)
    }

    /// Name of the compressor.
    pub(crate) fn compressor_name(&self) -> Option<&'static str> {
        match self.compressor.get() {
            1 => Some("gzip"),
            2 => Some("lzma"),
            3 => Some("lzo"),
            4 => Some("xz"),
            5 => Some("lz4"),
            6 => Some("zstd"),
            _ => None,
        }
    }

    /// Checks what every squashfs 4.0 has: magic, version, a block size of 4 KiB to 1 MiB that
    /// agrees with its logarithm, a known compressor, tables that begin before its end, and an end within
    /// `room` bytes. `offset` is where it lies in the file.
    pub(crate) fn check(&self, offset: u64, room: u64) -> Result<(), SquashfsError> {
        if &self.magic != MAGIC {
            return Err(SquashfsError::Magic {
                offset,
                found: hex::encode(self.magic),
            });
        }
        let version =
            u64::from(self.version_major.get()) << 16 | u64::from(self.version_minor.get());
        let log = u32::from(self.block_log.get());
        let fields = [
            ("version", "4.0 (0x40000)", version, version == 4 << 16),
            (
                "log of the block size",
                "12 to 20",
                u64::from(log),
                (12..=20).contains(&log),
            ),
            (
                "block size",
                "two to its log",
                u64::from(self.block_size.get()),
                1u32.checked_shl(log) == Some(self.block_size.get()),
            ),
            (
                "compressor",
                "1 to 6",
                u64::from(self.compressor.get()),
                self.compressor_name().is_some(),
            ),
        ];
        for (what, expected, found, right) in fields {
            if !right {
                return Err(SquashfsError::Superblock {
                    offset,
                    what,
                    expected,
                    found,
                });
            }
        }
        let used = self.bytes_used.get();
        let end = offset
            .checked_add(used)
            .filter(|_| used >= SUPERBLOCK_LEN as u64);
        match end {
            None => Err(SquashfsError::Superblock {
                offset,
                what: "bytes used",
                expected: "96 or more",
                found: used,
            }),
            Some(_) if let Some((what, found)) = self.table_outside() => {
                Err(SquashfsError::Superblock {
                    offset,
                    what,
                    expected: "before the end of the file system",
                    found,
                })
            }
            Some(end) if used > room => Err(SquashfsError::Truncated {
                end,
                size: offset.saturating_add(room),
            }),
            Some(_) => Ok(()),
        }
    }

    /// The first table that begins beyond the end of the file system, and where. Neither kernel nor squashfuse
    /// mount that (`fs/squashfs/super.c: squashfs_fill_super`); what is not there has all bits set.
    fn table_outside(&self) -> Option<(&'static str, u64)> {
        let used = self.bytes_used.get();
        let inodes = self.inode_table.get();
        let root = inodes.saturating_add(self.root_inode.get() >> 16);
        let always = [
            ("inode table", inodes),
            ("root inode", root),
            ("directory table", self.directory_table.get()),
            ("ID table", self.id_table.get()),
        ];
        let optional = [
            ("fragment table", self.fragment_table.get()),
            ("export table", self.export_table.get()),
            ("xattr table", self.xattr_table.get()),
        ];
        let present = optional.into_iter().filter(|(_, at)| *at != u64::MAX);
        always
            .into_iter()
            .chain(present)
            .find(|(_, at)| *at >= used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_superblock_has_96_bytes() {
        assert_eq!(SUPERBLOCK_LEN, 96);
    }
}
