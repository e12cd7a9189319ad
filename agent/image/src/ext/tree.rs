//! Single files and directories of an ext2, ext3 or ext4 file system, found by walking from the root inode.
//!
//! Sources: Linux `Documentation/filesystems/ext4/{group_descr,inodes,ifork,directory}.rst`,
//! `fs/ext4/{ext4.h,ext4_extents.h}`.
//!
//! A file system of a stranger may lead back into itself: every block of a file is looked up by itself, in as
//! many steps as its tree may have levels, and directories and files are read to a limit, so that what one
//! lookup costs is known before it begins. The journal is not replayed: what is looked for here is mostly from
//! when the image was made. Where it would have to be, what does not fit together is not called damage, and
//! [`super::probe`] says that what was found may be old. Checksums are not verified, and directories are
//! searched from end to end, which their index allows.

use std::io;

use super::pages::{Pages, fault};
use super::superblock::RawExtSuperblock;
use crate::error::ExtError;
use crate::limits;
use crate::little_endian::{u16_at, u32_at};
use crate::read_at::{ReadAt, ReadTree};

const ROOT: u32 = 2;
/// Bytes of an inode that every revision has.
const INODE: usize = 128;
/// The place of blocks in an inode, which holds pointers or the root of a tree of extents.
const BLOCKS: std::ops::Range<usize> = 40..100;
const TYPE_MASK: u16 = 0xF000;
const DIRECTORY: u16 = 0x4000;
const REGULAR: u16 = 0x8000;
const FLAG_ENCRYPTED: u32 = 0x800;
const FLAG_EXTENTS: u32 = 0x8_0000;
const FLAG_INLINE_DATA: u32 = 0x1000_0000;
/// What of single files and directories is not read here.
const UNREADABLE: [(u32, &str); 2] = [
    (FLAG_ENCRYPTED, "encrypted content"),
    (FLAG_INLINE_DATA, "content in the inode"),
];
/// Blocks that an inode points to itself; then come those with one, two and three blocks of pointers between.
const DIRECT: u64 = 12;
const EXTENT_MAGIC: u16 = 0xF30A;
const EXTENT_DEPTH_MAX: u16 = 5;
const EXTENT_ENTRY: usize = 12;
/// An extent that is longer has no content yet.
const EXTENT_LENGTH_MAX: u16 = 1 << 15;

/// An ext file system as a tree.
pub(crate) struct ExtTree<'f> {
    pages: Pages<'f>,
    superblock: RawExtSuperblock,
    block_size: u64,
}

/// An inode, as far as it matters here.
struct Inode {
    /// Where it lies.
    at: u64,
    kind: u16,
    flags: u32,
    size: u64,
    blocks: Vec<u8>,
}

impl<'f> ExtTree<'f> {
    /// Opens the file system at `start` of `file`, which ends at `end`.
    pub(crate) fn open(
        file: &'f dyn ReadAt,
        start: u64,
        end: u64,
        superblock: &RawExtSuperblock,
    ) -> Result<Self, ExtError> {
        let has_inodes = superblock.inodes_per_group.get() > 0;
        let Some(block_size) = superblock.block_size().filter(|_| has_inodes) else {
            return Err(ExtError::Superblock { offset: start });
        };
        if let Some(reason) = superblock.unsupported() {
            return Err(ExtError::Unsupported { reason });
        }
        Ok(Self {
            pages: Pages::new(file, start, end.saturating_sub(start)),
            superblock: *superblock,
            block_size,
        })
    }

    fn inode(&self, number: u32) -> io::Result<Inode> {
        let table = self.superblock.group_descriptors();
        let index = number
            .checked_sub(1)
            .ok_or_else(|| self.pages.structure("inode", table))?;
        // Never 0.
        let per_group = self.superblock.inodes_per_group.get();
        let length = self.superblock.descriptor_len();
        let at = u64::from(index / per_group)
            .checked_mul(length as u64)
            .and_then(|within| table.checked_add(within))
            .ok_or_else(|| self.pages.structure("group descriptor", table))?;
        let descriptor = self.pages.bytes("group descriptor", at, length)?;
        // Where the descriptor is short, it has no upper half.
        let block = u64::from(u32_at(&descriptor, 40)) << 32 | u64::from(u32_at(&descriptor, 8));
        let within = u64::from(index % per_group) * self.superblock.inode_len();
        let at = self.place("inode table", block)?.saturating_add(within);
        let bytes = self.pages.bytes("inode", at, INODE)?;
        let kind = u16_at(&bytes, 0) & TYPE_MASK;
        // Of a directory the upper half is something else, and such a one is not read to its end.
        let high = if kind == REGULAR {
            u32_at(&bytes, 108)
        } else {
            0
        };
        Ok(Inode {
            at,
            kind,
            flags: u32_at(&bytes, 32),
            size: u64::from(high) << 32 | u64::from(u32_at(&bytes, 4)),
            blocks: bytes.get(BLOCKS).unwrap_or_default().to_vec(),
        })
    }

    /// Where a block begins.
    fn place(&self, what: &'static str, block: u64) -> io::Result<u64> {
        // The first 1024 bytes are never the file system's.
        if block == 0 {
            return Err(self.pages.structure(what, 0));
        }
        block
            .checked_mul(self.block_size)
            .ok_or_else(|| self.pages.structure(what, block))
    }

    /// The block with a file's content at this place within it; `None` where there is a hole.
    fn block_of(&self, inode: &Inode, index: u64) -> io::Result<Option<u64>> {
        if inode.flags & FLAG_EXTENTS != 0 {
            self.block_by_extents(inode, index)
        } else {
            self.block_by_pointers(inode, index)
        }
    }

    fn block_by_pointers(&self, inode: &Inode, index: u64) -> io::Result<Option<u64>> {
        let pointers = self.block_size / 4;
        let pointer = |slot: u64| {
            u32_at(
                &inode.blocks,
                usize::try_from(slot * 4).unwrap_or(BLOCKS.end),
            )
        };
        if index < DIRECT {
            return Ok(Some(pointer(index).into()).filter(|block| *block != 0));
        }
        let mut rest = index - DIRECT;
        let mut reach = 1;
        for level in 0..3 {
            reach *= pointers;
            if rest < reach {
                let mut block = u64::from(pointer(DIRECT + level));
                while block != 0 && reach > 1 {
                    reach /= pointers;
                    let at = self.place("block of pointers", block)? + rest / reach * 4;
                    rest %= reach;
                    block = u32_at(&self.pages.bytes("block of pointers", at, 4)?, 0).into();
                }
                return Ok(Some(block).filter(|block| *block != 0));
            }
            rest -= reach;
        }
        Err(self.pages.structure("inode", inode.at))
    }

    fn block_by_extents(&self, inode: &Inode, index: u64) -> io::Result<Option<u64>> {
        let fault = || self.pages.structure("extents of the inode", inode.at);
        let mut node = inode.blocks.clone();
        let mut above = EXTENT_DEPTH_MAX + 1;
        loop {
            let depth = u16_at(&node, 6);
            if u16_at(&node, 0) != EXTENT_MAGIC || depth >= above {
                return Err(fault());
            }
            let entries = node
                .get(EXTENT_ENTRY..)
                .and_then(|rest| rest.get(..usize::from(u16_at(&node, 2)) * EXTENT_ENTRY))
                .ok_or_else(fault)?;
            let entry = entries
                .chunks_exact(EXTENT_ENTRY)
                .take_while(|entry| u64::from(u32_at(entry, 0)) <= index)
                .last();
            let Some(entry) = entry else {
                return Ok(None);
            };
            if depth == 0 {
                let within = index - u64::from(u32_at(entry, 0));
                let length = u16_at(entry, 4);
                let first = u64::from(u16_at(entry, 6)) << 32 | u64::from(u32_at(entry, 8));
                let is_content = length <= EXTENT_LENGTH_MAX && within < length.into();
                return Ok(is_content.then_some(first + within));
            }
            let child = u64::from(u16_at(entry, 8)) << 32 | u64::from(u32_at(entry, 4));
            let at = self.place("block of extents", child)?;
            above = depth;
            node = self.pages.bytes("block of extents", at, self.block_len())?;
        }
    }

    /// Bytes of a block.
    fn block_len(&self) -> usize {
        usize::try_from(self.block_size).unwrap_or_default()
    }

    /// The first `limit` bytes of a file or directory.
    fn contents(&self, inode: &Inode, limit: usize) -> io::Result<Vec<u8>> {
        for (flag, reason) in UNREADABLE {
            if inode.flags & flag != 0 {
                return Err(fault(ExtError::Unsupported {
                    reason: reason.to_owned(),
                }));
            }
        }
        let wanted = usize::try_from(inode.size).map_or(limit, |size| size.min(limit));
        let mut out = Vec::with_capacity(wanted.min(limits::EXT_PAGE));
        for index in 0.. {
            let length = (wanted - out.len()).min(self.block_len());
            if length == 0 {
                break;
            }
            match self.block_of(inode, index)? {
                Some(block) => {
                    let at = self.place("block of content", block)?;
                    out.extend(self.pages.bytes("block of content", at, length)?);
                }
                None => out.resize(out.len() + length, 0),
            }
        }
        Ok(out)
    }

    /// Calls `visit` with each name and inode number of a directory until it says stop.
    fn walk(&self, inode: &Inode, mut visit: impl FnMut(&[u8], u32) -> bool) -> io::Result<()> {
        if inode.size > limits::DIRECTORY_BYTES_MAX as u64 {
            return Err(fault(ExtError::Limit {
                what: "bytes of a directory",
                limit: limits::DIRECTORY_BYTES_MAX as u64,
            }));
        }
        let bytes = self.contents(inode, limits::DIRECTORY_BYTES_MAX)?;
        for block in bytes.chunks(self.block_len()) {
            let mut rest = block;
            while !rest.is_empty() {
                // In blocks of 64 KiB there is no number for the whole of one.
                let length = match usize::from(u16_at(rest, 4)) {
                    0 | 0xFFFF if block.len() > 0xFFFF => block.len(),
                    length => length,
                };
                let name = usize::from(*rest.get(6).unwrap_or(&0));
                let number = u32_at(rest, 0);
                let (Some(entry), Some(after)) = (rest.get(8..length), rest.get(length..)) else {
                    return Err(self.pages.structure("directory of the inode", inode.at));
                };
                let name = entry
                    .get(..name)
                    .ok_or_else(|| self.pages.structure("directory of the inode", inode.at))?;
                if number != 0 && !visit(name, number) {
                    return Ok(());
                }
                rest = after;
            }
        }
        Ok(())
    }

    /// The inode at a path, if every component is there and all but the last are directories. Links are not
    /// followed: a container's links lead into the host.
    fn find(&self, path: &str) -> io::Result<Option<Inode>> {
        let mut inode = self.inode(ROOT)?;
        if inode.kind != DIRECTORY {
            return Err(self.pages.structure("root directory's inode", inode.at));
        }
        for component in path.split('/') {
            if inode.kind != DIRECTORY {
                return Ok(None);
            }
            let mut number = None;
            self.walk(&inode, |name, found| {
                if name == component.as_bytes() {
                    number = Some(found);
                }
                number.is_none()
            })?;
            let Some(number) = number else {
                return Ok(None);
            };
            inode = self.inode(number)?;
        }
        Ok(Some(inode))
    }

    /// What is wrong may be right in the journal.
    fn judged<T>(&self, outcome: io::Result<T>) -> io::Result<T> {
        outcome.map_err(|error| match error.downcast::<ExtError>() {
            Ok(ExtError::Structure { .. }) if self.superblock.needs_recovery() => {
                fault(ExtError::Unsupported {
                    reason: "a journal that is to be replayed".to_owned(),
                })
            }
            Ok(inside) => fault(inside),
            Err(error) => error,
        })
    }
}

impl ReadTree for ExtTree<'_> {
    fn read(&self, path: &str, limit: usize) -> io::Result<Option<Vec<u8>>> {
        self.judged(match self.find(path) {
            Ok(Some(inode)) if inode.kind == REGULAR => self.contents(&inode, limit).map(Some),
            Ok(_) => Ok(None),
            Err(error) => Err(error),
        })
    }

    fn list(&self, path: &str, limit: usize) -> io::Result<Option<Vec<String>>> {
        let mut names = Vec::new();
        let visit = |name: &[u8], _: u32| {
            if names.len() < limit && !matches!(name, b"." | b"..") {
                names.push(String::from_utf8_lossy(name).into_owned());
            }
            names.len() < limit
        };
        let walked = match self.find(path) {
            Ok(Some(inode)) if inode.kind == DIRECTORY => self.walk(&inode, visit).map(Some),
            Ok(_) => Ok(None),
            Err(error) => Err(error),
        };
        Ok(self.judged(walked)?.map(|()| names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_not_followed_and_what_is_not_there_is_none() {
        for file in [
            &include_bytes!("../../tests/it/data/box.ext2")[..],
            include_bytes!("../../tests/it/data/box.ext3"),
            include_bytes!("../../tests/it/data/box.ext4"),
        ] {
            let superblock = RawExtSuperblock::read(file).unwrap();
            let tree = ExtTree::open(&file, 0, file.len() as u64, &superblock).unwrap();
            let definition = tree.read(".singularity.d/Singularity", 9).unwrap();
            assert_eq!(definition.as_deref(), Some(&b"Bootstrap"[..]));
            for path in [".singularity.d/alias", "link", "many", "none", "large/none"] {
                assert_eq!(tree.read(path, 9).unwrap(), None, "{path}");
            }
            for path in ["link", "large", "none"] {
                assert_eq!(tree.list(path, 9).unwrap(), None, "{path}");
            }
            assert_eq!(
                tree.list("many", 7).unwrap().map(|names| names.len()),
                Some(7)
            );
            let names = tree.list("many", 1000).unwrap().unwrap();
            assert_eq!(names.len(), 400);
            let last = "a-file-with-a-rather-long-name-so-that-blocks-fill-400";
            assert!(names.iter().any(|name| name == last));
            assert_eq!(
                tree.read(&format!("many/{last}"), 9).unwrap(),
                Some(Vec::new())
            );
            let large = tree.read("large", 1 << 20).unwrap().unwrap();
            assert_eq!(large, b"a line of a large file\n".repeat(1781)[..40_960]);
        }
    }

    /// Inodes of 256 bytes in groups of eight, whose tables lie at blocks 40 and 44.
    #[test]
    fn inodes_of_every_group() {
        let mut file = include_bytes!("../../tests/it/data/plain.ext2").to_vec();
        let put = |file: &mut [u8], at: usize, number: u32| {
            file[at..at + 4].copy_from_slice(&number.to_le_bytes());
        };
        put(&mut file, 1024 + 40, 8);
        for (group, table) in [(0, 40), (1, 44)] {
            put(&mut file, 2048 + group * 32 + 8, table);
        }
        // The second inode of the second group.
        let at = 44 * 1024 + 256;
        put(&mut file, at + 4, 9);
        put(&mut file, at + 108, 1);
        let inode = |file: &[u8]| {
            let superblock = RawExtSuperblock::read(file).unwrap();
            let tree = ExtTree::open(&file, 0, file.len() as u64, &superblock).unwrap();
            let found = tree.inode(10).map_err(|error| error.to_string());
            found.map(|inode| (inode.at, inode.size))
        };
        // Of a directory the upper half is something else.
        for (kind, size) in [(REGULAR, 1 << 32 | 9), (DIRECTORY, 9)] {
            file[at..at + 2].copy_from_slice(&kind.to_le_bytes());
            assert_eq!(inode(&file), Ok((at as u64, size)));
        }
        // Descriptors of 64 bytes have an upper half of each number.
        let mut large = file.clone();
        large[1024 + 96] |= 0x80;
        large[1024 + 254] = 64;
        put(&mut large, 2048 + 64 + 8, 44);
        assert_eq!(inode(&large), Ok((at as u64, 9)));
        put(&mut large, 2048 + 64 + 40, 1);
        let said = inode(&large).unwrap_err();
        assert!(
            said.contains(&format!("inode at byte {}", (1u64 << 42) + at as u64)),
            "{said}"
        );
        put(&mut file, 2048 + 32 + 8, 0);
        let said = inode(&file).unwrap_err();
        assert!(said.contains("inode table at byte 0 "), "{said}");
    }

    /// There the length of an entry that takes all of it has no number of its own.
    #[test]
    fn directories_in_blocks_of_64_kib() {
        const BLOCK: usize = 64 << 10;
        let mut file = include_bytes!("../../tests/it/data/plain.ext2").to_vec();
        file[1024 + 24] = 6;
        for (length, expected) in [(0u16, true), (0xFFFF, true), (0xFFFC, false)] {
            file.resize(BLOCK, 0);
            file.extend(11u32.to_le_bytes());
            file.extend(length.to_le_bytes());
            file.extend(b"\x01\x01a");
            file.resize(2 * BLOCK, 0);
            let superblock = RawExtSuperblock::read(&file).unwrap();
            let tree = ExtTree::open(&file, 0, file.len() as u64, &superblock).unwrap();
            let mut blocks = vec![0; BLOCKS.len()];
            blocks[0] = 1;
            let inode = Inode {
                at: 0,
                kind: DIRECTORY,
                flags: 0,
                size: BLOCK as u64,
                blocks,
            };
            let mut names = Vec::new();
            let walked = tree.walk(&inode, |name, number| {
                names.push((name.to_vec(), number));
                true
            });
            assert_eq!(walked.is_ok(), expected, "{length:#x}");
            assert_eq!(names, [(b"a".to_vec(), 11)], "{length:#x}");
        }
    }

    #[test]
    fn a_root_that_is_no_directory_is_damage() {
        const ROOT_MODE: usize = 5 * 1024 + 256;
        let mut file = include_bytes!("../../tests/it/data/plain.ext2").to_vec();
        for (kind, is_damage) in [(DIRECTORY, false), (REGULAR, true)] {
            file[ROOT_MODE..][..2].copy_from_slice(&kind.to_le_bytes());
            let superblock = RawExtSuperblock::read(&file).unwrap();
            let tree = ExtTree::open(&file, 0, file.len() as u64, &superblock).unwrap();
            assert_eq!(tree.list("none", 9).is_err(), is_damage, "{kind:#x}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_said_and_not_guessed() {
        for (flag, reason) in [
            (0x800, "encrypted content"),
            (0x1000_0000, "content in the inode"),
        ] {
            let (file, mut inode) = made(&[], &[20], flag);
            inode.size = 9;
            let superblock = RawExtSuperblock::read(&file).unwrap();
            let tree = ExtTree::open(&file, 0, file.len() as u64, &superblock).unwrap();
            let error = tree.contents(&inode, 9).unwrap_err().to_string();
            assert!(error.ends_with(reason), "{error}");
            let error = tree.walk(&inode, |_, _| true).unwrap_err().to_string();
            assert!(error.ends_with(reason), "{error}");
        }
    }

    const BLOCK: usize = 1024;

    /// A file system of blocks that hold these numbers, and an inode of these.
    fn made(blocks: &[(usize, &[u32])], inode: &[u32], flags: u32) -> (Vec<u8>, Inode) {
        let bytes = |numbers: &[u32]| -> Vec<u8> {
            numbers
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect()
        };
        let mut file = include_bytes!("../../tests/it/data/plain.ext2").to_vec();
        for (number, numbers) in blocks {
            let numbers = bytes(numbers);
            file[number * BLOCK..][..numbers.len()].copy_from_slice(&numbers);
        }
        let mut blocks = bytes(inode);
        blocks.resize(BLOCKS.len(), 0);
        let inode = Inode {
            at: 0,
            kind: REGULAR,
            flags,
            size: u64::MAX,
            blocks,
        };
        (file, inode)
    }

    fn check(file: &[u8], inode: &Inode, cases: &[(u64, Option<u64>)]) {
        let superblock = RawExtSuperblock::read(file).unwrap();
        let tree = ExtTree::open(&file, 0, file.len() as u64, &superblock).unwrap();
        for (index, block) in cases {
            assert_eq!(tree.block_of(inode, *index).unwrap(), *block, "{index}");
        }
    }

    #[test]
    fn blocks_by_pointers() {
        const ONE: u64 = 12;
        const TWO: u64 = ONE + 256;
        const THREE: u64 = TWO + 256 * 256;
        let mut inode = [0; 15];
        inode[0] = 20;
        inode[11] = 21;
        inode[12..].copy_from_slice(&[30, 31, 32]);
        let last = |number: u32| {
            let mut numbers = [0; 256];
            (numbers[0], numbers[255]) = (0, number);
            numbers
        };
        let (file, inode) = made(&[(30, &last(40)), (31, &[0, 30]), (32, &[31])], &inode, 0);
        check(
            &file,
            &inode,
            &[
                (0, Some(20)),
                (1, None),
                (11, Some(21)),
                (ONE, None),
                (ONE + 255, Some(40)),
                (TWO, None),
                (TWO + 255, None),
                (TWO + 511, Some(40)),
                (TWO + 512, None),
                (THREE, None),
                (THREE + 511, Some(40)),
                (THREE + 65_536, None),
            ],
        );
    }

    #[test]
    fn blocks_by_extents() {
        let node = |depth: u32, entries: &[[u32; 3]]| {
            let magic = u32::from(EXTENT_MAGIC);
            let head = [magic | (entries.len() as u32) << 16, 84 | depth << 16, 0];
            [&head, entries.as_flattened()].concat()
        };
        let inner = node(1, &[[0, 31, 0], [100, 32, 0]]);
        // First block, length, where they lie.
        let leaf = node(0, &[[0, 2, 40], [5, 3 | 1 << 15, 50], [9, 1 << 15, 60]]);
        let last = node(0, &[[100, 1 | 7 << 16, 70]]);
        let (file, inode) = made(
            &[(30, &inner), (31, &leaf), (32, &last)],
            &node(2, &[[0, 30, 0], [200, 30, 0]]),
            FLAG_EXTENTS,
        );
        check(
            &file,
            &inode,
            &[
                (0, Some(40)),
                (1, Some(41)),
                (2, None),
                (5, None),
                (9, Some(60)),
                (99, Some(150)),
                (100, Some(7 << 32 | 70)),
                (101, None),
                (200, None),
            ],
        );
        let chain: Vec<_> = (0..5)
            .map(|depth| node(depth, &[[0, 29 + depth, 0]]))
            .collect();
        let blocks: Vec<_> = (30..).zip(chain.iter().map(Vec::as_slice)).collect();
        let leaf = node(0, &[[0, 1, 40]]);
        let blocks = [&blocks[1..], &[(30, &leaf[..])]].concat();
        for (what, root, is_read) in [
            ("the deepest", node(5, &[[0, 34, 0]]), true),
            ("deeper", node(6, &[[0, 34, 0]]), false),
            ("its own child", node(2, &[[0, 32, 0]]), false),
            ("without the magic", vec![0; 15], false),
            (
                "with more entries than room",
                node(0, &[[0, 1, 40]; 5]),
                false,
            ),
            ("with a child beyond the end", node(1, &[[0, 30, 1]]), false),
            ("with a child at block 0", node(1, &[[0, 0, 0]]), false),
        ] {
            let (file, inode) = made(&blocks, &root, FLAG_EXTENTS);
            let superblock = RawExtSuperblock::read(&file).unwrap();
            let tree = ExtTree::open(&file, 0, file.len() as u64, &superblock).unwrap();
            assert_eq!(tree.block_of(&inode, 0).is_ok(), is_read, "{what}");
        }
    }
}
