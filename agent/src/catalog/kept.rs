//! One image as a snapshot keeps it: small, since a snapshot holds all of them. What many images have
//! in common is kept once, and the texts of an image are one piece of memory.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use sifter_image::record::{Encryption, Format, ImageId, ReferenceSource, Status, TimeSource};
use sifter_proto::v1;
use uuid::Uuid;

use super::facts::{FileFacts, FileTime, Identity};
use super::order::OrderKey;
use super::row::Row;

/// A [`Row`] that stays.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptRow {
    id: i64,
    common: Arc<Common>,
    /// Path, repository, tag, base and status message, one after the other.
    texts: Box<[u8]>,
    /// Where each of the first four ends.
    ends: [u32; 4],
    inode: u64,
    size: u64,
    allocated: u64,
    accessed: FileTime,
    modified: FileTime,
    changed: FileTime,
    update_time: FileTime,
    /// [`NO_TIME`] if there is none: an option would be twice as large.
    create_time: FileTime,
    image_id: Option<ImageId>,
    uuid: Option<Uuid>,
    rare: Option<Box<Rare>>,
}

/// No time of an image is as early.
const NO_TIME: FileTime = FileTime(i64::MIN);

/// What many images have in common.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Common {
    root: Arc<str>,
    format_version: Box<str>,
    arch: Box<str>,
    file_system: Box<str>,
    compressor: Box<str>,
    sbom: Box<str>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    format: Format,
    status: Status,
    reference_source: ReferenceSource,
    update_time_source: TimeSource,
    encryption: Encryption,
    uid: u32,
    gid: u32,
    mode: u32,
    links: u32,
}

/// What few images have.
#[derive(Debug, Clone, PartialEq, Default)]
struct Rare {
    signatures: Box<[v1::Signature]>,
    content_digest: Option<[u8; 32]>,
}

impl KeptRow {
    /// Keeps a row.
    #[must_use]
    pub fn new(row: &Row<'_>, commons: &mut Commons) -> Self {
        Self::with(row, commons.of(row))
    }

    /// Keeps a row of which is known what it has in common with others.
    pub(super) fn with(row: &Row<'_>, common: Arc<Common>) -> Self {
        let parts = [
            row.path,
            row.repository.as_bytes(),
            row.tag.as_bytes(),
            row.base.as_bytes(),
            row.status_message.as_bytes(),
        ];
        let mut texts = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
        let mut ends = [0; 4];
        for (index, part) in parts.into_iter().enumerate() {
            texts.extend_from_slice(part);
            if let Some(end) = ends.get_mut(index) {
                // A path and what is read of an image are far shorter than 4 GiB.
                *end = u32::try_from(texts.len()).unwrap_or(u32::MAX);
            }
        }
        let mut kept = Self {
            id: row.id,
            common,
            texts: texts.into(),
            ends,
            inode: row.facts.inode,
            size: row.facts.size,
            allocated: row.facts.allocated,
            accessed: row.facts.accessed,
            modified: row.facts.modified,
            changed: row.facts.changed,
            update_time: row.update_time,
            create_time: row.create_time.unwrap_or(NO_TIME),
            image_id: row.image_id,
            uuid: row.uuid,
            rare: None,
        };
        if !row.signatures.is_empty() {
            kept.rare_mut().signatures = row.signatures.as_ref().into();
        }
        kept.set_content_digest(row.content_digest);
        kept
    }

    /// Its owner and its group.
    #[must_use]
    pub fn owners(&self) -> (u32, u32) {
        (self.common.kind.uid, self.common.kind.gid)
    }

    /// All of it.
    #[must_use]
    pub fn view(&self) -> Row<'_> {
        let Common { root, kind, .. } = &*self.common;
        // What was taken from texts is one, behind the path.
        let behind = self.end(0);
        let texts = std::str::from_utf8(self.texts.get(behind..).unwrap_or_default());
        let texts = texts.unwrap_or_default();
        let text = |index: usize| {
            let range = self.end(index - 1) - behind..self.end(index) - behind;
            texts.get(range).unwrap_or_default()
        };
        Row {
            id: self.id,
            path: self.part(0),
            root,
            facts: self.facts(),
            image_id: self.image_id,
            uuid: self.uuid,
            format: kind.format,
            status: kind.status,
            reference_source: kind.reference_source,
            update_time_source: kind.update_time_source,
            encryption: kind.encryption,
            repository: text(1),
            tag: text(2),
            base: text(3),
            format_version: &self.common.format_version,
            arch: &self.common.arch,
            status_message: text(4),
            update_time: self.update_time,
            create_time: (self.create_time != NO_TIME).then_some(self.create_time),
            file_system: &self.common.file_system,
            compressor: &self.common.compressor,
            sbom: &self.common.sbom,
            signatures: match &self.rare {
                Some(rare) => Cow::Borrowed(&rare.signatures),
                None => Cow::default(),
            },
            content_digest: self.content_digest(),
        }
    }

    /// Where a part of the texts ends.
    fn end(&self, index: usize) -> usize {
        self.ends
            .get(index)
            .map_or(self.texts.len(), |end| *end as usize)
    }

    fn part(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.end(before));
        self.texts.get(start..self.end(index)).unwrap_or_default()
    }

    /// What it has in common with others, which have the same piece of memory.
    pub(super) fn common(&self) -> &Arc<Common> {
        &self.common
    }

    /// Number in the catalogue.
    #[must_use]
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Numbers a row that is new.
    pub fn set_id(&mut self, id: i64) {
        self.id = id;
    }

    /// Absolute path.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        self.part(0)
    }

    /// Path of the root.
    #[must_use]
    pub fn root(&self) -> &Arc<str> {
        &self.common.root
    }

    /// Inode number.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Facts of the file.
    #[must_use]
    pub fn facts(&self) -> FileFacts {
        let kind = &self.common.kind;
        FileFacts {
            inode: self.inode,
            size: self.size,
            allocated: self.allocated,
            uid: kind.uid,
            gid: kind.gid,
            mode: kind.mode,
            links: kind.links,
            accessed: self.accessed,
            modified: self.modified,
            changed: self.changed,
            born: None,
        }
    }

    /// Image format.
    #[must_use]
    pub fn format(&self) -> Format {
        self.common.kind.format
    }

    /// Status.
    #[must_use]
    pub fn status(&self) -> Status {
        self.common.kind.status
    }

    /// What tells whether the file changed.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity {
            inode: self.inode,
            size: self.size,
            modified: self.modified,
            changed: self.changed,
        }
    }

    /// SHA-256 of the whole file, once it was computed.
    #[must_use]
    pub fn content_digest(&self) -> Option<[u8; 32]> {
        self.rare.as_ref()?.content_digest
    }

    /// Notes the digest of the whole file.
    pub fn set_content_digest(&mut self, digest: Option<[u8; 32]>) {
        if digest != self.content_digest() {
            self.rare_mut().content_digest = digest;
        }
    }

    fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// The order of the listing: repository, tag, path. Bytes are in the order of the texts.
    pub(super) fn key(&self) -> OrderKey<'_> {
        (self.part(1), self.part(2), self.part(0))
    }
}

/// Keeps one copy of what rows have in common.
#[derive(Debug, Default)]
pub struct Commons {
    roots: Vec<Arc<str>>,
    /// By its hash, which strangers cannot foresee. Should two be the same, the second is kept by its
    /// own rows only.
    known: HashMap<u64, Arc<Common>>,
    hasher: RandomState,
    /// What was asked for last: the next image has mostly the same.
    last: Option<Arc<Common>>,
    /// What no row needs any more is forgotten when there are so many.
    forget_at: usize,
}

/// The least number at which [`Commons`] forgets.
const FORGET_AT_MIN: usize = 1024;

impl Commons {
    pub(super) fn of(&mut self, row: &Row<'_>) -> Arc<Common> {
        let kind = Kind {
            format: row.format,
            status: row.status,
            reference_source: row.reference_source,
            update_time_source: row.update_time_source,
            encryption: row.encryption,
            uid: row.facts.uid,
            gid: row.facts.gid,
            mode: row.facts.mode,
            links: row.facts.links,
        };
        let texts = [
            row.root,
            row.format_version,
            row.arch,
            row.file_system,
            row.compressor,
            row.sbom,
        ];
        if let Some(last) = &self.last
            && last.is(kind, texts)
        {
            return Arc::clone(last);
        }
        let hash = self.hasher.hash_one((texts, kind));
        if let Some(known) = self.known.get(&hash)
            && known.is(kind, texts)
        {
            self.last = Some(Arc::clone(known));
            return Arc::clone(known);
        }
        let new = Arc::new(Common {
            root: self.root(row.root),
            format_version: row.format_version.into(),
            arch: row.arch.into(),
            file_system: row.file_system.into(),
            compressor: row.compressor.into(),
            sbom: row.sbom.into(),
            kind,
        });
        if self.known.len() >= self.forget_at.max(FORGET_AT_MIN) {
            self.known.retain(|_, common| Arc::strong_count(common) > 1);
            self.forget_at = 2 * self.known.len();
            self.roots.retain(|root| Arc::strong_count(root) > 1);
        }
        self.known.entry(hash).or_insert(Arc::clone(&new));
        self.last = Some(Arc::clone(&new));
        new
    }

    fn root(&mut self, root: &str) -> Arc<str> {
        if let Some(known) = self.roots.iter().find(|known| ***known == *root) {
            return Arc::clone(known);
        }
        let new: Arc<str> = root.into();
        self.roots.push(Arc::clone(&new));
        new
    }
}

impl Common {
    fn is(&self, kind: Kind, texts: [&str; 6]) -> bool {
        let own = [
            &*self.root,
            &self.format_version,
            &self.arch,
            &self.file_system,
            &self.compressor,
            &self.sbom,
        ];
        self.kind == kind && own == texts
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Commons, FORGET_AT_MIN, KeptRow};
    use crate::catalog::FileTime;
    use crate::catalog::testing::{full_row, row};

    #[test]
    fn what_is_kept_is_what_was_given() {
        let mut commons = Commons::default();
        let mut rows = vec![full_row(), row(7, "/r/\u{e4}.sif", "\u{e4}", "1")];
        rows.push(super::Row {
            arch: "arm64",
            ..row(9, "/r/a", "a", "1")
        });
        rows.push(super::Row {
            path: b"/r/\xff\xfe",
            create_time: Some(FileTime(i64::MIN + 1)),
            ..row(8, "", "", "")
        });
        for row in rows {
            let kept = KeptRow::new(&row, &mut commons);
            assert_eq!(kept.view(), row);
            assert_eq!(kept.path(), row.path);
            assert_eq!(kept.content_digest(), row.content_digest);
        }
    }

    #[test]
    fn rows_share_what_they_have_in_common_and_what_nobody_needs_is_forgotten() {
        let mut commons = Commons::default();
        let mut keep = |mode| {
            let mut row = row(1, "/r/a", "a", "1");
            row.facts.mode = mode;
            KeptRow::new(&row, &mut commons)
        };
        let (first, second) = (keep(0o644), keep(0o644));
        assert!(Arc::ptr_eq(&first.common, &second.common));
        let other = keep(0o600);
        assert!(!Arc::ptr_eq(&first.common, &other.common));
        assert!(Arc::ptr_eq(first.root(), other.root()));
        for mode in 0..8 * FORGET_AT_MIN {
            drop(keep(u32::try_from(mode).unwrap()));
        }
        assert!(Arc::ptr_eq(&first.common, &keep(0o644).common));
        assert!(commons.known.len() <= FORGET_AT_MIN);
    }
}
