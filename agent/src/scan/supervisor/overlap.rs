//! Roots that are other roots, too, or lie within them: their images would be listed twice.

use std::sync::Arc;

use crate::catalog::{Catalog, ChangeKind, DirectoryChange};
use crate::scan::{Root, ScanError};

use super::Supervised;

impl Supervised {
    /// Notes where the root is now. Others may have to be scanned for that, also if this one's scan is over at once.
    pub(super) fn note_location(&self, opened: Option<&Root>) {
        self.locations.note(self.index, opened);
        self.watcher.wake();
    }

    /// Nothing is listed of a root whose images another one lists. Configurations that say so by their paths
    /// are refused; links and mounts are looked at whenever the root is scanned as a whole.
    pub(super) fn check_overlap(
        &self,
        catalog: &Arc<Catalog>,
        root: &Root,
    ) -> Result<(), ScanError> {
        let Some(overlap) = self.locations.overlap(self.index) else {
            return Ok(());
        };
        let nothing = DirectoryChange {
            id: None,
            path: Box::default(),
            kind: ChangeKind::Gone,
        };
        let directory = root.facts().directory;
        catalog
            .known(self.index)
            .and_then(|known| {
                catalog.apply(self.index, &known, vec![nothing])?;
                catalog.finish_scan(self.index, &known, directory, false)
            })
            .map_err(|error| self.catalog_failed(&error))?;
        Err(overlap)
    }
}
