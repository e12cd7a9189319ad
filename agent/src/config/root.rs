//! Settings of one root: which files are looked at, and how politely.

use std::path::PathBuf;
use std::time::Duration;

use globset::GlobSet;
use sifter_image::reference::NamingRule;

/// Directory names that are never entered unless configured otherwise: snapshots of the file
/// system itself (each holds all files again), version control, and trees of many small files that
/// hold no images.
pub const SKIPPED_DIRECTORIES: [&str; 8] = [
    ".snapshot",
    ".snapshots",
    ".zfs",
    ".git",
    ".hg",
    ".svn",
    "node_modules",
    "__pycache__",
];

/// Deepest directory below a root. Real trees are far shallower; a deeper one is a mistake or an
/// attack, and is reported as a problem.
pub const DEPTH_MAX: u32 = 128;

/// Bytes a second that are read for digests unless configured otherwise: a terabyte takes half a
/// day, and nobody notices.
pub const DIGEST_BYTES_PER_SECOND: u64 = 20_000_000;

/// Validated settings of one image directory.
#[derive(Debug, Clone)]
pub struct RootSettings {
    /// Absolute path, as configured.
    pub path: PathBuf,
    /// Time between two looks at the directories.
    pub interval: Duration,
    /// Time between two looks at the files, which finds images rewritten in place. At least
    /// `interval`.
    pub file_interval: Duration,
    /// Most operations in flight; `None`: by kind of file system.
    pub width: Option<u32>,
    /// Most operations a second; `None`: by kind of file system; zero: no limit.
    pub operations_per_second: Option<f64>,
    /// Whether scanning threads ask for the lowest CPU priority, which their I/O priority follows. The idle
    /// I/O class is given by the service's unit.
    pub background: bool,
    /// Directories deeper than this below the root are not entered.
    pub max_depth: u32,
    /// Which regular files are looked into.
    pub candidates: Candidates,
    /// Paths below the root, matched whole, that are left out.
    pub exclude: GlobSet,
    /// Names of directories that are not entered.
    pub skip: Vec<Vec<u8>>,
    /// Whether other file systems mounted below the root are entered.
    pub cross_file_systems: bool,
    /// Whether symbolic links are followed.
    pub follow_symlinks: bool,
    /// The site's naming rules.
    pub naming: Vec<NamingRule>,
    /// An incomplete file younger than this is TRANSFER, an older one FAILURE.
    pub transfer_age: Duration,
    /// Whether labels and definitions are looked for inside file systems where the header does not
    /// answer.
    pub inside_file_systems: bool,
    /// Whether inotify is used where the file system is local.
    pub hints: bool,
    /// Whether the SHA-256 of every image is computed in the background.
    pub content_digest: bool,
    /// Bytes a second that are read for that at most; zero: no limit.
    pub digest_bytes_per_second: u64,
}

/// Which regular files are looked into.
#[derive(Debug, Clone)]
pub enum Candidates {
    /// Those that neither their name nor their size rules out.
    Auto,
    /// All of them.
    All,
    /// Those whose path below the root matches.
    Globs(GlobSet),
}

impl RootSettings {
    /// What decides which images are found and what they are called, as text: where it changes, what
    /// is known was found otherwise, and everything must be read again. An upgrade counts, too.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let naming: Vec<&str> = self.naming.iter().map(NamingRule::as_str).collect();
        format!(
            "{} {} {:?} {:?} {:?} {} {} {} {:?}",
            env!("CARGO_PKG_VERSION"),
            self.max_depth,
            self.candidates,
            self.exclude,
            self.skip,
            self.cross_file_systems,
            self.follow_symlinks,
            self.inside_file_systems,
            naming
        )
    }

    /// The defaults for `path`.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        let probe = sifter_image::Options::default();
        Self {
            path,
            interval: Duration::from_secs(300),
            file_interval: Duration::from_secs(3600),
            width: None,
            operations_per_second: None,
            background: true,
            max_depth: DEPTH_MAX,
            candidates: Candidates::Auto,
            exclude: GlobSet::empty(),
            skip: SKIPPED_DIRECTORIES
                .iter()
                .map(|name| name.as_bytes().to_vec())
                .collect(),
            cross_file_systems: false,
            follow_symlinks: false,
            naming: Vec::new(),
            transfer_age: probe.transfer_age,
            inside_file_systems: probe.inside_file_systems,
            hints: true,
            content_digest: false,
            digest_bytes_per_second: DIGEST_BYTES_PER_SECOND,
        }
    }
}
