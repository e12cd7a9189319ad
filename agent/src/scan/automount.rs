//! What automounters (autofs) answer where they do not mount what they are asked for. Taken at its word, it would
//! empty the listing: a directory that is gone, an empty one, or a symbolic link.

use std::io;

use nix::errno::Errno;

/// What an automounter was to mount, and did not, or not here. It answers `ENOENT`, as if the directory were gone;
/// without a process behind it the directory is empty (`fs/autofs/waitq.c: autofs_wait, autofs_catatonic_mode`).
/// What it mounts and this process does not see is asked for again and again, until the kernel says `ELOOP`
/// (`fs/namei.c: follow_automount`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotMounted {
    /// Its name is there.
    #[error("the automounter does not mount it")]
    Named,
    /// Names are there only while they are mounted (a map without `browse`), so that it may be gone for good.
    #[error(
        "the automounter does not mount it, or it is gone: a full scan takes it from the listing then"
    )]
    Nameless,
    /// It is mounted, where this process does not see it.
    #[error(
        "the automounter mounts it outside of this process's mount namespace: that of the container, or of the \
         service, must receive mounts (propagation `rslave`)"
    )]
    Elsewhere,
}

impl NotMounted {
    /// What is behind the error of opening a directory, if it is an automounter; `is_named` says whether the directory
    /// is there, and `is_automounted` whether the one that it is in is an automounter's.
    #[must_use]
    pub fn behind(error: Errno, is_named: bool, is_automounted: bool) -> Option<Self> {
        match error {
            Errno::ENOENT if is_named => Some(Self::Named),
            Errno::ENOENT if is_automounted => Some(Self::Nameless),
            // Else it is a link.
            Errno::ELOOP if is_named => Some(Self::Elsewhere),
            _ => None,
        }
    }

    /// The reason behind an error, if it is this one.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}
