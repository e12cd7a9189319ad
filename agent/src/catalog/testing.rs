//! Rows for unit tests.

use std::sync::Arc;

use sifter_image::record::{Encryption, Format, ImageId, ReferenceSource, Status, TimeSource};

use super::entry::{FileFacts, FileTime};
use super::row::Row;

/// A plain SIF at `path`.
pub fn row(id: i64, path: &str, repository: &str, tag: &str) -> Row {
    let text = |text: &str| -> Arc<str> { text.into() };
    Row {
        id,
        path: path.as_bytes().into(),
        root: text("/"),
        facts: FileFacts {
            inode: id.cast_unsigned(),
            size: 1,
            ..FileFacts::default()
        },
        image_id: Some(ImageId([u8::try_from(id & 0xff).unwrap(); 32])),
        uuid: None,
        format: Format::Sif,
        status: Status::Ready,
        reference_source: ReferenceSource::Definition,
        update_time_source: TimeSource::Header,
        encryption: Encryption::None,
        repository: text(repository),
        tag: text(tag),
        base: text(""),
        format_version: text("01"),
        arch: text("amd64"),
        status_message: text(""),
        update_time: FileTime(0),
        create_time: None,
        file_system: text("squashfs"),
        compressor: text("gzip"),
        sbom: text(""),
        signatures: Box::default(),
        content_digest: None,
    }
}
