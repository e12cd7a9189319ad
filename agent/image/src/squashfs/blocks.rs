//! What is read of a squashfs: metadata blocks, and bytes of which it is known how many they are.
//!
//! How long a metadata block is stands at its beginning, so that as much is read as it can have. The tables
//! follow each other at the end of the file system: what a read brings of the next ones is kept, and of a small
//! file system it is all of them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;

use backhand::compression::Compressor;

use super::block::decompress;
use crate::error::SquashfsError;
use crate::limits;
use crate::read_at::ReadAt;

/// Bytes of a metadata block, decompressed (`squashfs_fs.h: SQUASHFS_METADATA_SIZE`).
pub(super) const METADATA_BLOCK: usize = 8192;
/// The bit of a metadata block's length that says "stored".
const METADATA_STORED: u16 = 1 << 15;
/// Bytes of a metadata block's length, and of a pointer to one.
const HEADER: usize = 2;
const POINTER: usize = 8;
/// Reads that are kept: the way to a file has the inodes and names of three directories.
const KEPT: usize = 8;

/// The blocks of a file system.
pub(super) struct Blocks<'f> {
    file: &'f dyn ReadAt,
    start: u64,
    length: u64,
    compressor: Compressor,
    /// Where the last reads of tables began, and what they brought.
    read: RefCell<VecDeque<(u64, Rc<[u8]>)>>,
    metadata: RefCell<BTreeMap<u64, MetadataBlock>>,
    spent: Cell<usize>,
}

/// A metadata block, and where the next one begins.
#[derive(Clone)]
pub(super) struct MetadataBlock {
    pub(super) bytes: Rc<[u8]>,
    pub(super) next: u64,
}

impl<'f> Blocks<'f> {
    /// Those of the file system of `length` bytes at `start`.
    pub(super) fn new(
        file: &'f dyn ReadAt,
        start: u64,
        length: u64,
        compressor: Compressor,
    ) -> Self {
        Self {
            file,
            start,
            length,
            compressor,
            read: RefCell::default(),
            metadata: RefCell::default(),
            spent: Cell::default(),
        }
    }

    pub(super) fn structure(&self, what: &'static str, offset: u64) -> io::Error {
        fault(SquashfsError::Structure {
            what,
            offset: self.start.saturating_add(offset),
        })
    }

    /// Reads `length` bytes at `offset` of the file system.
    pub(super) fn bytes(
        &self,
        what: &'static str,
        offset: u64,
        length: usize,
    ) -> io::Result<Vec<u8>> {
        let end = offset.checked_add(length as u64);
        if end.is_none_or(|end| end > self.length) {
            return Err(self.structure(what, offset));
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, self.start + offset)?;
        Ok(bytes)
    }

    /// What a read of tables has brought of the bytes at `offset`, if `suffices` says that it is enough.
    fn kept(&self, offset: u64, suffices: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        self.read.borrow().iter().rev().find_map(|(start, bytes)| {
            let from = usize::try_from(offset.checked_sub(*start)?).ok()?;
            let rest = bytes.get(from..).filter(|rest| suffices(rest))?;
            Some(rest.to_vec())
        })
    }

    /// Reads and keeps up to `length` bytes of tables at `offset`, fewer only at the end of the file system.
    fn read(&self, what: &'static str, offset: u64, length: usize) -> io::Result<Rc<[u8]>> {
        let room = self.length.saturating_sub(offset);
        let length = usize::try_from(room).map_or(length, |room| length.min(room));
        let bytes: Rc<[u8]> = self.bytes(what, offset, length)?.into();
        let mut read = self.read.borrow_mut();
        if read.len() == KEPT {
            read.pop_front();
        }
        read.push_back((offset, Rc::clone(&bytes)));
        Ok(bytes)
    }

    /// The pointer at `offset` to a metadata block, which lies just before it most of the time and is read
    /// along.
    pub(super) fn pointer(&self, what: &'static str, offset: u64) -> io::Result<[u8; POINTER]> {
        let pointer = |rest: &[u8]| rest.first_chunk().copied();
        let kept = self.kept(offset, |rest| rest.len() >= POINTER);
        let found = match kept {
            Some(bytes) => pointer(&bytes),
            None => {
                let before = offset.min((HEADER + METADATA_BLOCK) as u64);
                let length = usize::try_from(before).unwrap_or_default();
                let bytes = self.read(what, offset - before, length + POINTER)?;
                bytes.get(length..).and_then(pointer)
            }
        };
        found.ok_or_else(|| self.structure(what, offset))
    }

    /// The metadata block at `offset`.
    pub(super) fn metadata(&self, offset: u64) -> io::Result<MetadataBlock> {
        const WHAT: &str = "metadata block";
        if let Some(block) = self.metadata.borrow().get(&offset) {
            return Ok(block.clone());
        }
        let raw = match self.kept(offset, |rest| split(rest).is_some()) {
            Some(bytes) => bytes.into(),
            None => self.read(WHAT, offset, HEADER + METADATA_BLOCK)?,
        };
        let (is_stored, stored) = split(&raw)
            .filter(|(_, bytes)| !bytes.is_empty())
            .ok_or_else(|| self.structure(WHAT, offset))?;
        // A stored one is counted like any other: there may be one for each byte of a directory.
        self.spend(METADATA_BLOCK)?;
        let block = MetadataBlock {
            next: offset + (HEADER + stored.len()) as u64,
            bytes: if is_stored {
                stored.into()
            } else {
                self.decompress(stored, METADATA_BLOCK, offset)?.into()
            },
        };
        self.metadata.borrow_mut().insert(offset, block.clone());
        Ok(block)
    }

    /// Decompresses a block of content at `offset` to no more than `most` bytes.
    pub(super) fn inflate(&self, bytes: &[u8], most: usize, offset: u64) -> io::Result<Vec<u8>> {
        self.spend(most)?;
        self.decompress(bytes, most, offset)
    }

    fn decompress(&self, bytes: &[u8], most: usize, offset: u64) -> io::Result<Vec<u8>> {
        decompress(
            bytes,
            most,
            self.compressor,
            self.start.saturating_add(offset),
        )
        .map_err(fault)
    }

    /// Counts a block by what it may have.
    fn spend(&self, most: usize) -> io::Result<()> {
        let spent = self.spent.get().saturating_add(most);
        if spent > limits::SQUASHFS_BLOCKS_MAX {
            return Err(fault(SquashfsError::Limit {
                what: "bytes of blocks",
                limit: limits::SQUASHFS_BLOCKS_MAX as u64,
            }));
        }
        self.spent.set(spent);
        Ok(())
    }
}

/// Whether a metadata block at the beginning of `raw` is stored, and its bytes as they are there, if all are.
fn split(raw: &[u8]) -> Option<(bool, &[u8])> {
    let (header, rest) = raw.split_first_chunk()?;
    let header = u16::from_le_bytes(*header);
    let bytes = rest.get(..usize::from(header & !METADATA_STORED))?;
    Some((header & METADATA_STORED != 0, bytes))
}

/// Carries what is wrong with the file system through a tree's reads.
pub(super) fn fault(error: SquashfsError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
