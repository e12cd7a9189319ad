//! From the catalogue's words to those of `sifter.v1`, field by field.

use sifter_image::record::{Encryption, Format, ReferenceSource, Status, TimeSource};
use sifter_proto::{Timestamp, v1};

use crate::catalog::{FileTime, Row};
use crate::escape;

use super::owners::Owners;

/// The listing's view of an image: all but labels, definition, objects and bootstrap history.
#[must_use]
pub fn basic(row: &Row<'_>, owners: &Owners) -> v1::Image {
    let path = escape::utf8(row.path);
    let raw_path = if path.as_bytes() == row.path {
        Vec::new()
    } else {
        row.path.to_vec()
    };
    v1::Image {
        path,
        raw_path,
        root: row.root.to_owned(),
        image_id: row.image_id.map(|id| id.to_string()).unwrap_or_default(),
        format: format(row.format).into(),
        format_version: row.format_version.to_owned(),
        status: status(row.status).into(),
        status_message: row.status_message.to_owned(),
        repository: row.repository.to_owned(),
        tag: row.tag.to_owned(),
        reference_source: reference_source(row.reference_source).into(),
        base: row.base.to_owned(),
        update_time: Some(timestamp(row.update_time)),
        update_time_source: time_source(row.update_time_source).into(),
        create_time: row.create_time.map(timestamp),
        arch: row.arch.to_owned(),
        uuid: row.uuid.map(|uuid| uuid.to_string()).unwrap_or_default(),
        size_bytes: row.facts.size,
        allocated_bytes: row.facts.allocated,
        uid: row.facts.uid,
        gid: row.facts.gid,
        owner: owners.user(row.facts.uid),
        group: owners.group(row.facts.gid),
        mode: row.facts.mode,
        links: row.facts.links.into(),
        access_time: Some(timestamp(row.facts.accessed)),
        file_system: row.file_system.to_owned(),
        compressor: row.compressor.to_owned(),
        signatures: row.signatures.to_vec(),
        encryption: encryption(row.encryption).into(),
        sbom: row.sbom.to_owned(),
        content_digest: row
            .content_digest
            .map(|digest| format!("sha256:{}", hex::encode(digest)))
            .unwrap_or_default(),
        ..v1::Image::default()
    }
}

/// Adds the fields of [`crate::catalog::details`] to those of [`basic`].
pub fn add_details(image: &mut v1::Image, details: v1::Image) {
    image.labels = details.labels;
    image.definition = details.definition;
    image.objects = details.objects;
    image.bootstrap_history = details.bootstrap_history;
}

/// A file's time as the protocol has it.
#[must_use]
pub fn timestamp(time: FileTime) -> Timestamp {
    Timestamp {
        seconds: time.0.div_euclid(1_000_000_000),
        nanos: i32::try_from(time.0.rem_euclid(1_000_000_000)).unwrap_or(0),
    }
}

/// A status as the protocol has it.
#[must_use]
pub fn status(status: Status) -> v1::Status {
    match status {
        Status::Ready => v1::Status::Ready,
        Status::Transfer => v1::Status::Transfer,
        Status::Failure => v1::Status::Failure,
        Status::Unavailable => v1::Status::Unavailable,
    }
}

/// A format as the protocol has it.
#[must_use]
pub fn format(format: Format) -> v1::Format {
    match format {
        Format::Sif => v1::Format::Sif,
        Format::OciSif => v1::Format::OciSif,
        Format::Squashfs => v1::Format::Squashfs,
        Format::Ext3 => v1::Format::Ext3,
        Format::Sandbox => v1::Format::Sandbox,
    }
}

/// The source of a time as the protocol has it.
#[must_use]
pub fn time_source(source: TimeSource) -> v1::TimeSource {
    match source {
        TimeSource::Header => v1::TimeSource::Header,
        TimeSource::OciConfig => v1::TimeSource::OciConfig,
        TimeSource::Mtime => v1::TimeSource::Mtime,
    }
}

/// Encryption as the protocol has it.
#[must_use]
pub fn encryption(encryption: Encryption) -> v1::Encryption {
    match encryption {
        Encryption::None => v1::Encryption::None,
        Encryption::Luks2 => v1::Encryption::Luks2,
        Encryption::Gocryptfs => v1::Encryption::Gocryptfs,
    }
}

/// A rule as the protocol has it.
#[must_use]
pub fn reference_source(source: ReferenceSource) -> v1::ReferenceSource {
    match source {
        ReferenceSource::NamingRule => v1::ReferenceSource::NamingRule,
        ReferenceSource::OciReference => v1::ReferenceSource::OciReference,
        ReferenceSource::Definition => v1::ReferenceSource::Definition,
        ReferenceSource::NamingConvention => v1::ReferenceSource::NamingConvention,
        ReferenceSource::Labels => v1::ReferenceSource::Labels,
        ReferenceSource::FileStem => v1::ReferenceSource::FileStem,
    }
}
