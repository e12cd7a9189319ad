//! Files and directories of an ext file system, through the `ext4-view` crate.
//!
//! The crate wants to own what it reads from, for ever; what is to be read here is borrowed. So it
//! is given a set of pages, and where one is missing the call fails, the page is read, and the call
//! is made again. Calls are few and start over cheaply: every page before the missing one is there.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use ext4_view::{Ext4, Ext4Error, Ext4Read};

use super::superblock::RawExtSuperblock;
use crate::error::ExtError;
use crate::limits;
use crate::read_at::{ReadAt, ReadTree};

type BoxedError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Pages that have been read, and the first that was missed.
#[derive(Default)]
struct Pages {
    pages: BTreeMap<u64, Box<[u8]>>,
    missing: Option<u64>,
    /// Where the last read ended, and how many pages it had: each that goes on where the last
    /// ended reads twice as many, so that a long run of pages takes few repetitions.
    end: u64,
    run: u64,
}

struct PageReader(Rc<RefCell<Pages>>);

impl Ext4Read for PageReader {
    fn read(&mut self, start: u64, dst: &mut [u8]) -> Result<(), BoxedError> {
        let mut pages = self.0.borrow_mut();
        let mut done = 0;
        while done < dst.len() {
            let at = start
                .checked_add(done as u64)
                .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
            let index = at / limits::EXT_PAGE as u64;
            let within = usize::try_from(at % limits::EXT_PAGE as u64)?;
            let Some(page) = pages.pages.get(&index) else {
                pages.missing = Some(index);
                return Err(Box::new(io::Error::from(io::ErrorKind::WouldBlock)));
            };
            let bytes = page.get(within..).unwrap_or_default();
            if bytes.is_empty() {
                return Err(Box::new(io::Error::from(io::ErrorKind::UnexpectedEof)));
            }
            let taken = bytes.len().min(dst.len() - done);
            dst[done..done + taken].copy_from_slice(&bytes[..taken]);
            done += taken;
        }
        Ok(())
    }
}

/// An ext file system as a tree.
pub(crate) struct ExtTree<'f> {
    file: &'f dyn ReadAt,
    start: u64,
    end: u64,
    pages: Rc<RefCell<Pages>>,
    fs: Ext4,
}

impl<'f> ExtTree<'f> {
    /// Opens the file system at `start` of `file`, which ends at `end`.
    pub(crate) fn open(
        file: &'f dyn ReadAt,
        start: u64,
        end: u64,
        superblock: &RawExtSuperblock,
    ) -> io::Result<Self> {
        if superblock.groups() > limits::EXT_GROUPS_MAX {
            return Err(fault(ExtError::Limit {
                what: "block groups",
                limit: limits::EXT_GROUPS_MAX,
            }));
        }
        let pages = Rc::new(RefCell::new(Pages::default()));
        let fetch = Fetch {
            file,
            start,
            end,
            pages: &pages,
        };
        let fs = fetch.until_read(|| Ext4::load(Box::new(PageReader(Rc::clone(&pages)))))?;
        let fs = fs.ok_or_else(|| unreadable(start, "no root directory".to_owned()))?;
        Ok(Self {
            file,
            start,
            end,
            pages,
            fs,
        })
    }

    fn until_read<T>(&self, call: impl Fn() -> Result<T, Ext4Error>) -> io::Result<Option<T>> {
        let Self {
            file,
            start,
            end,
            pages,
            ..
        } = self;
        Fetch {
            file: *file,
            start: *start,
            end: *end,
            pages,
        }
        .until_read(call)
    }
}

struct Fetch<'a, 'f> {
    file: &'f dyn ReadAt,
    start: u64,
    end: u64,
    pages: &'a Rc<RefCell<Pages>>,
}

impl Fetch<'_, '_> {
    /// Repeats `call`, reading what it misses; `None` where there is nothing of that name.
    fn until_read<T>(&self, call: impl Fn() -> Result<T, Ext4Error>) -> io::Result<Option<T>> {
        loop {
            self.pages.borrow_mut().missing = None;
            let error = match call() {
                Ok(value) => return Ok(Some(value)),
                Err(error) => error,
            };
            let missing = self.pages.borrow_mut().missing.take();
            match (error, missing) {
                (Ext4Error::Io(_), Some(index)) => self.page(index)?,
                (
                    Ext4Error::NotFound
                    | Ext4Error::NotADirectory
                    | Ext4Error::IsADirectory
                    | Ext4Error::IsASpecialFile,
                    _,
                ) => return Ok(None),
                (Ext4Error::Incompatible(reason), _) => {
                    return Err(fault(ExtError::Unsupported {
                        reason: reason.to_string(),
                    }));
                }
                (error, _) => return Err(unreadable(self.start, error.to_string())),
            }
        }
    }

    /// Reads the missing page, and more where pages are missed one after the other.
    fn page(&self, index: u64) -> io::Result<()> {
        let mut pages = self.pages.borrow_mut();
        pages.run = if index == pages.end {
            (pages.run * 2).clamp(1, limits::EXT_RUN_MAX)
        } else {
            1
        };
        pages.end = index.saturating_add(pages.run);
        for index in index..pages.end {
            if pages.pages.len() >= limits::EXT_PAGES_MAX {
                let limit = (limits::EXT_PAGES_MAX * limits::EXT_PAGE) as u64;
                return Err(fault(ExtError::Limit {
                    what: "bytes of metadata",
                    limit,
                }));
            }
            let at = index
                .checked_mul(limits::EXT_PAGE as u64)
                .and_then(|within| self.start.checked_add(within))
                .ok_or_else(|| unreadable(self.start, "an offset overflows".to_owned()))?;
            let length = self.end.saturating_sub(at).min(limits::EXT_PAGE as u64);
            let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()].into_boxed_slice();
            if !bytes.is_empty() {
                self.file.read_exact_at(&mut bytes, at)?;
            }
            pages.pages.insert(index, bytes);
            if length < limits::EXT_PAGE as u64 {
                break;
            }
        }
        Ok(())
    }
}

impl ReadTree for ExtTree<'_> {
    fn read(&self, path: &str, limit: usize) -> io::Result<Option<Vec<u8>>> {
        let path = format!("/{path}");
        let bytes = self.until_read(|| {
            // Links are not followed: a container's links lead into the host.
            if !self
                .fs
                .symlink_metadata(path.as_str())?
                .file_type()
                .is_regular_file()
            {
                return Err(Ext4Error::NotFound);
            }
            let mut file = self.fs.open(path.as_str())?;
            let size = usize::try_from(file.metadata().len()).unwrap_or(usize::MAX);
            let mut bytes = vec![0; size.min(limit)];
            let mut done = 0;
            while done < bytes.len() {
                match file.read_bytes(&mut bytes[done..])? {
                    0 => break,
                    read => done += read,
                }
            }
            bytes.truncate(done);
            Ok(bytes)
        })?;
        Ok(bytes)
    }

    fn list(&self, path: &str, limit: usize) -> io::Result<Option<Vec<String>>> {
        let path = format!("/{path}");
        self.until_read(|| {
            if !self.fs.symlink_metadata(path.as_str())?.is_dir() {
                return Err(Ext4Error::NotFound);
            }
            self.fs
                .read_dir(path.as_str())?
                .take(limit)
                .map(|entry| Ok(entry?.file_name().display().to_string()))
                .collect()
        })
    }
}

/// Carries what is wrong with the file system through a [`ReadTree`].
fn fault(error: ExtError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn unreadable(offset: u64, reason: String) -> io::Error {
    fault(ExtError::Unreadable { offset, reason })
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
            let large = tree.read("large", 1 << 20).unwrap().unwrap();
            assert_eq!(large, b"a line of a large file\n".repeat(1781)[..40_960]);
        }
    }
}
