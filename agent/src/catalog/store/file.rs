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

/// Whether a file lies on a server whose clients share no memory. SQLite's log wants all processes that use a database on
/// one machine (<https://sqlite.org/wal.html>), and whether a lock keeps another machine out depends on how the
/// directory is mounted (`nolock`, `local_lock` of nfs(5)).
pub(in crate::catalog) fn is_on_server(path: &Path) -> bool {
    let directory = path.parent().unwrap_or(path);
    rustix::fs::statfs(directory).is_ok_and(|stat| is_of_server(stat.f_type))
}

/// By the magic number of the file system: NFS, CIFS and SMB.
fn is_of_server(magic: i64) -> bool {
    // Some kernels sign-extend the 32-bit number.
    matches!(magic & 0xffff_ffff, 0x6969 | 0xff53_4d42 | 0xfe53_4d42)
}

#[cfg(test)]
mod tests {
    use super::{is_of_server, is_on_server};

    #[test]
    fn a_database_on_a_server_is_known_as_such() {
        for (magic, expected) in [
            (0x6969, true),
            (0xff53_4d42, true),
            (i64::from(0xfe53_4d42_u32.cast_signed()), true),
            // ext4, xfs, tmpfs; Lustre, the clients of which see each other's memory.
            (0xef53, false),
            (0x5846_5342, false),
            (0x0102_1994, false),
            (0x0bd0_0bd0, false),
        ] {
            assert_eq!(is_of_server(magic), expected, "{magic:#x}");
        }
        let directory = tempfile::tempdir().unwrap();
        assert!(!is_on_server(&directory.path().join("catalog.sqlite")));
    }
}
