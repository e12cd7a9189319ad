//! A descriptor of a SIF: 585 bytes, little endian, unaligned, with an extra part by data type.
//!
//! Source: apptainer/sif `pkg/sif/descriptor.go: rawDescriptor`, `pkg/sif/sif.go` (the types),
//! sylabs/sif `pkg/sif/descriptor.go: ociBlob.MarshalBinary`.

use compact_str::CompactString;
use zerocopy::little_endian::{I32, I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::{arch_name, until_nul};
use crate::record::{Link, Object, ObjectData};
use crate::timestamp::timestamp;

/// Bytes of one descriptor.
pub(crate) const DESCRIPTOR_LEN: usize = size_of::<RawDescriptor>();

/// Bits that mark a group ID, or alone the absence of one (`sif.go: descrGroupMask`).
const GROUP_MASK: u32 = 0xF000_0000;

/// Data types (`sif.go: DataType`).
pub(crate) mod data_type {
    pub(crate) const DEFFILE: i32 = 0x4001;
    pub(crate) const ENV_VAR: i32 = 0x4002;
    pub(crate) const LABELS: i32 = 0x4003;
    pub(crate) const PARTITION: i32 = 0x4004;
    pub(crate) const SIGNATURE: i32 = 0x4005;
    pub(crate) const GENERIC_JSON: i32 = 0x4006;
    pub(crate) const GENERIC: i32 = 0x4007;
    pub(crate) const CRYPTO_MESSAGE: i32 = 0x4008;
    pub(crate) const SBOM: i32 = 0x4009;
    pub(crate) const OCI_ROOT_INDEX: i32 = 0x400A;
    pub(crate) const OCI_BLOB: i32 = 0x400B;
    /// The range the numbers are taken from; anything outside is damage, not a type of tomorrow.
    pub(crate) const RANGE: std::ops::RangeInclusive<i32> = 0x4001..=0x40FF;
}

/// File systems of a partition (`sif.go: FSType`).
pub(crate) mod fs_type {
    pub(crate) const SQUASHFS: i32 = 1;
    pub(crate) const EXT3: i32 = 2;
    pub(crate) const ENCRYPTED_SQUASHFS: i32 = 5;
    pub(crate) const GOCRYPTFS_SQUASHFS: i32 = 6;
}

/// What a partition is for (`sif.go: PartType`).
pub(crate) mod part_type {
    pub(crate) const SYSTEM: i32 = 1;
    pub(crate) const PRIMARY_SYSTEM: i32 = 2;
    pub(crate) const DATA: i32 = 3;
    pub(crate) const OVERLAY: i32 = 4;
}

/// A descriptor as it lies in the file.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawDescriptor {
    /// Data type.
    pub(crate) data_type: I32,
    /// 0 where the slot is free.
    pub(crate) used: u8,
    /// Object ID, from 1.
    pub(crate) id: U32,
    /// Group, with the mask's bits.
    pub(crate) group: U32,
    /// What the object is linked to: an ID, or a group with the mask's bits.
    pub(crate) link: U32,
    /// Where the data begins.
    pub(crate) offset: I64,
    /// Bytes of data.
    pub(crate) size: I64,
    /// Bytes from the end of the previous object.
    pub(crate) padded_size: I64,
    /// Seconds since 1970.
    pub(crate) created: I64,
    /// Seconds since 1970.
    pub(crate) modified: I64,
    /// Numeric owner.
    pub(crate) uid: U64,
    /// Numeric group.
    pub(crate) gid: U64,
    /// Name, NUL padded.
    pub(crate) name: [u8; 128],
    /// Depends on the data type.
    pub(crate) extra: [u8; 384],
}

impl RawDescriptor {
    /// Whether the slot holds an object. Go decodes any byte but 0 as true.
    #[must_use]
    pub(crate) fn is_used(&self) -> bool {
        self.used != 0
    }

    /// The name without its padding.
    #[must_use]
    pub(crate) fn name(&self) -> &[u8] {
        until_nul(&self.name)
    }

    /// File system and part type of a partition.
    pub(crate) fn partition(&self) -> Option<(i32, i32)> {
        (self.data_type.get() == data_type::PARTITION)
            .then(|| (self.extra_i32(0), self.extra_i32(4)))
    }

    /// Whether this is the primary system partition.
    pub(crate) fn is_primary(&self) -> bool {
        self.partition()
            .is_some_and(|(_, part)| part == part_type::PRIMARY_SYSTEM)
    }

    /// Offset and size, where neither is negative.
    pub(crate) fn range(&self) -> Option<(u64, u64)> {
        Some((
            u64::try_from(self.offset.get()).ok()?,
            u64::try_from(self.size.get()).ok()?,
        ))
    }

    /// The digest of an OCI blob or root index.
    pub(crate) fn digest(&self) -> String {
        String::from_utf8_lossy(until_nul(&self.extra)).into_owned()
    }

    /// What the object is linked to.
    #[must_use]
    pub(crate) fn link(&self) -> Option<Link> {
        let raw = self.link.get();
        if raw == 0 {
            None
        } else if raw & GROUP_MASK == GROUP_MASK {
            Some(Link::Group(raw & !GROUP_MASK))
        } else {
            Some(Link::Object(raw))
        }
    }

    /// The group, unless none.
    #[must_use]
    pub(crate) fn group_id(&self) -> Option<u32> {
        Some(self.group.get() & !GROUP_MASK).filter(|group| *group != 0)
    }

    /// Hash of a signature, by number.
    #[cfg(feature = "verify")]
    pub(crate) fn hash_type(&self) -> i32 {
        self.extra_i32(0)
    }

    /// Fingerprint of a signature; empty for DSSE.
    pub(crate) fn fingerprint(&self) -> String {
        fingerprint(&self.extra[4..260])
    }

    fn extra_i32(&self, at: usize) -> i32 {
        self.extra
            .get(at..at + 4)
            .and_then(|bytes| I32::read_from_bytes(bytes).ok())
            .map_or(0, I32::get)
    }

    /// Type and extra part.
    pub(crate) fn data(&self) -> ObjectData {
        match self.data_type.get() {
            data_type::DEFFILE => ObjectData::Deffile,
            data_type::ENV_VAR => ObjectData::EnvVar,
            data_type::LABELS => ObjectData::Labels,
            data_type::PARTITION => ObjectData::Partition {
                file_system: fs_name(self.extra_i32(0)),
                partition_type: part_name(self.extra_i32(4)),
                arch: arch_name(&self.extra[8..11]),
                compressor: None,
            },
            data_type::SIGNATURE => ObjectData::Signature {
                hash_type: hash_name(self.extra_i32(0)),
                fingerprint: self.fingerprint(),
            },
            data_type::GENERIC_JSON => ObjectData::GenericJson,
            data_type::GENERIC => ObjectData::Generic,
            data_type::CRYPTO_MESSAGE => ObjectData::CryptoMessage {
                format: match self.extra_i32(0) {
                    1 => "openpgp",
                    2 => "pem",
                    _ => "unknown",
                },
                message_type: match self.extra_i32(4) {
                    0x100 => "clear-signature",
                    0x200 => "rsa-oaep",
                    _ => "unknown",
                },
            },
            data_type::SBOM => ObjectData::Sbom {
                format: sbom_name(self.extra_i32(0)),
            },
            data_type::OCI_ROOT_INDEX => ObjectData::OciRootIndex {
                digest: self.digest(),
            },
            data_type::OCI_BLOB => ObjectData::OciBlob {
                digest: self.digest(),
            },
            other => ObjectData::Unknown(other),
        }
    }

    /// The record of this descriptor in `slot`. Negative offsets and sizes, which are damage that
    /// the caller reports, become 0.
    pub(crate) fn to_object(self, slot: u32) -> Object {
        Object {
            slot,
            id: self.id.get(),
            data: self.data(),
            group_id: self.group_id(),
            link: self.link(),
            offset: u64::try_from(self.offset.get()).unwrap_or_default(),
            size: u64::try_from(self.size.get()).unwrap_or_default(),
            padded_size: u64::try_from(self.padded_size.get()).unwrap_or_default(),
            create_time: timestamp(self.created.get()),
            update_time: timestamp(self.modified.get()),
            uid: self.uid.get(),
            gid: self.gid.get(),
            name: CompactString::from_utf8_lossy(self.name()),
        }
    }
}

/// For people: what an object is.
pub(crate) fn type_name(data_type: i32) -> &'static str {
    match data_type {
        data_type::DEFFILE => "definition file",
        data_type::ENV_VAR => "environment variables",
        data_type::LABELS => "labels",
        data_type::PARTITION => "partition",
        data_type::SIGNATURE => "signature",
        data_type::GENERIC_JSON => "generic JSON",
        data_type::GENERIC => "generic",
        data_type::CRYPTO_MESSAGE => "cryptographic message",
        data_type::SBOM => "SBOM",
        data_type::OCI_ROOT_INDEX => "OCI root index",
        data_type::OCI_BLOB => "OCI blob",
        _ => "unknown type",
    }
}

pub(super) fn fs_name(code: i32) -> &'static str {
    match code {
        fs_type::SQUASHFS => "squashfs",
        fs_type::EXT3 => "ext3",
        3 => "archive",
        4 => "raw",
        fs_type::ENCRYPTED_SQUASHFS => "encrypted-squashfs",
        fs_type::GOCRYPTFS_SQUASHFS => "gocryptfs-squashfs",
        _ => "unknown",
    }
}

fn part_name(code: i32) -> &'static str {
    match code {
        part_type::SYSTEM => "system",
        part_type::PRIMARY_SYSTEM => "primary-system",
        part_type::DATA => "data",
        part_type::OVERLAY => "overlay",
        _ => "unknown",
    }
}

pub(crate) fn hash_name(code: i32) -> &'static str {
    match code {
        1 => "sha256",
        2 => "sha384",
        3 => "sha512",
        4 => "blake2s",
        5 => "blake2b",
        _ => "unknown",
    }
}

fn sbom_name(code: i32) -> &'static str {
    match code {
        1 => "cyclonedx-json",
        2 => "cyclonedx-xml",
        3 => "github-json",
        4 => "spdx-json",
        5 => "spdx-rdf",
        6 => "spdx-tag-value",
        7 => "spdx-yaml",
        8 => "syft-json",
        _ => "unknown",
    }
}

/// Upper-case hexadecimal of the 20 bytes of a PGP fingerprint (32 for a version 6 key); empty
/// where all bytes are zero, as DSSE signatures have it.
fn fingerprint(entity: &[u8]) -> String {
    let length = entity
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    let length = match length {
        0 => return String::new(),
        1..=20 => 20,
        _ => length.max(32),
    };
    hex::encode_upper(&entity[..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(change: impl FnOnce(&mut [u8; DESCRIPTOR_LEN])) -> RawDescriptor {
        let mut bytes = [0; DESCRIPTOR_LEN];
        change(&mut bytes);
        RawDescriptor::read_from_bytes(&bytes).unwrap()
    }

    #[test]
    fn a_descriptor_has_585_bytes() {
        assert_eq!(DESCRIPTOR_LEN, 585);
    }

    #[test]
    fn groups_and_links() {
        let cases: [(u32, Option<u32>, Option<Link>); 5] = [
            (0, None, None),
            (0xF000_0000, None, Some(Link::Group(0))),
            (0xF000_0007, Some(7), Some(Link::Group(7))),
            (3, Some(3), Some(Link::Object(3))),
            // Some bits of the mask are not the mask.
            (0x1000_0003, Some(3), Some(Link::Object(0x1000_0003))),
        ];
        for (raw, group, link) in cases {
            let found = descriptor(|bytes| {
                bytes[9..13].copy_from_slice(&raw.to_le_bytes());
                bytes[13..17].copy_from_slice(&raw.to_le_bytes());
            });
            assert_eq!((found.group_id(), found.link()), (group, link), "{raw:#x}");
        }
    }

    #[test]
    fn extra_parts() {
        let of = |kind: i32, extra: &[u8]| {
            descriptor(|bytes| {
                bytes[..4].copy_from_slice(&kind.to_le_bytes());
                bytes[201..201 + extra.len()].copy_from_slice(extra);
            })
            .data()
        };
        assert_eq!(
            of(0x4004, b"\x06\0\0\0\x02\0\0\x0012\0"),
            ObjectData::Partition {
                file_system: "gocryptfs-squashfs",
                partition_type: "primary-system",
                arch: "riscv64",
                compressor: None
            }
        );
        assert_eq!(
            of(
                0x4005,
                b"\x02\0\0\0\x01\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x00"
            ),
            ObjectData::Signature {
                hash_type: "sha384",
                fingerprint: format!("0102{}", "0".repeat(36))
            }
        );
        assert_eq!(
            of(0x4008, b"\x02\0\0\0\x00\x02\0\0"),
            ObjectData::CryptoMessage {
                format: "pem",
                message_type: "rsa-oaep"
            }
        );
        assert_eq!(
            of(0x4009, b"\x08\0\0\0"),
            ObjectData::Sbom {
                format: "syft-json"
            }
        );
        assert_eq!(
            of(0x400A, b"sha256:00\0\0"),
            ObjectData::OciRootIndex {
                digest: "sha256:00".to_owned()
            }
        );
        assert_eq!(of(0x400C, b""), ObjectData::Unknown(0x400C));
        // Of SHA-512, and of a key of version 6.
        let digest = format!("sha512:{}", "ab".repeat(64));
        assert_eq!(
            of(0x400B, digest.as_bytes()),
            ObjectData::OciBlob { digest }
        );
        let key = [&[1, 0, 0, 0][..], &[0xAB; 25]].concat();
        assert_eq!(
            of(0x4005, &key),
            ObjectData::Signature {
                hash_type: "sha256",
                fingerprint: format!("{}{}", "AB".repeat(25), "00".repeat(7))
            }
        );
    }

    /// apptainer/sif `pkg/sif/sif.go`, `sbom.go`.
    #[test]
    fn numbers_have_their_names() {
        let names = |of: fn(i32) -> &'static str| (0..10).map(of).collect::<Vec<_>>().join(" ");
        assert_eq!(
            names(fs_name),
            "unknown squashfs ext3 archive raw encrypted-squashfs gocryptfs-squashfs unknown unknown unknown"
        );
        assert_eq!(
            names(part_name),
            "unknown system primary-system data overlay unknown unknown unknown unknown unknown"
        );
        assert_eq!(
            names(hash_name),
            "unknown sha256 sha384 sha512 blake2s blake2b unknown unknown unknown unknown"
        );
        assert_eq!(
            names(sbom_name),
            "unknown cyclonedx-json cyclonedx-xml github-json spdx-json spdx-rdf spdx-tag-value spdx-yaml \
             syft-json unknown"
        );
        let types: Vec<_> = (0x4001..=0x400C).map(type_name).collect();
        assert_eq!(
            types.join(", "),
            "definition file, environment variables, labels, partition, signature, generic JSON, generic, \
             cryptographic message, SBOM, OCI root index, OCI blob, unknown type"
        );
    }

    #[test]
    fn every_field_is_its_own() {
        let object = descriptor(|bytes| {
            bytes[0..4].copy_from_slice(&0x4007i32.to_le_bytes());
            bytes[5] = 1;
            for (at, number) in (17..73).step_by(8).zip(10u64..) {
                bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
            }
            bytes[73] = b'n';
        })
        .to_object(5);
        let seconds = |time: Option<jiff::Timestamp>| time.map(|time| time.as_second());
        assert_eq!((object.slot, object.id, object.name.as_str()), (5, 1, "n"));
        assert_eq!(
            (object.offset, object.size, object.padded_size),
            (10, 11, 12)
        );
        assert_eq!(seconds(object.create_time), Some(13));
        assert_eq!(seconds(object.update_time), Some(14));
        assert_eq!((object.uid, object.gid), (15, 16));
    }
}
