//! Damage never makes an image vanish, and never a panic: cut at any byte, any byte changed.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sifter_image::record::{Image, Status};
use sifter_image::{NotImage, ReadAt, Verdict};

use crate::corpus::{shared, skipped, verdict, young_verdict};
use crate::made;
use crate::refused::REFUSED;

/// The images that are files, and made ones where there is no corpus.
fn images() -> Vec<(PathBuf, Vec<u8>)> {
    let mut images = vec![
        (PathBuf::from("/made/native.sif"), made::native().bytes()),
        (PathBuf::from("/made/empty.sif"), made::Sif::new().bytes()),
    ];
    let Some(shared) = shared() else {
        skipped("damage to the corpus");
        return images;
    };
    for directory in [
        "apptainer",
        "legacy",
        "oci-sif",
        "upstream",
        "upstream/oci-tools",
        "upstream/sif-lib",
    ] {
        for entry in fs::read_dir(shared.join("images").join(directory)).expect("a corpus") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                let bytes = fs::read(&path).expect("an image");
                images.push((path, bytes));
            }
        }
    }
    images
}

/// The first `end` bytes of a file, without a copy.
struct Cut<'a>(&'a [u8], usize);

impl ReadAt for Cut<'_> {
    fn size(&self) -> u64 {
        self.1 as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.0[..self.1].read_exact_at(buf, offset)
    }
}

/// A file with one byte changed, without a copy.
struct Flipped<'a> {
    bytes: &'a [u8],
    at: usize,
    mask: u8,
}

impl ReadAt for Flipped<'_> {
    fn size(&self) -> u64 {
        self.bytes.size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.bytes.read_exact_at(buf, offset)?;
        let offset = usize::try_from(offset).expect("in memory");
        if let Some(byte) = self
            .at
            .checked_sub(offset)
            .and_then(|within| buf.get_mut(within))
        {
            *byte ^= self.mask;
        }
        Ok(())
    }
}

pub(crate) fn listed(verdict: Verdict, what: &dyn std::fmt::Display) -> Image {
    match verdict {
        Verdict::Image(image) => *image,
        Verdict::NotImage(not) => panic!("{what}: {not:?}"),
    }
}

/// What a cut image must be: whole only where all its objects are.
fn check_cut(path: &Path, bytes: &[u8], end: usize) {
    let what = format!("{} cut at {end} of {}", path.display(), bytes.len());
    let image = listed(verdict(&Cut(bytes, end), path), &what);
    let whole = image.status == Status::Ready;
    assert_eq!(
        image.status_message.is_empty() || image.status_message.starts_with(REFUSED),
        whole,
        "{what}: {}",
        image.status_message
    );
    if !whole {
        assert_eq!(image.status, Status::Failure, "{what}");
        let young = listed(young_verdict(&Cut(bytes, end), path), &what);
        assert_eq!(
            young.status,
            Status::Transfer,
            "{what}: {}",
            young.status_message
        );
    } else {
        let last = image
            .objects
            .iter()
            .map(|object| object.offset + object.size)
            .max();
        assert!(last.unwrap_or(128) <= end as u64, "{what}: READY");
    }
}

#[test]
fn an_image_cut_at_any_byte_of_its_head_is_listed() {
    for (path, bytes) in images() {
        for end in 0..bytes.len().min(4096 + 3 * 585) {
            if end < 140 || end % 61 == 0 {
                check_cut(&path, &bytes, end);
            }
        }
    }
}

#[test]
fn an_image_cut_beside_any_object_is_listed() {
    for (path, bytes) in images() {
        let whole = listed(verdict(&bytes, &path), &path.display());
        if whole
            .status_message
            .contains("expected a squashfs of 96 bytes")
        {
            // What a test of the sif library takes for one.
            continue;
        }
        assert_eq!(whole.status, Status::Ready);
        for object in &whole.objects {
            for end in [object.offset, object.offset + object.size] {
                let end = usize::try_from(end).expect("in memory");
                for end in [end.saturating_sub(1), end, end + 1] {
                    check_cut(&path, &bytes, end.min(bytes.len()));
                }
            }
        }
    }
}

#[test]
fn an_image_with_any_byte_of_its_head_changed_is_listed() {
    for (path, bytes) in images() {
        // Every byte of header, superblocks and the fields of descriptors; of names, digests and
        // padding only some.
        let matters = |at: usize| match at {
            0..128 | 1055..1200 => true,
            4096.. => match (at - 4096) % 585 {
                0..41 => true,
                41..76 | 201..216 => at.is_multiple_of(4),
                _ => at.is_multiple_of(61),
            },
            _ => at.is_multiple_of(211),
        };
        for at in (0..bytes.len().min(4096 + 3 * 585)).filter(|at| matters(*at)) {
            for mask in if at < 128 { &[0x01, 0xFF][..] } else { &[0x81] } {
                let mask = *mask;
                let what = format!("{} with byte {at} ^ {mask:#x}", path.display());
                let image = listed(
                    verdict(
                        &Flipped {
                            bytes: &bytes,
                            at,
                            mask,
                        },
                        &path,
                    ),
                    &what,
                );
                // Of a READY image it may be said that what is inside is not read, or that it is refused.
                let said = !image.status_message.is_empty();
                let of_ready = image.status_message.contains("labels and definition")
                    || image.status_message.starts_with(REFUSED);
                match image.status {
                    Status::Ready => assert!(!said || of_ready, "{what}"),
                    _ => assert!(said && !of_ready, "{what}"),
                }
            }
        }
    }
}

/// The descriptors are written before the header.
#[test]
fn objects_that_the_header_does_not_count() {
    const FREE: std::ops::Range<usize> = 80..88;
    let mut bytes = made::native().bytes();
    for (free, status) in [
        (48u64, Status::Failure),
        (0, Status::Ready),
        (49, Status::Ready),
    ] {
        bytes[FREE].copy_from_slice(&free.to_le_bytes());
        let path = Path::new("/a/x.sif");
        let found = listed(verdict(&bytes, path), &free);
        assert_eq!(found.status, status, "{free}");
        if status == Status::Failure {
            assert_eq!(
                found.status_message,
                "incomplete: the header counts no object (offsets 80 to 96), the descriptor table has 3"
            );
            assert_eq!(
                listed(young_verdict(&bytes, path), &free).status,
                Status::Transfer
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_damage_anywhere_is_listed(
        which in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
        mask in 1u8..,
        cut in any::<bool>(),
    ) {
        thread_local! {
            static IMAGES: Vec<(PathBuf, Vec<u8>)> = images();
        }
        IMAGES.with(|images| {
            let (path, bytes) = which.get(images);
            let at = place.index(bytes.len());
            if cut {
                check_cut(path, bytes, at);
            } else {
                let what = format!("{} with byte {at} ^ {mask:#x}", path.display());
                listed(verdict(&Flipped { bytes, at, mask }, path), &what);
            }
        });
    }

    #[test]
    fn any_bytes_at_all_end(
        mut bytes in prop::collection::vec(any::<u8>(), 0..9000),
        magic in 0usize..6,
        name in prop::sample::select(vec!["/a/x.sif", "/a/x", "/a/x.img"]),
    ) {
        let heads: [(usize, &[u8]); 6] = [
            (0, b""),
            (32, b"SIF_MAGIC\x0001\0"),
            (0, b"hsqs"),
            (0, b"#!/usr/bin/env run-singularity\nhsqs"),
            (1080, b"\x53\xef"),
            (0, b"#!/usr/bin/env run-singularity\n"),
        ];
        let (at, head) = heads[magic];
        if bytes.len() >= at + head.len() {
            bytes[at..at + head.len()].copy_from_slice(head);
        }
        verdict(&bytes, Path::new(name));
    }
}

#[test]
fn a_file_that_is_no_image_is_none() {
    let text = b"#!/bin/sh\n# a script that has the name of an image and is longer than a header\necho hello\n".repeat(100);
    let noise: Vec<u8> = (0..20_000u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect();
    let zeros = vec![0u8; 10_000];
    let cases: [(&[u8], &str, NotImage); 6] = [
        (&text, "/a/run.sh", NotImage::OtherContent),
        (&text, "/a/run.sif", NotImage::Misnamed),
        (&noise, "/a/camera.sif", NotImage::Misnamed),
        (&noise, "/a/noise", NotImage::OtherContent),
        (&zeros, "/a/zeros", NotImage::OtherContent),
        (b"", "/a/empty", NotImage::OtherContent),
    ];
    for (bytes, path, expected) in cases {
        assert_eq!(
            verdict(&bytes, Path::new(path)),
            Verdict::NotImage(expected),
            "{path}"
        );
    }
}

#[test]
fn an_image_name_over_zeros_is_being_written() {
    for bytes in [vec![], vec![0u8; 1], vec![0; 4096], vec![0; 1 << 20]] {
        for name in ["/a/x.sif", "/a/x.simg", "/a/x.img.pulling.17", "/a/x.sqsh"] {
            let path = Path::new(name);
            let young = listed(young_verdict(&bytes, path), &name);
            assert_eq!(young.status, Status::Transfer, "{name}");
            let old = listed(verdict(&bytes, path), &name);
            assert_eq!(old.status, Status::Failure, "{name}");
            assert!(!old.status_message.is_empty());
        }
    }
}

#[test]
fn a_file_from_the_near_future_is_young_and_from_the_far_future_not() {
    use crate::corpus::subject;
    use sifter_image::{Options, probe};
    let path = Path::new("/a/x.sif");
    for (age, status) in [
        (-60, Status::Transfer),
        (-86_400, Status::Failure),
        (899, Status::Transfer),
        (900, Status::Failure),
    ] {
        let verdict = probe(&vec![0u8; 10], &subject(path, age), &Options::default());
        assert_eq!(
            listed(verdict.expect("memory"), &age).status,
            status,
            "{age}"
        );
    }
}

/// One broken number each, and what is said of it.
#[test]
fn what_is_wrong_is_said_with_place_and_numbers() {
    let put = |bytes: &mut Vec<u8>, at: usize, value: i64| {
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    };
    let slot = |slot: usize, field: usize| 4096 + slot * 585 + field;
    type Change = Box<dyn Fn(&mut Vec<u8>)>;
    let cases: Vec<(&str, Change)> = vec![
        (
            "truncated: object 3 (partition) ends at byte 36960 but the file has 36000",
            Box::new(|bytes| bytes.truncate(36_000)),
        ),
        (
            "truncated: the SIF header ends at byte 128 but the file has 100",
            Box::new(|bytes| bytes.truncate(100)),
        ),
        (
            "truncated: the descriptor table ends at byte 32176 but the file has 20000",
            Box::new(|bytes| bytes.truncate(20_000)),
        ),
        (
            "corrupt: magic damaged at offset 33: expected 0x49, found 0x21",
            Box::new(|bytes| bytes[33] = b'!'),
        ),
        (
            "corrupt: magic damaged at offset 33: expected 0x49, found 0x21 (and one more byte)",
            Box::new(|bytes| bytes[33..35].fill(b'!')),
        ),
        (
            "unknown SIF version at offset 42: expected 00 or 01, found \"02\"",
            Box::new(|bytes| bytes[43] = b'2'),
        ),
        (
            "corrupt: descriptor table of 9000 entries and 28080 bytes at byte 4096",
            Box::new(move |bytes| put(bytes, 88, 9000)),
        ),
        (
            "corrupt: descriptor table of -1 entries",
            Box::new(move |bytes| put(bytes, 88, -1)),
        ),
        (
            "corrupt: descriptor table of 48 entries and 28080 bytes at byte 0",
            Box::new(move |bytes| put(bytes, 96, 0)),
        ),
        (
            "corrupt: descriptor table of 48 entries and 28080 bytes at byte 127",
            Box::new(move |bytes| put(bytes, 96, 127)),
        ),
        (
            "corrupt: descriptor table of 48 entries and 28079 bytes at byte 4096",
            Box::new(move |bytes| put(bytes, 104, 28_079)),
        ),
        (
            "truncated: object 2 (generic JSON) ends at byte 32390 but the file has 32300",
            Box::new(|bytes| bytes.truncate(32_300)),
        ),
        (
            "corrupt: object 2 (generic JSON) of -5 bytes at byte",
            Box::new(move |bytes| put(bytes, slot(1, 25), -5)),
        ),
        (
            "corrupt: object 1 (definition file) of 36 bytes at byte 64: expected within the data area",
            Box::new(move |bytes| put(bytes, slot(0, 17), 64)),
        ),
        (
            "corrupt: object 3 begins at byte 32768, within object 2, which ends at 9223372036854808019",
            Box::new(move |bytes| put(bytes, slot(1, 25), i64::MAX)),
        ),
        (
            "corrupt: object 2 begins at byte 32212, within object 1, which ends at 32276",
            Box::new(move |bytes| put(bytes, slot(0, 25), 100)),
        ),
        (
            "corrupt: the header counts 9223372036854775807 objects (offsets 80 to 96), the table has 2: slot 1",
            Box::new(move |bytes| {
                bytes[slot(1, 4)] = 0;
                put(bytes, 80, i64::MIN);
            }),
        ),
        (
            "corrupt: slot 1 at byte 4681: expected a data type of 0x4001 to 0x40ff, found 0x4106",
            Box::new(move |bytes| bytes[slot(1, 1)] ^= 1),
        ),
        (
            "corrupt: the header counts 3 objects (offsets 80 to 96), the table has 2: slot 1 at byte 4681 is marked unused",
            Box::new(move |bytes| bytes[slot(1, 4)] = 0),
        ),
        (
            "corrupt: object 3 (partition): expected a squashfs at byte 32768, found 68737178",
            Box::new(|bytes| bytes[32_771] = b'x'),
        ),
        (
            "corrupt: object 3 (partition): squashfs ends at byte",
            Box::new(move |bytes| put(bytes, 32_768 + 40, 1 << 40)),
        ),
    ];
    for (expected, change) in cases {
        let mut bytes = made::native().bytes();
        change(&mut bytes);
        let image = listed(verdict(&bytes, Path::new("/a/x.sif")), &expected);
        assert_eq!(image.status, Status::Failure, "{expected}");
        assert!(
            image.status_message.starts_with(expected),
            "expected {expected:?}\n   found {:?}",
            image.status_message
        );
    }
}
