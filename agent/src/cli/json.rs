//! Images in JSON, byte for byte as the types of the contract write themselves, at a quarter of their cost: a
//! scan spends more on printing images than on reading them.

use serde_json::Error;
use sifter_proto::{Timestamp, v1};

/// Appends an image to `out`.
///
/// # Errors
///
/// A time of it is none that there is.
pub fn write(out: &mut Vec<u8>, image: &v1::Image) -> Result<(), Error> {
    let mut members = Members::begin(out);
    members.text("path", &image.path)?;
    members.text("root", &image.root)?;
    members.text("imageId", &image.image_id)?;
    members.constant("format", image.format, image.format().as_str_name());
    members.text("formatVersion", &image.format_version)?;
    members.constant("status", image.status, image.status().as_str_name());
    members.text("statusMessage", &image.status_message)?;
    members.text("repository", &image.repository)?;
    members.text("tag", &image.tag)?;
    members.constant(
        "referenceSource",
        image.reference_source,
        image.reference_source().as_str_name(),
    );
    members.text("base", &image.base)?;
    members.time("updateTime", image.update_time.as_ref())?;
    members.constant(
        "updateTimeSource",
        image.update_time_source,
        image.update_time_source().as_str_name(),
    );
    members.time("createTime", image.create_time.as_ref())?;
    members.text("arch", &image.arch)?;
    members.text("uuid", &image.uuid)?;
    members.long("sizeBytes", image.size_bytes);
    members.long("allocatedBytes", image.allocated_bytes);
    members.number("uid", image.uid);
    members.number("gid", image.gid);
    members.text("owner", &image.owner)?;
    members.text("group", &image.group)?;
    members.number("mode", image.mode);
    members.long("links", image.links);
    members.time("accessTime", image.access_time.as_ref())?;
    if !image.labels.is_empty() {
        members.key("labels");
        let mut labels = Members::begin(members.out);
        for (name, value) in &image.labels {
            labels.comma();
            text(labels.out, name)?;
            labels.out.push(b':');
            text(labels.out, value)?;
        }
        labels.end();
    }
    members.text("definition", &image.definition)?;
    members.text("fileSystem", &image.file_system)?;
    members.text("compressor", &image.compressor)?;
    members.list("objects", &image.objects, object)?;
    members.list("signatures", &image.signatures, signature)?;
    members.constant(
        "encryption",
        image.encryption,
        image.encryption().as_str_name(),
    );
    members.text("sbom", &image.sbom)?;
    members.text("contentDigest", &image.content_digest)?;
    if !image.raw_path.is_empty() {
        members.key("rawPath");
        raw_path(members.out, &image.raw_path)?;
    }
    members.list("bootstrapHistory", &image.bootstrap_history, |out, one| {
        text(out, one)
    })?;
    members.end();
    Ok(())
}

fn object(out: &mut Vec<u8>, object: &v1::Object) -> Result<(), Error> {
    let mut members = Members::begin(out);
    members.number("id", object.id);
    members.constant(
        "dataType",
        object.data_type,
        object.data_type().as_str_name(),
    );
    members.number("groupId", object.group_id);
    members.number("linkedId", object.linked_id);
    members.number("linkedGroupId", object.linked_group_id);
    members.long("offset", object.offset);
    members.long("sizeBytes", object.size_bytes);
    members.long("paddedSizeBytes", object.padded_size_bytes);
    members.time("createTime", object.create_time.as_ref())?;
    members.time("updateTime", object.update_time.as_ref())?;
    members.long("uid", object.uid);
    members.long("gid", object.gid);
    members.text("name", &object.name)?;
    members.text("fileSystem", &object.file_system)?;
    members.text("partitionType", &object.partition_type)?;
    members.text("arch", &object.arch)?;
    members.text("compressor", &object.compressor)?;
    members.text("digest", &object.digest)?;
    members.text("hashType", &object.hash_type)?;
    members.text("fingerprint", &object.fingerprint)?;
    members.text("messageFormat", &object.message_format)?;
    members.text("messageType", &object.message_type)?;
    members.text("sbomFormat", &object.sbom_format)?;
    members.number("slot", object.slot);
    members.end();
    Ok(())
}

fn signature(out: &mut Vec<u8>, signature: &v1::Signature) -> Result<(), Error> {
    let mut members = Members::begin(out);
    members.number("objectId", signature.object_id);
    members.constant("form", signature.form, signature.form().as_str_name());
    members.text("fingerprint", &signature.fingerprint)?;
    members.number("signedObjectId", signature.signed_object_id);
    members.number("signedGroupId", signature.signed_group_id);
    members.text("hashType", &signature.hash_type)?;
    members.end();
    Ok(())
}

/// What is rare is left to the original.
fn raw_path(out: &mut Vec<u8>, raw_path: &[u8]) -> Result<(), Error> {
    let image = v1::Image {
        raw_path: raw_path.to_vec(),
        ..v1::Image::default()
    };
    let value = serde_json::to_value(image)?;
    serde_json::to_writer(out, &value["rawPath"])
}

/// An object that has been begun. Members that are empty, zero or not there are left out.
struct Members<'o> {
    out: &'o mut Vec<u8>,
    is_empty: bool,
}

impl<'o> Members<'o> {
    fn begin(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self {
            out,
            is_empty: true,
        }
    }

    fn end(self) {
        self.out.push(b'}');
    }

    fn comma(&mut self) {
        if !std::mem::take(&mut self.is_empty) {
            self.out.push(b',');
        }
    }

    /// Names are identifiers: there is nothing to escape in them. In line, where the name is known, it is a
    /// few stores; elsewhere it is a call to copy some bytes.
    #[inline(always)]
    fn key(&mut self, name: &str) {
        self.comma();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    #[inline(always)]
    fn text(&mut self, name: &str, value: &str) -> Result<(), Error> {
        if value.is_empty() {
            return Ok(());
        }
        self.key(name);
        text(self.out, value)
    }

    /// A value of an enumeration, by its number and its name.
    #[inline(always)]
    fn constant(&mut self, name: &str, number: i32, value: &str) {
        if number != 0 {
            self.key(name);
            quoted(self.out, value);
        }
    }

    #[inline(always)]
    fn number(&mut self, name: &str, value: u32) {
        if value != 0 {
            self.key(name);
            let mut digits = itoa::Buffer::new();
            self.out.extend_from_slice(digits.format(value).as_bytes());
        }
    }

    /// A number of 64 bits, which JSON has in quotes.
    #[inline(always)]
    fn long(&mut self, name: &str, value: u64) {
        if value != 0 {
            self.key(name);
            quoted(self.out, itoa::Buffer::new().format(value));
        }
    }

    #[inline(always)]
    fn time(&mut self, name: &str, value: Option<&Timestamp>) -> Result<(), Error> {
        match value {
            Some(time) => {
                self.key(name);
                time.with_text(|text| quoted(self.out, text))
                    .map_err(serde::ser::Error::custom)
            }
            None => Ok(()),
        }
    }

    fn list<T>(
        &mut self,
        name: &str,
        values: &[T],
        write: impl Fn(&mut Vec<u8>, &T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for (index, value) in values.iter().enumerate() {
            if index == 0 {
                self.key(name);
                self.out.push(b'[');
            } else {
                self.out.push(b',');
            }
            write(self.out, value)?;
        }
        if !values.is_empty() {
            self.out.push(b']');
        }
        Ok(())
    }
}

/// Texts without anything to be escaped are copied; the others are left to the original.
fn text(out: &mut Vec<u8>, text: &str) -> Result<(), Error> {
    if has_escapes(text.as_bytes()) {
        return serde_json::to_writer(out, text);
    }
    quoted(out, text);
    Ok(())
}

/// A text in which there is nothing to be escaped.
fn quoted(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// Whether there is a control character, a quote or a backslash. Most texts are short: their ends are
/// looked at together, though they overlap, so that none is copied to be looked at.
fn has_escapes(bytes: &[u8]) -> bool {
    // Numbers, not truths: of those the compiler compares as many at a time as a register has.
    fn any<const N: usize>(bytes: &[u8; N]) -> u8 {
        let is_escaped =
            |byte: u8| u8::from(byte < b' ') | u8::from(byte == b'"') | u8::from(byte == b'\\');
        bytes.iter().fold(0, |any, byte| any | is_escaped(*byte))
    }
    let found = if let Some(last) = bytes.last_chunk::<16>() {
        let (chunks, _) = bytes.as_chunks::<16>();
        chunks
            .iter()
            .fold(any(last), |found, chunk| found | any(chunk))
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        any(first) | any(last)
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        any(first) | any(last)
    } else {
        bytes.iter().fold(0, |found, byte| found | any(&[*byte]))
    };
    found != 0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sifter_proto::{Timestamp, v1};

    use crate::service::{Owners, convert};

    fn check(image: &v1::Image) {
        let mut written = Vec::new();
        super::write(&mut written, image).unwrap();
        let expected = serde_json::to_string(image).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), expected);
    }

    const TIME: Option<Timestamp> = Some(Timestamp {
        seconds: 1,
        nanos: 5,
    });

    fn full_object() -> v1::Object {
        let text = str::to_owned;
        v1::Object {
            id: 1,
            data_type: v1::DataType::Partition.into(),
            group_id: 2,
            linked_id: 3,
            linked_group_id: u32::MAX,
            offset: 1 << 60,
            size_bytes: u64::MAX,
            padded_size_bytes: 1,
            create_time: TIME,
            update_time: TIME,
            uid: 4,
            gid: 5,
            name: text("name \"1\""),
            file_system: text("squashfs"),
            partition_type: text("primary-system"),
            arch: text("amd64"),
            compressor: text("gzip"),
            digest: text("sha256:1f"),
            hash_type: text("sha256"),
            fingerprint: text("12AB"),
            message_format: text("openpgp"),
            message_type: text("clear-signature"),
            sbom_format: text("spdx-json"),
            slot: 6,
        }
    }

    /// An image in which every field is set.
    fn full() -> v1::Image {
        let row = crate::catalog::Row {
            path: b"/data/\xff image.sif",
            ..crate::catalog::testing::full_row()
        };
        let mut image = convert::basic(&row, &Owners::default());
        // The host knows neither of the full row's owners.
        image.owner = "owner".to_owned();
        image.group = "group".to_owned();
        image.labels = BTreeMap::from([
            ("a".to_owned(), "1\n".to_owned()),
            ("b\t".to_owned(), String::new()),
        ]);
        image.definition = "Bootstrap: docker\nFrom: x\n".to_owned();
        image.objects = vec![full_object(), v1::Object::default(), full_object()];
        image.signatures.push(v1::Signature::default());
        image.bootstrap_history = vec!["x".to_owned(), String::new()];
        image
    }

    #[test]
    fn an_image_is_written_as_it_writes_itself() {
        check(&v1::Image::default());
        check(&full());
        check(&v1::Image {
            path: "/i/\u{fc}\"".to_owned(),
            ..v1::Image::default()
        });
        check(&v1::Image {
            gid: 7,
            objects: vec![v1::Object::default()],
            // Of a version to come.
            status: 77,
            format: 77,
            ..v1::Image::default()
        });
    }

    /// A field that is new must be written here, too: the full image of these tests has all.
    #[test]
    fn every_field_is_set() {
        let value = serde_json::to_value(full()).unwrap();
        let declared = |message: &str| {
            let proto = include_str!("../../../proto/sifter/v1/image.proto");
            let body = proto.split(&format!("\nmessage {message} {{")).nth(1);
            let body = body.and_then(|rest| rest.split("\n}").next()).unwrap();
            let lines = body.lines().map(str::trim);
            lines
                .filter(|line| line.contains(" = ") && !line.starts_with("//"))
                .count()
        };
        for (message, value) in [
            ("Image", &value),
            ("Object", &value["objects"][0]),
            ("Signature", &value["signatures"][0]),
        ] {
            let set = value.as_object().unwrap().len();
            assert_eq!(set, declared(message), "{message}");
        }
    }

    #[test]
    fn every_byte_is_found_or_passed_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            for length in 1..40 {
                for at in 0..length {
                    let mut bytes = vec![b'a'; length];
                    bytes[at] = byte;
                    let expected = byte < 0x20 || matches!(byte, b'"' | b'\\');
                    assert_eq!(super::has_escapes(&bytes), expected, "{byte:#x} at {at}");
                }
            }
        }
        assert!(!super::has_escapes(b""));
    }

    #[test]
    fn a_time_that_there_is_not_is_an_error() {
        let mut image = full();
        image.access_time = Some(Timestamp {
            seconds: i64::MAX,
            nanos: 0,
        });
        assert!(super::write(&mut Vec::new(), &image).is_err());
        assert!(serde_json::to_string(&image).is_err());
    }
}
