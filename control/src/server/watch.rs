//! Notices that files have changed.
//!
//! By looking, not by inotify: certificates and configurations are replaced by renames, through
//! symbolic links, and on network file systems, and a look costs one `stat` a file.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Device, inode, size and modification time; none if the file cannot be looked at.
type Looks = Option<(u64, u64, u64, i64, i64)>;

/// Some files that are read together. Of a directory, its files are meant, and which they are.
#[derive(Debug)]
pub(super) struct FileWatch {
    paths: Vec<PathBuf>,
    known: Vec<Looks>,
    /// How they looked last time, if that was not how they are known.
    moving: Option<Vec<Looks>>,
}

impl FileWatch {
    /// Watches files that have just been read.
    pub(super) fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let paths: Vec<_> = paths.into_iter().collect();
        Self {
            known: look(&paths),
            paths,
            moving: None,
        }
    }

    /// The files are about to be read, whether they have changed or not.
    pub(super) fn catch_up(&mut self) {
        self.known = look(&self.paths);
        self.moving = None;
    }

    /// Whether the files have changed and come to rest: two looks in a row must agree, so that a
    /// file being written, or one of several, is left alone.
    pub(super) fn changed(&mut self) -> bool {
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

fn look(paths: &[PathBuf]) -> Vec<Looks> {
    let one = |path: &PathBuf| {
        let meta = fs::metadata(path).ok()?;
        Some((
            meta.dev(),
            meta.ino(),
            meta.size(),
            meta.mtime(),
            meta.mtime_nsec(),
        ))
    };
    let mut looks = Vec::with_capacity(paths.len());
    for path in paths {
        looks.push(one(path));
        // No directory, nothing in it.
        let mut inside: Vec<PathBuf> = fs::read_dir(path)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        inside.sort();
        looks.extend(inside.iter().map(one));
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
