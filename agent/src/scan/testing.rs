//! What the workers of one scan share, for tests of a part of it.

use std::path::Path;

use super::ScanOptions;
use super::dir::{Access, Dir};
use super::operations::Operations;
use super::pace::Pace;
use super::progress::Progress;
use super::submounts::Submounts;
use super::work::{Descriptors, Shared};
use crate::catalog::DirectoryChange;
use crate::config::RootSettings;

/// A root of which nothing is known, and how it is scanned.
pub(super) struct TestRoot {
    pub settings: RootSettings,
    pub pace: Pace,
    pub progress: Progress,
    pub options: ScanOptions,
    pub dir: Dir,
    access: Access,
    submounts: Submounts<'static>,
}

impl TestRoot {
    /// One after the other, and as fast as it goes.
    pub fn over(directory: &Path) -> Self {
        let access = Access::new(false);
        let dir = access.open_root(directory, &mut Operations::default());
        Self {
            settings: RootSettings::new(directory.into()),
            pace: Pace::new(1, 1, None),
            progress: Progress::default(),
            options: ScanOptions::default(),
            dir: dir.unwrap(),
            access,
            submounts: Submounts::default(),
        }
    }

    /// What is found goes to `sink`.
    pub fn shared<'s>(&'s self, sink: &'s (dyn Fn(DirectoryChange) + Sync)) -> Shared<'s> {
        Shared {
            settings: &self.settings,
            access: &self.access,
            root: &self.dir,
            known: None,
            submounts: &self.submounts,
            pace: &self.pace,
            progress: &self.progress,
            options: &self.options,
            probe: self.options.probe(&self.settings),
            sink,
            descriptors: Descriptors::default(),
        }
    }
}
