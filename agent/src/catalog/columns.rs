//! The columns of table `images` and [`Row`], one to one.

use prost::Message as _;
use rusqlite::params;
use sifter_image::record::{Encryption, Format, ImageId, ReferenceSource, Status, TimeSource};
use sifter_proto::v1;
use uuid::Uuid;

use super::entry::{FileFacts, FileTime};
use super::row::Row;

/// Columns in the order in which [`read`] takes them, after `id`.
pub(super) const LISTING: &str = "inode, size, modified, changed, accessed, allocated, uid, gid, \
    mode, links, image_id, uuid, format, format_version, status, status_message, repository, tag, \
    reference_source, base, update_time, update_time_source, create_time, arch, file_system, \
    compressor, sbom, encryption, signatures, content_digest";

/// The statement of [`write`]; `verb` is `INSERT` or `REPLACE`.
pub(super) fn statement(verb: &str) -> String {
    format!(
        "{verb} INTO images (id, root, directory, name, {LISTING})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, \
         ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34)"
    )
}

const FORMATS: [Format; 5] = [
    Format::Sif,
    Format::OciSif,
    Format::Squashfs,
    Format::Ext3,
    Format::Sandbox,
];
const STATUSES: [Status; 3] = [Status::Ready, Status::Transfer, Status::Failure];
const REFERENCE_SOURCES: [ReferenceSource; 6] = [
    ReferenceSource::NamingRule,
    ReferenceSource::OciReference,
    ReferenceSource::Definition,
    ReferenceSource::NamingConvention,
    ReferenceSource::Labels,
    ReferenceSource::FileStem,
];
const TIME_SOURCES: [TimeSource; 3] =
    [TimeSource::Header, TimeSource::OciConfig, TimeSource::Mtime];
const ENCRYPTIONS: [Encryption; 3] = [Encryption::None, Encryption::Luks2, Encryption::Gocryptfs];

/// A value's number in the database: its place in its list, which only ever grows at the end.
fn number<T: PartialEq>(values: &[T], value: &T) -> i64 {
    values.iter().position(|other| other == value).unwrap_or(0) as i64
}

fn value<T: Copy>(values: &[T], number: i64) -> T {
    usize::try_from(number)
        .ok()
        .and_then(|index| values.get(index))
        .copied()
        .unwrap_or(values[0])
}

/// Reads a row of `SELECT …, id, <LISTING>`; `id` is column `first`.
pub(super) fn read<'r>(
    row: &'r rusqlite::Row<'_>,
    first: usize,
    path: &'r [u8],
    root: &'r str,
) -> rusqlite::Result<Row<'r>> {
    let at = |index: usize| first + 1 + index;
    let integer = |index: usize| row.get::<_, i64>(at(index));
    let small = |index: usize| integer(index).map(|value| u32::try_from(value).unwrap_or(u32::MAX));
    let text =
        |index: usize| -> rusqlite::Result<&'r str> { Ok(row.get_ref(at(index))?.as_str()?) };
    let signatures = match row.get_ref(at(28))?.as_blob_or_null()? {
        Some(data) => v1::Image::decode(data).unwrap_or_default().signatures,
        None => Vec::new(),
    };
    Ok(Row {
        id: row.get(first)?,
        path,
        root,
        facts: FileFacts {
            inode: integer(0)?.cast_unsigned(),
            size: integer(1)?.cast_unsigned(),
            modified: FileTime(integer(2)?),
            changed: FileTime(integer(3)?),
            accessed: FileTime(integer(4)?),
            allocated: integer(5)?.cast_unsigned(),
            uid: small(6)?,
            gid: small(7)?,
            mode: small(8)?,
            links: small(9)?,
            born: None,
        },
        image_id: row
            .get_ref(at(10))?
            .as_blob_or_null()?
            .and_then(|id| id.try_into().ok())
            .map(ImageId),
        uuid: row
            .get_ref(at(11))?
            .as_blob_or_null()?
            .and_then(|uuid| Uuid::from_slice(uuid).ok()),
        format: value(&FORMATS, integer(12)?),
        format_version: text(13)?,
        status: value(&STATUSES, integer(14)?),
        status_message: text(15)?,
        repository: text(16)?,
        tag: text(17)?,
        reference_source: value(&REFERENCE_SOURCES, integer(18)?),
        base: text(19)?,
        update_time: FileTime(integer(20)?),
        update_time_source: value(&TIME_SOURCES, integer(21)?),
        create_time: row.get::<_, Option<i64>>(at(22))?.map(FileTime),
        arch: text(23)?,
        file_system: text(24)?,
        compressor: text(25)?,
        sbom: text(26)?,
        encryption: value(&ENCRYPTIONS, integer(27)?),
        signatures: signatures.into(),
        content_digest: row
            .get_ref(at(29))?
            .as_blob_or_null()?
            .and_then(|digest| digest.try_into().ok()),
    })
}

/// Writes a row with a [`statement`].
pub(super) fn write(
    statement: &mut rusqlite::Statement<'_>,
    row: &Row<'_>,
    root: i64,
    directory: i64,
    name: &[u8],
) -> rusqlite::Result<()> {
    let signatures = (!row.signatures.is_empty()).then(|| {
        v1::Image {
            signatures: row.signatures.to_vec(),
            ..v1::Image::default()
        }
        .encode_to_vec()
    });
    statement.execute(params![
        row.id,
        root,
        directory,
        name,
        row.facts.inode.cast_signed(),
        row.facts.size.cast_signed(),
        row.facts.modified.0,
        row.facts.changed.0,
        row.facts.accessed.0,
        row.facts.allocated.cast_signed(),
        row.facts.uid,
        row.facts.gid,
        row.facts.mode,
        row.facts.links,
        row.image_id.map(|id| id.0),
        row.uuid.map(Uuid::into_bytes),
        number(&FORMATS, &row.format),
        row.format_version,
        number(&STATUSES, &row.status),
        row.status_message,
        row.repository,
        row.tag,
        number(&REFERENCE_SOURCES, &row.reference_source),
        row.base,
        row.update_time.0,
        number(&TIME_SOURCES, &row.update_time_source),
        row.create_time.map(|time| time.0),
        row.arch,
        row.file_system,
        row.compressor,
        row.sbom,
        number(&ENCRYPTIONS, &row.encryption),
        signatures,
        row.content_digest,
    ])?;
    Ok(())
}
