//! What is known of directories and files for deciding who may see them: by `lstat` and extended
//! attributes, component by component, remembered for a short time. Nothing is opened.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::permission::{Acl, Facts, READ, SEARCH, Subject};
use crate::catalog::{FileTime, KeptRow};
use crate::lock::lock;

/// How long a directory's mode is taken as it was seen.
const REMEMBERED: Duration = Duration::from_secs(30);

/// Directories that are remembered.
const NODES_MAX: usize = 1 << 18;

/// Symbolic links on one way, as in the kernel.
const LINKS_MAX: u32 = 40;

/// Longest value of an attribute, as in the kernel.
const ATTRIBUTE_MAX: usize = 1 << 16;

/// One entry of the file system.
#[derive(Debug)]
struct Node {
    identity: (u64, u64),
    facts: Facts,
    changed: FileTime,
    acl: Acl,
    kind: Kind,
    seen: Instant,
}

#[derive(Debug)]
enum Kind {
    Directory,
    Link(Box<[u8]>),
    Other,
}

/// A file as it was when its image's facts were new.
#[derive(Debug, Clone)]
struct Checked {
    /// The row's change time.
    row: FileTime,
    /// The directory that it was found in.
    parent: (u64, u64),
    facts: Facts,
    acl: Acl,
}

/// What is remembered, for all who ask.
#[derive(Debug, Default)]
pub struct Places {
    nodes: Mutex<HashMap<Box<[u8]>, Arc<Node>>>,
    files: Mutex<HashMap<i64, Arc<Checked>>>,
}

/// A directory that the subject may enter, after all links.
#[derive(Debug, Clone)]
struct Entered {
    path: Box<[u8]>,
    identity: (u64, u64),
}

/// What decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// What is there.
    Now,
    /// What is there and, where that cannot be seen, what is remembered: a directory on the way is closed to
    /// this process.
    NowOrRemembered,
    /// What is remembered, however old: the file system does not answer.
    Remembered,
}

/// Decides for one subject.
#[derive(Debug)]
pub struct Evaluation<'p> {
    places: &'p Places,
    subject: &'p Subject,
    basis: Basis,
    entered: HashMap<Box<[u8]>, Option<Entered>>,
}

impl Places {
    /// Forgets files that are not listed any more, roughly: keeps at most twice what is listed.
    pub fn limit(&self, listed: usize) {
        let mut files = lock(&self.files);
        if files.len() > listed.saturating_mul(2).saturating_add(1000) {
            *files = HashMap::new();
        }
    }

    /// Forgets everything, and gives its memory back.
    pub fn forget(&self) {
        *lock(&self.nodes) = HashMap::new();
        *lock(&self.files) = HashMap::new();
    }

    /// Whether nothing is remembered.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        lock(&self.nodes).is_empty() && lock(&self.files).is_empty()
    }

    fn node(&self, path: &[u8], basis: Basis) -> Option<Arc<Node>> {
        let known = lock(&self.nodes).get(path).map(Arc::clone);
        if basis == Basis::Remembered
            || known
                .as_ref()
                .is_some_and(|node| node.seen.elapsed() < REMEMBERED)
        {
            return known;
        }
        let Some(node) = Node::read(path).map(Arc::new) else {
            return known.filter(|_| basis == Basis::NowOrRemembered);
        };
        let mut nodes = lock(&self.nodes);
        if nodes.len() >= NODES_MAX {
            *nodes = HashMap::new();
        }
        nodes.insert(path.into(), Arc::clone(&node));
        Some(node)
    }
}

impl Node {
    fn read(path: &[u8]) -> Option<Self> {
        let os_path = Path::new(OsStr::from_bytes(path));
        let facts = std::fs::symlink_metadata(os_path).ok()?;
        let kind = if facts.is_dir() {
            Kind::Directory
        } else if facts.is_symlink() {
            let target = std::fs::read_link(os_path).ok()?;
            Kind::Link(target.as_os_str().as_bytes().into())
        } else {
            Kind::Other
        };
        Some(Self {
            identity: (facts.dev(), facts.ino()),
            facts: Facts {
                uid: facts.uid(),
                gid: facts.gid(),
                mode: facts.mode() & 0o7777,
            },
            changed: FileTime::new(
                facts.ctime(),
                u32::try_from(facts.ctime_nsec()).unwrap_or(0),
            ),
            acl: match kind {
                Kind::Link(_) => Acl::None,
                _ => read_acl(os_path),
            },
            kind,
            seen: Instant::now(),
        })
    }
}

fn read_acl(path: &Path) -> Acl {
    match attribute(path, "system.posix_acl_access") {
        Ok(Some(value)) => return Acl::posix(&value),
        Ok(None) => {}
        Err(_) => return Acl::Opaque,
    }
    match attribute(path, "system.nfs4_acl") {
        Ok(Some(value)) => Acl::nfs4(&value),
        Ok(None) => Acl::None,
        Err(_) => Acl::Opaque,
    }
}

/// An attribute's value; `None` if there is none, or the file system has no such attributes.
fn attribute(path: &Path, name: &str) -> Result<Option<Vec<u8>>, Errno> {
    let mut value = vec![0; 1024];
    loop {
        match rustix::fs::lgetxattr(path, name, &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(Errno::RANGE) if value.len() < ATTRIBUTE_MAX => value.resize(ATTRIBUTE_MAX, 0),
            Err(error) => return Err(error),
        }
    }
}

impl<'p> Evaluation<'p> {
    /// For `subject`.
    #[must_use]
    pub fn new(places: &'p Places, subject: &'p Subject, basis: Basis) -> Self {
        Self {
            places,
            subject,
            basis,
            entered: HashMap::new(),
        }
    }

    /// Whether the subject may read the image, could find it from its root on, and it is still the
    /// file that was scanned.
    pub fn sees(&mut self, row: &KeptRow) -> bool {
        self.try_sees(row).unwrap_or(false)
    }

    fn try_sees(&mut self, row: &KeptRow) -> Option<bool> {
        let (directory, name) = split(row.path())?;
        // A root may be an image itself: then the way to it need not be listed, only entered.
        let parent = if row.path().len() <= row.root().len() {
            self.resolve(directory, &mut LINKS_MAX.clone())?
        } else {
            self.enter(directory, row.root().as_bytes())?
        };
        let known = lock(&self.places.files).get(&row.id()).map(Arc::clone);
        let as_known = |known: &Checked| self.subject.may(READ, known.facts, &known.acl);
        if let Some(known) = &known
            && (self.basis == Basis::Remembered
                || known.row == row.identity().changed && known.parent == parent.identity)
        {
            return Some(as_known(known));
        }
        if self.basis == Basis::Remembered {
            return None;
        }
        let path = join(&parent.path, name);
        let Some(mut node) = Node::read(&path) else {
            let known = known.filter(|_| self.basis == Basis::NowOrRemembered);
            return known.map(|known| as_known(&known));
        };
        if let Kind::Link(target) = &node.kind {
            let target = join(&parent.path, target);
            let (directory, name) = split(&target)?;
            let place = self.resolve(directory, &mut LINKS_MAX.clone())?;
            node = Node::read(&join(&place.path, name))?;
        }
        if node.identity.1 != row.inode() {
            return None;
        }
        let checked = Arc::new(Checked {
            row: row.identity().changed,
            parent: parent.identity,
            facts: node.facts,
            acl: node.acl,
        });
        let sees = self.subject.may(READ, checked.facts, &checked.acl);
        // A file that has changed since the scan is looked at again when that is known.
        if node.changed == row.identity().changed {
            lock(&self.places.files).insert(row.id(), checked);
        }
        Some(sees)
    }

    /// The directory `path` at or below `root`: every directory from the root on must be readable,
    /// or its names are not the subject's to know; those above must let through.
    fn enter(&mut self, path: &[u8], root: &[u8]) -> Option<Entered> {
        if let Some(known) = self.entered.get(path) {
            return known.clone();
        }
        let place = self.enter_anew(path, root);
        self.entered.insert(path.into(), place.clone());
        place
    }

    fn enter_anew(&mut self, path: &[u8], root: &[u8]) -> Option<Entered> {
        let place = if path == root || path == b"/" {
            self.resolve(path, &mut LINKS_MAX.clone())?
        } else {
            let (above, name) = split(path)?;
            let above = self.enter(above, root)?;
            self.step(&above, name, &mut LINKS_MAX.clone())?
        };
        let node = self.places.node(&place.path, self.basis)?;
        self.subject
            .may(READ | SEARCH, node.facts, &node.acl)
            .then_some(place)
    }

    /// The directory at an absolute path, after all links; every directory on the way must let
    /// through.
    fn resolve(&self, path: &[u8], links: &mut u32) -> Option<Entered> {
        let root = self.places.node(b"/", self.basis)?;
        let mut place = self.through(Entered {
            path: (*b"/").into(),
            identity: root.identity,
        })?;
        for name in path
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
        {
            place = self.step(&place, name, links)?;
        }
        Some(place)
    }

    /// From a directory to the one called `name` in it.
    fn step(&self, from: &Entered, name: &[u8], links: &mut u32) -> Option<Entered> {
        match name {
            b"." => return Some(from.clone()),
            b".." => {
                return self.resolve(split(&from.path).map_or(b"/", |(above, _)| above), links);
            }
            _ => {}
        }
        let path = join(&from.path, name);
        let node = self.places.node(&path, self.basis)?;
        match &node.kind {
            Kind::Directory => self.through(Entered {
                path,
                identity: node.identity,
            }),
            Kind::Link(target) => {
                *links = links.checked_sub(1)?;
                self.resolve(&join(&from.path, target), links)
            }
            Kind::Other => None,
        }
    }

    fn through(&self, place: Entered) -> Option<Entered> {
        let node = self.places.node(&place.path, self.basis)?;
        self.subject
            .may(SEARCH, node.facts, &node.acl)
            .then_some(place)
    }
}

/// Directory and name; `None` for `/`.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = path.iter().rposition(|byte| *byte == b'/')?;
    let name = path.get(at + 1..).filter(|name| !name.is_empty())?;
    Some((path.get(..at.max(1))?, name))
}

/// `name` within `directory`, or itself if it is absolute.
fn join(directory: &[u8], name: &[u8]) -> Box<[u8]> {
    if name.first() == Some(&b'/') {
        return name.into();
    }
    let mut path = directory.to_vec();
    if path.last() != Some(&b'/') {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path.into()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::path::Path;
    use std::sync::Arc;

    use super::{Basis, Evaluation, Places, REMEMBERED, lock};
    use crate::catalog::testing::row;
    use crate::catalog::{Commons, FileTime, KeptRow};
    use crate::service::visibility::permission::Subject;

    /// As if what is remembered had been seen long ago.
    fn age(places: &Places) {
        for node in lock(&places.nodes).values_mut() {
            let node = Arc::get_mut(node).unwrap();
            node.seen = node.seen.checked_sub(REMEMBERED).unwrap();
        }
    }

    fn close(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Images in a directory that the agent cannot read any more are UNAVAILABLE: they are still its owner's to
    /// show.
    #[test]
    fn a_directory_that_is_closed_hides_what_was_seen_in_it() {
        let temporary = tempfile::tempdir().unwrap();
        close(temporary.path(), 0o755);
        let directory = temporary.path().join("d");
        fs::create_dir(&directory).unwrap();
        close(&directory, 0o755);
        let file = directory.join("a.sif");
        fs::write(&file, "image").unwrap();
        close(&file, 0o644);
        let facts = fs::metadata(&file).unwrap();
        let path = file.to_str().unwrap();
        let mut row = row(1, path, "a", "1");
        row.root = temporary.path().to_str().unwrap();
        row.facts.inode = facts.ino();
        row.facts.changed =
            FileTime::new(facts.ctime(), u32::try_from(facts.ctime_nsec()).unwrap());
        let row = KeptRow::new(&row, &mut Commons::default());
        // Whoever runs this may pass all directories above; the superuser may pass everything.
        let subject = Subject {
            uid: Some(facts.uid().max(1)),
            groups: Arc::default(),
        };
        let places = Places::default();
        let sees = |basis| Evaluation::new(&places, &subject, basis).sees(&row);
        assert!(!sees(Basis::Remembered), "nothing is remembered");
        assert!(sees(Basis::Now));
        for basis in [Basis::Remembered, Basis::NowOrRemembered] {
            assert!(sees(basis), "{basis:?}");
        }
        // What cannot be seen any more is remembered.
        age(&places);
        fs::rename(&directory, temporary.path().join("away")).unwrap();
        assert!(!sees(Basis::Now));
        assert!(sees(Basis::NowOrRemembered));
        fs::rename(temporary.path().join("away"), &directory).unwrap();
        close(&directory, 0o000);
        age(&places);
        assert!(sees(Basis::Remembered));
        assert!(!sees(Basis::NowOrRemembered));
        assert!(!sees(Basis::Now));
        close(&directory, 0o755);
    }
}
