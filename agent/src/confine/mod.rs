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

mod mounts;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus,
};
use sifter_proto::v1::Confinement;

use self::mounts::is_read_only;
use crate::config::{Listen, Settings};
use crate::escape;
use crate::mounts::{MOUNTINFO, all, is_automounted};

pub use self::mounts::Mounts;

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
    /// The roots that may be read, each with its path without links; `None`: everything may.
    roots: Option<BTreeMap<PathBuf, PathBuf>>,
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
        let covers =
            |roots: &BTreeMap<PathBuf, PathBuf>| roots.keys().any(|have| root.starts_with(have));
        self.roots.as_ref().is_none_or(covers)
    }

    /// Tells the log.
    pub fn log(&self) {
        match self.state {
            Confinement::Full => tracing::info!("confined by Landlock"),
            Confinement::Partial => {
                tracing::info!(why = self.message, "confined by Landlock in part");
            }
            Confinement::Off | Confinement::Unspecified => {
                tracing::info!(why = self.message, "not confined by Landlock");
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
    roots: Result<Vec<Root>, String>,
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
    for path in read_paths(settings, files) {
        allow(path, read)?;
    }
    for directory in written_directories(settings) {
        allow(&directory, read | write)?;
    }
    let mut readable = BTreeMap::new();
    let unread = roots.as_ref().err().cloned();
    for root in roots.into_iter().flatten() {
        let rights = root.rights(read);
        (&mut rules).add_rule(PathBeneath::new(root.fd, rights))?;
        readable.insert(root.path, root.real);
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

/// What is read besides the roots.
fn read_paths<'s>(settings: &'s Settings, files: &'s [PathBuf]) -> impl Iterator<Item = &'s Path> {
    let tls = settings.tls.iter();
    let tls = tls.flat_map(|tls| [&tls.cert, &tls.key, &tls.client_ca]);
    // Files that are renewed by renaming are other files then: their directories.
    let directories = tls.chain(files).filter_map(|path| path.parent());
    SYSTEM.map(Path::new).into_iter().chain(directories)
}

/// The directories in which something is written.
fn written_directories(settings: &Settings) -> impl Iterator<Item = PathBuf> {
    let sockets = settings.listen.iter().chain(&settings.metrics);
    let sockets = sockets.filter_map(|listen| match listen {
        Listen::Unix(path) => Some(path.parent()?.to_owned()),
        Listen::Tcp(_) | Listen::Tls(_) => None,
    });
    sockets
        .chain(settings.state_directory.clone())
        .chain(temporary())
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

/// A root that may be read.
struct Root {
    path: PathBuf,
    real: PathBuf,
    fd: PathFd,
    is_read_only: bool,
}

impl Root {
    /// What may be done below it. At each file that is opened the kernel also asks whether it may be
    /// truncated later, directory by directory upwards until one says so; where none does, up to `/`, on all
    /// processors through the same few directories. Where nothing can be truncated anyway, the root says so:
    /// that halves what opening a file costs more for being confined.
    fn rights(&self, read: BitFlags<AccessFs>) -> BitFlags<AccessFs> {
        if self.is_read_only {
            read | AccessFs::Truncate
        } else {
            read
        }
    }
}

/// Opens the roots, or says why reading must not be confined.
fn open_roots(settings: &Settings) -> Result<Vec<Root>, String> {
    let mounts = std::fs::read(MOUNTINFO).map_err(|error| format!("{MOUNTINFO}: {error}"))?;
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
                        // That asked no server yet, and a rule asks what it is for.
                        rustix::fs::fstat(&fd).map_err(|error| error.to_string())?;
                        Ok((real, fd))
                    });
                sender.send(opened)
            })
            .map_err(|error| format!("start a thread: {error}"))?;
        let (real, fd) = receiver
            .recv_timeout(PATIENCE)
            .map_err(|_| format!("root {shown} does not answer"))?
            .map_err(|error| format!("root {shown}: {error}"))?;
        if is_automounted(&all(&mounts).collect::<Vec<_>>(), &real) {
            return Err(format!("root {shown} is mounted when it is used"));
        }
        opened.push(Root {
            path: root.path.clone(),
            fd,
            is_read_only: is_read_only(&mounts, &real),
            real,
        });
    }
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;
    use std::path::Path;

    use sifter_proto::v1::Confinement;

    use super::{Confined, confine};
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
}
