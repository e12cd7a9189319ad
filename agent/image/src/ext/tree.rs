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
mod tests;
