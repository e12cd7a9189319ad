//! What is read of an ext file system: pages, each once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use crate::error::ExtError;
use crate::limits;
use crate::read_at::ReadAt;

/// The pages of a file system.
pub(super) struct Pages<'f> {
    file: &'f dyn ReadAt,
    start: u64,
    length: u64,
    read: RefCell<BTreeMap<u64, Rc<[u8]>>>,
}

impl<'f> Pages<'f> {
    /// Those of the file system that begins at `start` of `file` and has up to `length` bytes.
    pub(super) fn new(file: &'f dyn ReadAt, start: u64, length: u64) -> Self {
        Self {
            file,
            start,
            length,
            read: RefCell::default(),
        }
    }

    /// The `length` bytes at `at` of the file system, which are of a `what`.
    pub(super) fn bytes(&self, what: &'static str, at: u64, length: usize) -> io::Result<Vec<u8>> {
        const PAGE: u64 = limits::EXT_PAGE as u64;
        if at
            .checked_add(length as u64)
            .is_none_or(|end| end > self.length)
        {
            return Err(self.structure(what, at));
        }
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let next = at + bytes.len() as u64;
            let page = self.page(next / PAGE)?;
            let within = usize::try_from(next % PAGE).unwrap_or_default();
            let rest = page.get(within..).unwrap_or_default();
            let taken = rest.len().min(length - bytes.len());
            bytes.extend_from_slice(&rest[..taken]);
            if taken == 0 {
                return Err(self.structure(what, at));
            }
        }
        Ok(bytes)
    }

    fn page(&self, index: u64) -> io::Result<Rc<[u8]>> {
        let mut read = self.read.borrow_mut();
        if let Some(page) = read.get(&index) {
            return Ok(Rc::clone(page));
        }
        if read.len() >= limits::EXT_PAGES_MAX {
            return Err(fault(ExtError::Limit {
                what: "bytes of metadata",
                limit: (limits::EXT_PAGES_MAX * limits::EXT_PAGE) as u64,
            }));
        }
        // Cannot overflow: it is within what holds the file system.
        let within = index * limits::EXT_PAGE as u64;
        let length = (self.length - within).min(limits::EXT_PAGE as u64);
        let mut page = vec![0; usize::try_from(length).unwrap_or_default()];
        self.file.read_exact_at(&mut page, self.start + within)?;
        let page: Rc<[u8]> = page.into();
        read.insert(index, Rc::clone(&page));
        Ok(page)
    }

    /// A `what` that begins at byte `at` of the file system and cannot be right.
    pub(super) fn structure(&self, what: &'static str, at: u64) -> io::Error {
        fault(ExtError::Structure {
            what,
            offset: self.start.saturating_add(at),
        })
    }
}

/// Carries what is wrong with the file system through a tree's reads.
pub(super) fn fault(error: ExtError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
