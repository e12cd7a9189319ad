//! Rows for unit tests.

use std::borrow::Cow;
use std::sync::Arc;

use sifter_image::record::{Encryption, Format, ImageId, ReferenceSource, Status, TimeSource};
use sifter_proto::v1;
use uuid::Uuid;

use super::change::{ChangeKind, DirectoryChange};
use super::entry::{Content, Found};
use super::facts::{FileFacts, FileTime, Identity};
use super::kept::{Commons, KeptRow};
use super::row::Row;

/// A plain SIF at `path`.
pub fn row<'a>(id: i64, path: &'a str, repository: &'a str, tag: &'a str) -> Row<'a> {
    Row {
        id,
        path: path.as_bytes(),
        root: "/",
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
        repository,
        tag,
        base: "",
        format_version: "01",
        arch: "amd64",
        status_message: "",
        update_time: FileTime(0),
        create_time: None,
        file_system: "squashfs",
        compressor: "gzip",
        sbom: "",
        signatures: Cow::default(),
        content_digest: None,
    }
}

/// The same, kept.
pub fn kept(id: i64, path: &str, repository: &str, tag: &str) -> Arc<KeptRow> {
    let row = row(id, path, repository, tag);
    Arc::new(KeptRow::new(&row, &mut Commons::default()))
}

/// A row in which nothing is as it is in an empty one.
pub fn full_row() -> Row<'static> {
    Row {
        id: 1 << 40,
        path: b"/data/\xff image.sif",
        root: "/data",
        facts: FileFacts {
            inode: u64::MAX,
            size: 1 << 41,
            allocated: 4096,
            uid: 4_000_000_001,
            gid: 4_000_000_002,
            mode: 0o4750,
            links: 3,
            accessed: FileTime(1_700_000_003_000_000_001),
            modified: FileTime(1_700_000_002_000_000_000),
            changed: FileTime(1_700_000_001_000_000_000),
            born: None,
        },
        image_id: Some(ImageId([0xab; 32])),
        uuid: Some(Uuid::from_u128(0x1234_5678_9abc_def0_1122_3344_5566_7788)),
        format: Format::Sandbox,
        status: Status::Failure,
        reference_source: ReferenceSource::FileStem,
        update_time_source: TimeSource::Mtime,
        encryption: Encryption::Gocryptfs,
        repository: "quay.io/biocontainers/samtools",
        tag: "1.9--0",
        base: "docker://ubuntu:22.04",
        format_version: "01",
        arch: "arm64",
        status_message: "damaged: h\u{e9}",
        update_time: FileTime(-1),
        create_time: Some(FileTime(1)),
        file_system: "ext3",
        compressor: "zstd",
        sbom: "spdx-json",
        signatures: Cow::Owned(vec![v1::Signature {
            object_id: 5,
            form: v1::SignatureForm::Pgp.into(),
            fingerprint: "0123".to_owned(),
            signed_object_id: 1,
            signed_group_id: 2,
            hash_type: "SHA256".to_owned(),
        }]),
        content_digest: Some([0xcd; 32]),
    }
}

/// An image of which only the header is there.
pub fn cut_image() -> sifter_image::Image {
    let header = [&[b'#'; 32][..], b"SIF_MAGIC\0", b"01\0", &[0; 100]].concat();
    let subject = sifter_image::Subject {
        path: std::path::Path::new("/r/a.sif"),
        modified: jiff::Timestamp::UNIX_EPOCH,
        now: jiff::Timestamp::UNIX_EPOCH,
    };
    let options = sifter_image::Options::default();
    match sifter_image::probe(&header.as_slice(), &subject, &options) {
        Ok(sifter_image::Verdict::Image(image)) => *image,
        other => panic!("{other:?}"),
    }
}

/// What a scan says of a root in which images are found.
pub fn images(names: &[&str]) -> Vec<DirectoryChange> {
    let found = names.iter().map(|name| Found {
        name: name.as_bytes().into(),
        facts: FileFacts::default(),
        volatile: false,
        content: Content::Image(Box::new(cut_image())),
    });
    vec![DirectoryChange {
        id: None,
        path: Box::default(),
        kind: ChangeKind::Read {
            identity: Identity::default(),
            volatile: false,
            children: Vec::new(),
            found: found.collect(),
            removed: Vec::new(),
        },
    }]
}

impl super::Catalog {
    /// Lets what was read pass for old: time enough has gone by since, as far as the timestamps of directories and
    /// files are concerned.
    pub fn settle(&self) {
        let store = std::sync::Arc::clone(&self.lock().store);
        store.settle();
    }

    /// As if somebody were making a listing, for as long as what this gives is held.
    pub fn publish_nothing(&self) -> std::sync::MutexGuard<'_, ()> {
        self.publishing.lock().unwrap()
    }
}
