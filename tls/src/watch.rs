//! Notices that files have changed.
//!
//! By looking, not by inotify: certificates and configurations are replaced by renames, through
//! symbolic links, and on network file systems, and a look costs one `stat` a file.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What tells whether a file is the one that was read: device, inode, size, and both times to the nanosecond.
/// The second changes with owner and mode, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looks(u64, u64, u64, (i64, i64), (i64, i64));

impl Looks {
    /// Of what a path leads to; `None` if it cannot be looked at.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        Some(Self(
            meta.dev(),
            meta.ino(),
            meta.size(),
            (meta.mtime(), meta.mtime_nsec()),
            (meta.ctime(), meta.ctime_nsec()),
        ))
    }
}

/// Some files that are read together. Of a directory, its files are meant, and which they are.
#[derive(Debug)]
pub struct FileWatch {
    paths: Vec<PathBuf>,
    known: Vec<Option<Looks>>,
    /// How they looked last time, if that was not how they are known.
    moving: Option<Vec<Option<Looks>>>,
}

impl FileWatch {
    /// Watches files that have just been read.
    #[must_use]
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let paths: Vec<_> = paths.into_iter().collect();
        Self {
            known: look(&paths),
            paths,
            moving: None,
        }
    }

    /// The files are about to be read, whether they have changed or not.
    pub fn catch_up(&mut self) {
        self.known = look(&self.paths);
        self.moving = None;
    }

    /// Whether the files have changed and come to rest: two looks in a row must agree, so that a
    /// file being written, or one of several, is left alone.
    pub fn changed(&mut self) -> bool {
        let now = look(&self.paths);
        if now == self.known {
            self.moving = None;
            return false;
        }
        if self.moving.as_ref() != Some(&now) {
            self.moving = Some(now);
            return false;
        }
        self.known = now;
        self.moving = None;
        true
    }
}

fn look(paths: &[PathBuf]) -> Vec<Option<Looks>> {
    let mut looks = Vec::with_capacity(paths.len());
    for path in paths {
        looks.push(Looks::of(path));
        // No directory, nothing in it.
        let mut inside: Vec<PathBuf> = fs::read_dir(path)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        inside.sort();
        looks.extend(inside.iter().map(|path| Looks::of(path)));
    }
    looks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_when_it_has_come_to_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "1").unwrap();
        let mut watch = FileWatch::new([path.clone()]);
        assert!(!watch.changed());
        fs::write(&path, "22").unwrap();
        assert!(!watch.changed(), "may still be written");
        fs::write(&path, "333").unwrap();
        assert!(!watch.changed(), "was still written");
        assert!(watch.changed());
        assert!(!watch.changed(), "only once");
        fs::remove_file(&path).unwrap();
        assert!(!watch.changed());
        assert!(watch.changed(), "a file that is gone is a change");
        fs::write(&path, "1").unwrap();
        assert!(!watch.changed());
        watch.catch_up();
        assert!(!watch.changed(), "it has been read");
    }
}
