//! Single files and directories of a squashfs, found by walking from the root inode.
//!
//! Sources: Linux `fs/squashfs/{squashfs_fs.h,inode.c,dir.c,fragment.c,cache.c}`. Only the metadata
//! blocks on the way to a name are read and decompressed (backhand's decompressors), about ten for
//! `labels.json`. backhand's own reader loads every inode and every name of the image when it is
//! opened: 0.3 s and 62 MB for 200,000 files, which images of the years without labels in their
//! header have, so that a bound on memory would cost such images their names.
//!
//! Every offset is checked against the end of the file system, and the whole of what the blocks may
//! have against [`limits::SQUASHFS_BLOCKS_MAX`]; blocks only lead forwards within a table, paths
//! have as many steps as components, so that no loop is possible.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use super::block::compressor;
use super::blocks::{Blocks, METADATA_BLOCK, fault};
use super::superblock::RawSuperblock;
use crate::error::SquashfsError;
use crate::limits;
use crate::little_endian::{u16_at, u32_at, u64_at};
use crate::read_at::{ReadAt, ReadTree};

/// The bit of a data block's length that says "stored".
const DATA_STORED: u32 = 1 << 24;
/// "No fragment", and a table that is not there.
const NONE: u32 = u32::MAX;
/// Bytes of a fragment entry, and how many a metadata block holds.
const FRAGMENT_ENTRY: usize = 16;
const FRAGMENTS_IN_BLOCK: u32 = 512;

/// A squashfs as a tree.
pub(crate) struct SquashfsTree<'f> {
    blocks: Blocks<'f>,
    superblock: RawSuperblock,
    data: RefCell<Option<(u64, Rc<[u8]>)>>,
}

/// A place in a table of metadata blocks, relative to the file system.
#[derive(Clone, Copy)]
struct Place {
    block: u64,
    offset: usize,
}

/// An inode, as far as it matters here.
enum Inode {
    Directory { place: Place, size: u32 },
    File(FileInode),
    Other,
}

struct FileInode {
    blocks_start: u64,
    size: u64,
    fragment: u32,
    fragment_offset: usize,
    blocks: Place,
}

impl<'f> SquashfsTree<'f> {
    /// The tree of a file system at `start` whose superblock has been checked.
    pub(crate) fn open(
        file: &'f dyn ReadAt,
        start: u64,
        superblock: RawSuperblock,
    ) -> Result<Self, SquashfsError> {
        Ok(Self {
            blocks: Blocks::new(
                file,
                start,
                superblock.bytes_used.get(),
                compressor(&superblock)?,
            ),
            superblock,
            data: RefCell::default(),
        })
    }

    /// Reads `length` bytes at `place`, across blocks, and moves it behind them.
    fn metadata_bytes(&self, place: &mut Place, length: usize) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(length.min(METADATA_BLOCK));
        while out.len() < length {
            let block = self.blocks.metadata(place.block)?;
            let rest = block.bytes.get(place.offset..).unwrap_or_default();
            if rest.is_empty() {
                if place.offset > block.bytes.len() {
                    return Err(self.blocks.structure("metadata", place.block));
                }
                *place = Place {
                    block: block.next,
                    offset: 0,
                };
                continue;
            }
            let taken = rest.len().min(length - out.len());
            out.extend_from_slice(&rest[..taken]);
            place.offset += taken;
        }
        Ok(out)
    }

    fn fields<const N: usize>(&self, place: &mut Place) -> io::Result<[u8; N]> {
        self.metadata_bytes(place, N)?
            .try_into()
            .map_err(|_| self.blocks.structure("metadata", place.block))
    }

    /// The inode at a reference: block in the upper 48 bits, offset in the lower 16.
    fn inode(&self, reference: u64) -> io::Result<Inode> {
        let block = self
            .superblock
            .inode_table
            .get()
            .checked_add(reference >> 16);
        let Some(block) = block else {
            return Err(self.blocks.structure("inode", reference >> 16));
        };
        let mut place = Place {
            block,
            offset: usize::from(low_16(reference)),
        };
        let header = self.fields::<16>(&mut place)?;
        Ok(match u16_at(&header, 0) {
            1 => {
                let inode = self.fields::<16>(&mut place)?;
                self.directory(
                    u32_at(&inode, 0),
                    u16_at(&inode, 10),
                    u16_at(&inode, 8).into(),
                )?
            }
            8 => {
                let inode = self.fields::<24>(&mut place)?;
                self.directory(u32_at(&inode, 8), u16_at(&inode, 18), u32_at(&inode, 4))?
            }
            2 => {
                let inode = self.fields::<16>(&mut place)?;
                Inode::File(FileInode {
                    blocks_start: u32_at(&inode, 0).into(),
                    fragment: u32_at(&inode, 4),
                    fragment_offset: u32_at(&inode, 8) as usize,
                    size: u32_at(&inode, 12).into(),
                    blocks: place,
                })
            }
            9 => {
                let inode = self.fields::<40>(&mut place)?;
                Inode::File(FileInode {
                    blocks_start: u64_at(&inode, 0),
                    size: u64_at(&inode, 8),
                    fragment: u32_at(&inode, 28),
                    fragment_offset: u32_at(&inode, 32) as usize,
                    blocks: place,
                })
            }
            3..=7 | 10..=14 => Inode::Other,
            _ => return Err(self.blocks.structure("inode", block)),
        })
    }

    fn directory(&self, block: u32, offset: u16, size: u32) -> io::Result<Inode> {
        let table = self.superblock.directory_table.get();
        let block = table
            .checked_add(block.into())
            .ok_or_else(|| self.blocks.structure("directory", table))?;
        Ok(Inode::Directory {
            place: Place {
                block,
                offset: offset.into(),
            },
            size,
        })
    }

    /// Calls `visit` with each name and inode reference of a directory until it says stop.
    fn walk(
        &self,
        mut place: Place,
        size: u32,
        mut visit: impl FnMut(&[u8], u64) -> bool,
    ) -> io::Result<()> {
        // The size counts `.` and `..`, which are not stored, as three bytes (`dir.c`).
        let mut left = (size as usize).saturating_sub(3);
        if left > limits::DIRECTORY_BYTES_MAX {
            return Err(fault(SquashfsError::Limit {
                what: "bytes of a directory",
                limit: limits::DIRECTORY_BYTES_MAX as u64,
            }));
        }
        let block = place.block;
        let mut take = |left: &mut usize, length: usize| {
            *left = left
                .checked_sub(length)
                .ok_or_else(|| self.blocks.structure("directory", block))?;
            self.metadata_bytes(&mut place, length)
        };
        while left > 0 {
            let header = take(&mut left, 12)?;
            let count = u32_at(&header, 0);
            if count >= 256 {
                return Err(self.blocks.structure("directory", block));
            }
            let inodes = u64::from(u32_at(&header, 4)) << 16;
            for _ in 0..=count {
                let entry = take(&mut left, 8)?;
                let name = take(&mut left, usize::from(u16_at(&entry, 6)) + 1)?;
                if !visit(&name, inodes | u64::from(u16_at(&entry, 0))) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The inode at a path, if every component is there and all but the last are directories.
    fn find(&self, path: &str) -> io::Result<Option<Inode>> {
        let mut inode = self.inode(self.superblock.root_inode.get())?;
        for component in path.split('/') {
            let Inode::Directory { place, size } = inode else {
                return Ok(None);
            };
            let mut reference = None;
            self.walk(place, size, |name, found| {
                if name == component.as_bytes() {
                    reference = Some(found);
                }
                reference.is_none()
            })?;
            let Some(reference) = reference else {
                return Ok(None);
            };
            inode = self.inode(reference)?;
        }
        Ok(Some(inode))
    }

    fn contents(&self, inode: &FileInode, limit: usize) -> io::Result<Vec<u8>> {
        let block_size = self.superblock.block_size.get() as usize;
        let size = usize::try_from(inode.size).unwrap_or(usize::MAX);
        let wanted = size.min(limit);
        let mut out = Vec::with_capacity(wanted.min(block_size));
        let mut at = inode.blocks_start;
        let mut lengths = inode.blocks;
        while out.len() < wanted {
            let left = size - out.len();
            if left < block_size && inode.fragment != NONE {
                let fragment = self.fragment(inode.fragment)?;
                let end = inode.fragment_offset.checked_add(left);
                let bytes = end
                    .and_then(|end| fragment.get(inode.fragment_offset..end))
                    .ok_or_else(|| self.blocks.structure("fragment", inode.blocks_start))?;
                out.extend_from_slice(bytes);
                break;
            }
            let length = u32::from_le_bytes(self.fields::<4>(&mut lengths)?);
            let expected = left.min(block_size);
            let before = out.len();
            if length == 0 {
                out.resize(before + expected, 0);
            } else {
                out.extend_from_slice(&self.data_block(at, length)?);
                at = at
                    .checked_add(u64::from(length & !DATA_STORED))
                    .ok_or_else(|| self.blocks.structure("file", at))?;
            }
            if out.len() - before != expected {
                return Err(self.blocks.structure("file", at));
            }
        }
        out.truncate(wanted);
        Ok(out)
    }

    fn data_block(&self, offset: u64, length: u32) -> io::Result<Rc<[u8]>> {
        if let Some((at, bytes)) = &*self.data.borrow()
            && *at == offset
        {
            return Ok(Rc::clone(bytes));
        }
        let block_size = self.superblock.block_size.get() as usize;
        let stored = (length & !DATA_STORED) as usize;
        if stored > block_size {
            return Err(self.blocks.structure("data block", offset));
        }
        let raw = self.blocks.bytes("data block", offset, stored)?;
        let bytes: Rc<[u8]> = if length & DATA_STORED == 0 {
            self.blocks.inflate(&raw, block_size, offset)?.into()
        } else {
            raw.into()
        };
        *self.data.borrow_mut() = Some((offset, Rc::clone(&bytes)));
        Ok(bytes)
    }

    fn fragment(&self, index: u32) -> io::Result<Rc<[u8]>> {
        let table = self.superblock.fragment_table.get();
        if index >= self.superblock.fragment_count.get() {
            return Err(self.blocks.structure("fragment index", table));
        }
        let pointer = table
            .checked_add(u64::from(index / FRAGMENTS_IN_BLOCK) * 8)
            .ok_or_else(|| self.blocks.structure("fragment table", table))?;
        let block = u64::from_le_bytes(self.blocks.pointer("fragment table", pointer)?);
        let mut place = Place {
            block,
            offset: (index % FRAGMENTS_IN_BLOCK) as usize * FRAGMENT_ENTRY,
        };
        let entry = self.fields::<FRAGMENT_ENTRY>(&mut place)?;
        self.data_block(u64_at(&entry, 0), u32_at(&entry, 8))
    }
}

impl ReadTree for SquashfsTree<'_> {
    fn read(&self, path: &str, limit: usize) -> io::Result<Option<Vec<u8>>> {
        match self.find(path)? {
            Some(Inode::File(inode)) => self.contents(&inode, limit).map(Some),
            _ => Ok(None),
        }
    }

    fn list(&self, path: &str, limit: usize) -> io::Result<Option<Vec<String>>> {
        let Some(Inode::Directory { place, size }) = self.find(path)? else {
            return Ok(None);
        };
        let mut names = Vec::new();
        self.walk(place, size, |name, _| {
            if names.len() < limit {
                names.push(String::from_utf8_lossy(name).into_owned());
            }
            names.len() < limit
        })?;
        Ok(Some(names))
    }
}

fn low_16(value: u64) -> u16 {
    let [a, b, ..] = value.to_le_bytes();
    u16::from_le_bytes([a, b])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&[u8]; 5] = [
        include_bytes!("../../tests/it/data/box-gzip.squashfs"),
        include_bytes!("../../tests/it/data/box-xz.squashfs"),
        include_bytes!("../../tests/it/data/box-zstd.squashfs"),
        include_bytes!("../../tests/it/data/box-lz4.squashfs"),
        include_bytes!("../../tests/it/data/box-stored.squashfs"),
    ];

    fn open<'f>(file: &'f &[u8]) -> SquashfsTree<'f> {
        let superblock = RawSuperblock::read(file).unwrap();
        superblock.check(0, file.len() as u64).unwrap();
        SquashfsTree::open(file, 0, superblock).unwrap()
    }

    #[test]
    fn files_of_blocks_and_of_fragments() {
        for file in ALL {
            let tree = open(&file);
            let large = tree.read("large", 1 << 20).unwrap().unwrap();
            assert_eq!(large.len(), 40_960);
            assert_eq!(large, b"a line of a large file\n".repeat(1781)[..40_960]);
            assert_eq!(tree.read("large", 9000).unwrap().unwrap(), large[..9000]);
            let small = tree
                .read(".singularity.d/bootstrap_history/Singularity0", 99)
                .unwrap();
            assert_eq!(
                small.as_deref(),
                Some(&b"bootstrap: docker\nfrom: alpine:3.8\n"[..])
            );
            let short = tree.read(".singularity.d/Singularity", 9).unwrap();
            assert_eq!(short.as_deref(), Some(&b"Bootstrap"[..]));
        }
    }

    #[test]
    fn directories_of_more_than_one_block() {
        for file in ALL {
            let tree = open(&file);
            let names = tree.list("many", 1000).unwrap().unwrap();
            assert_eq!(names.len(), 400);
            let last = "a-file-with-a-rather-long-name-so-that-blocks-fill-400";
            assert!(names.iter().any(|name| name == last));
            assert_eq!(
                tree.read(&format!("many/{last}"), 9).unwrap(),
                Some(Vec::new())
            );
            assert_eq!(tree.list("many", 7).unwrap().unwrap().len(), 7);
        }
    }

    #[test]
    fn what_is_not_there_is_none_and_links_are_not_followed() {
        for file in ALL {
            let tree = open(&file);
            for path in [
                "none",
                "many/none",
                "large/none",
                "many",
                "link",
                "link/labels.json",
            ] {
                assert_eq!(tree.read(path, 9).unwrap(), None, "{path}");
            }
            assert_eq!(tree.read(".singularity.d/runscript", 9).unwrap(), None);
            for path in ["none", "large", "link"] {
                assert_eq!(tree.list(path, 9).unwrap(), None, "{path}");
            }
        }
    }

    #[test]
    fn compressors_that_are_not_there_are_named() {
        for (file, name) in [
            (
                &include_bytes!("../../tests/it/data/box-lzo.squashfs")[..],
                "lzo",
            ),
            (
                include_bytes!("../../tests/it/data/box-lzma.squashfs"),
                "lzma",
            ),
        ] {
            let superblock = RawSuperblock::read(file).unwrap();
            let error = SquashfsTree::open(&file, 0, superblock).err();
            assert_eq!(
                error,
                Some(SquashfsError::Compressor {
                    compressor: name.to_owned()
                })
            );
        }
    }
}
