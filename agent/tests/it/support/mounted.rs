//! Mounts, for tests that need file systems of their own.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Something that is mounted, while it lives.
pub struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    /// A file system in memory; `None`, and a word of it, where this user may not mount.
    pub fn new(path: &'a Path, size: &str) -> Option<Self> {
        Self::mount(
            path,
            &["-t", "tmpfs", "-o", &format!("size={size}"), "none"],
        )
    }

    /// A directory, at a second place.
    pub fn bind(path: &'a Path, directory: &str) -> Option<Self> {
        Self::mount(path, &["--bind", directory])
    }

    /// Two directories in one, each of whose files keeps its own device number.
    pub fn overlay(path: &'a Path, lower: &Path, upper: &Path, work: &Path) -> Option<Self> {
        let options = format!(
            "xino=off,lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        Self::mount(path, &["-t", "overlay", "-o", &options, "none"])
    }

    fn mount(path: &'a Path, arguments: &[&str]) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let mounted = Command::new("mount").args(arguments).arg(path).status();
        if !mounted.is_ok_and(|status| status.success()) {
            super::skip(
                &format!("mount {}", arguments.join(" ")),
                "this user may not mount",
            );
            return None;
        }
        Some(Self(path))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // Also while something in it is still open.
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}
