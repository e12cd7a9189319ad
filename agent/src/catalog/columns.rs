//! The columns of the tables `images` and `commons`, which together are a [`Row`].

use prost::Message as _;
use rusqlite::{Connection, OptionalExtension, params};
use sifter_image::record::{Encryption, Format, ImageId, ReferenceSource, Status, TimeSource};
use sifter_proto::v1;
use uuid::Uuid;

use super::facts::{self, FileFacts, FileTime};
use super::packed::Packed;
use super::row::Row;

/// Columns of `images` in the order in which [`read`] takes them, after `id`.
pub(super) const LISTING: &str = "facts, image_id, uuid, status_message, repository, tag, base, \
    update_time, create_time, signatures, content_digest";

/// How many they are, with `id`.
pub(super) const LISTING_LEN: usize = 12;

/// Columns of `commons` in the order in which [`StoredCommon::read`] takes them.
pub(super) const COMMON: &str = "uid, gid, mode, links, format, format_version, status, \
    reference_source, update_time_source, arch, file_system, compressor, sbom, encryption";

/// The statement of [`write()`]; `verb` is `INSERT` or `REPLACE`.
pub(super) fn statement(verb: &str) -> String {
    format!(
        "{verb} INTO images (id, root, directory, name, common, {LISTING}, details, details_size)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)"
    )
}

/// Values for [`COMMON`].
const COMMON_VALUES: &str = "?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14";

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

/// The value of a column that holds a [`number`]; another one is damage, as is all that no version writes.
fn value<T: Copy>(values: &[T], row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<T> {
    let number = row.get(column)?;
    usize::try_from(number)
        .ok()
        .and_then(|index| values.get(index))
        .copied()
        .ok_or(rusqlite::Error::IntegralValueOutOfRange(column, number))
}

/// The value of a column that holds an encoded one.
fn encoded<T, E: std::error::Error + Send + Sync + 'static>(
    row: &rusqlite::Row<'_>,
    column: usize,
    decode: impl FnOnce(&[u8]) -> Result<T, E>,
) -> rusqlite::Result<Option<T>> {
    let data = row.get_ref(column)?.as_blob_or_null()?;
    data.map(decode).transpose().map_err(|error| {
        let kind = rusqlite::types::Type::Blob;
        rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(error))
    })
}

/// A row of `commons`.
#[derive(Debug)]
pub(super) struct StoredCommon {
    uid: u32,
    gid: u32,
    mode: u32,
    links: u32,
    format: Format,
    format_version: Box<str>,
    status: Status,
    reference_source: ReferenceSource,
    update_time_source: TimeSource,
    arch: Box<str>,
    file_system: Box<str>,
    compressor: Box<str>,
    sbom: Box<str>,
    encryption: Encryption,
}

impl StoredCommon {
    /// Reads a row of `SELECT …, <COMMON>`, which begins at column `first`.
    pub(super) fn read(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Self> {
        let small = |index: usize| row.get::<_, u32>(first + index);
        let text = |index: usize| row.get::<_, Box<str>>(first + index);
        Ok(Self {
            uid: small(0)?,
            gid: small(1)?,
            mode: small(2)?,
            links: small(3)?,
            format: value(&FORMATS, row, first + 4)?,
            format_version: text(5)?,
            status: value(&STATUSES, row, first + 6)?,
            reference_source: value(&REFERENCE_SOURCES, row, first + 7)?,
            update_time_source: value(&TIME_SOURCES, row, first + 8)?,
            arch: text(9)?,
            file_system: text(10)?,
            compressor: text(11)?,
            sbom: text(12)?,
            encryption: value(&ENCRYPTIONS, row, first + 13)?,
        })
    }
}

/// Reads a row of `SELECT …, id, <LISTING>`; `id` is column `first`.
pub(super) fn read<'r>(
    row: &'r rusqlite::Row<'_>,
    first: usize,
    path: &'r [u8],
    root: &'r str,
    common: &'r StoredCommon,
) -> rusqlite::Result<Row<'r>> {
    let at = |index: usize| first + 1 + index;
    let text =
        |index: usize| -> rusqlite::Result<&'r str> { Ok(row.get_ref(at(index))?.as_str()?) };
    let signatures = encoded(row, at(9), |data| v1::Image::decode(data))?;
    Ok(Row {
        id: row.get(first)?,
        path,
        root,
        facts: FileFacts {
            uid: common.uid,
            gid: common.gid,
            mode: common.mode,
            links: common.links,
            ..facts::read_image(row, at(0))?
        },
        image_id: encoded(row, at(1), |id| id.try_into())?.map(ImageId),
        uuid: encoded(row, at(2), Uuid::from_slice)?,
        format: common.format,
        format_version: &common.format_version,
        status: common.status,
        status_message: text(3)?,
        repository: text(4)?,
        tag: text(5)?,
        reference_source: common.reference_source,
        base: text(6)?,
        update_time: FileTime(row.get(at(7))?),
        update_time_source: common.update_time_source,
        create_time: row.get::<_, Option<i64>>(at(8))?.map(FileTime),
        arch: &common.arch,
        file_system: &common.file_system,
        compressor: &common.compressor,
        sbom: &common.sbom,
        encryption: common.encryption,
        signatures: signatures.unwrap_or_default().signatures.into(),
        content_digest: encoded(row, at(10), |digest| digest.try_into())?,
    })
}

/// The number of what a row has in common with others, which is added if no row had it before.
pub(super) fn common(connection: &Connection, row: &Row<'_>) -> rusqlite::Result<i64> {
    let values = params![
        row.facts.uid,
        row.facts.gid,
        row.facts.mode,
        row.facts.links,
        number(&FORMATS, &row.format),
        row.format_version,
        number(&STATUSES, &row.status),
        number(&REFERENCE_SOURCES, &row.reference_source),
        number(&TIME_SOURCES, &row.update_time_source),
        row.arch,
        row.file_system,
        row.compressor,
        row.sbom,
        number(&ENCRYPTIONS, &row.encryption),
    ];
    let known = connection
        .prepare_cached(&format!(
            "SELECT id FROM commons WHERE ({COMMON}) = ({COMMON_VALUES})"
        ))?
        .query_row(values, |row| row.get(0))
        .optional()?;
    match known {
        Some(number) => Ok(number),
        None => connection
            .prepare_cached(&format!(
                "INSERT INTO commons ({COMMON}) VALUES ({COMMON_VALUES})"
            ))?
            .insert(values),
    }
}

/// Where a row is, in numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys<'n> {
    pub(super) root: i64,
    pub(super) directory: i64,
    pub(super) name: &'n [u8],
    /// By [`common`].
    pub(super) common: i64,
}

/// Writes a row with a [`statement`].
pub(super) fn write(
    statement: &mut rusqlite::Statement<'_>,
    row: &Row<'_>,
    keys: Keys<'_>,
    details: &Packed,
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
        keys.root,
        keys.directory,
        keys.name,
        keys.common,
        facts::of_image(&row.facts),
        row.image_id.as_ref().map(|id| &id.0[..]),
        row.uuid.as_ref().map(|uuid| &uuid.as_bytes()[..]),
        row.status_message,
        row.repository,
        row.tag,
        row.base,
        row.update_time.0,
        row.create_time.map(|time| time.0),
        signatures,
        row.content_digest,
        details.data,
        details.size,
    ])?;
    Ok(())
}
