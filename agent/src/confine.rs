//! The agent confines itself with Landlock, where the kernel has it: whatever a hostile image may make
//! of a fault in a parser, files outside of what the agent is for can neither be read nor written.
//!
//! Read: the roots, configuration, certificates and what name services need. Written: the state
//! directory, and the directories of unix sockets. A confinement is for good: it is set up once,
//! before there are threads, and a root that is added later needs a restart.
//!
//! A rule belongs to the directory that is there now. Where a root is mounted anew, it is another one:
//! [`Mounts`] notices, so that the agent can be started anew. Where roots come and go as a matter of
//! course (automounts) or are not there yet, reading is left alone, and only writing confined.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus,
};
use sifter_proto::v1::Confinement;

use crate::config::{Listen, Settings};
use crate::escape;

/// The newest of the kernel's interfaces of which all rights were considered here.
const KNOWN: ABI = ABI::V5;

/// How long a root may take to be opened: one that hangs must not keep the agent from starting.
const PATIENCE: Duration = Duration::from_secs(5);

/// What programs and name services read: libraries and their modules, users and groups, time zones,
/// caches of `nscd`, SSSD and the like. (Their sockets are no matter of Landlock.)
const SYSTEM: [&str; 17] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/nix/store",
    "/gnu/store",
    "/proc/self",
    "/proc/sys",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
    "/dev/null",
    "/dev/urandom",
    "/run/nscd",
    "/run/systemd",
    "/var/lib/sss",
    "/var/lib/extrausers",
];

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confined {
    /// How far it goes.
    pub state: Confinement,
    /// Why no further, if it does not go all the way.
    pub message: String,
    /// The roots that may be read; `None`: everything may.
    roots: Option<BTreeSet<PathBuf>>,
}

impl Confined {
    fn off(message: impl Into<String>) -> Self {
        Self {
            state: Confinement::Off,
            message: message.into(),
            roots: None,
        }
    }

    /// Whether a root may be read: it was there when the agent confined itself.
    #[must_use]
    pub fn lets_in(&self, root: &Path) -> bool {
        let covers = |roots: &BTreeSet<PathBuf>| roots.iter().any(|have| root.starts_with(have));
        self.roots.as_ref().is_none_or(covers)
    }

    /// Tells the log.
    pub fn log(&self) {
        match self.state {
            Confinement::Full => tracing::info!("confined by Landlock"),
            Confinement::Partial => {
                tracing::info!(message = self.message, "confined by Landlock in part");
            }
            Confinement::Off | Confinement::Unspecified => {
                tracing::info!(message = self.message, "not confined by Landlock");
            }
        }
    }
}

/// Confines this thread and all that it will start. `files` are read again while the agent runs:
/// the configuration.
#[must_use]
pub fn confine(settings: &Settings, files: &[PathBuf]) -> Confined {
    if !settings.landlock {
        return Confined::off("landlock = false");
    }
    let roots = open_roots(settings);
    match restrict(settings, files, roots) {
        Ok(confined) => confined,
        Err(error) => Confined::off(error.to_string()),
    }
}

fn restrict(
    settings: &Settings,
    files: &[PathBuf],
    roots: Result<Vec<(PathBuf, PathFd)>, String>,
) -> Result<Confined, landlock::RulesetError> {
    let read = AccessFs::from_read(KNOWN) & !BitFlags::from(AccessFs::Execute);
    let write = AccessFs::from_write(KNOWN);
    let handled = if roots.is_ok() {
        AccessFs::from_all(KNOWN)
    } else {
        write
    };
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(handled)?
        .create()?;
    // What is not there needs no rule.
    let mut allow = |path: &Path, access: BitFlags<AccessFs>| {
        let Ok(fd) = PathFd::new(path) else {
            return Ok(());
        };
        // Of a file that is none there is nothing to list or to create.
        let access = if path.is_dir() {
            access
        } else {
            access & AccessFs::from_file(KNOWN)
        };
        let access = access & handled;
        if access.is_empty() {
            return Ok(());
        }
        (&mut rules)
            .add_rule(PathBeneath::new(fd, access))
            .map(|_| ())
    };
    for path in SYSTEM.map(Path::new) {
        allow(path, read)?;
    }
    // Files that are renewed by renaming are other files then: their directories.
    let tls = settings
        .tls
        .iter()
        .flat_map(|tls| [&tls.cert, &tls.key, &tls.client_ca]);
    for directory in tls.chain(files).filter_map(|path| path.parent()) {
        allow(directory, read)?;
    }
    let sockets = settings.listen.iter().chain(&settings.metrics);
    let sockets = sockets.filter_map(|listen| match listen {
        Listen::Unix(path) => path.parent(),
        Listen::Tcp(_) | Listen::Tls(_) => None,
    });
    let temporary = temporary();
    for directory in sockets
        .chain(settings.state_directory.as_deref())
        .chain(temporary.as_deref())
    {
        allow(directory, read | write)?;
    }
    let mut readable = BTreeSet::new();
    let unread = roots.as_ref().err().cloned();
    for (path, fd) in roots.into_iter().flatten() {
        (&mut rules).add_rule(PathBeneath::new(fd, read))?;
        readable.insert(path);
    }
    let status = rules.restrict_self()?;
    Ok(match (status.ruleset, unread) {
        (RulesetStatus::NotEnforced, _) => {
            Confined::off("the kernel has no Landlock, or does not let it be used")
        }
        (_, Some(why)) => Confined {
            state: Confinement::Partial,
            message: format!("writing only: {why}"),
            roots: None,
        },
        (RulesetStatus::PartiallyEnforced, None) => Confined {
            state: Confinement::Partial,
            message: "the kernel knows only some of the rights".to_owned(),
            roots: Some(readable),
        },
        (RulesetStatus::FullyEnforced, None) => Confined {
            state: Confinement::Full,
            message: String::new(),
            roots: Some(readable),
        },
    })
}

/// Where SQLite puts what does not fit into memory: the first of its places that may be written.
fn temporary() -> Option<PathBuf> {
    let told = ["SQLITE_TMPDIR", "TMPDIR"].map(|name| std::env::var_os(name).map(PathBuf::from));
    let usual = ["/var/tmp", "/usr/tmp", "/tmp"].map(|path| Some(PathBuf::from(path)));
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    told.into_iter()
        .chain(usual)
        .flatten()
        .find(|path| path.is_dir() && rustix::fs::access(path, access).is_ok())
}

/// Opens the roots, or says why reading must not be confined.
fn open_roots(settings: &Settings) -> Result<Vec<(PathBuf, PathFd)>, String> {
    let mounts = std::fs::read("/proc/self/mountinfo")
        .map_err(|error| format!("/proc/self/mountinfo: {error}"))?;
    let mut opened = Vec::new();
    for root in &settings.roots {
        let shown = escape::path(&root.path);
        if root.follow_symlinks {
            return Err(format!(
                "root {shown} follows symbolic links, wherever they lead"
            ));
        }
        let path = root.path.clone();
        let (sender, receiver) = mpsc::channel();
        std::thread::Builder::new()
            .name("sifter-confine".to_owned())
            .spawn(move || {
                let opened = std::fs::canonicalize(&path)
                    .map_err(|error| error.to_string())
                    .and_then(|real| {
                        let fd = PathFd::new(&path).map_err(|error| error.to_string())?;
                        Ok((real, fd))
                    });
                sender.send(opened)
            })
            .map_err(|error| format!("start a thread: {error}"))?;
        let (real, fd) = receiver
            .recv_timeout(PATIENCE)
            .map_err(|_| format!("root {shown} does not answer"))?
            .map_err(|error| format!("root {shown}: {error}"))?;
        if is_automounted(&mounts, &real) {
            return Err(format!("root {shown} is mounted when it is used"));
        }
        opened.push((root.path.clone(), fd));
    }
    Ok(opened)
}

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, Clone)]
struct Mount {
    /// Number of the mount and of the device: what it is.
    identity: (Vec<u8>, Vec<u8>),
    point: PathBuf,
    kind: Vec<u8>,
    options: Vec<u8>,
}

/// The same one, whatever became of its options: `mount -o remount` makes no other of it.
impl PartialEq for Mount {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity && self.point == other.point && self.kind == other.kind
    }
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut words = line.split(|byte| *byte == b' ');
        let id = words.next()?.to_vec();
        let device = words.nth(1)?.to_vec();
        let point = unescape(words.nth(1)?);
        let mut rest = words.skip_while(|word| *word != b"-").skip(1);
        let kind = rest.next()?.to_vec();
        let options = rest.nth(1)?.to_vec();
        Some(Self {
            identity: (id, device),
            point: PathBuf::from(std::ffi::OsStr::from_bytes(&point)),
            kind,
            options,
        })
    }

    fn is_indirect_automount(&self) -> bool {
        self.options
            .split(|byte| *byte == b',')
            .any(|option| option == b"indirect")
    }
}

/// `\040` and the like.
fn unescape(word: &[u8]) -> Vec<u8> {
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
    plain
}

/// The mounts through which a path leads, outermost first.
fn leading_to(mountinfo: &[u8], path: &Path) -> Vec<Mount> {
    mountinfo
        .split(|byte| *byte == b'\n')
        .filter_map(Mount::parse)
        .filter(|mount| path.starts_with(&mount.point))
        .collect()
}

/// Whether a path is on a file system that comes and goes by itself.
fn is_automounted(mountinfo: &[u8], path: &Path) -> bool {
    let mounts = leading_to(mountinfo, path);
    mounts.iter().enumerate().any(|(index, mount)| {
        // What is mounted below an indirect one's own directory does not concern that.
        let is_its_own = mount.point == path
            && mount.is_indirect_automount()
            && !mounts[index + 1..].iter().any(|above| above.point == path);
        mount.kind == b"autofs" && !is_its_own
    })
}

/// What the roots were mounted from when the agent confined itself.
#[derive(Debug)]
pub struct Mounts(Vec<(PathBuf, PathBuf, Vec<Mount>)>);

impl Mounts {
    /// As they are now; nothing to watch where reading is not confined.
    #[must_use]
    pub fn now(confined: &Confined) -> Self {
        let mountinfo = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
        let roots = confined.roots.iter().flatten();
        Self(
            roots
                .map(|root| {
                    let real = std::fs::canonicalize(root).unwrap_or_else(|_| root.clone());
                    let mounts = leading_to(&mountinfo, &real);
                    (root.clone(), real, mounts)
                })
                .collect(),
        )
    }

    /// A root to which other mounts lead than at first.
    #[must_use]
    pub fn changed(&self) -> Option<&Path> {
        let mountinfo = std::fs::read("/proc/self/mountinfo").ok()?;
        self.0
            .iter()
            .find(|(_, real, mounts)| leading_to(&mountinfo, real) != *mounts)
            .map(|(root, ..)| root.as_path())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;
    use std::path::Path;

    use sifter_proto::v1::Confinement;

    use super::{Confined, Mount, confine, is_automounted, leading_to};
    use crate::config::{Raw, Settings};

    /// Confines a thread of its own, which dies with it, for a configuration over `directory`.
    fn confined<T: Send + 'static>(
        directory: &Path,
        more: &str,
        then: impl FnOnce(Confined) -> T + Send + 'static,
    ) -> T {
        let text = format!(
            "state_directory='{0}/state'\nlisten=['unix:{0}/run/agent.sock']\n{more}\n[[root]]\npath='{0}/images'",
            directory.display()
        );
        let raw: Raw = toml::from_str(&text).unwrap();
        let settings = Settings::validate(raw).unwrap();
        std::thread::spawn(move || then(confine(&settings, &[])))
            .join()
            .unwrap()
    }

    /// Directories as an agent has them, and one that is none of its business.
    fn directories() -> tempfile::TempDir {
        // Not below /tmp, where SQLite may put what it likes.
        let directory =
            tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
        for name in ["state", "run", "images", "other"] {
            fs::create_dir(directory.path().join(name)).unwrap();
            fs::write(directory.path().join(name).join("file"), "x").unwrap();
        }
        directory
    }

    #[allow(clippy::print_stderr, reason = "a test that was left out must be seen")]
    fn has_landlock(confined: &Confined) -> bool {
        let has = confined.state != Confinement::Off;
        if !has {
            eprintln!("\nNOT RUN: {}\n", confined.message);
        }
        has
    }

    #[test]
    fn what_is_none_of_its_business_can_be_neither_read_nor_written() {
        let directory = directories();
        let path = directory.path().to_owned();
        confined(directory.path(), "", move |confined| {
            if !has_landlock(&confined) {
                return;
            }
            let denied = ErrorKind::PermissionDenied;
            let read = |name: &str| fs::read(path.join(name)).map_err(|error| error.kind());
            let write = |name: &str| fs::write(path.join(name), "y").map_err(|error| error.kind());
            for (name, may_read, may_write) in [
                ("images/file", true, false),
                ("state/file", true, true),
                ("run/file", true, true),
                ("other/file", false, false),
            ] {
                assert_eq!(read(name).is_ok(), may_read, "{name}");
                assert_eq!(
                    write(name),
                    if may_write { Ok(()) } else { Err(denied) },
                    "{name}"
                );
            }
            assert_eq!(write("images/new"), Err(denied));
            assert_eq!(write("state/new"), Ok(()));
            let moved = fs::rename(path.join("images/file"), path.join("state/stolen"));
            assert!(moved.is_err());
            assert_eq!(fs::read_dir(path.join("other")).unwrap_err().kind(), denied);
            assert_eq!(fs::read_dir("/root").unwrap_err().kind(), denied);
            assert!(fs::read("/etc/passwd").is_ok() && fs::read("/proc/self/mountinfo").is_ok());
            // Threads of this one are no freer.
            let other = path.join("other/file");
            let thread = std::thread::spawn(move || fs::read(other).map_err(|error| error.kind()));
            assert_eq!(thread.join().unwrap(), Err(denied));
            assert!(confined.lets_in(&path.join("images/below")));
            assert!(!confined.lets_in(&path.join("other")));
        });
        assert!(fs::read(directory.path().join("other/file")).is_ok());
    }

    #[test]
    fn where_a_root_may_lead_anywhere_only_writing_is_confined() {
        for (more, why) in [
            ("[[root]]\npath='/nowhere/at/all'", "/nowhere/at/all"),
            (
                "[[root]]\npath='/usr'\nfollow_symlinks=true",
                "follows symbolic links",
            ),
        ] {
            let directory = directories();
            let path = directory.path().to_owned();
            confined(directory.path(), more, move |confined| {
                if !has_landlock(&confined) {
                    return;
                }
                assert_eq!(confined.state, Confinement::Partial);
                assert!(confined.message.contains(why), "{}", confined.message);
                assert!(fs::read(path.join("other/file")).is_ok());
                let written = fs::write(path.join("other/file"), "y");
                assert_eq!(written.unwrap_err().kind(), ErrorKind::PermissionDenied);
                assert!(confined.lets_in(Path::new("/somewhere")));
            });
        }
    }

    #[test]
    fn it_can_be_switched_off() {
        let directory = directories();
        let path = directory.path().to_owned();
        confined(directory.path(), "landlock = false", move |confined| {
            assert_eq!(confined.state, Confinement::Off);
            assert!(fs::write(path.join("other/file"), "y").is_ok());
        });
    }

    const MOUNTS: &[u8] = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
        30 22 0:40 / /home rw shared:2 - autofs /etc/auto.home rw,fd=7,pgrp=1,indirect\n\
        31 30 0:41 / /home/alice rw shared:3 - nfs4 server:/alice rw\n\
        32 22 0:42 / /scratch rw shared:4 - autofs /etc/auto.direct rw,fd=8,direct\n\
        33 32 0:43 / /scratch rw shared:5 - lustre mds:/scratch rw\n\
        34 22 0:44 / /opt/with\\040blank rw shared:6 - nfs4 server:/opt rw\n";

    #[test]
    fn automounts_are_known() {
        for (path, expected) in [
            ("/opt/images", false),
            ("/opt/with blank/images", false),
            ("/home", false),
            ("/home/alice", true),
            ("/scratch", true),
            ("/scratch/images", true),
            ("/homes", false),
        ] {
            assert_eq!(is_automounted(MOUNTS, Path::new(path)), expected, "{path}");
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
        let again = String::from_utf8_lossy(MOUNTS).replace("34 22 0:44", "35 22 0:45");
        let path = Path::new("/opt/with blank");
        assert_ne!(leading_to(MOUNTS, path), leading_to(again.as_bytes(), path));
        let remounted = String::from_utf8_lossy(MOUNTS).replace("server:/opt rw", "server:/opt ro");
        assert_eq!(
            leading_to(MOUNTS, path),
            leading_to(remounted.as_bytes(), path)
        );
        assert_eq!(Mount::parse(b""), None);
        assert_eq!(Mount::parse(b"1 2 3"), None);
    }
}
