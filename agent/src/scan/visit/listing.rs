//! The names in a directory, without those that are of no interest.

use std::ffi::{CStr, CString};

use crate::catalog::KnownFile;
use crate::config::RootSettings;

use super::super::candidates::{Candidacy, candidacy, is_excluded};

/// A regular file in a directory that is being read.
pub(super) struct Candidate {
    pub name: CString,
    pub inode: u64,
    pub if_large: bool,
    pub known: Option<KnownFile>,
}

/// Names found in a directory.
#[derive(Default)]
pub(super) struct Listing {
    pub directories: Vec<Box<[u8]>>,
    pub candidates: Vec<Candidate>,
    pub unknown: Vec<(CString, u64)>,
    pub files: u64,
    has_singularity_d: bool,
    old_scripts: u32,
}

impl Listing {
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
        if !settings.skip.iter().any(|skip| skip == bytes) && !is_excluded(settings, path, bytes) {
            self.directories.push(bytes.into());
        }
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
