//! A root as the hints see it: what they need to know of it, and how they ask for a scan.

use std::collections::BTreeSet;

use crate::catalog::{RootDirectory, RootIndex};
use crate::scan::FileSystemType;
use crate::scan::candidates::{Candidacy, candidacy};
use crate::scan::hint::{self, HintState};

use super::{Request, Supervised};

impl hint::Hinted for Supervised {
    fn path(&self) -> &std::path::Path {
        &self.settings.path
    }

    fn index(&self) -> RootIndex {
        self.index
    }

    fn follows_links(&self) -> bool {
        self.settings.follow_symlinks
    }

    fn matters(&self, directory: &[u8], name: &[u8]) -> bool {
        candidacy(&self.settings, directory, name) != Candidacy::No
    }

    fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    fn finished(&self) -> u64 {
        *self.finished.borrow()
    }

    fn nature(&self) -> Option<FileSystemType> {
        self.lock().facts.as_ref().map(|facts| facts.file_system)
    }

    fn directory(&self) -> Option<RootDirectory> {
        self.lock().facts.as_ref().map(|facts| facts.directory)
    }

    fn set_state(&self, hint: HintState) {
        self.lock().hint = hint;
    }

    fn hint(&self, directories: BTreeSet<Box<[u8]>>) {
        self.request(Request {
            hinted: directories,
            ..Request::default()
        });
    }

    fn hint_all(&self) {
        self.request(Request {
            whole: true,
            check_files: true,
            ..Request::default()
        });
    }
}
