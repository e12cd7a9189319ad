//! Settings of one root: which files are looked at, and how politely.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use globset::{Glob, GlobSet, GlobSetBuilder};
use sifter_image::reference::NamingRule;

use super::raw::OneOrMany;
use super::{ConfigProblems, RawRoot, duration};

/// Directory names that are never entered unless configured otherwise: snapshots of the file
/// system itself (each holds all files again), version control, and trees of many small files that
/// hold no images.
const SKIPPED_DIRECTORIES: [&str; 8] = [
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
const DEPTH_MAX: u32 = 128;

/// Bytes a second that are read for digests unless configured otherwise: a terabyte takes half a
/// day, and nobody notices.
const DIGEST_BYTES_PER_SECOND: u64 = 20_000_000;

/// Shortest and longest time between two scans: less would be no rest, and more is more than clocks are
/// reckoned with.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
const INTERVAL_MAX: Duration = Duration::from_secs(100 * 31_536_000);

/// Fewest and most operations a second: fewer are a scan without an end, and time that cannot be reckoned with.
const RATE_MIN: f64 = 0.001;
const RATE_MAX: f64 = 1e9;

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
    /// Time between two scans that users may have who do not see everything; those that are due anyway do not
    /// count. Zero: whenever they ask.
    pub rescan_interval: Duration,
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
            rescan_interval: Duration::from_secs(60),
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

    /// Validates; nothing without a path.
    pub(super) fn validate(mut raw: RawRoot, problems: &mut ConfigProblems) -> Option<Self> {
        let Some(path) = raw.path.take() else {
            problems.add_absent("root.path", "missing");
            return None;
        };
        let mut add = |name, message: &str| {
            problems.add_of(Some(path.clone()), name, message);
        };
        if !path.is_absolute() {
            add("path", "must be absolute");
        }
        if has_parents(&path) {
            add("path", "must do without `..`");
        }
        // Without a slash at the end, say: it is the beginning of the paths of all images in it.
        let mut root = Self::new(path.components().collect());
        root.take_durations(&raw, &mut add);
        if raw.width == Some(0) {
            add("width", "must be at least 1");
        }
        root.width = raw.width;
        if raw
            .operations_per_second
            .is_some_and(|rate| rate != 0.0 && !(RATE_MIN..=RATE_MAX).contains(&rate))
        {
            add(
                "operations_per_second",
                "must be 0 (no limit), or at least 0.001 and at most 1000000000",
            );
        }
        root.operations_per_second = raw.operations_per_second;
        root.background = raw.background.unwrap_or(root.background);
        root.max_depth = raw.max_depth.unwrap_or(root.max_depth);
        match candidates(raw.candidates) {
            Ok(candidates) => root.candidates = candidates,
            Err(message) => add("candidates", &message),
        }
        match globs(&raw.exclude.unwrap_or_default()) {
            Ok(exclude) => root.exclude = exclude,
            Err(message) => add("exclude", &message),
        }
        if let Some(names) = raw.skip {
            for name in &names {
                if name.is_empty() || name.contains('/') {
                    add(
                        "skip",
                        &format!(
                            "`{name}` is not the name of a directory; paths below the root are for `exclude`"
                        ),
                    );
                }
            }
            root.skip = names.into_iter().map(String::into_bytes).collect();
        }
        root.cross_file_systems = raw.cross_file_systems.unwrap_or(root.cross_file_systems);
        root.follow_symlinks = raw.follow_symlinks.unwrap_or(root.follow_symlinks);
        for text in raw.naming.unwrap_or_default() {
            match NamingRule::new(&text) {
                Ok(rule) => root.naming.push(rule),
                Err(message) => add("naming", &message),
            }
        }
        root.inside_file_systems = raw.inside_file_systems.unwrap_or(root.inside_file_systems);
        root.hints = raw.hints.unwrap_or(root.hints);
        root.content_digest = raw.content_digest.unwrap_or(root.content_digest);
        root.digest_bytes_per_second = raw
            .digest_bytes_per_second
            .unwrap_or(root.digest_bytes_per_second);
        Some(root)
    }

    fn take_durations(&mut self, raw: &RawRoot, add: &mut dyn FnMut(&'static str, &str)) {
        for (name, text, span) in [
            ("interval", &raw.interval, &mut self.interval),
            ("file_interval", &raw.file_interval, &mut self.file_interval),
            (
                "rescan_interval",
                &raw.rescan_interval,
                &mut self.rescan_interval,
            ),
            ("transfer_age", &raw.transfer_age, &mut self.transfer_age),
        ] {
            let Some(text) = text else { continue };
            match duration(text) {
                Some(given) => *span = given,
                None => add(
                    name,
                    &format!("`{text}` is no duration, as in 30s, 5m, 12h, 2d, 2w, 1y"),
                ),
            }
        }
        if !(INTERVAL_MIN..=INTERVAL_MAX).contains(&self.interval) {
            add("interval", "must be from 1s to 100y");
        }
        if self.file_interval > INTERVAL_MAX {
            add("file_interval", "must be at most 100y");
        }
        if self.rescan_interval > INTERVAL_MAX {
            add("rescan_interval", "must be at most 100y");
        }
        self.file_interval = self.file_interval.max(self.interval);
    }
}

fn has_parents(path: &Path) -> bool {
    path.components().any(|part| part == Component::ParentDir)
}

/// An image is listed once: a root within another one would list its images twice. Whether links or mounts
/// lead into another one is seen when the roots are scanned.
pub(super) fn check_overlap(
    roots: &[RootSettings],
    new: &RootSettings,
    problems: &mut ConfigProblems,
) {
    // Of a path that is wrong it is not known where it is to lead.
    let is_known = |root: &&RootSettings| root.path.is_absolute() && !has_parents(&root.path);
    if !is_known(&new) {
        return;
    }
    for root in roots.iter().filter(is_known) {
        let how = if new.path == root.path {
            "is the same as that of another root".to_owned()
        } else if new.path.starts_with(&root.path) {
            format!("lies within the root {}", crate::escape::path(&root.path))
        } else if root.path.starts_with(&new.path) {
            format!("has the root {} in it", crate::escape::path(&root.path))
        } else {
            continue;
        };
        let message = format!(
            "{how}: images would be listed twice; keep one of them (cross_file_systems = true has the \
             outer one list what is mounted in it, too)"
        );
        problems.add_of(Some(new.path.clone()), "path", message);
    }
}

fn candidates(raw: Option<OneOrMany>) -> Result<Candidates, String> {
    let texts = match raw {
        None => return Ok(Candidates::Auto),
        Some(OneOrMany::One(text)) if text == "auto" => return Ok(Candidates::Auto),
        Some(OneOrMany::One(text)) if text == "all" => return Ok(Candidates::All),
        Some(OneOrMany::One(text)) => vec![text],
        Some(OneOrMany::Many(texts)) => texts,
    };
    if texts.is_empty() {
        let message = "no glob: no file would be looked into; leave it out for \"auto\"";
        return Err(message.to_owned());
    }
    globs(&texts).map(Candidates::Globs)
}

fn globs(texts: &[String]) -> Result<GlobSet, String> {
    let mut set = GlobSetBuilder::new();
    for text in texts {
        set.add(Glob::new(text).map_err(|error| error.to_string())?);
    }
    set.build().map_err(|error| error.to_string())
}
