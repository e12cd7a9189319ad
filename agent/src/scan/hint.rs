//! inotify as a hint: what it reports asks for a look at the directory, and only that look changes
//! the catalogue.
//!
//! Only on local file systems: of changes by other clients of a network file system inotify knows
//! nothing. Where the kernel's limits do not suffice, the interval alone has to do, and the status
//! says so. A lost event costs no more than the wait for the next scan.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::ops::Bound;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use crate::catalog::{Catalog, RootDirectory, RootIndex};

use super::bell::{Bell, NO_DESCRIPTOR};
use super::dir::{absolute, join};
use super::panics::caught;
use super::{FileSystemType, Nature};

/// Most directories that are watched under one root: each costs the kernel about a kilobyte that
/// cannot be swapped, and the limit of a user is shared with all of the user's processes.
const WATCHES_MAX: usize = 65_536;

/// Events are collected for so long before a look: a file that is copied gives several.
const COLLECT: Duration = Duration::from_millis(200);

/// Entries that come, go or are complete, and permissions.
const EVENTS: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_CLOSE_WRITE)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_ONLYDIR);

/// Whether changes between scans are learned of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HintState {
    /// By the interval alone: hints were not asked for, or are not set up yet.
    #[default]
    Interval,
    /// By the interval alone, although hints were asked for, and why.
    Fallback(String),
    /// inotify.
    Inotify,
}

/// A root as the hints see it.
pub(super) trait Hinted: Send + Sync + 'static {
    /// Its path.
    fn path(&self) -> &Path;
    /// Its number.
    fn index(&self) -> RootIndex;
    /// Whether the directories are reached through links, too.
    fn follows_links(&self) -> bool;
    /// Whether a file is worth a look.
    fn matters(&self, directory: &[u8], name: &[u8]) -> bool;
    /// Whether the agent is ending.
    fn is_stopping(&self) -> bool;
    /// Number of the last finished scan, after which new directories are watched.
    fn finished(&self) -> u64;
    /// Type of the file system, once it is known.
    fn nature(&self) -> Option<FileSystemType>;
    /// The directory that it is now.
    fn directory(&self) -> Option<RootDirectory>;
    /// Notes how changes are learned of.
    fn set_state(&self, state: HintState);
    /// Asks for a look at directories.
    fn hint(&self, directories: BTreeSet<Box<[u8]>>);
    /// Asks for a look at everything.
    fn hint_all(&self);
}

/// Starts the thread that watches a root. `bell` is to be rung when a scan has finished, and when the agent ends:
/// it sleeps otherwise, until something happens.
///
/// # Errors
///
/// It cannot be started.
pub(super) fn start<H: Hinted>(
    root: Arc<H>,
    bell: Arc<Bell>,
    catalog: &Arc<Catalog>,
) -> io::Result<()> {
    let catalog = Arc::clone(catalog);
    std::thread::Builder::new()
        .name("sifter-hint".to_owned())
        .spawn(move || {
            let root = &*root;
            // The first scan that could read the root tells what there is to watch.
            let mut scan = 0;
            let kind = loop {
                if !next_scan(root, &bell, scan) {
                    return;
                }
                scan = root.finished();
                if let Some(kind) = root.nature() {
                    break kind;
                }
            };
            if kind.nature != Nature::Local {
                root.set_state(HintState::Fallback(format!(
                    "{} does not report changes by other clients",
                    kind.name
                )));
                return;
            }
            let mut last = String::new();
            let watch = || {
                caught(|| watch(root, &bell, &catalog))
                    .unwrap_or_else(|message| Err(io::Error::other(message)))
            };
            while let Err(error) = watch() {
                let message = explain(&error, || Bell::new().is_err());
                if message != last {
                    tracing::warn!(root = %crate::escape::path(root.path()), error = message, "no hints");
                    last.clone_from(&message);
                }
                root.set_state(HintState::Fallback(message));
                // Limits are raised, and directories go away: each scan is an occasion.
                if !next_scan(root, &bell, root.finished()) {
                    return;
                }
            }
        })?;
    Ok(())
}

/// Waits for a scan to be finished after the one with this number; false if there will be none.
fn next_scan<H: Hinted>(root: &H, bell: &Bell, number: u64) -> bool {
    loop {
        if root.is_stopping() {
            return false;
        }
        if root.finished() != number {
            return true;
        }
        if bell.wait(None, None).is_err() {
            return false;
        }
    }
}

/// What is to be done about an error of inotify. One of them is told of two limits: which it is shows whether there
/// is a descriptor for anything else.
fn explain(error: &io::Error, no_descriptor_is_left: impl Fn() -> bool) -> String {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOSPC) => {
            "the user's limit of inotify watches is reached (sysctl fs.inotify.max_user_watches)"
                .to_owned()
        }
        Some(Errno::EMFILE) if no_descriptor_is_left() => NO_DESCRIPTOR.to_owned(),
        Some(Errno::EMFILE) => {
            "the user's limit of inotify instances is reached (sysctl fs.inotify.max_user_instances)"
                .to_owned()
        }
        _ => format!("inotify: {error}"),
    }
}

/// What the kernel told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Events {
    /// All that happened.
    Complete,
    /// More happened than it keeps for a reader, or than can be followed.
    Lost,
}

/// The watches of one root.
struct Watches {
    inotify: Inotify,
    paths: HashMap<WatchDescriptor, Box<[u8]>>,
    watched: BTreeMap<Box<[u8]>, WatchDescriptor>,
}

fn watch<H: Hinted>(root: &H, bell: &Bell, catalog: &Catalog) -> io::Result<()> {
    let mut watches = Watches::new()?;
    let mut of = None;
    let mut seen = 0;
    let mut hinted: BTreeSet<Box<[u8]>> = BTreeSet::new();
    let mut since: Option<Instant> = None;
    while !root.is_stopping() {
        let finished = root.finished();
        if finished != seen {
            seen = finished;
            // Watches stay with the directories that were there when they were made.
            let directory = root.directory();
            if of.is_some() && of != directory {
                watches = Watches::new()?;
            }
            of = directory;
            watches.add_new(root, catalog)?;
            root.set_state(HintState::Inotify);
        }
        let left = since.map(|since| COLLECT.saturating_sub(since.elapsed()));
        let has_events = bell.wait(Some(watches.inotify.as_fd()), left)?;
        if has_events && watches.read(root, &mut hinted)? == Events::Lost {
            root.hint_all();
            // Which directories came to the place of others nobody knows: all get new watches, once the scan
            // has ended. More than one time a scan would be as much of a load as what made the events.
            watches = Watches::new()?;
        }
        if hinted.is_empty() {
            since = None;
        } else if since.get_or_insert_with(Instant::now).elapsed() >= COLLECT {
            root.hint(std::mem::take(&mut hinted));
            since = None;
        }
    }
    Ok(())
}

impl Watches {
    /// None yet.
    fn new() -> io::Result<Self> {
        Ok(Self {
            inotify: Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?,
            paths: HashMap::new(),
            watched: BTreeMap::new(),
        })
    }

    /// Watches directories that are known and not watched yet.
    fn add_new<H: Hinted>(&mut self, root: &H, catalog: &Catalog) -> io::Result<()> {
        let directories = catalog
            .directories(root.index(), WATCHES_MAX + 1)
            .map_err(io::Error::other)?;
        if directories.len() > WATCHES_MAX {
            return Err(io::Error::other(format!(
                "more than {WATCHES_MAX} directories: too many to watch"
            )));
        }
        let events = if root.follows_links() {
            EVENTS
        } else {
            EVENTS | AddWatchFlags::IN_DONT_FOLLOW
        };
        let mut missed = BTreeSet::new();
        for directory in directories {
            if self.watched.contains_key(&directory) {
                continue;
            }
            match self
                .inotify
                .add_watch(&absolute(root.path(), &directory), events)
            {
                Ok(descriptor) => {
                    self.paths.insert(descriptor, directory.clone());
                    self.watched.insert(directory.clone(), descriptor);
                    // What came between the scan and the watch was reported to nobody.
                    missed.insert(directory);
                }
                Err(error @ (Errno::ENOSPC | Errno::ENOMEM)) => return Err(error.into()),
                // Gone again, or unreadable: the scan tells.
                Err(_) => {}
            }
        }
        // At the first scan all directories are new to the watch; a look at them costs a `stat`
        // each, once.
        if !missed.is_empty() {
            root.hint(missed);
        }
        Ok(())
    }

    fn read<H: Hinted>(
        &mut self,
        root: &H,
        hinted: &mut BTreeSet<Box<[u8]>>,
    ) -> io::Result<Events> {
        let events = match self.inotify.read_events() {
            Ok(events) => events,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Events::Complete),
            Err(error) => return Err(error.into()),
        };
        for event in events {
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                return Ok(Events::Lost);
            }
            if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                if let Some(path) = self.paths.remove(&event.wd) {
                    self.watched.remove(&path);
                }
                continue;
            }
            let Some(directory) = self.paths.get(&event.wd).cloned() else {
                continue;
            };
            let is_directory = event.mask.contains(AddWatchFlags::IN_ISDIR);
            // A link: the directory that it led to may have other names, all with one watch.
            if let Some(name) = &event.name
                && !is_directory
                && (event.mask).intersects(AddWatchFlags::IN_MOVED_FROM | AddWatchFlags::IN_DELETE)
                && self
                    .watched
                    .contains_key(&*join(&directory, name.as_bytes()))
            {
                return Ok(Events::Lost);
            }
            if let Some(name) = &event.name
                && is_directory
                && event.mask.contains(AddWatchFlags::IN_MOVED_FROM)
            {
                self.moved_away(&join(&directory, name.as_bytes()));
            }
            let matters = match &event.name {
                Some(name) if !is_directory => root.matters(&directory, name.as_bytes()),
                _ => true,
            };
            if matters {
                hinted.insert(directory);
            }
        }
        Ok(Events::Complete)
    }

    /// A directory has another name now, or is gone from the root. Its watches follow it; whatever comes to
    /// its old name needs watches of its own, and so does it when a scan has seen where it is.
    fn moved_away(&mut self, path: &[u8]) {
        // All below follow each other in the order of names: to look through the others for each of thousands that
        // are moved would take minutes.
        let below = [path, b"/"].concat();
        let from = (Bound::Included(&*below), Bound::Unbounded);
        let all = self.watched.range::<[u8], _>(from);
        let all = all.take_while(|(other, _)| other.starts_with(&below));
        let away: Vec<_> = (self.watched.get_key_value(path).into_iter())
            .chain(all)
            .map(|(other, descriptor)| (other.clone(), *descriptor))
            .collect();
        for (other, descriptor) in away {
            self.watched.remove(&other);
            // A directory with several names has the watch of the last one.
            if self.paths.get(&descriptor) == Some(&other) {
                self.paths.remove(&descriptor);
                // One that is gone by itself meanwhile is no error.
                let _ = self.inotify.rm_watch(descriptor);
            }
        }
    }
}
