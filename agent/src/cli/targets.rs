//! The PATHs of `scan`: each is looked at by itself, and none shows what another one shows.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::catalog::Found;

/// What a PATH is.
pub enum Target {
    /// A file to look at.
    File(PathBuf),
    /// A directory to scan.
    Directory(PathBuf, Apart),
    /// Nothing that can be scanned, and why.
    Refused(PathBuf, io::Error),
}

/// What lies below a directory and was given as a PATH of its own. Whether the walk would come by is
/// nothing to rely on: it does not follow links, enter other file systems or the inside of images, or
/// look at files that are plainly something else. So the walk leaves it to its own turn.
#[derive(Debug, Default)]
pub struct Apart {
    directory: PathBuf,
    paths: Vec<PathBuf>,
}

impl Apart {
    /// What was found in the directory `path`, relative to this one, but for what has its own turn.
    pub fn leave_out(&self, path: &[u8], mut found: Vec<Found>) -> Vec<Found> {
        if !self.paths.is_empty() {
            let directory = self.directory.join(OsStr::from_bytes(path));
            found.retain(|found| {
                // A sandbox is found in itself, without a name.
                let name = Path::new(OsStr::from_bytes(&found.name));
                let path: PathBuf = directory.components().chain(name.components()).collect();
                !self.paths.iter().any(|apart| path.starts_with(apart))
            });
        }
        found
    }

    /// The same for the walk, so that nothing is read twice. Names that are no text are not among
    /// it: globs are text.
    pub fn globs(&self) -> GlobSet {
        let mut globs = GlobSetBuilder::new();
        for path in &self.paths {
            let below = path.strip_prefix(&self.directory).ok();
            let glob = below
                .and_then(Path::to_str)
                .and_then(|below| Glob::new(&globset::escape(below)).ok());
            if let Some(glob) = glob {
                globs.add(glob);
            }
        }
        globs.build().unwrap_or_default()
    }
}

/// Where a PATH leads.
struct Place {
    is_directory: bool,
    /// Without links to or among the directories: the same for one place, whatever it is called.
    real: PathBuf,
}

/// What the PATHs are, in their order by name, each place once, by the name that it was given first.
pub fn targets(paths: &[PathBuf]) -> Vec<Target> {
    let mut places = BTreeMap::new();
    let mut known = HashSet::new();
    let mut targets = Vec::new();
    for path in paths {
        match looked_up(path) {
            Ok((path, place)) => {
                if known.insert(place.real.clone()) {
                    places.insert(path, place);
                }
            }
            Err(error) => targets.push(Target::Refused(path.clone(), error)),
        }
    }
    targets.extend(places.iter().map(|(path, place)| {
        if !place.is_directory {
            return Target::File(path.clone());
        }
        let by_name =
            |other: &PathBuf| (other != path && other.starts_with(path)).then(|| other.clone());
        // The same by its own name, which a link on the way to the other may hide.
        let by_place = |other: &Place| {
            let below = other.real.strip_prefix(&place.real).ok()?;
            (!below.as_os_str().is_empty()).then(|| path.join(below))
        };
        let apart = Apart {
            directory: path.clone(),
            paths: places
                .iter()
                .flat_map(|(other, at)| [by_name(other), by_place(at)])
                .flatten()
                .collect(),
        };
        Target::Directory(path.clone(), apart)
    }));
    targets
}

/// The absolute path, and where it leads.
fn looked_up(path: &Path) -> io::Result<(PathBuf, Place)> {
    let kind = path.metadata()?.file_type();
    if !kind.is_dir() && !kind.is_file() {
        return Err(super::inspect::no_image(kind));
    }
    let path = absolute(path)?;
    let real = match (path.parent(), path.file_name()) {
        // A link to a file has its own turn, by its own name.
        (Some(directory), Some(name)) if kind.is_file() => directory.canonicalize()?.join(name),
        _ => path.canonicalize()?,
    };
    let place = Place {
        is_directory: kind.is_dir(),
        real,
    };
    Ok((path, place))
}

/// The absolute path as it was written, but for `.`, `..` and needless slashes: one path for each
/// place. Links stay, since a link's name may tell more than its target's. What is above a link is
/// above its target, as for the kernel.
pub fn absolute(path: &Path) -> io::Result<PathBuf> {
    let mut absolute = PathBuf::new();
    for component in std::path::absolute(path)?.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                if absolute.is_symlink() {
                    absolute = absolute.canonicalize()?;
                }
                absolute.pop();
            }
            component => absolute.push(component),
        }
    }
    Ok(absolute)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::absolute;

    #[test]
    fn a_place_has_one_path() {
        let guard = tempfile::tempdir().unwrap();
        let tree = guard.path().canonicalize().unwrap();
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        symlink("a/b", tree.join("link")).unwrap();
        for (path, expected) in [
            ("a", "a"),
            ("a/", "a"),
            ("a//b/./c/.", "a/b/c"),
            ("a/../a/b", "a/b"),
            ("a/b/c/../..", "a"),
            ("link/c", "link/c"),
            ("link/../b", "a/b"),
            ("link/../../link", "link"),
        ] {
            let found = absolute(&tree.join(path)).unwrap();
            assert_eq!(found, tree.join(expected), "{path}");
        }
        assert_eq!(
            absolute(std::path::Path::new("/../..")).unwrap().to_str(),
            Some("/")
        );
    }
}
