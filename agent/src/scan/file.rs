//! An opened file, and how it is read: as few round trips as the file system asks for.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use sifter_image::ReadAt;

use crate::catalog::FileFacts;

use super::operations::Operations;

/// Bytes read in one piece from a file on a network file system: a read there costs a round trip, whatever
/// its length, and header, descriptors and metadata objects of today's SIFs lie within.
const WINDOW: usize = 64 << 10;

/// How far apart two pieces may lie to be read together where a disk answers: the metadata objects and the
/// beginning of the partition of today's SIFs are, and the rest of the descriptor table is left out. All in one
/// piece would save a read, but cost three times as many pages to be cleared, filled and copied,
/// which on a fast disk takes longer than the disk does.
const COLD_GAP: u64 = 16 << 10;

/// How a file is read after it was opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reading {
    /// A size without blocks means that the content is on tape: it is not read.
    pub tape: bool,
    /// The first [`WINDOW`] bytes are read at once: each read costs a round trip.
    pub window: bool,
    /// Nothing is read ahead, and what lies close together is read together ([`COLD_GAP`]): the file is
    /// probably not in memory, and the kernel would take a few reads for the beginning of a sequence
    /// and fetch half a megabyte.
    pub cold: bool,
}

/// An open regular file.
#[derive(Debug)]
pub struct OpenFile {
    fd: OwnedFd,
    /// Facts by `fstat` after opening and before any read.
    pub facts: FileFacts,
    /// Whether a hierarchical storage manager has moved the content to tape: reading would recall
    /// it. Told by a size without blocks, which on a local file system is just a hole.
    pub released: bool,
    window: Option<Window>,
    cold: bool,
    operations: Cell<Operations>,
}

/// The first bytes of a file, read in one piece.
#[derive(Debug)]
struct Window {
    /// [`WINDOW`] bytes, of which what lies behind `length` may be of another file.
    buffer: Box<[u8]>,
    length: usize,
}

thread_local! {
    /// The buffer of the last file: if each had a new one, it would have to be cleared, and the allocator
    /// would keep several for each of the threads that wait for a slow disk.
    static SPARE: RefCell<Option<Box<[u8]>>> = const { RefCell::new(None) };
}

/// Why nothing is read of a file that [is released](OpenFile::released).
pub(super) fn released() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "released to tape: not recalled, listed from what is known",
    )
}

impl Window {
    fn new() -> Self {
        let spare = SPARE.take();
        Self {
            buffer: spare.unwrap_or_else(|| vec![0; WINDOW].into()),
            length: 0,
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        SPARE.set(Some(std::mem::take(&mut self.buffer)));
    }
}

impl OpenFile {
    /// A file that was just opened; what is to be read at once is read.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub(super) fn new(fd: OwnedFd, facts: FileFacts, reading: Reading) -> io::Result<Self> {
        let mut file = Self {
            fd,
            facts,
            released: reading.tape && facts.allocated == 0 && facts.size > 0,
            window: None,
            cold: reading.cold,
            operations: Cell::default(),
        };
        if reading.cold {
            // Advice: a file system that does not take it reads as always.
            let _ = rustix::fs::fadvise(&file.fd, 0, None, rustix::fs::Advice::Random);
        }
        if reading.window && !file.released {
            file.fill_window()?;
        }
        Ok(file)
    }

    /// What reading cost so far.
    #[must_use]
    pub fn operations(&self) -> Operations {
        self.operations.get()
    }

    /// Reads up to `buf.len()` bytes at `offset`; fewer only at the end of the file.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn read_up_to(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            let mut operations = self.operations.get();
            operations.calls += 1;
            let at = offset.saturating_add(done as u64);
            let result = rustix::io::pread(self.fd.as_fd(), &mut buf[done..], at);
            operations.bytes += *result.as_ref().unwrap_or(&0) as u64;
            self.operations.set(operations);
            match result {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(done)
    }

    /// Tells the kernel that the whole file is about to be read, once: it may read ahead further, and
    /// need not keep the pages. Pages that others use stay (`POSIX_FADV_DONTNEED` would drop them).
    pub fn will_be_read_once(&self) {
        for advice in [rustix::fs::Advice::Sequential, rustix::fs::Advice::NoReuse] {
            // Advice: a file system that does not take it reads as always.
            let _ = rustix::fs::fadvise(&self.fd, 0, None, advice);
        }
    }

    fn fill_window(&mut self) -> io::Result<()> {
        let size = usize::try_from(self.facts.size).unwrap_or(usize::MAX);
        let mut window = Window::new();
        window.length = self.read_up_to(&mut window.buffer[..size.min(WINDOW)], 0)?;
        self.window = Some(window);
        Ok(())
    }
}

impl ReadAt for OpenFile {
    fn size(&self) -> u64 {
        self.facts.size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if let Some(window) = &self.window {
            let range = usize::try_from(offset)
                .ok()
                .and_then(|start| window.bytes().get(start..start.checked_add(buf.len())?));
            if let Some(bytes) = range {
                buf.copy_from_slice(bytes);
                return Ok(());
            }
        }
        if self.read_up_to(buf, offset)? < buf.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn read_gap(&self) -> u64 {
        if self.cold {
            COLD_GAP
        } else {
            sifter_image::limits::READ_GAP
        }
    }
}

#[cfg(test)]
mod tests {
    use sifter_image::ReadAt as _;

    use super::Reading;
    use crate::scan::dir::Access;
    use crate::scan::operations::Operations;

    #[test]
    fn a_file_that_is_read_at_once_is_read_once() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), vec![7; 100_000]).unwrap();
        let access = Access::new(false);
        let mut operations = Operations::default();
        let root = access.open_root(directory.path(), &mut operations).unwrap();
        for (window, cold, reads) in [(false, false, 3), (true, false, 1), (false, true, 3)] {
            let reading = Reading {
                window,
                cold,
                ..Reading::default()
            };
            let file = access
                .open_file(&root, c"file", reading, &mut operations)
                .unwrap();
            for offset in [0, 32_768, 45_056] {
                let mut bytes = [0; 96];
                file.read_exact_at(&mut bytes, offset).unwrap();
                assert_eq!(bytes, [7; 96]);
            }
            assert_eq!(file.operations().calls, reads, "{reading:?}");
            let gap = if cold {
                super::COLD_GAP
            } else {
                sifter_image::limits::READ_GAP
            };
            assert_eq!(file.read_gap(), gap, "{reading:?}");
            // What lies behind is still there.
            file.read_exact_at(&mut [0; 96], 99_904).unwrap();
        }
    }

    #[test]
    fn nothing_of_one_file_is_read_from_the_next() {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in [("long", &[7; 5000][..]), ("short", &[8; 100])] {
            std::fs::write(directory.path().join(name), content).unwrap();
        }
        let access = Access::new(false);
        let mut operations = Operations::default();
        let root = access.open_root(directory.path(), &mut operations).unwrap();
        let reading = Reading {
            window: true,
            ..Reading::default()
        };
        for (name, content) in [(c"long", [7; 100]), (c"short", [8; 100])] {
            let file = access.open_file(&root, name, reading, &mut operations);
            let mut bytes = [0; 100];
            file.as_ref().unwrap().read_exact_at(&mut bytes, 0).unwrap();
            assert_eq!(bytes, content);
            let behind = file.unwrap().read_exact_at(&mut bytes, 4000);
            assert_eq!(behind.is_ok(), name == c"long");
        }
    }
}
