//! What the kernel says of a file or directory, in our words.

use rustix::fs::{Statx, StatxFlags};

use crate::catalog::{FileFacts, FileTime};

/// Kind of a directory entry, as far as the walk cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// Not told by the file system: ask `statx`.
    Unknown,
    /// Anything else, never opened.
    Other,
}

/// By `fstat`, which does not tell when a file was made.
pub(super) fn facts_of_stat(stat: &nix::sys::stat::FileStat) -> FileFacts {
    FileFacts {
        inode: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        allocated: u64::try_from(stat.st_blocks)
            .unwrap_or(0)
            .saturating_mul(512),
        uid: stat.st_uid,
        gid: stat.st_gid,
        mode: stat.st_mode & 0o7777,
        links: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
        accessed: FileTime::new(stat.st_atime, nanoseconds(stat.st_atime_nsec)),
        modified: FileTime::new(stat.st_mtime, nanoseconds(stat.st_mtime_nsec)),
        changed: FileTime::new(stat.st_ctime, nanoseconds(stat.st_ctime_nsec)),
        born: None,
    }
}

fn nanoseconds(value: i64) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

/// By `statx`.
pub(super) fn kind_of_statx(stat: &Statx) -> EntryKind {
    match rustix::fs::FileType::from_raw_mode(stat.stx_mode.into()) {
        rustix::fs::FileType::Directory => EntryKind::Directory,
        rustix::fs::FileType::RegularFile => EntryKind::File,
        _ => EntryKind::Other,
    }
}

/// By `statx`.
pub(super) fn facts_of_statx(stat: &Statx) -> FileFacts {
    let time = |time: &rustix::fs::StatxTimestamp| FileTime::new(time.tv_sec, time.tv_nsec);
    let has_born = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
    FileFacts {
        inode: stat.stx_ino,
        size: stat.stx_size,
        allocated: stat.stx_blocks.saturating_mul(512),
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        mode: u32::from(stat.stx_mode) & 0o7777,
        links: stat.stx_nlink,
        accessed: time(&stat.stx_atime),
        modified: time(&stat.stx_mtime),
        changed: time(&stat.stx_ctime),
        born: has_born.then(|| time(&stat.stx_btime)),
    }
}
