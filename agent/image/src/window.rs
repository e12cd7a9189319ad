//! What has been read of a file so far, so that nothing is read twice and neighbours are read
//! together.

use std::cell::RefCell;
use std::io;

use smallvec::SmallVec;

use crate::limits;
use crate::read_at::ReadAt;

thread_local! {
    /// Buffers of earlier probes. A scan makes thousands of probes of the same few sizes; memory
    /// that is given back each time is faulted in again page by page, which costs as much as all
    /// the parsing.
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// The parts of one file that are in memory.
pub(crate) struct Windows<'f> {
    file: &'f dyn ReadAt,
    size: u64,
    parts: SmallVec<[Part; limits::SIF_READS]>,
    reads: usize,
    bytes: usize,
}

/// One read.
struct Part {
    offset: u64,
    length: usize,
    /// At least `length` bytes.
    buffer: Vec<u8>,
}

impl Part {
    fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }
}

impl Drop for Windows<'_> {
    fn drop(&mut self) {
        SPARE.with_borrow_mut(|spare| {
            let kept = self
                .parts
                .drain(..)
                .map(|part| part.buffer)
                .filter(|buffer| buffer.len() <= limits::SIF_READ_BUDGET);
            spare.extend(kept.take(limits::SIF_READS.saturating_sub(spare.len())));
        });
    }
}

impl<'f> Windows<'f> {
    /// Reads the head of `file`.
    pub(crate) fn open(file: &'f dyn ReadAt) -> io::Result<Self> {
        let size = file.size();
        let mut windows = Self {
            file,
            size,
            parts: SmallVec::new(),
            reads: 0,
            bytes: 0,
        };
        windows.fetch(0, limits::HEAD as u64)?;
        Ok(windows)
    }

    /// The file's size.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The file itself, for readers with a cache of their own.
    pub(crate) fn file(&self) -> &'f dyn ReadAt {
        self.file
    }

    /// How many reads have been made, and of how many bytes.
    pub(crate) fn spent(&self) -> (usize, usize) {
        (self.reads, self.bytes)
    }

    /// The first bytes of the file.
    pub(crate) fn head(&self) -> &[u8] {
        self.parts.first().map(Part::bytes).unwrap_or_default()
    }

    /// Reads `length` bytes at `offset`, or as many as the file has.
    pub(crate) fn fetch(&mut self, offset: u64, length: u64) -> io::Result<()> {
        let length = length.min(self.size.saturating_sub(offset));
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
        if length == 0 {
            return Ok(());
        }
        let mut buffer = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
        if buffer.len() < length {
            buffer.resize(length.max(limits::HEAD), 0);
        }
        if let Some(bytes) = buffer.get_mut(..length) {
            self.file.read_exact_at(bytes, offset)?;
        }
        self.reads += 1;
        self.bytes = self.bytes.saturating_add(length);
        self.parts.push(Part {
            offset,
            length,
            buffer,
        });
        Ok(())
    }

    /// `length` bytes at `offset`, if one read has brought them all.
    pub(crate) fn get(&self, offset: u64, length: u64) -> Option<&[u8]> {
        let length = usize::try_from(length).ok()?;
        self.parts.iter().rev().find_map(|part| {
            let from = usize::try_from(offset.checked_sub(part.offset)?).ok()?;
            part.bytes().get(from..from.checked_add(length)?)
        })
    }

    /// Fills `buf` with the bytes at `offset`, which are read but not kept if they are not here.
    pub(crate) fn copy(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        match self.get(offset, buf.len() as u64) {
            Some(bytes) => {
                buf.copy_from_slice(bytes);
                Ok(())
            }
            None => self.file.read_exact_at(buf, offset),
        }
    }

    /// `length` bytes at `offset`, read now if they are not here; `None` beyond the end of file.
    pub(crate) fn need(&mut self, offset: u64, length: u64) -> io::Result<Option<&[u8]>> {
        if offset.checked_add(length).is_none_or(|end| end > self.size) {
            return Ok(None);
        }
        if self.get(offset, length).is_none() {
            self.fetch(offset, length)?;
        }
        Ok(self.get(offset, length))
    }
}
