//! What is mounted where, as `/proc/self/mountinfo` has it (proc_pid_mountinfo(5)): the kernel knows it
//! without asking any file system.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use tokio::sync::mpsc;

/// What is to be mounted, as the administrator has it (fstab(5)).
pub const FSTAB: &str = "/etc/fstab";

/// Where the kernel tells it.
pub const MOUNTINFO: &str = "/proc/self/mountinfo";

/// Mounts that change one after the other for so long are told of once: a machine that starts makes many, and so
/// does an automounter.
const TOGETHER: Duration = Duration::from_secs(10);

/// Tells, a while later, whenever something was mounted or unmounted from now on; ends at once where the kernel does
/// not tell it.
#[must_use]
pub fn changes() -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel(1);
    let tell = move |file: File| {
        let mut poll = [PollFd::new(file.as_fd(), PollFlags::POLLPRI)];
        loop {
            match nix::poll::poll(&mut poll, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(_) => return,
            }
            std::thread::sleep(TOGETHER);
            if sender.blocking_send(()).is_err() {
                return;
            }
        }
    };
    if let Ok(file) = File::open(MOUNTINFO) {
        let thread = std::thread::Builder::new().name("sifter-mounts".to_owned());
        // Without it its sender is dropped.
        drop(thread.spawn(move || tell(file)));
    }
    receiver
}

/// One line of it.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Number of the mount, unique while it is there.
    pub id: Vec<u8>,
    /// Number of the device: the same for all mounts of a file system.
    pub device: Vec<u8>,
    /// What of the file system is mounted: `/`, or a directory in it.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// Type of the file system.
    pub kind: Vec<u8>,
    /// Options of the file system.
    pub options: Vec<u8>,
    /// Here, wherever else the file system is mounted.
    pub is_read_only: bool,
}

/// The same one, whatever became of its options: `mount -o remount` makes no other of it.
impl PartialEq for Mount {
    fn eq(&self, other: &Self) -> bool {
        (&self.id, &self.device, &self.point, &self.kind)
            == (&other.id, &other.device, &other.point, &other.kind)
    }
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut words = line.split(|byte| *byte == b' ');
        let id = words.next()?.to_vec();
        let device = words.nth(1)?.to_vec();
        let root = unescape(words.next()?);
        let point = unescape(words.next()?);
        let here = words.next()?;
        let mut rest = words.skip_while(|word| *word != b"-").skip(1);
        let kind = rest.next()?.to_vec();
        let options = rest.nth(1)?.to_vec();
        Some(Self {
            id,
            device,
            root,
            point,
            kind,
            options,
            is_read_only: has(here, b"ro"),
        })
    }

    /// Whether one of the file system's options is this one.
    #[must_use]
    pub fn has_option(&self, option: &[u8]) -> bool {
        has(&self.options, option)
    }
}

/// Whether an option is among those that commas separate.
fn has(options: &[u8], option: &[u8]) -> bool {
    options
        .split(|byte| *byte == b',')
        .any(|have| have == option)
}

/// `\040` and the like.
fn unescape(word: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(word.len());
    let mut at = 0;
    while at < word.len() {
        let digits = word.get(at + 1..at + 4).filter(|_| word[at] == b'\\');
        let code = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(code.unwrap_or(word[at]));
        at += if code.is_some() { 4 } else { 1 };
    }
    OsString::from_vec(plain).into()
}

/// All mounts, in the order in which they were made.
pub fn all(mountinfo: &[u8]) -> impl Iterator<Item = Mount> {
    mountinfo
        .split(|byte| *byte == b'\n')
        .filter_map(Mount::parse)
}

/// The mounts through which a path leads, outermost first.
#[must_use]
pub fn leading_to(mountinfo: &[u8], path: &Path) -> Vec<Mount> {
    all(mountinfo)
        .filter(|mount| path.starts_with(&mount.point))
        .collect()
}

/// Whether a path is on a file system that an automounter makes come and go.
pub fn is_automounted<'m>(mounts: impl IntoIterator<Item = &'m Mount>, path: &Path) -> bool {
    mounts.into_iter().any(|mount| {
        // The directory of an indirect one is there, whatever it mounts below.
        let is_its_own = mount.point == path && mount.has_option(b"indirect");
        mount.kind == b"autofs" && path.starts_with(&mount.point) && !is_its_own
    })
}

/// Where on the way to a path a file system belongs (fstab(5)) that is not mounted, innermost.
#[must_use]
pub fn missing_on_the_way(fstab: &[u8], mountinfo: &[u8], path: &Path) -> Option<PathBuf> {
    fstab
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let mut words = line
                .split(u8::is_ascii_whitespace)
                .filter(|word| !word.is_empty());
            let is_comment = words.next()?.starts_with(b"#");
            words.next().filter(|_| !is_comment).map(unescape)
        })
        // The root itself is there, also where a container does not show it.
        .filter(|point| point.parent().is_some() && path.starts_with(point))
        .filter(|point| !all(mountinfo).any(|mount| mount.point == *point))
        .max_by_key(|point| point.as_os_str().len())
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{Mount, all, is_automounted, leading_to, missing_on_the_way};

    const MOUNTS: &[u8] = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
        34 22 0:44 /a\\040b /opt/with\\040blank rw shared:6 - nfs4 server:/opt rw\n";

    #[test]
    fn a_line_is_taken_apart() {
        let mounts: Vec<_> = all(MOUNTS).collect();
        assert_eq!(mounts.len(), 2);
        let last = &mounts[1];
        assert_eq!((&*last.id, &*last.device), (&b"34"[..], &b"0:44"[..]));
        assert_eq!(last.root, Path::new("/a b"));
        assert_eq!(last.point, Path::new("/opt/with blank"));
        assert_eq!(last.kind, b"nfs4");
        assert!(last.has_option(b"rw") && !last.is_read_only);
        assert_eq!(Mount::parse(b""), None);
        assert_eq!(Mount::parse(b"1 2 3"), None);
    }

    #[test]
    fn what_is_to_be_mounted_and_is_not_is_told() {
        let fstab = b"# device point type options\n\
            UUID=1 / ext4 defaults 0 1\n\
            UUID=2 none swap sw 0 0\n\
            server:/opt\t/opt/with\\040blank\tnfs4\tdefaults\n\
              server:/srv   /srv nfs4 noauto 0 0\n\
            server:/srv/a /srv/a nfs4 defaults 0 0\n\
            #server:/data /data nfs4 defaults 0 0\n\
            broken\n\n";
        for (path, expected) in [
            ("/opt/with blank/images", None),
            ("/opt/images", None),
            ("/srv", Some("/srv")),
            ("/srv/images", Some("/srv")),
            ("/srv/a/images", Some("/srv/a")),
            ("/srva", None),
            ("/data", None),
            ("/", None),
        ] {
            let missing = missing_on_the_way(fstab, MOUNTS, Path::new(path));
            assert_eq!(missing, expected.map(PathBuf::from), "{path}");
        }
        let all = missing_on_the_way(fstab, b"", Path::new("/opt/with blank"));
        assert_eq!(all, Some("/opt/with blank".into()));
        assert_eq!(missing_on_the_way(fstab, b"", Path::new("/opt")), None);
    }

    #[test]
    fn automounts_are_known() {
        let mounts = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
            30 22 0:40 / /home rw shared:2 - autofs /etc/auto.home rw,fd=7,pgrp=1,indirect\n\
            31 30 0:41 / /home/alice rw shared:3 - nfs4 server:/alice rw\n\
            32 22 0:42 / /scratch rw shared:4 - autofs /etc/auto.direct rw,fd=8,direct\n\
            33 32 0:43 / /scratch rw shared:5 - lustre mds:/scratch rw\n\
            34 22 0:44 / /opt/with\\040blank rw shared:6 - nfs4 server:/opt rw\n";
        let mounts: Vec<_> = all(mounts).collect();
        for (path, expected) in [
            ("/opt/images", false),
            ("/opt/with blank/images", false),
            ("/home", false),
            ("/home/alice", true),
            ("/home/bob", true),
            ("/scratch", true),
            ("/scratch/images", true),
            ("/homes", false),
        ] {
            assert_eq!(is_automounted(&mounts, Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn another_mount_is_another_way() {
        let points = |path| -> Vec<_> {
            leading_to(MOUNTS, Path::new(path))
                .into_iter()
                .map(|mount| mount.point.display().to_string())
                .collect()
        };
        assert_eq!(points("/opt/with blank/x"), ["/", "/opt/with blank"]);
        assert_eq!(points("/srv"), ["/"]);
        let path = Path::new("/opt/with blank");
        let after = |from: &str, to: &str| {
            let mounts = String::from_utf8_lossy(MOUNTS).replace(from, to);
            leading_to(mounts.as_bytes(), path)
        };
        assert_ne!(leading_to(MOUNTS, path), after("34 22 0:44", "35 22 0:45"));
        assert_eq!(
            leading_to(MOUNTS, path),
            after("server:/opt rw", "server:/opt ro")
        );
    }
}
