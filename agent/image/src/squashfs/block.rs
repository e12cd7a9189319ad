//! Decompression of one block, within bounds that the caller sets.

use backhand::compression::{CompressionAction, Compressor, DefaultCompressor};

use super::superblock::RawSuperblock;
use crate::error::SquashfsError;
use crate::limits;

/// The compressor of a file system, if it can be read here.
pub(super) fn compressor(superblock: &RawSuperblock) -> Result<Compressor, SquashfsError> {
    match superblock.compressor.get() {
        1 => Ok(Compressor::Gzip),
        4 => Ok(Compressor::Xz),
        5 => Ok(Compressor::Lz4),
        6 => Ok(Compressor::Zstd),
        other => Err(SquashfsError::Compressor {
            compressor: superblock
                .compressor_name()
                .map_or_else(|| other.to_string(), str::to_owned),
        }),
    }
}

/// Decompresses a block that lies at `offset` to no more than `most` bytes.
pub(super) fn decompress(
    bytes: &[u8],
    most: usize,
    compressor: Compressor,
    offset: u64,
) -> Result<Vec<u8>, SquashfsError> {
    let fault = |reason: String| SquashfsError::Decompress { offset, reason };
    if compressor == Compressor::Xz {
        check_xz_dictionary(bytes).map_err(fault)?;
    }
    let mut out = Vec::with_capacity(most);
    DefaultCompressor
        .decompress(bytes, &mut out, compressor)
        .map_err(|error| fault(error.to_string()))?;
    if out.len() > most {
        return Err(fault(format!("more than {most} bytes")));
    }
    Ok(out)
}

/// liblzma allocates the dictionary that the block header asks for, up to 4 GiB, before it looks at
/// a byte of data; mksquashfs never asks for more than a block. Layout: the .xz file format 1.2,
/// sections 2.1.1, 3.1 and 5.3.1.
fn check_xz_dictionary(bytes: &[u8]) -> Result<(), String> {
    const STREAM_HEADER: usize = 12;
    const LZMA2: u64 = 0x21;
    let malformed = || "malformed xz block header".to_owned();
    let flags = *bytes.get(STREAM_HEADER + 1).ok_or_else(malformed)?;
    let mut rest = bytes.iter().skip(STREAM_HEADER + 2);
    let number = |rest: &mut dyn Iterator<Item = &u8>| -> Result<u64, String> {
        let mut value = 0u64;
        for shift in (0..63).step_by(7) {
            let byte = rest.next().ok_or_else(malformed)?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(malformed())
    };
    for present in [flags & 0x40 != 0, flags & 0x80 != 0] {
        if present {
            number(&mut rest)?;
        }
    }
    for _ in 0..=flags & 3 {
        let (id, length) = (number(&mut rest)?, number(&mut rest)?);
        let mut property = 0u8;
        for _ in 0..length {
            property = *rest.next().ok_or_else(malformed)?;
        }
        if id == LZMA2 {
            let bits = u32::from(property);
            let size = 1u64
                .checked_shl(bits / 2 + 11)
                .and_then(|unit| unit.checked_mul(u64::from(2 | (bits & 1))))
                .ok_or_else(malformed)?;
            if size > limits::XZ_DICTIONARY_MAX {
                return Err(format!("xz dictionary of {size} bytes"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xz_dictionaries_are_bounded() {
        // Flags of the block header, and what follows them: sizes if flags say so, then filters.
        let header = |flags: u8, rest: &[u8]| [&[0; 12][..], &[2, flags], rest, &[0; 3]].concat();
        let lzma2 = |dictionary: u8| [0x21, 1, dictionary];
        // For jumps of x86, with an offset that is no dictionary's.
        let x86 = [4, 4, 0, 0, 0, 60];
        for (flags, rest, is_taken) in [
            // 16 is (2|0) << 19 = 1 MiB, 22 is 8 MiB, 23 is 12 MiB, 40 is 4 GiB, and above are none.
            (0, lzma2(16).to_vec(), true),
            (0, lzma2(22).to_vec(), true),
            (0, lzma2(23).to_vec(), false),
            (0, lzma2(40).to_vec(), false),
            (0, lzma2(41).to_vec(), false),
            (0, lzma2(255).to_vec(), false),
            (0x40, [&[0x80, 1][..], &lzma2(16)].concat(), true),
            (0x40, [&[0x80, 1][..], &lzma2(40)].concat(), false),
            (0x80, [&[0x80, 1][..], &lzma2(16)].concat(), true),
            (0x80, [&[0x80, 1][..], &lzma2(40)].concat(), false),
            (0xC0, [&[9, 0x80, 1][..], &lzma2(40)].concat(), false),
            (1, [&x86[..], &lzma2(16)].concat(), true),
            (1, [&x86[..], &lzma2(40)].concat(), false),
            (0, vec![0x80; 30], false),
        ] {
            let taken = check_xz_dictionary(&header(flags, &rest)).is_ok();
            assert_eq!(taken, is_taken, "{flags:#x} {rest:?}");
        }
        assert!(check_xz_dictionary(b"\xFD7zXZ").is_err());
        let said = decompress(&header(0, &lzma2(40)), 9, Compressor::Xz, 7).unwrap_err();
        assert!(
            said.to_string()
                .ends_with("xz dictionary of 4294967296 bytes"),
            "{said}"
        );
    }

    #[test]
    fn a_block_has_no_more_than_it_may() {
        // zlib, with the bytes as they are.
        let four = b"\x78\x01\x01\x04\x00\xfb\xffabcd\x03\xd8\x01\x8b";
        let of = |most| decompress(four, most, Compressor::Gzip, 7);
        assert_eq!(of(4).as_deref(), Ok(&b"abcd"[..]));
        let said = of(3).unwrap_err().to_string();
        assert!(said.ends_with("more than 3 bytes"), "{said}");
    }
}
