//! The file that a database is in, and those that SQLite keeps beside it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Device and inode number of a file.
pub(super) type File = (u64, u64);

/// The file at a path; none where there is no file.
pub(in crate::catalog) fn file_at(path: &Path) -> io::Result<Option<File>> {
    match path.metadata() {
        Ok(metadata) => Ok(Some((metadata.dev(), metadata.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What SQLite keeps beside a database: its log, and the memory that is shared to read it.
pub(in crate::catalog) fn beside(path: &Path) -> [PathBuf; 2] {
    ["-wal", "-shm"].map(|ending| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        name.into()
    })
}
