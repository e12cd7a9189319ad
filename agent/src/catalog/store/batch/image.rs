//! Images of a batch: those that were read, moved, or are gone.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use prost::Message as _;
use rusqlite::{OptionalExtension, params};
use sifter_image::record::ReferenceSource;
use sifter_image::reference::{Evidence, Resolution, resolve};
use sifter_proto::v1;

use super::{Batch, StoreError};
use crate::catalog::columns;
use crate::catalog::entry::{KnownImage, Prepared};
use crate::catalog::facts::{self, FileFacts, IDENTITY, Identity};
use crate::catalog::kept::KeptRow;
use crate::catalog::packed::Packed;
use crate::catalog::row::{Row, join_path};

impl Batch<'_> {
    /// Stores an image that was read.
    pub(super) fn new_image(
        &mut self,
        prepared: Prepared,
        known_image: Option<i64>,
        directory: i64,
        name: &[u8],
    ) -> Result<i64, StoreError> {
        let Prepared { mut row, details } = prepared;
        if let Some(known) = known_image {
            row.set_content_digest(self.content_digest(known, row.identity())?);
        }
        self.put(row, &details, known_image, directory, name)
    }

    /// The digest of an image that was read again, if its file is the same.
    fn content_digest(
        &self,
        image: i64,
        identity: Identity,
    ) -> Result<Option<[u8; 32]>, StoreError> {
        let digest: Option<Option<[u8; 32]>> = self
            .transaction
            .prepare_cached(&format!(
                "SELECT content_digest FROM images WHERE id = ?1 AND {IDENTITY} = ?2"
            ))?
            .query_row(params![image, facts::of_identity(&identity)], |row| {
                row.get(0)
            })
            .optional()?;
        Ok(digest.flatten())
    }

    /// A known image is now (also) here: a new one with what is known of that one. The old place
    /// reports by itself that it is gone, or stays, as another hard link.
    pub(super) fn moved(
        &mut self,
        known: KnownImage,
        known_image: Option<i64>,
        directory: i64,
        path: &[u8],
        name: &[u8],
        facts: FileFacts,
    ) -> Result<i64, StoreError> {
        let path = join_path(&self.preparation.root_path, path, name);
        let mut row = known.row.view();
        row.path = &path;
        row.root = &self.preparation.root_text;
        row.facts = facts;
        // Where it was only read, it is called what it was.
        let renamed = (known_image != Some(row.id)).then(|| resolution(&row, &known.details));
        if let Some(Some(resolution)) = &renamed {
            row.repository = &resolution.reference.repository;
            row.tag = &resolution.reference.tag;
            row.reference_source = resolution.reference.source;
            row.base = &resolution.base;
        }
        let details = Packed::new(&known.details.encode_to_vec());
        let row = self.preparation.keep(&row);
        self.put(row, &details, known_image, directory, name)
    }

    /// Stores an image, over the one numbered `known_image` or as a new one, and lists it; gives its
    /// number.
    fn put(
        &mut self,
        mut row: KeptRow,
        details: &Packed,
        known_image: Option<i64>,
        directory: i64,
        name: &[u8],
    ) -> Result<i64, StoreError> {
        let mut replace;
        let statement = if let Some(known) = known_image {
            row.set_id(known);
            replace = self
                .transaction
                .prepare_cached(&columns::statement("REPLACE"))?;
            &mut replace
        } else {
            row.set_id(self.numbers.next_image());
            &mut self.insert.image
        };
        let keys = columns::Keys {
            root: self.root,
            directory,
            name,
            common: self.commons.of(self.transaction, &row)?,
        };
        columns::write(statement, &row.view(), keys, details)?;
        let id = row.id();
        self.delta.upserts.push(Arc::new(row));
        Ok(id)
    }

    pub(super) fn remove_image(&mut self, image: i64) -> Result<(), StoreError> {
        self.transaction
            .prepare_cached("DELETE FROM images WHERE id = ?1")?
            .execute([image])?;
        self.delta.removed.push(image);
        Ok(())
    }
}

/// What a moved image is called now, where that depends on its path.
fn resolution(row: &Row<'_>, details: &v1::Image) -> Option<Resolution> {
    if matches!(
        row.reference_source,
        ReferenceSource::OciReference | ReferenceSource::Definition
    ) {
        return None;
    }
    let labels = details.labels.iter().collect();
    Some(resolve(
        &Evidence {
            path: Path::new(OsStr::from_bytes(row.path)),
            // A root with naming rules has its moved images read.
            naming: &[],
            // Would have won before.
            oci_reference: None,
            definition: Some(details.definition.as_str()).filter(|text| !text.is_empty()),
            labels: &labels,
        },
        false,
    ))
}
