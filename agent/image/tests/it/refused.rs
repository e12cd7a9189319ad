//! What is whole and yet refused by Apptainer and Singularity is READY with a message that says so. Each case
//! was tried with apptainer 1.4.5.

use std::path::Path;

use sifter_image::Verdict;
use sifter_image::record::{Image, Status};

use crate::corpus::verdict;
use crate::made::{INSPECT, Object, Sif, hollow_squashfs};

const EXT2: &[u8] = include_bytes!("data/box.ext2");
const EXT3: &[u8] = include_bytes!("data/box.ext3");
const EXT4: &[u8] = include_bytes!("data/box.ext4");
/// How the message begins.
pub(crate) const REFUSED: &str = "apptainer and singularity refuse the image: ";
const LAUNCH: &[u8] = b"#!/usr/bin/env run-singularity\n";

fn image(verdict: Verdict) -> Image {
    match verdict {
        Verdict::Image(image) => *image,
        Verdict::NotImage(not) => panic!("{not:?}"),
    }
}

/// File system, part type and content.
type Partitions<'a> = &'a [(i32, i32, &'a [u8])];

fn sif(partitions: Partitions<'_>) -> Sif {
    let mut sif = Sif::new().with(Object::new(0x4006, "inspect-metadata.json", INSPECT));
    for (file_system, part, bytes) in partitions {
        sif = sif.with(Object::partition(*file_system, *part, b"02", *bytes));
    }
    sif
}

/// An ext3 with a byte of its superblock's features (compatible, incompatible, read-only) changed.
fn ext3(features: usize, byte: usize, change: impl Fn(u8) -> u8) -> Vec<u8> {
    let mut bytes = EXT3.to_vec();
    let place = &mut bytes[1024 + 92 + features * 4 + byte];
    *place = change(*place);
    bytes
}

#[test]
fn ext_file_systems_that_are_not_ext3() {
    let cases: [(Vec<u8>, &str); 9] = [
        (EXT3.to_vec(), ""),
        (ext3(1, 0, |byte| byte | 4), ""),
        (EXT2.to_vec(), "no journal"),
        (
            EXT4.to_vec(),
            "extent, 64bit, flex_bg, huge_file, dir_nlink, extra_isize, metadata_csum",
        ),
        (ext3(1, 0, |byte| byte | 0x80), "64bit"),
        (ext3(1, 2, |byte| byte | 0x80), "0x800000"),
        (ext3(2, 0, |byte| byte | 0x18), "huge_file, uninit_bg"),
        (ext3(2, 1, |byte| byte | 1), "quota"),
        (
            ext3(0, 0, |byte| byte & !4)
                .into_iter()
                .chain([0])
                .collect(),
            "no journal",
        ),
    ];
    for (bytes, why) in cases {
        let bare = image(verdict(&bytes, Path::new("/a/x.img")));
        let behind = image(verdict(&[LAUNCH, &bytes].concat(), Path::new("/a/x")));
        let inside = image(verdict(
            &sif(&[(2, 2, &bytes)]).bytes(),
            Path::new("/a/x.sif"),
        ));
        let overlay = image(verdict(
            &sif(&[(1, 2, &hollow_squashfs(4096)), (2, 4, &bytes)]).bytes(),
            Path::new("/a/x.sif"),
        ));
        assert_eq!(overlay.status_message, "", "{why}");
        for found in [bare, behind, inside] {
            assert_eq!(found.status, Status::Ready, "{why}");
            let refusal = format!(
                "{REFUSED}the ext file system is not ext3 ({why}): make it again with mke2fs -t ext3, or build a SIF of it"
            );
            let message = found.status_message.as_str();
            if why.is_empty() {
                assert!(!message.contains("refuse"), "{message}");
            } else {
                assert!(message.starts_with(&refusal), "{why}: {message}");
            }
        }
    }
}

#[test]
fn partitions_without_a_root_file_system() {
    let hollow = hollow_squashfs(4096);
    let squashfs = hollow.as_slice();
    let of_type = |kind: &str| {
        format!(
            "object 2 (primary system partition) has a file system of type {kind}: build it again"
        )
    };
    let none = "no partition is marked as the primary system partition: mark object 2 with apptainer sif setprim";
    let cases: [(Partitions<'_>, &str); 12] = [
        (&[(1, 2, squashfs)], ""),
        (&[(1, 2, squashfs), (1, 1, squashfs)], ""),
        (&[(1, 2, squashfs), (9, 9, squashfs)], ""),
        (&[(1, 3, squashfs), (2, 4, EXT3)], ""),
        (&[], ""),
        (
            &[(1, 2, squashfs), (1, 4, squashfs), (1, 2, squashfs)],
            "objects 2 and 4 are both primary system partitions: delete one with apptainer sif del",
        ),
        (&[(1, 1, squashfs)], none),
        (
            &[(1, 4, squashfs), (1, 9, squashfs), (1, 1, squashfs)],
            &none.replace('2', "4"),
        ),
        (
            &[(1, 9, squashfs), (1, 4, squashfs)],
            "no partition is marked as the primary system partition: build it again",
        ),
        (&[(3, 2, squashfs)], &of_type("archive (3)")),
        (&[(4, 2, squashfs)], &of_type("raw (4)")),
        (&[(9, 2, squashfs)], &of_type("unknown (9)")),
    ];
    for (partitions, message) in cases {
        let found = image(verdict(&sif(partitions).bytes(), Path::new("/a/x.sif")));
        let message = match message {
            "" => String::new(),
            why => format!("{REFUSED}{why}"),
        };
        assert_eq!(
            (found.status, found.status_message),
            (Status::Ready, message)
        );
    }
}

/// The runtimes try to mount it, which fails.
#[test]
fn a_squashfs_that_nothing_mounts() {
    const LZMA: &str = "the squashfs is compressed with lzma, which neither Linux nor squashfuse mounts: build the \
                        image again with another compressor";
    for (squashfs, is_said) in [
        (&include_bytes!("data/box-gzip.squashfs")[..], false),
        // That is a matter of how Linux was built.
        (include_bytes!("data/box-lzo.squashfs"), false),
        (include_bytes!("data/box-lzma.squashfs"), true),
    ] {
        let bare = image(verdict(&squashfs, Path::new("/a/x.sqsh")));
        let primary = image(verdict(
            &sif(&[(1, 2, squashfs)]).bytes(),
            Path::new("/a/x.sif"),
        ));
        for found in [bare, primary] {
            assert_eq!(found.status, Status::Ready);
            assert_eq!(
                found.status_message.ends_with(LZMA),
                is_said,
                "{}",
                found.status_message
            );
        }
        let overlay = image(verdict(
            &sif(&[(1, 2, &hollow_squashfs(4096)), (1, 4, squashfs)]).bytes(),
            Path::new("/a/x.sif"),
        ));
        assert_eq!(overlay.status_message, "");
    }
}

#[test]
fn a_version_before_the_first() {
    let mut sif = sif(&[(1, 2, &hollow_squashfs(4096))]);
    sif.version = b"00";
    let found = image(verdict(&sif.bytes(), Path::new("/a/x.sif")));
    assert_eq!(found.status, Status::Ready);
    assert_eq!(
        found.status_message,
        format!("{REFUSED}SIF version 00 is that of the alphas of Singularity 3.0: build it again")
    );
}
