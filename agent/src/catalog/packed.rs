//! Details as they are stored: as an LZ4 block, for what images say of themselves is much the same.
//! Uncompressed they are more than half of the catalogue.

use std::cell::RefCell;
use std::sync::LazyLock;

use lz4_flex::block::{compress_into_with_dict, get_maximum_output_size};
use prost::Message as _;
use sifter_proto::{Timestamp, v1};

/// What LZ4 can repeat from the first byte on. It is part of the format of the catalogue: with other bytes
/// nothing that was stored can be read, so whoever changes [`typical`] adds a schema version.
static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| typical().encode_to_vec());

/// LZ4 makes no more than that of a byte.
const MAX_EXPANSION: usize = 255;

/// Encoded details as they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// What is stored.
    pub data: Box<[u8]>,
    /// Bytes it had before it was compressed; 0 if it is not, because that would not make it smaller.
    pub size: u32,
}

thread_local! {
    /// Room for what LZ4 makes, for which it wants more than it mostly needs.
    static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Most bytes of room that a thread keeps: long definitions are rare.
const ROOM_KEPT: usize = 16 << 10;

impl Packed {
    /// Packs an encoded `sifter.v1.Image`.
    #[must_use]
    pub fn new(encoded: &[u8]) -> Self {
        ROOM.with_borrow_mut(|room| {
            let most = get_maximum_output_size(encoded.len());
            if room.len() < most {
                room.resize(most, 0);
            }
            let packed = compress_into_with_dict(encoded, room, &DICTIONARY)
                .ok()
                .and_then(|length| room.get(..length))
                .filter(|packed| packed.len() < encoded.len());
            let packed = match (packed, u32::try_from(encoded.len())) {
                (Some(packed), Ok(size)) => Self {
                    data: packed.into(),
                    size,
                },
                _ => Self {
                    data: encoded.into(),
                    size: 0,
                },
            };
            if room.len() > ROOM_KEPT {
                *room = Vec::new();
            }
            packed
        })
    }
}

/// The details of an image from what is stored, [`Packed::data`] and [`Packed::size`]; `None`: that is damaged.
#[must_use]
pub fn unpack(data: &[u8], size: i64) -> Option<v1::Image> {
    match usize::try_from(size).ok()? {
        0 => v1::Image::decode(data).ok(),
        // A damaged size must not ask for all memory.
        size if size / MAX_EXPANSION <= data.len() => {
            lz4_flex::block::decompress_with_dict(data, size, &DICTIONARY)
                .ok()
                .filter(|encoded| encoded.len() == size)
                .and_then(|encoded| v1::Image::decode(&*encoded).ok())
        }
        _ => None,
    }
}

/// The details of an image as most are: labels of Apptainer, SingularityCE and OCI images, objects as
/// Apptainer writes them.
fn typical() -> v1::Image {
    let labels = [
        ("Author", ""),
        ("MAINTAINER", ""),
        ("Version", "1.0"),
        ("org.label-schema.build-arch", "amd64"),
        (
            "org.label-schema.build-date",
            "Monday_1_January_2024_12:00:00_UTC",
        ),
        ("org.label-schema.schema-version", "1.0"),
        ("org.label-schema.usage", "/.singularity.d/runscript.help"),
        (
            "org.label-schema.usage.apptainer.runscript.help",
            "/.singularity.d/runscript.help",
        ),
        ("org.label-schema.usage.apptainer.version", "1.4.5"),
        (
            "org.label-schema.usage.singularity.deffile.bootstrap",
            "docker",
        ),
        (
            "org.label-schema.usage.singularity.deffile.from",
            "docker.io/library/ubuntu:latest",
        ),
        ("org.label-schema.usage.singularity.version", "3.8.7"),
        ("org.opencontainers.image.created", ""),
        ("org.opencontainers.image.licenses", "Apache-2.0"),
        ("org.opencontainers.image.ref.name", "ubuntu"),
        ("org.opencontainers.image.source", "https://github.com/"),
        ("org.opencontainers.image.title", ""),
        ("org.opencontainers.image.version", "22.04"),
    ];
    let definition = "Bootstrap: localimage\nFrom: \n\
        %environment\n    export LC_ALL=C\n\
        %post\n    apt-get update && apt-get install -y --no-install-recommends \n\
        %runscript\n    exec \n\
        %labels\n\
        Bootstrap: docker\nFrom: ";
    let time = Timestamp {
        seconds: 1_700_000_000,
        nanos: 0,
    };
    let object = |slot: u32, data_type: v1::DataType, offset, size_bytes, name: &str| v1::Object {
        id: slot + 1,
        slot,
        data_type: data_type.into(),
        group_id: 1,
        offset,
        size_bytes,
        padded_size_bytes: size_bytes,
        create_time: Some(time),
        update_time: Some(time),
        name: name.to_owned(),
        ..v1::Object::default()
    };
    let partition = v1::Object {
        file_system: "squashfs".to_owned(),
        partition_type: "primary-system".to_owned(),
        arch: "amd64".to_owned(),
        compressor: "gzip".to_owned(),
        ..object(3, v1::DataType::Partition, 45_056, 60 << 20, "squashfs-1")
    };
    v1::Image {
        labels: labels
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        definition: definition.to_owned(),
        objects: vec![
            object(0, v1::DataType::Deffile, 32_768, 60, "deffile"),
            object(
                1,
                v1::DataType::GenericJson,
                36_864,
                900,
                "inspect-metadata.json",
            ),
            object(2, v1::DataType::GenericJson, 40_960, 60, "oci-config.json"),
            partition,
        ],
        ..v1::Image::default()
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use sha2::{Digest as _, Sha256};
    use sifter_proto::v1;

    use super::{DICTIONARY, Packed, typical, unpack};

    fn with_definition(definition: String) -> v1::Image {
        v1::Image {
            definition,
            ..typical()
        }
    }

    #[test]
    fn what_is_packed_comes_back() {
        for (image, is_smaller) in [
            (v1::Image::default(), false),
            (typical(), true),
            (
                with_definition("Bootstrap: docker\nFrom: x".to_owned()),
                true,
            ),
            (with_definition("x".repeat(1 << 20)), true),
            (
                v1::Image {
                    labels: [("\u{1}\u{2}".to_owned(), "\u{3}\u{4}\u{5}".to_owned())].into(),
                    ..v1::Image::default()
                },
                false,
            ),
        ] {
            let encoded = image.encode_to_vec();
            let Packed { data, size } = Packed::new(&encoded);
            assert_eq!(unpack(&data, size.into()).as_ref(), Some(&image));
            assert_eq!(data.len() < encoded.len(), is_smaller);
            assert_eq!(size as usize, if is_smaller { encoded.len() } else { 0 });
        }
    }

    #[test]
    fn the_dictionary_is_that_of_schema_version_4() {
        assert_eq!(
            hex::encode(Sha256::digest(&*DICTIONARY)),
            "9c573dcc7d98cfb5443be38e871cb2987f25d3934b92e784699ef89d1a4c5f7b"
        );
    }

    #[test]
    fn what_cannot_be_read_is_damage() {
        let encoded = typical().encode_to_vec();
        let Packed { data, size } = Packed::new(&encoded);
        let size = i64::from(size);
        for (data, size) in [
            (&data[..], i64::MAX),
            (&data[..], i64::MIN),
            (&data[..], size - 1),
            (&data[..], size + 1),
            (&data[..data.len() - 1], size),
            (b"\xff\xff", 9),
            (b"\xff\xff", 0),
            (b"", 1),
        ] {
            assert_eq!(unpack(data, size), None, "{data:?} {size}");
        }
    }
}
