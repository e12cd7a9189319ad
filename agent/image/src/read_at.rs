//! Where bytes come from: the only way in which this crate reads anything.

use std::io;

/// A file, or anything else with positions, that can be read without a cursor.
///
/// Implementations bound what one probe may cost; this crate asks for few and small ranges and
/// never for more than [`crate::limits`] allows.
pub trait ReadAt {
    /// Size in bytes at the time the file was opened.
    fn size(&self) -> u64;

    /// Fills `buf` from `offset` on.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::UnexpectedEof`] if the file ends before `buf` is full; otherwise what the
    /// operating system says.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// What one read more is worth, in bytes: parts of the file that are nearer to each other are read
    /// together.
    fn read_gap(&self) -> u64 {
        crate::limits::READ_GAP
    }
}

impl ReadAt for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(buf.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> u64 {
        self.as_slice().size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.as_slice().read_exact_at(buf, offset)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_exact_at(buf, offset)
    }

    fn read_gap(&self) -> u64 {
        (**self).read_gap()
    }
}

/// A directory tree that may hold an unpacked container: a sandbox directory, or the root of a
/// file system inside an image.
pub trait ReadTree {
    /// Content of the regular file at `path` (relative, `/`-separated), no more than `limit` bytes
    /// of it; `None` if there is no such regular file.
    ///
    /// # Errors
    ///
    /// What the operating system or the file system reader says.
    fn read(&self, path: &str, limit: usize) -> io::Result<Option<Vec<u8>>>;

    /// Names in the directory at `path`, no more than `limit`, in no particular order; `None` if
    /// there is no such directory.
    ///
    /// # Errors
    ///
    /// What the operating system or the file system reader says.
    fn list(&self, path: &str, limit: usize) -> io::Result<Option<Vec<String>>>;
}
