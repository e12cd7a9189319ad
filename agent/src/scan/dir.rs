//! The only code that opens users' files and directories; how an opened file is read is in [`super::file`].
//!
//! Everything is opened by one name relative to its directory's descriptor, without following
//! links, without blocking on a FIFO, without crossing into another file system (unless asked to)
//! and, where permitted, without touching the access time. Nothing is ever mapped into memory:
//! another client that truncates a mapped file would kill the process.

mod facts;
#[cfg(test)]
mod tests;

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag};
use rustix::fs::{AtFlags, RawDir, StatxAttributes, StatxFlags};

use crate::catalog::{FileFacts, Identity};

pub use self::facts::EntryKind;
use self::facts::{facts_of_stat, facts_of_statx, kind_of_statx};
use super::automount::NotMounted;
use super::file::{OpenFile, Reading};
use super::file_system::FileSystemType;
use super::operations::Operations;

/// Size of the buffer for directory entries: one call for some 1,500 names.
pub const DIRECTORY_BUFFER: usize = 64 << 10;

/// What is asked for of a file.
const STATX: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// How directories and files are opened under one root.
#[derive(Debug, Default)]
pub struct Access {
    /// Whether other file systems below the root are entered.
    cross_file_systems: bool,
    /// The kernel has no `openat2` (before 5.6), or a seccomp filter refuses it, as those of old container runtimes
    /// and of systemd 246 and 247 do: `openat` with `O_NOFOLLOW` and a check of the device do the same, one call
    /// more. Only an `openat` that succeeds tells: `EPERM` may also be the file system's.
    no_openat2: AtomicBool,
    /// The process may not use `O_NOATIME` on others' files; asked once a file that refuses.
    no_noatime: AtomicBool,
    /// What opening a file told of it need not be asked for again.
    open_tells: bool,
    /// See [`FileSystemType::end_of_directory`].
    end_of_directory: Option<u64>,
}

/// An open directory.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    device: u64,
    /// See [`Dir::ask_server`].
    asks_server: bool,
}

impl Access {
    /// With `cross_file_systems`, other file systems mounted below the root are entered.
    #[must_use]
    pub fn new(cross_file_systems: bool) -> Self {
        Self {
            cross_file_systems,
            ..Self::default()
        }
    }

    /// Leaves out what files and directories on this file system, which must be the only one, need not be
    /// asked for.
    #[must_use]
    pub fn on(self, file_system: &FileSystemType) -> Self {
        Self {
            open_tells: file_system.open_tells(),
            end_of_directory: file_system.end_of_directory(),
            ..self
        }
    }

    /// Opens a root. The path is the administrator's: links in it are followed.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn open_root(&self, path: &Path, operations: &mut Operations) -> io::Result<Dir> {
        operations.calls += 2;
        let fd = nix::fcntl::open(
            path,
            OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK,
            nix::sys::stat::Mode::empty(),
        )?;
        let device = device_of(&fd)?;
        Ok(Dir {
            fd,
            device,
            asks_server: false,
        })
    }

    /// Opens the directory `name` of `parent`.
    ///
    /// # Errors
    ///
    /// `ELOOP` if it is a link, `EXDEV` if another file system is mounted there, [`NotMounted`] if an automounter
    /// does not mount one, and what else the operating system says.
    pub fn open_dir(
        &self,
        parent: &Dir,
        name: &CStr,
        operations: &mut Operations,
    ) -> io::Result<Dir> {
        if !is_below(name) {
            return Err(Errno::EXDEV.into());
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let (fd, checked) = match self.open_at(parent, name, flags, operations) {
            Ok(opened) => opened,
            Err(error) => {
                let behind = parent.automounter_behind(&error, name, operations);
                return Err(behind.map_or(error, io::Error::other));
            }
        };
        let device = if checked {
            parent.device
        } else {
            operations.calls += 1;
            device_of(&fd)?
        };
        self.check_mount(parent, &fd, device, operations)?;
        Ok(Dir {
            fd,
            device,
            asks_server: parent.asks_server,
        })
    }

    /// Opens the directory at `path` below `root`, one component after the other: for directories
    /// whose parent's descriptor is not held any more. `path` is relative and may be empty.
    ///
    /// # Errors
    ///
    /// As [`Access::open_dir`].
    pub fn open_below(
        &self,
        root: &Dir,
        path: &[u8],
        operations: &mut Operations,
    ) -> io::Result<Dir> {
        let mut names = path
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty());
        // Opened anew even if it is the root itself: a clone would share its position.
        let first = names.next().map_or_else(|| c_name(b"."), c_name)?;
        let mut dir = self.open_dir(root, &first, operations)?;
        for name in names {
            dir = self.open_dir(&dir, &c_name(name)?, operations)?;
        }
        Ok(dir)
    }

    /// Opens the regular file `name` of `parent`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if it is no regular file, and what else the operating system says.
    pub fn open_file(
        &self,
        parent: &Dir,
        name: &CStr,
        reading: Reading,
        operations: &mut Operations,
    ) -> io::Result<OpenFile> {
        let flags = OFlag::O_RDONLY
            | OFlag::O_NONBLOCK
            | OFlag::O_NOFOLLOW
            | OFlag::O_NOCTTY
            | OFlag::O_CLOEXEC;
        let noatime = !self.no_noatime.load(Ordering::Relaxed);
        // One name, and no link: nothing else is needed to stay below the parent. Whether something
        // is mounted over the file is told by the device, which `fstat` tells anyway.
        let mut open = |flags| {
            operations.calls += 1;
            nix::fcntl::openat(&parent.fd, name, flags, nix::sys::stat::Mode::empty())
        };
        let opened = if noatime {
            open(flags | OFlag::O_NOATIME)
        } else {
            open(flags)
        };
        let fd = match opened {
            // Only the owner and CAP_FOWNER may use O_NOATIME. Once refused it is not tried again
            // under this root: each try is an operation on the server.
            Err(Errno::EPERM) if noatime => {
                self.no_noatime.store(true, Ordering::Relaxed);
                open(flags)?
            }
            other => other?,
        };
        operations.calls += 1;
        let (kind, device, facts) = self.facts_of_open(&fd)?;
        if kind != EntryKind::File {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file any more",
            ));
        }
        self.check_mount(parent, &fd, device, operations)?;
        OpenFile::new(fd, facts, reading)
    }

    /// Opens a regular file where its path really leads: links in it are followed.
    ///
    /// # Errors
    ///
    /// As [`Access::open_file`].
    pub fn open_path(
        &self,
        path: &Path,
        reading: Reading,
        operations: &mut Operations,
    ) -> io::Result<OpenFile> {
        let path = path.canonicalize()?;
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let dir = self.open_root(directory, operations)?;
        self.open_file(&dir, &c_name(name.as_bytes())?, reading, operations)
    }

    /// Refuses what is mounted in a directory. Another device alone says nothing: a subvolume of btrfs has one of
    /// its own, and so have the files of each layer of an overlay.
    fn check_mount(
        &self,
        parent: &Dir,
        fd: &OwnedFd,
        device: u64,
        operations: &mut Operations,
    ) -> io::Result<()> {
        if device == parent.device || self.cross_file_systems {
            return Ok(());
        }
        operations.calls += 2;
        match (mount_of(&parent.fd)?, mount_of(fd)?) {
            (Some(mount), Some(other)) if mount == other => Ok(()),
            _ => Err(Errno::EXDEV.into()),
        }
    }

    /// Kind, device and facts of a file that was just opened.
    fn facts_of_open(&self, fd: &OwnedFd) -> io::Result<(EntryKind, u64, FileFacts)> {
        let mut flags = AtFlags::EMPTY_PATH;
        if self.open_tells {
            flags |= AtFlags::STATX_DONT_SYNC;
        }
        let stat = rustix::fs::statx(fd, c"", flags, STATX)?;
        let device = rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
        Ok((kind_of_statx(&stat), device, facts_of_statx(&stat)))
    }

    /// Calls `each` for every entry of `dir` but `.` and `..`.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn read_dir(
        &self,
        dir: &Dir,
        buffer: &mut [MaybeUninit<u8>],
        operations: &mut Operations,
        mut each: impl FnMut(&CStr, EntryKind, u64),
    ) -> io::Result<()> {
        let mut entries = RawDir::new(&dir.fd, buffer);
        let mut at_end = false;
        loop {
            if entries.is_buffer_empty() {
                if at_end {
                    return Ok(());
                }
                operations.calls += 1;
            }
            let Some(entry) = entries.next() else {
                return Ok(());
            };
            let entry = entry?;
            at_end = self.end_of_directory == Some(entry.next_entry_cookie());
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let kind = match entry.file_type() {
                rustix::fs::FileType::Directory => EntryKind::Directory,
                rustix::fs::FileType::RegularFile => EntryKind::File,
                rustix::fs::FileType::Unknown => EntryKind::Unknown,
                _ => EntryKind::Other,
            };
            each(name, kind, entry.ino());
        }
    }

    /// Opens `name`; the second value says whether the kernel itself made sure that no other file
    /// system was entered.
    fn open_at(
        &self,
        parent: &Dir,
        name: &CStr,
        flags: OFlag,
        operations: &mut Operations,
    ) -> io::Result<(OwnedFd, bool)> {
        operations.calls += 1;
        if !self.no_openat2.load(Ordering::Relaxed) {
            // One name that is neither a link nor `..` leads nowhere but below its parent: to have the kernel
            // prove it (`RESOLVE_BENEATH`) would take a lock that all mounts of the machine share.
            let resolve = if self.cross_file_systems {
                ResolveFlag::empty()
            } else {
                ResolveFlag::RESOLVE_NO_XDEV
            };
            let how = OpenHow::new().flags(flags).resolve(resolve);
            match nix::fcntl::openat2(&parent.fd, name, how) {
                Ok(fd) => return Ok((fd, !self.cross_file_systems)),
                // What a file system refuses is refused by `openat`, too.
                Err(Errno::ENOSYS | Errno::EPERM) => {}
                Err(error) => return Err(error.into()),
            }
            operations.calls += 1;
        }
        let fd = nix::fcntl::openat(&parent.fd, name, flags, nix::sys::stat::Mode::empty())?;
        self.no_openat2.store(true, Ordering::Relaxed);
        Ok((fd, false))
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Dir {
    /// The device that the directory is on.
    #[must_use]
    pub fn device(&self) -> u64 {
        self.device
    }

    /// Has [`Dir::stat`], also of directories opened below, ask the server, whatever the kernel remembers of what is
    /// asked for: NFS does so for up to a minute (`acdirmax` of nfs(5)), and does not learn what other clients
    /// change meanwhile.
    pub fn ask_server(&mut self) {
        self.asks_server = true;
    }

    /// Where it really is, as the kernel knows it: no operation on the file system.
    ///
    /// # Errors
    ///
    /// There is no `/proc`.
    pub fn path(&self) -> io::Result<PathBuf> {
        std::fs::read_link(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }

    /// The directory's own identity.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn identity(&self, operations: &mut Operations) -> io::Result<(Identity, FileFacts)> {
        operations.calls += 1;
        let stat = nix::sys::stat::fstat(&self.fd)?;
        let facts = facts_of_stat(&stat);
        Ok((directory_identity(&facts), facts))
    }

    /// Whether there are no entries but `.` and `..`.
    ///
    /// # Errors
    ///
    /// What the operating system says: also that the directory may be entered, but not read.
    pub fn is_empty(&self, operations: &mut Operations) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut entries = RawDir::new(&self.fd, &mut buffer);
        operations.calls += 1;
        // No more than the first part, however many there are.
        while let Some(entry) = entries.next() {
            if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the names in the directory are an automounter's: one that is absent may still be there to be opened.
    #[must_use]
    pub fn is_automounted(&self, operations: &mut Operations) -> bool {
        operations.calls += 1;
        nix::sys::statfs::fstatfs(&self.fd)
            .is_ok_and(|stat| stat.filesystem_type() == nix::sys::statfs::AUTOFS_SUPER_MAGIC)
    }

    /// What is behind the error of opening the directory `name` here, if it is an automounter.
    fn automounter_behind(
        &self,
        error: &io::Error,
        name: &CStr,
        operations: &mut Operations,
    ) -> Option<NotMounted> {
        let error = Errno::from_raw(error.raw_os_error()?);
        match error {
            Errno::ENOENT | Errno::ELOOP => {
                let entry = self.stat(name, operations);
                let is_named = matches!(entry, Ok((EntryKind::Directory, _)));
                let is_automounted = !is_named && self.is_automounted(operations);
                NotMounted::behind(error, is_named, is_automounted)
            }
            _ => None,
        }
    }

    /// `statx` of `path` relative to the directory, without following a link at its end. An empty
    /// path is the directory itself.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn stat(
        &self,
        path: &CStr,
        operations: &mut Operations,
    ) -> io::Result<(EntryKind, FileFacts)> {
        operations.calls += 1;
        let mut flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::EMPTY_PATH;
        if self.asks_server {
            flags |= AtFlags::STATX_FORCE_SYNC;
        }
        let stat = rustix::fs::statx(&self.fd, path, flags, STATX)?;
        Ok((kind_of_statx(&stat), facts_of_statx(&stat)))
    }

    /// Whether something is mounted at `path`, relative to the directory. Mounts nothing there. No if it cannot be
    /// told, as before Linux 5.8.
    #[must_use]
    pub fn is_mount(&self, path: &CStr, operations: &mut Operations) -> bool {
        operations.calls += 1;
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let stat = rustix::fs::statx(&self.fd, path, flags, StatxFlags::empty());
        stat.is_ok_and(|stat| (stat.stx_attributes).contains(StatxAttributes::MOUNT_ROOT))
    }
}

/// Whether a name cannot lead out of the directory it is looked up in, unless it is a link.
fn is_below(name: &CStr) -> bool {
    let name = name.to_bytes();
    name != b".." && !name.contains(&b'/')
}

/// A name from disk for a system call; names from disk hold no NUL.
///
/// # Errors
///
/// `InvalidInput` if `name` holds a NUL.
pub fn c_name(name: &[u8]) -> io::Result<std::ffi::CString> {
    std::ffi::CString::new(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// What tells whether a directory changed. Its size is left out: on some file systems it says
/// nothing about the entries.
#[must_use]
pub fn directory_identity(facts: &FileFacts) -> Identity {
    Identity {
        size: 0,
        ..Identity::from(facts)
    }
}

/// Joins a path relative to the root with a name.
#[must_use]
pub fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(directory.len() + name.len() + 1);
    path.extend_from_slice(directory);
    if !directory.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// The absolute path of `path` below `root`.
#[must_use]
pub fn absolute(root: &Path, path: &[u8]) -> PathBuf {
    root.join(std::ffi::OsStr::from_bytes(path))
}

/// Number of the mount that something open was reached through; `None` if nothing tells.
fn mount_of(fd: &OwnedFd) -> io::Result<Option<u64>> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = rustix::fs::statx(fd, c"", flags, StatxFlags::MNT_ID)?;
    let is_told = stat.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    Ok(is_told
        .then_some(stat.stx_mnt_id)
        .or_else(|| mount_by_proc(fd)))
}

/// The same number for a kernel whose `statx` does not tell it (before 5.8).
fn mount_by_proc(fd: &OwnedFd) -> Option<u64> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    let mut lines = info.lines();
    lines.find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
}

fn device_of(fd: &OwnedFd) -> io::Result<u64> {
    Ok(nix::sys::stat::fstat(fd)?.st_dev)
}
