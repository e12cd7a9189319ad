//! From the catalogue's words to those of `sifter.v1`, field by field.

use sifter_image::record::{Encryption, Format, ReferenceSource, Sha256Text, Status, TimeSource};
use sifter_proto::{Timestamp, v1};

use crate::catalog::{FileTime, Row};
use crate::escape;

use super::owners::Owners;

/// The listing's view of an image: all but labels, definition, objects and bootstrap history.
#[must_use]
pub fn basic(row: &Row<'_>, owners: &Owners) -> v1::Image {
    let mut image = v1::Image::default();
    fill(&mut image, row, owners);
    image
}

/// Gives an image the fields of [`basic`], whatever they were. Texts keep their memory: a scan makes
/// thousands of messages, each to be printed once.
pub fn fill(image: &mut v1::Image, row: &Row<'_>, owners: &Owners) {
    let facts = &row.facts;
    image.raw_path.clear();
    if let Ok(path) = std::str::from_utf8(row.path) {
        set(&mut image.path, path);
    } else {
        image.path = escape::utf8(row.path);
        image.raw_path.extend_from_slice(row.path);
    }
    set(&mut image.root, row.root);
    image.image_id.clear();
    if let Some(id) = row.image_id {
        image.image_id.push_str(Sha256Text::of(&id.0).as_str());
    }
    image.format = format(row.format).into();
    set(&mut image.format_version, row.format_version);
    image.status = status(row.status).into();
    set(&mut image.status_message, row.status_message);
    set(&mut image.repository, row.repository);
    set(&mut image.tag, row.tag);
    image.reference_source = reference_source(row.reference_source).into();
    set(&mut image.base, row.base);
    image.update_time = Some(timestamp(row.update_time));
    image.update_time_source = time_source(row.update_time_source).into();
    image.create_time = row.create_time.map(timestamp);
    set(&mut image.arch, row.arch);
    image.uuid.clear();
    if let Some(uuid) = row.uuid {
        let mut text = uuid::Uuid::encode_buffer();
        image
            .uuid
            .push_str(uuid.hyphenated().encode_lower(&mut text));
    }
    image.size_bytes = facts.size;
    image.allocated_bytes = facts.allocated;
    if image.uid != facts.uid || image.owner.is_empty() {
        image.owner = owners.user(facts.uid);
    }
    if image.gid != facts.gid || image.group.is_empty() {
        image.group = owners.group(facts.gid);
    }
    image.uid = facts.uid;
    image.gid = facts.gid;
    image.mode = facts.mode;
    image.links = facts.links.into();
    image.access_time = Some(timestamp(facts.accessed));
    set(&mut image.file_system, row.file_system);
    set(&mut image.compressor, row.compressor);
    image.signatures.clear();
    image.signatures.extend_from_slice(&row.signatures);
    image.encryption = encryption(row.encryption).into();
    set(&mut image.sbom, row.sbom);
    image.content_digest.clear();
    if let Some(digest) = row.content_digest {
        let text = Sha256Text::of(&digest);
        image.content_digest.push_str(text.as_str());
    }
}

fn set(text: &mut String, value: &str) {
    text.clear();
    text.push_str(value);
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

#[cfg(test)]
mod tests {
    use sifter_proto::v1;

    use super::{Owners, basic, fill};
    use crate::catalog::testing::{full_row, row};

    #[test]
    fn a_message_that_was_another_image_is_as_a_new_one() {
        let owners = Owners::default();
        let mut strange = row(2, "/r/b.sif", "b", "2");
        strange.path = b"/r/\xff.sif";
        strange.facts.uid = 0;
        let mut other = full_row();
        other.facts.uid = 1;
        other.facts.gid = 1;
        let mut message = v1::Image::default();
        for row in [
            full_row(),
            strange.clone(),
            other,
            row(1, "/r/a.sif", "a", "1"),
            strange,
        ] {
            fill(&mut message, &row, &owners);
            assert_eq!(message, basic(&row, &owners));
        }
    }
}
