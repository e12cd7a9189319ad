//! The names in a directory, without those that are of no interest.

use std::ffi::{CStr, CString};

use crate::catalog::KnownFile;
use crate::config::RootSettings;

use super::super::candidates::{Candidacy, Candidate, candidacy, is_entered};

/// Tells the candidates which of the known files they are; gives the names of those that none is. The
/// files are put in the order of their names.
pub(super) fn recognise(candidates: &mut [Candidate], files: &mut [KnownFile]) -> Vec<Box<[u8]>> {
    // As the catalogue gives them they mostly are.
    files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let mut missing = vec![true; files.len()];
    for candidate in candidates {
        let name = candidate.name.to_bytes();
        if let Ok(at) = files.binary_search_by(|file| (*file.name).cmp(name)) {
            missing[at] = false;
            candidate.known = u32::try_from(at).ok();
        }
    }
    let missing = files.iter().zip(missing).filter(|(_, missing)| *missing);
    missing.map(|(file, _)| file.name.clone()).collect()
}

/// Names found in a directory.
#[derive(Default)]
pub(super) struct Listing {
    /// All of them, of interest or not.
    pub names: u64,
    pub directories: Vec<Box<[u8]>>,
    pub candidates: Vec<Candidate>,
    pub unknown: Vec<(CString, u64)>,
    pub files: u64,
    has_singularity_d: bool,
    old_scripts: u32,
}

impl Listing {
    /// Whether there is nothing at all in the directory.
    pub fn is_empty(&self) -> bool {
        self.names == 0
    }

    /// Whether there are the marks of a sandbox: `.singularity.d`, or the scripts of Singularity 2.2
    /// and earlier.
    pub fn is_sandbox(&self) -> bool {
        self.has_singularity_d || self.old_scripts == 3
    }

    /// Takes a directory.
    pub fn directory(&mut self, name: &CStr, path: &[u8], settings: &RootSettings) {
        let bytes = name.to_bytes();
        if bytes == b".singularity.d" {
            self.has_singularity_d = true;
        }
        if is_entered(settings, path, bytes) {
            self.directories.push(bytes.into());
        }
    }

    /// Makes sure that a directory is entered once: one that is changed while it is read may give a name
    /// twice.
    pub fn name_once(&mut self) {
        self.directories.sort_unstable();
        self.directories.dedup();
    }

    /// Puts the candidates in the order of their names, in which the catalogue keeps them. In that of the directory
    /// each batch of a large one would write to all of its pages.
    pub fn in_order(&mut self) {
        self.candidates
            .sort_unstable_by(|one, other| one.name.cmp(&other.name));
    }

    /// Takes a regular file, if it is worth a look.
    pub fn file(&mut self, name: &CStr, inode: u64, path: &[u8], settings: &RootSettings) {
        self.files += 1;
        let bytes = name.to_bytes();
        if matches!(bytes, b".exec" | b".run" | b".shell") {
            self.old_scripts += 1;
        }
        let if_large = match candidacy(settings, path, bytes) {
            Candidacy::No => return,
            Candidacy::Yes => false,
            Candidacy::IfLarge => true,
        };
        self.candidates.push(Candidate {
            name: name.to_owned(),
            inode,
            if_large,
            known: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{Candidate, Listing, recognise};
    use crate::catalog::{FileTime, Identity, KnownFile};

    #[test]
    fn a_directory_that_is_named_twice_is_entered_once() {
        let mut listing = Listing {
            directories: [b"b", b"a", b"b"].map(|name| name.as_slice().into()).into(),
            ..Listing::default()
        };
        listing.name_once();
        let names = [b"a", b"b"].map(|name| Box::from(name.as_slice()));
        assert_eq!(listing.directories, names);
    }

    #[test]
    fn candidates_are_recognised_by_their_names() {
        let file = |name: &str| KnownFile {
            name: name.as_bytes().into(),
            identity: Identity::default(),
            volatile: false,
            image: None,
            accessed: FileTime(0),
        };
        let candidate = |name: &std::ffi::CStr| Candidate {
            name: name.to_owned(),
            inode: 0,
            if_large: false,
            known: None,
        };
        let mut files = ["c", "", "a", "gone", "b"].map(file);
        let mut candidates = [c"b", c"new", c"c", c"a", c"b"].map(candidate);
        let missing = recognise(&mut candidates, &mut files);
        assert_eq!(missing, [b"".as_slice().into(), Box::from(&b"gone"[..])]);
        let names = candidates.iter().map(|candidate| {
            let known = &files[candidate.known? as usize];
            Some(String::from_utf8_lossy(&known.name).into_owned())
        });
        let expected = [Some("b"), None, Some("c"), Some("a"), Some("b")];
        assert!(names.eq(expected.map(|name| name.map(str::to_owned))));
    }
}
