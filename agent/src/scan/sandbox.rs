//! A sandbox directory, as the image crate reads it.

use std::io;
use std::mem::MaybeUninit;

use nix::errno::Errno;

use crate::catalog::{FileFacts, FileTime};

use super::dir::{Access, Dir, c_name};
use super::file::Reading;
use super::operations::Operations;

/// Where a sandbox says what it is, or the directory of that: what tells whether it says something else now, as the
/// directory itself tells only of names in it.
pub const TELLING: [&std::ffi::CStr; 2] = [c".singularity.d/labels.json", c".singularity.d"];

/// A sandbox directory as a tree for the image crate: everything below is opened by one name after
/// the other, so that a link inside leads nowhere.
pub struct SandboxTree<'a> {
    access: &'a Access,
    dir: &'a Dir,
    operations: std::cell::RefCell<Operations>,
}

impl<'a> SandboxTree<'a> {
    /// The tree below `dir`.
    #[must_use]
    pub fn new(access: &'a Access, dir: &'a Dir) -> Self {
        Self {
            access,
            dir,
            operations: std::cell::RefCell::default(),
        }
    }

    /// What reading cost so far.
    #[must_use]
    pub fn operations(&self) -> Operations {
        *self.operations.borrow()
    }

    /// When the directory, or what it says of itself, was changed last.
    #[must_use]
    pub fn changed(&self, facts: &FileFacts) -> FileTime {
        let mut operations = self.operations.borrow_mut();
        let told = TELLING
            .iter()
            .find_map(|name| self.dir.stat(name, &mut operations).ok());
        told.map_or(facts.changed, |(_, told)| facts.changed.max(told.changed))
    }

    fn parent_of<'p>(&self, path: &'p str) -> io::Result<Option<(Dir, &'p str)>> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let opened = self.access.open_below(
            self.dir,
            directory.as_bytes(),
            &mut self.operations.borrow_mut(),
        );
        Ok(absent_is_none(opened)?.map(|dir| (dir, name)))
    }
}

impl sifter_image::ReadTree for SandboxTree<'_> {
    fn read(&self, path: &str, limit: usize) -> io::Result<Option<Vec<u8>>> {
        let Some((dir, name)) = self.parent_of(path)? else {
            return Ok(None);
        };
        let opened = self.access.open_file(
            &dir,
            &c_name(name.as_bytes())?,
            Reading::default(),
            &mut self.operations.borrow_mut(),
        );
        let Some(file) = absent_is_none(opened)? else {
            return Ok(None);
        };
        let size = usize::try_from(file.facts.size).unwrap_or(usize::MAX);
        let mut content = vec![0; size.min(limit)];
        let count = file.read_up_to(&mut content, 0)?;
        content.truncate(count);
        let read = file.operations();
        let mut operations = self.operations.borrow_mut();
        operations.calls += read.calls;
        operations.bytes += read.bytes;
        Ok(Some(content))
    }

    fn list(&self, path: &str, limit: usize) -> io::Result<Option<Vec<String>>> {
        let mut operations = self.operations.borrow_mut();
        let opened = self
            .access
            .open_below(self.dir, path.as_bytes(), &mut operations);
        let Some(dir) = absent_is_none(opened)? else {
            return Ok(None);
        };
        let mut names = Vec::new();
        let mut buffer = vec![MaybeUninit::uninit(); 8 << 10];
        self.access
            .read_dir(&dir, &mut buffer, &mut operations, |name, _, _| {
                if names.len() < limit {
                    names.push(name.to_string_lossy().into_owned());
                }
            })?;
        Ok(Some(names))
    }
}

/// What is not there, or is not what it would have to be, is none; the rest is an error.
fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::InvalidInput
            ) || error.raw_os_error() == Some(Errno::ELOOP as i32)
                || error.raw_os_error() == Some(Errno::EXDEV as i32) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
