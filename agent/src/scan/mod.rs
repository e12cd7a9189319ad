//! Scanning: one root, one scan. What is found goes to a sink, one directory at a time; who keeps
//! it is not this module's business.
//!
//! Nothing but this module opens users' files. It holds a bounded number of descriptors, never
//! follows a link out of the root, and never blocks another root: everything runs on threads of its
//! own.

mod automount;
mod bell;
mod candidates;
mod dir;
mod file;
mod file_system;
mod hint;
mod intake;
mod links;
mod location;
mod operations;
mod pace;
mod panics;
mod plan;
mod priority;
mod progress;
mod sandbox;
mod submounts;
mod supervisor;
#[cfg(test)]
mod testing;
mod visit;
mod walk;
mod work;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::catalog::{DirectoryChange, RootDirectory};
use crate::config::RootSettings;

pub use self::dir::Access;
pub use self::file::{OpenFile, Reading};
pub use self::file_system::{FileSystemType, Nature};
pub use self::hint::HintState;
use self::operations::Operations;
pub use self::pace::Pace;
pub use self::panics::caught;
pub use self::plan::{Known, KnownError};
pub use self::priority::lower_this_thread;
pub use self::progress::{Counts, Problem, Problems, Progress};
use self::submounts::Submounts;
pub use self::supervisor::{RootState, RootStatus, ScanReport, Supervisor};
use self::walk::Walk;
use self::work::{Descriptors, Shared};

/// Operations in flight on a network file system unless configured otherwise: what one careful user
/// would cause.
const WIDTH_NETWORK: u32 = 4;

/// Operations in flight at most where nothing is known of what is behind a mount; how many are
/// really useful is measured.
const WIDTH_MAX: u32 = 128;

/// Where adapting begins, at most.
const WIDTH_START: u32 = 8;

/// Operations a second on a network file system unless configured otherwise.
const RATE_NETWORK: f64 = 500.0;

/// How one scan goes.
#[derive(Debug, Clone, Copy, Default)]
pub struct ScanOptions {
    /// Read everything again, whatever is known.
    pub full: bool,
    /// Take what is not mounted for gone: somebody asks for it who knows.
    pub forget_unmounted: bool,
    /// Look at known files too, which finds images rewritten in place.
    pub check_files: bool,
    /// Whether the file system is a network one.
    pub network: bool,
    /// Each read may cost a round trip.
    pub window: bool,
    /// Leave out of images what [`sifter_image::Options::details`] is about.
    pub without_details: bool,
    /// How deep to look was asked for: what lies deeper is no problem.
    pub chosen_depth: bool,
}

impl ScanOptions {
    /// How files are probed.
    fn probe(&self, settings: &RootSettings) -> sifter_image::Options {
        sifter_image::Options {
            transfer_age: settings.transfer_age,
            naming: settings.naming.clone(),
            inside_file_systems: settings.inside_file_systems,
            details: !self.without_details,
        }
    }
}

/// What a finished scan says of its root.
#[derive(Debug, Clone)]
pub struct RootFacts {
    /// Type of the file system.
    pub file_system: FileSystemType,
    /// What tells the root directory from another one.
    pub directory: RootDirectory,
}

/// Why a root could not be scanned.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The root itself cannot be read.
    #[error("scan {}: {error}", crate::escape::path(path))]
    Root {
        /// The root.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The catalogue could not say what is known.
    #[error("read what is known of {}: {error}", crate::escape::path(path))]
    Known {
        /// The root.
        path: PathBuf,
        /// Why.
        error: KnownError,
    },
    /// Another root lists its images.
    #[error(
        "scan {}: {} the root {}, and every image is listed once, there: keep one of the two roots",
        crate::escape::path(path),
        if *is_same { "the same directory as" } else { "lies within" },
        crate::escape::path(other)
    )]
    Overlap {
        /// The root.
        path: PathBuf,
        /// The other one.
        other: PathBuf,
        /// Whether it is the same directory; otherwise it lies within the other one.
        is_same: bool,
    },
    /// A part of it panicked, or there is no thread for it.
    #[error("scan {}: {message}", crate::escape::path(path))]
    Internal {
        /// The root.
        path: PathBuf,
        /// What happened, and what to do.
        message: String,
    },
    /// The scan was ended before it was complete.
    #[error("scan {}: cancelled", crate::escape::path(path))]
    Cancelled {
        /// The root.
        path: PathBuf,
    },
}

impl ScanError {
    fn known(root: &RootSettings, error: KnownError) -> Self {
        let path = root.path.clone();
        Self::Known { path, error }
    }

    fn internal(root: &RootSettings, message: String) -> Self {
        let path = root.path.clone();
        Self::Internal { path, message }
    }
}

/// An opened root, ready to be scanned.
#[derive(Debug)]
pub struct Root {
    access: Access,
    dir: dir::Dir,
    facts: RootFacts,
}

impl Root {
    /// Opens a root. May block for as long as the file system does.
    ///
    /// # Errors
    ///
    /// [`ScanError::Root`] if it is no directory or cannot be read.
    pub fn open(settings: &RootSettings, progress: &Progress) -> Result<Self, ScanError> {
        let path = &settings.path;
        let fail = |error: io::Error| ScanError::Root {
            path: path.clone(),
            error: match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EMFILE) => io::Error::other(bell::NO_DESCRIPTOR),
                _ => error,
            },
        };
        let mut operations = Operations::default();
        let file_system = file_system::of(path).map_err(fail)?;
        // Of other file systems that are met it is not known.
        let one_file_system = !settings.cross_file_systems && !settings.follow_symlinks;
        let mut access = Access::new(settings.cross_file_systems);
        if one_file_system {
            access = access.on(&file_system);
        }
        let dir = access.open_root(path, &mut operations).map_err(fail)?;
        let (_, of_root) = dir.stat(c"", &mut operations).map_err(fail)?;
        progress.add(&Counts {
            operations: operations.calls,
            ..Counts::default()
        });
        let facts = RootFacts {
            file_system,
            directory: RootDirectory {
                device: dir.device(),
                inode: of_root.inode,
                born: of_root.born,
            },
        };
        Ok(Self { access, dir, facts })
    }

    /// What is known of the root itself.
    #[must_use]
    pub fn facts(&self) -> &RootFacts {
        &self.facts
    }

    /// Has a scan see what other clients of a network file system have changed until now, and not what the kernel
    /// remembers.
    pub fn ask_server(&mut self) {
        self.dir.ask_server();
    }

    /// Whether there is nothing in the root directory. Costs two operations, which no scan needs that knows
    /// what is there.
    ///
    /// # Errors
    ///
    /// [`ScanError::Root`] if it may be entered, but not listed, which some servers say only then.
    pub fn is_empty(
        &self,
        settings: &RootSettings,
        progress: &Progress,
    ) -> Result<bool, ScanError> {
        let mut operations = Operations::default();
        let is_empty = self
            .access
            .open_below(&self.dir, b"", &mut operations)
            .and_then(|dir| dir.is_empty(&mut operations));
        progress.add(&Counts {
            operations: operations.calls,
            ..Counts::default()
        });
        is_empty.map_err(|error| ScanError::Root {
            path: settings.path.clone(),
            error,
        })
    }

    /// How hard a scan of this root leans on its file system, and on the processors: what memory answers
    /// costs them alone, and less of them with one thread than with several.
    #[must_use]
    pub fn pace(&self, settings: &RootSettings) -> Pace {
        let (start, max, rate) = match self.facts.file_system.nature {
            Nature::Network => (WIDTH_NETWORK, WIDTH_NETWORK, Some(RATE_NETWORK)),
            // Nobody waits for it.
            Nature::Local if settings.background => (1, WIDTH_MAX, None),
            Nature::Local => (processors().min(WIDTH_START), WIDTH_MAX, None),
            Nature::User => (WIDTH_START, WIDTH_MAX, None),
        };
        let max = settings.width.unwrap_or(max);
        let rate = settings.operations_per_second.or(rate);
        Pace::new(start, max, rate)
    }

    /// Scans the root: every directory in which something changed goes to `sink`, from several
    /// threads at once. `known` is what the catalogue has; without, everything is new.
    ///
    /// # Errors
    ///
    /// [`ScanError::Known`] if the catalogue fails, [`ScanError::Cancelled`] if it was ended early,
    /// [`ScanError::Internal`] if a worker cannot go on.
    pub fn scan(
        &self,
        settings: &RootSettings,
        options: ScanOptions,
        known: Option<&dyn Known>,
        progress: &Arc<Progress>,
        sink: &(dyn Fn(DirectoryChange) + Sync),
    ) -> Result<(), ScanError> {
        let options = ScanOptions {
            network: self.facts.file_system.nature == Nature::Network,
            window: self.facts.file_system.nature != Nature::Local,
            ..options
        };
        let submounts = Submounts::of(&self.dir, settings, known, options.forget_unmounted);
        let submounts = submounts.map_err(|error| ScanError::known(settings, error))?;
        let shared = Shared {
            settings,
            access: &self.access,
            root: &self.dir,
            known,
            submounts: &submounts,
            pace: &self.pace(settings),
            progress,
            options: &options,
            probe: options.probe(settings),
            sink,
            descriptors: Descriptors::default(),
        };
        if settings.follow_symlinks {
            links::scan(&shared)?;
        } else {
            Walk::new(shared).run()?;
        }
        if progress.is_cancelled() {
            let path = settings.path.clone();
            return Err(ScanError::Cancelled { path });
        }
        Ok(())
    }
}

/// What is said where a thread cannot be started.
pub(crate) fn no_thread(error: &io::Error) -> String {
    format!("cannot start a thread: {error}: raise TasksMax= of the service, or `ulimit -u`")
}

/// Waits until threads have ended, but no longer than `patience`: an operation on a hung file system does not come
/// back.
pub(crate) fn wait_for_end(threads: Vec<JoinHandle<()>>, patience: Duration) {
    let end = Instant::now() + patience;
    for thread in threads {
        while !thread.is_finished() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// How many threads can run at once.
fn processors() -> u32 {
    std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1))
}

/// Opens one file by its path, confined as in a scan: for looking at a single image. Links in
/// `path` are the caller's and are followed.
///
/// # Errors
///
/// What the operating system says.
pub fn open_file(path: &Path) -> io::Result<OpenFile> {
    Access::new(true).open_path(path, Reading::default(), &mut Operations::default())
}

/// Opens a directory by its path for [`sifter_image::probe_directory`], and hands it to `probe`.
///
/// # Errors
///
/// What the operating system or `probe` says.
pub fn with_directory<T>(
    path: &Path,
    probe: impl FnOnce(&sandbox::SandboxTree<'_>, crate::catalog::FileFacts) -> io::Result<T>,
) -> io::Result<T> {
    let access = Access::new(false);
    let mut operations = Operations::default();
    let dir = access.open_root(path, &mut operations)?;
    let (_, mut facts) = dir.identity(&mut operations)?;
    facts.size = 0;
    probe(&sandbox::SandboxTree::new(&access, &dir), facts)
}
