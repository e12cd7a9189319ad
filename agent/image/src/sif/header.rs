//! The global header of a SIF: 128 bytes, little endian, no padding.
//!
//! Source: apptainer/sif `pkg/sif/sif.go: header`, architecture codes `pkg/sif/arch.go`.

use uuid::Uuid;
use zerocopy::little_endian::I64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the global header.
pub(crate) const HEADER_LEN: usize = size_of::<RawHeader>();

/// Where the magic begins; before it is the launch script.
pub(crate) const MAGIC_OFFSET: usize = 32;

/// `SIF_MAGIC` with its NUL.
pub(crate) const MAGIC: &[u8; 10] = b"SIF_MAGIC\0";

/// The global header as it lies in the file.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawHeader {
    /// Launch script, NUL padded; may be empty.
    pub(crate) launch: [u8; 32],
    /// [`MAGIC`].
    pub(crate) magic: [u8; 10],
    /// Version, `NN\0`.
    pub(crate) version: [u8; 3],
    /// Architecture code of the primary partition, `NN\0`.
    pub(crate) arch: [u8; 3],
    /// UUID in text order; nil where there is none.
    pub(crate) uuid: [u8; 16],
    /// Seconds since 1970; 0 and Go's zero time mean none.
    pub(crate) created: I64,
    /// As `created`.
    pub(crate) modified: I64,
    /// Descriptors not in use.
    pub(crate) descriptors_free: I64,
    /// Descriptors in the table.
    pub(crate) descriptors_total: I64,
    /// Where the table begins.
    pub(crate) descriptors_offset: I64,
    /// Bytes of the table.
    pub(crate) descriptors_size: I64,
    /// Where the data area begins.
    pub(crate) data_offset: I64,
    /// Bytes of the data area, padding included.
    pub(crate) data_size: I64,
}

impl RawHeader {
    /// The version's text, without its NUL.
    #[must_use]
    pub(crate) fn version_text(&self) -> &[u8] {
        until_nul(&self.version)
    }

    /// UUID, unless nil.
    #[must_use]
    pub(crate) fn uuid(&self) -> Option<Uuid> {
        Some(Uuid::from_bytes(self.uuid)).filter(|uuid| !uuid.is_nil())
    }
}

/// Go's name of an architecture code (`arch.go: archType.GoArch`); `unknown` for any other.
#[must_use]
pub(crate) fn arch_name(code: &[u8]) -> &'static str {
    match until_nul(code) {
        b"01" => "386",
        b"02" => "amd64",
        b"03" => "arm",
        b"04" => "arm64",
        b"05" => "ppc64",
        b"06" => "ppc64le",
        b"07" => "mips",
        b"08" => "mipsle",
        b"09" => "mips64",
        b"10" => "mips64le",
        b"11" => "s390x",
        b"12" => "riscv64",
        b"13" => "loong64",
        _ => "unknown",
    }
}

/// Bytes before the first NUL, or all.
pub(crate) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_that_of_the_reference_library() {
        assert_eq!(HEADER_LEN, 128);
        let mut bytes = [0u8; HEADER_LEN];
        bytes[32..42].copy_from_slice(MAGIC);
        bytes[42..45].copy_from_slice(b"01\0");
        bytes[45..48].copy_from_slice(b"13\0");
        bytes[48] = 0xAB;
        for (index, at) in (64..128).step_by(8).enumerate() {
            bytes[at] = u8::try_from(index + 1).unwrap_or_default();
        }
        let header = RawHeader::ref_from_bytes(&bytes).unwrap();
        assert_eq!(&header.magic, MAGIC);
        assert_eq!(header.version_text(), b"01");
        assert_eq!(arch_name(&header.arch), "loong64");
        assert_eq!(header.uuid().map(|uuid| uuid.as_bytes()[0]), Some(0xAB));
        assert_eq!(
            [
                header.created,
                header.modified,
                header.descriptors_free,
                header.descriptors_total,
                header.descriptors_offset,
                header.descriptors_size,
                header.data_offset,
                header.data_size
            ]
            .map(I64::get),
            [1, 2, 3, 4, 5, 6, 7, 8]
        );
    }
}
