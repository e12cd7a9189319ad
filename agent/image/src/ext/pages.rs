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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_up_to_the_end_and_pages_up_to_the_limit() {
        const PAGE: usize = limits::EXT_PAGE;
        const MOST: usize = limits::EXT_PAGES_MAX;
        let file: Vec<u8> = (0..(MOST + 1) * PAGE).map(|at| (at % 251) as u8).collect();
        let length = file.len() as u64 - 7;
        let of = || Pages::new(&file, 7, length);
        let bytes = |pages: &Pages<'_>, at: usize, length: usize| {
            let found = pages.bytes("block", at as u64, length);
            found.map_err(|error| error.to_string())
        };
        let last = file.len() - 7;
        for (at, length) in [
            (0, 3),
            (PAGE - 1, 2),
            (PAGE - 1, PAGE + 2),
            (last - 3, 3),
            (last, 0),
        ] {
            let expected = file[7 + at..][..length].to_vec();
            assert_eq!(bytes(&of(), at, length), Ok(expected), "{at}");
        }
        let beyond = format!(
            "ext block at byte {} leads outside or makes no sense",
            last + 4
        );
        assert_eq!(bytes(&of(), last - 3, 4), Err(beyond));
        let pages = of();
        for index in 0..MOST {
            assert!(bytes(&pages, index * PAGE, 1).is_ok(), "{index}");
        }
        let many = "ext file system needs more than 8388608 bytes of metadata".to_owned();
        assert_eq!(bytes(&pages, MOST * PAGE, 1), Err(many));
        assert!(bytes(&pages, 0, 1).is_ok());
    }
}
