//! File systems mounted below a root (`cross_file_systems`). Where one was mounted and is not any more there is a
//! directory all the same, mostly an empty one: taken at its word it would empty the listing.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout};

use crate::config::RootSettings;
use crate::lock::lock;
use crate::mounts::{self, MOUNTINFO, Mount};

use super::dir::{Dir, absolute};
use super::plan::{Known, KnownError};

/// Why what is known below a directory stays as UNAVAILABLE.
#[derive(Debug, thiserror::Error)]
#[error(
    "the file system that was mounted here is not: mount it, or a full scan takes its images from the listing"
)]
pub(super) struct Unmounted;

impl Unmounted {
    /// Whether it is what is behind an error.
    pub fn is_behind(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|error| error.is::<Self>())
    }
}

impl From<Unmounted> for io::Error {
    fn from(unmounted: Unmounted) -> Self {
        Self::other(unmounted)
    }
}

/// What is mounted below a root, and what was. The kernel tells it without asking any of the file systems.
///
/// Invariant: what was mounted and is not stays among them until it is mounted again or somebody asks for a full
/// scan, as long as any image below it is known. Others come and go: those of sessions and of containers.
#[derive(Default)]
pub(super) struct Submounts<'a> {
    watched: Option<Watched<'a>>,
    /// Whether any is not there now: mostly none is missing, and each known directory asks.
    any_missing: AtomicBool,
}

struct Watched<'a> {
    known: &'a dyn Known,
    /// Where the root really is.
    root: PathBuf,
    /// Where file systems were mounted at the last scan, or are now, relative to the root.
    points: Vec<Box<[u8]>>,
    now: Mutex<Now>,
}

struct Now {
    mountinfo: File,
    missing: Vec<Box<[u8]>>,
}

impl<'a> Submounts<'a> {
    /// Those of an opened root, as they are now; none where other file systems are not entered or nothing is
    /// known. None is missing where what is not mounted is to be forgotten.
    ///
    /// # Errors
    ///
    /// The catalogue fails.
    pub fn of(
        root: &Dir,
        settings: &RootSettings,
        known: Option<&'a dyn Known>,
        forget_unmounted: bool,
    ) -> Result<Self, KnownError> {
        let Some(known) = known.filter(|_| settings.cross_file_systems) else {
            return Ok(Self::default());
        };
        let opened = root.path().and_then(|root| {
            let mut mountinfo = File::open(MOUNTINFO)?;
            let mounted = Mounted::read(&mut mountinfo, &root)?;
            Ok((root, mountinfo, mounted))
        });
        let (root, mountinfo, mounted) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                tracing::debug!(%error, "it is not known what is mounted below a root");
                return Ok(Self::default());
            }
        };
        let before = known.mounts()?;
        let missing = if forget_unmounted {
            Vec::new()
        } else {
            mounted.missing(&before, &root, known)?
        };
        let mut points = [mounted.points, missing.clone()].concat();
        points.sort_unstable();
        if points != before {
            known.set_mounts(&points)?;
        }
        Ok(Self {
            any_missing: AtomicBool::new(!missing.is_empty()),
            watched: Some(Watched {
                known,
                root,
                points,
                now: Mutex::new(Now { mountinfo, missing }),
            }),
        })
    }

    /// Whether a directory is one on which a file system is missing, or lies below one. What was mounted when the
    /// scan began is looked for again.
    pub fn is_missing(&self, path: &[u8]) -> bool {
        let Some(watched) = &self.watched else {
            return false;
        };
        if !watched.points.iter().any(|point| is_within(path, point)) {
            return false;
        }
        let mut now = lock(&watched.now);
        if now.has_changed()
            && let Ok(mounted) = Mounted::read(&mut now.mountinfo, &watched.root)
            && let Ok(missing) = mounted.missing(&watched.points, &watched.root, watched.known)
        {
            self.any_missing
                .store(!missing.is_empty(), Ordering::Relaxed);
            now.missing = missing;
        }
        now.missing.iter().any(|point| is_within(path, point))
    }

    /// Whether a directory lies below one on which a file system was missing when that was last looked for.
    pub fn hides(&self, path: &[u8]) -> bool {
        let Some(watched) = &self.watched else {
            return false;
        };
        if !self.any_missing.load(Ordering::Relaxed) {
            return false;
        }
        let now = lock(&watched.now);
        let mut missing = now.missing.iter();
        missing.any(|point| **point != *path && is_within(path, point))
    }
}

impl Now {
    /// Whether anything was mounted or unmounted since that was read or asked for.
    fn has_changed(&self) -> bool {
        let mut poll = [PollFd::new(self.mountinfo.as_fd(), PollFlags::POLLPRI)];
        nix::poll::poll(&mut poll, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}

/// What is mounted below a root at some moment.
struct Mounted {
    /// Where, relative to the root, in order.
    points: Vec<Box<[u8]>>,
    /// File systems of automounters, wherever they are.
    automounters: Vec<Mount>,
}

impl Mounted {
    fn read(mountinfo: &mut File, root: &Path) -> io::Result<Self> {
        let mut text = Vec::new();
        mountinfo.rewind()?;
        mountinfo.read_to_end(&mut text)?;
        Ok(Self::parse(&text, root))
    }

    fn parse(mountinfo: &[u8], root: &Path) -> Self {
        let mut mounted = Self {
            points: Vec::new(),
            automounters: Vec::new(),
        };
        for mount in mounts::all(mountinfo) {
            if let Ok(point) = mount.point.strip_prefix(root)
                && !point.as_os_str().is_empty()
            {
                mounted.points.push(point.as_os_str().as_bytes().into());
            }
            if mount.kind == b"autofs" {
                mounted.automounters.push(mount);
            }
        }
        mounted.points.sort_unstable();
        mounted.points.dedup();
        mounted
    }

    /// Which of these have nothing mounted on them, and nobody who mounts it on demand.
    fn missing(
        &self,
        points: &[Box<[u8]>],
        root: &Path,
        known: &dyn Known,
    ) -> Result<Vec<Box<[u8]>>, KnownError> {
        let mut missing = Vec::new();
        for point in points {
            if self.points.binary_search(point).is_err()
                && !mounts::is_automounted(&self.automounters, &absolute(root, point))
                && known.has_images_below(point)?
            {
                missing.push(point.clone());
            }
        }
        Ok(missing)
    }
}

/// Whether a path is another one, or lies below it.
pub(super) fn is_within(path: &[u8], other: &[u8]) -> bool {
    let rest = path.strip_prefix(other);
    rest.is_some_and(|rest| other.is_empty() || rest.is_empty() || rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::path::Path;
    use std::process::Command;
    use std::sync::Mutex;

    use super::{Mounted, Submounts, is_within};
    use crate::catalog::{Identity, KnownDirectory, KnownImage};
    use crate::config::RootSettings;
    use crate::scan::dir::Access;
    use crate::scan::operations::Operations;
    use crate::scan::plan::{Known, KnownError};

    const MOUNTS: &[u8] = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
        30 22 0:40 / /data/home rw shared:2 - autofs /etc/auto.home rw,fd=7,pgrp=1,indirect\n\
        31 30 0:41 / /data/home/alice rw shared:3 - nfs4 server:/alice rw\n\
        32 22 0:42 / /data/scratch rw shared:4 - autofs /etc/auto.direct rw,fd=8,direct\n\
        33 32 0:43 / /data/scratch rw shared:5 - lustre mds:/scratch rw\n\
        34 22 0:44 / /data/a\\040b rw shared:6 - nfs4 server:/opt rw\n\
        35 22 0:45 / /database rw shared:7 - xfs /dev/sdb rw\n\
        36 22 0:45 / /data rw shared:7 - xfs /dev/sdb rw\n";

    #[test]
    fn what_is_mounted_below_a_root_is_told() {
        let mounted = Mounted::parse(MOUNTS, Path::new("/data"));
        let points: Vec<&[u8]> = mounted.points.iter().map(|point| &**point).collect();
        let below: [&[u8]; 4] = [b"a b", b"home", b"home/alice", b"scratch"];
        assert_eq!(points, below);
    }

    #[test]
    fn what_is_mounted_again_on_demand_is_not_missing() {
        let root = Path::new("/data");
        let before = Mounted::parse(MOUNTS, root).points;
        let is_left = |line: &&[u8]| !line.windows(7).any(|part| part == b"server:");
        let lines = MOUNTS.split_inclusive(|byte| *byte == b'\n');
        let now = lines.filter(is_left).collect::<Vec<_>>().concat();
        let known = Everything::default();
        let missing = Mounted::parse(&now, root).missing(&before, root, &known);
        assert_eq!(missing.unwrap(), [Box::from(&b"a b"[..])]);
    }

    /// Knows of images everywhere but in `session`.
    #[derive(Default)]
    struct Everything(Mutex<Vec<Box<[u8]>>>);

    impl Known for Everything {
        fn knows_root(&self) -> bool {
            true
        }

        fn next_directories(&self) -> Result<Vec<KnownDirectory>, KnownError> {
            Ok(Vec::new())
        }

        fn children(&self, _: &[u8]) -> Result<Vec<Box<[u8]>>, KnownError> {
            Ok(Vec::new())
        }

        fn mounts(&self) -> Result<Vec<Box<[u8]>>, KnownError> {
            Ok(self.0.lock().unwrap().clone())
        }

        fn set_mounts(&self, points: &[Box<[u8]>]) -> Result<(), KnownError> {
            *self.0.lock().unwrap() = points.to_vec();
            Ok(())
        }

        fn has_images_below(&self, path: &[u8]) -> Result<bool, KnownError> {
            Ok(path != b"session")
        }

        fn images_with_inode(&self, _: u64) -> Vec<(i64, Identity)> {
            Vec::new()
        }

        fn image(&self, _: i64) -> Result<Option<KnownImage>, KnownError> {
            Ok(None)
        }
    }

    fn is_done(program: &str, path: &Path, arguments: &[&str]) -> bool {
        let status = Command::new(program).args(arguments).arg(path).status();
        status.is_ok_and(|status| status.success())
    }

    #[test]
    fn what_is_unmounted_while_a_scan_runs_is_missing_from_then_on() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let mount = |name: &str| {
            std::fs::create_dir_all(at(name)).unwrap();
            is_done("mount", &at(name), &["-t", "tmpfs", "none"])
        };
        if !mount("project") {
            let _ = writeln!(
                io::stderr(),
                "\nNOT RUN: mounts below a root: this user may not mount\n"
            );
            return;
        }
        assert!(mount("project/inner") && mount("session"));
        let mut settings = RootSettings::new(root.path().into());
        settings.cross_file_systems = true;
        let dir = Access::new(true).open_root(root.path(), &mut Operations::default());
        let (dir, known) = (dir.unwrap(), Everything::default());
        let begin = |full| Submounts::of(&dir, &settings, Some(&known), full).unwrap();
        let told = |submounts: &Submounts<'_>| {
            ["project", "project/a", "project/inner", "session", "other"]
                .map(|path| submounts.is_missing(path.as_bytes()))
        };
        let submounts = begin(false);
        assert_eq!(told(&submounts), [false; 5]);
        for name in ["session", "project/inner", "project"] {
            assert!(is_done("umount", &at(name), &[]));
        }
        assert!(!submounts.hides(b"project/a"), "nobody has looked yet");
        let expected = [true, true, true, false, false];
        assert_eq!(told(&submounts), expected);
        for (path, hidden) in [
            ("project", false),
            ("project/a", true),
            ("project/inner", true),
            ("session", false),
        ] {
            assert_eq!(submounts.hides(path.as_bytes()), hidden, "{path}");
        }
        // Those of scans to come, until one of them is full.
        for (full, expected) in [(false, expected), (true, [false; 5]), (false, [false; 5])] {
            assert_eq!(told(&begin(full)), expected, "{full}");
        }
        // Where other file systems are not entered nothing is.
        settings.cross_file_systems = false;
        *known.0.lock().unwrap() = vec![b"project".as_slice().into()];
        let submounts = Submounts::of(&dir, &settings, Some(&known), false).unwrap();
        assert_eq!(told(&submounts), [false; 5]);
    }

    #[test]
    fn a_name_that_begins_like_another_is_not_within_it() {
        for (path, other, expected) in [
            ("a/b", "a", true),
            ("a", "a", true),
            ("ab", "a", false),
            ("a", "a/b", false),
            ("a", "", true),
        ] {
            let is = is_within(path.as_bytes(), other.as_bytes());
            assert_eq!(is, expected, "{path} {other}");
        }
    }
}
