//! Where roots really are, whichever links and bind mounts lead to them.
//!
//! The kernel tells it of a directory that is open, without asking its file system; of one that hangs and
//! could not be opened nothing is known, and nobody waits for it. Only where two roots seem to overlap is one
//! of them looked for below the other.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::catalog::{RootDirectory, RootIndex};
use crate::config::RootSettings;
use crate::lock::lock;
use crate::mounts::{self, MOUNTINFO};

use super::candidates::is_entered;
use super::dir::{Access, Dir};
use super::operations::Operations;
use super::{Root, ScanError};

/// Where a root is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Location {
    /// Its path without links.
    path: PathBuf,
    /// Number of the file system's device.
    device: Vec<u8>,
    /// Its path from the root of that file system, wherever it is mounted.
    inside: PathBuf,
    /// What it is.
    directory: RootDirectory,
}

/// Where the roots are that could be opened last time.
#[derive(Debug)]
pub(super) struct Locations {
    roots: Vec<RootSettings>,
    known: Mutex<Located>,
}

#[derive(Debug)]
struct Located {
    locations: Vec<Option<Location>>,
    /// Roots that seem to overlap another one since that was noted, or did until then.
    concerned: BTreeSet<RootIndex>,
}

impl Location {
    fn of(dir: &Dir, directory: RootDirectory) -> io::Result<Self> {
        let path = dir.path()?;
        let of_fd = format!("/proc/self/fdinfo/{}", dir.as_fd().as_raw_fd());
        let of_fd = fs::read_to_string(of_fd)?;
        let id = of_fd.lines().find_map(|line| line.strip_prefix("mnt_id:"));
        let mountinfo = fs::read(MOUNTINFO)?;
        let mount = mounts::all(&mountinfo)
            .find(|mount| id.is_some_and(|id| *mount.id == *id.trim().as_bytes()));
        // One that was let go of (`umount -l`) has no mount, and one that was removed no path.
        let there = mount.and_then(|mount| {
            let below = path.strip_prefix(&mount.point).ok()?;
            Some((mount.root.join(below), mount.device))
        });
        let (inside, device) = there.ok_or(io::ErrorKind::NotFound)?;
        Ok(Self {
            path,
            device,
            inside,
            directory,
        })
    }

    /// Where another one seems to lie below this one's path, by its way in their file system and by its path.
    fn below(&self, other: &Self, settings: &RootSettings) -> Vec<PathBuf> {
        if self.directory.is_same(&other.directory) {
            return vec![PathBuf::new()];
        }
        let by_file_system = (self.device == other.device).then_some((&other.inside, &self.inside));
        let by_path = settings
            .cross_file_systems
            .then_some((&other.path, &self.path));
        let ways = by_file_system.into_iter().chain(by_path);
        ways.filter_map(|(inner, outer)| inner.strip_prefix(outer).ok())
            // Two mounts of one NFS server both begin at the root of what they mount.
            .filter(|below| !below.as_os_str().is_empty() || self.path == other.path)
            .filter(|below| leads_to(settings, below))
            .map(Path::to_owned)
            .collect()
    }

    /// Whether a scan of this one comes to another one on this way, by going it as a scan does: the names on it
    /// may be of something else by now, hidden below a mount, or in a directory that may be entered, but not
    /// listed.
    fn contains(&self, other: &Self, below: &Path, settings: &RootSettings) -> bool {
        let directory = &other.directory;
        if self.directory.is_same(directory) {
            return true;
        }
        let access = Access::new(settings.cross_file_systems);
        let mut operations = Operations::default();
        let below = below.as_os_str().as_bytes();
        let found = access
            .open_root(&self.path, &mut operations)
            .and_then(|root| access.open_below(&root, below, &mut operations))
            // A subvolume of btrfs has a device number of its own.
            .and_then(|found| Ok(nix::sys::stat::fstat(&found)?));
        found.is_ok_and(|found| (found.st_dev, found.st_ino) == (directory.device, directory.inode))
    }
}

/// Whether a scan enters a directory below its root.
fn leads_to(settings: &RootSettings, below: &Path) -> bool {
    below.components().count() <= settings.max_depth as usize
        && below.ancestors().all(|directory| {
            let name = directory.file_name().map(OsStrExt::as_bytes);
            let parent = directory.parent().unwrap_or(directory).as_os_str();
            name.is_none_or(|name| is_entered(settings, parent.as_bytes(), name))
        })
}

impl Locations {
    /// None of them known.
    pub fn new(roots: &[RootSettings]) -> Self {
        Self {
            roots: roots.to_vec(),
            known: Mutex::new(Located {
                locations: vec![None; roots.len()],
                concerned: BTreeSet::new(),
            }),
        }
    }

    /// Notes where a root is that is open, or with `None` that it is nowhere. Costs no operation on a file
    /// system.
    pub fn note(&self, root: RootIndex, opened: Option<&Root>) {
        if self.roots.len() < 2 {
            return;
        }
        let path = crate::escape::path(&self.roots[root.0].path);
        let location = opened.and_then(|opened| {
            Location::of(&opened.dir, opened.facts.directory)
                .inspect_err(|error| {
                    tracing::debug!(%error, root = path, "it is not known where it really is");
                })
                .ok()
        });
        let mut known = lock(&self.known);
        let mut locations = known.locations.clone();
        locations[root.0] = location;
        for other in (0..locations.len()).filter(|other| *other != root.0) {
            let seems = |locations| self.ways(locations, RootIndex(other), root);
            if seems(&known.locations) != seems(&locations) {
                known.concerned.insert(RootIndex(other));
            }
        }
        known.locations = locations;
    }

    /// The ways on which a scan of `other` seems to come to `root`. Of two that lead to each other, one lists
    /// the images: the first.
    fn ways(
        &self,
        locations: &[Option<Location>],
        root: RootIndex,
        other: RootIndex,
    ) -> Vec<PathBuf> {
        let (Some(inner), Some(outer)) = (&locations[root.0], &locations[other.0]) else {
            return Vec::new();
        };
        let ways = outer.below(inner, &self.roots[other.0]);
        if root.0 < other.0 && !inner.below(outer, &self.roots[root.0]).is_empty() {
            return Vec::new();
        }
        ways
    }

    /// Why nothing is to be listed of a root, if another one lists its images. A root that overlaps no other one
    /// costs no operation on a file system, and another one is told by its own.
    pub fn overlap(&self, root: RootIndex) -> Option<ScanError> {
        let locations = lock(&self.known).locations.clone();
        let inner = locations.get(root.0)?.as_ref()?;
        for other in (0..locations.len()).filter(|other| *other != root.0) {
            let (Some(outer), settings) = (&locations[other], &self.roots[other]) else {
                continue;
            };
            let ways = self.ways(&locations, root, RootIndex(other));
            let way = ways
                .iter()
                .find(|below| outer.contains(inner, below, settings));
            if let Some(below) = way {
                return Some(ScanError::Overlap {
                    path: self.roots[root.0].path.clone(),
                    other: settings.path.clone(),
                    is_same: below.as_os_str().is_empty(),
                });
            }
        }
        None
    }

    /// The roots whose overlaps may be others since this was last asked.
    pub fn take_concerned(&self) -> BTreeSet<RootIndex> {
        std::mem::take(&mut lock(&self.known).concerned)
    }
}

#[cfg(test)]
mod tests {
    use super::{Location, PathBuf, RootDirectory, RootSettings};

    fn location(path: &str, inside: &str, inode: u64) -> Location {
        Location {
            path: path.into(),
            device: b"0:44".to_vec(),
            inside: inside.into(),
            directory: RootDirectory {
                device: 44,
                inode,
                born: None,
            },
        }
    }

    #[test]
    fn one_root_is_found_below_another() {
        let settings = RootSettings::new("/a".into());
        let outer = location("/a", "/x", 1);
        for (other, expected) in [
            (location("/b", "/x/y/z", 2), &["y/z"][..]),
            (location("/b", "/xy", 2), &[]),
            (location("/b", "/", 2), &[]),
            // Not entered.
            (location("/b", "/x/.git/y", 2), &[]),
            // On NFS any mount may begin there.
            (location("/b", "/", 1), &[""]),
            (location("/b", "/x", 1), &[""]),
            (location("/b", "/x", 2), &[]),
            // One of them was opened before that was made anew.
            (location("/a", "/x", 2), &[""]),
        ] {
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(outer.below(&other, &settings), expected, "{other:?}");
        }
    }
}
