//! Whether a root is the directory that it was, or only the place where that was mounted.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::catalog::{Catalog, ChangeKind, Content, Found, KeptRow};
use crate::mounts::{self, FSTAB, MOUNTINFO};
use crate::scan::progress::{Counts, Progress};
use crate::scan::{Root, ScanError, ScanOptions};

use super::{Request, Supervised};

/// So many known images are looked for where a root is another directory than last time, about.
const LOOKED_FOR: usize = 16;

impl Supervised {
    /// A root of which nothing is known may be the place of a file system that is not mounted: it is, if nothing is
    /// in it and fstab(5) has one for that place, unless the scan was asked for as a full one. One that may be
    /// entered but not listed is as good as unreadable.
    pub(super) fn check_place(
        &self,
        root: &Root,
        request: &Request,
        progress: &Arc<Progress>,
    ) -> Result<(), ScanError> {
        let path = &self.settings.path;
        if !root.is_empty(&self.settings, progress)? || request.full {
            return Ok(());
        }
        // Where there is none nothing belongs anywhere.
        let [fstab, mountinfo] =
            [FSTAB, MOUNTINFO].map(|path| std::fs::read(path).unwrap_or_default());
        // The root may be a link to the place, or lie behind one that fstab has.
        let real = root.dir.path().ok();
        let missing = real.and_then(|real| mounts::missing_on_the_way(&fstab, &mountinfo, &real));
        let Some(missing) = missing else {
            return Ok(());
        };
        Err(ScanError::Root {
            path: path.clone(),
            error: io::Error::other(format!(
                "nothing is in it, and what {FSTAB} has for {} is not mounted (if nothing is to be in it: \
                 sifter rescan --full)",
                crate::escape::path(&missing)
            )),
        })
    }

    /// An empty mount point must not empty the catalogue: where the root is another directory than last time,
    /// be it on another device or, under a bind mount that is gone, on the same, it must hold an image, or the
    /// scan must have been asked for as a full one.
    pub(super) fn check_mount(
        &self,
        catalog: &Catalog,
        root: &Root,
        request: &Request,
        progress: &Arc<Progress>,
    ) -> Result<(), ScanError> {
        let Some(last) = catalog.root(self.index).and_then(|stored| stored.directory) else {
            return Ok(());
        };
        if last.is_same(&root.facts().directory) || request.full {
            return Ok(());
        }
        let text = crate::escape::utf8(self.settings.path.as_os_str().as_bytes());
        let snapshot = catalog.snapshot();
        let known: Vec<_> = snapshot
            .rows
            .iter()
            .filter(|row| **row.root() == *text)
            .collect();
        // Network file systems get a new device number with every mount: a look at a few images is less
        // than one for images.
        let remains =
            |row: &&Arc<KeptRow>| std::fs::symlink_metadata(OsStr::from_bytes(row.path())).is_ok();
        let mut some = known.iter().step_by((known.len() / LOOKED_FOR).max(1));
        let had_none = known.is_empty() && !catalog.stores_images(self.index);
        if had_none || some.any(remains) || self.holds_images(root, progress)? {
            return Ok(());
        }
        Err(ScanError::Root {
            path: self.settings.path.clone(),
            error: io::Error::other(
                "not the directory of the last scan, and no image in it: is its file system mounted? \
                 (if it is really empty now: sifter rescan --full)",
            ),
        })
    }

    /// Looks through the root for one image, and keeps nothing.
    fn holds_images(&self, root: &Root, progress: &Arc<Progress>) -> Result<bool, ScanError> {
        let found = AtomicBool::new(false);
        let look = Arc::new(Progress::default());
        let looked = root.scan(
            &self.settings,
            ScanOptions::default(),
            None,
            &look,
            &|change| {
                let is_image = |found: &Found| matches!(found.content, Content::Image(_));
                if let ChangeKind::Read { found: files, .. } | ChangeKind::Part { found: files } =
                    &change.kind
                    && files.iter().any(is_image)
                {
                    found.store(true, Ordering::Relaxed);
                    look.cancel();
                }
                if progress.is_cancelled() {
                    look.cancel();
                }
                progress.add(&Counts::default());
            },
        );
        match looked {
            Err(error) if progress.is_cancelled() => Err(error),
            Ok(()) | Err(ScanError::Cancelled { .. }) => Ok(found.load(Ordering::Relaxed)),
            Err(error) => Err(error),
        }
    }
}
