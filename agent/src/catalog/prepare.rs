//! From what a scan reads to what is stored and listed, on the thread that read it: so the thread that
//! stores has less to do, and the many small pieces of an image end where they began.

use std::sync::{Arc, Mutex};

use super::change::{ChangeKind, DirectoryChange};
use super::detail;
use super::entry::{Content, Prepared};
use super::facts::FileFacts;
use super::kept::{Common, Commons, KeptRow};
use super::row::{Row, join_path};
use crate::lock::lock;

/// What of a root its images are made ready with.
#[derive(Debug, Clone)]
pub struct Preparation {
    pub(super) root_path: Box<[u8]>,
    pub(super) root_text: Arc<str>,
    pub(super) commons: Arc<Mutex<Commons>>,
}

impl Preparation {
    /// Makes ready what was found in a directory.
    pub fn change(&self, change: &mut DirectoryChange) {
        let found = match &mut change.kind {
            ChangeKind::Read { found, .. }
            | ChangeKind::Part { found }
            | ChangeKind::Files { found, .. } => found,
            ChangeKind::Gone | ChangeKind::Unreadable { .. } => return,
        };
        for found in found {
            if let Content::Image(_) = found.content
                && let Content::Image(image) = std::mem::replace(&mut found.content, Content::Other)
            {
                let prepared = self.image(&change.path, &found.name, found.facts, &image);
                found.content = Content::Prepared(Box::new(prepared));
            }
        }
    }

    /// Makes one image ready, which is `name` in the directory at `path` below the root.
    pub(super) fn image(
        &self,
        path: &[u8],
        name: &[u8],
        facts: FileFacts,
        image: &sifter_image::Image,
    ) -> Prepared {
        let path = join_path(&self.root_path, path, name);
        Prepared {
            row: self.keep(&Row::new(&path, &self.root_text, facts, image)),
            details: detail::packed_details(image),
        }
    }

    /// Keeps a row.
    pub(super) fn keep(&self, row: &Row<'_>) -> KeptRow {
        KeptRow::with(row, self.common(row))
    }

    /// What a row has in common with others.
    pub(super) fn common(&self, row: &Row<'_>) -> Arc<Common> {
        let mut commons = lock(&self.commons);
        commons.of(row)
    }
}
