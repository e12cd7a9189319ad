//! The superblock of ext2, ext3 and ext4: 1024 bytes at byte 1024, little endian.
//!
//! Source: Linux `Documentation/filesystems/ext4/super.rst`, `fs/ext4/ext4.h: struct
//! ext4_super_block`.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::error::ExtError;

/// Where the superblock begins.
pub(crate) const SUPERBLOCK_OFFSET: usize = 1024;

/// Where its magic ends.
pub(crate) const MAGIC_END: usize = SUPERBLOCK_OFFSET + 58;

/// Where the superblock ends.
pub(crate) const SUPERBLOCK_END: usize = 2 * SUPERBLOCK_OFFSET;

const MAGIC: u16 = 0xEF53;
const COMPAT_HAS_JOURNAL: u32 = 0x4;
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_EXTENTS: u32 = 0x40;
const INCOMPAT_64BIT: u32 = 0x80;
const INCOMPAT_META_BG: u32 = 0x10;
const RO_COMPAT_BIGALLOC: u32 = 0x200;
/// Features with which files are found as without: file types, recovery, extents, 64 bits, multiple mount
/// protection, flexible groups, attributes in inodes, checksum seed, large directories, and content in
/// inodes, encryption and case folding, which single files have.
const INCOMPAT_KNOWN: u32 = 0x2 | INCOMPAT_RECOVER | INCOMPAT_EXTENTS | INCOMPAT_64BIT | 0x3_E700;

/// Features of ext3, which the runtimes take: of the first kind file types, recovery and meta block groups, of the
/// second sparse superblocks, large files and B-tree directories. They also want a journal (apptainer and
/// sylabs/singularity `pkg/image/ext3.go: CheckExt3Header`).
const INCOMPAT_EXT3: u32 = 0x2 | INCOMPAT_RECOVER | INCOMPAT_META_BG;
const RO_COMPAT_EXT3: u32 = 0x7;

/// Names of features by their bits (e2fsprogs `lib/e2p/feature.c: feature_list`).
const INCOMPAT_NAMES: [(u32, &str); 14] = [
    (0x1, "compression"),
    (0x8, "journal_dev"),
    (INCOMPAT_META_BG, "meta_bg"),
    (INCOMPAT_EXTENTS, "extent"),
    (INCOMPAT_64BIT, "64bit"),
    (0x100, "mmp"),
    (0x200, "flex_bg"),
    (0x400, "ea_inode"),
    (0x1000, "dirdata"),
    (0x2000, "metadata_csum_seed"),
    (0x4000, "large_dir"),
    (0x8000, "inline_data"),
    (0x1_0000, "encrypt"),
    (0x2_0000, "casefold"),
];
const RO_COMPAT_NAMES: [(u32, &str); 11] = [
    (0x8, "huge_file"),
    (0x10, "uninit_bg"),
    (0x20, "dir_nlink"),
    (0x40, "extra_isize"),
    (0x100, "quota"),
    (RO_COMPAT_BIGALLOC, "bigalloc"),
    (0x400, "metadata_csum"),
    (0x1000, "read-only"),
    (0x2000, "project"),
    (0x8000, "verity"),
    (0x1_0000, "orphan_present"),
];

/// The superblock as far as it is needed here.
#[derive(Debug, Clone, Copy, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawExtSuperblock {
    pub(crate) inodes_count: U32,
    pub(crate) blocks_count: U32,
    reserved_blocks: [u8; 12],
    first_data_block: U32,
    log_block_size: U32,
    log_cluster_size: U32,
    blocks_per_group: U32,
    clusters_per_group: U32,
    pub(crate) inodes_per_group: U32,
    mount_time: [u8; 4],
    pub(crate) write_time: U32,
    mounts: [u8; 4],
    pub(crate) magic: U16,
    state: [u8; 18],
    pub(crate) revision: U32,
    owners: [u8; 8],
    inode_size: U16,
    block_group: [u8; 2],
    feature_compat: U32,
    feature_incompat: U32,
    feature_ro_compat: U32,
    uuid: [u8; 16],
    names: [u8; 88],
    journal: [u8; 28],
    hash_seed: [u8; 16],
    hash_version: [u8; 2],
    descriptor_size: U16,
    mount_options: [u8; 8],
    mkfs_time: U32,
    journal_blocks: [u8; 68],
    blocks_count_high: U32,
}

impl RawExtSuperblock {
    /// The superblock of a file system that begins with `bytes`, whatever it says.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        Self::read_from_prefix(bytes.get(SUPERBLOCK_OFFSET..)?)
            .ok()
            .map(|(this, _)| this)
    }

    /// Whether the magic is there.
    pub(crate) fn has_magic(&self) -> bool {
        self.magic.get() == MAGIC
    }

    /// Whether the numbers are those of a file system, the magic apart: blocks of 1 to 64 KiB, some
    /// inodes, and no more of either in a group than a block of bitmap has bits, and as many inodes as
    /// the groups have. Where blocks are given out in clusters (`bigalloc`), a bit stands for a whole one; else
    /// a cluster is a block (Linux `fs/ext4/super.c: ext4_fill_super`, e2fsprogs `lib/ext2fs/openfs.c`).
    pub(crate) fn is_plausible(&self) -> bool {
        let Some(bits) = self.block_size().map(|bytes| 8 * bytes) else {
            return false;
        };
        let bigalloc = self.feature_ro_compat.get() & RO_COMPAT_BIGALLOC != 0;
        let in_group = if bigalloc {
            self.clusters_per_group.get()
        } else {
            self.blocks_per_group.get()
        };
        let inodes = u64::from(self.inodes_per_group.get());
        (bigalloc || self.log_cluster_size.get() == self.log_block_size.get())
            && self.groups().and_then(|groups| groups.checked_mul(inodes))
                == Some(self.inodes_count.get().into())
            && self.inodes_count.get() > 0
            && (1..=bits).contains(&in_group.into())
            && (1..=bits).contains(&inodes)
    }

    /// Checks magic and numbers, and that the file system at `offset` ends within `room` bytes.
    pub(crate) fn check(&self, offset: u64, room: u64) -> Result<(), ExtError> {
        if !self.has_magic() {
            return Err(ExtError::Magic {
                offset: offset.saturating_add(MAGIC_END as u64 - 2),
                found: self.magic.get(),
            });
        }
        let size = self.size().filter(|_| self.is_plausible());
        match size {
            None => Err(ExtError::Superblock { offset }),
            Some(size) if size > room => Err(ExtError::Truncated {
                end: offset.saturating_add(size),
                size: offset.saturating_add(room),
            }),
            Some(_) => Ok(()),
        }
    }

    /// Bytes of a block.
    pub(crate) fn block_size(&self) -> Option<u64> {
        let log = Some(self.log_block_size.get()).filter(|log| *log <= 6)?;
        Some(1024 << log)
    }

    /// Groups of blocks.
    fn groups(&self) -> Option<u64> {
        let blocks = self
            .blocks()
            .checked_sub(self.first_data_block.get().into())?;
        let in_group = Some(u64::from(self.blocks_per_group.get())).filter(|blocks| *blocks > 0)?;
        Some(blocks.div_ceil(in_group))
    }

    /// Bytes of the file system.
    pub(crate) fn size(&self) -> Option<u64> {
        self.blocks().checked_mul(self.block_size()?)
    }

    fn blocks(&self) -> u64 {
        let high = if self.has(INCOMPAT_64BIT) {
            u64::from(self.blocks_count_high.get())
        } else {
            0
        };
        high << 32 | u64::from(self.blocks_count.get())
    }

    fn has(&self, incompat: u32) -> bool {
        self.feature_incompat.get() & incompat != 0
    }

    /// What keeps the files from being found here, if anything.
    pub(crate) fn unsupported(&self) -> Option<String> {
        let unknown = self.feature_incompat.get() & !INCOMPAT_KNOWN;
        (unknown != 0).then(|| feature_names(unknown, &INCOMPAT_NAMES).join(", "))
    }

    /// The features of both kinds that ext3 has not.
    fn beyond_ext3(&self) -> (u32, u32) {
        (
            self.feature_incompat.get() & !INCOMPAT_EXT3,
            self.feature_ro_compat.get() & !RO_COMPAT_EXT3,
        )
    }

    /// What the runtimes refuse it for, if anything, and what to do.
    pub(crate) fn refusal(&self) -> Option<String> {
        let mut reasons = Vec::new();
        if self.feature_compat.get() & COMPAT_HAS_JOURNAL == 0 {
            reasons.push("no journal".to_owned());
        }
        let (incompat, ro_compat) = self.beyond_ext3();
        reasons.extend(feature_names(incompat, &INCOMPAT_NAMES));
        reasons.extend(feature_names(ro_compat, &RO_COMPAT_NAMES));
        (!reasons.is_empty()).then(|| {
            format!(
                "the ext file system is not ext3 ({}): make it again with mke2fs -t ext3, or build a SIF of it",
                reasons.join(", ")
            )
        })
    }

    /// Whether the journal has what has not been written to its place yet.
    pub(crate) fn needs_recovery(&self) -> bool {
        self.has(INCOMPAT_RECOVER)
    }

    /// Where the group descriptors begin: in the block behind that of the superblock.
    pub(crate) fn group_descriptors(&self) -> u64 {
        let block = self.block_size().unwrap_or_default();
        block.max(2 * SUPERBLOCK_OFFSET as u64)
    }

    /// Bytes of a group descriptor.
    pub(crate) fn descriptor_len(&self) -> usize {
        let length = usize::from(self.descriptor_size.get());
        if self.has(INCOMPAT_64BIT) {
            length.max(64)
        } else {
            32
        }
    }

    /// Bytes of an inode.
    pub(crate) fn inode_len(&self) -> u64 {
        match self.revision.get() {
            0 => 128,
            _ => self.inode_size.get().max(128).into(),
        }
    }

    /// `ext2`, `ext3` or `ext4`, by features as blkid names them (util-linux
    /// `libblkid/src/superblocks/ext.c`): what is new in ext4 makes ext4, a journal alone ext3.
    pub(crate) fn name(&self) -> &'static str {
        if self.beyond_ext3() != (0, 0) {
            "ext4"
        } else if self.feature_compat.get() & COMPAT_HAS_JOURNAL != 0 {
            "ext3"
        } else {
            "ext2"
        }
    }

    /// What stays the same for the life of the file system: UUID, hash seed and creation time.
    /// Counts, features and names change when it is written to, grown or tuned.
    pub(crate) fn identity(&self) -> [u8; 36] {
        let mut identity = [0; 36];
        identity[..16].copy_from_slice(&self.uuid);
        identity[16..32].copy_from_slice(&self.hash_seed);
        identity[32..].copy_from_slice(&self.mkfs_time.to_bytes());
        identity
    }

    /// When it was made, seconds since 1970.
    pub(crate) fn made(&self) -> i64 {
        i64::from(self.mkfs_time.get())
    }
}

/// The names of these bits; those without one as a number.
fn feature_names(bits: u32, names: &[(u32, &str)]) -> Vec<String> {
    let known = names.iter().filter(|(bit, _)| bits & bit != 0);
    let unknown = names.iter().fold(bits, |rest, (bit, _)| rest & !bit);
    known
        .map(|(_, name)| (*name).to_owned())
        .chain((unknown != 0).then(|| format!("{unknown:#x}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What blkid calls file systems with these features: the rows are of `mke2fs -t ext2`, `-t ext3`, and `-t ext4`
    /// with and without extents and journal.
    #[test]
    fn the_name_is_that_of_the_oldest_kind_that_has_the_features() {
        for (compat, incompat, ro_compat, expected) in [
            (0x38, 0x2, 0x3, "ext2"),
            (0x3c, 0x2, 0x3, "ext3"),
            (0x3c, 0x6, 0x7, "ext3"),
            (0x3c, 0x12, 0x3, "ext3"),
            (0x3c, 0x2c2, 0x46b, "ext4"),
            (0x38, 0x2c2, 0x46b, "ext4"),
            (0x3c, 0x202, 0x3, "ext4"),
            (0x38, 0x2, 0xb, "ext4"),
        ] {
            let mut bytes = vec![0u8; 2048];
            for (at, value) in [(92, compat), (96, incompat), (100, ro_compat)] {
                bytes[1024 + at..][..4].copy_from_slice(&u32::to_le_bytes(value));
            }
            let superblock = RawExtSuperblock::read(&bytes).unwrap();
            let features = format!("{compat:#x} {incompat:#x} {ro_compat:#x}");
            assert_eq!(superblock.name(), expected, "{features}");
        }
    }

    #[test]
    fn features_are_named_and_unknown_ones_numbered() {
        let names = |bits| feature_names(bits, &INCOMPAT_NAMES).join(", ");
        assert_eq!(names(0), "");
        assert_eq!(names(0xC0), "extent, 64bit");
        assert_eq!(names(0x8010_0010), "meta_bg, 0x80100000");
    }

    /// Numbers of a superblock by their places, as of a file system with one group of blocks of 2 KiB.
    fn with(numbers: &[(usize, u32)]) -> RawExtSuperblock {
        let mut bytes = vec![0u8; 2048];
        let usual = [
            (0, 16),
            (4, 3072),
            (24, 1),
            (28, 1),
            (32, 8192),
            (40, 16),
            (56, 0xEF53),
        ];
        for (at, number) in usual.iter().chain(numbers) {
            bytes[1024 + at..][..4].copy_from_slice(&number.to_le_bytes());
        }
        RawExtSuperblock::read(&bytes).unwrap()
    }

    #[test]
    fn numbers_that_fit_together() {
        const FIRST: usize = 20;
        for (numbers, is_plausible) in [
            (&[][..], true),
            // A block has 16384 bits.
            (&[(32, 16_384)], true),
            (&[(32, 16_385)], false),
            (&[(0, 16_384), (40, 16_384)], true),
            (&[(0, 16_385), (40, 16_385)], false),
            (&[(0, 15)], false),
            (&[(0, 0), (40, 0)], false),
            // Two groups, the second with one block, unless the first block is of none.
            (&[(4, 8193)], false),
            (&[(4, 8193), (0, 32)], true),
            (&[(4, 8193), (FIRST, 1)], true),
            (&[(4, 1), (FIRST, 1), (0, 0)], false),
            (&[(4, 0), (FIRST, 1)], false),
            // Blocks of 64 KiB are the largest.
            (&[(24, 6), (28, 6)], true),
            (&[(24, 7), (28, 7)], false),
            (&[(24, u32::MAX), (28, u32::MAX)], false),
        ] {
            assert_eq!(with(numbers).is_plausible(), is_plausible, "{numbers:?}");
        }
        let size = 3072 * 2048;
        assert!(with(&[]).check(7, size).is_ok());
        let error = with(&[]).check(7, size - 1).unwrap_err();
        assert!(matches!(error, ExtError::Truncated { end, size } if end == size + 1));
    }

    #[test]
    fn where_tables_are_and_how_long_their_entries() {
        // `64bit`, and the length of a descriptor, which is in the upper half of a number.
        let bits_64 = (96, 0x80);
        let length = |length: u32| (252, length << 16);
        for (numbers, table, descriptor, inode) in [
            (&[(24, 0)][..], 2048, 32, 128),
            (&[(24, 1)], 2048, 32, 128),
            (&[(24, 2)], 4096, 32, 128),
            (&[(76, 0), (88, 256)], 2048, 32, 128),
            (&[(76, 1), (88, 256)], 2048, 32, 256),
            (&[(76, 1), (88, 0)], 2048, 32, 128),
            (&[length(64)], 2048, 32, 128),
            (&[bits_64, length(64)], 2048, 64, 128),
            (&[bits_64, length(128)], 2048, 128, 128),
        ] {
            let found = with(numbers);
            assert_eq!(
                (
                    found.group_descriptors(),
                    found.descriptor_len(),
                    found.inode_len()
                ),
                (table, descriptor, inode),
                "{numbers:?}"
            );
        }
    }

    #[test]
    fn fields_lie_where_the_kernel_has_them() {
        let mut bytes = vec![0u8; 2048];
        let mut put = |at: usize, value: u32| {
            bytes[1024 + at..1024 + at + 4].copy_from_slice(&value.to_le_bytes());
        };
        put(0, 16);
        put(4, 3072);
        put(24, 1);
        put(28, 1);
        put(32, 8192);
        put(40, 16);
        put(48, 1_648_672_627);
        put(56, 0xEF53);
        put(76, 1);
        put(92, 4);
        put(104, 0x0403_0201);
        put(236, 0x0807_0605);
        put(264, 1_500_000_000);
        let superblock = RawExtSuperblock::read(&bytes).unwrap();
        assert!(superblock.has_magic() && superblock.is_plausible());
        assert_eq!(superblock.size(), Some(3072 * 2048));
        assert_eq!(superblock.write_time.get(), 1_648_672_627);
        assert_eq!(superblock.revision.get(), 1);
        assert_eq!(superblock.name(), "ext3");
        assert_eq!(superblock.made(), 1_500_000_000);
        assert_eq!(superblock.identity()[..4], [1, 2, 3, 4]);
        assert_eq!(superblock.identity()[16..20], [5, 6, 7, 8]);
        let mut clusters = bytes.clone();
        // Blocks and clusters of a group.
        clusters[1024 + 32..][..4].copy_from_slice(&262_144u32.to_le_bytes());
        clusters[1024 + 36..][..4].copy_from_slice(&16_384u32.to_le_bytes());
        assert!(!RawExtSuperblock::read(&clusters).unwrap().is_plausible());
        clusters[1024 + 101] = 2;
        assert!(RawExtSuperblock::read(&clusters).unwrap().is_plausible());
        bytes[1024 + 336] = 1;
        assert_eq!(
            RawExtSuperblock::read(&bytes).unwrap().size(),
            Some(3072 * 2048)
        );
        bytes[1024 + 96] = 0x80;
        assert_eq!(
            RawExtSuperblock::read(&bytes).unwrap().size(),
            Some(((1 << 32) + 3072) * 2048)
        );
    }
}
