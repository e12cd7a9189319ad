//! What kind of file system a root is on: network file systems get gentler defaults.

use std::io;
use std::path::Path;

use rustix::fs::FsWord;

/// Name and nature of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSystemType {
    /// Name as in `mount`; `unknown` with a magic number that is not in the table.
    pub name: &'static str,
    /// Where its answers come from.
    pub nature: Nature,
}

/// Where a file system's answers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    /// A disk or memory of this machine. inotify sees every change.
    Local,
    /// A process of this machine (FUSE), and what that does is not known.
    User,
    /// Servers shared with others.
    Network,
}

impl FileSystemType {
    /// Whether opening a file brings its attributes from the server, so that asking for them anew would
    /// only cost a round trip: NFS checks them with every open ("close-to-open", nfs(5)), FUSE with the
    /// lookup, whose answer libfuse lets the kernel keep as long as the attributes. Lustre is not one of
    /// them: there the size comes from other servers than the name.
    #[must_use]
    pub fn open_tells(&self) -> bool {
        matches!(self.name, "nfs" | "fuse")
    }

    /// What the last entry of a directory gives as the place of the next one, where no other entry can: the
    /// end need then not be asked for. In ext4 it is the largest number (`fs/ext4/dir.c:
    /// ext4_get_htree_eof`), which is kept from being the hash of a name (`fs/ext4/hash.c: ext4fs_dirhash`).
    #[must_use]
    pub fn end_of_directory(&self) -> Option<u64> {
        (self.name == "ext4").then_some(i64::MAX.cast_unsigned())
    }
}

/// Magic numbers by statfs(2), <linux/magic.h> and the file systems' own sources.
const TYPES: &[(u32, &str, Nature)] = &[
    (0x0000_ef53, "ext4", Nature::Local),
    (0x5846_5342, "xfs", Nature::Local),
    (0x9123_683e, "btrfs", Nature::Local),
    (0x2fc1_2fc1, "zfs", Nature::Local),
    (0x0102_1994, "tmpfs", Nature::Local),
    (0x8584_58f6, "ramfs", Nature::Local),
    (0x794c_7630, "overlay", Nature::Local),
    (0x7371_7368, "squashfs", Nature::Local),
    (0x9660, "iso9660", Nature::Local),
    (0x4d44, "vfat", Nature::Local),
    (0xf2f5_2010, "f2fs", Nature::Local),
    (0xe0f5_e1e2, "erofs", Nature::Local),
    (0xca45_1a4e, "bcachefs", Nature::Local),
    // What an automounter mounts there is mostly of servers.
    (0x0187, "autofs", Nature::Network),
    (0x6573_5546, "fuse", Nature::User),
    (0x6969, "nfs", Nature::Network),
    (0xff53_4d42, "cifs", Nature::Network),
    (0xfe53_4d42, "smb2", Nature::Network),
    (0x517b, "smb", Nature::Network),
    (0x0bd0_0bd0, "lustre", Nature::Network),
    (0x4750_4653, "gpfs", Nature::Network),
    (0x1983_0326, "beegfs", Nature::Network),
    (0x00c3_6400, "ceph", Nature::Network),
    (0x0102_1997, "9p", Nature::Network),
    (0x5346_414f, "afs", Nature::Network),
    (0x6b41_4653, "afs", Nature::Network),
    (0x0116_1970, "gfs2", Nature::Network),
    (0x7461_636f, "ocfs2", Nature::Network),
    (0xaad7_aaea, "panfs", Nature::Network),
    (0x2003_0528, "orangefs", Nature::Network),
    (0x7375_7245, "coda", Nature::Network),
];

/// The type of the file system at `path`.
///
/// # Errors
///
/// What the operating system says.
pub fn of(path: &Path) -> io::Result<FileSystemType> {
    let stat = rustix::fs::statfs(path)?;
    Ok(by_magic(stat.f_type))
}

/// By a number whose type is another one on some processors.
fn by_magic(magic: FsWord) -> FileSystemType {
    // Some kernels sign-extend the 32-bit number.
    let magic = magic as u32;
    TYPES.iter().find(|(known, ..)| *known == magic).map_or(
        FileSystemType {
            name: "unknown",
            nature: Nature::User,
        },
        |&(_, name, nature)| FileSystemType { name, nature },
    )
}

#[cfg(test)]
mod tests {
    use super::{FsWord, Nature, by_magic};

    #[test]
    fn network_file_systems_are_known_as_such() {
        for (magic, name, nature) in [
            (0xef53, "ext4", Nature::Local),
            (0x6969, "nfs", Nature::Network),
            (0x0bd0_0bd0, "lustre", Nature::Network),
            (0x4750_4653, "gpfs", Nature::Network),
            (
                0xfe53_4d42_u32.cast_signed() as FsWord,
                "smb2",
                Nature::Network,
            ),
            (0x6573_5546, "fuse", Nature::User),
            (1, "unknown", Nature::User),
        ] {
            let found = by_magic(magic);
            assert_eq!((found.name, found.nature), (name, nature));
            // Of the others it is not known that the end has a number of its own.
            let end = (name == "ext4").then_some(0x7fff_ffff_ffff_ffff);
            assert_eq!(found.end_of_directory(), end);
        }
    }
}
